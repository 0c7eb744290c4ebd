/* hc.cu - hyper-connections: pieces of all streams are projected, each by a block of threads; then
 * two blocks for a row sum what the pieces say, make gates of it, mix and norm. */
#include "hc_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 256
#define PIECE (2 * WARP) /* elements of every stream that a block projects */
#define TURNS 4          /* numbers that a warp projects at once */
#define ROWS 8           /* of the step, that a block projects */

/* What follows the mixing; no weight: nothing. */
struct hc_norm {
    const float *weight;
    float eps;
};

static struct cu_hc hc_of(const struct hc *hc)
{
    CHECK(hc->n_stream <= MAX_STREAM);
    CHECK(hc->fn.cols / hc->n_stream <= ROW_EACH * ROW_THREADS);
    CHECK(hc->fn.type == DT_F32 || hc->fn.type == DT_F16 || hc->fn.type == DT_BF16);
    return { (const uint8_t *)hc->fn.data, hc->fn.pitch, hc->fn.type, hc->base, hc->scale,
             hc->n_stream, hc->n_iter, hc->fn.cols / hc->n_stream, hc->fn.rows, hc->eps,
             hc->norm_eps };
}

/* Elements at, at + 1 of row i of fn, n of them within the row; no branches but for ANY: loads are
 * to be on their way together. */
template <enum layout layout>
__device__ __forceinline__ float2 pair_of_fn(const struct cu_hc *hc, int i, size_t at, int n)
{
    const uint8_t *row = hc->fn + i * hc->fn_pitch;
    if (layout == PAIRS_F32)
        return *(const float2 *)(row + at * 4);
    if (layout == ANY)
        return two_of_fn(hc, i, at, n);
    uint32_t two = *(const uint32_t *)(row + at * 2);
    return { f16_value(two & 0xffff), f16_value(two >> 16) };
}

/* Elements e and e + 1 of every stream, n of them within the row. */
template <int most>
__device__ __forceinline__ void two_of_streams(float2 *to, const float *v, const struct cu_hc *hc,
                                               int n)
{
#pragma unroll
    for (int k = 0; k < most; k++) {
        const float *x = v + (size_t)k * hc->n_embd;
        bool here = k < hc->n_stream;
        to[k] = { here && n > 0 ? x[0] : 0, here && n > 1 ? x[1] : 0 };
    }
}

/* TURNS numbers of one row, from i0 on every eighth, to part: [m + 1][pieces]. */
template <int most>
__device__ __forceinline__ void project_row(float *part, const float2 (*f)[most], const float2 *x,
                                            int i0, const struct cu_hc *hc)
{
#pragma unroll
    for (int t = 0; t < TURNS; t++) {
        int i = i0 + t * N_WARP;
        float sum = 0;
#pragma unroll
        for (int k = 0; k < most; k++) {
            float2 by = i < hc->m ? f[t][k] : x[k];
            sum = k < hc->n_stream ? fmaf(by.y, x[k].y, fmaf(by.x, x[k].x, sum)) : sum;
        }
        sum = warp_sum(sum);
        if (LANE == 0 && i <= hc->m)
            part[(size_t)i * gridDim.x + blockIdx.x] = sum;
    }
}

/* part [rows][m + 1][pieces]: what PIECE elements of every stream add to row i of fn times v; last
 * to the squares. A warp for every eighth i; what it has of fn serves ROWS rows. Grid: pieces,
 * ROWS rows. */
template <int most, enum layout layout> /* most: streams */
__global__ void __launch_bounds__(THREADS) project_kernel(float *part, struct cu_mat streams,
                                                          int n_row, struct cu_hc hc)
{
    wait_for_last();
    int e = (int)blockIdx.x * PIECE + 2 * LANE, left = hc.n_embd - e;
    int row0 = (int)blockIdx.y * ROWS, end = n_row - row0 < ROWS ? n_row : row0 + ROWS;
    for (int i0 = WARP_ID; i0 <= hc.m; i0 += TURNS * N_WARP) {
        float2 x[most], f[TURNS][most];
        two_of_streams<most>(x, streams.x + row0 * streams.pitch + e, &hc, left);
#pragma unroll
        for (int j = 0; j < TURNS * most; j++) {
            int t = j / most, k = j % most < hc.n_stream ? j % most : 0;
            int i = i0 + t * N_WARP < hc.m ? i0 + t * N_WARP : 0; /* what is too much is not used */
            size_t at = (size_t)k * hc.n_embd + (left > 0 ? e : 0);
            f[t][j % most] = pair_of_fn<layout>(&hc, i, at, left);
        }
        for (int r = row0; r < end; r++) {
            float2 next[most] = {};
            if (r + 1 < end)
                two_of_streams<most>(next, streams.x + (r + 1) * streams.pitch + e, &hc, left);
            project_row<most>(part + r * (size_t)(hc.m + 1) * gridDim.x, f, x, i0, &hc);
#pragma unroll
            for (int k = 0; k < most; k++)
                x[k] = next[k];
        }
    }
}

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

/* The pieces of a row, a warp for each number. */
__device__ __forceinline__ void sum_pieces(struct gates *g, const float *part, int n_piece,
                                           const struct cu_hc *hc)
{
    int t = (int)threadIdx.x, n = hc->n_stream;
    if (t < hc->m) {
        g->scale[t] = hc->scale[t < n ? 0 : t < 2 * n ? 1 : 2];
        g->base[t] = hc->base[t];
    }
    part += blockIdx.x * (size_t)(hc->m + 1) * n_piece;
    for (int i = WARP_ID; i <= hc->m; i += N_WARP) {
        float sum = 0;
        for (int j = LANE; j < n_piece; j += WARP)
            sum += part[(size_t)i * n_piece + j];
        sum = warp_sum(sum);
        if (LANE == 0)
            g->raw[i] = i < hc->m ? sum : sum / (float)(hc->n_embd * n);
    }
    __syncthreads();
}

/* Number i of a row. */
__device__ __forceinline__ float gate_of(const struct gates *g, const struct cu_hc *hc, int i)
{
    float scale = 1 / sqrtf(g->raw[hc->m] + hc->norm_eps);
    return g->raw[i] * scale * g->scale[i] + g->base[i];
}

/* 1 / x to the last bit or the one before, without the cases that a division distinguishes. */
#ifndef CUDA_EMULATED
__device__ __forceinline__ float over(float x)
{
    float y;
    asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return fmaf(y, fmaf(-x, y, 1), y);
}
#else
__device__ __forceinline__ float over(float x)
{
    return 1 / x;
}
#endif

/* Sum over k of x[k] times what lane k holds of `by`, from `sum` on. */
template <int n> __device__ __forceinline__ float sum_of_lanes(const float *x, float by, float sum)
{
#pragma unroll
    for (int k = 0; k < n; k++)
        sum = fmaf(x[k], __shfl_sync(ALL_LANES, by, k), sum);
    return sum;
}

/* Softmax of every row, then alternately columns and rows to sum 1; a column step is last. By a
 * warp: lane t knows row and column t of the softmax K and keeps the factors a of its row and b of
 * its column: C = a K b. c: room to show each other K. */
template <int n> __device__ __forceinline__ void sinkhorn(float *to, struct gates *g,
                                                          const struct cu_hc *hc)
{
    int t = LANE, n_true = hc->n_stream;
    float row[n], col[n], max = -INFINITY, sum = 0;
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
    for (int k = 0; k < n; k++) {
        row[k] = t < n_true && k < n_true ? row[k] / sum + hc->eps : 0;
        if (t < n)
            g->c[t][k] = row[k];
    }
    __syncwarp();
#pragma unroll
    for (int k = 0; k < n; k++)
        col[k] = t < n ? g->c[k][t] : 0;
    float a = t < n_true ? 1 : 0, b = a, over_a = 1, over_b = 1;
    for (int i = 0; i < hc->n_iter; i++) {
        if (i > 0) {
            over_a = sum_of_lanes<n>(row, b, over_a * hc->eps);
            a = t < n_true ? over(over_a) : 0;
        }
        over_b = sum_of_lanes<n>(col, a, over_b * hc->eps);
        b = t < n_true ? over(over_b) : 0;
    }
#pragma unroll
    for (int j = 0; j < n; j++) {
        float value = __shfl_sync(ALL_LANES, a, j) * col[j] * b;
        if (j < n_true && t < n_true)
            to[j * n_true + t] = value;
    }
}

#define AT_ONCE 4 /* streams, and elements of each, that are on their way together */

/* x := the streams mixed by g->pre, then, with a weight, normed. */
__device__ __forceinline__ void mix_streams(float *to, const float *v, struct gates *g,
                                            const struct cu_hc *hc, const struct hc_norm *norm)
{
    float x[ROW_EACH] = { 0 }, by[ROW_EACH], square = 0;
#pragma unroll
    for (int i0 = 0; i0 < ROW_EACH; i0 += AT_ONCE)
        for (int k0 = 0; k0 < hc->n_stream; k0 += AT_ONCE) {
            float old[AT_ONCE][AT_ONCE];
#pragma unroll
            for (int j = 0; j < AT_ONCE * AT_ONCE; j++) {
                int k = k0 + j / AT_ONCE, i = i0 + j % AT_ONCE;
                int e = (int)(threadIdx.x + i * blockDim.x);
                bool here = k < hc->n_stream && e < hc->n_embd;
                old[j / AT_ONCE][j % AT_ONCE] = here ? v[(size_t)k * hc->n_embd + e] : 0;
            }
#pragma unroll
            for (int j = 0; j < AT_ONCE * AT_ONCE; j++) {
                int k = k0 + j / AT_ONCE, i = i0 + j % AT_ONCE;
                float all = fmaf(g->pre[k % MAX_STREAM], old[j / AT_ONCE][j % AT_ONCE], x[i]);
                x[i] = k < hc->n_stream ? all : x[i];
            }
        }
#pragma unroll
    for (int i = 0; i < ROW_EACH; i++) {
        int e = (int)(threadIdx.x + i * blockDim.x);
        by[i] = norm->weight && e < hc->n_embd ? norm->weight[e] : 1;
        square = e < hc->n_embd ? fmaf(x[i], x[i], square) : square;
    }
    float scale = 1;
    if (norm->weight)
        scale = 1 / sqrtf(block_sum(square, &g->sums) / (float)hc->n_embd + norm->eps);
#pragma unroll
    for (int i = 0; i < ROW_EACH; i++) {
        int e = (int)(threadIdx.x + i * blockDim.x);
        if (e < hc->n_embd)
            to[e] = x[i] * scale * by[i];
    }
}

/* Grid: rows, 2: one block mixes while another makes C doubly stochastic. */
__global__ void __launch_bounds__(ROW_THREADS) mix_kernel(struct cu_mat x, struct cu_mat gates,
                                                          struct cu_mat streams, const float *part,
                                                          int n_piece, struct cu_hc hc,
                                                          struct hc_norm norm)
{
    wait_for_last();
    SHARED(struct gates, g);
    int n = hc.n_stream, t = (int)threadIdx.x;
    float *to = gates.x + blockIdx.x * gates.pitch;
    sum_pieces(&g, part, n_piece, &hc);
    if (blockIdx.y == 1) {
        if (t < WARP && n <= 4)
            sinkhorn<4>(to + 2 * n, &g, &hc);
        else if (t < WARP)
            sinkhorn<MAX_STREAM>(to + 2 * n, &g, &hc);
        return;
    }
    if (t < n)
        to[t] = g.pre[t] = sigmoid(gate_of(&g, &hc, t)) + hc.eps;
    else if (t < 2 * n)
        to[t] = 2 * sigmoid(gate_of(&g, &hc, t));
    __syncthreads();
    mix_streams(x.x + blockIdx.x * x.pitch, streams.x + blockIdx.x * streams.pitch, &g, &hc,
                &norm);
}

/* Grid: rows. */
__global__ void __launch_bounds__(ROW_THREADS) head_kernel(struct cu_mat x, struct cu_mat streams,
                                                           const float *part, int n_piece,
                                                           struct cu_hc hc, struct hc_norm norm)
{
    wait_for_last();
    SHARED(struct gates, g);
    int t = (int)threadIdx.x;
    sum_pieces(&g, part, n_piece, &hc);
    if (t < hc.n_stream)
        g.pre[t] = sigmoid(gate_of(&g, &hc, t)) + hc.eps;
    __syncthreads();
    mix_streams(x.x + blockIdx.x * x.pitch, streams.x + blockIdx.x * streams.pitch, &g, &hc,
                &norm);
}

template <int most>
static void project_from(struct dev *d, float *part, const struct tensor *streams,
                         const struct cu_hc *hc)
{
    dim3 grid(blocks_for((size_t)hc->n_embd, PIECE), blocks_for((size_t)streams->rows, ROWS));
    enum layout layout = layout_of(hc);
    auto kernel = layout == ANY          ? project_kernel<most, ANY>
                  : layout == PAIRS_F32 ? project_kernel<most, PAIRS_F32>
                                        : project_kernel<most, PAIRS_F16>;
    LAUNCH_EARLY(d, kernel, grid, THREADS, 0, part, mat_of(streams), streams->rows, *hc);
}

/* A row's pieces; *n_piece: how many. */
static float *project(struct dev *d, const struct tensor *streams, const struct cu_hc *hc,
                      int *n_piece)
{
    bool many = streams->rows > FEW_MAX;
    *n_piece = many ? cuda_hc_pieces(hc) : (int)blocks_for((size_t)hc->n_embd, PIECE);
    size_t bytes = (size_t)streams->rows * (size_t)(hc->m + 1) * (size_t)*n_piece * sizeof(float);
    float *part = (float *)dev_alloc(d, bytes);
    if (cuda_runs(d) && many)
        cuda_hc_project_many(d, part, streams, hc);
    else if (cuda_runs(d) && hc->n_stream <= 4)
        project_from<4>(d, part, streams, hc);
    else if (cuda_runs(d))
        project_from<MAX_STREAM>(d, part, streams, hc);
    return part;
}

void cuda_hc_mix_norm(struct dev *d, struct tensor *x, struct tensor *gates,
                      const struct tensor *streams, const struct hc *hc, const float *weight,
                      float eps)
{
    int n_piece;
    size_t mark = arena_mark(&d->scratch);
    struct cu_hc h = hc_of(hc);
    float *part = project(d, streams, &h, &n_piece);
    struct hc_norm norm = { weight, eps };
    if (cuda_runs(d))
        LAUNCH_EARLY(d, mix_kernel, dim3((unsigned)x->rows, 2), row_threads(x->cols), 0, mat_of(x),
                     mat_of(gates), mat_of(streams), part, n_piece, h, norm);
    arena_rewind(&d->scratch, mark);
}

void cuda_hc_mix(struct dev *d, struct tensor *x, struct tensor *gates,
                 const struct tensor *streams, const struct hc *hc)
{
    cuda_hc_mix_norm(d, x, gates, streams, hc, NULL, 0);
}

void cuda_hc_head(struct dev *d, struct tensor *x, const struct tensor *streams,
                  const struct hc *hc)
{
    int n_piece;
    size_t mark = arena_mark(&d->scratch);
    struct cu_hc h = hc_of(hc);
    float *part = project(d, streams, &h, &n_piece);
    struct hc_norm norm = { NULL, 0 };
    if (cuda_runs(d))
        LAUNCH_EARLY(d, head_kernel, dim3((unsigned)x->rows), row_threads(x->cols), 0, mat_of(x),
                     mat_of(streams), part, n_piece, h, norm);
    arena_rewind(&d->scratch, mark);
}

/* Element e of every stream, after the sublayer gave y. Grid: elements, rows. */
__global__ void __launch_bounds__(THREADS) spread_kernel(struct cu_mat streams, struct cu_mat y,
                                                         struct cu_mat gates, int n_embd, int n)
{
    wait_for_last();
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
        LAUNCH_EARLY(d, spread_kernel, grid, THREADS, 0, mat_of(streams), mat_of(y), mat_of(gates),
                     y->cols, hc->n_stream);
}
