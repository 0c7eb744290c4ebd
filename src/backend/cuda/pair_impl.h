/* pair_impl.h - two neighbouring units of packed weights at once, from a row's piece in shared
 * memory that begins at a multiple of 16 bytes: their bytes are read once, in words, by lanes that
 * meet different banks. */
#ifndef DS_PAIR_IMPL_H
#define DS_PAIR_IMPL_H

#include "unit_impl.h"

#define BOOK_COPIES 16 /* so many lanes look into a codebook at the same time */

/* One row's piece. scale: of its first unit; book: this lane's copy of the codebook. */
struct cu_piece {
    const uint8_t *row, *scale;
    const uint64_t *book;
};

__device__ __forceinline__ float half_at(uint32_t word, int i)
{
    return f16_value(word >> 16 * i & 0xffff);
}

__device__ __forceinline__ void pair_q8_0(const uint32_t *w, struct cu_unit *out)
{
    out[0].d = half_at(w[0], 0);
    out[1].d = half_at(w[8], 1);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        out[0].q[i] = (int)__funnelshift_r(w[i], w[i + 1], 16);
        out[1].q[i] = (int)w[9 + i];
    }
}

/* p: of 256 elements; j: which of four pairs. They share their bytes. */
__device__ __forceinline__ void pair_q2_k(const uint32_t *w, int j, struct cu_unit *out)
{
    uint32_t scale = w[j];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        out[h].d = half_at(w[20], 0);
        out[h].dm = half_at(w[20], 1);
        out[h].m[0] = scale >> (16 * h + 4) & 15;
        out[h].m[1] = scale >> (16 * h + 12) & 15;
#pragma unroll
        for (int i = 0; i < 8; i++)
            out[h].q[i] = (int)((w[4 + j / 2 * 8 + i] >> (j % 2 * 4 + 2 * h) & 0x03030303) *
                                (scale >> (16 * h + i / 4 * 8) & 15));
    }
}

__device__ __forceinline__ void pair_q4_k(const uint32_t *w, int j, struct cu_unit *out)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int scale, min;
        q4_k_scales((const uint8_t *)(w + 1), 2 * j + h, &scale, &min);
        out[h].d = half_at(w[0], 0) * (float)scale;
        out[h].dm = half_at(w[0], 1);
        out[h].m[0] = out[h].m[1] = min;
#pragma unroll
        for (int i = 0; i < 8; i++)
            out[h].q[i] = (int)(w[4 + j * 8 + i] >> 4 * h & 0x0f0f0f0f);
    }
}

/* Whether the number of ones among seven bits from 7 j on is odd: at bit 7 j. */
__device__ __forceinline__ uint32_t odd_sevens(uint32_t x)
{
    uint32_t two = x ^ x >> 1;
    return two ^ two >> 2 ^ two >> 4 ^ x >> 6;
}

__device__ __forceinline__ void pair_iq2_xxs(const uint8_t *block, int j, const uint64_t *book,
                                             struct cu_unit *out)
{
    float d = f16_value(*(const uint16_t *)block) * .125f;
    uintptr_t at = (uintptr_t)(block + 2 + 16 * j);
    const uint32_t *w = (const uint32_t *)(at & ~(uintptr_t)3);
    unsigned by = (unsigned)(at & 3) * 8;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t index = __funnelshift_r(w[2 * h], w[2 * h + 1], by);
        uint32_t rest = __funnelshift_r(w[2 * h + 1], w[2 * h + 2], by), odd = odd_sevens(rest);
        out[h].d = d * (float)((rest >> 28) * 2 + 1);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint64_t grid = book[(index >> 8 * i & 255) * BOOK_COPIES];
            uint32_t last = (odd >> 7 * i & 1) << 3;
            out[h].q[2 * i] = signed_four((uint32_t)grid, rest >> 7 * i);
            out[h].q[2 * i + 1] =
                signed_four((uint32_t)(grid >> 32), (rest >> (7 * i + 4) & 7) | last);
        }
    }
}

/* Pair p of a piece; `both`: it has two units. */
template <int type>
__device__ __forceinline__ void pair_load(const struct cu_piece *s, int p, bool both,
                                          struct cu_unit *out)
{
    struct cu_src src = { s->row, s->scale, NULL };
#pragma unroll
    for (int h = 0; h < 2; h++) {
        out[h].dm = 0;
        out[h].m[0] = out[h].m[1] = 0;
    }
    switch (type) {
    case DT_Q8_0: pair_q8_0((const uint32_t *)(s->row + p * 68), out); break;
    case DT_Q2_K: pair_q2_k((const uint32_t *)(s->row + p / 4 * 84), p % 4, out); break;
    case DT_Q4_K: pair_q4_k((const uint32_t *)(s->row + p / 4 * 144), p % 4, out); break;
    case DT_IQ2_XXS: pair_iq2_xxs(s->row + p / 4 * 66, p % 4, s->book, out); break;
    default:
        unit_load(type, &src, 2 * p, &out[0]);
        unit_load(type, &src, 2 * p + both, &out[1]);
    }
    out[1].d = both ? out[1].d : 0;
}

#endif
