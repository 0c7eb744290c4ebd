/* band32_avx512.c - bands of weights in blocks of 32: Q8_0, MXFP4, the vendor's FP4. */
#include "avx512_impl.h"

/* Block 2 p of the chunk and the next; beyond the last it is repeated. */
static ALWAYS_INLINE const uint8_t *block_at(const struct source *s, int j, int i, size_t bytes)
{
    return s->b->w[j] + (size_t)(s->block + MIN(i, s->n - 1)) * bytes;
}

static ALWAYS_INLINE __m512i join(__m256i a, __m256i b)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

static ALWAYS_INLINE void open_q8_0(struct source *s, struct chunk *c)
{
    for (int g = 0; g < s->n; g++) {
        uint16_t h[BAND_W];
        for (int j = 0; j < BAND_W; j++)
            memcpy(h + j, block_at(s, j, g, 34), 2);
        f16_steps(c->d[g], h);
    }
}

static ALWAYS_INLINE __m512i part_q8_0(const struct source *s, int j, int p)
{
    __m256i a = _mm256_loadu_si256((const __m256i *)(block_at(s, j, 2 * p, 34) + 2));
    __m256i b = _mm256_loadu_si256((const __m256i *)(block_at(s, j, 2 * p + 1, 34) + 2));
    return _mm512_xor_si512(join(a, b), _mm512_set1_epi8(-128));
}

static void unpack_q8_0(struct source *s, struct chunk *c)
{
    open_q8_0(s, c);
    turn_weights(s, c, part_q8_0, 8 * 34, false);
}

const struct band_format cpu_format_q8_0 = { unpack_q8_0, STEP_32, 128, false };

static void band_q8_0(const struct band *b)
{
    cpu_band_avx512(b, &cpu_format_q8_0);
}

static ALWAYS_INLINE void e8m0_steps(float *d, const uint8_t *e)
{
    for (int half = 0; half < BAND_W; half += 16)
        _mm512_store_ps(d + half,
                        e8m0_half_16(_mm512_cvtepu8_epi32(
                            _mm_loadu_si128((const __m128i *)(e + half)))));
}

static ALWAYS_INLINE void open_mxfp4(struct source *s, struct chunk *c)
{
    for (int g = 0; g < s->n; g++) {
        uint8_t e[BAND_W];
        for (int j = 0; j < BAND_W; j++)
            e[j] = *block_at(s, j, g, 17);
        e8m0_steps(c->d[g], e);
    }
}

static ALWAYS_INLINE __m256i nibbles(const uint8_t *src)
{
    __m128i v = _mm_loadu_si128((const __m128i *)src);
    return _mm256_set_m128i(_mm_srli_epi16(v, 4), v);
}

static ALWAYS_INLINE __m512i part_mxfp4(const struct source *s, int j, int p)
{
    return e2m1_lifted(join(nibbles(block_at(s, j, 2 * p, 17) + 1),
                            nibbles(block_at(s, j, 2 * p + 1, 17) + 1)));
}

static void unpack_mxfp4(struct source *s, struct chunk *c)
{
    open_mxfp4(s, c);
    turn_weights(s, c, part_mxfp4, 8 * 17, false);
}

const struct band_format cpu_format_mxfp4 = { unpack_mxfp4, STEP_32, 12, false };

static void band_mxfp4(const struct band *b)
{
    cpu_band_avx512(b, &cpu_format_mxfp4);
}

static ALWAYS_INLINE void open_fp4(struct source *s, struct chunk *c)
{
    for (int g = 0; g < s->n; g++) {
        uint8_t e[BAND_W];
        for (int j = 0; j < BAND_W; j++)
            e[j] = s->b->scale[j][s->block + g];
        e8m0_steps(c->d[g], e);
    }
}

/* Columns alternate between low and high nibbles. */
static ALWAYS_INLINE __m256i pairs(const uint8_t *src)
{
    __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)src));
    return _mm256_or_si256(v, _mm256_slli_epi16(v, 4));
}

static ALWAYS_INLINE __m512i part_fp4(const struct source *s, int j, int p)
{
    return e2m1_lifted(
        join(pairs(block_at(s, j, 2 * p, 16)), pairs(block_at(s, j, 2 * p + 1, 16))));
}

static void unpack_fp4(struct source *s, struct chunk *c)
{
    open_fp4(s, c);
    turn_weights(s, c, part_fp4, 8 * 16, false);
}

const struct band_format cpu_format_fp4 = { unpack_fp4, STEP_32, 12, false };

static void band_fp4(const struct band *b)
{
    cpu_band_avx512(b, &cpu_format_fp4);
}

static void set_band(struct product_kernel *k, band_fn *band, int from)
{
    k->band = band;
    k->band_x = from;
}

void cpu_band32_avx512(struct cpu_kernels *k)
{
    set_band(&k->product[DT_Q8_0], band_q8_0, 9);
    set_band(&k->product[DT_MXFP4], band_mxfp4, 9);
    set_band(&k->product[TYPE_SLOT(DT_FP4)], band_fp4, 9);
}
