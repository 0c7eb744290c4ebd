/* q256_dotprod.c - products with weights in blocks of 256: Q2_K, Q4_K, IQ2_XXS.
 *
 * One activation row takes each group of 32 weights as it is unpacked; several share blocks that
 * are unpacked to memory first. Sums of a group are scaled before lanes are added up, so that the
 * four rows' sums meet in one vector only once a block. */
#include "q256_impl.h"

static ALWAYS_INLINE int32x4_t add_group(int32x4_t sum, struct group w, const uint8_t *scale,
                                         const int8_t *x, bool scale_16)
{
    const int32x4_t zero = vdupq_n_s32(0);
    int32x4_t lo = vdotq_s32(zero, w.lo, vld1q_s8(x));
    if (!scale_16)
        return vmlaq_n_s32(sum, vdotq_s32(lo, w.hi, vld1q_s8(x + 16)), scale[0]);
    sum = vmlaq_n_s32(sum, lo, scale[0]);
    return vmlaq_n_s32(sum, vdotq_s32(zero, w.hi, vld1q_s8(x + 16)), scale[1]);
}

static ALWAYS_INLINE int32x4_t dot_min(const struct block *w, const int16_t *x_sum)
{
    int16x8_t a = vld1q_s16(x_sum), b = vld1q_s16(x_sum + 8);
    int32x4_t sum = vmull_s16(vget_low_s16(w->min[0]), vget_low_s16(a));
    sum = vmlal_high_s16(sum, w->min[0], a);
    sum = vmlal_s16(sum, vget_low_s16(w->min[1]), vget_low_s16(b));
    return vmlal_high_s16(sum, w->min[1], b);
}

/* acc plus four rows' sums, or minima, with their steps: block b of activation row i. */
static ALWAYS_INLINE float32x4_t add_sums(const struct tile *t, int i, int b,
                                          const struct block *w, int32x4_t sum,
                                          float32x4_t acc)
{
    float d[4] = { w[0].d, w[1].d, w[2].d, w[3].d };
    float32x4_t step = vmulq_n_f32(vld1q_f32(d), act_d(t->x[i], t->k)[b]);
    return vfmaq_f32(acc, step, vcvtq_f32_s32(sum));
}

static ALWAYS_INLINE float32x4_t add_mins(const struct tile *t, int i, int b,
                                          const struct block *w, float32x4_t acc)
{
    const int16_t *x_sum = act_sum(t->x[i], t->k) + b * 16;
    int32x4_t min = sum_4x4_i(dot_min(&w[0], x_sum), dot_min(&w[1], x_sum),
                              dot_min(&w[2], x_sum), dot_min(&w[3], x_sum));
    float dmin[4] = { w[0].dmin, w[1].dmin, w[2].dmin, w[3].dmin };
    float32x4_t step = vmulq_n_f32(vld1q_f32(dmin), act_d(t->x[i], t->k)[b]);
    return vfmsq_f32(acc, step, vcvtq_f32_s32(min));
}

static ALWAYS_INLINE void open_blocks(const struct tile *t, struct format f, int b,
                                      struct block *w)
{
    UNROLL for (int j = 0; j < TILE_W; j++) {
        f.open(&w[j], t->w[j] + (size_t)b * f.bytes);
        for (size_t line = 0; line < f.bytes; line += 64)
            fetch_ahead(t, j, (size_t)b * f.bytes + line);
    }
}

static ALWAYS_INLINE int32x4_t dot_taken(const struct block *w, struct format f, const int8_t *x)
{
    int32x4_t sum = vdupq_n_s32(0);
    UNROLL for (int g = 0; g < 8; g++) {
        struct group q;
        f.take(&q, w, g);
        sum = add_group(sum, q, w->scale + (f.scale_16 ? 2 * g : g), x + 32 * g, f.scale_16);
    }
    return sum;
}

static ALWAYS_INLINE void tile_one(const struct tile *t, struct format f)
{
    float32x4_t acc = vdupq_n_f32(0);
    for (int b = 0; b < t->k / 256; b++) {
        const int8_t *x = (const int8_t *)t->x[0] + (size_t)b * 256;
        struct block w[TILE_W];
        open_blocks(t, f, b, w);
        int32x4_t sum = sum_4x4_i(dot_taken(&w[0], f, x), dot_taken(&w[1], f, x),
                                  dot_taken(&w[2], f, x), dot_taken(&w[3], f, x));
        acc = add_sums(t, 0, b, w, sum, acc);
        if (f.has_min)
            acc = add_mins(t, 0, b, w, acc);
    }
    put_4(t->out[0] + t->at, acc, t->n_w);
}

static ALWAYS_INLINE int32x4_t dot_kept(const struct group *q, const struct block *w,
                                        struct format f, const int8_t *x)
{
    int32x4_t sum = vdupq_n_s32(0);
    UNROLL for (int g = 0; g < 8; g++)
        sum = add_group(sum, q[g], w->scale + (f.scale_16 ? 2 * g : g), x + 32 * g, f.scale_16);
    return sum;
}

static ALWAYS_INLINE void tile_many(const struct tile *t, struct format f)
{
    float32x4_t acc[TILE_X];
    for (int i = 0; i < t->n_x; i++)
        acc[i] = vdupq_n_f32(0);
    for (int b = 0; b < t->k / 256; b++) {
        struct block w[TILE_W];
        struct group q[TILE_W][8];
        open_blocks(t, f, b, w);
        for (int j = 0; j < TILE_W; j++)
            UNROLL for (int g = 0; g < 8; g++)
                f.take(&q[j][g], &w[j], g);
        for (int i = 0; i < t->n_x; i++) {
            const int8_t *x = (const int8_t *)t->x[i] + (size_t)b * 256;
            int32x4_t sum = sum_4x4_i(dot_kept(q[0], &w[0], f, x), dot_kept(q[1], &w[1], f, x),
                                      dot_kept(q[2], &w[2], f, x), dot_kept(q[3], &w[3], f, x));
            acc[i] = add_sums(t, i, b, w, sum, acc[i]);
            if (f.has_min)
                acc[i] = add_mins(t, i, b, w, acc[i]);
        }
    }
    for (int i = 0; i < t->n_x; i++)
        put_4(t->out[i] + t->at, acc[i], t->n_w);
}

static ALWAYS_INLINE void tile_q256(const struct tile *t, struct format f)
{
    if (t->n_x == 1)
        tile_one(t, f);
    else
        tile_many(t, f);
}

static void tile_q2_k(const struct tile *t)
{
    tile_q256(t, (struct format)FORMAT_Q2_K);
}

static void tile_q4_k(const struct tile *t)
{
    tile_q256(t, (struct format)FORMAT_Q4_K);
}

static void tile_iq2_xxs(const struct tile *t)
{
    tile_q256(t, (struct format)FORMAT_IQ2_XXS);
}

void cpu_q256_dotprod(struct cpu_kernels *k)
{
    k->product[DT_Q2_K].tile = tile_q2_k;
    k->product[DT_Q4_K].tile = tile_q4_k;
    k->product[DT_IQ2_XXS].tile = tile_iq2_xxs;
}

void cpu_kernels_dotprod(struct cpu_kernels *k)
{
    cpu_q32_dotprod(k);
    cpu_q256_dotprod(k);
}
