/* ref_attend.c - what the cache's window rows and attention mean.
 *
 * A query sees the raw rows of its window and rows that stand for whole blocks of tokens, in one
 * softmax with a sink: a score per head that takes weight and gives no value. A row is key and
 * value at once. */
#include "ref.h"

#include "kv_row.h"

#include <math.h>

void ref_kv_load(const struct kv_shape *s, const uint8_t *row, float *x)
{
    if (s->packed)
        kv_row_unpack(row, s->head_dim, s->rope_dim, x);
    else
        memcpy(x, row, (size_t)s->head_dim * sizeof *x);
}

void ref_kv_store(struct dev *d, const struct tensor *kv, const struct rows *r, int l)
{
    if (dev_planning(d))
        return;
    for (int i = 0; i < r->n; i++) {
        const struct kv_view *view = r->kv[r->host[i].seq];
        const struct kv_shape *s = view->shape;
        uint8_t *slot = kv_ring_row(s, &view->layer[l], r->host[i].pos);
        if (s->packed)
            kv_row_pack(tensor_f32(kv, i), s->head_dim, s->rope_dim, slot);
        else
            memcpy(slot, tensor_f32(kv, i), (size_t)s->head_dim * sizeof(float));
    }
}

/* The cached rows that one query sees, oldest window row first. */
struct seen {
    const struct kv_shape *shape;
    const struct kv_layer *layer;
    int pos, n_window, n_block;
    const int32_t *picked; /* NULL: blocks 0..n_block-1 */
};

static struct seen seen_by(const struct rows *r, int i, const struct tensor *picked, int l)
{
    const struct kv_view *view = r->kv[r->host[i].seq];
    struct seen v = { .shape = view->shape, .layer = &view->layer[l], .pos = r->host[i].pos };
    v.n_window = MIN(v.pos + 1, v.shape->window);
    v.n_block = v.layer->ratio ? (v.pos + 1) / v.layer->ratio : 0;
    if (picked) {
        v.picked = tensor_i32(picked, i);
        v.n_block = MIN(v.n_block, picked->cols);
    }
    return v;
}

static const uint8_t *seen_row(const struct seen *v, int j)
{
    if (j < v->n_window)
        return kv_ring_row(v->shape, v->layer, v->pos - v->n_window + 1 + j);
    int b = j - v->n_window;
    return kv_block_row(v->shape, v->layer, v->picked ? v->picked[b] : b);
}

/* Scores of n keys and the sink to weights, in place. */
static void softmax_sink(double *score, int n, double sink)
{
    double max = sink, sum;
    for (int j = 0; j < n; j++)
        max = fmax(max, score[j]);
    sum = exp(sink - max);
    for (int j = 0; j < n; j++)
        sum += score[j] = exp(score[j] - max);
    for (int j = 0; j < n; j++)
        score[j] /= sum;
}

static void attend_row(struct dev *d, float *out, const float *q, const struct seen *v,
                       const struct attention *at)
{
    int dim = v->shape->head_dim, n = v->n_window + v->n_block, n_head = at->n_head;
    double *score = dev_alloc(d, (size_t)n * (size_t)n_head * sizeof *score);
    double *sum = dev_alloc(d, (size_t)dim * (size_t)n_head * sizeof *sum);
    float *row = dev_alloc(d, (size_t)dim * sizeof *row);
    if (!score || !sum || !row)
        return;
    for (int j = 0; j < n; j++) {
        ref_kv_load(v->shape, seen_row(v, j), row);
        for (int h = 0; h < n_head; h++) {
            double dot = 0;
            for (int k = 0; k < dim; k++)
                dot += (double)q[h * dim + k] * row[k];
            score[(size_t)h * n + j] = dot * at->scale;
        }
    }
    for (int h = 0; h < n_head; h++)
        softmax_sink(score + (size_t)h * n, n, at->sink[h]);
    memset(sum, 0, (size_t)dim * (size_t)n_head * sizeof *sum);
    for (int j = 0; j < n; j++) {
        ref_kv_load(v->shape, seen_row(v, j), row);
        for (int h = 0; h < n_head; h++)
            for (int k = 0; k < dim; k++)
                sum[h * dim + k] += score[(size_t)h * n + j] * row[k];
    }
    for (int k = 0; k < dim * n_head; k++)
        out[k] = (float)sum[k];
}

void ref_attend(struct dev *d, struct tensor *out, const struct tensor *q,
                const struct tensor *picked, const struct attention *at, const struct rows *r,
                int l)
{
    for (int i = 0; i < r->n; i++) {
        size_t mark = arena_mark(&d->scratch);
        struct seen v = seen_by(r, i, picked, l);
        attend_row(d, tensor_f32(out, i), tensor_f32(q, i), &v, at);
        arena_rewind(&d->scratch, mark);
    }
}
