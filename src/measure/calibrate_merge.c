/* calibrate_merge.c - importance matrices of several runs as one.
 *
 * Everything in the GGUF format is a sum, so merging is adding tensors of the same name, whoever
 * wrote them. The legacy format keeps means without counts: what cannot be weighed is refused. */
#include "calibrate.h"

#include "file.h"
#include "gguf_read.h"
#include "gguf_write.h"
#include "name_index.h"

#include <math.h>
#include <stdlib.h>

struct input {
    struct file_map map;
    struct gguf gguf;
    struct name_index index;
    bool parsed;
};

struct merge {
    const char *const *path;
    struct input *in;
    int n;
    struct gguf_writer out;
    const struct weight **tensor; /* of the result, in order: the first file that has it */
    int n_tensor;
};

static int open_input(struct input *x, const char *path, struct err *e)
{
    int older;
    TRY(file_map_open(&x->map, path, e));
    if (x->map.size < 4 || memcmp(x->map.data, "GGUF", 4) != 0)
        return err_set(e, ERR_FORMAT, "%s: is no GGUF file (the older format has no counts, and "
                       "cannot be merged)", path);
    TRY(gguf_parse(&x->gguf, path, x->map.data, x->map.size, e));
    x->parsed = true;
    const char *type = meta_str(x->gguf.meta, "general.type");
    if (!type || strcmp(type, "imatrix") != 0)
        return err_set(e, ERR_FORMAT, "%s: key general.type is %s, expected imatrix", path,
                       type ? type : "missing");
    for (int i = 0; i < x->gguf.n_tensor; i++) {
        const struct weight *w = &x->gguf.tensor[i];
        if (w->type != DT_F32)
            return err_set(e, ERR_FORMAT, "%s: tensor %s is %s, expected F32", path, w->name,
                           dtype_name((int)w->type));
        TRY(name_index_add(&x->index, w->name, i, &older, e));
    }
    return 0;
}

static const struct weight *find(const struct input *x, const char *name)
{
    int i = name_index_find(&x->index, name);
    return i < 0 ? NULL : &x->gguf.tensor[i];
}

/* The tensors of all files, each once. */
static int list_tensors(struct merge *m, struct err *e)
{
    int most = 0;
    for (int f = 0; f < m->n; f++)
        most += m->in[f].gguf.n_tensor;
    m->tensor = calloc((size_t)most + 1, sizeof *m->tensor);
    if (!m->tensor)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", most);
    for (int f = 0; f < m->n; f++)
        for (int i = 0; i < m->in[f].gguf.n_tensor; i++) {
            const struct weight *w = &m->in[f].gguf.tensor[i];
            bool seen = false;
            for (int g = 0; g < f && !seen; g++)
                seen = find(&m->in[g], w->name) != NULL;
            if (!seen)
                m->tensor[m->n_tensor++] = w;
        }
    return 0;
}

/* sum [numbers of the tensor], cleared. */
static int add_tensor(const struct merge *m, const struct weight *w, double *sum, struct err *e)
{
    size_t n = w->bytes / sizeof(float);
    for (int f = 0; f < m->n; f++) {
        const struct weight *x = find(&m->in[f], w->name);
        if (!x)
            continue;
        if (memcmp(x->dim, w->dim, sizeof x->dim) != 0)
            return err_set(e, ERR_MISMATCH, "%s: tensor %s has the shape %lld x %lld, expected "
                           "%lld x %lld", m->path[f], x->name, (long long)x->dim[0],
                           (long long)x->dim[1], (long long)w->dim[0], (long long)w->dim[1]);
        for (size_t i = 0; i < n; i++) {
            float v;
            memcpy(&v, x->data + 4 * i, 4);
            if (!isfinite(v))
                return err_set(e, ERR_FORMAT, "%s: tensor %s, number %zu is %g", m->path[f],
                               x->name, i, (double)v);
            sum[i] += (double)v;
        }
    }
    return 0;
}

static int put_sum(struct merge *m, int at, struct err *e)
{
    const struct weight *w = m->tensor[at];
    size_t n = w->bytes / sizeof(float);
    double *sum = calloc(MAX(n, 1), sizeof *sum);
    float *to = malloc(MAX(n, 1) * sizeof *to);
    int code = sum && to ? add_tensor(m, w, sum, e)
                         : err_set(e, ERR_NO_MEMORY, "out of memory for tensor %s", w->name);
    for (size_t i = 0; i < n && code == 0; i++) {
        to[i] = (float)sum[i];
        if (!isfinite(to[i]))
            code = err_set(e, ERR_FORMAT, "%s: tensor %s, number %zu is %g", m->out.file.path,
                           w->name, i, sum[i]);
    }
    if (code == 0)
        code = gguf_write_data(&m->out, at, 0, to, w->bytes, e);
    free(sum);
    free(to);
    return code;
}

/* Texts of all inputs, the sum of their chunks, the largest size of one. */
static int put_keys(struct merge *m, struct err *e)
{
    int64_t count = 0, size = 0, token = 0, v;
    int n_set = 0;
    for (int f = 0; f < m->n; f++) {
        const struct meta *meta = m->in[f].gguf.meta;
        const struct meta_kv *sets = meta_find(meta, "imatrix.datasets");
        n_set += sets && sets->type == META_STR ? (int)sets->n : 0;
        TRY(meta_int_or(meta, "imatrix.chunk_count", 0, &v, e));
        count += v;
        TRY(meta_int_or(meta, "imatrix.chunk_size", 0, &v, e));
        size = MAX(size, v);
        TRY(meta_int_or(meta, "dwarfstar.calibrate.tokens", 0, &v, e));
        token += v;
    }
    gguf_put_str(&m->out, "general.type", "imatrix");
    gguf_put_strs(&m->out, "imatrix.datasets", n_set);
    for (int f = 0; f < m->n; f++) {
        const struct meta_kv *sets = meta_find(m->in[f].gguf.meta, "imatrix.datasets");
        for (int64_t i = 0; sets && sets->type == META_STR && i < sets->n; i++)
            gguf_put_item(&m->out, sets->v.s[i].data, sets->v.s[i].len);
    }
    gguf_put_u32(&m->out, "imatrix.chunk_count", (uint32_t)MIN(MAX(count, 0), UINT32_MAX));
    gguf_put_u32(&m->out, "imatrix.chunk_size", (uint32_t)MIN(MAX(size, 0), UINT32_MAX));
    gguf_put_u32(&m->out, "dwarfstar.calibrate.tokens", (uint32_t)MIN(MAX(token, 0), UINT32_MAX));
    return 0;
}

static int write_merged(struct merge *m, struct err *e)
{
    TRY(put_keys(m, e));
    for (int i = 0; i < m->n_tensor; i++) {
        const struct weight *w = m->tensor[i];
        TRY(gguf_add_tensor(&m->out, w->name, DT_F32, w->n_dim, w->dim, e));
    }
    TRY(gguf_write_begin(&m->out, e));
    for (int i = 0; i < m->n_tensor; i++)
        TRY(put_sum(m, i, e));
    return gguf_write_finish(&m->out, e);
}

int calibrate_merge(const char *const *in, int n, const char *out, struct err *e)
{
    struct merge m = { .path = in, .n = n, .in = calloc((size_t)n, sizeof *m.in) };
    int code = m.in ? 0 : err_set(e, ERR_NO_MEMORY, "out of memory for %d files", n);
    for (int f = 0; f < n && code == 0; f++)
        code = open_input(&m.in[f], in[f], e);
    if (code == 0)
        code = list_tensors(&m, e);
    if (code == 0)
        code = gguf_write_open(&m.out, out, e);
    if (code == 0)
        code = write_merged(&m, e);
    gguf_write_abort(&m.out);
    for (int f = 0; m.in && f < n; f++) {
        name_index_release(&m.in[f].index);
        if (m.in[f].parsed)
            gguf_release(&m.in[f].gguf);
        file_map_close(&m.in[f].map);
    }
    free(m.tensor);
    free(m.in);
    return code;
}
