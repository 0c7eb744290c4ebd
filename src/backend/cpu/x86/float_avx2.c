/* float_avx2.c - kernels on float32 activations: products with float weights of any width, the
 * sums of attention, exponentials, unpacking.
 *
 * Weights are widened exactly and multiplied in float32, so unpacking first gives the same bits. */
#include "avx2_impl.h"

#include "fp8.h"
#include "kv_row.h"

#include <math.h>

/* ---- widening: elements e .. e+15 of a row ------------------------------------------------ */

struct sixteen {
    __m256 lo, hi;
};

typedef void load_fn(struct sixteen *to, const uint8_t *row, int e, __m256 scale);

static ALWAYS_INLINE void load_f32(struct sixteen *to, const uint8_t *row, int e,
                                   __m256 scale)
{
    const float *p = (const float *)(row + (size_t)e * 4);
    (void)scale;
    *to = (struct sixteen){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}

static ALWAYS_INLINE void load_f16(struct sixteen *to, const uint8_t *row, int e,
                                   __m256 scale)
{
    const __m128i *p = (const __m128i *)(row + (size_t)e * 2);
    (void)scale;
    *to = (struct sixteen){ _mm256_cvtph_ps(_mm_loadu_si128(p)),
                            _mm256_cvtph_ps(_mm_loadu_si128(p + 1)) };
}

static ALWAYS_INLINE __m256 widen_bf16(const __m128i *p)
{
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

static ALWAYS_INLINE void load_bf16(struct sixteen *to, const uint8_t *row, int e,
                                    __m256 scale)
{
    const __m128i *p = (const __m128i *)(row + (size_t)e * 2);
    (void)scale;
    *to = (struct sixteen){ widen_bf16(p), widen_bf16(p + 1) };
}

/* Read as f16, whose exponent has one bit more, E4M3 is 2^-8 of itself; only NaN differs. */
static ALWAYS_INLINE void load_e4m3(struct sixteen *to, const uint8_t *row, int e,
                                    __m256 scale)
{
    const __m256i largest = _mm256_set1_epi16(0x3f80);
    __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(row + e)));
    __m256i shifted = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 1); /* the sign, twice */
    __m256i h = _mm256_and_si256(shifted, _mm256_set1_epi16((short)0xbf80));
    __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(shifted, largest), largest);
    h = _mm256_or_si256(h, _mm256_and_si256(nan, _mm256_set1_epi16(0x7e00)));
    const __m256 up = _mm256_set1_ps(256);
    __m256 lo = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(h)), up);
    __m256 hi = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)), up);
    *to = (struct sixteen){ _mm256_mul_ps(lo, scale), _mm256_mul_ps(hi, scale) };
}

/* ---- products ----------------------------------------------------------------------------- */

/* The last n < 16 elements from e on, padded with zeros, which add nothing. */
static void load_tail(enum dtype type, const struct tile *t, int j, int e, float *w)
{
    int n = t->k - e;
    size_t at = dtype_bytes(type, (size_t)e);
    memset(w, 0, 16 * sizeof *w);
    quant_decode(type, t->w[j] + at, t->scale[j] ? t->scale[j] + e / 128 : NULL, w, n);
}

static void add_tail(enum dtype type, const struct tile *t, const float *x, int e,
                     struct sixteen *acc)
{
    float w[16], v[16] = { 0 };
    memcpy(v, x + e, (size_t)(t->k - e) * sizeof *v);
    for (int j = 0; j < TILE_W; j++) {
        load_tail(type, t, j, e, w);
        acc[j].lo = _mm256_fmadd_ps(_mm256_loadu_ps(w), _mm256_loadu_ps(v), acc[j].lo);
        acc[j].hi = _mm256_fmadd_ps(_mm256_loadu_ps(w + 8), _mm256_loadu_ps(v + 8), acc[j].hi);
    }
}

struct format {
    enum dtype type;
    int bytes; /* of an element */
    load_fn *load;
};

/* Columns from..to-1, a whole number of sixteens that share a scale. */
static ALWAYS_INLINE void add_columns(const struct tile *t, int i, int from, int to,
                                      struct format f, struct sixteen *acc)
{
    const float *x = t->x[i];
    __m256 scale[TILE_W];
    UNROLL for (int j = 0; j < TILE_W; j++)
        scale[j] = _mm256_set1_ps(t->scale[j] ? e8m0_to_f32(t->scale[j][from / 128]) : 1);
    for (int e = from; e < to; e += 16) {
        __m256 x0 = _mm256_loadu_ps(x + e), x1 = _mm256_loadu_ps(x + e + 8);
        UNROLL for (int j = 0; j < TILE_W; j++) {
            struct sixteen w;
            f.load(&w, t->w[j], e, scale[j]);
            acc[j].lo = _mm256_fmadd_ps(w.lo, x0, acc[j].lo);
            acc[j].hi = _mm256_fmadd_ps(w.hi, x1, acc[j].hi);
            if (e % (64 / f.bytes) == 0)
                fetch_ahead(t, j, (size_t)(e * f.bytes));
        }
    }
}

static ALWAYS_INLINE void put_sums(const struct tile *t, int i, const struct sixteen *acc)
{
    __m128 sum = sum_4x4(fold_16(acc[0].lo, acc[0].hi), fold_16(acc[1].lo, acc[1].hi),
                         fold_16(acc[2].lo, acc[2].hi), fold_16(acc[3].lo, acc[3].hi));
    put_4(t->out[i] + t->at, sum, t->n_w);
}

static ALWAYS_INLINE void tile_float(const struct tile *t, struct format f)
{
    int whole = t->k / 16 * 16, step = f.type == DT_F8_E4M3 ? 128 : whole;
    for (int i = 0; i < t->n_x; i++) {
        struct sixteen acc[TILE_W];
        UNROLL for (int j = 0; j < TILE_W; j++)
            acc[j].lo = acc[j].hi = _mm256_setzero_ps();
        for (int e = 0; e < whole; e += step)
            add_columns(t, i, e, MIN(whole, e + step), f, acc);
        if (whole < t->k)
            add_tail(f.type, t, t->x[i], whole, acc);
        put_sums(t, i, acc);
    }
}

/* ---- many activation rows ----------------------------------------------------------------- */

#define FEW_X 4     /* activation rows up to which one at a time is as fast */
#define AT_ONCE 3   /* activation rows whose sums with four weight rows fill the registers */
#define PART 512    /* columns of four weight rows that stay in the first cache */

/* Eight of the sixteen lanes: rows i .. i+n_x-1, every other eight columns from .. to-1. */
static ALWAYS_INLINE void add_half(const struct tile *t, int i, int n_x, int from, int to,
                                   __m256 sum[][TILE_W])
{
    __m256 acc[AT_ONCE][TILE_W];
    UNROLL for (int a = 0; a < n_x; a++)
        UNROLL for (int j = 0; j < TILE_W; j++)
            acc[a][j] = sum[i + a][j];
    for (int e = from; e < to; e += 16) {
        __m256 x[AT_ONCE];
        UNROLL for (int a = 0; a < n_x; a++)
            x[a] = _mm256_loadu_ps((const float *)t->x[i + a] + e);
        UNROLL for (int j = 0; j < TILE_W; j++) {
            __m256 w = _mm256_loadu_ps((const float *)t->w[j] + e);
            UNROLL for (int a = 0; a < n_x; a++)
                acc[a][j] = _mm256_fmadd_ps(w, x[a], acc[a][j]);
        }
    }
    UNROLL for (int a = 0; a < n_x; a++)
        UNROLL for (int j = 0; j < TILE_W; j++)
            sum[i + a][j] = acc[a][j];
}

/* Sums of the lower lanes and of the upper ones of all activation rows. */
struct many_sums {
    __m256 lo[TILE_X][TILE_W], hi[TILE_X][TILE_W];
};

static ALWAYS_INLINE void add_rows(const struct tile *t, int i, int n_x, int from, int to,
                                   struct many_sums *sum)
{
    add_half(t, i, n_x, from, to, sum->lo);
    add_half(t, i, n_x, from + 8, to, sum->hi);
}

static void add_part(const struct tile *t, int from, int to, struct many_sums *sum)
{
    int i = 0;
    for (; i + AT_ONCE <= t->n_x; i += AT_ONCE)
        add_rows(t, i, AT_ONCE, from, to, sum);
    if (t->n_x - i == 2)
        add_rows(t, i, 2, from, to, sum);
    else if (t->n_x - i == 1)
        add_rows(t, i, 1, from, to, sum);
}

/* Columns in parts, which stay in the cache while all activation rows pass. */
static void tile_f32_many(const struct tile *t)
{
    struct many_sums sum;
    int whole = t->k / 16 * 16;
    memset(sum.lo, 0, (size_t)t->n_x * sizeof *sum.lo);
    memset(sum.hi, 0, (size_t)t->n_x * sizeof *sum.hi);
    for (int e = 0; e < whole; e += PART)
        add_part(t, e, MIN(whole, e + PART), &sum);
    for (int i = 0; i < t->n_x; i++) {
        struct sixteen acc[TILE_W];
        UNROLL for (int j = 0; j < TILE_W; j++)
            acc[j] = (struct sixteen){ sum.lo[i][j], sum.hi[i][j] };
        if (whole < t->k)
            add_tail(DT_F32, t, t->x[i], whole, acc);
        put_sums(t, i, acc);
    }
}

static void tile_f32(const struct tile *t)
{
    if (t->n_x > FEW_X)
        tile_f32_many(t);
    else
        tile_float(t, (struct format){ DT_F32, 4, load_f32 });
}

static void tile_f16(const struct tile *t)
{
    tile_float(t, (struct format){ DT_F16, 2, load_f16 });
}

static void tile_bf16(const struct tile *t)
{
    tile_float(t, (struct format){ DT_BF16, 2, load_bf16 });
}

static void tile_f8_e4m3(const struct tile *t)
{
    tile_float(t, (struct format){ DT_F8_E4M3, 1, load_e4m3 });
}

/* ---- unpacking ---------------------------------------------------------------------------- */

static ALWAYS_INLINE void decode_with(enum dtype type, load_fn *load, const uint8_t *src,
                                      const uint8_t *scale, float *dst, int n)
{
    int whole = n / 16 * 16;
    for (int e = 0; e < whole; e += 16) {
        struct sixteen v;
        load(&v, src, e, _mm256_set1_ps(scale ? e8m0_to_f32(scale[e / 128]) : 1));
        _mm256_storeu_ps(dst + e, v.lo);
        _mm256_storeu_ps(dst + e + 8, v.hi);
    }
    if (whole < n)
        quant_decode(type, src + dtype_bytes(type, (size_t)whole),
                     scale ? scale + whole / 128 : NULL, dst + whole, n - whole);
}

static void decode_q8_0(const uint8_t *src, float *dst, int n)
{
    for (int i = 0; i < n; i += 32, src += 34) {
        __m256 d = _mm256_set1_ps(f16_at(src));
        for (int e = 0; e < 32; e += 8) {
            __m128i q = _mm_loadl_epi64((const __m128i *)(src + 2 + e));
            __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
            _mm256_storeu_ps(dst + i + e, _mm256_mul_ps(x, d));
        }
    }
}

static void decode(enum dtype type, const void *src, const uint8_t *scale, float *dst, int n)
{
    switch (type) {
    case DT_F16: decode_with(type, load_f16, src, scale, dst, n); return;
    case DT_BF16: decode_with(type, load_bf16, src, scale, dst, n); return;
    case DT_F8_E4M3: decode_with(type, load_e4m3, src, scale, dst, n); return;
    case DT_Q8_0: decode_q8_0(src, dst, n); return;
    default: quant_decode(type, src, scale, dst, n);
    }
}

static void kv_unpack(const uint8_t *row, int head_dim, int rope_dim, float *x)
{
    int nope = head_dim - rope_dim;
    const uint8_t *rotary = row + nope, *scale = rotary + 2 * rope_dim;
    if (nope % 16 || rope_dim % 16) {
        kv_row_unpack(row, head_dim, rope_dim, x);
        return;
    }
    for (int e = 0; e < nope; e += 16) {
        struct sixteen v;
        load_e4m3(&v, row, e, _mm256_set1_ps(e8m0_to_f32(scale[e / 64])));
        _mm256_storeu_ps(x + e, v.lo);
        _mm256_storeu_ps(x + e + 8, v.hi);
    }
    for (int e = 0; e < rope_dim; e += 16) {
        struct sixteen v;
        load_bf16(&v, rotary, e, _mm256_setzero_ps());
        _mm256_storeu_ps(x + nope + e, v.lo);
        _mm256_storeu_ps(x + nope + e + 8, v.hi);
    }
}

/* A group of 32: twice the E2M1 numbers, times half the scale. */
static void index_unpack(const uint8_t *row, int dim, float *x)
{
    const __m128i table =
        _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    const __m128i low = _mm_set1_epi8(15);
    for (int e = 0; e < dim; e += 16) {
        __m256 s = _mm256_set1_ps(e8m0_to_f32(row[dim / 2 + e / 32]) * .5f);
        __m128i v = _mm_loadl_epi64((const __m128i *)(row + e / 2));
        v = _mm_unpacklo_epi8(_mm_and_si128(v, low), _mm_and_si128(_mm_srli_epi16(v, 4), low));
        __m128i nonzero = _mm_shuffle_epi8(table, v);
        __m256 lo = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(nonzero));
        __m256 hi = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(nonzero, 8)));
        _mm256_storeu_ps(x + e, _mm256_mul_ps(lo, s));
        _mm256_storeu_ps(x + e + 8, _mm256_mul_ps(hi, s));
    }
}

/* ---- sums of rows ------------------------------------------------------------------------- */

/* n_v vectors of eight from column e on, of n_o outputs from i on: constants, so that the sums stay
 * in registers. */
static ALWAYS_INLINE void blend_block(const struct blend *b, int i, int e, int n_o, int n_v)
{
    float *out = b->out + (size_t)i * b->out_pitch + e;
    const float *p = b->p + (size_t)i * b->p_pitch;
    __m256 acc[2][8];
    UNROLL for (int o = 0; o < n_o; o++)
        UNROLL for (int v = 0; v < n_v; v++)
            acc[o][v] = _mm256_loadu_ps(out + (size_t)o * b->out_pitch + 8 * v);
    for (int j = 0; j < b->n_row; j++) {
        const float *row = b->row + (size_t)j * b->row_pitch + e;
        UNROLL for (int v = 0; v < n_v; v++) {
            __m256 x = _mm256_loadu_ps(row + 8 * v);
            UNROLL for (int o = 0; o < n_o; o++) {
                __m256 s = _mm256_broadcast_ss(p + (size_t)o * b->p_pitch + j);
                acc[o][v] = _mm256_fmadd_ps(s, x, acc[o][v]);
            }
        }
    }
    UNROLL for (int o = 0; o < n_o; o++)
        UNROLL for (int v = 0; v < n_v; v++)
            _mm256_storeu_ps(out + (size_t)o * b->out_pitch + 8 * v, acc[o][v]);
}

static float blend_one(const struct blend *b, int i, int e)
{
    float sum = b->out[(size_t)i * b->out_pitch + e];
    for (int j = 0; j < b->n_row; j++)
        sum = fmaf(b->p[(size_t)i * b->p_pitch + j], b->row[(size_t)j * b->row_pitch + e], sum);
    return sum;
}

static void blend(const struct blend *b)
{
    int e = 0, i;
    for (; e + 32 <= b->dim; e += 32) {
        for (i = 0; i + 2 <= b->n_out; i += 2)
            blend_block(b, i, e, 2, 4);
        if (i < b->n_out)
            blend_block(b, i, e, 1, 4);
    }
    for (; e + 8 <= b->dim; e += 8)
        for (i = 0; i < b->n_out; i++)
            blend_block(b, i, e, 1, 1);
    for (; e < b->dim; e++)
        for (i = 0; i < b->n_out; i++)
            b->out[(size_t)i * b->out_pitch + e] = blend_one(b, i, e);
}

/* Eight rows of eight; missing rows are zero. */
static ALWAYS_INLINE void transpose_8(float *out, const float *in, int n, size_t cols)
{
    __m256 r[8], s[8];
    UNROLL for (int i = 0; i < 8; i++)
        r[i] = i < n ? _mm256_loadu_ps(in + (size_t)i * cols) : _mm256_setzero_ps();
    UNROLL for (int i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i * KEY_TILE, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(out + (i + 4) * KEY_TILE, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

static void transpose(float *out, const float *in, int n, int cols)
{
    int c = 0;
    for (; c + 8 <= cols; c += 8)
        for (int r = 0; r < KEY_TILE; r += 8) {
            const float *from = in + (size_t)r * (size_t)cols + c;
            if (n - r >= 8)
                transpose_8(out + c * KEY_TILE + r, from, 8, (size_t)cols);
            else
                transpose_8(out + c * KEY_TILE + r, from, n - r, (size_t)cols);
        }
    for (; c < cols; c++)
        for (int r = 0; r < KEY_TILE; r++)
            out[c * KEY_TILE + r] = r < n ? in[(size_t)r * (size_t)cols + c] : 0;
}

static double sum_squares(const float *x, int n)
{
    __m256d lane[4];
    UNROLL for (int v = 0; v < 4; v++)
        lane[v] = _mm256_setzero_pd();
    for (int i = 0; i < n; i += 16) {
        float part[16] = { 0 };
        const float *at = x + i;
        if (n - i < 16)
            at = memcpy(part, at, (size_t)(n - i) * sizeof *part);
        UNROLL for (int v = 0; v < 4; v++) {
            __m256d d = _mm256_cvtps_pd(_mm_loadu_ps(at + 4 * v));
            lane[v] = _mm256_fmadd_pd(d, d, lane[v]); /* the product is exact */
        }
    }
    __m256d sum = _mm256_add_pd(_mm256_add_pd(lane[0], lane[2]), _mm256_add_pd(lane[1], lane[3]));
    double s[4];
    _mm256_storeu_pd(s, sum);
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* ---- exponentials ------------------------------------------------------------------------- */

/* e^x = 2^n e^r with |r| <= ln 2 / 2; seven terms of the series leave less than half a bit.
 * Results below the normal range become zero; NaN passes through every step. */
static ALWAYS_INLINE __m256 exp_8(__m256 x)
{
    __m256 tiny = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_LT_OQ);
    x = _mm256_max_ps(_mm256_set1_ps(-87.3f), _mm256_min_ps(_mm256_set1_ps(89), x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), x); /* 15 bits: n of it exact */
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
    __m256 p = _mm256_set1_ps(1 / 5040.f);
    static const float factor[] = { 1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, .5f, 1, 1 };
    UNROLL for (int i = 0; i < 7; i++)
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(factor[i]));
    __m256i scale = _mm256_slli_epi32(
        _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(tiny, _mm256_mul_ps(p, _mm256_castsi256_ps(scale)));
}

static float exp_sum(float *x, int n, float max)
{
    __m256 lo = _mm256_setzero_ps(), hi = lo, m = _mm256_set1_ps(max);
    for (int i = 0; i < n; i += 16) {
        float part[16], *at = x + i;
        int len = MIN(16, n - i);
        if (len < 16) {
            for (int j = 0; j < 16; j++)
                part[j] = j < len ? at[j] : -INFINITY;
            at = part;
        }
        __m256 a = exp_8(_mm256_sub_ps(_mm256_loadu_ps(at), m));
        __m256 b = exp_8(_mm256_sub_ps(_mm256_loadu_ps(at + 8), m));
        _mm256_storeu_ps(at, a);
        _mm256_storeu_ps(at + 8, b);
        if (len < 16)
            memcpy(x + i, part, (size_t)len * sizeof *x);
        lo = _mm256_add_ps(lo, a);
        hi = _mm256_add_ps(hi, b);
    }
    __m128 s = fold_16(lo, hi);
    return _mm_cvtss_f32(sum_4x4(s, s, s, s));
}

static void scale_row(float *out, const float *x, const float *weight, float scale, int n)
{
    __m256 s = _mm256_set1_ps(scale);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), s);
        if (weight)
            v = _mm256_mul_ps(v, _mm256_loadu_ps(weight + i));
        _mm256_storeu_ps(out + i, v);
    }
    for (; i < n; i++)
        out[i] = x[i] * scale * (weight ? weight[i] : 1);
}

static ALWAYS_INLINE __m256 swiglu_8(__m256 gate, __m256 up, __m256 clamp)
{
    const __m256 minus = _mm256_set1_ps(-0.f);
    __m256 a = _mm256_min_ps(clamp, gate);
    __m256 b = _mm256_max_ps(_mm256_xor_ps(clamp, minus), _mm256_min_ps(clamp, up));
    __m256 e = _mm256_add_ps(_mm256_set1_ps(1), exp_8(_mm256_xor_ps(a, minus)));
    return _mm256_mul_ps(_mm256_div_ps(a, e), b);
}

static void swiglu(float *out, const float *gate, const float *up, int n, float clamp,
                   float weight)
{
    __m256 c = _mm256_set1_ps(clamp), w = _mm256_set1_ps(weight);
    for (int i = 0; i < n; i += 8) {
        float g[8] = { 0 }, u[8] = { 0 };
        int len = MIN(8, n - i);
        const float *a = gate + i, *b = up + i;
        if (len < 8) {
            a = memcpy(g, a, (size_t)len * sizeof *g);
            b = memcpy(u, b, (size_t)len * sizeof *u);
        }
        __m256 y = _mm256_mul_ps(swiglu_8(_mm256_loadu_ps(a), _mm256_loadu_ps(b), c), w);
        if (len == 8) {
            _mm256_storeu_ps(out + i, y);
        } else {
            _mm256_storeu_ps(g, y);
            memcpy(out + i, g, (size_t)len * sizeof *g);
        }
    }
}

void cpu_kernels_avx2(struct cpu_kernels *k)
{
    cpu_pack_avx2(k);
    cpu_q32_avx2(k);
    cpu_q256_avx2(k);
    cpu_band32_avx2(k);
    cpu_band256_avx2(k);
    cpu_index_avx2(k);
    k->product[DT_F32].tile = tile_f32;
    k->product[DT_F16].tile = tile_f16;
    k->product[DT_BF16].tile = tile_bf16;
    k->product[TYPE_SLOT(DT_F8_E4M3)].tile = tile_f8_e4m3;
    k->decode = decode;
    k->kv_unpack = kv_unpack;
    k->index_unpack = index_unpack;
    k->blend = blend;
    k->transpose = transpose;
    k->sum_squares = sum_squares;
    k->exp_sum = exp_sum;
    k->scale_row = scale_row;
    k->swiglu = swiglu;
}
