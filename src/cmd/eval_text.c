/* eval_text.c - texts are cut to windows; dialogues are rendered once, as the last answer sees it.
 *
 * Which tokens of a dialogue are answers is found by rendering it up to each of them: what the
 * prompt and its answer have in common with the whole is where the answer lies. Where the markup
 * leaves reasoning of earlier turns out, only the last answer is found. */
#include "eval_text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "fault.h"
#include "file.h"
#include "hash.h"
#include "skill_set.h"

#define MAX_FILE_BYTES ((size_t)1 << 30)

/* A line of a file being read. */
struct place {
    const dstar_engine *engine;
    const struct eval_text_opts *o;
    struct eval_texts *out;
    const char *path;
    char set[64];
    int line;
    struct dstar_error *error;
};

static int wrong(const struct place *p, const char *expected)
{
    return fault_set(p->error, DSTAR_FORMAT, "%s: line %d: %s", p->path, p->line, expected);
}

static int no_memory(const struct place *p)
{
    return fault_set(p->error, DSTAR_NO_MEMORY, "%s: out of memory", p->path);
}

/* Take n tokens over as the next text; scored [n] or NULL: all count. */
static int add_doc(const struct place *p, const char *name, const int32_t *id, int n,
                   const uint8_t *scored)
{
    struct eval_texts *t = p->out;
    if (t->n == t->cap) {
        int cap = MAX(64, 2 * t->cap);
        struct text_doc *more = realloc(t->doc, (size_t)cap * sizeof *more);
        if (!more)
            return no_memory(p);
        t->doc = more;
        t->cap = cap;
    }
    size_t n_name = strlen(name) + 1, n_set = strlen(p->set) + 1;
    int32_t *ids = malloc((size_t)n * (sizeof *ids + 1) + n_name + n_set);
    if (!ids)
        return no_memory(p);
    uint8_t *flags = (uint8_t *)(ids + n);
    char *text = (char *)flags + n;
    memcpy(ids, id, (size_t)n * sizeof *ids);
    memset(flags, TEXT_COUNTS, (size_t)n);
    if (scored)
        memcpy(flags, scored, (size_t)n);
    flags[n - 1] = 0;
    memcpy(text, name, n_name);
    memcpy(text + n_name, p->set, n_set);
    t->doc[t->n++] = (struct text_doc){ text, text + n_name, ids, n, flags };
    return 0;
}

void eval_texts_release(struct eval_texts *t)
{
    for (int i = 0; i < t->n; i++)
        free((void *)(uintptr_t)t->doc[i].id);
    free(t->doc);
    *t = (struct eval_texts){ 0 };
}

/* ---- texts ---- */

static int add_text(const struct place *p, const char *name, const char *text, size_t len)
{
    struct dstar_tokens all = { 0 };
    char part[160];
    int32_t first = dstar_token_find(p->engine, "<｜begin▁of▁sentence｜>");
    int n_first = first >= 0, step = p->o->piece - n_first;
    int32_t *piece = malloc((size_t)p->o->piece * sizeof *piece);
    int code = piece ? dstar_tokenise(p->engine, text, len, 0, &all, p->error) : no_memory(p);
    for (int at = 0; code >= 0 && at < all.n; at += step) {
        int n = MIN(step, all.n - at);
        if (n_first)
            piece[0] = first;
        memcpy(piece + n_first, all.id + at, (size_t)n * sizeof *piece);
        snprintf(part, sizeof part, all.n > step ? "%.120s/%d" : "%.120s", name, at / step + 1);
        code = add_doc(p, part, piece, n + n_first, NULL);
    }
    free(piece);
    dstar_tokens_release(&all);
    return code;
}

/* ---- dialogues ---- */

/* The first n messages of d as tokens. */
static int render(const struct place *p, const json_t *d, size_t n, struct dstar_tokens *out)
{
    const json_t *messages = json_object_get(d, "messages"), *tools = json_object_get(d, "tools");
    struct dstar_prompt prompt = { 0 };
    struct dstar_error error;
    struct dstar_chat chat;
    json_t *some = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append(some, json_array_get(messages, i));
    char *text = json_dumps(some, 0);
    char *calls = json_array_size(tools) ? json_dumps(tools, 0) : NULL;
    json_decref(some);
    dstar_chat_init(&chat);
    chat.messages = text;
    chat.tools = calls;
    chat.think = json_is_true(json_object_get(d, "thinking")) ? DSTAR_THINK_HIGH
                                                              : DSTAR_THINK_NONE;
    int code = text ? dstar_chat_render(p->engine, &chat, &prompt, &error) : no_memory(p);
    if (text && code < 0)
        fault_set(p->error, code, "%s: line %d: %s", p->path, p->line, error.text);
    free(text);
    free(calls);
    *out = prompt.tokens;
    return code;
}

/* A prompt, and behind it the answer. */
struct turn {
    struct dstar_tokens tokens;
    int n_prompt;
};

/* expect: the answer as bytes; NULL: message `at` as it is rendered. */
static int read_turn(const struct place *p, const json_t *d, size_t at, const json_t *expect,
                     struct turn *out)
{
    struct dstar_tokens prompt;
    const json_t *text = json_object_get(expect, "completion");
    int32_t end = dstar_token_find(p->engine, "<｜end▁of▁sentence｜>");
    int code = render(p, d, at, &prompt);
    *out = (struct turn){ .n_prompt = prompt.n };
    if (code < 0 || !expect) {
        dstar_tokens_release(&prompt);
        return code < 0 ? code : render(p, d, at + 1, &out->tokens);
    }
    out->tokens = prompt;
    TRY(dstar_tokenise(p->engine, json_string_value(text), json_string_length(text), 1,
                       &out->tokens, p->error));
    return end < 0 ? 0 : dstar_tokens_add(&out->tokens, &end, 1, p->error);
}

/* Mark the rows of the whole that predict this answer. */
static void mark(uint8_t *scored, const struct dstar_tokens *whole, const struct turn *t)
{
    int same = 0;
    while (same < whole->n && same < t->tokens.n && whole->id[same] == t->tokens.id[same])
        same++;
    for (int i = MAX(t->n_prompt, 1); i < same; i++)
        scored[i - 1] = TEXT_ANSWER;
}

/* The messages that are answers: of "expect", or all of the assistant's. */
struct answers {
    size_t at[1024];
    const json_t *expect[1024];
    int n;
};

static int find_answers(const struct place *p, const json_t *d, struct answers *a)
{
    const json_t *messages = json_object_get(d, "messages"), *list = json_object_get(d, "expect");
    size_t n = json_array_size(list ? list : messages);
    a->n = 0;
    for (size_t i = 0; i < n && a->n < (int)COUNT_OF(a->at); i++) {
        const json_t *x = list ? json_array_get(list, i) : NULL;
        const json_t *number = json_object_get(x, "message");
        size_t at = list ? (size_t)json_integer_value(number) : i;
        const json_t *m = json_array_get(messages, at);
        const char *role = json_string_value(json_object_get(m, "role"));
        bool is_answer = role && strcmp(role, "assistant") == 0 && at > 0;
        if (list && (!is_answer || !json_is_integer(number) ||
                     !json_is_string(json_object_get(x, "completion"))))
            return wrong(p, "expect: found no number of an answer or no completion");
        if (is_answer) {
            a->at[a->n] = at;
            a->expect[a->n++] = x;
        }
    }
    return a->n > 0 ? 0 : wrong(p, "found no message of the assistant behind another");
}

static int add_dialogue(const struct place *p, const char *name, const json_t *d)
{
    struct answers a;
    struct turn last, turn;
    TRY(find_answers(p, d, &a));
    int code = read_turn(p, d, a.at[a.n - 1], a.expect[a.n - 1], &last);
    uint8_t *scored = code < 0 ? NULL : malloc((size_t)MAX(last.tokens.n, 1));
    if (code >= 0 && (!scored || last.tokens.n == 0))
        code = no_memory(p);
    if (code >= 0)
        memset(scored, p->o->whole ? TEXT_COUNTS : 0, (size_t)last.tokens.n);
    for (int i = 0; code >= 0 && i < a.n; i++) {
        code = read_turn(p, d, a.at[i], a.expect[i], &turn);
        if (code >= 0)
            mark(scored, &last.tokens, &turn);
        dstar_tokens_release(&turn.tokens);
    }
    if (code >= 0)
        code = add_doc(p, name, last.tokens.id, last.tokens.n, scored);
    free(scored);
    dstar_tokens_release(&last.tokens);
    return code;
}

/* ---- files ---- */

static int add_line(const struct place *p, const char *line, size_t len)
{
    json_error_t why;
    char name[160];
    json_t *d = json_loadb(line, len, 0, &why);
    const json_t *text = json_object_get(d, "text"), *id = json_object_get(d, "id");
    int code;
    if (json_is_string(id))
        snprintf(name, sizeof name, "%.150s", json_string_value(id));
    else
        snprintf(name, sizeof name, "%s-%d", p->set, p->line);
    if (!d)
        code = wrong(p, why.text);
    else if (json_is_string(text))
        code = add_text(p, name, json_string_value(text), json_string_length(text));
    else if (json_array_size(json_object_get(d, "messages")) > 0)
        code = add_dialogue(p, name, d);
    else
        code = wrong(p, "found neither text nor messages, expected one of them");
    json_decref(d);
    return code;
}

static int add_lines(struct place *p, const struct buf *all, struct hash *h)
{
    size_t at = 0;
    int code = 0;
    for (int n = 0; code >= 0 && at < all->len && (p->o->limit == 0 || n < p->o->limit);) {
        const char *end = memchr(all->data + at, '\n', all->len - at);
        size_t len = end ? (size_t)(end - all->data) - at : all->len - at;
        p->line++;
        if (len > 0) {
            hash_add(h, all->data + at, len);
            code = add_line(p, all->data + at, len);
            n++;
        }
        at += len + 1;
    }
    return code;
}

static int add_file(struct place *p, struct hash *h)
{
    struct err e = { 0 };
    struct buf all;
    size_t len = strlen(p->path);
    buf_init(&all, MAX_FILE_BYTES);
    skill_set_name(p->set, sizeof p->set, p->path);
    int code = file_read_all(&all, p->path, &e) < 0 ? fault_of(p->error, &e) : 0;
    if (code >= 0 && all.len == 0)
        code = fault_set(p->error, DSTAR_FORMAT, "%s: found nothing, expected texts", p->path);
    if (code >= 0 && len > 6 && strcmp(p->path + len - 6, ".jsonl") == 0) {
        code = add_lines(p, &all, h);
    } else if (code >= 0) {
        hash_add(h, all.data, all.len);
        code = add_text(p, p->set, all.data, all.len);
    }
    buf_release(&all);
    return code;
}

int eval_texts_read(struct eval_texts *t, const dstar_engine *engine,
                    const struct eval_text_opts *o, struct dstar_error *error)
{
    struct hash h;
    *t = (struct eval_texts){ 0 };
    hash_init(&h, (uint64_t)o->piece << 1 | o->whole);
    for (int i = 0; i < o->file.n; i++) {
        struct place p = { .engine = engine, .o = o, .out = t, .path = o->file.text[i],
                           .error = error };
        int code = add_file(&p, &h);
        if (code < 0) {
            eval_texts_release(t);
            return code;
        }
    }
    t->hash = hash_value(&h);
    return 0;
}
