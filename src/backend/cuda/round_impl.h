/* round_impl.h - a few rows of activations rounded to eight bits, the bits of pack.cu. A block of
 * threads rounds a single row for itself: no launch before the product, and it hides behind the
 * first weights' way. More rows are rounded once by a launch before and come as one piece. */
#ifndef DS_ROUND_IMPL_H
#define DS_ROUND_IMPL_H

#include "async_impl.h"
#include "list_impl.h"
#include "unit_impl.h"

/* 64 elements as shared memory has them; 80 bytes from one to the next keep 16-byte reads of
 * neighbouring lanes in different banks. */
struct alignas(16) cu_record {
    int4 q[4];      /* signed bytes */
    float d[2];     /* steps, of 32 each */
    int16_t sum[4]; /* of 16 q */
};

#define RECORD 64 /* elements */
#define AHEAD 4   /* fours that a lane asks for at once */

__host__ __device__ __forceinline__ int n_record(int k)
{
    return (k + RECORD - 1) / RECORD;
}

/* Four neighbours of a lane, `n` of which exist. */
__device__ __forceinline__ float4 four_floats(const float *x, int n)
{
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

/* Four elements from `at` on, of a block whose largest has the size `top`. Sums: for minima. */
template <bool sums>
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
    if (sums) {
        total += __shfl_xor_sync(ALL_LANES, total, 1);
        total += __shfl_xor_sync(ALL_LANES, total, 2);
    }
    if (at >= n_record(k) * RECORD)
        return;
    struct cu_record *to = row + at / RECORD;
    int in = at % RECORD;
    ((uint32_t *)to->q)[in / 4] = q;
    if (sums && in % 16 == 0)
        to->sum[in / 16] = (int16_t)total;
    if (in % UNIT == 0)
        to->d[in / UNIT] = bad ? __uint_as_float(0x7fc00000)
                               : zero ? 0 : __uint_as_float(top) / 127;
}

/* Fours that a lane has of a span, which is a block, or several. */
__host__ __device__ __forceinline__ constexpr int span_fours(int block)
{
    return block == 32 ? 1 : 2;
}

/* Spans s0, s0 + FEW_WARPS.. of row x, each of all lanes' fours, `ahead` of them. Loads come before
 * their use, and fours move up to where one piece of code uses them. wide: fours are whole and
 * aligned. */
template <int block, bool sums, int ahead>
__device__ __forceinline__ void round_spans(const float *x, int s0, int k, bool wide,
                                            struct cu_record *to)
{
    const int part = span_fours(block), span = 128 * part;
    float4 four[ahead];
#pragma unroll
    for (int j = 0; j < ahead; j++) {
        int at = (s0 + j / part * FEW_WARPS) * span + j % part * 128 + LANE * 4;
        four[j] = { 0, 0, 0, 0 };
        if (wide && at < k)
            four[j] = *(const float4 *)(x + at);
    }
#pragma unroll 1
    for (int a = 0, s = s0; a < ahead / part && s * span < k; a++, s += FEW_WARPS) {
        int at = s * span + LANE * 4;
        for (int h = 0; h < part && !wide; h++)
            four[h] = four_floats(x + at + h * 128, k - at - h * 128);
        uint32_t top = lanes_top<(block == 32 ? 8 : WARP)>(four, part);
#pragma unroll
        for (int h = 0; h < part; h++)
            round_four<sums>(four[h], top, to, at + h * 128, k);
#pragma unroll
        for (int j = part; j < ahead; j++)
            four[j - part] = four[j];
    }
}

/* Four neighbours of a row are whole and aligned, for rows of k. */
__device__ __forceinline__ bool has_fours(const void *x, size_t pitch, int k)
{
    return k % 4 == 0 && is_aligned(x, pitch, 16);
}

/* The one row of x, by all warps of the block; to: [n_record(k)], zeros behind the end. */
template <int block, bool sums>
__device__ __forceinline__ void few_round(const struct cu_few *f, struct cu_record *to)
{
    const int part = span_fours(block), span = 128 * part;
    bool wide = has_fours(f->x, f->x_pitch, f->k);
#pragma unroll 1
    for (int s = (int)threadIdx.x / WARP; s * span < f->k; s += AHEAD / part * FEW_WARPS)
        round_spans<block, sums, AHEAD>(few_x(f, 0), s, f->k, wide, to);
}

/* All rows that another kernel rounded, one behind the other, by all threads of the block. They are
 * there after a barrier of the block, and where COPIES_PIECES, after that of the piece. */
__device__ __forceinline__ void ask_rounded(const struct cu_few *f, struct cu_record *to,
                                            uint64_t *bar)
{
    int n = f->n * n_record(f->k) * (int)sizeof *to, t = (int)threadIdx.x;
    if (COPIES_PIECES && t == 0) {
        pieces_expect(bar, n);
        copy_piece(to, f->rounded, n, bar);
    } else if (!COPIES_PIECES) {
#pragma unroll 1
        for (int i = t * 16; i < n; i += FEW_THREADS * 16)
            copy_16((uint8_t *)to + i, (const uint8_t *)f->rounded + i);
        copy_commit();
        copy_wait(0);
    }
}

#endif
