/* band_avx2.c - a band: 32 weight rows by many activation rows, in integers.
 *
 * A vector holds 4 columns of 8 weight rows; the instruction that multiplies bytes leaves sums of
 * two columns in 16 bits. As many of those as fit are added there, and only then widened, by the
 * instruction that also applies an integer factor: widening every one would double the work of
 * the two ports that multiply. Nothing is summed across lanes, and a step is applied to 8 weight
 * rows at once.
 *
 * Signed weights are multiplied by activations plus 128. What that adds to a sum of 16 bits does
 * not depend on the activation, so sums begin at minus that; they may wrap on the way, what they
 * end with fits. */
#include "band_avx2_impl.h"

#define N_X 4  /* activation rows at a time, at most */
#define HALF 16 /* weight rows of a turn: two vectors */

/* What is multiplied with what. */
enum factors {
    CODES,  /* unsigned weights, signed activations */
    SIGNED, /* signed weights; activations plus 128, which the starts take away */
    WIDE,   /* both in 16 bits, columns 0 2 and 1 3 of four side by side */
};

/* N_X activation rows at the columns of a chunk. */
struct some_x {
    const int8_t *q[N_X];
    const float *d[N_X];
    const int16_t *sum[N_X];
    LINE int8_t changed[N_X][2 * CHUNK]; /* as SIGNED or WIDE want them */
};

struct sums {
    __m256i v[N_X][2];
};

struct shape {
    enum factors factors;
    int run;      /* vectors of four columns whose products are added in 16 bits */
    bool by_32;   /* a float step for every 32 columns; else integer factors, a step for all */
    bool has_min;
};

/* Which rows: m activation rows, and weight rows half .. half+15 of the chunk. */
struct part {
    const struct chunk *c;
    const struct some_x *x;
    int half, m;
};

static ALWAYS_INLINE __m256i four_bytes(const void *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

static ALWAYS_INLINE __m256i load_line(const void *p)
{
    return _mm256_load_si256((const __m256i *)p);
}

/* As it is. The compiler would else add a long row of vectors in an order of its own, for which
 * there are not enough registers. */
static ALWAYS_INLINE __m256i in_order(__m256i v)
{
    __asm__("" : "+x"(v));
    return v;
}

static ALWAYS_INLINE void fill(struct sums *s, int m, __m256i lo, __m256i hi)
{
    UNROLL for (int i = 0; i < m; i++) {
        s->v[i][0] = lo;
        s->v[i][1] = hi;
    }
}

/* s plus, in 16 bits, n times four columns from vector k on. */
static ALWAYS_INLINE void add_run(struct sums *s, struct part p, int k, int n, bool is_signed)
{
    UNROLL for (int e = 0; e < n; e++) {
        const uint8_t(*q)[4] = p.c->q[k + e] + p.half;
        __m256i lo = load_line(q), hi = load_line(q + OCT);
        UNROLL for (int i = 0; i < p.m; i++) {
            __m256i v = four_bytes(p.x->q[i] + 4 * (k + e));
            __m256i a = is_signed ? _mm256_maddubs_epi16(v, lo) : _mm256_maddubs_epi16(lo, v);
            __m256i b = is_signed ? _mm256_maddubs_epi16(v, hi) : _mm256_maddubs_epi16(hi, v);
            s->v[i][0] = in_order(_mm256_add_epi16(s->v[i][0], a));
            s->v[i][1] = in_order(_mm256_add_epi16(s->v[i][1], b));
        }
    }
}

/* sum plus columns 32 g .. of the chunk. */
static ALWAYS_INLINE void add_group(struct sums *sum, struct part p, int g, struct shape f)
{
    __m256i lo = _mm256_set1_epi16(1), hi = lo, zero = _mm256_setzero_si256();
    int n_run = (8 + f.run - 1) / f.run;
    UNROLL for (int r = 0; r < n_run; r++) {
        struct sums s;
        const int16_t(*start)[2] = p.c->start[n_run * g + r] + p.half;
        const int16_t(*factor)[2] = p.c->factor[2 * g + (f.run == 4 ? r : 0)] + p.half;
        if (f.factors == SIGNED)
            fill(&s, p.m, load_line(start), load_line(start + OCT));
        else
            fill(&s, p.m, zero, zero);
        add_run(&s, p, 8 * g + r * f.run, MIN(f.run, 8 - r * f.run), f.factors == SIGNED);
        if (!f.by_32) {
            lo = load_line(factor);
            hi = load_line(factor + OCT);
        }
        UNROLL for (int i = 0; i < p.m; i++) {
            sum->v[i][0] = _mm256_add_epi32(sum->v[i][0], _mm256_madd_epi16(s.v[i][0], lo));
            sum->v[i][1] = _mm256_add_epi32(sum->v[i][1], _mm256_madd_epi16(s.v[i][1], hi));
        }
    }
}

/* The same where nothing can be added in 16 bits. */
static ALWAYS_INLINE void add_wide(struct sums *sum, struct part p, int g)
{
    UNROLL for (int k = 0; k < 16; k++) {
        const int16_t(*w)[2] = p.c->wide[16 * g + k] + p.half;
        __m256i lo = load_line(w), hi = load_line(w + OCT);
        UNROLL for (int i = 0; i < p.m; i++) {
            __m256i v = four_bytes(p.x->q[i] + 64 * g + 4 * k);
            __m256i a = _mm256_madd_epi16(lo, v), b = _mm256_madd_epi16(hi, v);
            sum->v[i][0] = in_order(_mm256_add_epi32(sum->v[i][0], a));
            sum->v[i][1] = in_order(_mm256_add_epi32(sum->v[i][1], b));
        }
    }
}

/* acc := fma(d dx, s, acc) */
static ALWAYS_INLINE void apply_step(__m256 acc[N_X][2], const struct sums *s, struct part p, int g)
{
    const float *d = p.c->d[g] + p.half;
    __m256 lo = _mm256_load_ps(d), hi = _mm256_load_ps(d + OCT);
    UNROLL for (int i = 0; i < p.m; i++) {
        __m256 dx = _mm256_broadcast_ss(p.x->d[i] + g);
        acc[i][0] = _mm256_fmadd_ps(_mm256_mul_ps(lo, dx), _mm256_cvtepi32_ps(s->v[i][0]),
                                    acc[i][0]);
        acc[i][1] = _mm256_fmadd_ps(_mm256_mul_ps(hi, dx), _mm256_cvtepi32_ps(s->v[i][1]),
                                    acc[i][1]);
    }
}

/* acc := fma(-(dmin dx), m, acc), m from the sums of 16 activations. */
static ALWAYS_INLINE void apply_min(__m256 acc[N_X][2], struct part p)
{
    struct sums min;
    fill(&min, p.m, _mm256_setzero_si256(), _mm256_setzero_si256());
    UNROLL for (int g = 0; g < 8; g++) {
        const int16_t(*w)[2] = p.c->min[g] + p.half;
        __m256i lo = load_line(w), hi = load_line(w + OCT);
        UNROLL for (int i = 0; i < p.m; i++) {
            __m256i v = four_bytes(p.x->sum[i] + 2 * g);
            __m256i a = _mm256_madd_epi16(lo, v), b = _mm256_madd_epi16(hi, v);
            min.v[i][0] = in_order(_mm256_add_epi32(min.v[i][0], a));
            min.v[i][1] = in_order(_mm256_add_epi32(min.v[i][1], b));
        }
    }
    __m256 lo = _mm256_load_ps(p.c->dmin + p.half), hi = _mm256_load_ps(p.c->dmin + p.half + OCT);
    UNROLL for (int i = 0; i < p.m; i++) {
        __m256 dx = _mm256_broadcast_ss(p.x->d[i]);
        acc[i][0] = _mm256_fnmadd_ps(_mm256_mul_ps(lo, dx), _mm256_cvtepi32_ps(min.v[i][0]),
                                     acc[i][0]);
        acc[i][1] = _mm256_fnmadd_ps(_mm256_mul_ps(hi, dx), _mm256_cvtepi32_ps(min.v[i][1]),
                                     acc[i][1]);
    }
}

/* acc plus the n blocks of a chunk. */
static ALWAYS_INLINE void add_chunk(__m256 acc[N_X][2], struct part p, int n, struct shape f)
{
    struct sums s;
    fill(&s, p.m, _mm256_setzero_si256(), _mm256_setzero_si256());
    for (int g = 0; g < n; g++) {
        if (f.factors == WIDE)
            add_wide(&s, p, g);
        else
            add_group(&s, p, g, f);
        if (!f.by_32)
            continue;
        apply_step(acc, &s, p, g);
        fill(&s, p.m, _mm256_setzero_si256(), _mm256_setzero_si256());
    }
    if (!f.by_32)
        apply_step(acc, &s, p, 0);
    if (f.has_min)
        apply_min(acc, p);
}

/* Columns of an activation row, n blocks of 32, in the form that weights want. */
static ALWAYS_INLINE void change_x(int8_t *to, const int8_t *q, int n, enum factors factors)
{
    for (int g = 0; g < n; g++) {
        __m256i v = load_256(q + 32 * g);
        if (factors == SIGNED) {
            store_256(to + 32 * g, _mm256_xor_si256(v, _mm256_set1_epi8(-128)));
            continue;
        }
        store_256(to + 64 * g, _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8));
        store_256(to + 64 * g + 32, _mm256_srai_epi16(v, 8));
    }
}

/* Activation rows from i on; beyond the last it is repeated. */
static ALWAYS_INLINE void open_x(struct some_x *x, const struct source *s, int i, int m,
                                 struct shape f)
{
    const struct band *b = s->b;
    UNROLL for (int j = 0; j < m; j++) {
        const void *row = b->x[MIN(i + j, b->n_x - 1)];
        x->q[j] = (const int8_t *)row + (size_t)s->block * 32;
        x->d[j] = act_d(row, b->k) + (f.by_32 ? s->block : s->block / 8);
        x->sum[j] = act_sum(row, b->k) + s->block * 2;
        if (f.factors == CODES)
            continue;
        change_x(x->changed[j], x->q[j], s->n, f.factors);
        x->q[j] = x->changed[j];
    }
}

/* Activation rows i0 .. i0+m-1. */
static ALWAYS_INLINE void add_some(float (*to)[BAND_W], const struct source *s,
                                   const struct chunk *c, int i0, int m, struct shape f)
{
    struct some_x x;
    open_x(&x, s, i0, m, f);
    to += i0;
    for (int half = 0; half < BAND_W; half += HALF) {
        __m256 acc[N_X][2];
        UNROLL for (int i = 0; i < m; i++)
            UNROLL for (int h = 0; h < 2; h++)
                acc[i][h] = _mm256_load_ps(to[i] + half + OCT * h);
        add_chunk(acc, (struct part){ c, &x, half, m }, s->n, f);
        UNROLL for (int i = 0; i < m; i++)
            UNROLL for (int h = 0; h < 2; h++)
                _mm256_store_ps(to[i] + half + OCT * h, acc[i][h]);
    }
}

/* By fours, and what is left by threes and twos; of one row the second is thrown away. */
static ALWAYS_INLINE void add_all(float (*acc)[BAND_W], const struct source *s,
                                  const struct chunk *c, struct shape f)
{
    int i = 0, n_x = s->b->n_x;
    for (; n_x - i == 4 || n_x - i > 6; i += 4)
        add_some(acc, s, c, i, 4, f);
    for (; n_x - i > 2; i += 3)
        add_some(acc, s, c, i, 3, f);
    if (n_x > i)
        add_some(acc, s, c, i, 2, f);
}

/* What differs between formats, each as code of its own. */
void cpu_add_wide_32(float (*acc)[BAND_W], const struct source *s, const struct chunk *c)
{
    add_all(acc, s, c, (struct shape){ .factors = WIDE, .by_32 = true });
}

void cpu_add_signed_32(float (*acc)[BAND_W], const struct source *s, const struct chunk *c)
{
    add_all(acc, s, c, (struct shape){ .factors = SIGNED, .run = 8, .by_32 = true });
}

void cpu_add_signed(float (*acc)[BAND_W], const struct source *s, const struct chunk *c)
{
    add_all(acc, s, c, (struct shape){ .factors = SIGNED, .run = 3 });
}

void cpu_add_codes_4(float (*acc)[BAND_W], const struct source *s, const struct chunk *c)
{
    add_all(acc, s, c, (struct shape){ .factors = CODES, .run = 4, .has_min = true });
}

void cpu_add_codes_8(float (*acc)[BAND_W], const struct source *s, const struct chunk *c)
{
    add_all(acc, s, c, (struct shape){ .factors = CODES, .run = 8, .has_min = true });
}

void cpu_band_avx2(const struct band *b, const struct band_format *f)
{
    LINE float acc[BAND_X + N_X][BAND_W];
    struct chunk c;
    struct source s = { .b = b };
    int n_block = b->k / 32;
    memset(acc, 0, (size_t)(b->n_x + N_X) * sizeof *acc);
    for (s.block = 0; s.block < n_block; s.block += 8) {
        s.n = MIN(8, n_block - s.block);
        f->unpack(&s, &c);
        f->add(acc, &s, &c);
    }
    for (int i = 0; i < b->n_x; i++)
        memcpy(b->out[i] + b->at, acc[i], (size_t)b->n_w * sizeof **acc);
}
