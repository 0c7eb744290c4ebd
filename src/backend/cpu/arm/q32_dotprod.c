/* q32_dotprod.c - products with weights in blocks of 32: Q8_0, MXFP4, the vendor's FP4.
 *
 * Four weight rows against one activation row at a time: their four integer sums then fill one
 * vector, and one multiply-add applies four steps. */
#include "neon_impl.h"

struct thirty_two {
    int8x16_t lo, hi;
};

typedef void load_fn(struct thirty_two *to, const struct tile *t, int j, int b);
typedef float32x4_t step_fn(const struct tile *t, int b);

struct format {
    load_fn *load;
    step_fn *step; /* of four rows */
    size_t bytes;
};

static ALWAYS_INLINE int32x4_t dot_32(struct thirty_two w, struct thirty_two x)
{
    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), w.lo, x.lo), w.hi, x.hi);
}

static ALWAYS_INLINE float32x4_t add_block(const struct tile *t, int i, int b,
                                           const struct thirty_two *w, float32x4_t d,
                                           float32x4_t acc)
{
    const int8_t *q = (const int8_t *)t->x[i] + (size_t)b * 32;
    struct thirty_two x = { vld1q_s8(q), vld1q_s8(q + 16) };
    int32x4_t sum = sum_4x4_i(dot_32(w[0], x), dot_32(w[1], x), dot_32(w[2], x), dot_32(w[3], x));
    float32x4_t step = vmulq_n_f32(d, act_d(t->x[i], t->k)[b]);
    return vfmaq_f32(acc, step, vcvtq_f32_s32(sum));
}

static ALWAYS_INLINE void tile_q32(const struct tile *t, struct format f, int n_x)
{
    float32x4_t acc[TILE_X];
    for (int i = 0; i < n_x; i++)
        acc[i] = vdupq_n_f32(0);
    for (int b = 0; b < t->k / 32; b++) {
        struct thirty_two w[TILE_W];
        UNROLL for (int j = 0; j < TILE_W; j++) {
            f.load(&w[j], t, j, b);
            fetch_ahead(t, j, (size_t)b * f.bytes);
        }
        float32x4_t d = f.step(t, b);
        for (int i = 0; i < n_x; i++)
            acc[i] = add_block(t, i, b, w, d, acc[i]);
    }
    for (int i = 0; i < n_x; i++)
        put_4(t->out[i] + t->at, acc[i], t->n_w);
}

/* One activation row is worth its own code: the sums stay in a register. */
static ALWAYS_INLINE void tile_any(const struct tile *t, struct format f)
{
    if (t->n_x == 1)
        tile_q32(t, f, 1);
    else
        tile_q32(t, f, t->n_x);
}

static ALWAYS_INLINE void load_q8_0(struct thirty_two *to, const struct tile *t, int j, int b)
{
    const int8_t *q = (const int8_t *)t->w[j] + (size_t)b * 34 + 2;
    *to = (struct thirty_two){ vld1q_s8(q), vld1q_s8(q + 16) };
}

static ALWAYS_INLINE float32x4_t step_q8_0(const struct tile *t, int b)
{
    size_t at = (size_t)b * 34;
    return f16_x4(t->w[0] + at, t->w[1] + at, t->w[2] + at, t->w[3] + at);
}

static void tile_q8_0(const struct tile *t)
{
    tile_any(t, (struct format){ load_q8_0, step_q8_0, 34 });
}

static ALWAYS_INLINE void load_mxfp4(struct thirty_two *to, const struct tile *t, int j, int b)
{
    uint8x16_t v = vld1q_u8(t->w[j] + (size_t)b * 17 + 1);
    *to = (struct thirty_two){ e2m1_twice(v), e2m1_twice(vshrq_n_u8(v, 4)) };
}

static ALWAYS_INLINE float32x4_t step_mxfp4(const struct tile *t, int b)
{
    size_t at = (size_t)b * 17;
    uint32_t e[4] = { t->w[0][at], t->w[1][at], t->w[2][at], t->w[3][at] };
    return e8m0_half(vld1q_u32(e));
}

static void tile_mxfp4(const struct tile *t)
{
    tile_any(t, (struct format){ load_mxfp4, step_mxfp4, 17 });
}

static ALWAYS_INLINE void load_fp4(struct thirty_two *to, const struct tile *t, int j, int b)
{
    uint8x16_t v = vld1q_u8(t->w[j] + (size_t)b * 16);
    int8x16_t even = e2m1_twice(v), odd = e2m1_twice(vshrq_n_u8(v, 4));
    *to = (struct thirty_two){ vzip1q_s8(even, odd), vzip2q_s8(even, odd) };
}

static ALWAYS_INLINE float32x4_t step_fp4(const struct tile *t, int b)
{
    uint32_t e[4] = { t->scale[0][b], t->scale[1][b], t->scale[2][b], t->scale[3][b] };
    return e8m0_half(vld1q_u32(e));
}

static void tile_fp4(const struct tile *t)
{
    tile_any(t, (struct format){ load_fp4, step_fp4, 16 });
}

void cpu_q32_dotprod(struct cpu_kernels *k)
{
    k->product[DT_Q8_0].tile = tile_q8_0;
    k->product[DT_MXFP4].tile = tile_mxfp4;
    k->product[TYPE_SLOT(DT_FP4)].tile = tile_fp4;
}
