/* q32_avx2.c - products with weights in blocks of 32: Q8_0, MXFP4, the vendor's FP4.
 *
 * Four weight rows against one activation row at a time: their four integer sums then fill one
 * vector, and one multiply-add applies four steps. Unsigned times signed bytes is what the
 * instruction offers, so the weight's sign moves to the activation. */
#include "avx2_impl.h"

typedef __m256i load_fn(const struct tile *t, int j, int b);
typedef __m128 step_fn(const struct tile *t, int b);

struct format {
    load_fn *load; /* 32 weights, signed */
    step_fn *step; /* of four rows */
    size_t bytes;
};

static ALWAYS_INLINE __m256i dot_32(__m256i size, __m256i w, __m256i x)
{
    __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x, w));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* One block of each of four rows. */
struct four {
    __m256i w[TILE_W], size[TILE_W]; /* weights and their absolute values */
    __m128 d;
};

static ALWAYS_INLINE __m128 add_block(const struct tile *t, int i, int b, const struct four *f,
                                      __m128 acc)
{
    const uint8_t *q = (const uint8_t *)t->x[i] + (size_t)b * 32;
    __m256i x = _mm256_loadu_si256((const __m256i *)q);
    __m128i sum = sum_4x8(dot_32(f->size[0], f->w[0], x), dot_32(f->size[1], f->w[1], x),
                          dot_32(f->size[2], f->w[2], x), dot_32(f->size[3], f->w[3], x));
    __m128 step = _mm_mul_ps(f->d, _mm_broadcast_ss(act_d(t->x[i], t->k) + b));
    return _mm_fmadd_ps(step, _mm_cvtepi32_ps(sum), acc);
}

static ALWAYS_INLINE void tile_q32(const struct tile *t, struct format f, int n_x)
{
    __m128 acc[TILE_X];
    for (int i = 0; i < n_x; i++)
        acc[i] = _mm_setzero_ps();
    for (int b = 0; b < t->k / 32; b++) {
        struct four four;
        UNROLL for (int j = 0; j < TILE_W; j++) {
            four.w[j] = f.load(t, j, b);
            four.size[j] = _mm256_abs_epi8(four.w[j]);
            fetch_ahead(t, j, (size_t)b * f.bytes);
        }
        four.d = f.step(t, b);
        for (int i = 0; i < n_x; i++)
            acc[i] = add_block(t, i, b, &four, acc[i]);
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

static ALWAYS_INLINE __m256i load_q8_0(const struct tile *t, int j, int b)
{
    return _mm256_loadu_si256((const __m256i *)(t->w[j] + (size_t)b * 34 + 2));
}

static ALWAYS_INLINE __m128 step_q8_0(const struct tile *t, int b)
{
    size_t at = (size_t)b * 34;
    return f16_x4(t->w[0] + at, t->w[1] + at, t->w[2] + at, t->w[3] + at);
}

static void tile_q8_0(const struct tile *t)
{
    tile_any(t, (struct format){ load_q8_0, step_q8_0, 34 });
}

/* ---- MXFP4, FP4: two blocks at a time ------------------------------------------------------- */

/* A block of a row in each half: their 16 first columns, their 16 last. Numbers are doubled, plus
 * 12: of four products the sum fits 16 bits, and so does twice that. */
typedef void take_fn(__m256i w[2], __m256i codes);
typedef __m128i scale_fn(const struct tile *t, int b); /* E8M0 in the low bytes of lanes */

struct format_4 {
    take_fn *take;
    scale_fn *scale;
    size_t bytes, at; /* of a block; of its codes */
};

/* Two words: the first to all lanes of the lower half, the second of the upper. */
static ALWAYS_INLINE __m256i spread_two(const void *p)
{
    int64_t both;
    memcpy(&both, p, 8);
    return _mm256_castps_si256(
        _mm256_permutevar_ps(_mm256_castsi256_ps(_mm256_set1_epi64x(both)),
                             _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)));
}

/* dx times half the scale, as by e8m0_half_8(), with less: 255 becomes NaN as infinity times 0. */
static ALWAYS_INLINE __m256 step_e8m0(__m256i e, __m256 dx)
{
    __m256i bits = _mm256_srli_epi32(_mm256_slli_epi32(e, 24), 1);
    __m256 d = _mm256_castsi256_ps(_mm256_max_epi32(bits, _mm256_set1_epi32(0x400000)));
    __m256 nan = _mm256_mul_ps(d, _mm256_setzero_ps());
    return _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(.5f)), dx, nan);
}

/* Sums of 16 columns first, 16 last: rows 0 to 3 of the block in the lower half, of the upper. */
static ALWAYS_INLINE __m256i sum_rows(__m256i w[TILE_W][2], __m256i first, __m256i last)
{
    __m256i v[TILE_W], r[2];
    UNROLL for (int j = 0; j < TILE_W; j++)
        v[j] = _mm256_add_epi16(_mm256_maddubs_epi16(w[j][0], first),
                                _mm256_maddubs_epi16(w[j][1], last));
    UNROLL for (int j = 0; j < 2; j++) {
        __m256i both = _mm256_add_epi16(_mm256_unpacklo_epi64(v[2 * j], v[2 * j + 1]),
                                        _mm256_unpackhi_epi64(v[2 * j], v[2 * j + 1]));
        r[j] = _mm256_madd_epi16(both, _mm256_set1_epi16(1));
    }
    __m256 a = _mm256_castsi256_ps(r[0]), c = _mm256_castsi256_ps(r[1]);
    return _mm256_add_epi32(_mm256_castps_si256(_mm256_shuffle_ps(a, c, 0x88)),
                            _mm256_castps_si256(_mm256_shuffle_ps(a, c, 0xdd)));
}

/* An activation row. */
struct row_x {
    const uint8_t *q;
    const float *d;
    const int16_t *sum;
};

/* Sums of two blocks of four rows, and their steps. */
struct two {
    __m256i sum;
    __m256 step;
};

/* Blocks b and next. */
static ALWAYS_INLINE struct two sum_two(const struct tile *t, const struct row_x *x, int b,
                                        int next, struct format_4 f)
{
    const uint8_t *q = x->q + (size_t)b * 32, *r = x->q + (size_t)next * 32;
    __m256i w[TILE_W][2];
    UNROLL for (int j = 0; j < TILE_W; j++) {
        const uint8_t *row = t->w[j] + f.at;
        f.take(w[j], two_of(row + (size_t)b * f.bytes, row + (size_t)next * f.bytes));
        fetch_ahead(t, j, (size_t)b * f.bytes);
    }
    __m256i lift = _mm256_madd_epi16(spread_two(x->sum + (size_t)b * 2), _mm256_set1_epi16(12));
    __m256i sum = sum_rows(w, two_of(q, r), two_of(q + 16, r + 16));
    __m256 dx = _mm256_castsi256_ps(spread_two(x->d + b));
    return (struct two){ _mm256_sub_epi32(sum, lift),
                         step_e8m0(halves(f.scale(t, b), f.scale(t, next)), dx) };
}

static ALWAYS_INLINE __m128 add_first(struct two p, __m128 acc)
{
    __m256 s = _mm256_cvtepi32_ps(p.sum);
    return _mm_fmadd_ps(_mm256_castps256_ps128(p.step), _mm256_castps256_ps128(s), acc);
}

static ALWAYS_INLINE __m128 add_second(struct two p, __m128 acc)
{
    __m256 s = _mm256_cvtepi32_ps(p.sum);
    return _mm_fmadd_ps(_mm256_extractf128_ps(p.step, 1), _mm256_extractf128_ps(s, 1), acc);
}

/* More than one activation row go through bands. Two blocks are added while the next two are
 * taken: one after the other is a chain longer than what the processor looks ahead. */
static ALWAYS_INLINE void tile_4(const struct tile *t, struct format_4 f)
{
    int n_block = t->k / 32;
    for (int i = 0; i < t->n_x; i++) {
        const void *row = t->x[i];
        struct row_x x = { row, act_d(row, t->k), act_sum_q32(row, t->k) };
        struct two last = { _mm256_setzero_si256(), _mm256_setzero_ps() };
        __m128 acc = _mm_setzero_ps();
        int b = 0;
        for (; b + 1 < n_block; b += 2) {
            struct two now = sum_two(t, &x, b, b + 1, f);
            acc = add_second(last, add_first(last, acc));
            last = now;
        }
        acc = add_second(last, add_first(last, acc));
        if (b < n_block)
            acc = add_first(sum_two(t, &x, b, b, f), acc);
        put_4(t->out[i] + t->at, acc, t->n_w);
    }
}

static ALWAYS_INLINE __m256i e2m1_lifted(__m256i code)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(code, _mm256_set1_epi8(15)));
}

static ALWAYS_INLINE void take_mxfp4(__m256i w[2], __m256i v)
{
    w[0] = e2m1_lifted(v);
    w[1] = e2m1_lifted(_mm256_srli_epi16(v, 4));
}

static ALWAYS_INLINE __m128i scale_mxfp4(const struct tile *t, int b)
{
    int32_t e[TILE_W];
    UNROLL for (int j = 0; j < TILE_W; j++)
        memcpy(&e[j], t->w[j] + (size_t)b * 17, 4);
    return _mm_setr_epi32(e[0], e[1], e[2], e[3]);
}

static void tile_mxfp4(const struct tile *t)
{
    tile_4(t, (struct format_4){ take_mxfp4, scale_mxfp4, 17, 1 });
}

/* Columns alternate between low and high nibbles. */
static ALWAYS_INLINE void take_fp4(__m256i w[2], __m256i v)
{
    __m256i even = e2m1_lifted(v), odd = e2m1_lifted(_mm256_srli_epi16(v, 4));
    w[0] = _mm256_unpacklo_epi8(even, odd);
    w[1] = _mm256_unpackhi_epi8(even, odd);
}

static ALWAYS_INLINE __m128i scale_fp4(const struct tile *t, int b)
{
    return _mm_setr_epi32(t->scale[0][b], t->scale[1][b], t->scale[2][b], t->scale[3][b]);
}

static void tile_fp4(const struct tile *t)
{
    tile_4(t, (struct format_4){ take_fp4, scale_fp4, 16, 0 });
}

void cpu_q32_avx2(struct cpu_kernels *k)
{
    k->product[DT_Q8_0].tile = tile_q8_0;
    k->product[DT_MXFP4].tile = tile_mxfp4;
    k->product[TYPE_SLOT(DT_FP4)].tile = tile_fp4;
}
