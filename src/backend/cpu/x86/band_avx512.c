/* band_avx512.c - a band: 32 weight rows by many activation rows, in integers.
 *
 * 256 columns of the weight rows are unpacked to unsigned bytes and turned so that one vector
 * holds 4 columns of 16 rows. The instruction that adds four products per lane then leaves one
 * sum per weight row: nothing is summed across lanes, and a step is applied to 16 rows at once.
 * An offset makes signed weights unsigned; what it adds is taken away by beginning every sum at
 * minus offset times the sum of the activations, exactly. */
#include "avx512_impl.h"

#define N_X 6 /* activation rows at a time, at most */

/* N_X activation rows at the columns of a chunk. */
struct some_x {
    const int8_t *q[N_X];
    const float *d[N_X];
    const int16_t *sum[N_X];
    int32_t start[N_X][8]; /* where sums of 32 columns begin */
};

struct sums {
    __m512i v[N_X][2];
};

/* Activation rows that share a load of weights: what else a step needs must fit the registers. */
static ALWAYS_INLINE int rows_of(struct band_format f)
{
    return f.scaling == STEP_32 ? 4 : N_X;
}

static ALWAYS_INLINE __m512i four_bytes(const void *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* s plus n times 4 columns from 4 k on; m, here and below: activation rows. */
static ALWAYS_INLINE void add_columns(struct sums *s, const struct chunk *c,
                                      const struct some_x *x, int m, int k, int n)
{
    UNROLL for (int e = 0; e < n; e++) {
        __m512i lo = _mm512_load_si512(c->q[k + e]), hi = _mm512_load_si512(c->q[k + e][16]);
        UNROLL for (int i = 0; i < m; i++) {
            __m512i v = four_bytes(x->q[i] + 4 * (k + e));
            s->v[i][0] = _mm512_dpbusd_epi32(s->v[i][0], lo, v);
            s->v[i][1] = _mm512_dpbusd_epi32(s->v[i][1], hi, v);
        }
    }
}

static ALWAYS_INLINE void start_sums(struct sums *s, const struct some_x *x, int m, int g)
{
    UNROLL for (int i = 0; i < m; i++)
        s->v[i][0] = s->v[i][1] = _mm512_set1_epi32(x->start[i][g]);
}

/* acc := fma(d dx, s, acc) */
static ALWAYS_INLINE void apply_step(__m512 acc[N_X][2], const struct sums *s, const float *d,
                                     const struct some_x *x, int m, int g)
{
    __m512 lo = _mm512_load_ps(d), hi = _mm512_load_ps(d + 16);
    UNROLL for (int i = 0; i < m; i++) {
        __m512 dx = _mm512_set1_ps(x->d[i][g]);
        acc[i][0] = _mm512_fmadd_ps(_mm512_mul_ps(lo, dx), _mm512_cvtepi32_ps(s->v[i][0]),
                                    acc[i][0]);
        acc[i][1] = _mm512_fmadd_ps(_mm512_mul_ps(hi, dx), _mm512_cvtepi32_ps(s->v[i][1]),
                                    acc[i][1]);
    }
}

/* acc := fma(-(dmin dx), m, acc), m from the sums of 16 activations. */
static ALWAYS_INLINE void apply_min(__m512 acc[N_X][2], const struct chunk *c,
                                    const struct some_x *x, int m)
{
    struct sums min;
    UNROLL for (int i = 0; i < m; i++)
        min.v[i][0] = min.v[i][1] = _mm512_setzero_si512();
    UNROLL for (int g = 0; g < 8; g++) {
        __m512i lo = _mm512_load_si512(c->min[g]), hi = _mm512_load_si512(c->min[g][16]);
        UNROLL for (int i = 0; i < m; i++) {
            __m512i v = four_bytes(x->sum[i] + 2 * g);
            min.v[i][0] = _mm512_dpwssd_epi32(min.v[i][0], lo, v);
            min.v[i][1] = _mm512_dpwssd_epi32(min.v[i][1], hi, v);
        }
    }
    __m512 lo = _mm512_load_ps(c->dmin), hi = _mm512_load_ps(c->dmin + 16);
    UNROLL for (int i = 0; i < m; i++) {
        __m512 dx = _mm512_set1_ps(x->d[i][0]);
        acc[i][0] = _mm512_fnmadd_ps(_mm512_mul_ps(lo, dx), _mm512_cvtepi32_ps(min.v[i][0]),
                                     acc[i][0]);
        acc[i][1] = _mm512_fnmadd_ps(_mm512_mul_ps(hi, dx), _mm512_cvtepi32_ps(min.v[i][1]),
                                     acc[i][1]);
    }
}

static ALWAYS_INLINE void add_scaled(struct sums *sum, const struct chunk *c,
                                     const struct some_x *x, int m)
{
    UNROLL for (int i = 0; i < m; i++)
        sum->v[i][0] = sum->v[i][1] = _mm512_setzero_si512();
    for (int g = 0; g < 8; g++) {
        struct sums s;
        start_sums(&s, x, m, g);
        add_columns(&s, c, x, m, 8 * g, 8);
        UNROLL for (int h = 0; h < 2; h++) {
            __m512i scale = _mm512_load_si512(c->scale[g] + 16 * h);
            UNROLL for (int i = 0; i < m; i++)
                sum->v[i][h] = _mm512_add_epi32(sum->v[i][h],
                                                _mm512_mullo_epi32(s.v[i][h], scale));
        }
    }
}

/* acc plus a chunk times N_X activation rows. */
static ALWAYS_INLINE void add_chunk(__m512 acc[N_X][2], const struct chunk *c, int n,
                                    const struct some_x *x, struct band_format f)
{
    int m = rows_of(f);
    struct sums s;
    if (f.scaling == STEP_32) {
        for (int g = 0; g < n; g++) {
            start_sums(&s, x, m, g);
            add_columns(&s, c, x, m, 8 * g, 8);
            apply_step(acc, &s, c->d[g], x, m, g);
        }
        return;
    }
    if (f.scaling == SCALE_32) {
        add_scaled(&s, c, x, m);
    } else {
        UNROLL for (int i = 0; i < m; i++)
            s.v[i][0] = s.v[i][1] = _mm512_setzero_si512();
        for (int g = 0; g < 8; g++)
            add_columns(&s, c, x, m, 8 * g, 8);
    }
    apply_step(acc, &s, c->d[0], x, m, 0);
    if (f.has_min)
        apply_min(acc, c, x, m);
}

static ALWAYS_INLINE void add_some(float (*to)[BAND_W], const struct chunk *c, int n,
                                   const struct some_x *x, struct band_format f)
{
    int m = rows_of(f);
    __m512 acc[N_X][2];
    UNROLL for (int i = 0; i < m; i++)
        UNROLL for (int h = 0; h < 2; h++)
            acc[i][h] = _mm512_load_ps(to[i] + 16 * h);
    add_chunk(acc, c, n, x, f);
    UNROLL for (int i = 0; i < m; i++)
        UNROLL for (int h = 0; h < 2; h++)
            _mm512_store_ps(to[i] + 16 * h, acc[i][h]);
}

/* Activation rows from i on; beyond the last it is repeated. */
static ALWAYS_INLINE void open_x(struct some_x *x, const struct band *b, int i,
                                 const struct source *s, struct band_format f)
{
    int m = rows_of(f);
    UNROLL for (int j = 0; j < m; j++) {
        const void *row = b->x[MIN(i + j, b->n_x - 1)];
        bool by_32 = f.scaling == STEP_32;
        x->q[j] = (const int8_t *)row + (size_t)s->block * 32;
        x->d[j] = act_d(row, b->k) + (by_32 ? s->block : s->block / 8);
        x->sum[j] = (by_32 ? act_sum_q32(row, b->k) : act_sum(row, b->k)) + s->block * 2;
        __mmask16 some = (__mmask16)((1u << (2 * s->n)) - 1);
        __m256i sum = _mm256_maskz_loadu_epi16(some, x->sum[j]);
        _mm256_storeu_si256((__m256i *)x->start[j],
                            _mm256_madd_epi16(sum, _mm256_set1_epi16((short)-f.offset)));
    }
}

static ALWAYS_INLINE void add_all(float (*acc)[BAND_W], const struct source *s,
                                  const struct chunk *c, struct band_format f)
{
    int m = rows_of(f);
    for (int i = 0; i < s->b->n_x; i += m) {
        struct some_x x;
        open_x(&x, s->b, i, s, f);
        add_some(acc + i, c, s->n, &x, f);
    }
}

/* The kinds of scaling that occur, each as code of its own. */
static void add_step_32(float (*acc)[BAND_W], const struct source *s, const struct chunk *c,
                        int offset)
{
    add_all(acc, s, c, (struct band_format){ NULL, STEP_32, offset, false });
}

static void add_scale_32(float (*acc)[BAND_W], const struct source *s, const struct chunk *c,
                         int offset)
{
    add_all(acc, s, c, (struct band_format){ NULL, SCALE_32, offset, false });
}

static void add_scale_32_min(float (*acc)[BAND_W], const struct source *s, const struct chunk *c,
                             int offset)
{
    add_all(acc, s, c, (struct band_format){ NULL, SCALE_32, offset, true });
}

static void add_step_256_min(float (*acc)[BAND_W], const struct source *s, const struct chunk *c,
                             int offset)
{
    (void)offset;
    add_all(acc, s, c, (struct band_format){ NULL, STEP_256, 0, true });
}

void cpu_band_avx512(const struct band *b, const struct band_format *f)
{
    LINE float acc[BAND_X + N_X][BAND_W];
    struct chunk c;
    struct source s;
    int n_block = b->k / 32;
    s.b = b;
    memset(acc, 0, (size_t)(b->n_x + N_X) * sizeof *acc);
    for (s.block = 0; s.block < n_block; s.block += 8) {
        s.n = MIN(8, n_block - s.block);
        f->unpack(&s, &c);
        if (f->scaling == STEP_32)
            add_step_32(acc, &s, &c, f->offset);
        else if (f->scaling == STEP_256)
            add_step_256_min(acc, &s, &c, f->offset);
        else if (f->has_min)
            add_scale_32_min(acc, &s, &c, f->offset);
        else
            add_scale_32(acc, &s, &c, f->offset);
    }
    for (int i = 0; i < b->n_x; i++)
        memcpy(b->out[i] + b->at, acc[i], (size_t)b->n_w * sizeof **acc);
}
