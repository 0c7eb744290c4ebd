/* pack.cu - how activations are rounded to eight bits. */
#include "product_impl.h"

#define THREADS 128
#define GROUPS (THREADS / WARP) /* of a block's threads */

__device__ __forceinline__ uint32_t warp_max_bits(uint32_t x)
{
    for (int i = WARP / 2; i > 0; i /= 2) {
        uint32_t other = __shfl_xor_sync(ALL_LANES, x, i);
        x = x > other ? x : other;
    }
    return x;
}

/* A warp rounds `block` elements, each lane block / 32 neighbours. The bits of |x| order as the
 * numbers do, with infinity and NaN on top. */
template <int block>
__device__ __forceinline__ void pack_group(const float *x, int8_t *q, float *d, int16_t *sum)
{
    const int each = block / WARP;
    float mine[each];
    uint32_t top = 0;
    int total = 0;
    for (int i = 0; i < each; i++) {
        uint32_t bits = __float_as_uint(mine[i] = x[LANE * each + i]) & 0x7fffffff;
        top = top > bits ? top : bits;
    }
    top = warp_max_bits(top);
    bool bad = top >= 0x7f800000, zero = bad || top < 0x0d800000; /* 2^-100 */
    float inverse = 127 / __uint_as_float(top);
    for (int i = 0; i < each; i++) {
        int v = zero ? 0 : (int)rintf(mine[i] * inverse);
        q[LANE * each + i] = (int8_t)v;
        total += v;
    }
    for (int i = 16 / each / 2; i > 0; i /= 2)
        total += __shfl_xor_sync(ALL_LANES, total, i);
    if (LANE % (16 / each) == 0)
        sum[LANE / (16 / each)] = (int16_t)total;
    if (LANE == 0)
        *d = bad ? __uint_as_float(0x7fc00000) : zero ? 0 : __uint_as_float(top) / 127;
}

/* Grid: groups of blocks, rows. */
template <int block> __global__ void __launch_bounds__(THREADS) pack_kernel(struct cu_pack p)
{
    int g = (int)(blockIdx.x * GROUPS + threadIdx.x / WARP);
    if (g >= p.k / block)
        return;
    const float *x = (const float *)(p.from + blockIdx.y * p.pitch) + (size_t)g * block;
    uint8_t *row = p.to + blockIdx.y * (((size_t)p.k + p.k / block * 4 + p.k / 16 * 2 + 63) & ~63);
    float *d = (float *)(row + p.k);
    pack_group<block>(x, (int8_t *)row + (size_t)g * block, d + g,
                      (int16_t *)(d + p.k / block) + (size_t)g * (block / 16));
}

void cuda_pack(struct dev *d, const struct cu_pack *p)
{
    dim3 grid(blocks_for((size_t)(p->k / p->block), GROUPS), (unsigned)p->n);
    if (p->block == 32)
        LAUNCH(d, pack_kernel<32>, grid, THREADS, 0, *p);
    else
        LAUNCH(d, pack_kernel<256>, grid, THREADS, 0, *p);
}
