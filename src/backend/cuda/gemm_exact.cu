/* gemm_exact.cu - products with many rows of activations as they are, in float32. */
#include "product_impl.h"
#include "widen_impl.h"

#define TILE 64
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
    dim3 grid(blocks_for((size_t)p->rows, TILE), blocks_for((size_t)p->n, TILE), (unsigned)n_job);
    LAUNCH(d, many_exact_kernel, grid, FLOAT_THREADS, 0, *p);
}
