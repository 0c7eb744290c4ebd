/* attend_many.cu - attention of many rows: all segments of a row in one block. */
#include "segment_impl.h"

/* All segments in one block. Grid: HEADS heads, rows. */
__global__ void __launch_bounds__(THREADS) attend_kernel(struct attending p)
{
    SHARED(struct attend_tile, t);
    int row = (int)blockIdx.y, head0 = (int)blockIdx.x * HEADS;
    struct cu_view v = view_of(&p, row);
    struct merged m[HEADS];
    float all[HEADS][EACH] = {}, sum[HEADS][EACH];
#pragma unroll
    for (int h = 0; h < HEADS; h++)
        m[h] = { p.sink[head0 + h < p.n_head ? head0 + h : 0], 1 };
    load_query(&t, &p, row, head0);
    for (int first = 0; first < v.n; first += SEGMENT) {
        attend_segment(&t, &p, &v, first, first + SEGMENT < v.n ? first + SEGMENT : v.n, sum);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float old, add;
            merge(&m[h], t.max[h], t.sum[h], &old, &add);
#pragma unroll
            for (int c = 0; c < EACH; c++)
                all[h][c] = all[h][c] * old + sum[h][c] * add;
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < HEADS * EACH; i++) {
        int h = i / EACH, e = (int)threadIdx.x + i % EACH * THREADS;
        if (head0 + h < p.n_head && e < p.dim)
            p.out.x[row * p.out.pitch + (size_t)(head0 + h) * p.dim + e] =
                all[h][i % EACH] / m[h].sum;
    }
}

void cuda_attend_many(struct dev *d, const struct attending *p, int n)
{
    unsigned heads = blocks_for((size_t)p->n_head, HEADS);
    LAUNCH(d, attend_kernel, dim3(heads, (unsigned)n), THREADS, 0, *p);
}
