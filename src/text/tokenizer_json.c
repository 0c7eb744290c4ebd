/* tokenizer_json.c - read a Hugging Face tokenizer.json.
 *
 * The format can describe many tokenizers; this reads the byte-level BPE ones without normaliser
 * and refuses every setting that would change a token, so that what opens encodes exactly. The
 * fields: https://huggingface.co/docs/tokenizers and the library's serialisation code. */
#include "tokenizer_impl.h"

#include "file.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>

static int wrong(struct err *e, const char *field, const char *expected)
{
    return err_set(e, ERR_FORMAT, "%s: expected %s", field, expected);
}

static int unsupported(struct err *e, const char *field, const char *expected)
{
    return err_set(e, ERR_UNSUPPORTED, "%s: only %s is supported", field, expected);
}

static bool is_type(const json_t *object, const char *type)
{
    const char *found = json_string_value(json_object_get(object, "type"));
    return found && strcmp(found, type) == 0;
}

/* Absent, null, false and "" all mean that an option is off. */
static bool is_off(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return !v || json_is_null(v) || json_is_false(v) ||
           (json_is_string(v) && json_string_length(v) == 0);
}

static int read_added(struct vocab *v, const json_t *added, struct err *e)
{
    static const char *const changing[] = { "single_word", "lstrip", "rstrip" };
    size_t i;
    json_t *token;
    json_array_foreach(added, i, token) {
        const json_t *id = json_object_get(token, "id");
        const json_t *content = json_object_get(token, "content");
        const json_t *special = json_object_get(token, "special");
        if (!json_is_integer(id) || !json_is_string(content) ||
            (special && !json_is_boolean(special)))
            return err_set(e, ERR_FORMAT, "added_tokens[%zu]: expected an integer id, a string "
                           "content, and true or false as special", i);
        for (size_t k = 0; k < COUNT_OF(changing); k++)
            if (!is_off(token, changing[k]))
                return err_set(e, ERR_UNSUPPORTED, "added_tokens[%zu].%s: only false is supported",
                               i, changing[k]);
        TRY(vocab_set_added(v, json_integer_value(id), json_string_value(content),
                            json_string_length(content),
                            json_is_true(special) ? TOKEN_CONTROL : TOKEN_USER_DEFINED, e));
    }
    return 0;
}

static int read_vocab(struct vocab *v, json_t *vocab, struct err *e)
{
    for (void *at = json_object_iter(vocab); at; at = json_object_iter_next(vocab, at)) {
        const char *spelling = json_object_iter_key(at);
        size_t len = strlen(spelling); /* the parser refuses zero bytes in strings */
        const json_t *value = json_object_iter_value(at);
        if (!json_is_integer(value))
            return wrong(e, "model.vocab", "an integer for every token");
        json_int_t id = json_integer_value(value);
        if (id >= 0 && id < v->n && v->token[id].type && v->token[id].type != TOKEN_NORMAL) {
            if (!vocab_is_same(v, (int)id, spelling, len))
                return err_set(e, ERR_FORMAT,
                               "model.vocab: id %lld is another text in added_tokens",
                               (long long)id);
        } else {
            TRY(vocab_set_base(v, id, spelling, len, e));
        }
    }
    return 0;
}

/* A merge is "left right" or ["left", "right"]. */
static int read_merges(struct vocab *v, const json_t *merges, struct err *e)
{
    size_t i;
    json_t *merge;
    json_array_foreach(merges, i, merge) {
        const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
        const char *left, *right, *s = json_string_value(merge);
        size_t n_left, n_right;
        if (json_array_size(merge) == 2 && json_is_string(a) && json_is_string(b)) {
            left = json_string_value(a);
            right = json_string_value(b);
            n_left = json_string_length(a);
            n_right = json_string_length(b);
        } else if (s && strchr(s, ' ')) {
            left = s;
            n_left = (size_t)(strchr(s, ' ') - s);
            right = s + n_left + 1;
            n_right = strlen(right);
        } else {
            return err_set(e, ERR_FORMAT, "model.merges[%zu]: expected \"left right\" or "
                           "[\"left\", \"right\"]", i);
        }
        TRY(vocab_add_merge(v, left, n_left, right, n_right, e));
    }
    return 0;
}

/* Ids are to be 0..n-1; n follows from how many different ones there are at most. */
static int count_ids(const json_t *added, json_t *vocab, struct err *e)
{
    size_t n = json_array_size(added) + json_object_size(vocab), i;
    json_int_t last = -1;
    json_t *item;
    json_array_foreach(added, i, item)
        last = MAX(last, json_integer_value(json_object_get(item, "id")));
    for (void *at = json_object_iter(vocab); at; at = json_object_iter_next(vocab, at))
        last = MAX(last, json_integer_value(json_object_iter_value(at)));
    if (n >= INT_MAX / 2)
        return err_set(e, ERR_LIMIT, "%zu tokens", n);
    if (last >= (json_int_t)n)
        return err_set(e, ERR_FORMAT, "id %lld with only %zu tokens: ids must be 0, 1, 2, ... "
                       "without holes", (long long)last, n);
    return (int)last + 1;
}

static int read_model(struct tokenizer *t, const json_t *root, struct err *e)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *added = json_object_get(root, "added_tokens");
    const json_t *merges = json_object_get(model, "merges");
    json_t *vocab = json_object_get(model, "vocab");
    static const char *const off[] = {
        "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
        "ignore_merges",
    };
    if (!json_is_object(model))
        return wrong(e, "model", "an object");
    if (json_object_get(model, "type") && !is_type(model, "BPE"))
        return unsupported(e, "model.type", "BPE");
    if (added && !json_is_array(added))
        return wrong(e, "added_tokens", "an array");
    if (!json_is_object(vocab))
        return wrong(e, "model.vocab", "an object");
    if (!json_is_array(merges))
        return wrong(e, "model.merges", "an array");
    for (size_t i = 0; i < COUNT_OF(off); i++)
        if (!is_off(model, off[i]))
            return err_set(e, ERR_UNSUPPORTED, "model.%s is set, which is not supported", off[i]);
    if (json_array_size(merges) > INT_MAX / 2)
        return err_set(e, ERR_LIMIT, "model.merges: %zu of them", json_array_size(merges));
    int n = count_ids(added, vocab, e);
    TRY(n);
    TRY(vocab_init(&t->vocab, n, (int)json_array_size(merges), e));
    TRY(read_added(&t->vocab, added, e));
    TRY(read_vocab(&t->vocab, vocab, e));
    return read_merges(&t->vocab, merges, e);
}

/* One step of the pre-tokenizer: a pattern, or NULL in *pattern for the byte map. */
static int read_split(const json_t *step, const char **pattern, struct err *e)
{
    *pattern = NULL;
    if (is_type(step, "ByteLevel")) {
        /* Both options are on unless they are there and false. */
        if (!json_is_false(json_object_get(step, "add_prefix_space")) ||
            !json_is_false(json_object_get(step, "use_regex")))
            return unsupported(e, "pre_tokenizer.ByteLevel",
                               "add_prefix_space false, use_regex false");
        return 0;
    }
    const char *behavior = json_string_value(json_object_get(step, "behavior"));
    *pattern = json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
    if (!is_type(step, "Split") || !*pattern)
        return unsupported(e, "pre_tokenizer", "Split with a Regex, then ByteLevel,");
    if (!behavior || strcmp(behavior, "Isolated") != 0 || !is_off(step, "invert"))
        return unsupported(e, "pre_tokenizer.Split", "behavior Isolated, invert false,");
    return 0;
}

/* The patterns of a Sequence of Splits that a ByteLevel ends; returns how many. */
static int read_splits(const json_t *root, const char *pattern[PRETOKEN_MAX_STAGE], struct err *e)
{
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    const json_t *steps = json_object_get(pre, "pretokenizers");
    size_t n = json_array_size(steps);
    if (!is_type(pre, "Sequence") || n == 0)
        return unsupported(e, "pre_tokenizer", "a Sequence of Split and ByteLevel");
    if (n > PRETOKEN_MAX_STAGE + 1)
        return err_set(e, ERR_UNSUPPORTED, "pre_tokenizer: %zu steps, at most %d are supported", n,
                       PRETOKEN_MAX_STAGE + 1);
    for (size_t i = 0; i < n; i++) {
        const char *p;
        TRY(read_split(json_array_get(steps, i), &p, e));
        if ((i + 1 < n) != (p != NULL))
            return unsupported(e, "pre_tokenizer", "one ByteLevel, at the end,");
        if (p)
            pattern[i] = p;
    }
    return (int)n - 1;
}

static int read_rest(const json_t *root, const struct log *log, struct err *e)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    const json_t *post = json_object_get(root, "post_processor");
    const json_t *decoder = json_object_get(root, "decoder");
    if (normalizer && !json_is_null(normalizer) &&
        !(is_type(normalizer, "Sequence") &&
          json_array_size(json_object_get(normalizer, "normalizers")) == 0))
        return unsupported(e, "normalizer", "none");
    if (decoder && !json_is_null(decoder) && !is_type(decoder, "ByteLevel"))
        return unsupported(e, "decoder", "ByteLevel");
    if (post && !json_is_null(post) && !is_type(post, "ByteLevel"))
        log_put(log, LOG_WARN, "post_processor is ignored: the chat template writes all "
                "control tokens");
    return 0;
}

static int read_root(struct tokenizer *t, const json_t *root, const struct log *log, struct err *e)
{
    const char *pattern[PRETOKEN_MAX_STAGE] = { 0 };
    if (!json_is_object(root))
        return err_set(e, ERR_FORMAT, "expected a JSON object");
    TRY(read_model(t, root, e));
    TRY(read_rest(root, log, e));
    int n = read_splits(root, pattern, e);
    TRY(n);
    return tokenizer_build(t, pattern, n, log, e);
}

int tokenizer_open_json_text(struct tokenizer **out, const char *data, size_t len,
                             const char *name, const struct log *log, struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    json_error_t where;
    json_t *root = NULL;
    int code;
    *out = NULL;
    if (!t) {
        code = err_set(e, ERR_NO_MEMORY, "%s: no memory for a tokenizer", name);
        goto fail;
    }
    root = json_loadb(data ? data : "", len, JSON_REJECT_DUPLICATES, &where);
    if (!root) {
        code = err_set(e, json_error_code(&where) == json_error_out_of_memory ? ERR_NO_MEMORY :
                                                                               ERR_FORMAT,
                       "%s: line %d, column %d: %s", name, where.line, where.column, where.text);
        goto fail;
    }
    code = read_root(t, root, log, e);
    json_decref(root);
    if (code < 0) {
        err_prefix(e, "%s", name);
        goto fail;
    }
    *out = t;
    return 0;
fail:
    tokenizer_close(t);
    return code;
}

int tokenizer_open_json(struct tokenizer **t, const char *path, const struct log *log,
                        struct err *e)
{
    struct file_map map;
    *t = NULL;
    TRY(file_map_open(&map, path, e));
    int code = tokenizer_open_json_text(t, (const char *)map.data, map.size, path, log, e);
    file_map_close(&map);
    return code;
}
