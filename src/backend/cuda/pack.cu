/* pack.cu - how the activations of several rows are rounded to eight bits. */
#include "round_impl.h"

#define THREADS 128

/* block / LANES elements of a lane; all of a warp's loads before what depends on them. */
template <int each> __device__ __forceinline__ void load_floats(const float *from, float *x)
{
    if ((uintptr_t)from % sizeof(float4) == 0)
#pragma unroll
        for (int i = 0; i < each / 4; i++) {
            float4 v = ((const float4 *)from)[i];
            x[4 * i] = v.x, x[4 * i + 1] = v.y, x[4 * i + 2] = v.z, x[4 * i + 3] = v.w;
        }
    else
#pragma unroll
        for (int i = 0; i < each; i++)
            x[i] = from[i];
}

/* The same numbers as pack_group(); `lanes` neighbouring lanes have a block. */
template <int each, int lanes>
__device__ __forceinline__ float round_lanes(const float *x, uint32_t *word, int *total)
{
    uint32_t top = 0;
#pragma unroll
    for (int i = 0; i < each; i++) {
        uint32_t bits = __float_as_uint(x[i]) & 0x7fffffff;
        top = top > bits ? top : bits;
    }
#pragma unroll
    for (int i = lanes / 2; i > 0; i /= 2) {
        uint32_t other = __shfl_xor_sync(ALL_LANES, top, i);
        top = top > other ? top : other;
    }
    bool bad = top >= 0x7f800000, zero = bad || top < 0x0d800000; /* 2^-100 */
    float inverse = 127 / __uint_as_float(top);
    *total = 0;
#pragma unroll
    for (int i = 0; i < each; i++) {
        int v = zero ? 0 : (int)rintf(x[i] * inverse);
        word[i / 4] = (i % 4 ? word[i / 4] : 0) | (uint32_t)(v & 255) << i % 4 * 8;
        *total += v;
    }
    return bad ? __uint_as_float(0x7fc00000) : zero ? 0 : __uint_as_float(top) / 127;
}

/* Grid: warps of a row, rows, groups. */
template <int block> __global__ void __launch_bounds__(THREADS) pack_many_kernel(struct cu_pack p)
{
    const int each = block == 32 ? 4 : 8, lanes = block / each;
    int at = (int)(blockIdx.x * THREADS + threadIdx.x) * each;
    bool there = at < p.k;
    const uint8_t *from = p.from + blockIdx.y * p.pitch + (size_t)blockIdx.z * p.k * sizeof(float);
    uint8_t *row = p.to + ((size_t)blockIdx.z * p.n + blockIdx.y) * p.to_pitch;
    float x[each] = {};
    uint32_t word[each / 4];
    int sum;
    if (there)
        load_floats<each>((const float *)from + at, x);
    float d = round_lanes<each, lanes>(x, word, &sum);
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    if (!there)
        return;
#pragma unroll
    for (int i = 0; i < each / 4; i++)
        *(uint32_t *)(row + at + 4 * i) = word[i];
    if (at % block == 0)
        *many_d(row, p.k, at / block) = d;
    if (block == 256 && LANE % 2 == 0) {
        int low = (int8_t)sum;
        int8_t *to = many_sums(row, p.k, at / block) + LANE / 2;
        to[0] = (int8_t)low;
        to[16] = (int8_t)((sum - low) >> 8);
    }
}

void cuda_pack_many(struct dev *d, const struct cu_pack *p, int n_group)
{
    int each = p->block == 32 ? 4 : 8;
    dim3 grid(blocks_for((size_t)(p->k / each), THREADS), (unsigned)p->n, (unsigned)n_group);
    if (p->block == 32)
        LAUNCH(d, pack_many_kernel<32>, grid, THREADS, 0, *p);
    else
        LAUNCH(d, pack_many_kernel<256>, grid, THREADS, 0, *p);
}

/* A warp for a span. Grid: blocks of a row, rows, groups. */
template <int block> __global__ void __launch_bounds__(THREADS) pack_few_kernel(struct cu_pack p)
{
    wait_for_last();
    const float *x = (const float *)(p.from + blockIdx.y * p.pitch) + (size_t)blockIdx.z * p.k;
    uint8_t *to = p.to + ((size_t)blockIdx.z * p.n + blockIdx.y) * p.to_pitch;
    bool wide = is_aligned(p.from, p.pitch, 16);
    round_spans<block, block == 256, 1>(x, (int)blockIdx.x * N_WARP + WARP_ID, p.k, wide,
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
