/* index_avx2.c - index queries and rows: Hadamard transform and FP4 rounding, with the bits of the
 * scalar definition. */
#include "avx2_impl.h"

#include "fp4.h"
#include "kv_row.h"

#include <math.h>

/* Sums in the even places of the pairs that `swapped` exchanges, differences in the odd ones. */
#define BUTTERFLY(v, swapped, odd) \
    _mm256_blend_ps(_mm256_add_ps(v, swapped), _mm256_sub_ps(swapped, v), odd)

static ALWAYS_INLINE __m256 hadamard_8(__m256 v)
{
    v = BUTTERFLY(v, _mm256_permute_ps(v, 0xb1), 0xaa);
    v = BUTTERFLY(v, _mm256_permute_ps(v, 0x4e), 0xcc);
    return BUTTERFLY(v, _mm256_permute2f128_ps(v, v, 1), 0xf0);
}

static ALWAYS_INLINE void butterflies(float *x, int len)
{
    for (int i = 0; i < len; i += 8) {
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + len);
        _mm256_storeu_ps(x + i, _mm256_add_ps(a, b));
        _mm256_storeu_ps(x + i + len, _mm256_sub_ps(a, b));
    }
}

static void hadamard_avx2(float *x, int n)
{
    if (n < 8) {
        hadamard(x, n);
        return;
    }
    CHECK((n & (n - 1)) == 0);
    for (int i = 0; i < n; i += 8)
        _mm256_storeu_ps(x + i, hadamard_8(_mm256_loadu_ps(x + i)));
    for (int len = 8; len < n; len *= 2)
        for (int i = 0; i < n; i += 2 * len)
            butterflies(x + i, len);
    __m256 norm = _mm256_set1_ps((float)(1 / sqrt((double)n)));
    for (int i = 0; i < n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), norm));
}

/* To multiples of a half below 2, of one below 4, of two up to 6: in each range the even multiple
 * of a tie is the even code. */
static ALWAYS_INLINE __m256 round_e2m1(__m256 x)
{
    const __m256 sign = _mm256_set1_ps(-0.f), two = _mm256_set1_ps(2), half = _mm256_set1_ps(.5f);
    __m256 a = _mm256_min_ps(_mm256_set1_ps(6), _mm256_andnot_ps(sign, x));
    __m256 fine = _mm256_mul_ps(_mm256_round_ps(_mm256_mul_ps(a, two), 8), half);
    __m256 coarse = _mm256_mul_ps(_mm256_round_ps(_mm256_mul_ps(a, half), 8), two);
    __m256 y = _mm256_blendv_ps(fine, _mm256_round_ps(a, 8), _mm256_cmp_ps(a, two, _CMP_GE_OQ));
    y = _mm256_blendv_ps(y, coarse, _mm256_cmp_ps(a, _mm256_set1_ps(4), _CMP_GE_OQ));
    return _mm256_or_ps(y, _mm256_and_ps(sign, x));
}

/* The bits of the largest |x| of 32; NaN lies above infinity. */
static ALWAYS_INLINE uint32_t top_32(const float *x)
{
    const __m256i abs = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 8) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(x + i));
        top = _mm256_max_epi32(top, _mm256_and_si256(v, abs));
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

static void fp4_simulate_avx2(float *x, int n)
{
    CHECK(n % 32 == 0);
    for (int i = 0; i < n; i += 32) {
        uint32_t top = MAX(top_32(x + i), f32_bits(6 * 0x1p-126f));
        uint8_t e = top >= 0x7f800000 ? 255 : e8m0_ceil(f32_of_bits(top) * (1.f / 6));
        __m256 s = _mm256_set1_ps(e8m0_to_f32(e));
        for (int j = i; j < i + 32; j += 8) {
            __m256 y = round_e2m1(_mm256_div_ps(_mm256_loadu_ps(x + j), s));
            _mm256_storeu_ps(x + j, _mm256_mul_ps(y, s));
        }
    }
}

void cpu_index_avx2(struct cpu_kernels *k)
{
    k->hadamard = hadamard_avx2;
    k->fp4_simulate = fp4_simulate_avx2;
}
