/* gemm.cu - products with many rows of activations: tiles of 64 rows of weights times 64 of
 * activations. Packed weights become bytes once for all rows of a tile and are multiplied by tensor
 * cores (mma.m16n8k32 on signed bytes); sums over 32 elements are exact, steps are applied to them
 * in float32. */
#include "product_impl.h"
#include "widen_impl.h"

#define TILE 64
#define DEPTH 256 /* elements of a turn */
#define UNITS (DEPTH / UNIT)
#define PITCH (DEPTH + 16) /* so that rows begin in different banks */
#define THREADS 128
#define COLS (TILE / 8) /* of tensor-core tiles, of a warp */

/* d += a b, as the instruction wants its parts: see mma_turn(). */
#ifdef CUDA_EMULATED
#define MMA_S8(d, a, b) emu_mma_s8(d, a, b)
#else
#define MMA_S8(d, a, b)                                                                     \
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "                         \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"          \
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif

/* One turn's bytes, and their steps by unit. */
struct tile {
    int8_t w[TILE][PITCH], x[TILE][PITCH];
    float w_d[UNITS][TILE], x_d[UNITS][TILE];
    float w_min[2 * UNITS][TILE], x_sum[2 * UNITS][TILE]; /* minima, sums of 16; with their steps */
};

template <int type> __device__ __forceinline__ bool has_min()
{
    return type == DT_Q2_K || type == DT_Q4_K;
}

/* Eight threads unpack a row's eight units; beyond the weights' end everything is zero. */
template <int type>
__device__ __forceinline__ void load_weights(struct tile *t, const struct cu_product *p,
                                             const struct cu_job *job, int row0, int u0)
{
    int g = (int)threadIdx.x % UNITS;
    for (int r = (int)threadIdx.x / UNITS; r < TILE; r += THREADS / UNITS) {
        struct cu_unit w = {};
        if (row0 + r < p->rows && (u0 + g) * UNIT < p->k) {
            struct cu_src src = job_row(p, job, row0 + r);
            unit_load(type, &src, u0 + g, &w);
        }
        int4 *to = (int4 *)(t->w[r] + g * UNIT);
        to[0] = { w.q[0], w.q[1], w.q[2], w.q[3] };
        to[1] = { w.q[4], w.q[5], w.q[6], w.q[7] };
        t->w_d[g][r] = w.d;
        if (has_min<type>()) {
            t->w_min[2 * g][r] = w.dm * (float)w.m[0];
            t->w_min[2 * g + 1][r] = w.dm * (float)w.m[1];
        }
    }
}

template <int type>
__device__ __forceinline__ void load_inputs(struct tile *t, const struct cu_product *p,
                                            const struct cu_job *job, int i0, int u0)
{
    const int block = type == DT_Q8_0 || type == DT_MXFP4 || type == DT_FP4 ? 32 : 256;
    int g = (int)threadIdx.x % UNITS;
    for (int i = (int)threadIdx.x / UNITS; i < TILE; i += THREADS / UNITS) {
        int4 q[2] = {};
        float d = 0, sum[2] = {};
        if (i0 + i < job->n && (u0 + g) * UNIT < p->k) {
            struct cu_act a = { job_in(p, job, i0 + i), p->k, block };
            const int4 *from = (const int4 *)(a.row + (size_t)(u0 + g) * UNIT);
            q[0] = from[0];
            q[1] = from[1];
            d = act_d(&a)[(u0 + g) / (block / UNIT)];
            sum[0] = (float)act_sums(&a)[2 * (u0 + g)] * d;
            sum[1] = (float)act_sums(&a)[2 * (u0 + g) + 1] * d;
        }
        int4 *to = (int4 *)(t->x[i] + g * UNIT);
        to[0] = q[0];
        to[1] = q[1];
        t->x_d[g][i] = d;
        if (has_min<type>()) {
            t->x_sum[2 * g][i] = sum[0];
            t->x_sum[2 * g + 1][i] = sum[1];
        }
    }
}

/* A warp's 16 rows of weights times all of the tile's activations. Of the instruction's operands
 * lane l holds four neighbouring bytes of rows l / 4 and l / 4 + 8 from bytes 4 (l % 4) and 16
 * more, of the sums rows l / 4 and l / 4 + 8, columns 2 (l % 4) and one more. */
template <int type> __device__ __forceinline__ void mma_turn(const struct tile *t, float (*sum)[4])
{
    int row = (int)threadIdx.x / WARP * 16 + LANE / 4, at = LANE % 4 * 4, col = LANE % 4 * 2;
    for (int u = 0; u < UNITS; u++) {
        const int8_t *w = t->w[row] + u * UNIT + at;
        int a[4] = { *(const int *)w, *(const int *)(w + 8 * PITCH), *(const int *)(w + 16),
                     *(const int *)(w + 8 * PITCH + 16) };
        float d0 = t->w_d[u][row], d1 = t->w_d[u][row + 8];
#pragma unroll
        for (int j = 0; j < COLS; j++) {
            const int8_t *x = t->x[8 * j + LANE / 4] + u * UNIT + at;
            int b[2] = { *(const int *)x, *(const int *)(x + 16) }, s[4] = { 0, 0, 0, 0 };
            float x0 = t->x_d[u][8 * j + col], x1 = t->x_d[u][8 * j + col + 1];
            MMA_S8(s, a, b);
            sum[j][0] = fmaf(d0 * x0, (float)s[0], sum[j][0]);
            sum[j][1] = fmaf(d0 * x1, (float)s[1], sum[j][1]);
            sum[j][2] = fmaf(d1 * x0, (float)s[2], sum[j][2]);
            sum[j][3] = fmaf(d1 * x1, (float)s[3], sum[j][3]);
        }
    }
    for (int m = 0; m < 2 * UNITS && has_min<type>(); m++) {
        float m0 = -t->w_min[m][row], m1 = -t->w_min[m][row + 8];
#pragma unroll
        for (int j = 0; j < COLS; j++) {
            float x0 = t->x_sum[m][8 * j + col], x1 = t->x_sum[m][8 * j + col + 1];
            sum[j][0] = fmaf(m0, x0, sum[j][0]);
            sum[j][1] = fmaf(m0, x1, sum[j][1]);
            sum[j][2] = fmaf(m1, x0, sum[j][2]);
            sum[j][3] = fmaf(m1, x1, sum[j][3]);
        }
    }
}

/* Grid: tiles of weights, tiles of activations, jobs. */
template <int type> __global__ void __launch_bounds__(THREADS) many_kernel(struct cu_product p)
{
    SHARED(struct tile, t);
    struct cu_job job = job_at(&p, (int)blockIdx.z);
    int row0 = (int)blockIdx.x * TILE, i0 = (int)blockIdx.y * TILE;
    float sum[COLS][4] = {};
    if (i0 >= job.n)
        return;
    for (int u0 = 0; u0 * UNIT < p.k; u0 += UNITS) {
        load_weights<type>(&t, &p, &job, row0, u0);
        load_inputs<type>(&t, &p, &job, i0, u0);
        __syncthreads();
        mma_turn<type>(&t, sum);
        __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < COLS; j++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            int r = row0 + (int)threadIdx.x / WARP * 16 + LANE / 4 + c / 2 * 8;
            int i = i0 + 8 * j + LANE % 4 * 2 + c % 2;
            if (r < p.rows && i < job.n)
                job_out(&p, &job, i)[r] = sum[j][c];
        }
}

static dim3 tiles(const struct cu_product *p, int n_job)
{
    return dim3(blocks_for((size_t)p->rows, TILE), blocks_for((size_t)p->n, TILE),
                (unsigned)n_job);
}

void cuda_product_many(struct dev *d, const struct cu_product *p, int n_job)
{
    dim3 grid = tiles(p, n_job);
    switch (p->type) {
    case DT_Q8_0: LAUNCH(d, many_kernel<DT_Q8_0>, grid, THREADS, 0, *p); return;
    case DT_MXFP4: LAUNCH(d, many_kernel<DT_MXFP4>, grid, THREADS, 0, *p); return;
    case DT_FP4: LAUNCH(d, many_kernel<DT_FP4>, grid, THREADS, 0, *p); return;
    case DT_Q2_K: LAUNCH(d, many_kernel<DT_Q2_K>, grid, THREADS, 0, *p); return;
    case DT_Q4_K: LAUNCH(d, many_kernel<DT_Q4_K>, grid, THREADS, 0, *p); return;
    default: LAUNCH(d, many_kernel<DT_IQ2_XXS>, grid, THREADS, 0, *p);
    }
}

/* ---- activations as they are --------------------------------------------------------------- */

#define FLOAT_THREADS 256

/* Transposed: neighbouring rows are neighbours. */
struct float_tile {
    float w[UNIT][TILE + 1], x[UNIT][TILE + 1];
};

__device__ __forceinline__ void load_floats(struct float_tile *t, const struct cu_product *p,
                                            const struct cu_job *job, int row0, int u)
{
    int i0 = (int)blockIdx.y * TILE, r = (int)threadIdx.x;
    if (r < TILE) {
        float w[UNIT] = {};
        if (row0 + r < p->rows) {
            struct cu_src src = job_row(p, job, row0 + r);
            widen(p->type, &src, u, p->k, w);
        }
#pragma unroll
        for (int e = 0; e < UNIT; e++)
            t->w[e][r] = w[e];
        return;
    }
    for (int at = r - TILE; at < TILE * UNIT; at += FLOAT_THREADS - TILE) {
        int i = at / UNIT, e = at % UNIT;
        bool there = i0 + i < job->n && u * UNIT + e < p->k;
        t->x[e][i] = there ? ((const float *)job_in(p, job, i0 + i))[u * UNIT + e] : 0;
    }
}

/* Every thread has 4 x 4 of the 64 x 64 results. */
__global__ void __launch_bounds__(FLOAT_THREADS) many_exact_kernel(struct cu_product p)
{
    SHARED(struct float_tile, t);
    struct cu_job job = job_at(&p, (int)blockIdx.z);
    int row0 = (int)blockIdx.x * TILE, i0 = (int)blockIdx.y * TILE;
    int r = (int)threadIdx.x % 16, i = (int)threadIdx.x / 16;
    float sum[4][4] = {};
    if (i0 >= job.n)
        return;
    for (int u = 0; u * UNIT < p.k; u++) {
        load_floats(&t, &p, &job, row0, u);
        __syncthreads();
        for (int e = 0; e < UNIT && u * UNIT + e < p.k; e++)
#pragma unroll
            for (int c = 0; c < 16; c++)
                sum[c / 4][c % 4] =
                    fmaf(t.w[e][r + c / 4 * 16], t.x[e][i + c % 4 * 16], sum[c / 4][c % 4]);
        __syncthreads();
    }
#pragma unroll
    for (int c = 0; c < 16; c++) {
        int row = row0 + r + c / 4 * 16, at = i0 + i + c % 4 * 16;
        if (row < p.rows && at < job.n)
            job_out(&p, &job, at)[row] = sum[c / 4][c % 4];
    }
}

void cuda_product_many_exact(struct dev *d, const struct cu_product *p, int n_job)
{
    LAUNCH(d, many_exact_kernel, tiles(p, n_job), FLOAT_THREADS, 0, *p);
}
