/* band_avx2_impl.h - what the bands with AVX2 share: a chunk of 32 weight rows is turned so that a
 * lane is a weight row, unpacked, and multiplied by all activation rows.
 *
 * Bytes are turned as they lie in the file and unpacked afterwards, so that moving them costs as
 * little as they are. */
#ifndef DS_BAND_AVX2_IMPL_H
#define DS_BAND_AVX2_IMPL_H

#include "avx2_impl.h"

#define CHUNK 256 /* columns that are unpacked at a time */
#define OCT 8     /* weight rows of a vector */
#define LINE __attribute__((aligned(64)))

/* CHUNK columns of BAND_W weight rows: a lane is a weight row. */
struct chunk {
    union {
        LINE uint8_t q[CHUNK / 4][BAND_W][4];
        LINE int16_t wide[CHUNK / 2][BAND_W][2];
    };
    LINE int16_t factor[16][BAND_W][2]; /* of 16 columns; every other one: of 32 */
    LINE int16_t start[24][BAND_W][2];  /* where sums of 16 bits begin */
    LINE int16_t min[8][BAND_W][2];     /* factors of the activations' sums of 16 */
    LINE float d[8][BAND_W];            /* steps of 32 columns, or the first of all */
    LINE float dmin[BAND_W];
};

/* The chunk that is being unpacked. */
struct source {
    const struct band *b;
    int block, n; /* first block of 32, and how many, 1 to 8 */
};

typedef void add_fn(float (*acc)[BAND_W], const struct source *s, const struct chunk *c);

struct band_format {
    void (*unpack)(const struct source *s, struct chunk *c);
    add_fn *add;
};

/* acc[i][r] += activation row i times weight row r, at the columns of the chunk.
 *
 *   wide_32    float steps, weights of 8 bits
 *   signed_32  float steps, weights of at most 12; one start a block
 *   signed     factors of 32 columns, weights of at most 43; starts of columns 0, 12 and 24
 *   codes_4    factors and minima of 16 columns, codes of at most 15
 *   codes_8    factors and minima of 32 columns, codes of at most 15 */
add_fn cpu_add_wide_32, cpu_add_signed_32, cpu_add_signed, cpu_add_codes_4, cpu_add_codes_8;

void cpu_band_avx2(const struct band *b, const struct band_format *f);

static ALWAYS_INLINE __m256i load_256(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static ALWAYS_INLINE void store_256(void *p, __m256i v)
{
    _mm256_store_si256((__m256i *)p, v);
}

/* Sixteen bytes `at` bytes into each of eight rows: to[k] lane j is word k of row[j]. */
static ALWAYS_INLINE void turn_8x16(__m256i to[4], const uint8_t *const row[OCT], size_t at)
{
    __m256i r[4], a[4];
    UNROLL for (int j = 0; j < 4; j++)
        r[j] = two_of(row[j] + at, row[j + 4] + at);
    a[0] = _mm256_unpacklo_epi32(r[0], r[1]);
    a[1] = _mm256_unpackhi_epi32(r[0], r[1]);
    a[2] = _mm256_unpacklo_epi32(r[2], r[3]);
    a[3] = _mm256_unpackhi_epi32(r[2], r[3]);
    to[0] = _mm256_unpacklo_epi64(a[0], a[2]);
    to[1] = _mm256_unpackhi_epi64(a[0], a[2]);
    to[2] = _mm256_unpacklo_epi64(a[1], a[3]);
    to[3] = _mm256_unpackhi_epi64(a[1], a[3]);
}

/* Lane j: four bytes `at` bytes into row[j]. */
static ALWAYS_INLINE __m256i words_8(const uint8_t *const row[OCT], size_t at)
{
    int32_t v[OCT];
    UNROLL for (int j = 0; j < OCT; j++)
        memcpy(v + j, row[j] + at, 4);
    return _mm256_setr_epi32(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
}

/* The f16 in the low halves of lanes. */
static ALWAYS_INLINE __m256 f16_low(__m256i v)
{
    v = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
    v = _mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 0xd8);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(v));
}

/* Byte i of every lane to both 16-bit halves; i, j: to one each. */
static ALWAYS_INLINE __m256i pair_of(__m256i v, int i, int j)
{
    int one = (int)(0x80008000u | (unsigned)i | (unsigned)j << 16);
    __m128i at = _mm_setr_epi32(one, one + 0x00040004, one + 0x00080008, one + 0x000c000c);
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(at));
}

/* Eight weight rows from r on, `at` bytes into them. */
static ALWAYS_INLINE void rows_of_oct(const uint8_t *row[OCT], const struct source *s, int r,
                                      size_t at)
{
    UNROLL for (int j = 0; j < OCT; j++)
        row[j] = s->b->w[r + j] + at;
}

#endif
