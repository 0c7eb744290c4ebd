/* sixteen_impl.h - packed weights as bfloat16, 16 neighbouring elements of a row at a time, from
 * bytes in shared memory at any address. */
#ifndef DS_SIXTEEN_IMPL_H
#define DS_SIXTEEN_IMPL_H

#include "lookup_impl.h"
#include "unit_impl.h"

/* ---- types: unit u of a block, its half h --------------------------------------------------- */

__device__ __forceinline__ void sixteen_q8_0(const uint8_t *p, int u, int h, uint32_t *two)
{
    uint32_t q[4];
    p += u * 34;
    float d = f16_at(p), off = d * -32896.f; /* 2^15 + 128: exact */
    load_words<4>(p + 2 + 16 * h, q);
#pragma unroll
    for (int i = 0; i < 4; i++)
        scale_four<0x47000000, 1>(q[i] ^ 0x80808080, d, off, two + 2 * i);
}

/* Four codes of E2M1 in the low halves of bytes. */
__device__ __forceinline__ void e2m1_bytes(const struct values *v, uint32_t codes, uint32_t *two)
{
    uint32_t size = codes & 0x07070707;
    size |= size >> 4;
    choose_four(v, __byte_perm(size, 0, 0x4420), codes << 4 & 0x80808080, two);
}

__device__ __forceinline__ void e2m1_values(float d, struct values *v)
{
    float x[8] = { 0 * d, d, 2 * d, 3 * d, 4 * d, 6 * d, 8 * d, 12 * d };
    split_four(x, &v->low[0], &v->high[0]);
    split_four(x + 4, &v->low[1], &v->high[1]);
}

__device__ __forceinline__ void sixteen_mxfp4(const uint8_t *p, int u, int h, uint32_t *two)
{
    uint32_t q[4];
    struct values v;
    p += u * 17;
    e2m1_values(e8m0_value(p[0]) * .5f, &v);
    load_words<4>(p + 1, q);
#pragma unroll
    for (int i = 0; i < 4; i++)
        e2m1_bytes(&v, q[i] >> 4 * h, two + 2 * i);
}

__device__ __forceinline__ void sixteen_fp4(const uint8_t *p, uint32_t scale, int u, int h,
                                            uint32_t *two)
{
    uint32_t q[2];
    struct values v;
    e2m1_values(e8m0_value(scale) * .5f, &v);
    load_words<2>(p + u * 16 + h * 8, q);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t four = q[i / 2] >> i % 2 * 16 & 0xffff;
        four = (four | four << 8) & 0x00ff00ff;
        e2m1_bytes(&v, (four | four << 4) & 0x0f0f0f0f, two + 2 * i);
    }
}

__device__ __forceinline__ void sixteen_q2_k(const uint8_t *p, int u, int h, uint32_t *two)
{
    uint32_t q[4], steps, scale = p[2 * u + h];
    struct values v;
    load_words<1>(p + 80, &steps);
    load_words<4>(p + 16 + u / 4 * 32 + h * 16, q);
    float d = f16_value(steps & 0xffff) * (float)(scale & 15);
    float off = f16_value(steps >> 16) * -(float)(scale >> 4);
    float x[4] = { off, d + off, fmaf(2, d, off), fmaf(3, d, off) };
    split_four(x, &v.low[0], &v.high[0]);
    v.low[1] = v.high[1] = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t codes = q[i] >> u % 4 * 2 & 0x03030303;
        codes |= codes >> 4;
        choose_four(&v, __byte_perm(codes, 0, 0x4420), 0, two + 2 * i);
    }
}

__device__ __forceinline__ void sixteen_q4_k(const uint8_t *p, int u, int h, uint32_t *two)
{
    uint32_t q[4];
    int scale, min;
    q4_k_scales(p + 4, u, &scale, &min);
    load_words<4>(p + 16 + u / 2 * 32 + h * 16, q);
    float d = f16_at(p) * (float)scale, off = f16_at(p + 2) * -(float)min - 16 * d;
#pragma unroll
    for (int i = 0; i < 4; i++) /* the upper bits of 16 + q's mantissa */
        scale_four<0x41000000, 2>((q[i] >> u % 2 * 4 & 0x0f0f0f0f) << 3 | 0x80808080, d, off,
                                  two + 2 * i);
}

/* The codebook of IQ2_XXS as in book_impl.h, with fewer copies. */
#define BOOK_COPIES 8

struct book {
    uint32_t size[256][BOOK_COPIES], sign[128][BOOK_COPIES];
};

__device__ __forceinline__ void book_write(struct book *b, const struct cu_tables *tables)
{
    for (uint32_t i = threadIdx.x; i < 256; i += blockDim.x) {
        uint32_t eight = eight_signs(i), sign = 0;
        uint64_t grid = tables->iq2_xxs[i];
        uint32_t size = low_nibbles((uint32_t)grid >> 4);
        size |= low_nibbles((uint32_t)(grid >> 36)) << 16;
        for (int j = 0; j < 8; j++)
            sign |= (eight >> j & 1) << (4 * j + 2);
        for (uint32_t j = 0; j < BOOK_COPIES; j++) {
            b->size[i][(i + j) % BOOK_COPIES] = size;
            if (i < 128)
                b->sign[i][(i + j) % BOOK_COPIES] = sign;
        }
    }
}

__device__ __forceinline__ void sixteen_iq2_xxs(const uint8_t *p, const struct book *b, int u,
                                                int h, uint32_t *two)
{
    uint32_t w[2]; /* indices, signs with the scale above them */
    struct values v;
    load_words<2>(p + 2 + 8 * u, w);
    float d = f16_at(p) * .125f * (float)((w[1] >> 28) * 2 + 1);
    float x[4] = { 8 * d, 25 * d, 43 * d, 43 * d };
    split_four(x, &v.low[0], &v.high[0]);
    v.low[1] = v.low[0];
    v.high[1] = v.high[0] ^ 0x80808080;
    uint32_t index = w[0] >> 16 * h, sign = w[1] >> 14 * h;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t eight = b->size[index >> 8 * i & 255][LANE % BOOK_COPIES] |
                         b->sign[sign >> 7 * i & 127][LANE % BOOK_COPIES];
        choose_four(&v, eight, 0, two + 4 * i);
        choose_four(&v, eight >> 16, 0, two + 4 * i + 2);
    }
}

#endif
