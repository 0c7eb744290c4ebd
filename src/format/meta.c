/* meta.c - the table behind meta.h: entries in file order, found by name, memory in one list. */
#include "meta_impl.h"

#include "name_index.h"

#include <math.h>
#include <stdlib.h>

struct meta_block {
    struct meta_block *older;
    _Alignas(max_align_t) unsigned char bytes[];
};

struct meta {
    char *file;
    struct meta_kv *kv;
    int n, cap;
    struct name_index index;
    struct meta_block *blocks;
};

struct meta *meta_new(const char *file)
{
    struct meta *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    size_t bytes = strlen(file) + 1;
    m->file = malloc(bytes);
    if (!m->file) {
        free(m);
        return NULL;
    }
    memcpy(m->file, file, bytes);
    return m;
}

void meta_free(struct meta *m)
{
    if (!m)
        return;
    while (m->blocks) {
        struct meta_block *b = m->blocks;
        m->blocks = b->older;
        free(b);
    }
    name_index_release(&m->index);
    free(m->kv);
    free(m->file);
    free(m);
}

void *meta_alloc(struct meta *m, size_t n, size_t size, struct err *e)
{
    size_t bytes;
    struct meta_block *b = NULL;
    if (mul_size(n, size, &bytes) && add_size(bytes, sizeof *b, &bytes))
        b = malloc(bytes);
    if (!b) {
        err_set(e, ERR_NO_MEMORY, "%s: out of memory for %zu metadata values", m->file, n);
        return NULL;
    }
    b->older = m->blocks;
    m->blocks = b;
    return b->bytes;
}

int meta_add(struct meta *m, struct meta_kv kv, struct err *e)
{
    int older;
    if (m->n == m->cap) {
        int cap = m->cap ? m->cap * 2 : 64;
        struct meta_kv *more = realloc(m->kv, (size_t)cap * sizeof *more);
        if (!more)
            return err_set(e, ERR_NO_MEMORY, "%s: out of memory for metadata", m->file);
        m->kv = more;
        m->cap = cap;
    }
    TRY(name_index_add(&m->index, kv.key, m->n, &older, e));
    if (older >= 0)
        return err_set(e, ERR_FORMAT, "%s: key %s occurs twice", m->file, kv.key);
    m->kv[m->n++] = kv;
    return 0;
}

const char *meta_file(const struct meta *m)
{
    return m->file;
}

int meta_count(const struct meta *m)
{
    return m->n;
}

const struct meta_kv *meta_at(const struct meta *m, int i)
{
    CHECK(i >= 0 && i < m->n);
    return &m->kv[i];
}

const struct meta_kv *meta_find(const struct meta *m, const char *key)
{
    int i = name_index_find(&m->index, key);
    return i < 0 ? NULL : &m->kv[i];
}

static int wrong_type(const struct meta *m, const struct meta_kv *kv, const char *want,
                      struct err *e)
{
    static const char *const names[] = { "null", "an integer", "a number with a fraction",
                                         "a truth value", "a string" };
    return err_set(e, ERR_FORMAT, "%s: key %s is %s, expected %s", m->file, kv->key,
                   kv->is_array ? "an array" : names[kv->type], want);
}

static const struct meta_kv *given(const struct meta *m, const char *key)
{
    const struct meta_kv *kv = meta_find(m, key);
    return kv && kv->type != META_NONE ? kv : NULL;
}

static int read_int(const struct meta *m, const struct meta_kv *kv, int64_t *out, struct err *e)
{
    if (!kv->is_array && (kv->type == META_INT || kv->type == META_BOOL)) {
        *out = kv->v.i[0];
        return 0;
    }
    /* 2^63 itself is the first double that does not fit. */
    if (!kv->is_array && kv->type == META_FLOAT && kv->v.f[0] >= -0x1p63 && kv->v.f[0] < 0x1p63 &&
        kv->v.f[0] == floor(kv->v.f[0])) {
        *out = (int64_t)kv->v.f[0];
        return 0;
    }
    return wrong_type(m, kv, "an integer", e);
}

static int read_float(const struct meta *m, const struct meta_kv *kv, double *out, struct err *e)
{
    if (kv->is_array || (kv->type != META_INT && kv->type != META_FLOAT))
        return wrong_type(m, kv, "a number", e);
    *out = kv->type == META_INT ? (double)kv->v.i[0] : kv->v.f[0];
    return 0;
}

static int missing(const struct meta *m, const char *key, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: key %s is missing", m->file, key);
}

int meta_int(const struct meta *m, const char *key, int64_t *out, struct err *e)
{
    const struct meta_kv *kv = given(m, key);
    return kv ? read_int(m, kv, out, e) : missing(m, key, e);
}

int meta_float(const struct meta *m, const char *key, double *out, struct err *e)
{
    const struct meta_kv *kv = given(m, key);
    return kv ? read_float(m, kv, out, e) : missing(m, key, e);
}

int meta_int_or(const struct meta *m, const char *key, int64_t absent, int64_t *out, struct err *e)
{
    const struct meta_kv *kv = given(m, key);
    *out = absent;
    return kv ? read_int(m, kv, out, e) : 0;
}

int meta_float_or(const struct meta *m, const char *key, double absent, double *out, struct err *e)
{
    const struct meta_kv *kv = given(m, key);
    *out = absent;
    return kv ? read_float(m, kv, out, e) : 0;
}

const char *meta_str(const struct meta *m, const char *key)
{
    const struct meta_kv *kv = given(m, key);
    return kv && kv->type == META_STR && !kv->is_array ? kv->v.s[0].data : NULL;
}
