/* segment_impl.h - attention to a segment of the keys with a softmax of its own, and the merging of
 * segments. */
#ifndef DS_SEGMENT_IMPL_H
#define DS_SEGMENT_IMPL_H

#include "attend_impl.h"

#define THREADS 128
#define HEADS 8   /* of a block */
#define KEYS 8    /* that are scored together */
#define SEGMENT 128
#define MAX_DIM 512
#define EACH (MAX_DIM / THREADS) /* elements of a head that a thread sums */
#define TEAM 8    /* lanes that share a score */

/* A segment's softmax so far, for each head: relative to max. */
struct attend_tile {
    float q[HEADS][MAX_DIM], key[KEYS][MAX_DIM + TEAM];
    float score[HEADS][KEYS], max[HEADS], sum[HEADS], shrink[HEADS];
};

/* A warp for every key; keys that are not there are zeros. */
__device__ __forceinline__ void load_keys(struct attend_tile *t, const struct attending *p,
                                          const struct cu_view *v, int j0)
{
    const struct kv_shape *s = &p->step.shape;
    for (int k = WARP_ID; k < KEYS; k += N_WARP) {
        const uint8_t *row = j0 + k < v->n ? key_row(s, v, j0 + k) : NULL;
        for (int i = LANE; i < p->dim; i += WARP)
            t->key[k][i] = !row       ? 0
                           : s->packed ? kv_value(row, s->head_dim, s->rope_dim, i)
                                       : ((const float *)row)[i];
    }
}

/* Scores of all heads and keys of the tile, each by TEAM lanes. */
__device__ __forceinline__ void score_keys(struct attend_tile *t, const struct attending *p,
                                           int n_key)
{
    int lane = (int)threadIdx.x % TEAM;
    for (int at = (int)threadIdx.x / TEAM; at < HEADS * KEYS; at += THREADS / TEAM) {
        int h = at / KEYS, k = at % KEYS;
        float dot = 0;
        for (int i = lane; i < p->dim; i += TEAM)
            dot = fmaf(t->q[h][i], t->key[k][i], dot);
        dot = lanes_sum<TEAM>(dot);
        if (lane == 0)
            t->score[h][k] = k < n_key ? dot * p->scale : -INFINITY;
    }
}

/* Scores to weights; how much smaller what was summed before becomes. The first two warps. */
__device__ __forceinline__ void weigh_keys(struct attend_tile *t)
{
    int h = (int)threadIdx.x / KEYS, k = (int)threadIdx.x % KEYS;
    if (h >= HEADS)
        return;
    float x = t->score[h][k], old = t->max[h], max = x;
    for (int i = KEYS / 2; i > 0; i /= 2)
        max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, i));
    max = fmaxf(max, old);
    float w = exp_below(x, max), sum = lanes_sum<KEYS>(w);
    t->score[h][k] = w;
    if (k == 0) {
        t->shrink[h] = exp_below(old, max);
        t->sum[h] = t->sum[h] * t->shrink[h] + sum;
        t->max[h] = max;
    }
}

/* Keys first .. last-1 of the query; values of this thread's elements to sum. */
__device__ __forceinline__ void attend_segment(struct attend_tile *t, const struct attending *p,
                                               const struct cu_view *v, int first, int last,
                                               float (*sum)[EACH])
{
    for (int h = (int)threadIdx.x; h < HEADS; h += THREADS) {
        t->max[h] = -INFINITY;
        t->sum[h] = 0;
    }
#pragma unroll
    for (int i = 0; i < HEADS * EACH; i++)
        sum[i / EACH][i % EACH] = 0;
    for (int j = first; j < last; j += KEYS) {
        __syncthreads();
        load_keys(t, p, v, j);
        __syncthreads();
        score_keys(t, p, last - j);
        __syncthreads();
        weigh_keys(t);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < HEADS * EACH; i++) {
            int h = i / EACH, e = (int)threadIdx.x + i % EACH * THREADS;
            float s = sum[h][i % EACH] * t->shrink[h];
#pragma unroll
            for (int k = 0; k < KEYS; k++)
                s = e < p->dim ? fmaf(t->score[h][k], t->key[k][e], s) : s;
            sum[h][i % EACH] = s;
        }
    }
    __syncthreads();
}

__device__ __forceinline__ void load_query(struct attend_tile *t, const struct attending *p,
                                           int row, int head0)
{
    for (int i = (int)threadIdx.x; i < HEADS * p->dim; i += THREADS) {
        int h = i / p->dim, e = i % p->dim;
        t->q[h][e] = head0 + h < p->n_head
                         ? p->q.x[row * p->q.pitch + (size_t)(head0 + h) * p->dim + e]
                         : 0;
    }
}

/* Several softmaxes as one. */
struct merged {
    float max, sum;
};

/* Adds one with (max, sum); *old, *add: what the values of both are to be multiplied with. */
__device__ __forceinline__ void merge(struct merged *m, float max, float sum, float *old,
                                      float *add)
{
    float both = fmaxf(m->max, max);
    *old = exp_below(m->max, both);
    *add = exp_below(max, both);
    m->sum = m->sum * *old + sum * *add;
    m->max = both;
}

#endif
