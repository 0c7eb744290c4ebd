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
#define SPAN 256  /* elements that a warp rounds at a time: eight neighbours of a lane */
#define AHEAD 2   /* spans that it asks for at once */

__host__ __device__ __forceinline__ int n_record(int k)
{
    return (k + RECORD - 1) / RECORD;
}

/* Four numbers times `by`, rounded to whole ones (halves to even ones), as bytes: the sum with
 * 1.5 * 2^23 is whole and ends in them. */
__device__ __forceinline__ uint32_t whole_four(float4 x, float by)
{
    const float whole = 12582912;
    uint32_t a = __float_as_uint(x.x * by + whole), b = __float_as_uint(x.y * by + whole);
    uint32_t c = __float_as_uint(x.z * by + whole), d = __float_as_uint(x.w * by + whole);
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

/* The largest size, as bits, of eight numbers of each of `width` lanes. Bits of |x| order as
 * numbers do, with infinity and NaN on top. */
template <int width> __device__ __forceinline__ uint32_t lanes_top(const float4 *x)
{
    uint32_t top = 0;
#pragma unroll
    for (int i = 0; i < 8; i++)
        top = max(top, __float_as_uint((&x[i / 4].x)[i % 4]) & 0x7fffffff);
#pragma unroll
    for (int i = width / 2; i > 0; i /= 2)
        top = max(top, __shfl_xor_sync(ALL_LANES, top, i));
    return top;
}

/* A lane's eight, from `at` on. Sums: for minima. */
template <int block, bool sums>
__device__ __forceinline__ void round_eight(const float4 *x, int at, int k, struct cu_record *row)
{
    uint32_t top = lanes_top<block / 8>(x);
    bool bad = top >= 0x7f800000, zero = bad || top < 0x0d800000; /* 2^-100 */
    float inverse = 127 / __uint_as_float(top);
    uint32_t low = zero ? 0 : whole_four(x[0], inverse);
    uint32_t high = zero ? 0 : whole_four(x[1], inverse);
    int total = 0;
    if (sums) {
        total = __dp4a((int)low, 0x01010101, __dp4a((int)high, 0x01010101, 0));
        total += __shfl_xor_sync(ALL_LANES, total, 1);
    }
    if (at >= n_record(k) * RECORD)
        return;
    struct cu_record *to = row + (unsigned)at / RECORD;
    int in = at % RECORD;
    ((uint2 *)to->q)[(unsigned)in / 8] = { low, high };
    if (sums && in % 16 == 0)
        to->sum[(unsigned)in / 16] = (int16_t)total;
    if (in % UNIT == 0)
        to->d[(unsigned)in / UNIT] = bad ? __uint_as_float(0x7fc00000)
                                         : zero ? 0 : __uint_as_float(top) / 127;
}

/* Spans s0, s0 + step.. of row x, `ahead` of them. Loads come before their use. wide: eights are
 * aligned. */
template <int block, bool sums, int ahead>
__device__ __forceinline__ void round_spans(const float *x, int s0, int step, int k, bool wide,
                                            struct cu_record *to)
{
    float4 four[ahead][2];
    int at = s0 * SPAN + LANE * 8;
#pragma unroll
    for (int j = 0; j < 2 * ahead; j++) {
        const float *from = x + at + j / 2 * step * SPAN + j % 2 * 4;
        bool there = at + j / 2 * step * SPAN < k;
        four[j / 2][j % 2] = { 0, 0, 0, 0 };
        if (there && wide)
            four[j / 2][j % 2] = *(const float4 *)from;
        else if (there)
            four[j / 2][j % 2] = { from[0], from[1], from[2], from[3] };
    }
#pragma unroll
    for (int j = 0; j < ahead; j++)
        if ((s0 + j * step) * SPAN < k)
            round_eight<block, sums>(four[j], at + j * step * SPAN, k, to);
}

/* The one row of x, by all warps of the block; to: [n_record(k)], zeros behind the end. */
template <int block, bool sums>
__device__ __forceinline__ void few_round(const struct cu_few *f, struct cu_record *to)
{
    bool wide = is_aligned(f->x, f->x_pitch, 16);
#pragma unroll 1
    for (int s = (int)threadIdx.x / WARP; s * SPAN < f->k; s += AHEAD * FEW_WARPS)
        round_spans<block, sums, AHEAD>(few_x(f, 0), s, FEW_WARPS, f->k, wide, to);
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
