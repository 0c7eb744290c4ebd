/* gemm_exact.cu - products with many rows of activations as they are. Weights and activations are
 * sums of parts in bfloat16, eight bits each: three, fewer where weights have few bits. The tensor
 * cores add the products of parts that count: what is left out is 2^-25 of a term. Sums are cut off
 * there, not rounded, so they are short: 32 elements, whose sums are added in float32. */
#include "mma_impl.h"
#include "product_impl.h"
#include "widen_impl.h"

#define TILE 64
#define DEPTH UNIT
#define PITCH (DEPTH / 2 + 4) /* words of two; eight rows are in different banks */
#define THREADS 128       /* four warps with 32 x 32 results each */
#define TWOS (TILE * DEPTH / 2 / THREADS) /* of neighbours, for a thread to load */

#define ANY (-1)          /* type: packed ones, unpacked as they are needed */

#define PARTS 3           /* of an activation */

template <int type> __device__ __forceinline__ constexpr int parts()
{
    return type == DT_BF16 ? 1 : type == DT_F16 ? 2 : PARTS;
}

template <int n> struct tiles {
    uint32_t w[n][TILE][PITCH], x[PARTS][TILE][PITCH];
    const float *row[TILE]; /* of activations, NULL: none */
};

/* Where a thread's i-th two of a tile are: sixteen lanes take a row. */
__device__ __forceinline__ int two_row(int i)
{
    return (i * THREADS + (int)threadIdx.x) / (DEPTH / 2);
}

__device__ __forceinline__ int two_col()
{
    return (int)threadIdx.x % (DEPTH / 2) * 2;
}

/* Elements at and at + 1 of a row of n numbers. */
template <int type>
__device__ __forceinline__ float2 two_at(const uint8_t *row, int at, int n)
{
    const uint8_t *p = row + (size_t)at * (type == DT_F32 ? 4 : 2);
    if (type == DT_F32)
        return { at < n ? __uint_as_float(load32(p)) : 0,
                 at + 1 < n ? __uint_as_float(load32(p + 4)) : 0 };
    uint32_t two = at + 1 < n ? load32(p) : at < n ? load16(p) : 0;
    if (type == DT_BF16)
        return { __uint_as_float(two << 16), __uint_as_float(two & 0xffff0000) };
    return { f16_value(two & 0xffff), f16_value(two >> 16) };
}

struct ahead {
    float2 w[TWOS], x[TWOS];
};

template <int type>
__device__ __forceinline__ void load_ahead(struct ahead *a, const float *const *x_row,
                                           const struct cu_product *p, const struct cu_job *job,
                                           int row0, int k)
{
    int at = k + two_col();
#pragma unroll
    for (int i = 0; i < TWOS; i++) {
        int r = two_row(i);
        const float *x = x_row[r];
        a->x[i] = { x && at < p->k ? x[at] : 0, x && at + 1 < p->k ? x[at + 1] : 0 };
        a->w[i] = { 0, 0 };
        if (type != ANY && row0 + r < p->rows)
            a->w[i] = two_at<type>(job_row(p, job, row0 + r).row, at, p->k);
    }
}

/* n parts of two neighbours. */
template <int n>
__device__ __forceinline__ void put_two(uint32_t (*to)[TILE][PITCH], int r, int at, float2 x)
{
    uint32_t part[PARTS];
    bf16_split(x.x, x.y, &part[0], &part[1]);
    float a = x.x - __uint_as_float(part[0] << 16) - __uint_as_float(part[1] << 16);
    float b = x.y - __uint_as_float(part[0] & 0xffff0000) - __uint_as_float(part[1] & 0xffff0000);
    BF16_PAIR(part[2], a - a == 0 ? a : 0, b - b == 0 ? b : 0);
#pragma unroll
    for (int i = 0; i < n; i++)
        to[i][r][at / 2] = part[i];
}

template <int type>
__device__ __forceinline__ void put(struct tiles<parts<type>()> *t, const struct ahead *a,
                                    const struct cu_product *p, const struct cu_job *job, int row0,
                                    int k)
{
    const int n = parts<type>();
#pragma unroll
    for (int i = 0; i < TWOS; i++) {
        put_two<PARTS>(t->x, two_row(i), two_col(), a->x[i]);
        if (type != ANY)
            put_two<n>(t->w, two_row(i), two_col(), a->w[i]);
    }
    int r = (int)threadIdx.x;
    if (type == ANY && r < TILE) {
        float w[UNIT] = {};
        if (row0 + r < p->rows) {
            struct cu_src src = job_row(p, job, row0 + r);
            widen(p->type, &src, k / UNIT, p->k, w);
        }
#pragma unroll
        for (int e = 0; e < UNIT; e += 2)
            put_two<n>(t->w, r, e, { w[e], w[e + 1] });
    }
}

/* A part of 32 rows or columns, 16 deep: fragments of sixteen each. */
__device__ __forceinline__ void load_left(uint32_t (*a)[4], const uint32_t (*t)[PITCH], int at)
{
    LOAD_8X8_X4(a[0], &t[LANE % 16][at / 2 + LANE / 16 * 4]);
    LOAD_8X8_X4(a[1], &t[LANE % 16 + 16][at / 2 + LANE / 16 * 4]);
}

__device__ __forceinline__ void load_right(uint32_t (*b)[4], const uint32_t (*t)[PITCH], int at)
{
    int row = LANE / 16 * 8 + LANE % 8;
    LOAD_8X8_X4(b[0], &t[row][at / 2 + LANE / 8 % 2 * 4]);
    LOAD_8X8_X4(b[1], &t[row + 16][at / 2 + LANE / 8 % 2 * 4]);
}

/* 32 x 32 results of 16 more elements: parts i and j count if i + j < PARTS. */
template <int n>
__device__ __forceinline__ void multiply(float (*sum)[4][4], const struct tiles<n> *t, int row,
                                         int col, int at)
{
    uint32_t a[n][2][4];
#pragma unroll
    for (int i = 0; i < n; i++)
        load_left(a[i], t->w[i] + row, at);
#pragma unroll
    for (int j = PARTS - 1; j >= 0; j--) {
        const int n_left = n < PARTS - j ? n : PARTS - j;
        uint32_t b[2][4];
        load_right(b, t->x[j] + col, at);
#pragma unroll
        for (int c = 0; c < 8 * n_left; c++)
            MMA_BF16(sum[c / 4 % 2][c % 4], a[n_left - 1 - c / 8][c / 4 % 2],
                     b[c % 4 / 2] + c % 2 * 2);
    }
}

__device__ __forceinline__ void store(float (*sum)[4][4], const struct cu_product *p,
                                      const struct cu_job *job, int row, int col)
{
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int c = 0; c < 8; c++) {
            int r = row + c / 4 * 16 + c % 4 / 2 * 8 + LANE / 4;
            int i = col + n * 8 + LANE % 4 * 2 + c % 2;
            if (r < p->rows && i < job->n)
                job_out(p, job, i)[r] = sum[c / 4][n][c % 4];
        }
}

/* Grid: tiles of weights, halves of tiles of activations, jobs. */
template <int type> __global__ void __launch_bounds__(THREADS, 3)
    many_exact_kernel(struct cu_product p)
{
    SHARED(struct tiles<parts<type>()>, t);
    struct cu_job job;
    struct ahead a;
    float sum[2][4][4] = {};
    int warp = (int)threadIdx.x / WARP, row = warp / 2 * 32, col = warp % 2 * 32;
    int row0 = (int)blockIdx.x * TILE, i0;
    if (!tile_at(&p, (int)blockIdx.y / 2, &job, &i0))
        return;
    i0 += (int)blockIdx.y % 2 * TILE;
    if (i0 >= job.n)
        return;
    if (threadIdx.x < TILE)
        t.row[threadIdx.x] = i0 + (int)threadIdx.x < job.n
                                 ? (const float *)job_in(&p, &job, i0 + (int)threadIdx.x) : NULL;
    __syncthreads();
    load_ahead<type>(&a, t.row, &p, &job, row0, 0);
    for (int k = 0; k < p.k; k += DEPTH) {
        float part[2][4][4] = {};
        put<type>(&t, &a, &p, &job, row0, k);
        __syncthreads();
        load_ahead<type>(&a, t.row, &p, &job, row0, k + DEPTH);
#pragma unroll
        for (int at = 0; at < DEPTH; at += 16)
            multiply<parts<type>()>(part, &t, row, col, at);
#pragma unroll
        for (int i = 0; i < 32; i++)
            sum[i / 16][i / 4 % 4][i % 4] += part[i / 16][i / 4 % 4][i % 4];
        __syncthreads();
    }
    store(sum, &p, &job, row0 + row, i0 + col);
}

void cuda_product_many_exact(struct dev *d, const struct cu_product *p, int n_job)
{
    dim3 grid(blocks_for((size_t)p->rows, TILE), 2 * tiles_of(p), (unsigned)n_job);
    switch (p->type) {
    case DT_F32: LAUNCH(d, many_exact_kernel<DT_F32>, grid, THREADS, 0, *p); return;
    case DT_F16: LAUNCH(d, many_exact_kernel<DT_F16>, grid, THREADS, 0, *p); return;
    case DT_BF16: LAUNCH(d, many_exact_kernel<DT_BF16>, grid, THREADS, 0, *p); return;
    default: LAUNCH(d, many_exact_kernel<ANY>, grid, THREADS, 0, *p);
    }
}
