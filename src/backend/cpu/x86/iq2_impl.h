/* iq2_impl.h - a block of IQ2_XXS unpacked with AVX-512.
 *
 * The codebook, at two bits a weight, lies in eight vectors: four permutations look up 32 of its
 * entries, where loading them would take 32 loads and as many inserts. The sign becomes a bit of
 * the index into the table of magnitudes. */
#ifndef DS_IQ2_IMPL_H
#define DS_IQ2_IMPL_H

#include "avx512_impl.h"

#include "iq_tables.h"

/* The codes of 32 groups, eight times two bits each. */
static ALWAYS_INLINE __m512i codes(__m512i index)
{
    __m512i v[4];
    UNROLL for (int i = 0; i < 4; i++)
        v[i] = _mm512_permutex2var_epi16(load_512(iq2_xxs_code + 64 * i), index,
                                         load_512(iq2_xxs_code + 64 * i + 32));
    __mmask32 odd = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
    __mmask32 upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));
    return _mm512_mask_blend_epi16(upper, _mm512_mask_blend_epi16(odd, v[0], v[1]),
                                   _mm512_mask_blend_epi16(odd, v[2], v[3]));
}

/* The signs of 32 groups: of columns 0 to 3 in the low byte, of 4 to 7 in the high one. Seven are
 * stored, their number is even. */
static ALWAYS_INLINE __m512i signs(__m512i words)
{
    const __m512i at = _mm512_broadcast_i32x4(
        _mm_setr_epi8(4, 5, 4, 5, 5, 6, 6, 7, 12, 13, 12, 13, 13, 14, 14, 15));
    const __m512i down = _mm512_set1_epi64(0x0005000600070000);
    const __m512i parity = _mm512_broadcast_i32x4(_mm_setr_epi8(
        0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    __m512i f = _mm512_srlv_epi16(_mm512_shuffle_epi8(words, at), down);
    f = _mm512_and_si512(f, _mm512_set1_epi16(0x7f));
    /* 0x28: (a ^ b) & c */
    __m512i fold = _mm512_ternarylogic_epi32(f, _mm512_srli_epi16(f, 4), _mm512_set1_epi16(15),
                                             0x28);
    f = _mm512_or_si512(f, _mm512_shuffle_epi8(parity, fold));
    /* 0xa8: (a | b) & c */
    return _mm512_ternarylogic_epi32(f, _mm512_slli_epi16(f, 4), _mm512_set1_epi16(0x0f0f), 0xa8);
}

/* 43 plus the weights: vector k has columns k and k + 4 of every group of eight. */
static ALWAYS_INLINE void unpack_iq2_xxs(__m512i w[4], __m512i words)
{
    const __m512i first = _mm512_broadcast_i32x4(_mm_setr_epi8(
        0, -128, 1, -128, 2, -128, 3, -128, 8, -128, 9, -128, 10, -128, 11, -128));
    /* 43 plus a magnitude, or minus with the sign's bit: bit 2, for column 3 and 7 bit 3. */
    const __m512i bit_2 = _mm512_broadcast_i32x4(
        _mm_setr_epi8(51, 68, 86, 0, 35, 18, 0, 0, 51, 68, 86, 0, 35, 18, 0, 0));
    const __m512i bit_3 = _mm512_broadcast_i32x4(
        _mm_setr_epi8(51, 68, 86, 0, 51, 68, 86, 0, 35, 18, 0, 0, 35, 18, 0, 0));
    __m512i code = codes(_mm512_shuffle_epi8(words, first)), sign = signs(words);
    UNROLL for (int k = 0; k < 4; k++) {
        __m512i s = k < 2 ? _mm512_slli_epi16(sign, (unsigned)(2 - k)) : sign;
        /* 0xe4: c ? a : b, bit by bit */
        __m512i i = _mm512_ternarylogic_epi32(_mm512_srli_epi16(code, (unsigned)(2 * k)), s,
                                              _mm512_set1_epi8(3), 0xe4);
        w[k] = _mm512_shuffle_epi8(k < 3 ? bit_2 : bit_3, i);
    }
}

#endif
