/* half_impl.h - half a block of two-bit weights, 128 elements of a row in shared memory, times
 * rounded activations that a lane has in registers. A multiprocessor is bound by instructions here:
 * a row's rows of words are read in an order that meets different banks, a sum of products of bytes
 * is an entry's address, whole numbers are scaled before they become float32. */
#ifndef DS_HALF_IMPL_H
#define DS_HALF_IMPL_H

#include "book_impl.h"
#include "round_impl.h"
#include "times_impl.h"

#define HALF 128 /* elements */

__host__ __device__ __forceinline__ constexpr bool has_halves(int type)
{
    return type == DT_IQ2_XXS || type == DT_Q2_K;
}

/* A lane's share of a row of activations; sum: of 16 q, two in a word. */
struct cu_half {
    int q[HALF / 4], sum[HALF / 32];
    float d;
};

/* Where a codebook is: a lane's copies of its first entries. */
struct cu_book {
    shared_place sizes, signs; /* signs: no bit in common with the index of an entry */
    uint32_t plus;          /* the magnitudes: from memory, since every use of a constant would
                               begin with a copy of it */
};

/* from: two records. */
__device__ __forceinline__ void half_read(const struct cu_record *from, struct cu_half *x)
{
#pragma unroll
    for (int i = 0; i < HALF / 4; i++)
        x->q[i] = (&from[i / 16].q[i / 4 % 4].x)[i % 4];
#pragma unroll
    for (int i = 0; i < HALF / 32; i++)
        x->sum[i] = ((const int *)from[i / 2].sum)[i % 2];
    x->d = from->d[0];
}

#ifdef CUDA_EMULATED
#define shared_word(at) (*(const uint32_t *)(at))
#define choose_bytes(lo, hi, at) __byte_perm(lo, hi, at)
#define entry_place(place, a, b) ((place) + __dp4a(a, b, 0u))
#else
#define entry_place(place, a, b) __dp4a(a, b, place)

__device__ __forceinline__ uint32_t shared_word(shared_place at)
{
    uint32_t x;
    asm("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(at));
    return x;
}

/* __byte_perm() where no nibble of `at` is above 7, which that would see to. */
__device__ __forceinline__ uint32_t choose_bytes(uint32_t lo, uint32_t hi, uint32_t at)
{
    uint32_t x;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(x) : "r"(lo), "r"(hi), "r"(at));
    return x;
}
#endif

/* Four groups of eight weights: their indices, their signs and a scale. */
__device__ __forceinline__ int iq2_xxs_times(const struct cu_book *book, uint32_t index,
                                             uint32_t rest, const int *x)
{
    int s = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        shared_place sign = (i ? rest >> (7 * i - 7) : rest << 7) & 127 * BOOK_ENTRY;
        uint32_t entry = (uint32_t)BOOK_ENTRY << 8 * i; /* times byte i of index */
        uint32_t eight = shared_word(entry_place(book->sizes, index, entry)) +
                         shared_word(sign | book->signs);
        s = __dp4a((int)choose_bytes(book->plus, IQ2_XXS_NEGATED, eight), x[2 * i], s);
        s = __dp4a((int)choose_bytes(book->plus, IQ2_XXS_NEGATED, eight >> 16),
                   x[2 * i + 1], s);
    }
    return s * (int)(rest >> 27 | 1);
}

/* sum plus half h of a row, which begins at a multiple of 4, times x. */
__device__ __forceinline__ float half_iq2_xxs(const uint8_t *row, int h,
                                              const struct cu_book *book,
                                              const struct cu_half *x, float sum)
{
    int block = h / 2 * 66, at = block + 2 + h % 2 * 32, s = 0;
    const uint32_t *w = (const uint32_t *)(row + (at & ~3));
    unsigned by = (unsigned)(at & 2) * 8;
    uint32_t last = w[0], rest[2];
#pragma unroll
    for (int i = 0; i < HALF / 16; i++) {
        uint32_t next = w[i + 1];
        rest[i % 2] = __funnelshift_r(last, next, by);
        last = next;
        if (i % 2)
            s += iq2_xxs_times(book, rest[0], rest[1], x->q + i / 2 * 8);
    }
    float d = f16_value(*(const uint16_t *)(row + block)) * .125f;
    return fmaf(d * x->d, (float)s, sum);
}

/* 32 bytes have all 128, two bits each: bits stay where they are, and what is too large by that is
 * shifted away from sums. */
__device__ __forceinline__ float half_q2_k(const uint8_t *row, int h, const struct cu_half *x,
                                           float sum)
{
    const uint32_t *block = (const uint32_t *)(row + h / 2 * 84), *w = block + 4 + h % 2 * 8;
    uint32_t scale[2] = { block[h % 2 * 2], block[h % 2 * 2 + 1] }, q[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        q[i] = w[i];
    int s = 0, m = 0;
#pragma unroll
    for (int g = 0; g < 4; g++) {
        uint32_t mine = 0x03030303u << 2 * g, by = scale[g / 2] >> 16 * (g % 2);
        int a = 0, b = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            a = dp4a_plus((int)(q[i] & mine), x->q[8 * g + i], a);
            b = dp4a_plus((int)(q[i + 4] & mine), x->q[8 * g + i + 4], b);
        }
        s += (a * (int)(by & 15) + b * (int)(by >> 8 & 15)) >> 2 * g;
        int min = (int)(scale[g / 2] >> 4 & 0x0f0f0f0f);
        m = g % 2 ? __dp2a_hi(x->sum[g], min, m) : __dp2a_lo(x->sum[g], min, m);
    }
    float d = f16_value(block[20] & 0xffff), dm = f16_value(block[20] >> 16);
    return fmaf(-(dm * x->d), (float)m, fmaf(d * x->d, (float)s, sum));
}

template <int type>
__device__ __forceinline__ float half_times(const uint8_t *row, int h, const struct cu_book *book,
                                            const struct cu_half *x, float sum)
{
    return type == DT_Q2_K ? half_q2_k(row, h, x, sum) : half_iq2_xxs(row, h, book, x, sum);
}

#endif
