/* band32_avx2.c - bands of weights in blocks of 32: Q8_0, MXFP4, the vendor's FP4. */
#include "band_avx2_impl.h"

/* ---- Q8_0 ---------------------------------------------------------------------------------- */

static void unpack_q8_0(const struct source *s, struct chunk *c)
{
    size_t at = (size_t)s->block * 34;
    for (int r = 0; r < BAND_W; r += OCT) {
        const uint8_t *row[OCT];
        rows_of_oct(row, s, r, at);
        for (int g = 0; g < s->n; g++) {
            fetch_rows(s->b, r + g, 1, at, 8 * 34);
            _mm256_store_ps(c->d[g] + r, f16_low(words_8(row, 34 * (size_t)g)));
            UNROLL for (int p = 0; p < 2; p++) {
                __m256i v[4];
                turn_8x16(v, row, 34 * (size_t)g + 2 + 16 * (size_t)p);
                UNROLL for (int k = 0; k < 4; k++) {
                    int to = 16 * g + 4 * p + k;
                    __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(v[k], 8), 8);
                    store_256(c->wide[to][r], even);
                    store_256(c->wide[to + 8][r], _mm256_srai_epi16(v[k], 8));
                }
            }
        }
    }
}

static void band_q8_0(const struct band *b)
{
    cpu_band_avx2(b, &(struct band_format){ unpack_q8_0, cpu_add_wide_32 });
}

/* ---- MXFP4, FP4: numbers are doubled ------------------------------------------------------- */

static ALWAYS_INLINE __m256i e2m1_twice(__m256i code)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(code, _mm256_set1_epi8(15)));
}

/* Columns 32 g .. of eight rows, and where their sums begin. */
static ALWAYS_INLINE void put_block(struct chunk *c, int r, int g, const __m256i w[8])
{
    __m256i sum = _mm256_setzero_si256(); /* eight weights fit a byte */
    UNROLL for (int k = 0; k < 8; k++) {
        store_256(c->q[8 * g + k][r], w[k]);
        sum = _mm256_add_epi8(sum, w[k]);
    }
    sum = _mm256_maddubs_epi16(_mm256_set1_epi8(-128), sum);
    store_256(c->start[g][r], _mm256_sub_epi16(_mm256_setzero_si256(), sum));
}

static void unpack_mxfp4(const struct source *s, struct chunk *c)
{
    size_t at = (size_t)s->block * 17;
    for (int r = 0; r < BAND_W; r += OCT) {
        const uint8_t *row[OCT];
        rows_of_oct(row, s, r, at);
        for (int g = 0; g < s->n; g++) {
            fetch_rows(s->b, r + g, 1, at, 8 * 17);
            __m256i v[4], w[8];
            __m256i e = _mm256_and_si256(words_8(row, 17 * (size_t)g), _mm256_set1_epi32(255));
            _mm256_store_ps(c->d[g] + r, e8m0_half_8(e));
            turn_8x16(v, row, 17 * (size_t)g + 1);
            UNROLL for (int k = 0; k < 4; k++) {
                w[k] = e2m1_twice(v[k]);
                w[4 + k] = e2m1_twice(_mm256_srli_epi16(v[k], 4));
            }
            put_block(c, r, g, w);
        }
    }
}

void cpu_band_mxfp4_avx2(const struct band *b)
{
    cpu_band_avx2(b, &(struct band_format){ unpack_mxfp4, cpu_add_signed_32 });
}

/* Columns alternate between low and high nibbles: four words of eight columns to eight of four. */
static ALWAYS_INLINE void part_nibbles(__m256i w[8], const __m256i v[4])
{
    const __m256i at = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13));
    const __m256i even = _mm256_set1_epi16(0xff);
    UNROLL for (int k = 0; k < 4; k++) {
        __m256i low = _mm256_shuffle_epi8(v[k], at);
        __m256i high = _mm256_shuffle_epi8(_mm256_srli_epi32(v[k], 16), at);
        w[2 * k] = e2m1_twice(_mm256_blendv_epi8(_mm256_srli_epi16(low, 4), low, even));
        w[2 * k + 1] = e2m1_twice(_mm256_blendv_epi8(_mm256_srli_epi16(high, 4), high, even));
    }
}

static void unpack_fp4(const struct source *s, struct chunk *c)
{
    size_t at = (size_t)s->block * 16;
    for (int r = 0; r < BAND_W; r += OCT) {
        const uint8_t *row[OCT];
        rows_of_oct(row, s, r, at);
        for (int g = 0; g < s->n; g++) {
            fetch_rows(s->b, r + g, 1, at, 8 * 16);
            __m256i v[4], w[8];
            int32_t e[OCT];
            UNROLL for (int j = 0; j < OCT; j++)
                e[j] = s->b->scale[r + j][s->block + g];
            _mm256_store_ps(c->d[g] + r, e8m0_half_8(load_256(e)));
            turn_8x16(v, row, 16 * (size_t)g);
            part_nibbles(w, v);
            put_block(c, r, g, w);
        }
    }
}

static void band_fp4(const struct band *b)
{
    cpu_band_avx2(b, &(struct band_format){ unpack_fp4, cpu_add_signed_32 });
}

static void set_band(struct product_kernel *k, band_fn *band, int from)
{
    k->band = band;
    k->band_x = from;
}

void cpu_band32_avx2(struct cpu_kernels *k)
{
    set_band(&k->product[DT_Q8_0], band_q8_0, 6);
    set_band(&k->product[DT_MXFP4], cpu_band_mxfp4_avx2, 3);
    set_band(&k->product[TYPE_SLOT(DT_FP4)], band_fp4, 2);
}
