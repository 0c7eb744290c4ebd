/* avx2_impl.h - the few steps that all AVX2 kernels share. */
#ifndef DS_AVX2_IMPL_H
#define DS_AVX2_IMPL_H

#include "cpu_impl.h"

#include <immintrin.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Before a loop of few, constant turns: all of them written out, so that arrays of vectors stay in
 * registers and shifts are by constants. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Weights of the next tile, while this one is computed: rows are too short for the processor to
 * see the pattern in time. Never faults, wherever it points. */
static ALWAYS_INLINE void fetch_ahead(const struct tile *t, int j, size_t at)
{
    _mm_prefetch((const char *)((uintptr_t)t->w[j] + at + t->ahead), _MM_HINT_T1);
}

/* The next band's bytes first .. first+bytes-1 of n rows from r on. A few lines at a time, between
 * other work: with many at once everything waits for memory. */
static ALWAYS_INLINE void fetch_rows(const struct band *b, int r, int n, size_t first, size_t bytes)
{
    UNROLL for (int j = 0; j < n; j++) {
        uintptr_t next = (uintptr_t)b->w[r + j] + b->ahead + first;
        UNROLL for (size_t i = 0; i < bytes; i += 64)
            _mm_prefetch((const char *)(next + i), _MM_HINT_T1);
    }
}

static ALWAYS_INLINE __m256i halves(__m128i lo, __m128i hi)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(lo), hi, 1);
}

static ALWAYS_INLINE __m256i two_of(const uint8_t *lo, const uint8_t *hi)
{
    return halves(_mm_loadu_si128((const __m128i *)lo), _mm_loadu_si128((const __m128i *)hi));
}

/* Sums of four vectors of eight, as four lanes. */
static ALWAYS_INLINE __m128i sum_4x8(__m256i a, __m256i b, __m256i c, __m256i d)
{
    __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    __m256i s = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

/* Lanes of a row's product to its sum, in the order of struct tile; four rows at once. */
static ALWAYS_INLINE __m128 fold_16(__m256 lo, __m256 hi)
{
    __m256 s = _mm256_add_ps(lo, hi);
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

static ALWAYS_INLINE __m128 sum_4x4(__m128 a, __m128 b, __m128 c, __m128 d)
{
    return _mm_hadd_ps(_mm_hadd_ps(a, b), _mm_hadd_ps(c, d));
}

/* Four f16 from four addresses. */
static ALWAYS_INLINE __m128 f16_x4(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                                   const uint8_t *d)
{
    uint16_t h[4];
    memcpy(h, a, 2);
    memcpy(h + 1, b, 2);
    memcpy(h + 2, c, 2);
    memcpy(h + 3, d, 2);
    __m128i v = _mm_cvtsi32_si128(h[0]);
    v = _mm_insert_epi16(v, h[1], 1);
    v = _mm_insert_epi16(v, h[2], 2);
    v = _mm_insert_epi16(v, h[3], 3);
    return _mm_cvtph_ps(v);
}

/* E8M0 in eight lanes to 2^(e - 128), half the scale: the weights are held doubled. */
static ALWAYS_INLINE __m256 e8m0_half_8(__m256i e)
{
    __m256i bits = _mm256_slli_epi32(e, 23);
    __m256i least = _mm256_and_si256(_mm256_cmpeq_epi32(e, _mm256_setzero_si256()),
                                     _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_and_si256(_mm256_cmpeq_epi32(e, _mm256_set1_epi32(255)),
                                   _mm256_set1_epi32(0x7fc00000));
    bits = _mm256_or_si256(bits, _mm256_or_si256(least, nan));
    return _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(.5f));
}

/* The first n of four results to their places. */
static ALWAYS_INLINE void put_4(float *out, __m128 v, int n)
{
    float f[4];
    if (n == 4) {
        _mm_storeu_ps(out, v);
        return;
    }
    _mm_storeu_ps(f, v);
    for (int j = 0; j < n; j++)
        out[j] = f[j];
}

void cpu_pack_avx2(struct cpu_kernels *k);
void cpu_q32_avx2(struct cpu_kernels *k);
void cpu_q256_avx2(struct cpu_kernels *k);
void cpu_band32_avx2(struct cpu_kernels *k);
void cpu_band256_avx2(struct cpu_kernels *k);
void cpu_band_q4_k_avx2(const struct band *b), cpu_band_mxfp4_avx2(const struct band *b);
void cpu_index_avx2(struct cpu_kernels *k);

#endif
