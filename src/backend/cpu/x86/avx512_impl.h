/* avx512_impl.h - what the AVX-512 kernels share: a band is unpacked chunk by chunk, turned so that
 * a lane is a weight row, and multiplied by all activation rows. */
#ifndef DS_AVX512_IMPL_H
#define DS_AVX512_IMPL_H

#include "avx2_impl.h"

#define CHUNK 256 /* columns that are unpacked at a time */
#define LINE __attribute__((aligned(64)))
/* CHUNK columns of BAND_W weight rows: a lane is a weight row. */
struct chunk {
    LINE uint8_t q[CHUNK / 4][BAND_W][4]; /* weights plus the format's offset, unsigned */
    LINE int32_t scale[8][BAND_W];        /* factors of 32 columns */
    LINE int16_t min[8][BAND_W][2];       /* factors of the activations' sums of 16 */
    LINE float d[8][BAND_W];              /* steps of 32 columns, or the first of all */
    LINE float dmin[BAND_W];
};

/* The chunk that is being unpacked. */
struct source {
    const struct band *b;
    int block, n;                       /* first block of 32, and how many, 1 to 8 */
    LINE int32_t side[BAND_W][16];      /* a row's 8 factors and 8 pairs of minima */
    LINE uint32_t part[BAND_W][16];     /* the type's own */
    LINE uint64_t grid[BAND_W][32];
};

/* Columns 64 p .. 64 p + 63 of row j, with the offset added. */
typedef __m512i part_fn(const struct source *s, int j, int p);

enum scaling {
    STEP_32,  /* a float step for every 32 columns */
    SCALE_32, /* an integer factor for every 32, a step for the chunk */
    STEP_256, /* a step for the chunk */
};

struct band_format {
    void (*unpack)(struct source *s, struct chunk *c);
    enum scaling scaling;
    int offset;
    bool has_min;
};

extern const struct band_format cpu_format_q2_k, cpu_format_q4_k, cpu_format_iq2_xxs,
    cpu_format_q8_0, cpu_format_mxfp4, cpu_format_fp4;

void cpu_band_avx512(const struct band *b, const struct band_format *f);

static ALWAYS_INLINE __m512i load_512(const void *p)
{
    return _mm512_loadu_si512(p);
}

/* r[i] lane k to r[k] lane i. */
static ALWAYS_INLINE void turn_16(__m512i *r)
{
    __m512i a[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    UNROLL for (int m = 0; m < 4; m++) {
        a[m] = _mm512_shuffle_i32x4(r[m], r[4 + m], 0x88);
        a[4 + m] = _mm512_shuffle_i32x4(r[m], r[4 + m], 0xdd);
        a[8 + m] = _mm512_shuffle_i32x4(r[8 + m], r[12 + m], 0x88);
        a[12 + m] = _mm512_shuffle_i32x4(r[8 + m], r[12 + m], 0xdd);
    }
    UNROLL for (int m = 0; m < 4; m++) {
        r[m] = _mm512_shuffle_i32x4(a[m], a[8 + m], 0x88);
        r[8 + m] = _mm512_shuffle_i32x4(a[m], a[8 + m], 0xdd);
        r[4 + m] = _mm512_shuffle_i32x4(a[4 + m], a[12 + m], 0x88);
        r[12 + m] = _mm512_shuffle_i32x4(a[4 + m], a[12 + m], 0xdd);
    }
}

/* bytes: of 256 columns. by_16: part p is columns 16 p .. of every 64 instead. */
static ALWAYS_INLINE void turn_weights(const struct source *s, struct chunk *c, part_fn *part,
                                       size_t bytes, bool by_16)
{
    for (int p = 0; p < (s->n + 1) / 2; p++)
        for (int half = 0; half < BAND_W; half += 16) {
            __m512i r[16];
            fetch_rows(s->b, half + 4 * p, 4, (size_t)(s->block / 8) * bytes, bytes);
            UNROLL for (int j = 0; j < 16; j++)
                r[j] = part(s, half + j, p);
            turn_16(r);
            UNROLL for (int k = 0; k < 16; k++)
                _mm512_store_si512(c->q[by_16 ? k / 4 * 16 + 4 * p + k % 4 : 16 * p + k] + half,
                                   r[k]);
        }
}

/* Factors and minima of the rows to their places. */
static ALWAYS_INLINE void turn_side(const struct source *s, struct chunk *c)
{
    for (int half = 0; half < BAND_W; half += 16) {
        __m512i r[16];
        UNROLL for (int j = 0; j < 16; j++)
            r[j] = load_512(s->side[half + j]);
        turn_16(r);
        UNROLL for (int g = 0; g < 8; g++) {
            _mm512_store_si512(c->scale[g] + half, r[g]);
            _mm512_store_si512(c->min[g][half], r[8 + g]);
        }
    }
}

static ALWAYS_INLINE void f16_steps(float *d, const uint16_t *h)
{
    for (int half = 0; half < BAND_W; half += 16)
        _mm512_store_ps(d + half, _mm512_cvtph_ps(_mm256_loadu_si256(
                                      (const __m256i *)(h + half))));
}

/* As e8m0_half_8(). */
static ALWAYS_INLINE __m512 e8m0_half_16(__m512i v)
{
    __m512i bits = _mm512_slli_epi32(v, 23);
    __mmask16 least = _mm512_cmpeq_epi32_mask(v, _mm512_setzero_si512());
    __mmask16 nan = _mm512_cmpeq_epi32_mask(v, _mm512_set1_epi32(255));
    bits = _mm512_mask_mov_epi32(bits, least, _mm512_set1_epi32(0x400000));
    bits = _mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7fc00000));
    return _mm512_mul_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(.5f));
}

/* Codes of FP4 in the low nibbles to twice the number, plus 12. */
static ALWAYS_INLINE __m512i e2m1_lifted(__m512i code)
{
    const __m512i table = _mm512_broadcast_i32x4(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return _mm512_shuffle_epi8(table, _mm512_and_si512(code, _mm512_set1_epi8(15)));
}

void cpu_band32_avx512(struct cpu_kernels *k);
void cpu_band256_avx512(struct cpu_kernels *k);

#endif
