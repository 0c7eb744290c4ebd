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

/* Blocks b and b + 1 of a row, one in each half: their 16 first columns, their 16 last. Numbers
 * are doubled, plus 12: pairs of products still fit 16 bits when two are added. */
typedef void take_fn(__m256i w[2], const struct tile *t, int j, int b);

struct format_4 {
    take_fn *take;
    step_fn *step;
    size_t bytes;
};

static ALWAYS_INLINE __m256i twice(const int16_t *lo, const int16_t *hi)
{
    int32_t a, b;
    memcpy(&a, lo, 4);
    memcpy(&b, hi, 4);
    return _mm256_set_m128i(_mm_set1_epi32(b), _mm_set1_epi32(a));
}

/* Sums of four rows: of block b in the lower half, of block b + 1 in the upper. */
static ALWAYS_INLINE __m256i sum_pair(const struct tile *t, int i, int b, __m256i w[TILE_W][2])
{
    const __m256i *x = (const __m256i *)((const uint8_t *)t->x[i] + (size_t)b * 32);
    const int16_t *sum = act_sum_q32(t->x[i], t->k) + (size_t)b * 2;
    __m256i x0 = _mm256_loadu_si256(x), x1 = _mm256_loadu_si256(x + 1), r[TILE_W];
    __m256i first = _mm256_permute2x128_si256(x0, x1, 0x20);
    __m256i last = _mm256_permute2x128_si256(x0, x1, 0x31);
    UNROLL for (int j = 0; j < TILE_W; j++) {
        __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w[j][0], first),
                                         _mm256_maddubs_epi16(w[j][1], last));
        r[j] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(r[0], r[1]),
                                 _mm256_unpackhi_epi32(r[0], r[1]));
    __m256i c = _mm256_add_epi32(_mm256_unpacklo_epi32(r[2], r[3]),
                                 _mm256_unpackhi_epi32(r[2], r[3]));
    __m256i lifted = _mm256_madd_epi16(twice(sum, sum + 2), _mm256_set1_epi16(12));
    return _mm256_sub_epi32(_mm256_add_epi32(_mm256_unpacklo_epi64(a, c),
                                             _mm256_unpackhi_epi64(a, c)), lifted);
}

static ALWAYS_INLINE __m128 add_pair(const struct tile *t, int i, int b, __m256i w[TILE_W][2],
                                     __m256 d, __m128 acc)
{
    const float *dx = act_d(t->x[i], t->k) + b;
    __m256 step = _mm256_mul_ps(d, _mm256_set_m128(_mm_set1_ps(dx[1]), _mm_set1_ps(dx[0])));
    __m256 sum = _mm256_cvtepi32_ps(sum_pair(t, i, b, w));
    acc = _mm_fmadd_ps(_mm256_castps256_ps128(step), _mm256_castps256_ps128(sum), acc);
    return _mm_fmadd_ps(_mm256_extractf128_ps(step, 1), _mm256_extractf128_ps(sum, 1), acc);
}

/* The last of an odd number of blocks: as a pair with itself, of which one is used. */
static ALWAYS_INLINE __m128 add_last(const struct tile *t, int i, int b, __m256i w[TILE_W][2],
                                     __m256 d, __m128 acc)
{
    const uint8_t *x = (const uint8_t *)t->x[i] + (size_t)b * 32;
    __m256i v = _mm256_loadu_si256((const __m256i *)x), r[TILE_W];
    UNROLL for (int j = 0; j < TILE_W; j++) {
        __m256i both = _mm256_permute2x128_si256(w[j][0], w[j][1], 0x20);
        r[j] = _mm256_madd_epi16(_mm256_maddubs_epi16(both, v), _mm256_set1_epi16(1));
    }
    const int16_t *sum = act_sum_q32(t->x[i], t->k) + (size_t)b * 2;
    __m128i lifted = _mm_set1_epi32(12 * (sum[0] + sum[1]));
    __m128i s = _mm_sub_epi32(sum_4x8(r[0], r[1], r[2], r[3]), lifted);
    __m128 dx = _mm_broadcast_ss(act_d(t->x[i], t->k) + b);
    __m128 step = _mm_mul_ps(_mm256_castps256_ps128(d), dx);
    return _mm_fmadd_ps(step, _mm_cvtepi32_ps(s), acc);
}

static ALWAYS_INLINE void tile_4(const struct tile *t, int i, struct format_4 f)
{
    __m128 acc = _mm_setzero_ps();
    int n_block = t->k / 32;
    for (int b = 0; b < n_block; b += 2) {
        __m256i w[TILE_W][2];
        int next = MIN(b + 1, n_block - 1);
        UNROLL for (int j = 0; j < TILE_W; j++) {
            f.take(w[j], t, j, b);
            fetch_ahead(t, j, (size_t)b * f.bytes);
        }
        __m256 d = _mm256_set_m128(f.step(t, next), f.step(t, b));
        acc = next > b ? add_pair(t, i, b, w, d, acc) : add_last(t, i, b, w, d, acc);
    }
    put_4(t->out[i] + t->at, acc, t->n_w);
}

/* More than one activation row go through bands. */
static ALWAYS_INLINE void tile_4_any(const struct tile *t, struct format_4 f)
{
    for (int i = 0; i < t->n_x; i++)
        tile_4(t, i, f);
}

static ALWAYS_INLINE __m256i e2m1_lifted(__m256i code)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(code, _mm256_set1_epi8(15)));
}

static ALWAYS_INLINE __m256i two_blocks(const struct tile *t, int j, int b, size_t bytes, size_t at)
{
    const uint8_t *p = t->w[j] + at;
    size_t next = (size_t)MIN(b + 1, t->k / 32 - 1);
    __m128i lo = _mm_loadu_si128((const __m128i *)(p + (size_t)b * bytes));
    __m256i v = _mm256_castsi128_si256(lo);
    return _mm256_inserti128_si256(v, _mm_loadu_si128((const __m128i *)(p + next * bytes)), 1);
}

static ALWAYS_INLINE void take_mxfp4(__m256i w[2], const struct tile *t, int j, int b)
{
    __m256i v = two_blocks(t, j, b, 17, 1);
    w[0] = e2m1_lifted(v);
    w[1] = e2m1_lifted(_mm256_srli_epi16(v, 4));
}

static ALWAYS_INLINE __m128 step_mxfp4(const struct tile *t, int b)
{
    size_t at = (size_t)b * 17;
    return e8m0_half(_mm_setr_epi32(t->w[0][at], t->w[1][at], t->w[2][at], t->w[3][at]));
}

static void tile_mxfp4(const struct tile *t)
{
    tile_4_any(t, (struct format_4){ take_mxfp4, step_mxfp4, 17 });
}

/* Columns alternate between low and high nibbles. */
static ALWAYS_INLINE void take_fp4(__m256i w[2], const struct tile *t, int j, int b)
{
    __m256i v = two_blocks(t, j, b, 16, 0);
    __m256i even = e2m1_lifted(v), odd = e2m1_lifted(_mm256_srli_epi16(v, 4));
    w[0] = _mm256_unpacklo_epi8(even, odd);
    w[1] = _mm256_unpackhi_epi8(even, odd);
}

static ALWAYS_INLINE __m128 step_fp4(const struct tile *t, int b)
{
    return e8m0_half(
        _mm_setr_epi32(t->scale[0][b], t->scale[1][b], t->scale[2][b], t->scale[3][b]));
}

static void tile_fp4(const struct tile *t)
{
    tile_4_any(t, (struct format_4){ take_fp4, step_fp4, 16 });
}

void cpu_q32_avx2(struct cpu_kernels *k)
{
    k->product[DT_Q8_0].tile = tile_q8_0;
    k->product[DT_MXFP4].tile = tile_mxfp4;
    k->product[TYPE_SLOT(DT_FP4)].tile = tile_fp4;
}
