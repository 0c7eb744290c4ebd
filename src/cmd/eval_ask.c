/* eval_ask.c - prompts from JSON, answers from the model.
 *
 * The messages before the expected one are given as they are in the file, not as the model answered
 * earlier: one slip is one slip. Prompts of a dialogue continue each other, and the session keeps
 * what they have in common. */
#include "eval_ask.h"

#include <stdlib.h>

#include "interrupt.h"
#include "term.h"

#define SLACK_TOKENS 64

int examinee_open(struct examinee *x, struct engine_opts *o)
{
    struct dstar_error error;
    struct dstar_sampling sampling;
    o->quiet = true;
    int status = engine_start(&x->engine, o);
    if (status != 0)
        return status;
    dstar_sampling_init(&sampling);
    sampling.temperature = 0;
    int code = dstar_session_new(&x->session, x->engine, &error);
    if (code >= 0)
        code = dstar_session_sampling(x->session, &sampling, &error);
    return code < 0 ? fault_print(&error) : 0;
}

void examinee_close(struct examinee *x)
{
    dstar_session_free(x->session);
    dstar_close(x->engine);
}

static int ask(struct examinee *x, const struct dstar_chat *chat, int max_tokens, struct answer *a,
               struct dstar_error *error)
{
    struct ask q = { .engine = x->engine, .session = x->session, .chat = *chat,
                     .max_tokens = max_tokens, .quiet = true };
    TRY(answer_get(a, &q, error));
    return a->interrupted ? fault_set(error, DSTAR_CANCELLED, "interrupted") : 0;
}

int examinee_ask(struct examinee *x, const json_t *dialogue, int entry, struct answer *a,
                 struct dstar_error *error)
{
    const json_t *messages = json_object_get(dialogue, "messages");
    const json_t *tools = json_object_get(dialogue, "tools");
    const json_t *expect = json_array_get(json_object_get(dialogue, "expect"), (size_t)entry);
    json_int_t n = json_integer_value(json_object_get(expect, "message"));
    size_t len = json_string_length(json_object_get(expect, "completion"));
    json_t *before = json_array();
    for (json_int_t i = 0; i < n; i++)
        json_array_append(before, json_array_get(messages, (size_t)i));
    char *text = json_dumps(before, 0), *tools_text = tools ? json_dumps(tools, 0) : NULL;
    json_decref(before);
    int code;
    if (!text || (tools && !tools_text)) {
        code = fault_set(error, DSTAR_NO_MEMORY, "no memory for the messages");
    } else {
        struct dstar_chat chat;
        dstar_chat_init(&chat);
        chat.messages = text;
        chat.tools = tools_text;
        chat.think = json_is_true(json_object_get(dialogue, "thinking")) ? DSTAR_THINK_HIGH
                                                                         : DSTAR_THINK_NONE;
        code = ask(x, &chat, (int)MIN(len, (size_t)INT32_MAX / 2) + SLACK_TOKENS, a, error);
    }
    free(text);
    free(tools_text);
    return code;
}

int examinee_ask_text(struct examinee *x, const char *text, int max_tokens, struct answer *a,
                      struct dstar_error *error)
{
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", text);
    char *dump = messages ? json_dumps(messages, 0) : NULL;
    json_decref(messages);
    if (!dump)
        return fault_set(error, DSTAR_ARGUMENT, "prompt: found '%.40s', expected UTF-8", text);
    struct dstar_chat chat;
    dstar_chat_init(&chat);
    chat.messages = dump;
    int code = ask(x, &chat, max_tokens, a, error);
    free(dump);
    return code;
}

const int32_t *examinee_written(const struct examinee *x, const struct answer *a)
{
    int n, done;
    const int32_t *id = dstar_session_tokens(x->session, &n, &done);
    CHECK(a->n_prompt + a->n_answer <= n);
    return id + a->n_prompt;
}

int examinee_fault(int code, const struct dstar_error *error)
{
    return code == DSTAR_CANCELLED ? EXIT_INTERRUPTED : fault_print(error);
}
