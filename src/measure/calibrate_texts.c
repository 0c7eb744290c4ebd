/* calibrate_texts.c - lines of JSON, dialogues and plain files become tokens.
 *
 * Files are read whole: a corpus of millions of tokens takes some ten megabytes. Lines are parsed
 * when their turn comes, plain texts at opening, because pieces are counted in tokens. */
#include "calibrate_texts.h"

#include "hash.h"

#include <jansson.h>
#include <stdlib.h>

#define MAX_FILE_BYTES ((size_t)1 << 30)
#define BOS "<\xef\xbd\x9c" "begin\xe2\x96\x81" "of\xe2\x96\x81" "sentence\xef\xbd\x9c>"

int texts_fault(struct err *e, const struct dstar_error *error)
{
    return err_set(e, (enum err_code)error->code, "%s", error->text);
}

static int add_text(struct calibrate_texts *t, struct calibrate_text x, struct err *e)
{
    if (t->n == t->cap) {
        int cap = t->cap ? 2 * t->cap : 256;
        struct calibrate_text *more = realloc(t->text, (size_t)cap * sizeof *more);
        if (!more)
            return err_set(e, ERR_NO_MEMORY, "out of memory for %d texts", cap);
        t->text = more;
        t->cap = cap;
    }
    t->text[t->n++] = x;
    t->bytes += (double)x.len;
    return 0;
}

static int add_lines(struct calibrate_texts *t, int f, struct err *e)
{
    const char *at = t->file[f].data, *end = at + t->file[f].len;
    for (int line = 1; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);
        if (len > strspn(at, " \t\r"))
            TRY(add_text(t, (struct calibrate_text){ .file = f, .line = line, .data = at,
                                                     .len = len }, e));
        at += len + 1;
    }
    return 0;
}

static int add_plain(struct calibrate_texts *t, int f, int piece, struct err *e)
{
    struct dstar_error error;
    struct dstar_tokens *all = &t->plain[f];
    if (dstar_tokenise(t->engine, t->file[f].data, t->file[f].len, 1, all, &error) < 0) {
        texts_fault(e, &error);
        return err_prefix(e, "%s", t->path[f]);
    }
    for (int i = 0; i < all->n; i += piece) {
        int n = MIN(piece, all->n - i);
        size_t len = (size_t)((double)t->file[f].len * n / all->n);
        TRY(add_text(t, (struct calibrate_text){ .file = f, .first = i, .n = n, .len = len }, e));
    }
    return 0;
}

static bool is_jsonl(const char *path)
{
    size_t n = strlen(path);
    return n >= 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

int texts_open(struct calibrate_texts *t, dstar_engine *engine, const char *const *path,
               int n_file, int piece, struct err *e)
{
    *t = (struct calibrate_texts){ .engine = engine, .path = path, .n_file = n_file };
    t->bos = dstar_token_find(engine, BOS);
    t->file = calloc((size_t)n_file, sizeof *t->file);
    t->plain = calloc((size_t)n_file, sizeof *t->plain);
    if (!t->file || !t->plain)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d files", n_file);
    for (int f = 0; f < n_file; f++) {
        buf_init(&t->file[f], MAX_FILE_BYTES);
        TRY(file_read_all(&t->file[f], path[f], e));
        t->hash = hash_of(t->file[f].data, t->file[f].len, t->hash + t->file[f].len);
        int before = t->n;
        if (t->file[f].len)
            TRY(is_jsonl(path[f]) ? add_lines(t, f, e) : add_plain(t, f, piece, e));
        if (t->n == before)
            return err_set(e, ERR_FORMAT, "%s: found no text", path[f]);
    }
    return 0;
}

void texts_close(struct calibrate_texts *t)
{
    for (int f = 0; t->file && f < t->n_file; f++)
        buf_release(&t->file[f]);
    for (int f = 0; t->plain && f < t->n_file; f++)
        dstar_tokens_release(&t->plain[f]);
    free(t->file);
    free(t->plain);
    free(t->text);
    *t = (struct calibrate_texts){ 0 };
}

/* ---- one text ----------------------------------------------------------------------------- */

static int begin_with_bos(const struct calibrate_texts *t, const struct dstar_tokens *from,
                          struct dstar_tokens *out, struct err *e)
{
    struct dstar_error error;
    out->n = 0;
    if ((t->bos >= 0 && (from->n == 0 || from->id[0] != t->bos) &&
         dstar_tokens_add(out, &t->bos, 1, &error) < 0) ||
        dstar_tokens_add(out, from->id, from->n, &error) < 0)
        return texts_fault(e, &error);
    return 0;
}

static int tokens_of_text(const struct calibrate_texts *t, const json_t *text,
                          struct dstar_tokens *out, struct err *e)
{
    struct dstar_tokens plain = { 0 };
    struct dstar_error error;
    int code = dstar_tokenise(t->engine, json_string_value(text), json_string_length(text), 1,
                              &plain, &error);
    code = code < 0 ? texts_fault(e, &error) : begin_with_bos(t, &plain, out, e);
    dstar_tokens_release(&plain);
    return code;
}

static int think_of(const struct calibrate_texts *t, const json_t *thinking, int *think,
                    struct err *e)
{
    *think = json_is_true(thinking) ? DSTAR_THINK_HIGH : DSTAR_THINK_NONE;
    if (!json_is_string(thinking))
        return !thinking || json_is_boolean(thinking) || json_is_null(thinking)
                   ? 0
                   : err_set(e, ERR_FORMAT, "thinking: expected true, false or an effort word");
    *think = dstar_think_of(t->engine, json_string_value(thinking));
    if (*think < 0)
        return err_set(e, ERR_FORMAT, "thinking: found \"%s\", expected an effort word",
                       json_string_value(thinking));
    return 0;
}

static int tokens_of_chat(const struct calibrate_texts *t, const json_t *d, const json_t *messages,
                          struct dstar_tokens *out, struct err *e)
{
    struct dstar_prompt prompt = { .tokens = *out };
    struct dstar_chat chat;
    struct dstar_error error;
    const json_t *tools = json_object_get(d, "tools");
    dstar_chat_init(&chat);
    TRY(think_of(t, json_object_get(d, "thinking"), &chat.think, e));
    char *said = json_dumps(messages, 0);
    char *may_call = json_array_size(tools) ? json_dumps(tools, 0) : NULL;
    chat.messages = said;
    chat.tools = may_call;
    int code = said ? dstar_chat_render(t->engine, &chat, &prompt, &error)
                    : err_set(e, ERR_NO_MEMORY, "out of memory for a dialogue");
    *out = prompt.tokens;
    free(said);
    free(may_call);
    return said && code < 0 ? texts_fault(e, &error) : code;
}

static int tokens_of_line(const struct calibrate_texts *t, json_t *d, bool answer,
                          struct dstar_tokens *out, struct err *e)
{
    json_t *text = json_object_get(d, "text"), *messages = json_object_get(d, "messages");
    size_t n = json_array_size(messages);
    if (json_is_string(text))
        return tokens_of_text(t, text, out, e);
    if (n == 0)
        return err_set(e, ERR_FORMAT, "found neither text nor messages");
    const char *role = json_string_value(json_object_get(json_array_get(messages, n - 1), "role"));
    if (answer && role && strcmp(role, "assistant") == 0)
        json_array_remove(messages, n - 1);
    return tokens_of_chat(t, d, messages, out, e);
}

int texts_tokens(const struct calibrate_texts *t, int i, bool answer, struct dstar_tokens *out,
                 struct err *e)
{
    const struct calibrate_text *x = &t->text[i];
    json_error_t why;
    if (!x->data) {
        struct dstar_tokens part = { t->plain[x->file].id + x->first, x->n, x->n };
        return begin_with_bos(t, &part, out, e);
    }
    json_t *d = json_loadb(x->data, x->len, 0, &why);
    int code = d ? tokens_of_line(t, d, answer, out, e) : err_set(e, ERR_FORMAT, "%s", why.text);
    json_decref(d);
    if (code < 0)
        err_prefix(e, "%s: line %d", t->path[x->file], x->line);
    return code;
}
