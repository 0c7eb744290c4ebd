/* round_impl.h - a block of threads rounds a few rows of activations to eight bits for itself: the
 * bits of pack.cu, with no launch before the product and behind the first weights' way. */
#ifndef DS_ROUND_IMPL_H
#define DS_ROUND_IMPL_H

#include "list_impl.h"

/* 64 elements as shared memory has them; 80 bytes from one to the next keep 16-byte reads of
 * neighbouring lanes in different banks. */
struct alignas(16) cu_record {
    int4 q[4];      /* signed bytes */
    float d[2];     /* steps, of 32 each */
    int16_t sum[4]; /* of 16 q */
};

#define RECORD 64 /* elements */

__host__ __device__ __forceinline__ int n_record(int k)
{
    return (k + RECORD - 1) / RECORD;
}

/* Four neighbours of a lane, `n` of which exist. */
__device__ __forceinline__ float4 four_floats(const float *x, int n)
{
    if (n >= 4 && (uintptr_t)x % 16 == 0)
        return *(const float4 *)x;
    return { n > 0 ? x[0] : 0, n > 1 ? x[1] : 0, n > 2 ? x[2] : 0, n > 3 ? x[3] : 0 };
}

/* The largest size, as bits, over groups of `width` lanes. Bits of |x| order as the numbers do,
 * with infinity and NaN on top. */
template <int width> __device__ __forceinline__ uint32_t lanes_top(const float4 *x, int n)
{
    uint32_t top = 0;
    for (int h = 0; h < n; h++)
        for (int i = 0; i < 4; i++)
            top = max(top, __float_as_uint((&x[h].x)[i]) & 0x7fffffff);
    for (int i = width / 2; i > 0; i /= 2)
        top = max(top, __shfl_xor_sync(ALL_LANES, top, i));
    return top;
}

/* Four elements from `at` on, of a block whose largest has the size `top`. */
__device__ __forceinline__ void round_four(float4 x, uint32_t top, struct cu_record *row, int at,
                                           int k)
{
    bool bad = top >= 0x7f800000, zero = bad || top < 0x0d800000; /* 2^-100 */
    float inverse = 127 / __uint_as_float(top);
    uint32_t q = 0;
    int total = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int v = zero ? 0 : (int)rintf((&x.x)[i] * inverse);
        q |= (uint32_t)(v & 255) << 8 * i;
        total += v;
    }
    total += __shfl_xor_sync(ALL_LANES, total, 1);
    total += __shfl_xor_sync(ALL_LANES, total, 2);
    if (at >= n_record(k) * RECORD)
        return;
    struct cu_record *to = row + at / RECORD;
    int in = at % RECORD;
    ((uint32_t *)to->q)[in / 4] = q;
    if (in % 16 == 0)
        to->sum[in / 16] = (int16_t)total;
    if (in % UNIT == 0)
        to->d[in / UNIT] = bad ? __uint_as_float(0x7fc00000)
                               : zero ? 0 : __uint_as_float(top) / 127;
}

/* Spans s0, s0 + FEW_WARPS.. of row x, each of all lanes' fours; loads come before their use. */
template <int block>
__device__ __forceinline__ void round_spans(const float *x, int s0, int k, struct cu_record *to)
{
    const int part = block == 32 ? 1 : 2, span = 128 * part, ahead = 4 / part;
    float4 four[ahead][part];
#pragma unroll
    for (int j = 0; j < ahead * part; j++) {
        int at = (s0 + j / part * FEW_WARPS) * span + j % part * 128 + LANE * 4;
        four[j / part][j % part] = four_floats(x + at, k - at);
    }
#pragma unroll
    for (int a = 0; a < ahead; a++) {
        int s = s0 + a * FEW_WARPS, at = s * span + LANE * 4;
        if (s * span >= k)
            break;
        uint32_t top = lanes_top<(block == 32 ? 8 : WARP)>(four[a], part);
#pragma unroll
        for (int h = 0; h < part; h++)
            round_four(four[a][h], top, to, at + h * 128, k);
    }
}

/* All rows of x, by all warps of the block; to: [n][n_record(k)], zeros behind the end. */
template <int block>
__device__ __forceinline__ void few_round(const struct cu_few *f, struct cu_record *to)
{
    const int span = block == 32 ? 128 : 256, ahead = 512 / span;
    for (int i = 0; i < f->n; i++, to += n_record(f->k))
        for (int s = (int)threadIdx.x / WARP; s * span < f->k; s += ahead * FEW_WARPS)
            round_spans<block>(few_x(f, i), s, f->k, to);
}

#endif
