/* band256_avx2.c - bands of weights in blocks of 256: Q2_K, Q4_K, IQ2_XXS. */
#include "band_avx2_impl.h"

#include "iq2_avx2_impl.h"

/* Steps and minima's steps of eight rows: the halves of a word `at` bytes into the block. */
static ALWAYS_INLINE void open_steps(struct chunk *c, int r, __m256i words)
{
    _mm256_store_ps(c->d[0] + r, f16_low(words));
    _mm256_store_ps(c->dmin + r, f16_low(_mm256_srli_epi32(words, 16)));
}

/* ---- Q2_K ---------------------------------------------------------------------------------- */

/* Scales in the low nibbles, minima in the high ones, of 16 columns each. */
static ALWAYS_INLINE void scales_q2_k(struct chunk *c, int r, const uint8_t *const row[OCT])
{
    __m256i v[4];
    turn_8x16(v, row, 0);
    UNROLL for (int t = 0; t < 4; t++) {
        __m256i scale = _mm256_and_si256(v[t], _mm256_set1_epi8(15));
        __m256i min = _mm256_and_si256(_mm256_srli_epi16(v[t], 4), _mm256_set1_epi8(15));
        UNROLL for (int i = 0; i < 4; i++)
            store_256(c->factor[4 * t + i][r], pair_of(scale, i, i));
        UNROLL for (int i = 0; i < 2; i++)
            store_256(c->min[2 * t + i][r], pair_of(min, 2 * i, 2 * i + 1));
    }
}

static void unpack_q2_k(const struct source *s, struct chunk *c)
{
    size_t at = (size_t)(s->block / 8) * 84;
    for (int r = 0; r < BAND_W; r += OCT) {
        const uint8_t *row[OCT];
        rows_of_oct(row, s, r, at);
        fetch_rows(s->b, r, OCT, at, 84);
        scales_q2_k(c, r, row);
        open_steps(c, r, words_8(row, 80));
        UNROLL for (int p = 0; p < 4; p++) { /* 16 bytes: 16 columns of each of four groups */
            __m256i v[4];
            turn_8x16(v, row, 16 + 16 * (size_t)p);
            UNROLL for (int k = 0; k < 4; k++)
                UNROLL for (int g = 0; g < 4; g++)
                    store_256(c->q[p / 2 * 32 + g * 8 + p % 2 * 4 + k][r],
                              _mm256_and_si256(_mm256_srli_epi16(v[k], 2 * g),
                                               _mm256_set1_epi8(3)));
        }
    }
}

static void band_q2_k(const struct band *b)
{
    cpu_band_avx2(b, &(struct band_format){ unpack_q2_k, cpu_add_codes_4 });
}

/* ---- Q4_K ---------------------------------------------------------------------------------- */

/* Eight pairs of six bits in twelve bytes. */
static ALWAYS_INLINE void scales_q4_k(struct chunk *c, int r, const uint8_t *const row[OCT])
{
    const __m256i six = _mm256_set1_epi8(0x3f), four = _mm256_set1_epi8(15);
    const __m256i top = _mm256_set1_epi8(0x30);
    __m256i v[4], scale[2], min[2];
    turn_8x16(v, row, 0);
    scale[0] = _mm256_and_si256(v[1], six);
    min[0] = _mm256_and_si256(v[2], six);
    scale[1] = _mm256_or_si256(_mm256_and_si256(v[3], four),
                               _mm256_and_si256(_mm256_srli_epi16(v[1], 2), top));
    min[1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(v[3], 4), four),
                             _mm256_and_si256(_mm256_srli_epi16(v[2], 2), top));
    open_steps(c, r, v[0]);
    UNROLL for (int g = 0; g < 8; g++) {
        store_256(c->factor[2 * g][r], pair_of(scale[g / 4], g % 4, g % 4));
        store_256(c->min[g][r], pair_of(min[g / 4], g % 4, g % 4));
    }
}

static void unpack_q4_k(const struct source *s, struct chunk *c)
{
    size_t at = (size_t)(s->block / 8) * 144;
    for (int r = 0; r < BAND_W; r += OCT) {
        const uint8_t *row[OCT];
        rows_of_oct(row, s, r, at);
        scales_q4_k(c, r, row);
        for (int p = 0; p < 8; p++) { /* 16 bytes: 16 columns of each of two groups */
            __m256i v[4], low = _mm256_set1_epi8(15);
            uint8_t(*q)[BAND_W][4] = c->q + p / 2 * 16 + p % 2 * 4;
            fetch_rows(s->b, r + p, 1, at, 144);
            turn_8x16(v, row, 16 + 16 * (size_t)p);
            UNROLL for (int k = 0; k < 4; k++) {
                store_256(q[k][r], _mm256_and_si256(v[k], low));
                store_256(q[8 + k][r], _mm256_and_si256(_mm256_srli_epi16(v[k], 4), low));
            }
        }
    }
}

void cpu_band_q4_k_avx2(const struct band *b)
{
    cpu_band_avx2(b, &(struct band_format){ unpack_q4_k, cpu_add_codes_8 });
}

/* ---- IQ2_XXS ------------------------------------------------------------------------------- */

/* A vector is put together from entries of the codebook, eight columns each: four weight rows side
 * by side, of which two vectors make one of eight rows. */

/* The signs of two groups of columns, (s, s >> 1) of each byte s, and the words they came from. */
struct quad {
    __m256i sign[2], rest;
};

/* Groups 2 p and 2 p + 1; rows 0 1 4 5 of the block, or 2 3 6 7. */
static ALWAYS_INLINE struct quad open_quad(const uint8_t *const *row, int p)
{
    struct quad q;
    __m256i a = two_of(row[0] + 2 + 16 * p, row[4] + 2 + 16 * p);
    __m256i b = two_of(row[1] + 2 + 16 * p, row[5] + 2 + 16 * p);
    q.rest = _mm256_blend_epi32(_mm256_srli_epi64(a, 32), b, 0xaa);
    __m256i sign = iq2_sign_bytes(q.rest), half = _mm256_srli_epi16(sign, 1);
    q.sign[0] = _mm256_unpacklo_epi8(sign, half);
    q.sign[1] = _mm256_unpackhi_epi8(sign, half);
    return q;
}

/* Columns 32 g + 8 e .. of four rows. */
static ALWAYS_INLINE __m256i take_quad(const uint8_t *const *row, __m256i signs, int g, int e)
{
    const __m256i at = _mm256_broadcastsi128_si256(
        _mm_add_epi8(_mm_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 8, 9, 8, 9, 8, 9, 8, 9),
                     _mm_set1_epi8((char)(2 * e))));
    int i = 2 + 8 * g + e;
    __m256i size = iq2_entries(row[0][i], row[1][i], row[4][i], row[5][i]);
    return _mm256_blendv_epi8(size, _mm256_sub_epi8(_mm256_setzero_si256(), size),
                              iq2_sign_tops(_mm256_shuffle_epi8(signs, at)));
}

/* Factors 2 n + 1; n is on top of a word, the bit below its four is a sign. */
static ALWAYS_INLINE void put_factor(struct chunk *c, int r, int g, __m256i rest)
{
    __m256i n = _mm256_or_si256(_mm256_srli_epi32(rest, 27), _mm256_set1_epi32(1));
    store_256(c->factor[2 * g][r], _mm256_or_si256(n, _mm256_slli_epi32(n, 16)));
}

/* Minus 128 times pairs of weights of two or three vectors: two weights still fit a byte. */
static ALWAYS_INLINE __m256i start_of(const __m256i *w, int n)
{
    const __m256i off = _mm256_set1_epi8(-128);
    __m256i sum = _mm256_maddubs_epi16(off, _mm256_add_epi8(w[0], w[1]));
    if (n == 3)
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(off, w[2]));
    return _mm256_sub_epi16(_mm256_setzero_si256(), sum);
}

/* Columns 32 g .. of eight rows, and where their sums of 16 bits begin. */
static ALWAYS_INLINE void put_group(struct chunk *c, int r, int g, const uint8_t *const *row,
                                    __m256i sign_a, __m256i sign_b)
{
    __m256i w[8];
    UNROLL for (int e = 0; e < 4; e++) {
        __m256 a = _mm256_castsi256_ps(take_quad(row, sign_a, g, e));
        __m256 b = _mm256_castsi256_ps(take_quad(row + 2, sign_b, g, e));
        w[2 * e] = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
        w[2 * e + 1] = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
    }
    UNROLL for (int k = 0; k < 8; k++)
        store_256(c->q[8 * g + k][r], w[k]);
    store_256(c->start[3 * g][r], start_of(w, 3));
    store_256(c->start[3 * g + 1][r], start_of(w + 3, 3));
    store_256(c->start[3 * g + 2][r], start_of(w + 6, 2));
}

static void unpack_iq2_xxs(const struct source *s, struct chunk *c)
{
    size_t at = (size_t)(s->block / 8) * 66;
    const uint8_t *row[OCT];
    for (int r = 0; r < BAND_W; r += OCT) {
        rows_of_oct(row, s, r, at);
        fetch_rows(s->b, r, OCT, at, 66);
        __m256 d = f16_low(words_8(row, 0));
        _mm256_store_ps(c->d[0] + r, _mm256_mul_ps(d, _mm256_set1_ps(.125f)));
        for (int p = 0; p < 4; p++) {
            struct quad a = open_quad(row, p), b = open_quad(row + 2, p);
            put_factor(c, r, 2 * p, _mm256_unpacklo_epi64(a.rest, b.rest));
            put_factor(c, r, 2 * p + 1, _mm256_unpackhi_epi64(a.rest, b.rest));
            UNROLL for (int g = 0; g < 2; g++)
                put_group(c, r, 2 * p + g, row, a.sign[g], b.sign[g]);
        }
    }
}

static void band_iq2_xxs(const struct band *b)
{
    cpu_band_avx2(b, &(struct band_format){ unpack_iq2_xxs, cpu_add_signed });
}

static void set_band(struct product_kernel *k, band_fn *band, int from)
{
    k->band = band;
    k->band_x = from;
}

void cpu_band256_avx2(struct cpu_kernels *k)
{
    set_band(&k->product[DT_Q2_K], band_q2_k, 2);
    set_band(&k->product[DT_Q4_K], cpu_band_q4_k_avx2, 3);
    set_band(&k->product[DT_IQ2_XXS], band_iq2_xxs, 3);
}
