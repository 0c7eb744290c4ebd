/* reference_read.c - open a reference and hand out its rows.
 *
 * The file is mapped, so one larger than memory is fine; a row is checked when it is asked for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "file.h"
#include "gguf_read.h"
#include "half.h"
#include "reference_impl.h"

struct reference {
    char *path;
    struct file_map map;
    struct gguf gguf;
    struct reference_info info;
    struct reference_sizes sizes;
    uint64_t vocab_hash;
    struct text_doc *doc;
    int64_t *first_row;
    uint8_t learned[256];
    const uint8_t *part[REF_N_PART]; /* data */
};

const struct reference_info *reference_info(const struct reference *r)
{
    return &r->info;
}

const struct text_doc *reference_doc(const struct reference *r, int i)
{
    return &r->doc[i];
}

int64_t reference_first_row(const struct reference *r, int doc)
{
    return r->first_row[doc];
}

/* ---- the directory ---- */

static int read_text(const struct reference *r, const char *key, const char **out, struct err *e)
{
    *out = meta_str(r->gguf.meta, key);
    if (*out)
        return 0;
    return err_set(e, ERR_FORMAT, "%s: key %s is missing, expected a string", r->path, key);
}

static int read_hash(const struct reference *r, const char *key, uint64_t *out, struct err *e)
{
    const char *text;
    char *end;
    TRY(read_text(r, key, &text, e));
    *out = strtoull(text, &end, 16);
    if (strlen(text) != 16 || *end)
        return err_set(e, ERR_FORMAT, "%s: key %s: found '%.40s', expected 16 digits", r->path,
                       key, text);
    return 0;
}

static int read_count(const struct reference *r, const char *key, int64_t most, int64_t *out,
                      struct err *e)
{
    TRY(meta_int(r->gguf.meta, key, out, e));
    if (*out < 0 || *out > most)
        return err_set(e, ERR_FORMAT, "%s: key %s: found %lld, expected 0 to %lld", r->path, key,
                       (long long)*out, (long long)most);
    return 0;
}

/* An array of a type, of n elements unless that is -1. */
static int read_array(const struct reference *r, const char *key, enum meta_type type, int64_t n,
                      const struct meta_kv **out, struct err *e)
{
    const struct meta_kv *kv = *out = meta_find(r->gguf.meta, key);
    if (!kv || !kv->is_array || kv->type != type || (n >= 0 ? kv->n != n : kv->n < 1))
        return err_set(e, ERR_FORMAT, "%s: key %s: is missing or not the array expected", r->path,
                       key);
    return 0;
}

static const struct weight *find(const struct reference *r, const char *name)
{
    for (int i = 0; i < r->gguf.n_tensor; i++) {
        if (strcmp(r->gguf.tensor[i].name, name) == 0)
            return &r->gguf.tensor[i];
    }
    return NULL;
}

/* Sizes as the tensors have them; that they agree is checked behind. */
static int read_sizes(struct reference *r, struct err *e)
{
    const struct weight *logprob = find(r, "row.logprob"), *tokens = find(r, "text.tokens");
    const struct weight *streams = find(r, "stream.value");
    const struct meta_kv *learned;
    int64_t version, width, used, every;
    TRY(read_count(r, "reference.version", INT32_MAX, &version, e));
    if (version != REFERENCE_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "%s: a reference of version %lld, expected %d", r->path,
                       (long long)version, REFERENCE_VERSION);
    TRY(read_count(r, "reference.width", 1 << 24, &width, e));
    TRY(read_count(r, "reference.used", 1 << 16, &used, e));
    TRY(read_count(r, "reference.every", INT32_MAX, &every, e));
    TRY(read_array(r, "reference.learned_routes", META_INT, -1, &learned, e));
    if (!logprob || !tokens || learned->n > (int64_t)COUNT_OF(r->learned) ||
        logprob->dim[0] > 1 << 24 || tokens->dim[0] > INT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: tensors row.logprob and text.tokens are missing or too "
                       "large", r->path);
    for (int64_t l = 0; l < learned->n; l++)
        r->learned[l] = learned->v.i[l] != 0;
    struct observe_shape shape = { (int)learned->n, (int)used, (int)logprob->dim[0], (int)width,
                                   r->learned };
    r->sizes = (struct reference_sizes){ tokens->dim[0], logprob->dim[1],
                                         streams ? streams->dim[1] : 0, shape };
    r->info.every = (int)every;
    int64_t expected = every > 0 ? (r->sizes.n_row + every - 1) / every : 0;
    if (r->sizes.n_sample != expected)
        return err_set(e, ERR_FORMAT, "%s: stream.value: %lld rows, expected %lld", r->path,
                       (long long)r->sizes.n_sample, (long long)expected);
    return 0;
}

static int read_tensors(struct reference *r, struct err *e)
{
    struct reference_tensor expected[REF_N_PART];
    int n = reference_tensors(expected, &r->sizes);
    for (int i = 0; i < n; i++) {
        const struct reference_tensor *x = &expected[i];
        const struct weight *w = find(r, x->name);
        if (!w)
            return err_set(e, ERR_FORMAT, "%s: tensor %s is missing", r->path, x->name);
        if ((int)w->type != x->type || w->dim[0] != x->dim[0] || w->dim[1] != x->dim[1])
            return err_set(e, ERR_FORMAT, "%s: tensor %s is %s [%lld, %lld], expected %s "
                           "[%lld, %lld]", r->path, x->name, dtype_name((int)w->type),
                           (long long)w->dim[0], (long long)w->dim[1], dtype_name(x->type),
                           (long long)x->dim[0], (long long)x->dim[1]);
        r->part[i] = w->data;
    }
    return 0;
}

/* ---- the texts ---- */

static int check_text(const struct reference *r, int i, struct err *e)
{
    const struct text_doc *d = &r->doc[i];
    for (int t = 0; t < d->n_tok; t++) {
        if (d->id[t] < 0 || d->id[t] >= r->sizes.shape.n_vocab)
            return err_set(e, ERR_FORMAT, "%s: text %d (%.80s): token %d is %d, expected 0 to %d",
                           r->path, i, d->name, t, (int)d->id[t], r->sizes.shape.n_vocab - 1);
    }
    return 0;
}

static int read_texts(struct reference *r, struct err *e)
{
    const struct meta_kv *name, *set, *count;
    TRY(read_array(r, "reference.text.name", META_STR, -1, &name, e));
    TRY(read_array(r, "reference.text.set", META_STR, name->n, &set, e));
    TRY(read_array(r, "reference.text.tokens", META_INT, name->n, &count, e));
    int64_t at = 0, row = 0;
    r->info.n_doc = (int)name->n;
    r->doc = calloc((size_t)name->n, sizeof *r->doc);
    r->first_row = calloc((size_t)name->n + 1, sizeof *r->first_row);
    if (!r->doc || !r->first_row)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", r->path);
    for (int i = 0; i < r->info.n_doc; i++) {
        int64_t n = count->v.i[i];
        if (n < 1 || n > REFERENCE_MAX_TEXT || n > r->sizes.n_tok - at)
            return err_set(e, ERR_FORMAT, "%s: text %d has %lld tokens, of which %lld are left",
                           r->path, i, (long long)n, (long long)(r->sizes.n_tok - at));
        r->doc[i] = (struct text_doc){ name->v.s[i].data, set->v.s[i].data,
                                       (const int32_t *)(const void *)r->part[REF_TOKENS] + at,
                                       (int)n, r->part[REF_SCORED] + at };
        TRY(check_text(r, i, e));
        r->first_row[i] = row;
        row += text_doc_rows(&r->doc[i]);
        at += n;
    }
    if (at != r->sizes.n_tok || row != r->sizes.n_row)
        return err_set(e, ERR_FORMAT, "%s: its texts have %lld tokens and %lld rows, expected %lld "
                       "and %lld", r->path, (long long)at, (long long)row,
                       (long long)r->sizes.n_tok, (long long)r->sizes.n_row);
    return 0;
}

static int check_tokens(const struct reference *r, struct err *e)
{
    uint64_t stated;
    struct hash h;
    TRY(read_hash(r, "reference.text.tokens_hash", &stated, e));
    hash_init(&h, REFERENCE_VERSION);
    for (int i = 0; i < r->info.n_doc; i++) {
        hash_add(&h, r->doc[i].id, (size_t)r->doc[i].n_tok * sizeof(int32_t));
        hash_add(&h, r->doc[i].scored, (size_t)r->doc[i].n_tok);
    }
    if (hash_value(&h) != stated)
        return err_set(e, ERR_FORMAT, "%s: its tokens have the fingerprint %016llx, expected "
                       "%016llx", r->path, (unsigned long long)hash_value(&h),
                       (unsigned long long)stated);
    return 0;
}

static int read_all(struct reference *r, struct err *e)
{
    struct reference_info *info = &r->info;
    const char *type;
    TRY(gguf_parse(&r->gguf, r->path, r->map.data, r->map.size, e));
    type = meta_str(r->gguf.meta, "general.type");
    if (!type || strcmp(type, "reference") != 0)
        return err_set(e, ERR_FORMAT, "%s: general.type is %.40s, expected reference", r->path,
                       type ? type : "missing");
    TRY(read_text(r, "reference.model", &info->model, e));
    TRY(read_text(r, "reference.device", &info->device, e));
    TRY(read_hash(r, "reference.vocab_hash", &r->vocab_hash, e));
    TRY(read_hash(r, "reference.text.hash", &info->text_hash, e));
    TRY(read_sizes(r, e));
    TRY(read_tensors(r, e));
    TRY(read_texts(r, e));
    info->path = r->path;
    info->n_tok = r->sizes.n_tok;
    info->n_row = r->sizes.n_row;
    info->shape = r->sizes.shape;
    return check_tokens(r, e);
}

int reference_open(struct reference **out, const char *path, struct err *e)
{
    struct reference *r = calloc(1, sizeof *r);
    size_t len = strlen(path) + 1;
    *out = NULL;
    if (r && (r->path = malloc(len)))
        memcpy(r->path, path, len);
    int code = !r || !r->path ? err_set(e, ERR_NO_MEMORY, "%s: out of memory", path)
                              : file_map_open(&r->map, path, e);
    if (code == 0)
        code = read_all(r, e);
    if (code < 0)
        reference_close(r);
    else
        *out = r;
    return code;
}

void reference_close(struct reference *r)
{
    if (!r)
        return;
    gguf_release(&r->gguf);
    file_map_close(&r->map);
    free(r->doc);
    free(r->first_row);
    free(r->path);
    free(r);
}

/* ---- use ---- */

int reference_fits(const struct reference *r, dstar_engine *engine,
                   const struct observe_shape *shape, struct err *e)
{
    const struct observe_shape *x = &r->sizes.shape;
    const char *model = dstar_engine_info(engine)->path;
    if (shape->n_vocab != x->n_vocab ||
        reference_hash_vocab(engine, shape->n_vocab) != r->vocab_hash)
        return err_set(e, ERR_MISMATCH, "%s: %s has another vocabulary of %d tokens, expected that "
                       "of %s with %d", r->path, model, shape->n_vocab, r->info.model, x->n_vocab);
    if (shape->n_layer != x->n_layer || shape->n_used != x->n_used || shape->width != x->width)
        return err_set(e, ERR_MISMATCH, "%s: %s has %d layers, %d experts for a token and streams "
                       "of %d, expected %d, %d and %d", r->path, model, shape->n_layer,
                       shape->n_used, shape->width, x->n_layer, x->n_used, x->width);
    return 0;
}

static int damaged(const struct reference *r, int64_t row, const char *what, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: row %lld: %s are not as they were written", r->path,
                   (long long)row, what);
}

int reference_row(const struct reference *r, int64_t row, struct reference_row *out, struct err *e)
{
    const struct observe_shape *s = &r->sizes.shape;
    size_t at = (size_t)row, routes = (size_t)s->n_layer * (size_t)s->n_used;
    size_t streams = (size_t)s->n_layer * (size_t)s->width;
    int32_t best;
    uint64_t check;
    float nll;
    CHECK(row >= 0 && row < r->sizes.n_row);
    memcpy(&best, r->part[REF_BEST] + 4 * at, sizeof best);
    memcpy(&nll, r->part[REF_NLL] + 4 * at, sizeof nll);
    memcpy(&check, r->part[REF_CHECK] + 8 * at, sizeof check);
    *out = (struct reference_row){
        .logprob = (const uint16_t *)(const void *)r->part[REF_LOGPROB] + at * (size_t)s->n_vocab,
        .route = (const int32_t *)(const void *)r->part[REF_ROUTE] + at * routes,
        .best = best,
        .nll = nll,
    };
    if (reference_hash_row(s, out->logprob, out->route, best, nll) != check)
        return damaged(r, row, "its numbers", e);
    if (r->info.every > 0 && row % r->info.every == 0) {
        size_t sample = (size_t)(row / r->info.every);
        out->streams = (const float *)(const void *)r->part[REF_STREAM] + sample * streams;
        memcpy(&check, r->part[REF_STREAM_CHECK] + 8 * sample, sizeof check);
        if (hash_of(out->streams, streams * sizeof(float), REFERENCE_VERSION) != check)
            return damaged(r, row, "its streams", e);
    }
    return 0;
}
