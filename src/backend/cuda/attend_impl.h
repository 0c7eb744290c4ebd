/* attend_impl.h - what attention's kernels for few and for many rows share: what they are given and
 * which cached rows a query sees. */
#ifndef DS_ATTEND_IMPL_H
#define DS_ATTEND_IMPL_H

#include "pack_impl.h"

#include <math.h>

struct attending {
    struct cu_mat q, out;
    int n_head, dim, l;
    float scale;
    const float *sink;
    const int32_t *picked; /* NULL: all visible rows */
    size_t picked_pitch;
    int n_picked;
    float *part; /* [row][head][n_segment] of max, sum, dim values */
    int n_segment, n_window; /* n_window: segments of the window, where it has its own */
    int ratio;
    struct rope back; /* the output's rotation undone; no pairs: left as it is */
    struct cu_step step;
};

/* The cached rows that one query sees, oldest window row first. */
struct cu_view {
    const struct kv_layer *layer;
    const int32_t *picked;
    int pos, n_window, n;
};

__device__ __forceinline__ struct cu_view view_of(const struct attending *p, int row)
{
    struct cu_row r = p->step.row[row];
    const struct kv_shape *s = &p->step.shape;
    struct cu_view v = { kv_of(&p->step, r.seq, p->l), NULL, r.pos, 0, 0 };
    v.n_window = r.pos + 1 < s->window ? r.pos + 1 : s->window;
    int n_block = v.layer->ratio ? (r.pos + 1) / v.layer->ratio : 0;
    if (p->picked) {
        v.picked = p->picked + (size_t)row * p->picked_pitch;
        n_block = n_block < p->n_picked ? n_block : p->n_picked;
    }
    v.n = v.n_window + n_block;
    return v;
}

__device__ __forceinline__ const uint8_t *key_row(const struct kv_shape *s,
                                                  const struct cu_view *v, int j)
{
    if (j < v->n_window)
        return v->layer->ring +
               (size_t)((v->pos - v->n_window + 1 + j) % s->ring_cap) * s->row_bytes;
    int b = v->picked ? v->picked[j - v->n_window] : j - v->n_window;
    int per = s->block_tok / v->layer->ratio;
    return v->layer->block[b / per] + (size_t)(b % per) * s->row_bytes;
}

/* exp(x - max), 0 for minus infinity whatever the max. */
__device__ __forceinline__ float exp_below(float x, float max)
{
    return x == -INFINITY ? 0 : expf(x - max);
}

/* attend_many.cu: more than FEW_MAX rows, of a cache whose rows are like that. */
bool cuda_attends_many(const struct kv_shape *s);
void cuda_attend_many(struct dev *d, const struct attending *p, int n);

/* attend_few.cu: up to FEW_MAX of the same; segments of n keys, bytes of p->part. */
int cuda_few_segments(int n);
size_t cuda_few_bytes(const struct attending *p, int n);
void cuda_attend_few(struct dev *d, const struct attending *p, int n);

#endif
