/* hc.cu - hyper-connections: projections of all streams, a block of threads for each number of a
 * row; then a block for each row makes them gates and mixes. */
#include "floats_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 128
#define MAX_STREAM 8

struct cu_hc {
    const uint8_t *fn;
    size_t fn_pitch;
    enum dtype type;
    const float *base, *scale;
    int n_stream, n_iter, n_embd, m;
    float eps, norm_eps;
};

static struct cu_hc hc_of(const struct hc *hc)
{
    CHECK(hc->n_stream <= MAX_STREAM);
    CHECK(hc->fn.type == DT_F32 || hc->fn.type == DT_F16 || hc->fn.type == DT_BF16);
    return { (const uint8_t *)hc->fn.data, hc->fn.pitch, hc->fn.type, hc->base, hc->scale,
             hc->n_stream, hc->n_iter, hc->fn.cols / hc->n_stream, hc->fn.rows, hc->eps,
             hc->norm_eps };
}

__device__ __forceinline__ float number_at(enum dtype type, const uint8_t *row, int j)
{
    if (type == DT_F32)
        return __uint_as_float(load32(row + (size_t)j * 4));
    uint32_t h = load16(row + (size_t)j * 2);
    return type == DT_F16 ? f16_value(h) : __uint_as_float(h << 16);
}

/* raw [rows][m + 1]: row i of fn times v; last the mean of squares. Grid: m + 1, rows. */
__global__ void __launch_bounds__(THREADS) project_kernel(float *raw, struct cu_mat streams,
                                                          struct cu_hc hc)
{
    SHARED(struct cu_sums, sums);
    const float *v = streams.x + blockIdx.y * streams.pitch;
    int i = (int)blockIdx.x, n = hc.n_embd * hc.n_stream;
    float sum = 0;
    for (int j = (int)threadIdx.x; j < n; j += THREADS)
        sum = fmaf(i < hc.m ? number_at(hc.type, hc.fn + i * hc.fn_pitch, j) : v[j], v[j], sum);
    sum = block_sum(sum, &sums);
    if (threadIdx.x == 0)
        raw[blockIdx.y * (size_t)(hc.m + 1) + i] = i < hc.m ? sum : sum / (float)n;
}

__device__ __forceinline__ float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

/* The gates of a row, in shared memory. */
struct gates {
    float m[2 * MAX_STREAM + MAX_STREAM * MAX_STREAM];
    float c[MAX_STREAM * MAX_STREAM];
};

/* Divide every column of c (by_row: row) by its sum. Thread t holds element t. */
__device__ __forceinline__ void divide(float *c, int n, bool by_row, float eps)
{
    int t = (int)threadIdx.x, from = by_row ? t / n * n : t % n, step = by_row ? 1 : n;
    float sum = eps;
    for (int k = 0; k < n && t < n * n; k++)
        sum += c[from + k * step];
    __syncthreads();
    if (t < n * n)
        c[t] /= sum;
    __syncthreads();
}

/* Softmax of every row, then alternately columns and rows to sum 1; a column step is last. */
__device__ __forceinline__ void sinkhorn(float *c, int n, int n_iter, float eps)
{
    int t = (int)threadIdx.x;
    float max = 0, sum = 0, mine = 0;
    if (t < n * n) {
        max = c[t / n * n];
        for (int k = 1; k < n; k++)
            max = fmaxf(max, c[t / n * n + k]);
        for (int k = 0; k < n; k++)
            sum += expf(c[t / n * n + k] - max);
        mine = expf(c[t] - max) / sum + eps;
    }
    __syncthreads();
    if (t < n * n)
        c[t] = mine;
    __syncthreads();
    divide(c, n, false, eps);
    for (int i = 1; i < n_iter; i++) {
        divide(c, n, true, eps);
        divide(c, n, false, eps);
    }
}

__device__ __forceinline__ void mix_streams(float *x, const float *v, const float *pre, int n_embd,
                                            int n)
{
    for (int e = (int)threadIdx.x; e < n_embd; e += THREADS) {
        float sum = 0;
        for (int k = 0; k < n; k++)
            sum = fmaf(pre[k], v[(size_t)k * n_embd + e], sum);
        x[e] = sum;
    }
}

/* Grid: rows. */
__global__ void __launch_bounds__(THREADS) mix_kernel(struct cu_mat x, struct cu_mat gates,
                                                      struct cu_mat streams, const float *raw,
                                                      struct cu_hc hc)
{
    SHARED(struct gates, g);
    int n = hc.n_stream, t = (int)threadIdx.x;
    raw += blockIdx.x * (size_t)(hc.m + 1);
    float scale = 1 / sqrtf(raw[hc.m] + hc.norm_eps), *to = gates.x + blockIdx.x * gates.pitch;
    if (t < hc.m) {
        float part = hc.scale[t < n ? 0 : t < 2 * n ? 1 : 2];
        float m = raw[t] * scale * part + hc.base[t];
        g.m[t] = t < n ? sigmoid(m) + hc.eps : t < 2 * n ? 2 * sigmoid(m) : m;
        if (t >= 2 * n)
            g.c[t - 2 * n] = m;
    }
    __syncthreads();
    sinkhorn(g.c, n, hc.n_iter, hc.eps);
    if (t < hc.m)
        to[t] = t < 2 * n ? g.m[t] : g.c[t - 2 * n];
    mix_streams(x.x + blockIdx.x * x.pitch, streams.x + blockIdx.x * streams.pitch, g.m, hc.n_embd,
                n);
}

__global__ void __launch_bounds__(THREADS) head_kernel(struct cu_mat x, struct cu_mat streams,
                                                       const float *raw, struct cu_hc hc)
{
    SHARED(struct gates, g);
    int t = (int)threadIdx.x;
    raw += blockIdx.x * (size_t)(hc.m + 1);
    float scale = 1 / sqrtf(raw[hc.m] + hc.norm_eps);
    if (t < hc.m)
        g.m[t] = sigmoid(raw[t] * scale * hc.scale[0] + hc.base[t]) + hc.eps;
    __syncthreads();
    mix_streams(x.x + blockIdx.x * x.pitch, streams.x + blockIdx.x * streams.pitch, g.m, hc.n_embd,
                hc.n_stream);
}

static float *project(struct dev *d, const struct tensor *streams, const struct cu_hc *hc)
{
    float *raw = (float *)dev_alloc(d, (size_t)streams->rows * (size_t)(hc->m + 1) * sizeof *raw);
    dim3 grid((unsigned)hc->m + 1, (unsigned)streams->rows);
    if (cuda_runs(d))
        LAUNCH(d, project_kernel, grid, THREADS, 0, raw, mat_of(streams), *hc);
    return raw;
}

void cuda_hc_mix(struct dev *d, struct tensor *x, struct tensor *gates,
                 const struct tensor *streams, const struct hc *hc)
{
    size_t mark = arena_mark(&d->scratch);
    struct cu_hc h = hc_of(hc);
    float *raw = project(d, streams, &h);
    if (cuda_runs(d))
        LAUNCH(d, mix_kernel, dim3((unsigned)x->rows), THREADS, 0, mat_of(x), mat_of(gates),
               mat_of(streams), raw, h);
    arena_rewind(&d->scratch, mark);
}

void cuda_hc_head(struct dev *d, struct tensor *x, const struct tensor *streams,
                  const struct hc *hc)
{
    size_t mark = arena_mark(&d->scratch);
    struct cu_hc h = hc_of(hc);
    float *raw = project(d, streams, &h);
    if (cuda_runs(d))
        LAUNCH(d, head_kernel, dim3((unsigned)x->rows), THREADS, 0, mat_of(x), mat_of(streams),
               raw, h);
    arena_rewind(&d->scratch, mark);
}

/* Element e of every stream, after the sublayer gave y. Grid: elements, rows. */
__global__ void __launch_bounds__(THREADS) spread_kernel(struct cu_mat streams, struct cu_mat y,
                                                         struct cu_mat gates, int n_embd, int n)
{
    int e = (int)(blockIdx.x * THREADS + threadIdx.x);
    const float *post = gates.x + blockIdx.y * gates.pitch + n, *c = post + n;
    float *v = streams.x + blockIdx.y * streams.pitch + e, old[MAX_STREAM];
    if (e >= n_embd)
        return;
    float x = y.x[blockIdx.y * y.pitch + e];
#pragma unroll
    for (int j = 0; j < MAX_STREAM; j++)
        old[j] = j < n ? v[(size_t)j * n_embd] : 0;
    for (int k = 0; k < n; k++) {
        float sum = post[k] * x;
#pragma unroll
        for (int j = 0; j < MAX_STREAM; j++)
            sum = j < n ? fmaf(c[j * n + k], old[j], sum) : sum;
        v[(size_t)k * n_embd] = sum;
    }
}

void cuda_hc_spread(struct dev *d, struct tensor *streams, const struct tensor *y,
                    const struct tensor *gates, const struct hc *hc)
{
    CHECK(hc->n_stream <= MAX_STREAM);
    dim3 grid(blocks_for((size_t)y->cols, THREADS), (unsigned)y->rows);
    if (cuda_runs(d))
        LAUNCH(d, spread_kernel, grid, THREADS, 0, mat_of(streams), mat_of(y), mat_of(gates),
               y->cols, hc->n_stream);
}
