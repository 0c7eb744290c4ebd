/* band256_avx512.c - bands of weights in blocks of 256: Q2_K, Q4_K, IQ2_XXS. */
#include "few_impl.h"
#include "iq2_impl.h"

static ALWAYS_INLINE const uint8_t *block_at(const struct source *s, int j, size_t bytes)
{
    return s->b->w[j] + (size_t)(s->block / 8) * bytes;
}

/* The f16 that lies `at` bytes into every row's block. */
static ALWAYS_INLINE void open_steps(const struct source *s, float *d, size_t bytes, size_t at)
{
    uint16_t h[BAND_W];
    for (int j = 0; j < BAND_W; j++)
        memcpy(h + j, block_at(s, j, bytes) + at, 2);
    f16_steps(d, h);
}

/* ---- Q2_K: scales of 16 columns, at most 15, times weights of at most 3 fit a byte --------- */

/* Of every scale, its products with 0, 1, 2, 3; and the minima. */
static ALWAYS_INLINE void open_q2_k(struct source *s, struct chunk *c)
{
    for (int j = 0; j < BAND_W; j++) {
        __m128i packed = _mm_loadu_si128((const __m128i *)block_at(s, j, 84));
        __m128i scale = _mm_and_si128(packed, _mm_set1_epi8(15));
        __m128i min = _mm_and_si128(_mm_srli_epi16(packed, 4), _mm_set1_epi8(15));
        __m512i products = _mm512_mullo_epi32(_mm512_cvtepu8_epi32(scale),
                                              _mm512_set1_epi32(0x03020100));
        _mm512_store_si512(s->part[j], products);
        _mm256_store_si256((__m256i *)s->side[j], _mm256_setzero_si256());
        _mm256_store_si256((__m256i *)(s->side[j] + 8), _mm256_cvtepu8_epi16(min));
    }
    turn_side(s, c);
    open_steps(s, c->d[0], 84, 80);
    open_steps(s, c->dmin, 84, 82);
}

static ALWAYS_INLINE __m512i part_q2_k(const struct source *s, int j, int p)
{
    const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const uint8_t *src = block_at(s, j, 84) + 16 + p / 2 * 32;
    __m256i v = _mm256_loadu_si256((const __m256i *)src);
    v = _mm256_srl_epi16(v, _mm_cvtsi32_si128(p % 2 * 4));
    __m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(v), _mm256_srli_epi16(v, 2), 1);
    q = _mm512_and_si512(q, _mm512_set1_epi8(3));
    __m512i products = _mm512_permutexvar_epi32(
        _mm512_add_epi32(first, _mm512_set1_epi32(4 * p)), _mm512_load_si512(s->part[j]));
    return _mm512_shuffle_epi8(products, q);
}

static void unpack_q2_k(struct source *s, struct chunk *c)
{
    open_q2_k(s, c);
    turn_weights(s, c, part_q2_k, 84, false);
}

const struct band_format cpu_format_q2_k = { unpack_q2_k, STEP_256, 0, true };

static void band_q2_k(const struct band *b)
{
    cpu_band_avx512(b, &cpu_format_q2_k);
}

/* ---- Q4_K ---------------------------------------------------------------------------------- */

/* Eight pairs of six bits in twelve bytes. */
static ALWAYS_INLINE void open_q4_k(struct source *s, struct chunk *c)
{
    for (int j = 0; j < BAND_W; j++) {
        uint32_t u[3];
        memcpy(u, block_at(s, j, 144) + 4, 12);
        uint32_t scale_hi = (u[2] & 0x0f0f0f0f) | (u[0] >> 6 & 0x03030303) << 4;
        uint32_t min_hi = (u[2] >> 4 & 0x0f0f0f0f) | (u[1] >> 6 & 0x03030303) << 4;
        __m128i scale = _mm_setr_epi32((int)(u[0] & 0x3f3f3f3f), (int)scale_hi, 0, 0);
        __m128i min = _mm_setr_epi32((int)(u[1] & 0x3f3f3f3f), (int)min_hi, 0, 0);
        _mm256_store_si256((__m256i *)s->side[j], _mm256_cvtepu8_epi32(scale));
        _mm256_store_si256((__m256i *)(s->side[j] + 8),
                           _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(min, min)));
    }
    turn_side(s, c);
    open_steps(s, c->d[0], 144, 0);
    open_steps(s, c->dmin, 144, 2);
}

static ALWAYS_INLINE __m512i part_q4_k(const struct source *s, int j, int p)
{
    const uint8_t *src = block_at(s, j, 144) + 16 + 32 * p;
    __m256i v = _mm256_loadu_si256((const __m256i *)src);
    __m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(v), _mm256_srli_epi16(v, 4), 1);
    return _mm512_and_si512(q, _mm512_set1_epi8(15));
}

static void unpack_q4_k(struct source *s, struct chunk *c)
{
    open_q4_k(s, c);
    turn_weights(s, c, part_q4_k, 144, false);
}

const struct band_format cpu_format_q4_k = { unpack_q4_k, SCALE_32, 0, true };

static void band_q4_k(const struct band *b)
{
    cpu_band_avx512(b, &cpu_format_q4_k);
}

/* ---- IQ2_XXS ------------------------------------------------------------------------------- */

/* Part p of a row has columns 16 p to 16 p + 15 of every 64. */
static ALWAYS_INLINE void open_iq2_xxs(struct source *s, struct chunk *c)
{
    for (int j = 0; j < BAND_W; j++) {
        __m512i words = load_512(block_at(s, j, 66) + 2), w[4];
        __m256i n = _mm512_cvtepi64_epi32(_mm512_srli_epi64(words, 59));
        /* 2 n + 1; the bit below the four of n is a sign. */
        _mm256_store_si256((__m256i *)s->side[j], _mm256_or_si256(n, _mm256_set1_epi32(1)));
        unpack_iq2_xxs(w, words);
        UNROLL for (int h = 0; h < 2; h++) {
            __m512i a = h ? _mm512_unpackhi_epi8(w[0], w[1]) : _mm512_unpacklo_epi8(w[0], w[1]);
            __m512i b = h ? _mm512_unpackhi_epi8(w[2], w[3]) : _mm512_unpacklo_epi8(w[2], w[3]);
            _mm512_store_si512(s->grid[j] + 16 * h, _mm512_unpacklo_epi16(a, b));
            _mm512_store_si512(s->grid[j] + 16 * h + 8, _mm512_unpackhi_epi16(a, b));
        }
    }
    turn_side(s, c);
    open_steps(s, c->d[0], 66, 0);
    for (int half = 0; half < BAND_W; half += 16)
        _mm512_store_ps(c->d[0] + half, _mm512_mul_ps(_mm512_load_ps(c->d[0] + half),
                                                      _mm512_set1_ps(.125f)));
}

static ALWAYS_INLINE __m512i part_iq2_xxs(const struct source *s, int j, int p)
{
    return _mm512_load_si512(s->grid[j] + 8 * p);
}

static void turn_iq2_xxs(struct source *s, struct chunk *c)
{
    open_iq2_xxs(s, c);
    turn_weights(s, c, part_iq2_xxs, 66, true);
}

const struct band_format cpu_format_iq2_xxs = { turn_iq2_xxs, SCALE_32, 43, false };

static void band_iq2_xxs(const struct band *b)
{
    cpu_band_avx512(b, &cpu_format_iq2_xxs);
}

static void set_band(struct product_kernel *k, band_fn *band, int from)
{
    k->band = band;
    k->band_x = from;
}

void cpu_band256_avx512(struct cpu_kernels *k)
{
    set_band(&k->product[DT_Q2_K], band_q2_k, 9);
    set_band(&k->product[DT_Q4_K], band_q4_k, 9);
    set_band(&k->product[DT_IQ2_XXS], band_iq2_xxs, 9);
}

void cpu_kernels_avx512(struct cpu_kernels *k)
{
    cpu_band32_avx512(k);
    cpu_band256_avx512(k);
    cpu_few32_avx512(k);
    cpu_few256_avx512(k);
}
