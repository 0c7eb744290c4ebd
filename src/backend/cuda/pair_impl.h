/* pair_impl.h - two neighbouring units of packed weights at once, from a row's piece in shared
 * memory that begins at a multiple of 16 bytes: their bytes are read once, in words, by lanes that
 * meet different banks. */
#ifndef DS_PAIR_IMPL_H
#define DS_PAIR_IMPL_H

#include "book_impl.h"
#include "unit_impl.h"

/* One row's piece. scale: of its first unit. */
struct cu_piece {
    const uint8_t *row, *scale, *book;
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

/* w: of 256 elements; j: which of four pairs. They share their bytes. For dp4a_plus(): the bits of
 * q stay where they are, `shift` too high, and scales wait for the sum, which is the same whole
 * number for half of the instructions. */
__device__ __forceinline__ void pair_q2_k(const uint32_t *w, int j, struct cu_unit *out)
{
    uint32_t scale = w[j];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        out[h].d = half_at(w[20], 0);
        out[h].dm = half_at(w[20], 1);
        out[h].shift = j % 2 * 4 + 2 * h;
        uint32_t mine = 0x03030303u << out[h].shift;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            out[h].scale[i] = (int)(scale >> (16 * h + 8 * i) & 15);
            out[h].m[i] = (int)(scale >> (16 * h + 8 * i + 4) & 15);
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            out[h].q[i] = (int)(w[4 + j / 2 * 8 + i] & mine);
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

/* Pair p of a row that begins at a multiple of 8. */
__device__ __forceinline__ void pair_iq2_xxs(const uint8_t *row, int p, const uint8_t *book,
                                             struct cu_unit *out)
{
    int block = p / 4 * 66, at = block + 2 + p % 4 * 16;
    float d = f16_value(*(const uint16_t *)(row + block)) * .125f;
    const uint2 *from = (const uint2 *)(row + (at & ~7));
    uint2 a = from[0], b = from[1], c = from[2];
    bool odd = at & 4;
    uint32_t w[5] = { odd ? a.y : a.x, odd ? b.x : a.y, odd ? b.y : b.x, odd ? c.x : b.y,
                      odd ? c.y : c.x };
    unsigned by = (unsigned)(at & 3) * 8;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t index = __funnelshift_r(w[2 * h], w[2 * h + 1], by);
        uint32_t rest = __funnelshift_r(w[2 * h + 1], w[2 * h + 2], by);
        out[h].d = d * (float)((rest >> 28) * 2 + 1);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t size = __dp4a(index, (uint32_t)BOOK_ENTRY << 8 * i, (uint32_t)LANE * 4);
            uint32_t sign = (i ? rest >> (7 * i - 7) : rest << 7) & 127 * BOOK_ENTRY;
            uint32_t eight = book_entry(book, size) +
                             book_entry(book + BOOK_SIGNS, sign | (uint32_t)LANE * 4);
            out[h].q[2 * i] = book_four(eight);
            out[h].q[2 * i + 1] = book_four(eight >> 16);
        }
    }
}

/* Pair p of a piece, for times_impl.h; `both`: it has two units. */
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
    case DT_IQ2_XXS: pair_iq2_xxs(s->row, p, s->book, out); break;
    default:
        unit_load(type, &src, 2 * p, &out[0]);
        unit_load(type, &src, 2 * p + both, &out[1]);
    }
    out[1].d = both ? out[1].d : 0;
}

#endif
