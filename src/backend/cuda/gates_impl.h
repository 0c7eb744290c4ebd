/* gates_impl.h - the gates of a row's streams, from the sums that blocks have projected. */
#ifndef DS_GATES_IMPL_H
#define DS_GATES_IMPL_H

#include "hc_impl.h"

__device__ __forceinline__ float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

#define MAX_NUMBER (2 * MAX_STREAM + MAX_STREAM * MAX_STREAM)

/* What a row's streams say, in shared memory. */
struct gates {
    float raw[MAX_NUMBER + 1]; /* last: the mean of the squares */
    float scale[MAX_NUMBER], base[MAX_NUMBER];
    float pre[MAX_STREAM], c[MAX_STREAM][MAX_STREAM];
    struct cu_sums sums;
};

/* Before raw numbers are there. */
__device__ __forceinline__ void fetch_gates(struct gates *g, const struct cu_hc *hc)
{
    int t = (int)threadIdx.x, n = hc->n_stream;
    if (t < hc->m) {
        g->scale[t] = hc->scale[t < n ? 0 : t < 2 * n ? 1 : 2];
        g->base[t] = hc->base[t];
    }
}

/* Number i of a row. */
__device__ __forceinline__ float gate_of(const struct gates *g, const struct cu_hc *hc, int i)
{
    float scale = 1 / sqrtf(g->raw[hc->m] + hc->norm_eps);
    return g->raw[i] * scale * g->scale[i] + g->base[i];
}

__device__ __forceinline__ float pre_gate(const struct gates *g, const struct cu_hc *hc, int i)
{
    return sigmoid(gate_of(g, hc, i)) + hc->eps;
}

/* 1 / x to the last bit or the one before, without the cases that a division distinguishes. */
#ifndef CUDA_EMULATED
__device__ __forceinline__ float over(float x)
{
    float y;
    asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
__device__ __forceinline__ float over(float x)
{
    return 1 / x;
}
#endif

/* Sum of n numbers from x on, `step` apart, times those of y, and `more`. */
template <int n>
__device__ __forceinline__ float dot(const float *x, int step, const float *y, float more)
{
    float sum[2] = { more, 0 };
#pragma unroll
    for (int k = 0; k < n; k++)
        sum[k % 2] = fmaf(x[k * step], y[k], sum[k % 2]);
    return sum[0] + sum[1];
}

/* Softmax of row t, if this lane has one, to c. */
template <int n>
__device__ __forceinline__ void softmax_row(float *c, const struct gates *g,
                                            const struct cu_hc *hc)
{
    int t = LANE, n_true = hc->n_stream;
    float row[n], max = -INFINITY, sum = 0;
#pragma unroll
    for (int k = 0; k < n; k++) {
        bool here = t < n_true && k < n_true;
        row[k] = here ? gate_of(g, hc, 2 * n_true + t * n_true + k) : -INFINITY;
        max = fmaxf(max, row[k]);
    }
#pragma unroll
    for (int k = 0; k < n; k++)
        if (t < n_true && k < n_true)
            sum += row[k] = expf(row[k] - max);
#pragma unroll
    for (int k = 0; k < n; k++)
        if (t < n)
            c[k] = t < n_true && k < n_true ? row[k] / sum + hc->eps : 0;
}

/* Softmax K of every row, then alternately columns and rows to sum 1; a column step is last. By a
 * warp, of which every lane does all of it but the softmax: lanes that show each other their part
 * would wait longer. Rows have factors a, columns b: C = a K b. */
template <int n> __device__ __forceinline__ void sinkhorn(float *to, struct gates *g,
                                                          const struct cu_hc *hc)
{
    int n_true = hc->n_stream;
    float c[n * n], a[n], b[n], over_a[n], over_b[n];
    softmax_row<n>(g->c[LANE % n], g, hc);
    __syncwarp();
#pragma unroll
    for (int k = 0; k < n * n; k++)
        c[k] = g->c[k / n][k % n];
#pragma unroll
    for (int k = 0; k < n; k++) {
        a[k] = b[k] = k < n_true ? 1 : 0;
        over_a[k] = over_b[k] = 1;
    }
#pragma unroll 1
    for (int i = 0; i < hc->n_iter; i++) {
#pragma unroll
        for (int j = 0; j < n && i > 0; j++) {
            over_a[j] = dot<n>(c + j * n, 1, b, over_a[j] * hc->eps);
            a[j] = j < n_true ? over(over_a[j]) : 0;
        }
#pragma unroll
        for (int k = 0; k < n; k++) {
            over_b[k] = dot<n>(c + k, n, a, over_b[k] * hc->eps);
            b[k] = k < n_true ? over(over_b[k]) : 0;
        }
    }
#pragma unroll
    for (int k = 0; k < n * n; k++)
        if (LANE == k && k / n < n_true && k % n < n_true)
            to[k / n * n_true + k % n] = a[k / n] * c[k] * b[k % n];
}

/* All gates of a row, by the first two warps: C, pre and post. */
template <int most> /* streams */
__device__ __forceinline__ void write_gates(float *to, struct gates *g, const struct cu_hc *hc)
{
    int n = hc->n_stream, t = (int)threadIdx.x - WARP;
    if (WARP_ID == 0)
        sinkhorn<most>(to + 2 * n, g, hc);
    else if (t < n)
        to[t] = pre_gate(g, hc, t);
    else if (t < 2 * n)
        to[t] = 2 * sigmoid(gate_of(g, hc, t));
}

#endif
