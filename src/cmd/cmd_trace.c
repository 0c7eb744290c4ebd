/* cmd_trace.c - `dstar trace`: which experts compute which token of prompts and greedy answers.
 *
 * Every dialogue has a session of its own, so that nothing is taken from a cache and every token is
 * computed, and hence recorded, once. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "engine_opts.h"
#include "file.h"
#include "interrupt.h"
#include "measure.h"
#include "term.h"

#define MAX_TEXT_BYTES ((size_t)1 << 28)

struct trace_opts {
    struct engine_opts model;
    const char *out, *file;
    struct opt_texts set;
    int max_tokens, limit;
    bool steps;
};

#define AT(field) offsetof(struct trace_opts, field)

static const struct opt options[] = {
    { "out", 'o', OPT_TEXT, "FILE", AT(out), 0, 0, NULL,
      "trace to write; never compressed, whatever its name: gzip it afterwards" },
    { "file", 'f', OPT_TEXT, "FILE", AT(file), 0, 0, NULL,
      "one user's message; -: standard input" },
    { "set", 0, OPT_TEXTS, "FILE", AT(set), 0, 0, NULL,
      "dialogues, one JSON object a line: messages, and if need be tools and thinking (true); a "
      "last message of the assistant is left for the model to say; may be repeated" },
    { "max-tokens", 'n', OPT_INT, "N", AT(max_tokens), 1, 1 << 24, "1000",
      "end an answer after N tokens" },
    { "limit", 0, OPT_INT, "N", AT(limit), 0, 1 << 30, "0",
      "begin no dialogue once N tokens are recorded; 0: take all" },
    { "steps", 0, OPT_FLAG, NULL, AT(steps), 0, 0, NULL,
      "also record which tokens were computed together: a simulation then decides as this run" },
};

struct trace_run {
    const struct trace_opts *o;
    dstar_engine *engine;
    struct trace *trace;
    struct progress progress;
    int n_dialogue;
};

/* Compute the prompt, then draw and compute until the turn ends. */
static int speak(struct trace_run *r, dstar_session *s, const struct dstar_prompt *prompt,
                 struct dstar_error *error)
{
    struct dstar_sampling greedy;
    int32_t id;
    int left = 1, more = 1;
    dstar_sampling_init(&greedy);
    greedy.temperature = 0;
    TRY(dstar_session_sampling(s, &greedy, error));
    TRY(dstar_session_set(s, prompt->tokens.id, prompt->tokens.n, error));
    for (int n = 0; more > 0 && n < r->o->max_tokens; n++) {
        more = dstar_next(s, &id, error);
        progress_show(&r->progress, trace_n_tok(r->trace), r->o->limit);
    }
    while (more > 0 && left > 0) /* the last token was drawn, but not computed */
        left = dstar_session_step(s, error);
    return MIN(more, left);
}

/* messages and tools: JSON. */
static int record(struct trace_run *r, const char *messages, const char *tools, bool thinking,
                  struct dstar_error *error)
{
    struct dstar_prompt prompt = { 0 };
    struct dstar_chat chat;
    dstar_session *s = NULL;
    dstar_chat_init(&chat);
    chat.messages = messages;
    chat.tools = tools;
    chat.think = thinking ? DSTAR_THINK_HIGH : DSTAR_THINK_NONE;
    int code = dstar_chat_render(r->engine, &chat, &prompt, error);
    if (code >= 0)
        code = dstar_session_new(&s, r->engine, error);
    if (code >= 0) {
        interrupt_catch(s);
        code = speak(r, s, &prompt, error);
        interrupt_catch(NULL);
    }
    dstar_session_free(s);
    dstar_tokens_release(&prompt.tokens);
    r->n_dialogue++;
    return code;
}

static int record_file(struct trace_run *r, const char *path, struct dstar_error *error)
{
    struct err e = { 0 };
    struct buf text;
    buf_init(&text, MAX_TEXT_BYTES);
    int code = file_read_all(&text, path, &e) < 0 ? fault_of(error, &e) : 0;
    json_t *list = code < 0 ? NULL
                            : json_pack("[{s:s, s:s%}]", "role", "user", "content",
                                        text.data ? text.data : "", text.len);
    char *messages = list ? json_dumps(list, 0) : NULL;
    if (code >= 0 && !messages)
        code = fault_set(error, DSTAR_FORMAT, "%s: found bytes that are not UTF-8 text", path);
    if (code >= 0)
        code = record(r, messages, NULL, false, error);
    free(messages);
    json_decref(list);
    buf_release(&text);
    return code;
}

static int record_line(struct trace_run *r, const char *path, int line, const char *text,
                       size_t len, struct dstar_error *error)
{
    json_error_t why;
    json_t *d = json_loadb(text, len, 0, &why);
    json_t *messages = json_object_get(d, "messages"), *tools = json_object_get(d, "tools");
    size_t n = json_array_size(messages);
    if (n == 0) {
        json_decref(d);
        return fault_set(error, DSTAR_FORMAT, "%s: line %d: %s", path, line,
                         d ? "messages: found none, expected an array of them" : why.text);
    }
    const char *role = json_string_value(json_object_get(json_array_get(messages, n - 1), "role"));
    if (role && strcmp(role, "assistant") == 0)
        json_array_remove(messages, n - 1);
    char *asked = json_dumps(messages, 0);
    char *may_call = json_array_size(tools) ? json_dumps(tools, 0) : NULL;
    int code = asked ? record(r, asked, may_call, json_is_true(json_object_get(d, "thinking")),
                              error)
                     : fault_set(error, DSTAR_NO_MEMORY, "%s: out of memory", path);
    free(asked);
    free(may_call);
    json_decref(d);
    return code;
}

static bool enough(const struct trace_run *r)
{
    return r->o->limit > 0 && trace_n_tok(r->trace) >= r->o->limit;
}

static int record_set(struct trace_run *r, const char *path, struct dstar_error *error)
{
    struct err e = { 0 };
    struct buf all;
    buf_init(&all, MAX_TEXT_BYTES);
    int code = file_read_all(&all, path, &e) < 0 ? fault_of(error, &e) : 0;
    size_t at = 0;
    for (int line = 1; code >= 0 && at < all.len && !enough(r); line++) {
        const char *end = memchr(all.data + at, '\n', all.len - at);
        size_t len = end ? (size_t)(end - all.data) - at : all.len - at;
        if (len > 0)
            code = record_line(r, path, line, all.data + at, len, error);
        at += len + 1;
    }
    buf_release(&all);
    return code;
}

static int trace(struct trace_run *r)
{
    struct dstar_error error;
    struct err e = { 0 };
    int code = trace_begin(&r->trace, r->engine, &e) < 0 ? fault_of(&error, &e) : 0;
    progress_begin(&r->progress, "recording", "tokens", 0);
    if (code >= 0 && r->o->file)
        code = record_file(r, r->o->file, &error);
    for (int i = 0; code >= 0 && i < r->o->set.n && !enough(r); i++)
        code = record_set(r, r->o->set.text[i], &error);
    progress_end(&r->progress);
    if (code >= 0 && trace_write(r->trace, r->o->out, r->o->steps, &e) < 0)
        code = fault_of(&error, &e);
    if (code >= 0)
        term_remark("%d tokens of %d dialogues", trace_n_tok(r->trace), r->n_dialogue);
    trace_end(r->trace);
    return code < 0 ? fault_print(&error) : EXIT_DONE;
}

int cmd_trace(const struct command *command, int n, char **arg)
{
    struct trace_opts o = { 0 };
    struct trace_run r = { .o = &o };
    struct opt_group group[2] = { { "recording", options, COUNT_OF(options), &o },
                                  engine_group(&o.model) };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n || !o.out || (!o.file && o.set.n == 0))
        return opts_wrong(command, "expected --out FILE and --file FILE or --set FILE, and nothing "
                          "else");
    interrupt_catch(NULL);
    status = engine_start(&r.engine, &o.model);
    if (status == 0)
        status = trace(&r);
    dstar_close(r.engine);
    return status;
}
