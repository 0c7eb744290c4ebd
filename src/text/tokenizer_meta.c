/* tokenizer_meta.c - read the vocabulary that a GGUF file carries.
 *
 * Keys as in the GGUF specification (ggml's docs/gguf.md). The file names its rule for cutting
 * text instead of spelling it, so the patterns are built in. Added tokens are the ones whose
 * type says so; their strings are literal, all others are spelled in byte-map characters. */
#include "tokenizer_impl.h"

#include "utf8.h"

#include <limits.h>
#include <stdlib.h>

#define KEY(name) "tokenizer.ggml." name

/* An array of one type. */
static int find_array(const struct meta *m, const char *key, enum meta_type type,
                      const struct meta_kv **kv, struct err *e)
{
    *kv = meta_find(m, key);
    if (!*kv)
        return err_set(e, ERR_FORMAT, "key %s is missing", key);
    if ((*kv)->type != type || !(*kv)->is_array)
        return err_set(e, ERR_FORMAT, "key %s: expected an array of %s", key,
                       type == META_STR ? "strings" : "integers");
    if ((*kv)->n < 0 || (*kv)->n > INT_MAX / 2)
        return err_set(e, ERR_LIMIT, "key %s has %lld values", key, (long long)(*kv)->n);
    return 0;
}

static int read_token(struct vocab *v, int64_t id, const struct meta_str *s, int64_t type,
                      struct err *e)
{
    switch (type) {
    case TOKEN_NORMAL:
        return vocab_set_base(v, id, s->data, s->len, e);
    case TOKEN_CONTROL:
    case TOKEN_USER_DEFINED:
        return vocab_set_added(v, id, s->data, s->len, (enum token_type)type, e);
    case TOKEN_UNUSED:
        return vocab_set_unused(v, id, e);
    default:
        return err_set(e, ERR_UNSUPPORTED, "key %s: token %lld has type %lld, expected 1, 3, 4 or "
                       "5", KEY("token_type"), (long long)id, (long long)type);
    }
}

static int read_vocab(struct vocab *v, const struct meta *m, struct err *e)
{
    const struct meta_kv *tokens, *types, *merges;
    TRY(find_array(m, KEY("tokens"), META_STR, &tokens, e));
    TRY(find_array(m, KEY("token_type"), META_INT, &types, e));
    TRY(find_array(m, KEY("merges"), META_STR, &merges, e));
    if (types->n != tokens->n)
        return err_set(e, ERR_FORMAT, "key %s has %lld values for %lld tokens", KEY("token_type"),
                       (long long)types->n, (long long)tokens->n);
    TRY(vocab_init(v, (int)tokens->n, (int)merges->n, e));
    for (int64_t i = 0; i < tokens->n; i++)
        TRY(read_token(v, i, &tokens->v.s[i], types->v.i[i], e));
    for (int64_t i = 0; i < merges->n; i++) {
        const struct meta_str *s = &merges->v.s[i];
        const char *space = memchr(s->data, ' ', s->len);
        if (!space)
            return err_set(e, ERR_FORMAT, "key %s: value %lld has no space between two tokens",
                           KEY("merges"), (long long)i);
        size_t n_left = (size_t)(space - s->data);
        TRY(vocab_add_merge(v, s->data, n_left, space + 1, s->len - n_left - 1, e));
    }
    return 0;
}

static int check_rule(const struct meta *m, const char *file, const struct log *log,
                      struct err *e)
{
    static const char *const near[] = { "deepseek-v3", "deepseek-llm" };
    const char *model = meta_str(m, KEY("model")), *pre = meta_str(m, KEY("pre"));
    if (!model || strcmp(model, "gpt2") != 0)
        return err_set(e, ERR_UNSUPPORTED, "key %s is '%s', expected gpt2", KEY("model"),
                       model ? utf8_show(model, strlen(model)).text : "");
    if (pre && strcmp(pre, "joyai-llm") == 0)
        return 0;
    for (size_t i = 0; i < COUNT_OF(near); i++)
        if (pre && strcmp(pre, near[i]) == 0) {
            log_put(log, LOG_WARN, "%s: text is split by the rule joyai-llm, the file says %s",
                    file, pre);
            return 0;
        }
    return err_set(e, ERR_UNSUPPORTED, "key %s is '%s', expected joyai-llm", KEY("pre"),
                   pre ? utf8_show(pre, strlen(pre)).text : "");
}

/* The chat template uses these tokens by their texts; a file whose numbers point nowhere is
 * damaged all the same. */
static int check_named(const struct meta *m, const char *file, int n_vocab, struct err *e)
{
    static const char *const key[] = { KEY("bos_token_id"), KEY("eos_token_id"),
                                       KEY("padding_token_id") };
    for (size_t i = 0; i < COUNT_OF(key); i++) {
        int64_t id;
        TRY(meta_int_or(m, key[i], 0, &id, e));
        if (id < 0 || id >= n_vocab)
            return err_set(e, ERR_FORMAT, "%s: key %s is %lld, expected 0..%d", file, key[i],
                           (long long)id, n_vocab - 1);
    }
    return 0;
}

static int read_all(struct tokenizer *t, const struct meta *m, const char *file,
                    const struct log *log, struct err *e)
{
    TRY(check_rule(m, file, log, e));
    TRY(read_vocab(&t->vocab, m, e));
    return tokenizer_build(t, pretoken_joyai, PRETOKEN_N_JOYAI, log, e);
}

int tokenizer_open_meta(struct tokenizer **out, const struct meta *m, const char *file,
                        const struct log *log, struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return err_set(e, ERR_NO_MEMORY, "%s: no memory for a tokenizer", file);
    int code = read_all(t, m, file, log, e);
    if (code < 0)
        err_prefix(e, "%s", file);
    else
        code = check_named(m, file, t->vocab.n, e);
    if (code < 0) {
        tokenizer_close(t);
        return code;
    }
    *out = t;
    return 0;
}
