/* pack.cu - the activations of several rows, rounded before their products. */
#include "mma_impl.h"
#include "round_impl.h"

#define THREADS 128
#define EACH 8

__device__ __forceinline__ void load_floats(const float *from, float *x)
{
    if ((uintptr_t)from % sizeof(float4) == 0)
#pragma unroll
        for (int i = 0; i < EACH / 4; i++) {
            float4 v = ((const float4 *)from)[i];
            x[4 * i] = v.x, x[4 * i + 1] = v.y, x[4 * i + 2] = v.z, x[4 * i + 3] = v.w;
        }
    else
#pragma unroll
        for (int i = 0; i < EACH; i++)
            x[i] = from[i];
}

/* Grid: warps of a row, rows. */
__global__ void __launch_bounds__(THREADS) pack_many_kernel(struct cu_pack p)
{
    int at = (int)(blockIdx.x * THREADS + threadIdx.x) * EACH;
    float x[EACH];
    uint4 to;
    if (at >= p.k)
        return;
    load_floats((const float *)(p.from + blockIdx.y * p.pitch) + at, x);
    BF16_PAIR(to.x, x[0], x[1]);
    BF16_PAIR(to.y, x[2], x[3]);
    BF16_PAIR(to.z, x[4], x[5]);
    BF16_PAIR(to.w, x[6], x[7]);
    *(uint4 *)(p.to + blockIdx.y * p.to_pitch + 2 * (size_t)at) = to;
}

void cuda_pack_many(struct dev *d, const struct cu_pack *p)
{
    dim3 grid(blocks_for((size_t)(p->k / EACH), THREADS), (unsigned)p->n);
    LAUNCH(d, pack_many_kernel, grid, THREADS, 0, *p);
}

/* A warp for a span. Grid: blocks of a row, rows, groups. */
template <int block> __global__ void __launch_bounds__(THREADS) pack_few_kernel(struct cu_pack p)
{
    wait_for_last();
    const float *x = (const float *)(p.from + blockIdx.y * p.pitch) + (size_t)blockIdx.z * p.k;
    uint8_t *to = p.to + ((size_t)blockIdx.z * p.n + blockIdx.y) * p.to_pitch;
    bool wide = is_aligned(p.from, p.pitch, 16);
    round_spans<block, block == 256, 1>(x, (int)blockIdx.x * N_WARP + WARP_ID, 0, p.k, wide,
                                        (struct cu_record *)(void *)to);
}

void cuda_pack_few(struct dev *d, const struct cu_pack *p, int n_group)
{
    dim3 grid(blocks_for((size_t)p->k, SPAN * (THREADS / WARP)), (unsigned)p->n,
              (unsigned)n_group);
    if (p->block == 32)
        LAUNCH_EARLY(d, pack_few_kernel<32>, grid, THREADS, 0, *p);
    else
        LAUNCH_EARLY(d, pack_few_kernel<256>, grid, THREADS, 0, *p);
}
