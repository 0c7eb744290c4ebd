/* pack_avx2.c - activations to eight bits; the same operations as the plain form, eight at a time,
 * hence the same bits. */
#include "avx2_impl.h"

#include "half.h"

#include <math.h>

static ALWAYS_INLINE uint32_t top_of(const float *x, int n)
{
    const __m256i abs = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(x + i));
        top = _mm256_max_epi32(top, _mm256_and_si256(v, abs));
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

static ALWAYS_INLINE __m256i round_32(const float *x, __m256 inverse)
{
    __m256i q[4];
    UNROLL for (int i = 0; i < 4; i++)
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse));
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]),
                                       _mm256_packs_epi32(q[2], q[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

static ALWAYS_INLINE void pack_group(const float *x, int8_t *q, float *d, int n)
{
    uint32_t top = top_of(x, n);
    if (top >= 0x7f800000 || top < f32_bits(0x1p-100f)) {
        *d = top >= 0x7f800000 ? NAN : 0;
        memset(q, 0, (size_t)n);
        return;
    }
    float max = f32_of_bits(top);
    __m256 inverse = _mm256_set1_ps(127 / max);
    *d = max / 127;
    for (int i = 0; i < n; i += 32)
        _mm256_storeu_si256((__m256i *)(q + i), round_32(x + i, inverse));
}

static ALWAYS_INLINE void add_up(const int8_t *q, int16_t *sum, int n)
{
    for (int i = 0; i < n; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(q + i));
        __m128i s = _mm_madd_epi16(_mm_maddubs_epi16(_mm_set1_epi8(1), v), _mm_set1_epi16(1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
        sum[i / 16] = (int16_t)_mm_cvtsi128_si32(s);
    }
}

static void pack_q32(const float *x, void *row, int n)
{
    int8_t *q = row;
    float *d = (float *)(q + n);
    for (int i = 0; i < n; i += 32)
        pack_group(x + i, q + i, d + i / 32, 32);
    add_up(q, (int16_t *)(d + n / 32), n);
}

static void pack_q256(const float *x, void *row, int n)
{
    int8_t *q = row;
    float *d = (float *)(q + n);
    for (int i = 0; i < n; i += 256)
        pack_group(x + i, q + i, d + i / 256, 256);
    add_up(q, (int16_t *)(d + n / 256), n);
}

void cpu_pack_avx2(struct cpu_kernels *k)
{
    k->pack[ACT_Q32] = pack_q32;
    k->pack[ACT_Q256] = pack_q256;
}
