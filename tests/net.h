/* net.h - for tests: a checkpoint opened on a device, one conversation's cache, and steps. */
#ifndef TESTS_NET_H
#define TESTS_NET_H

#include "backend.h"
#include "buf.h"
#include "deepseek4.h"
#include "file.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct net {
    struct weights *files;
    struct dev *dev;
    struct model *model;
    struct kv_shape shape;
    struct kv_view view, *views[1];
    struct row *row, *next;
    void *scratch;
    int max_rows;
};

static inline void net_must(int code, const struct err *e)
{
    if (code < 0) {
        fprintf(stderr, "%s\n", e->text);
        abort();
    }
}

static inline void *net_zero(size_t n)
{
    void *p = calloc(1, MAX(n, (size_t)1));
    CHECK(p);
    return p;
}

static inline void net_front(struct kv_front *f, int cap, int width)
{
    f->cap = cap;
    f->width = width;
    f->a = net_zero((size_t)cap * width * sizeof(float));
    f->s = net_zero((size_t)cap * width * sizeof(float));
}

static inline uint8_t **net_blocks(int n, size_t bytes)
{
    uint8_t **b = net_zero((size_t)n * sizeof *b);
    for (int i = 0; i < n; i++)
        b[i] = net_zero(bytes);
    return b;
}

static inline void net_cache(struct net *n, int ctx)
{
    const struct model_info *info = model_info(n->model);
    struct kv_shape *s = &n->shape;
    int n_block = ctx / s->block_tok + 1;
    n->view = (struct kv_view){ s, info->n_kv_layer, NULL };
    n->view.layer = net_zero((size_t)info->n_kv_layer * sizeof *n->view.layer);
    for (int l = 0; l < info->n_kv_layer; l++) {
        struct kv_layer *k = &n->view.layer[l];
        bool overlap = info->ratio[l] == 4;
        k->ratio = info->ratio[l];
        k->ring = net_zero((size_t)s->ring_cap * s->row_bytes);
        if (!k->ratio)
            continue;
        size_t per = (size_t)(s->block_tok / k->ratio);
        int cap = (overlap ? 2 : 1) * k->ratio + s->slack;
        net_front(&k->main, cap, (overlap ? 2 : 1) * s->head_dim);
        k->block = net_blocks(n_block, per * s->row_bytes);
        if (!overlap)
            continue;
        net_front(&k->index, cap, 2 * s->index_dim);
        k->index_block = net_blocks(n_block, per * s->index_row_bytes);
    }
    n->views[0] = &n->view;
}

static inline void net_cache_free(struct net *n, int ctx)
{
    int n_block = ctx / n->shape.block_tok + 1;
    for (int l = 0; l < n->view.n_layer; l++) {
        struct kv_layer *k = &n->view.layer[l];
        free(k->ring);
        free(k->main.a), free(k->main.s), free(k->index.a), free(k->index.s);
        for (int b = 0; b < n_block; b++) {
            if (k->block)
                free(k->block[b]);
            if (k->index_block)
                free(k->index_block[b]);
        }
        free(k->block), free(k->index_block);
    }
    free(n->view.layer);
}

/* device "ref", "cpu" or "cpu exact"; simulate as in model_options. */
static inline void net_open(struct net *n, const char *path, const char *device, int simulate,
                     int max_rows)
{
    struct err e = { 0 };
    bool exact = strcmp(device, "cpu exact") == 0;
    struct backend_options back = { .n_thread = 2, .isa = ~0u, .exact = exact };
    struct model_options opt = { .simulate = simulate, .with_mtp = true };
    *n = (struct net){ .max_rows = max_rows };
    net_must(weights_open(&n->files, path, &e), &e);
    net_must(dev_open(&n->dev, exact ? "cpu" : device, &back, &e), &e);
    net_must(model_open(&n->model, n->files, n->dev, &opt, &e), &e);
    model_kv_shape(n->model, max_rows, 8, &n->shape);
    n->row = net_zero((size_t)max_rows * sizeof *n->row);
    n->next = net_zero((size_t)max_rows * sizeof *n->next);
    size_t size = (size_t)1 << 28;
    n->scratch = aligned_alloc(ARENA_ALIGN, size);
    CHECK(n->scratch);
    arena_init(&n->dev->scratch, n->scratch, size);
}

static inline void net_close(struct net *n)
{
    model_close(n->model);
    dev_close(n->dev);
    weights_close(n->files);
    free(n->row), free(n->next), free(n->scratch);
}

/* Tokens [from, from + count) of a text of n_tok; logits and mtp [count][n_vocab], mtp may be
 * NULL. The token after the last is the first. */
static inline void net_step(struct net *n, const int32_t *tok, int n_tok, int from, int count,
                     float *logits, float *mtp)
{
    struct err e = { 0 };
    struct model_out out;
    struct rows r = { count, n->row, 1, n->views }, next = { count, n->next, 1, n->views };
    CHECK(count <= n->max_rows);
    for (int i = 0; i < count; i++) {
        n->row[i] = (struct row){ tok[from + i], from + i, 0, true };
        n->next[i] = (struct row){ tok[(from + i + 1) % n_tok], from + i, 0, true };
    }
    dev_begin(n->dev);
    model_forward(n->model, &r, mtp ? &next : NULL, &out);
    net_must(dev_wait(n->dev, &e), &e);
    size_t bytes = (size_t)count * model_info(n->model)->n_vocab * sizeof *logits;
    memcpy(logits, out.logits.data, bytes);
    if (mtp)
        memcpy(mtp, out.mtp_logits.data, bytes);
}

/* A whole text in steps of `chunk` from an empty cache. */
static inline void net_run(struct net *n, const int32_t *tok, int n_tok, int chunk, float *logits,
                    float *mtp)
{
    size_t v = (size_t)model_info(n->model)->n_vocab;
    net_cache(n, n_tok);
    for (int i = 0; i < n_tok; i += chunk)
        net_step(n, tok, n_tok, i, MIN(chunk, n_tok - i), logits + (size_t)i * v,
                 mtp ? mtp + (size_t)i * v : NULL);
    net_cache_free(n, n_tok);
}

/* ---- data ---- */

static inline int32_t *net_ids(json_t *list, int *n)
{
    *n = (int)json_array_size(list);
    int32_t *id = net_zero((size_t)*n * sizeof *id);
    for (int i = 0; i < *n; i++)
        id[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return id;
}

static inline int32_t *net_tokens(const char *path, int *n)
{
    json_t *list = json_load_file(path, 0, NULL);
    CHECK(json_is_array(list));
    int32_t *id = net_ids(list, n);
    json_decref(list);
    return id;
}

static inline float *net_floats(const char *path, size_t n)
{
    struct buf b;
    struct err e = { 0 };
    buf_init(&b, (size_t)1 << 30);
    net_must(file_read_all(&b, path, &e), &e);
    CHECK(b.len >= n * sizeof(float));
    float *x = net_zero(n * sizeof *x);
    memcpy(x, b.data + b.len - n * sizeof *x, n * sizeof *x);
    buf_release(&b);
    return x;
}

static inline double net_max_difference(const float *a, const float *b, size_t n)
{
    double max = 0;
    for (size_t i = 0; i < n; i++) {
        double diff = fabs((double)a[i] - b[i]);
        max = diff > max || isnan(diff) ? diff : max; /* a NaN stays */
        if (isnan(max))
            return INFINITY;
    }
    return max;
}

static inline int net_top(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static inline double net_log_sum(const float *x, int n)
{
    double max = x[net_top(x, n)], sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

/* Mean over rows of KL(softmax(a) || softmax(b)), nats. */
static inline double net_kl(const float *a, const float *b, int rows, int n)
{
    double sum = 0;
    for (int r = 0; r < rows; r++) {
        const float *x = a + (size_t)r * n, *y = b + (size_t)r * n;
        double lx = net_log_sum(x, n), ly = net_log_sum(y, n);
        for (int i = 0; i < n; i++)
            sum += exp(x[i] - lx) * ((x[i] - lx) - (y[i] - ly));
    }
    return sum / rows;
}

#endif
