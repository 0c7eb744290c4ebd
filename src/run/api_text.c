/* api_text.c - tokens and chat: the part of dwarfstar.h that any thread may call.
 *
 * The tokenizer caches, so encoding takes a lock; decoding only reads. */
#include "api_impl.h"

#include "detok.h"
#include "toolcall.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30)

/* ---- tokens ------------------------------------------------------------------------------- */

int dstar_tokens_add(struct dstar_tokens *tokens, const int32_t *id, int n,
                     struct dstar_error *error)
{
    struct ids list = { tokens->id, tokens->n, tokens->cap };
    struct err e = { 0 };
    int code = 0;
    for (int i = 0; i < n && code == 0; i++)
        if (!ids_add(&list, id[i]))
            code = err_set(&e, ERR_NO_MEMORY, "out of memory for %d tokens", list.n);
    *tokens = (struct dstar_tokens){ list.id, code < 0 ? tokens->n : list.n, list.cap };
    return api_result(error, &e, code);
}

void dstar_tokens_release(struct dstar_tokens *tokens)
{
    free(tokens->id);
    *tokens = (struct dstar_tokens){ 0 };
}

static int need_text(const struct engine *e, struct err *err)
{
    return e->text ? 0
                   : err_set(err, ERR_UNSUPPORTED,
                             "%s: found no tokenizer.json, expected one to turn text into tokens",
                             e->path);
}

static int encode(const struct engine *e, const struct chat_text *text, struct dstar_tokens *out,
                  struct err *err)
{
    struct ids list = { out->id, out->n, out->cap };
    TRY(need_text(e, err));
    lock_take(e->text_lock);
    int code = tokenizer_encode(e->text, text->text.data ? text->text.data : "", text->text.len,
                                text->special, text->n_special, &list, err);
    lock_give(e->text_lock);
    *out = (struct dstar_tokens){ list.id, list.n, list.cap };
    return code;
}

int dstar_tokenise(const dstar_engine *engine, const char *text, size_t len, int special,
                   struct dstar_tokens *out, struct dstar_error *error)
{
    struct err e = { 0 };
    struct text_span all = { 0, len };
    struct chat_text t = {
        .text = { .data = (char *)(uintptr_t)text, .len = len },
        .special = &all,
        .n_special = special && len > 0,
    };
    return api_result(error, &e, encode(&engine->e, &t, out, &e));
}

int dstar_detokenise(const dstar_engine *engine, const int32_t *id, int n, int special,
                     char **text, size_t *len, struct dstar_error *error)
{
    const struct tokenizer *t = engine->e.text;
    struct err e = { 0 };
    struct buf out;
    buf_init(&out, MAX_TEXT_BYTES);
    if (need_text(&engine->e, &e) < 0)
        return api_result(error, &e, (int)e.code);
    for (int i = 0; i < n; i++) {
        size_t bytes;
        const char *piece = tokenizer_bytes(t, id[i], &bytes);
        if (piece && (special || !tokenizer_is_added(t, id[i])))
            buf_add(&out, piece, bytes);
    }
    size_t total = out.len;
    *text = buf_take(&out);
    if (!*text)
        return api_result(error, &e,
                          err_set(&e, ERR_NO_MEMORY, "out of memory for the text of %d tokens", n));
    if (len)
        *len = total;
    return 0;
}

const char *dstar_token_bytes(const dstar_engine *engine, int32_t id, size_t *len)
{
    return engine->e.text ? tokenizer_bytes(engine->e.text, id, len) : NULL;
}

int32_t dstar_token_find(const dstar_engine *engine, const char *string)
{
    return engine->e.text ? tokenizer_find(engine->e.text, string, strlen(string)) : -1;
}

int dstar_token_is_stop(const dstar_engine *engine, int32_t id)
{
    return vocab_is_stop(&engine->e.rules, id);
}

struct dstar_text {
    const struct tokenizer *tokenizer;
    struct detok detok;
    struct buf out;
    bool special;
};

int dstar_text_new(dstar_text **text, const dstar_engine *engine, int special,
                   struct dstar_error *error)
{
    struct err e = { 0 };
    *text = NULL;
    if (need_text(&engine->e, &e) < 0)
        return api_result(error, &e, (int)e.code);
    dstar_text *t = calloc(1, sizeof *t);
    *text = t;
    if (!t)
        return api_result(error, &e, err_set(&e, ERR_NO_MEMORY, "out of memory for a decoder"));
    t->tokenizer = engine->e.text;
    t->special = special;
    detok_init(&t->detok, false);
    buf_init(&t->out, MAX_TEXT_BYTES);
    return 0;
}

void dstar_text_free(dstar_text *text)
{
    if (!text)
        return;
    buf_release(&text->out);
    free(text);
}

static const char *text_out(const dstar_text *text, size_t *len)
{
    if (len)
        *len = text->out.len;
    return text->out.data ? text->out.data : "";
}

const char *dstar_text_push(dstar_text *text, int32_t id, size_t *len)
{
    buf_clear(&text->out);
    if (text->special || !tokenizer_is_added(text->tokenizer, id))
        detok_push(&text->detok, text->tokenizer, id, &text->out);
    return text_out(text, len);
}

const char *dstar_text_end(dstar_text *text, size_t *len)
{
    buf_clear(&text->out);
    detok_finish(&text->detok, &text->out);
    return text_out(text, len);
}

/* ---- chat --------------------------------------------------------------------------------- */

int dstar_think_of(const dstar_engine *engine, const char *word)
{
    enum chat_think think;
    return chat_think_of(engine->e.rules.profile, word, &think) ? (int)think : -1;
}

void dstar_chat_init(struct dstar_chat *chat)
{
    *chat = (struct dstar_chat){ .think = DSTAR_THINK_NONE };
}

static int render_text(struct chat_text *out, const struct engine *e,
                       const struct dstar_chat *chat, struct err *err)
{
    struct chat_options o;
    struct buf whole;
    if (!chat->messages)
        return err_set(err, ERR_ARGUMENT, "chat: messages are missing");
    if (chat->think < DSTAR_THINK_NONE || chat->think > DSTAR_THINK_MAX)
        return err_set(err, ERR_ARGUMENT, "chat: think is %d, expected 0 to 3", chat->think);
    chat_options_init(&o);
    o.profile = e->rules.profile;
    o.think = (enum chat_think)chat->think;
    o.drop_thinking = !chat->keep_reasoning;
    o.parse_special = chat->parse_special;
    o.developer_is_system = true;
    if (!chat->tools)
        return chat_render(out, chat->messages, strlen(chat->messages), &o, err);
    buf_init(&whole, MAX_TEXT_BYTES);
    buf_printf(&whole, "{\"messages\": %s, \"tools\": %s}", chat->messages, chat->tools);
    int code = whole.failed ? err_set(err, ERR_NO_MEMORY, "chat: out of memory for the messages")
                            : chat_render(out, whole.data, whole.len, &o, err);
    buf_release(&whole);
    return code;
}

int dstar_chat_render(const dstar_engine *engine, const struct dstar_chat *chat,
                      struct dstar_prompt *prompt, struct dstar_error *error)
{
    struct err e = { 0 };
    struct chat_text text = { 0 };
    struct dstar_tokens tokens = { 0 };
    int code = render_text(&text, &engine->e, chat, &e);
    if (code == 0)
        code = encode(&engine->e, &text, &tokens, &e);
    if (code == 0) {
        dstar_tokens_release(&prompt->tokens);
        *prompt = (struct dstar_prompt){ tokens, text.in_reasoning, text.leading };
    } else {
        dstar_tokens_release(&tokens);
    }
    chat_text_release(&text);
    return api_result(error, &e, code);
}

struct dstar_parser {
    const struct engine *engine;
    struct toolcall_parser *parser;
    dstar_event_fn *on_event;
    void *user;
};

_Static_assert((int)DSTAR_FINISH_STOP == (int)TOOLCALL_FINISH_STOP &&
                   (int)DSTAR_FINISH_LENGTH == (int)TOOLCALL_FINISH_LENGTH &&
                   (int)DSTAR_FINISH_CALLS == (int)TOOLCALL_FINISH_CALLS,
               "finish reasons are passed through");

static void hand_on(void *user, const struct toolcall_event *from)
{
    static const int kind[] = {
        [TOOLCALL_REASONING] = DSTAR_REASONING,   [TOOLCALL_CONTENT] = DSTAR_CONTENT,
        [TOOLCALL_CALL_BEGIN] = DSTAR_CALL_BEGIN, [TOOLCALL_ARGUMENTS] = DSTAR_CALL_ARGS,
        [TOOLCALL_CALL_END] = DSTAR_CALL_END,     [TOOLCALL_RAW] = DSTAR_RAW,
        [TOOLCALL_WARNING] = DSTAR_REMARK,        [TOOLCALL_FINISHED] = DSTAR_FINISHED,
    };
    const dstar_parser *p = user;
    struct dstar_event to = {
        .kind = kind[from->type],
        .call = from->index,
        .id = from->id,
        .name = from->name,
        .text = from->text,
        .len = from->len,
        .complete = from->complete,
        .finish = (int)from->finish,
        .stop = from->stop,
    };
    if (from->type == TOOLCALL_WARNING) {
        to.text = toolcall_warning_text(from->warning);
        to.len = strlen(to.text);
    }
    if (p->on_event)
        p->on_event(p->user, &to);
}

int dstar_parser_new(dstar_parser **parser, const dstar_engine *engine,
                     const struct dstar_chat *chat, const struct dstar_prompt *prompt,
                     struct dstar_error *error)
{
    struct err e = { 0 };
    struct toolcall_options o;
    *parser = NULL;
    if (need_text(&engine->e, &e) < 0)
        return api_result(error, &e, (int)e.code);
    dstar_parser *p = calloc(1, sizeof *p);
    if (!p)
        return api_result(error, &e, err_set(&e, ERR_NO_MEMORY, "out of memory for a parser"));
    toolcall_options_init(&o);
    o.in_reasoning = prompt->in_reasoning;
    o.leading = prompt->leading;
    o.tools = chat->tools;
    o.tools_len = chat->tools ? strlen(chat->tools) : 0;
    o.whole_calls = chat->whole_calls;
    o.stop = chat->stop;
    o.n_stop = chat->n_stop;
    o.id_seed = chat->call_seed;
    p->engine = &engine->e;
    p->on_event = chat->on_event;
    p->user = chat->on_event_user;
    p->parser = toolcall_new(&o, hand_on, p, &e);
    if (!p->parser) {
        free(p);
        return api_result(error, &e, (int)e.code);
    }
    *parser = p;
    return 0;
}

void dstar_parser_free(dstar_parser *parser)
{
    if (!parser)
        return;
    toolcall_free(parser->parser);
    free(parser);
}

int dstar_parser_push(dstar_parser *parser, int32_t id, struct dstar_error *error)
{
    struct err e = { 0 };
    size_t len;
    const char *bytes = tokenizer_bytes(parser->engine->text, id, &len);
    if (vocab_is_stop(&parser->engine->rules, id))
        return 0;
    int code = bytes ? toolcall_push(parser->parser, bytes, len, &e) : 0;
    return code < 0 ? api_result(error, &e, code) : !toolcall_is_done(parser->parser);
}

int dstar_parser_end(dstar_parser *parser, int cut_off, struct dstar_error *error)
{
    struct err e = { 0 };
    int code = toolcall_finish(parser->parser, cut_off ? TOOLCALL_LENGTH : TOOLCALL_EOS, &e);
    return api_result(error, &e, code);
}
