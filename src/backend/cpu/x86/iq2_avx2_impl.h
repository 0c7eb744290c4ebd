/* iq2_avx2_impl.h - a block of IQ2_XXS unpacked with AVX2.
 *
 * Magnitudes are loaded from the codebook, eight at a time. A group of eight has its signs in one
 * byte s; multiplying 16-bit lanes that hold s and s >> 1 by powers of two brings each weight's
 * sign to the top of its byte, where a blend sees it. */
#ifndef DS_IQ2_AVX2_IMPL_H
#define DS_IQ2_AVX2_IMPL_H

#include "avx2_impl.h"

#include "iq_tables.h"

/* Bytes s and s >> 1 of a block's 32 groups of eight columns, by fours. */
struct iq2_signs {
    uint64_t four[8];
};

/* The 28 sign bits of eight words to 32 bytes: fields of seven, and their parity on top. */
static ALWAYS_INLINE __m256i iq2_sign_bytes(__m256i rest)
{
    const __m256i parity = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    __m256i two = _mm256_blend_epi16(rest, _mm256_slli_epi32(rest, 2), 0xaa);
    __m256i f = _mm256_or_si256(
        _mm256_and_si256(two, _mm256_set1_epi16(0x7f)),
        _mm256_and_si256(_mm256_add_epi16(two, two), _mm256_set1_epi16(0x7f00)));
    __m256i fold = _mm256_and_si256(_mm256_xor_si256(f, _mm256_srli_epi16(f, 4)),
                                    _mm256_set1_epi8(15));
    return _mm256_or_si256(f, _mm256_shuffle_epi8(parity, fold));
}

/* The second words of a block's eight groups of 32 columns: signs, and the scale on top. Of groups
 * 0 1 4 5 in the lower half, 2 3 6 7 in the upper. */
static ALWAYS_INLINE __m256i iq2_rest(const uint8_t *block)
{
    __m256i lo = _mm256_loadu_si256((const __m256i *)(block + 2));
    __m256i hi = _mm256_loadu_si256((const __m256i *)(block + 34));
    return _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi), 0xdd));
}

static ALWAYS_INLINE void iq2_signs_of(struct iq2_signs *to, __m256i rest)
{
    __m256i s = iq2_sign_bytes(rest), half = _mm256_srli_epi16(s, 1);
    _mm256_storeu_si256((__m256i *)to->four, _mm256_unpacklo_epi8(s, half));
    _mm256_storeu_si256((__m256i *)(to->four + 4), _mm256_unpackhi_epi8(s, half));
    __asm__("" : "+m"(*to)); /* to be loaded: taking a vector apart costs more */
}

/* Lanes of 16 bits, four for each eight columns, hold s and s >> 1: their signs come to the tops of
 * bytes. */
static ALWAYS_INLINE __m256i iq2_sign_tops(__m256i s)
{
    return _mm256_mullo_epi16(s, _mm256_set1_epi64x(0x0002000800200080));
}

/* Of columns 32 g .. . */
static ALWAYS_INLINE __m256i iq2_sign(const struct iq2_signs *signs, int g)
{
    const __m256i at = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5, 4,
                                        5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7);
    __m256i four = _mm256_set1_epi64x((long long)signs->four[g]);
    return iq2_sign_tops(_mm256_shuffle_epi8(four, at));
}

static ALWAYS_INLINE __m128i two_entries(unsigned a, unsigned b)
{
    __m128d v = _mm_load_sd((const double *)&iq2_xxs_grid[a]);
    return _mm_castpd_si128(_mm_loadh_pd(v, (const double *)&iq2_xxs_grid[b]));
}

/* Magnitudes of four times eight columns. */
static ALWAYS_INLINE __m256i iq2_entries(unsigned a, unsigned b, unsigned c, unsigned d)
{
    return halves(two_entries(a, b), two_entries(c, d));
}

/* Of columns 32 g .. . Loads are the scarcest: the four indices come in one. */
static ALWAYS_INLINE __m256i iq2_size(const uint8_t *block, int g)
{
    uint32_t index;
    memcpy(&index, block + 2 + 8 * g, 4);
    return iq2_entries(index & 255, index >> 8 & 255, index >> 16 & 255, index >> 24);
}

#endif
