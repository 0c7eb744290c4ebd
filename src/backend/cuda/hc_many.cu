/* hc_many.cu - the projection of many rows' streams: a warp sums for 8 rows what 12 rows of fn say,
 * a lane for every 32nd group of four elements. fn is made float32 in shared memory, once for 32
 * rows of the step; what comes next is on its way while the warps sum. */
#include "hc_impl.h"

#define THREADS 256
#define ROWS 8          /* of the step, for a warp; a block has four times as many */
#define NUMBERS 12      /* rows of fn, for a warp; a block has twice as many */
#define TURN (4 * WARP) /* elements of a row that a warp takes at once */
#define PIECE 2048      /* elements of a row that a block sums */
#define PAIRS (2 * NUMBERS * TURN / 2 / THREADS) /* of fn, that a thread brings for a turn */

struct fn_tile {
    float f[2 * NUMBERS][TURN];
};

/* What a warp sums, up to element `last`: rows of the step from row0 on; of fn its block's from i0
 * on. */
struct span {
    struct cu_mat streams;
    int n_row, row0, i0, last;
};

/* A thread's part of the next turn, as it lies in memory: whoever looks at it waits. */
struct coming {
    uint2 f[PAIRS];
    float4 x[ROWS];
};

/* Elements at and at + 1 of row i of fn, up to `last`. */
template <enum layout layout>
__device__ __forceinline__ uint2 raw_pair(const struct cu_hc *hc, int i, int at, int last)
{
    const uint8_t *row = hc->fn + (i < hc->m ? i : 0) * hc->fn_pitch; /* one too many is not used */
    size_t e = (size_t)(at < last ? at : last - 2);                   /* nor is this: x is zero */
    if (layout == PAIRS_F32)
        return *(const uint2 *)(row + e * 4);
    if (layout == PAIRS_F16)
        return { *(const uint32_t *)(row + e * 2), 0 };
    float2 x = two_of_fn(hc, i < hc->m ? i : 0, (size_t)at, last - at);
    return { __float_as_uint(x.x), __float_as_uint(x.y) };
}

/* Elements of a turn from k on. */
template <enum layout layout>
__device__ __forceinline__ void fetch(struct coming *c, const struct cu_hc *hc,
                                      const struct span *s, int k)
{
    bool aligned = (uintptr_t)s->streams.x % 16 == 0 && s->streams.pitch % 4 == 0;
    const float *x[ROWS];
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        int at = (int)threadIdx.x + j * THREADS, i = s->i0 + at / (TURN / 2);
        c->f[j] = raw_pair<layout>(hc, i, k + at % (TURN / 2) * 2, s->last);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int row = s->row0 + r < s->n_row ? s->row0 + r : s->n_row - 1;
        x[r] = s->streams.x + row * s->streams.pitch + k + 4 * LANE;
    }
    if (aligned && k + TURN <= s->last) {
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            c->x[r] = *(const float4 *)x[r];
        return;
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        c->x[r] = load_four(x[r], s->last - k - 4 * LANE, false);
}

template <enum layout layout>
__device__ __forceinline__ void place_fn(struct fn_tile *t, const struct coming *c)
{
    float2 *to = (float2 *)t->f;
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        uint2 f = c->f[j];
        float2 halves = { f16_value(f.x & 0xffff), f16_value(f.x >> 16) };
        float2 whole = { __uint_as_float(f.x), __uint_as_float(f.y) };
        to[threadIdx.x + j * THREADS] = layout == PAIRS_F16 ? halves : whole;
    }
}

/* sum: [NUMBERS][ROWS]. */
__device__ __forceinline__ void add_turn(const struct fn_tile *t, const float4 *x, float *sum,
                                         float *square)
{
    const float(*f)[TURN] = t->f + WARP_ID % 2 * NUMBERS;
#pragma unroll
    for (int i = 0; i < NUMBERS; i++) {
        float4 by = *(const float4 *)(f[i] + 4 * LANE);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[i * ROWS + r] = add_four(by, x[r], sum[i * ROWS + r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        square[r] = add_four(x[r], x[r], square[r]);
}

/* Lanes in pairs add up their 2 * half sums: each keeps one half of them. */
template <int half> __device__ __forceinline__ void fold(float *x)
{
#pragma unroll
    for (int i = 0; i < half; i++) {
        float own = LANE & half ? x[i + half] : x[i], other = LANE & half ? x[i] : x[i + half];
        x[i] = own + __shfl_xor_sync(ALL_LANES, other, half);
    }
}

/* Lane l gets the sum over all lanes of its x[l]. */
__device__ __forceinline__ float sum_of_own(float *x)
{
    fold<16>(x);
    fold<8>(x);
    fold<4>(x);
    fold<2>(x);
    fold<1>(x);
    return x[0];
}

/* A number of a row, as far as this piece goes, to part [rows][m + 1][pieces]. */
__device__ __forceinline__ void store(float *part, const struct cu_hc *hc, int row, int i, float x)
{
    part[((size_t)row * (hc->m + 1) + i) * gridDim.x + blockIdx.x] = x;
}

/* Grid: pieces, 4 ROWS rows, 2 NUMBERS numbers. */
template <enum layout layout>
__global__ void __launch_bounds__(THREADS) project_many_kernel(float *part, struct cu_mat streams,
                                                               int n_row, struct cu_hc hc)
{
    SHARED(struct fn_tile, t);
    int cols = hc.n_embd * hc.n_stream, first = (int)blockIdx.x * PIECE;
    struct span s = { streams, n_row, ((int)blockIdx.y * 4 + WARP_ID / 2) * ROWS,
                      (int)blockIdx.z * 2 * NUMBERS, first + PIECE < cols ? first + PIECE : cols };
    float sum[NUMBERS * ROWS] = {}, square[ROWS] = {};
    struct coming c;
    fetch<layout>(&c, &hc, &s, first);
    for (int k = first; k < s.last; k += TURN) {
        float4 x[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            x[r] = c.x[r];
        __syncthreads();
        place_fn<layout>(&t, &c);
        __syncthreads();
        if (k + TURN < s.last)
            fetch<layout>(&c, &hc, &s, k + TURN);
        add_turn(&t, x, sum, square);
    }
#pragma unroll
    for (int j = 0; j < NUMBERS * ROWS / WARP; j++) {
        float all = sum_of_own(sum + j * WARP);
        int i = s.i0 + WARP_ID % 2 * NUMBERS + (j * WARP + LANE) / ROWS, row = s.row0 + LANE % ROWS;
        if (i < hc.m && row < n_row)
            store(part, &hc, row, i, all);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float all = warp_sum(square[r]);
        if (LANE == 0 && s.i0 + WARP_ID % 2 == 0 && s.row0 + r < n_row)
            store(part, &hc, s.row0 + r, hc.m, all);
    }
}

int cuda_hc_pieces(const struct cu_hc *hc)
{
    return (int)blocks_for((size_t)hc->n_embd * (size_t)hc->n_stream, PIECE);
}

void cuda_hc_project_many(struct dev *d, float *part, const struct tensor *streams,
                          const struct cu_hc *hc)
{
    dim3 grid((unsigned)cuda_hc_pieces(hc), blocks_for((size_t)streams->rows, 4 * ROWS),
              blocks_for((size_t)hc->m, 2 * NUMBERS));
    enum layout layout = layout_of(hc);
    auto kernel = layout == ANY          ? project_many_kernel<ANY>
                  : layout == PAIRS_F32 ? project_many_kernel<PAIRS_F32>
                                        : project_many_kernel<PAIRS_F16>;
    LAUNCH(d, kernel, grid, THREADS, 0, part, mat_of(streams), streams->rows, *hc);
}
