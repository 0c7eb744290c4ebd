/* tokenizer.c - the order of encoding: literals, valid UTF-8, pieces, merges.
 *
 * Text between two control tokens is one run, whatever spans lie in it, because pieces may cross
 * the border between trusted and untrusted text and the model was trained on such pieces.
 * Bytes that are no UTF-8 never reach the splitter: they are tokens of their own, and each
 * stretch of valid text between them is split as if it stood alone. */
#include "tokenizer_impl.h"

#include "utf8.h"

#include <limits.h>
#include <stdlib.h>

#define TEXT_MAX ((size_t)1 << 30)

bool ids_add(struct ids *list, int32_t id)
{
    if (list->n == list->cap) {
        if (list->cap > INT_MAX / 2)
            return false;
        int cap = MAX(64, list->cap * 2);
        int32_t *grown = realloc(list->id, (size_t)cap * sizeof *grown);
        if (!grown)
            return false;
        list->id = grown;
        list->cap = cap;
    }
    list->id[list->n++] = id;
    return true;
}

void ids_release(struct ids *list)
{
    free(list->id);
    *list = (struct ids){ 0 };
}

int tokenizer_build(struct tokenizer *t, const char *const *pattern, int n_pattern,
                    const struct log *log, struct err *e)
{
    TRY(vocab_finish(&t->vocab, e));
    TRY(literals_init(&t->literals, &t->vocab, e));
    TRY(bpe_new(&t->bpe, &t->vocab, e));
    return pretoken_new(&t->split, pattern, n_pattern, log, e);
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    pretoken_free(t->split);
    bpe_free(t->bpe);
    literals_release(&t->literals);
    vocab_release(&t->vocab);
    free(t);
}

int tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->vocab.n;
}

int tokenizer_find(const struct tokenizer *t, const char *literal, size_t len)
{
    const struct literal *found = literals_find(&t->literals, literal, len);
    return found ? found->id : -1;
}

enum token_type tokenizer_type(const struct tokenizer *t, int id)
{
    CHECK(id >= 0 && id < t->vocab.n);
    return (enum token_type)t->vocab.token[id].type;
}

const char *tokenizer_bytes(const struct tokenizer *t, int id, size_t *len)
{
    *len = 0;
    if (id < 0 || id >= t->vocab.n || t->vocab.token[id].type == TOKEN_UNUSED)
        return NULL;
    *len = t->vocab.token[id].len;
    return vocab_bytes(&t->vocab, id);
}

bool tokenizer_is_added(const struct tokenizer *t, int id)
{
    if (id < 0 || id >= t->vocab.n)
        return false;
    enum token_type type = tokenizer_type(t, id);
    return type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED;
}

void tokenizer_spelling(const struct tokenizer *t, int id, struct buf *out)
{
    enum token_type type = tokenizer_type(t, id);
    const char *bytes = vocab_bytes(&t->vocab, id);
    size_t len = t->vocab.token[id].len;
    if (type == TOKEN_UNUSED)
        buf_printf(out, "[PAD%d]", id);
    else if (type != TOKEN_NORMAL)
        buf_add(out, bytes, len);
    else
        for (size_t i = 0; i < len; i++) {
            char c[4];
            buf_add(out, c, (size_t)utf8_put(c, t->vocab.spelled[(uint8_t)bytes[i]]));
        }
}

int tokenizer_n_merge(const struct tokenizer *t)
{
    return t->vocab.n_merge;
}

void tokenizer_merge(const struct tokenizer *t, int i, int *left, int *right)
{
    CHECK(i >= 0 && i < t->vocab.n_merge);
    *left = t->vocab.merge[i].left;
    *right = t->vocab.merge[i].right;
}

const char *tokenizer_pre(const struct tokenizer *t)
{
    return pretoken_name(t->split);
}

static int encode_valid(struct tokenizer *t, const char *text, size_t len, struct ids *out,
                        struct err *e)
{
    struct text_span piece;
    int more;
    pretoken_start(t->split, text, len);
    while ((more = pretoken_next(t->split, &piece, e)) > 0)
        TRY(bpe_encode(t->bpe, text + piece.begin, piece.end - piece.begin, out, e));
    return more;
}

/* A run of text without literals. */
static int encode_run(struct tokenizer *t, const char *text, size_t len, struct ids *out,
                      struct err *e)
{
    for (size_t at = 0; at < len;) {
        size_t valid = utf8_valid_len(text + at, len - at);
        TRY(encode_valid(t, text + at, valid, out, e));
        at += valid;
        if (at < len && !ids_add(out, t->vocab.byte_id[(uint8_t)text[at++]]))
            return err_set(e, ERR_NO_MEMORY, "no memory for %d tokens", out->n);
    }
    return 0;
}

static int encode_all(struct tokenizer *t, const char *text, size_t len,
                      const struct text_span *special, int n_special, struct ids *out,
                      struct err *e)
{
    size_t done = 0;
    for (int i = 0; i < n_special; i++) {
        CHECK(special[i].begin <= special[i].end && special[i].end <= len);
        CHECK(i == 0 || special[i - 1].end <= special[i].begin);
        for (size_t at = special[i].begin; at < special[i].end;) {
            const struct literal *found =
                literals_match(&t->literals, text + at, special[i].end - at);
            if (!found) {
                at++;
                continue;
            }
            TRY(encode_run(t, text + done, at - done, out, e));
            if (!ids_add(out, found->id))
                return err_set(e, ERR_NO_MEMORY, "no memory for %d tokens", out->n);
            at += found->len;
            done = at;
        }
    }
    return encode_run(t, text + done, len - done, out, e);
}

int tokenizer_encode(struct tokenizer *t, const char *text, size_t len,
                     const struct text_span *special, int n_special, struct ids *out,
                     struct err *e)
{
    int before = out->n;
    if (len == 0)
        return 0; /* text may be NULL */
    if (len > TEXT_MAX)
        return err_set(e, ERR_LIMIT, "a text of %zu bytes: at most %zu can be encoded at once",
                       len, TEXT_MAX);
    int code = encode_all(t, text, len, special, n_special, out, e);
    if (code < 0)
        out->n = before;
    return code;
}
