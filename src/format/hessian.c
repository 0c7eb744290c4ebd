/* hessian.c - triangles in a GGUF file, read a row at a time from the mapped file.
 *
 * Packed triangles, since a layer's file is n^2 numbers otherwise and half of them twice; F32,
 * since what a sum of many tokens loses is far below what other tokens would have changed. */
#include "hessian.h"

#include "gguf_read.h"
#include "hash.h"
#include "name_index.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SIZE = 65536, MAX_NAME_BYTES = 40 };

static const char *const ending[2] = { ".hessian", ".hessian_held" };
static const char counts_ending[] = ".hessian_counts";

struct entry {
    char name[64];
    const struct weight *sums[2]; /* held: may be NULL */
    int64_t n_token[2];
    int n;
};

struct hessian_file {
    char *path;
    struct file_map map;
    struct gguf gguf;
    struct entry *entry;
    int n_entry;
    struct name_index index;
};

/* ---- reading ---- */

/* n of a triangle with this many numbers; 0: there is none. */
static int size_of(int64_t n_number)
{
    int64_t n = (int64_t)((sqrt(8.0 * (double)n_number + 1) - 1) / 2 + .5);
    return n > 0 && n <= MAX_SIZE && n * (n + 1) / 2 == n_number ? (int)n : 0;
}

static int64_t n_number(const struct weight *t)
{
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

static const struct weight *tensor_of(const struct hessian_file *h, const struct name_index *all,
                                      const char *stem, const char *end)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", stem, end);
    int at = name_index_find(all, name);
    return at < 0 ? NULL : &h->gguf.tensor[at];
}

static int read_counts(const struct hessian_file *h, const struct name_index *all, struct entry *x,
                       struct err *e)
{
    const struct weight *t = tensor_of(h, all, x->name, counts_ending);
    if (!t)
        return err_set(e, ERR_FORMAT, "%s: tensor %s%s is missing", h->path, x->name,
                       counts_ending);
    if (t->type != DT_I64 || n_number(t) != 2)
        return err_set(e, ERR_FORMAT, "%s: tensor %s is %s x %lld, expected I64 x 2", h->path,
                       t->name, dtype_name((int)t->type), (long long)n_number(t));
    memcpy(x->n_token, t->data, sizeof x->n_token);
    for (int p = 0; p < 2; p++) {
        if (x->n_token[p] < 0 || x->n_token[p] > INT64_C(1) << 53)
            return err_set(e, ERR_FORMAT, "%s: tensor %s, number %d is %lld, expected a count of "
                           "tokens", h->path, t->name, p, (long long)x->n_token[p]);
    }
    if (!x->sums[HESSIAN_HELD])
        x->n_token[HESSIAN_HELD] = 0;
    return 0;
}

/* The input whose sums are tensor i, if that is what it is. */
static int take_entry(struct hessian_file *h, const struct name_index *all, int i, struct err *e)
{
    const struct weight *t = &h->gguf.tensor[i];
    size_t len = strlen(t->name), n_end = strlen(ending[0]), stem = len - n_end;
    if (len <= n_end || strcmp(t->name + stem, ending[0]) != 0)
        return 0;
    if (stem > MAX_NAME_BYTES)
        return err_set(e, ERR_FORMAT, "%s: tensor %s has a name of more than %d bytes before "
                       "%s", h->path, t->name, MAX_NAME_BYTES, ending[0]);
    struct entry *x = &h->entry[h->n_entry];
    snprintf(x->name, sizeof x->name, "%.*s", (int)stem, t->name);
    x->sums[HESSIAN_LEARN] = t;
    x->sums[HESSIAN_HELD] = tensor_of(h, all, x->name, ending[HESSIAN_HELD]);
    x->n = size_of(n_number(t));
    for (int p = 0; p < 2 && x->sums[p]; p++) {
        const struct weight *s = x->sums[p];
        if (s->type != DT_F32)
            return err_set(e, ERR_FORMAT, "%s: tensor %s is %s, expected F32", h->path, s->name,
                           dtype_name((int)s->type));
        if (x->n == 0 || n_number(s) != n_number(t))
            return err_set(e, ERR_FORMAT, "%s: tensor %s has %lld numbers, expected %s", h->path,
                           s->name, (long long)n_number(s),
                           x->n ? "as many as to learn from" : "a triangle of n (n + 1) / 2");
    }
    TRY(read_counts(h, all, x, e));
    int older;
    h->n_entry++;
    return name_index_add(&h->index, x->name, h->n_entry - 1, &older, e);
}

static int read_file(struct hessian_file *h, struct err *e)
{
    struct name_index all = { 0 };
    int code = 0, older;
    TRY(gguf_parse(&h->gguf, h->path, h->map.data, h->map.size, e));
    const char *type = meta_str(h->gguf.meta, "general.type");
    if (!type || strcmp(type, "hessian") != 0)
        return err_set(e, ERR_FORMAT, "%s: key general.type is %s, expected hessian", h->path,
                       type ? type : "missing");
    h->entry = calloc((size_t)h->gguf.n_tensor + 1, sizeof *h->entry);
    if (!h->entry)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for %d tensors", h->path,
                       h->gguf.n_tensor);
    for (int i = 0; i < h->gguf.n_tensor && code == 0; i++)
        code = name_index_add(&all, h->gguf.tensor[i].name, i, &older, e);
    for (int i = 0; i < h->gguf.n_tensor && code == 0; i++)
        code = take_entry(h, &all, i, e);
    name_index_release(&all);
    TRY(code);
    return h->n_entry ? 0 : err_set(e, ERR_FORMAT, "%s: has no tensor NAME%s", h->path, ending[0]);
}

int hessian_open(struct hessian_file **out, const char *path, struct err *e)
{
    struct hessian_file *h = calloc(1, sizeof *h);
    size_t n = strlen(path) + 1;
    *out = NULL;
    if (!h || !(h->path = malloc(n))) {
        free(h);
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    }
    memcpy(h->path, path, n);
    int code = file_map_open(&h->map, path, e);
    if (code == 0)
        code = read_file(h, e);
    if (code < 0)
        hessian_close(h);
    else
        *out = h;
    return code;
}

void hessian_close(struct hessian_file *h)
{
    if (!h)
        return;
    name_index_release(&h->index);
    gguf_release(&h->gguf);
    file_map_close(&h->map);
    free(h->entry);
    free(h->path);
    free(h);
}

const char *hessian_path(const struct hessian_file *h)
{
    return h->path;
}

uint64_t hessian_hash(const struct hessian_file *h)
{
    return hash_of(h->map.data, h->map.size, 0);
}

int hessian_count(const struct hessian_file *h)
{
    return h->n_entry;
}

int hessian_find(const struct hessian_file *h, const char *name)
{
    return name_index_find(&h->index, name);
}

const char *hessian_name(const struct hessian_file *h, int entry)
{
    return h->entry[entry].name;
}

int hessian_size(const struct hessian_file *h, int entry)
{
    return h->entry[entry].n;
}

int64_t hessian_tokens(const struct hessian_file *h, int entry, enum hessian_part part)
{
    return h->entry[entry].n_token[part];
}

/* Element (i, j) of a triangle; false: a number that no sum can be. */
static bool number_at(const struct weight *t, int64_t i, int64_t j, float *x)
{
    memcpy(x, t->data + 4 * (i * (i + 1) / 2 + j), sizeof *x);
    return isfinite(*x) && (i != j || *x >= 0);
}

static int bad_number(const struct hessian_file *h, const struct weight *t, int i, int j,
                      struct err *e)
{
    float x;
    number_at(t, i, j, &x);
    return err_set(e, ERR_FORMAT, "%s: tensor %s, row %d, column %d is %g, expected %s", h->path,
                   t->name, i, j, (double)x, i == j ? "a sum of squares" : "a number");
}

int hessian_row(const struct hessian_file *h, int entry, enum hessian_part part, int i,
                float *mean, struct err *e)
{
    const struct entry *x = &h->entry[entry];
    const struct weight *t = x->sums[part];
    CHECK(t && x->n_token[part] > 0 && i >= 0 && i < x->n);
    double by = 1 / (double)x->n_token[part];
    for (int j = 0; j <= i; j++) {
        float sum;
        if (!number_at(t, i, j, &sum))
            return bad_number(h, t, i, j, e);
        mean[j] = (float)((double)sum * by);
    }
    return 0;
}

int hessian_add(const struct hessian_file *h, int entry, enum hessian_part part, double *sum,
                size_t pitch, struct err *e)
{
    const struct entry *x = &h->entry[entry];
    const struct weight *t = x->sums[part];
    for (int i = 0; t && i < x->n; i++) {
        for (int j = 0; j <= i; j++) {
            float more;
            if (!number_at(t, i, j, &more))
                return bad_number(h, t, i, j, e);
            sum[(size_t)i * pitch + (size_t)j] += (double)more;
        }
    }
    return 0;
}

/* ---- writing ---- */

int hessian_write_open(struct hessian_writer *w, const char *path, struct err *e)
{
    *w = (struct hessian_writer){ 0 };
    TRY(gguf_write_open(&w->out, path, e));
    gguf_put_str(&w->out, "general.type", "hessian");
    return 0;
}

static int announce(struct hessian_writer *w, const char *name, const char *end, enum dtype type,
                    int64_t n, struct err *e)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", name, end);
    return gguf_add_tensor(&w->out, full, type, 1, &n, e);
}

int hessian_write_add(struct hessian_writer *w, const char *name, int n, bool held, struct err *e)
{
    CHECK(strlen(name) <= MAX_NAME_BYTES && n > 0 && n <= MAX_SIZE);
    struct hessian_out *more = realloc(w->entry, ((size_t)w->n_entry + 1) * sizeof *more);
    if (!more)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", w->out.file.path);
    w->entry = more;
    struct hessian_out *x = &more[w->n_entry];
    int64_t n_sum = (int64_t)n * (n + 1) / 2;
    *x = (struct hessian_out){ .n = n, .held = -1 };
    snprintf(x->name, sizeof x->name, "%s", name);
    TRY(x->sums = announce(w, name, ending[HESSIAN_LEARN], DT_F32, n_sum, e));
    if (held)
        TRY(x->held = announce(w, name, ending[HESSIAN_HELD], DT_F32, n_sum, e));
    TRY(x->counts = announce(w, name, counts_ending, DT_I64, 2, e));
    return w->n_entry++;
}

int hessian_write_begin(struct hessian_writer *w, struct err *e)
{
    return gguf_write_begin(&w->out, e);
}

static int put_sums(struct hessian_writer *w, const struct hessian_out *x, int tensor,
                    const struct hessian_sums *s, struct err *e)
{
    int code = 0;
    float *row = malloc((size_t)x->n * sizeof *row);
    if (!row)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", w->out.file.path);
    for (size_t i = 0; i < (size_t)x->n && code == 0; i++) {
        for (size_t j = 0; j <= i && code == 0; j++) {
            row[j] = (float)s->sum[i * s->pitch + j];
            if (!isfinite(row[j]) || (i == j && row[j] < 0))
                code = err_set(e, ERR_FORMAT, "%s: input %s, row %zu, column %zu has a sum of %g",
                               w->out.file.path, x->name, i, j, s->sum[i * s->pitch + j]);
        }
        if (code == 0)
            code = gguf_write_data(&w->out, tensor, i * (i + 1) / 2 * 4, row, (i + 1) * 4, e);
    }
    free(row);
    return code;
}

int hessian_write_put(struct hessian_writer *w, int entry, const struct hessian_sums *learn,
                      const struct hessian_sums *held, struct err *e)
{
    const struct hessian_out *x = &w->entry[entry];
    int64_t count[2] = { learn->n_token, held ? held->n_token : 0 };
    CHECK(entry < w->n_entry && (held != NULL) == (x->held >= 0));
    TRY(put_sums(w, x, x->sums, learn, e));
    if (held)
        TRY(put_sums(w, x, x->held, held, e));
    return gguf_write_data(&w->out, x->counts, 0, count, sizeof count, e);
}

int hessian_write_finish(struct hessian_writer *w, struct err *e)
{
    free(w->entry);
    w->entry = NULL;
    w->n_entry = 0;
    return gguf_write_finish(&w->out, e);
}

void hessian_write_abort(struct hessian_writer *w)
{
    free(w->entry);
    w->entry = NULL;
    w->n_entry = 0;
    gguf_write_abort(&w->out);
}
