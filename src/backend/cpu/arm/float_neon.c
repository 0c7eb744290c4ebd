/* float_neon.c - float32 arithmetic: products with F32, F16 and BF16, norms, sums of rows,
 * exponentials.
 *
 * Weights are widened exactly and multiplied in float32, so unpacking first gives the same bits. */
#include "neon_impl.h"

#include <math.h>

/* ---- products ----------------------------------------------------------------------------- */

/* Sixteen lanes of struct tile. */
struct sixteen {
    float32x4_t v[4];
};

/* Elements e .. e+15 of a row. */
typedef void load_fn(struct sixteen *to, const uint8_t *row, int e);

struct format {
    enum dtype type;
    int bytes; /* of an element */
    load_fn *load;
};

static ALWAYS_INLINE void load_f32(struct sixteen *to, const uint8_t *row, int e)
{
    UNROLL for (int i = 0; i < 4; i++)
        to->v[i] = vreinterpretq_f32_u8(vld1q_u8(row + (size_t)e * 4 + 16 * i));
}

static ALWAYS_INLINE void load_f16(struct sixteen *to, const uint8_t *row, int e)
{
    UNROLL for (int i = 0; i < 4; i++)
        to->v[i] = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(row + (size_t)e * 2 + 8 * i)));
}

static ALWAYS_INLINE void load_bf16(struct sixteen *to, const uint8_t *row, int e)
{
    UNROLL for (int i = 0; i < 4; i++) {
        uint16x4_t v = vreinterpret_u16_u8(vld1_u8(row + (size_t)e * 2 + 8 * i));
        to->v[i] = vreinterpretq_f32_u32(vshll_n_u16(v, 16));
    }
}

static ALWAYS_INLINE void add_16(struct sixteen *acc, const struct sixteen *w,
                                 const struct sixteen *x)
{
    UNROLL for (int i = 0; i < 4; i++)
        acc->v[i] = vfmaq_f32(acc->v[i], w->v[i], x->v[i]);
}

/* The last k - e < 16 elements, padded with zeros, which add nothing. */
static ALWAYS_INLINE void add_tail(const struct tile *t, int i, int e, enum dtype type,
                                   struct sixteen *acc)
{
    int n = t->k - e;
    float v[16] = { 0 };
    struct sixteen x, w;
    memcpy(v, (const float *)t->x[i] + e, (size_t)n * sizeof *v);
    load_f32(&x, (const uint8_t *)v, 0);
    for (int j = 0; j < TILE_W; j++) {
        memset(v, 0, sizeof v);
        quant_decode(type, t->w[j] + dtype_bytes(type, (size_t)e), NULL, v, n);
        load_f32(&w, (const uint8_t *)v, 0);
        add_16(&acc[j], &w, &x);
    }
}

/* Lanes to four of their sums: l + l8, then + l4; the four are added by sum_4x4_f(). */
static ALWAYS_INLINE float32x4_t fold_16(const struct sixteen *s)
{
    return vaddq_f32(vaddq_f32(s->v[0], s->v[2]), vaddq_f32(s->v[1], s->v[3]));
}

static ALWAYS_INLINE void add_columns(const struct tile *t, int i, int e, struct format f,
                                      struct sixteen *acc)
{
    struct sixteen x, w;
    load_f32(&x, t->x[i], e);
    UNROLL for (int j = 0; j < TILE_W; j++) {
        f.load(&w, t->w[j], e);
        add_16(&acc[j], &w, &x);
        if (e % (64 / f.bytes) == 0)
            fetch_ahead(t, j, (size_t)(e * f.bytes));
    }
}

static ALWAYS_INLINE void tile_float(const struct tile *t, struct format f)
{
    int whole = t->k / 16 * 16;
    for (int i = 0; i < t->n_x; i++) {
        struct sixteen acc[TILE_W] = { 0 };
        for (int e = 0; e < whole; e += 16)
            add_columns(t, i, e, f, acc);
        if (whole < t->k)
            add_tail(t, i, whole, f.type, acc);
        put_4(t->out[i] + t->at, sum_4x4_f(fold_16(&acc[0]), fold_16(&acc[1]), fold_16(&acc[2]),
                                           fold_16(&acc[3])), t->n_w);
    }
}

static void tile_f32(const struct tile *t)
{
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

static void decode(enum dtype type, const void *src, const uint8_t *scale, float *dst, int n)
{
    int i = 0;
    for (; (type == DT_F16 || type == DT_BF16) && i + 16 <= n; i += 16) {
        struct sixteen w;
        (type == DT_F16 ? load_f16 : load_bf16)(&w, src, i);
        UNROLL for (int v = 0; v < 4; v++)
            vst1q_f32(dst + i + 4 * v, w.v[v]);
    }
    if (i < n)
        quant_decode(type, (const uint8_t *)src + dtype_bytes(type, (size_t)i), scale, dst + i,
                     n - i);
}

/* ---- sums of rows ------------------------------------------------------------------------- */

/* n_v vectors of four from column e on, of n_o outputs from i on: constants, so that the sums stay
 * in registers. */
static ALWAYS_INLINE void blend_block(const struct blend *b, int i, int e, int n_o, int n_v)
{
    float *out = b->out + (size_t)i * b->out_pitch + e;
    const float *p = b->p + (size_t)i * b->p_pitch;
    float32x4_t acc[2][8];
    UNROLL for (int o = 0; o < n_o; o++)
        UNROLL for (int v = 0; v < n_v; v++)
            acc[o][v] = vld1q_f32(out + (size_t)o * b->out_pitch + 4 * v);
    for (int j = 0; j < b->n_row; j++) {
        const float *row = b->row + (size_t)j * b->row_pitch + e;
        UNROLL for (int v = 0; v < n_v; v++) {
            float32x4_t x = vld1q_f32(row + 4 * v);
            UNROLL for (int o = 0; o < n_o; o++)
                acc[o][v] = vfmaq_n_f32(acc[o][v], x, p[(size_t)o * b->p_pitch + (size_t)j]);
        }
    }
    UNROLL for (int o = 0; o < n_o; o++)
        UNROLL for (int v = 0; v < n_v; v++)
            vst1q_f32(out + (size_t)o * b->out_pitch + 4 * v, acc[o][v]);
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
            blend_block(b, i, e, 2, 8);
        if (i < b->n_out)
            blend_block(b, i, e, 1, 8);
    }
    for (; e + 4 <= b->dim; e += 4)
        for (i = 0; i < b->n_out; i++)
            blend_block(b, i, e, 1, 1);
    for (; e < b->dim; e++)
        for (i = 0; i < b->n_out; i++)
            b->out[(size_t)i * b->out_pitch + e] = blend_one(b, i, e);
}

static double sum_squares(const float *x, int n)
{
    float64x2_t lane[8];
    UNROLL for (int v = 0; v < 8; v++)
        lane[v] = vdupq_n_f64(0);
    for (int i = 0; i < n; i += 16) {
        float part[16] = { 0 };
        const float *at = x + i;
        if (n - i < 16)
            at = memcpy(part, at, (size_t)(n - i) * sizeof *part);
        UNROLL for (int v = 0; v < 8; v++) {
            float64x2_t d = vcvt_f64_f32(vld1_f32(at + 2 * v));
            lane[v] = vfmaq_f64(lane[v], d, d); /* the product is exact */
        }
    }
    float64x2_t lo = vaddq_f64(vaddq_f64(lane[0], lane[4]), vaddq_f64(lane[2], lane[6]));
    float64x2_t hi = vaddq_f64(vaddq_f64(lane[1], lane[5]), vaddq_f64(lane[3], lane[7]));
    return vaddvq_f64(lo) + vaddvq_f64(hi);
}

/* ---- exponentials ------------------------------------------------------------------------- */

/* e^x = 2^n e^r with |r| <= ln 2 / 2; seven terms of the series leave less than half a bit.
 * Results below the normal range become zero; NaN passes through every step. */
static ALWAYS_INLINE float32x4_t exp_4(float32x4_t x)
{
    uint32x4_t tiny = vcltq_f32(x, vdupq_n_f32(-87.3f));
    x = vmaxq_f32(vdupq_n_f32(-87.3f), vminq_f32(vdupq_n_f32(89), x));
    float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
    float32x4_t r = vfmsq_n_f32(x, n, 0.693145752f); /* 15 bits: n of it is exact */
    r = vfmsq_n_f32(r, n, 1.42860677e-6f);
    float32x4_t p = vdupq_n_f32(1 / 5040.f);
    static const float factor[] = { 1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, .5f, 1, 1 };
    UNROLL for (int i = 0; i < 7; i++)
        p = vfmaq_f32(vdupq_n_f32(factor[i]), p, r);
    int32x4_t scale = vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23);
    p = vmulq_f32(p, vreinterpretq_f32_s32(scale));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(p), tiny));
}

static float exp_sum(float *x, int n, float max)
{
    struct sixteen lane = { 0 };
    for (int i = 0; i < n; i += 16) {
        float part[16], *at = x + i;
        int len = MIN(16, n - i);
        if (len < 16) {
            for (int j = 0; j < 16; j++)
                part[j] = j < len ? at[j] : -INFINITY;
            at = part;
        }
        UNROLL for (int v = 0; v < 4; v++) {
            float32x4_t y = exp_4(vsubq_f32(vld1q_f32(at + 4 * v), vdupq_n_f32(max)));
            vst1q_f32(at + 4 * v, y);
            lane.v[v] = vaddq_f32(lane.v[v], y);
        }
        if (len < 16)
            memcpy(x + i, part, (size_t)len * sizeof *x);
    }
    float32x4_t s = fold_16(&lane);
    return vgetq_lane_f32(sum_4x4_f(s, s, s, s), 0);
}

static void scale_row(float *out, const float *x, const float *weight, float scale, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t v = vmulq_n_f32(vld1q_f32(x + i), scale);
        vst1q_f32(out + i, weight ? vmulq_f32(v, vld1q_f32(weight + i)) : v);
    }
    for (; i < n; i++)
        out[i] = x[i] * scale * (weight ? weight[i] : 1);
}

static void swiglu(float *out, const float *gate, const float *up, int n, float clamp,
                   float weight)
{
    float32x4_t top = vdupq_n_f32(clamp);
    for (int i = 0; i < n; i += 4) {
        float g[4] = { 0 }, u[4] = { 0 };
        int len = MIN(4, n - i);
        memcpy(g, gate + i, (size_t)len * sizeof *g);
        memcpy(u, up + i, (size_t)len * sizeof *u);
        float32x4_t a = vminq_f32(top, vld1q_f32(g));
        float32x4_t b = vmaxq_f32(vnegq_f32(top), vminq_f32(top, vld1q_f32(u)));
        float32x4_t e = vaddq_f32(vdupq_n_f32(1), exp_4(vnegq_f32(a)));
        vst1q_f32(g, vmulq_n_f32(vmulq_f32(vdivq_f32(a, e), b), weight));
        memcpy(out + i, g, (size_t)len * sizeof *g);
    }
}

void cpu_kernels_neon(struct cpu_kernels *k)
{
    cpu_pack_neon(k);
    k->product[DT_F32].tile = tile_f32;
    k->product[DT_F16] = (struct product_kernel){ .form = ACT_F32, .tile = tile_f16 };
    k->product[DT_BF16] = (struct product_kernel){ .form = ACT_F32, .tile = tile_bf16 };
    k->decode = decode;
    k->blend = blend;
    k->sum_squares = sum_squares;
    k->exp_sum = exp_sum;
    k->scale_row = scale_row;
    k->swiglu = swiglu;
}
