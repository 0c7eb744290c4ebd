/* imatrix.c - both formats as one list of places in a mapped file.
 *
 * Files of a large model take gigabytes, of which one vector at a time is wanted: nothing is
 * copied at opening, and values are looked at only when they are read. */
#include "imatrix.h"

#include "file.h"
#include "gguf_read.h"
#include "hash.h"
#include "name_index.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_ENTRY = 1 << 20, MAX_NAME_BYTES = 512 };

struct entry {
    char *name;
    const uint8_t *square, *value; /* f32; value: NULL where they are not there */
    const uint8_t *count;          /* f32; NULL in the legacy format */
    int64_t n_col, n_mat;         /* legacy: all values, 1 */
    float divisor;                /* legacy: n_call */
};

struct imatrix {
    char *path;
    struct file_map map; /* nothing when the bytes are the caller's */
    const uint8_t *data;
    size_t size;
    struct gguf gguf;
    struct entry *entry;
    int n_entry, cap_entry;
    struct name_index index;
    int64_t chunks;
    char *dataset;
};

static float f32_at(const uint8_t *p)
{
    float x;
    memcpy(&x, p, sizeof x);
    return x;
}

static int32_t i32_at(const uint8_t *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static char *copy_text(const void *data, size_t len)
{
    char *s = malloc(len + 1);
    if (s) {
        memcpy(s, data, len);
        s[len] = 0;
    }
    return s;
}

/* Takes its own copy of the name. */
static int add_entry(struct imatrix *m, struct entry x, const void *name, size_t len, struct err *e)
{
    int older;
    if (m->n_entry == m->cap_entry) {
        int cap = m->cap_entry ? 2 * m->cap_entry : 256;
        struct entry *more = realloc(m->entry, (size_t)cap * sizeof *more);
        if (!more)
            return err_set(e, ERR_NO_MEMORY, "%s: out of memory for %d entries", m->path, cap);
        m->entry = more;
        m->cap_entry = cap;
    }
    x.name = copy_text(name, len);
    if (!x.name)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", m->path);
    m->entry[m->n_entry++] = x;
    TRY(name_index_add(&m->index, x.name, m->n_entry - 1, &older, e));
    if (older >= 0)
        return err_set(e, ERR_FORMAT, "%s: entry %s occurs twice", m->path, x.name);
    return 0;
}

/* ---- GGUF ---- */

/* Sums of the values beside those of squares, if there are any. */
static int find_values(const struct imatrix *m, const struct name_index *tensors, const char *name,
                       struct entry *x, struct err *e)
{
    int at = name_index_find(tensors, name);
    if (at < 0)
        return 0;
    const struct weight *t = &m->gguf.tensor[at];
    int64_t n_mat = t->dim[1] * t->dim[2] * t->dim[3];
    if (t->type != DT_F32 || t->dim[0] != x->n_col || n_mat != x->n_mat)
        return err_set(e, ERR_FORMAT, "%s: tensor %s is %s, %lld x %lld, expected F32, %lld x %lld",
                       m->path, name, dtype_name((int)t->type), (long long)n_mat,
                       (long long)t->dim[0], (long long)x->n_mat, (long long)x->n_col);
    x->value = t->data;
    return 0;
}

static int add_sums(struct imatrix *m, const struct name_index *tensors, int i, struct err *e)
{
    static const char ending[] = ".in_sum2";
    char name[MAX_NAME_BYTES];
    const struct weight *sum = &m->gguf.tensor[i];
    size_t len = strlen(sum->name), stem = len - (sizeof ending - 1);
    if (len < sizeof ending || strcmp(sum->name + stem, ending) != 0)
        return 0;
    snprintf(name, sizeof name, "%.*s.counts", (int)stem, sum->name);
    int at = name_index_find(tensors, name);
    if (at < 0)
        return err_set(e, ERR_FORMAT, "%s: tensor %s is missing", m->path, name);
    const struct weight *count = &m->gguf.tensor[at];
    if (sum->type != DT_F32 || count->type != DT_F32)
        return err_set(e, ERR_FORMAT, "%s: tensor %s is %s with counts in %s, expected F32",
                       m->path, sum->name, dtype_name((int)sum->type),
                       dtype_name((int)count->type));
    struct entry x = { .square = sum->data, .count = count->data, .n_col = sum->dim[0],
                       .n_mat = sum->dim[1] * sum->dim[2] * sum->dim[3], .divisor = 1 };
    int64_t n_count = count->dim[0] * count->dim[1] * count->dim[2] * count->dim[3];
    if (n_count != x.n_mat)
        return err_set(e, ERR_FORMAT, "%s: tensor %s has %lld numbers, expected %lld", m->path,
                       count->name, (long long)n_count, (long long)x.n_mat);
    snprintf(name, sizeof name, "%.*s.in_sum", (int)stem, sum->name);
    TRY(find_values(m, tensors, name, &x, e));
    return add_entry(m, x, sum->name, stem, e);
}

static int read_gguf(struct imatrix *m, struct err *e)
{
    TRY(gguf_parse(&m->gguf, m->path, m->data, m->size, e));
    const char *type = meta_str(m->gguf.meta, "general.type");
    if (!type || strcmp(type, "imatrix") != 0)
        return err_set(e, ERR_FORMAT, "%s: key general.type is %s, expected imatrix", m->path,
                       type ? type : "missing");
    TRY(meta_int_or(m->gguf.meta, "imatrix.chunk_count", -1, &m->chunks, e));
    const struct meta_kv *sets = meta_find(m->gguf.meta, "imatrix.datasets");
    if (sets && sets->type == META_STR && sets->n > 0) {
        m->dataset = copy_text(sets->v.s[0].data, sets->v.s[0].len);
        if (!m->dataset)
            return err_set(e, ERR_NO_MEMORY, "%s: out of memory", m->path);
    }
    struct name_index tensors = { 0 };
    int code = 0, older;
    for (int i = 0; i < m->gguf.n_tensor && code == 0; i++)
        code = name_index_add(&tensors, m->gguf.tensor[i].name, i, &older, e);
    for (int i = 0; i < m->gguf.n_tensor && code == 0; i++)
        code = add_sums(m, &tensors, i, e);
    name_index_release(&tensors);
    return code;
}

/* ---- legacy ---- */

static int short_file(const struct imatrix *m, size_t at, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: ends at byte %zu within entry %d, read up to byte %zu",
                   m->path, m->size, m->n_entry, at);
}

/* An i32 of at least `least`. */
static int take_i32(const struct imatrix *m, size_t *at, int32_t least, int32_t *out,
                    struct err *e)
{
    if (m->size - *at < 4)
        return short_file(m, *at, e);
    *out = i32_at(m->data + *at);
    if (*out < least)
        return err_set(e, ERR_FORMAT, "%s: number at byte %zu is %d, expected at least %d (is it "
                       "an importance matrix?)", m->path, *at, *out, least);
    *at += 4;
    return 0;
}

static int take_entry(struct imatrix *m, size_t *at, struct err *e)
{
    int32_t len, n_call, n_value;
    TRY(take_i32(m, at, 1, &len, e));
    if (len > MAX_NAME_BYTES)
        return err_set(e, ERR_FORMAT, "%s: entry %d has a name of %d bytes, the limit is %d (is it "
                       "an importance matrix?)", m->path, m->n_entry, len, MAX_NAME_BYTES);
    if (m->size - *at < (size_t)len)
        return short_file(m, *at, e);
    const uint8_t *name = m->data + *at;
    for (int32_t i = 0; i < len; i++) {
        if (name[i] < 0x21 || name[i] > 0x7e)
            return err_set(e, ERR_FORMAT, "%s: entry %d has byte %d in its name (is it an "
                           "importance matrix?)", m->path, m->n_entry, name[i]);
    }
    *at += (size_t)len;
    TRY(take_i32(m, at, 0, &n_call, e));
    TRY(take_i32(m, at, 1, &n_value, e));
    if ((m->size - *at) / 4 < (size_t)n_value)
        return short_file(m, *at, e);
    struct entry x = { .square = m->data + *at, .n_col = n_value, .n_mat = 1,
                       .divisor = (float)MAX(n_call, 1) };
    *at += 4 * (size_t)n_value;
    return add_entry(m, x, name, (size_t)len, e);
}

static int read_legacy(struct imatrix *m, struct err *e)
{
    size_t at = 0;
    int32_t n, chunks, len;
    m->chunks = -1;
    TRY(take_i32(m, &at, 1, &n, e));
    if (n > MAX_ENTRY)
        return err_set(e, ERR_FORMAT, "%s: states %d entries, the limit is %d (is it an importance "
                       "matrix?)", m->path, n, MAX_ENTRY);
    for (int i = 0; i < n; i++)
        TRY(take_entry(m, &at, e));
    /* | chunks i32 | length i32 | name of the text |, if at all */
    if (m->size - at < 8)
        return 0;
    chunks = i32_at(m->data + at);
    len = i32_at(m->data + at + 4);
    m->chunks = chunks;
    if (len > 0 && (size_t)len <= m->size - at - 8 &&
        !(m->dataset = copy_text(m->data + at + 8, (size_t)len)))
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", m->path);
    return 0;
}

/* ---- both ---- */

static int read_any(struct imatrix *m, const char *path, struct err *e)
{
    m->path = copy_text(path, strlen(path));
    if (!m->path)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    bool is_gguf = m->size >= 4 && memcmp(m->data, "GGUF", 4) == 0;
    TRY(is_gguf ? read_gguf(m, e) : read_legacy(m, e));
    if (m->n_entry == 0)
        return err_set(e, ERR_FORMAT, "%s: has no entries", path);
    return 0;
}

int imatrix_parse(struct imatrix **out, const char *path, const uint8_t *data, size_t size,
                  struct err *e)
{
    struct imatrix *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    m->data = data;
    m->size = size;
    int code = read_any(m, path, e);
    if (code < 0)
        imatrix_close(m);
    else
        *out = m;
    return code;
}

int imatrix_open(struct imatrix **out, const char *path, struct err *e)
{
    struct file_map map;
    *out = NULL;
    TRY(file_map_open(&map, path, e));
    int code = imatrix_parse(out, path, map.data, map.size, e);
    if (code < 0)
        file_map_close(&map);
    else
        (*out)->map = map;
    return code;
}

void imatrix_close(struct imatrix *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->n_entry; i++)
        free(m->entry[i].name);
    free(m->entry);
    name_index_release(&m->index);
    gguf_release(&m->gguf);
    file_map_close(&m->map);
    free(m->dataset);
    free(m->path);
    free(m);
}

const char *imatrix_path(const struct imatrix *m)
{
    return m->path;
}

int imatrix_count(const struct imatrix *m)
{
    return m->n_entry;
}

int64_t imatrix_chunks(const struct imatrix *m)
{
    return m->chunks;
}

const char *imatrix_dataset(const struct imatrix *m)
{
    return m->dataset;
}

uint64_t imatrix_hash(const struct imatrix *m)
{
    return hash_of(m->data, m->size, 0);
}

int imatrix_find(const struct imatrix *m, const char *tensor)
{
    return name_index_find(&m->index, tensor);
}

int imatrix_check(const struct imatrix *m, int entry, int64_t n_col, int64_t n_mat, struct err *e)
{
    const struct entry *x = &m->entry[entry];
    bool fits = x->count ? x->n_col == n_col && x->n_mat == n_mat : x->n_col == n_col * n_mat;
    if (fits)
        return 0;
    return err_set(e, ERR_MISMATCH, "%s: entry %s has %lld x %lld values, expected %lld x %lld",
                   m->path, x->name, (long long)x->n_mat, (long long)x->n_col, (long long)n_mat,
                   (long long)n_col);
}

/* What the sums of a vector are to be divided by. */
static int read_divisor(const struct imatrix *m, const struct entry *x, int64_t mat, float *divisor,
                        struct err *e)
{
    *divisor = x->count ? f32_at(x->count + 4 * mat) : x->divisor;
    if (*divisor >= 0 && !isinf(*divisor))
        return 0;
    return err_set(e, ERR_FORMAT, "%s: entry %s, count %lld is %g", m->path, x->name,
                   (long long)mat, (double)*divisor);
}

int imatrix_read(const struct imatrix *m, int entry, int64_t mat, int64_t n_col, float *mean,
                 double *n_token, struct err *e)
{
    const struct entry *x = &m->entry[entry];
    const uint8_t *value = x->square + 4 * mat * n_col;
    float divisor;
    TRY(read_divisor(m, x, mat, &divisor, e));
    *n_token = x->count ? (double)divisor : -1;
    for (int64_t i = 0; i < n_col; i++) {
        float v = f32_at(value + 4 * i);
        if (!(v >= 0) || isinf(v))
            return err_set(e, ERR_FORMAT, "%s: entry %s, vector %lld, value %lld is %g, expected a "
                           "number of at least 0", m->path, x->name, (long long)mat, (long long)i,
                           (double)v);
        mean[i] = divisor > 0 ? v / divisor : 0;
    }
    return 0;
}

bool imatrix_has_values(const struct imatrix *m, int entry)
{
    return m->entry[entry].value != NULL;
}

int imatrix_read_values(const struct imatrix *m, int entry, int64_t mat, int64_t n_col,
                        float *mean, struct err *e)
{
    const struct entry *x = &m->entry[entry];
    const uint8_t *value = x->value + 4 * mat * n_col;
    float divisor;
    CHECK(x->value);
    TRY(read_divisor(m, x, mat, &divisor, e));
    for (int64_t i = 0; i < n_col; i++) {
        float v = f32_at(value + 4 * i);
        if (!isfinite(v))
            return err_set(e, ERR_FORMAT, "%s: entry %s, vector %lld, sum %lld is %g", m->path,
                           x->name, (long long)mat, (long long)i, (double)v);
        mean[i] = divisor > 0 ? v / divisor : 0;
    }
    return 0;
}
