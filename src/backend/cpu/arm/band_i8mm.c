/* band_i8mm.c - a band: 32 weight rows by many activation rows, two by two.
 *
 * The instruction multiplies two rows of eight bytes by two others and adds to four sums. So 256
 * columns of the weight rows are unpacked to signed bytes, two rows side by side in turns of
 * eight, and so are the activations; nothing is ever summed across lanes but the minima. A sum's
 * four lanes are weight row 0 with activation rows 0 and 1, then weight row 1 with both. */
#include "q256_impl.h"

#define CHUNK 256 /* columns that are unpacked at a time */
#define PAIRS (BAND_W / 2)
#define N_P 4 /* pairs of weight rows and ... */
#define N_X 2 /* ... of activation rows that share loads */

/* CHUNK columns of a pair of weight rows. */
struct pair {
    int8_t q[8][4][16];    /* [group of 32][eight columns of one row, then of the other] */
    int32_t scale[8][4];   /* factors of a group: both rows', each twice */
    float d[8][4];         /* steps of a group, or the first of all, likewise */
    float dmin[4];
    int16_t min[2][16];    /* factors of the activations' sums of 16 */
};

/* The same columns of a pair of activation rows. */
struct pair_x {
    int8_t q[8][4][16];
    float d[8][4];          /* both rows', twice */
    const int16_t *sum[2];
};

enum scaling {
    STEP_32,  /* a float step for every 32 columns */
    SCALE_32, /* an integer factor for every 32, a step for the chunk */
    STEP_256, /* a step for the chunk */
};

struct shape {
    enum scaling scaling;
    bool has_min;
};

struct work {
    const struct band *b;
    int block, n; /* first block of 32, and how many, 1 to 8 */
    struct pair w[PAIRS];
    struct pair_x x[N_X];
    float acc[BAND_X / 2][PAIRS][4];
};

/* ---- unpacking ---------------------------------------------------------------------------- */

/* 32 columns of two rows, eight in turn. */
static ALWAYS_INLINE void put_group(int8_t (*to)[16], struct group a, struct group b)
{
    int64x2_t a0 = vreinterpretq_s64_s8(a.lo), a1 = vreinterpretq_s64_s8(a.hi);
    int64x2_t b0 = vreinterpretq_s64_s8(b.lo), b1 = vreinterpretq_s64_s8(b.hi);
    vst1q_s8(to[0], vreinterpretq_s8_s64(vzip1q_s64(a0, b0)));
    vst1q_s8(to[1], vreinterpretq_s8_s64(vzip2q_s64(a0, b0)));
    vst1q_s8(to[2], vreinterpretq_s8_s64(vzip1q_s64(a1, b1)));
    vst1q_s8(to[3], vreinterpretq_s8_s64(vzip2q_s64(a1, b1)));
}

/* a a b b */
static ALWAYS_INLINE void put_each_twice(float *to, float a, float b)
{
    to[0] = to[1] = a;
    to[2] = to[3] = b;
}

/* Q2_K: a scale, at most 15, times a weight of at most 3 fits a byte. */
static ALWAYS_INLINE struct group times_scale(struct group v, const uint8_t *scale)
{
    v.lo = vmulq_s8(v.lo, vdupq_n_s8((int8_t)scale[0]));
    v.hi = vmulq_s8(v.hi, vdupq_n_s8((int8_t)scale[1]));
    return v;
}

static ALWAYS_INLINE void unpack_256(struct work *k, struct format f)
{
    for (int p = 0; p < PAIRS; p++) {
        struct pair *to = &k->w[p];
        struct block row[2];
        for (int r = 0; r < 2; r++) {
            const uint8_t *src = k->b->w[2 * p + r] + (size_t)(k->block / 8) * f.bytes;
            f.open(&row[r], src);
            for (size_t at = 0; at < f.bytes; at += 64)
                __builtin_prefetch((const void *)((uintptr_t)src + at + k->b->ahead));
            if (f.has_min) {
                vst1q_s16(to->min[r], row[r].min[0]);
                vst1q_s16(to->min[r] + 8, row[r].min[1]);
            }
        }
        UNROLL for (int g = 0; g < 8; g++) {
            struct group a, b;
            f.take(&a, &row[0], g);
            f.take(&b, &row[1], g);
            if (f.scale_16) {
                a = times_scale(a, row[0].scale + 2 * g);
                b = times_scale(b, row[1].scale + 2 * g);
            }
            put_group(to->q[g], a, b);
            to->scale[g][0] = to->scale[g][1] = row[0].scale[g];
            to->scale[g][2] = to->scale[g][3] = row[1].scale[g];
        }
        put_each_twice(to->d[0], row[0].d, row[1].d);
        if (f.has_min)
            put_each_twice(to->dmin, row[0].dmin, row[1].dmin);
    }
}

typedef void load_fn(struct group *to, const struct band *b, int j, int block);
typedef float step_fn(const struct band *b, int j, int block);

static ALWAYS_INLINE void unpack_32(struct work *k, load_fn *load, step_fn *step)
{
    for (int p = 0; p < PAIRS; p++)
        for (int g = 0; g < k->n; g++) {
            int at = k->block + g;
            struct group row[2];
            load(&row[0], k->b, 2 * p, at);
            load(&row[1], k->b, 2 * p + 1, at);
            put_group(k->w[p].q[g], row[0], row[1]);
            put_each_twice(k->w[p].d[g], step(k->b, 2 * p, at), step(k->b, 2 * p + 1, at));
        }
}

/* Activation rows from i on; beyond the last it is repeated. */
static ALWAYS_INLINE void open_x(struct work *k, int i, struct shape s)
{
    for (int p = 0; p < N_X; p++) {
        const void *row[2];
        for (int r = 0; r < 2; r++) {
            row[r] = k->b->x[MIN(i + 2 * p + r, k->b->n_x - 1)];
            k->x[p].sum[r] = act_sum(row[r], k->b->k) + k->block * 2;
        }
        for (int g = 0; g < k->n; g++) {
            const int8_t *a = (const int8_t *)row[0] + (size_t)(k->block + g) * 32;
            const int8_t *b = (const int8_t *)row[1] + (size_t)(k->block + g) * 32;
            put_group(k->x[p].q[g], (struct group){ vld1q_s8(a), vld1q_s8(a + 16) },
                      (struct group){ vld1q_s8(b), vld1q_s8(b + 16) });
            int at = s.scaling == STEP_32 ? k->block + g : k->block / 8;
            float d0 = act_d(row[0], k->b->k)[at], d1 = act_d(row[1], k->b->k)[at];
            k->x[p].d[g][0] = k->x[p].d[g][2] = d0;
            k->x[p].d[g][1] = k->x[p].d[g][3] = d1;
        }
    }
}

/* ---- products ----------------------------------------------------------------------------- */

struct sums {
    int32x4_t v[N_X][N_P];
};

static ALWAYS_INLINE void zero_sums(struct sums *s)
{
    UNROLL for (int i = 0; i < N_X; i++)
        UNROLL for (int p = 0; p < N_P; p++)
            s->v[i][p] = vdupq_n_s32(0);
}

static ALWAYS_INLINE void add_group(struct sums *s, const struct pair *w, const struct pair_x *x,
                                    int g)
{
    UNROLL for (int e = 0; e < 4; e++) {
        int8x16_t v[N_X];
        UNROLL for (int i = 0; i < N_X; i++)
            v[i] = vld1q_s8(x[i].q[g][e]);
        UNROLL for (int p = 0; p < N_P; p++) {
            int8x16_t q = vld1q_s8(w[p].q[g][e]);
            UNROLL for (int i = 0; i < N_X; i++)
                s->v[i][p] = vmmlaq_s32(s->v[i][p], q, v[i]);
        }
    }
}

/* acc := fma(d dx, s, acc) */
static ALWAYS_INLINE void apply_step(float (*acc)[PAIRS][4], int first, const struct sums *s,
                                     const struct pair *w, const struct pair_x *x, int g)
{
    UNROLL for (int i = 0; i < N_X; i++)
        UNROLL for (int p = 0; p < N_P; p++) {
            float32x4_t d = vmulq_f32(vld1q_f32(w[p].d[g]), vld1q_f32(x[i].d[g]));
            float *to = acc[i][first + p];
            vst1q_f32(to, vfmaq_f32(vld1q_f32(to), d, vcvtq_f32_s32(s->v[i][p])));
        }
}

static ALWAYS_INLINE int32x4_t dot_min(const int16_t *min, const int16_t *sum)
{
    int16x8_t a = vld1q_s16(min), b = vld1q_s16(min + 8);
    int16x8_t x = vld1q_s16(sum), y = vld1q_s16(sum + 8);
    int32x4_t s = vmull_s16(vget_low_s16(a), vget_low_s16(x));
    s = vmlal_high_s16(s, a, x);
    s = vmlal_s16(s, vget_low_s16(b), vget_low_s16(y));
    return vmlal_high_s16(s, b, y);
}

/* acc := fma(-(dmin dx), m, acc) */
static ALWAYS_INLINE void apply_min(float (*acc)[PAIRS][4], int first, const struct pair *w,
                                    const struct pair_x *x)
{
    for (int i = 0; i < N_X; i++)
        UNROLL for (int p = 0; p < N_P; p++) {
            int32x4_t m = sum_4x4_i(
                dot_min(w[p].min[0], x[i].sum[0]), dot_min(w[p].min[0], x[i].sum[1]),
                dot_min(w[p].min[1], x[i].sum[0]), dot_min(w[p].min[1], x[i].sum[1]));
            float32x4_t d = vmulq_f32(vld1q_f32(w[p].dmin), vld1q_f32(x[i].d[0]));
            float *to = acc[i][first + p];
            vst1q_f32(to, vfmsq_f32(vld1q_f32(to), d, vcvtq_f32_s32(m)));
        }
}

/* Activation rows from i on plus a chunk of N_P pairs from `first` on times N_X pairs. */
static ALWAYS_INLINE void add_chunk(struct work *k, int i, int first, struct shape f)
{
    float (*acc)[PAIRS][4] = &k->acc[i / 2];
    const struct pair *w = &k->w[first];
    const struct pair_x *x = k->x;
    struct sums sum, s;
    zero_sums(&sum);
    for (int g = 0; g < k->n; g++) {
        if (f.scaling == STEP_256) {
            add_group(&sum, w, x, g);
            continue;
        }
        zero_sums(&s);
        add_group(&s, w, x, g);
        if (f.scaling == STEP_32) {
            apply_step(acc, first, &s, w, x, g);
            continue;
        }
        UNROLL for (int p = 0; p < N_P; p++) {
            int32x4_t scale = vld1q_s32(w[p].scale[g]);
            UNROLL for (int i = 0; i < N_X; i++)
                sum.v[i][p] = vmlaq_s32(sum.v[i][p], s.v[i][p], scale);
        }
    }
    if (f.scaling != STEP_32)
        apply_step(acc, first, &sum, w, x, 0);
    if (f.has_min)
        apply_min(acc, first, w, x);
}

static ALWAYS_INLINE void add_all(struct work *k, struct shape f)
{
    for (int i = 0; i < k->b->n_x; i += 2 * N_X) {
        open_x(k, i, f);
        for (int p = 0; p < PAIRS; p += N_P)
            add_chunk(k, i, p, f);
    }
}

static ALWAYS_INLINE void open_band(struct work *k, const struct band *b)
{
    k->b = b;
    memset(k->acc, 0, round_up((size_t)b->n_x, 2 * N_X) / 2 * sizeof *k->acc);
}

static void close_band(const struct work *k)
{
    const struct band *b = k->b;
    for (int i = 0; i < b->n_x; i++)
        for (int j = 0; j < b->n_w; j++)
            b->out[i][b->at + j] = k->acc[i / 2][j / 2][j % 2 * 2 + i % 2];
}

static ALWAYS_INLINE void band_256(const struct band *b, struct format f, enum scaling scaling)
{
    struct work k;
    open_band(&k, b);
    k.n = 8;
    for (k.block = 0; k.block < b->k / 32; k.block += 8) {
        unpack_256(&k, f);
        add_all(&k, (struct shape){ scaling, f.has_min });
    }
    close_band(&k);
}

static ALWAYS_INLINE void band_32(const struct band *b, load_fn *load, step_fn *step)
{
    struct work k;
    open_band(&k, b);
    for (k.block = 0; k.block < b->k / 32; k.block += 8) {
        k.n = MIN(8, b->k / 32 - k.block);
        unpack_32(&k, load, step);
        add_all(&k, (struct shape){ STEP_32, false });
    }
    close_band(&k);
}

/* ---- types -------------------------------------------------------------------------------- */

static void band_q2_k(const struct band *b)
{
    band_256(b, (struct format)FORMAT_Q2_K, STEP_256);
}

static void band_q4_k(const struct band *b)
{
    band_256(b, (struct format)FORMAT_Q4_K, SCALE_32);
}

static void band_iq2_xxs(const struct band *b)
{
    band_256(b, (struct format)FORMAT_IQ2_XXS, SCALE_32);
}

static ALWAYS_INLINE void load_q8_0(struct group *to, const struct band *b, int j, int block)
{
    const int8_t *q = (const int8_t *)b->w[j] + (size_t)block * 34 + 2;
    *to = (struct group){ vld1q_s8(q), vld1q_s8(q + 16) };
}

static ALWAYS_INLINE float step_q8_0(const struct band *b, int j, int block)
{
    return f16_of(b->w[j] + (size_t)block * 34);
}

static void band_q8_0(const struct band *b)
{
    band_32(b, load_q8_0, step_q8_0);
}

static ALWAYS_INLINE void load_mxfp4(struct group *to, const struct band *b, int j, int block)
{
    uint8x16_t v = vld1q_u8(b->w[j] + (size_t)block * 17 + 1);
    *to = (struct group){ e2m1_twice(v), e2m1_twice(vshrq_n_u8(v, 4)) };
}

static ALWAYS_INLINE float step_mxfp4(const struct band *b, int j, int block)
{
    return vgetq_lane_f32(e8m0_half(vdupq_n_u32(b->w[j][(size_t)block * 17])), 0);
}

static void band_mxfp4(const struct band *b)
{
    band_32(b, load_mxfp4, step_mxfp4);
}

static ALWAYS_INLINE void load_fp4(struct group *to, const struct band *b, int j, int block)
{
    uint8x16_t v = vld1q_u8(b->w[j] + (size_t)block * 16);
    int8x16_t even = e2m1_twice(v), odd = e2m1_twice(vshrq_n_u8(v, 4));
    *to = (struct group){ vzip1q_s8(even, odd), vzip2q_s8(even, odd) };
}

static ALWAYS_INLINE float step_fp4(const struct band *b, int j, int block)
{
    return vgetq_lane_f32(e8m0_half(vdupq_n_u32(b->scale[j][block])), 0);
}

static void band_fp4(const struct band *b)
{
    band_32(b, load_fp4, step_fp4);
}

static void put(struct cpu_kernels *k, int slot, band_fn *band)
{
    k->product[slot].band = band;
    k->product[slot].band_x = 2 * N_X;
}

void cpu_kernels_i8mm(struct cpu_kernels *k)
{
    put(k, DT_Q8_0, band_q8_0);
    put(k, DT_MXFP4, band_mxfp4);
    put(k, TYPE_SLOT(DT_FP4), band_fp4);
    put(k, DT_Q2_K, band_q2_k);
    put(k, DT_Q4_K, band_q4_k);
    put(k, DT_IQ2_XXS, band_iq2_xxs);
}
