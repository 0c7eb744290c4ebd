/* q256_avx2.c - one activation row, and for IQ2_XXS two, times weights in blocks of 256: Q2_K,
 * Q4_K, IQ2_XXS. More rows go through bands.
 *
 * Four weight rows at a time: their four integer sums fill one vector, and one multiply-add
 * applies four steps. Scales are applied by the instruction that adds pairs anyway. */
#include "avx2_impl.h"

#include "half.h"
#include "iq2_avx2_impl.h"

/* What a row's block needs before its eight groups of 32 can be taken one by one. */
struct block {
    const uint8_t *src;
    __m256i part; /* factors, as the type needs them */
    __m256i min;  /* 16 factors of the activations' 16 sums */
    int32_t steps; /* of the scales, and of the minima in the upper half */
};

struct group {
    __m256i q;     /* unsigned weights */
    __m256i scale; /* their factors, 16 bits */
};

typedef void open_fn(struct block *b, const uint8_t *src);
typedef void take_fn(struct group *to, const struct block *b, int g);

struct format {
    open_fn *open;
    take_fn *take;
    size_t bytes;
    int shift; /* sums come 2^shift times too large */
};

static ALWAYS_INLINE __m256i add_group(__m256i sum, struct group w, const __m256i *x)
{
    __m256i pairs = _mm256_maddubs_epi16(w.q, _mm256_loadu_si256(x));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, w.scale));
}

/* Sums over the lanes of four vectors, in two halves that are still to be added. */
static ALWAYS_INLINE __m256i sum_lanes(const __m256i v[TILE_W])
{
    __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]),
                                  _mm256_unpackhi_epi32(v[0], v[1]));
    __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]),
                                  _mm256_unpackhi_epi32(v[2], v[3]));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
}

/* Sums of a block of four rows and of their minima, in two halves, and the steps of both. */
struct block_sums {
    __m256i sum, min;
    __m256 d;
};

/* x_sum, dx: of the same block of activations. */
static ALWAYS_INLINE struct block_sums sum_block(const struct block *w, const __m256i sum[TILE_W],
                                                 __m256i x_sum, __m256 dx)
{
    const __m128i apart = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m128i steps = _mm_setr_epi32(w[0].steps, w[1].steps, w[2].steps, w[3].steps);
    __m256i min[TILE_W];
    UNROLL for (int j = 0; j < TILE_W; j++)
        min[j] = _mm256_madd_epi16(w[j].min, x_sum);
    __m256 d = _mm256_mul_ps(_mm256_cvtph_ps(_mm_shuffle_epi8(steps, apart)), dx);
    return (struct block_sums){ sum_lanes(sum), sum_lanes(min), d };
}

static ALWAYS_INLINE __m128 add_sums(struct block_sums p, int shift, __m128 acc)
{
    __m256i s = _mm256_add_epi32(_mm256_permute2x128_si256(p.sum, p.min, 0x20),
                                 _mm256_permute2x128_si256(p.sum, p.min, 0x31));
    __m256 v = _mm256_cvtepi32_ps(_mm256_srai_epi32(s, shift));
    acc = _mm_fmadd_ps(_mm256_castps256_ps128(p.d), _mm256_castps256_ps128(v), acc);
    return _mm_fnmadd_ps(_mm256_extractf128_ps(p.d, 1), _mm256_extractf128_ps(v, 1), acc);
}

static ALWAYS_INLINE __m256i x_sums(const struct tile *t, int i, int b)
{
    return _mm256_loadu_si256((const __m256i *)(act_sum(t->x[i], t->k) + b * 16));
}

static ALWAYS_INLINE __m128 x_step(const struct tile *t, int i, int b)
{
    return _mm_broadcast_ss(act_d(t->x[i], t->k) + b);
}

static ALWAYS_INLINE const __m256i *x_block(const struct tile *t, int i, int b)
{
    return (const __m256i *)((const uint8_t *)t->x[i] + (size_t)b * 256);
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

/* A group of all four rows at a time, from unpacking straight into the sums. */
static ALWAYS_INLINE void dot_taken(__m256i sum[TILE_W], const struct block *w, struct format f,
                                    const __m256i *x)
{
    UNROLL for (int j = 0; j < TILE_W; j++)
        sum[j] = _mm256_setzero_si256();
    UNROLL for (int g = 0; g < 8; g++)
        UNROLL for (int j = 0; j < TILE_W; j++) {
            struct group group;
            f.take(&group, &w[j], g);
            sum[j] = add_group(sum[j], group, x + g);
            __asm__("" : "+x"(sum[j])); /* in this order: a tree would not fit the registers */
        }
}

/* A block's sums are added while the next block is taken: one after the other is a chain longer
 * than what the processor looks ahead. */
static ALWAYS_INLINE void tile_one(const struct tile *t, int i, struct format f)
{
    __m128 acc = _mm_setzero_ps();
    struct block_sums last = { 0 };
    for (int b = 0; b < t->k / 256; b++) {
        struct block w[TILE_W];
        __m256i sum[TILE_W];
        open_blocks(t, f, b, w);
        acc = add_sums(last, f.shift, acc);
        dot_taken(sum, w, f, x_block(t, i, b));
        last = sum_block(w, sum, x_sums(t, i, b), _mm256_broadcastss_ps(x_step(t, i, b)));
    }
    acc = add_sums(last, f.shift, acc);
    put_4(t->out[i] + t->at, acc, t->n_w);
}

static ALWAYS_INLINE void tile_q256(const struct tile *t, struct format f)
{
    for (int i = 0; i < t->n_x; i++)
        tile_one(t, i, f);
}

static ALWAYS_INLINE float f16_of(const uint8_t *p)
{
    return _cvtsh_ss((uint16_t)(p[0] | p[1] << 8));
}

/* Sixteen-bit element 0, 1, ... of every 128-bit half to all places of that half. */
static ALWAYS_INLINE __m256i spread_u16(__m256i v, int i)
{
    return _mm256_shuffle_epi8(v, _mm256_set1_epi16((short)(0x0100 + 0x0202 * i)));
}

static ALWAYS_INLINE void open_q2_k(struct block *b, const uint8_t *src)
{
    /* Two scales serve 32 elements: even ones in the low half, odd ones in the high half. */
    const __m128i even_odd = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    __m128i packed = _mm_loadu_si128((const __m128i *)src);
    __m128i scale = _mm_and_si128(packed, _mm_set1_epi8(15));
    __m128i min = _mm_and_si128(packed, _mm_set1_epi8((char)0xf0));
    b->src = src + 16;
    b->part = _mm256_mullo_epi16(_mm256_cvtepu8_epi16(_mm_shuffle_epi8(scale, even_odd)),
                                 _mm256_set1_epi64x(0x0004000100040010));
    b->min = _mm256_cvtepu8_epi16(min);
    memcpy(&b->steps, src + 80, 4);
}

/* Weights stay where they lie in a byte, which makes them 1, 4, 16 and, of the last, 4 times as
 * large; their scales are the larger, so that every sum is 16-fold, as minima are. */
static ALWAYS_INLINE void take_q2_k(struct group *to, const struct block *b, int g)
{
    const char mask[4] = { 0x03, 0x0c, 0x30, 0x0c };
    __m256i q = _mm256_loadu_si256((const __m256i *)(b->src + g / 4 * 32));
    if (g % 4 == 3)
        q = _mm256_srli_epi16(q, 4);
    q = _mm256_and_si256(q, _mm256_set1_epi8(mask[g % 4]));
    *to = (struct group){ q, spread_u16(b->part, g) };
}

static void tile_q2_k(const struct tile *t)
{
    tile_q256(t, (struct format){ open_q2_k, take_q2_k, 84, 4 });
}

/* Eight scales and eight minima of six bits in twelve bytes u0, u1, u2: the first four of each are
 * the low bits of u0 and u1, the others nibbles of u2 with the high bits of u0 and u1 on top. */
static ALWAYS_INLINE void open_q4_k(struct block *b, const uint8_t *src)
{
    __m128i head = _mm_loadu_si128((const __m128i *)src);
    __m128i low = _mm_shuffle_epi32(head, 0xed); /* u0 u2 u1 u2 */
    low = _mm_and_si128(_mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 0, 4)),
                        _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    __m128i top = _mm_shuffle_epi32(head, 0xa5); /* u0 u0 u1 u1 */
    top = _mm_and_si128(_mm_srli_epi32(top, 2), _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
    __m128i both = _mm_or_si128(low, top);
    b->src = src + 16;
    b->part = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(both));
    b->min = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(both, both));
    memcpy(&b->steps, src, 4);
}

static ALWAYS_INLINE void take_q4_k(struct group *to, const struct block *b, int g)
{
    __m256i q = _mm256_loadu_si256((const __m256i *)(b->src + g / 2 * 32));
    q = _mm256_and_si256(_mm256_srli_epi16(q, g % 2 * 4), _mm256_set1_epi8(15));
    *to = (struct group){ q, spread_u16(b->part, g) };
}

static void tile_q4_k(const struct tile *t)
{
    tile_q256(t, (struct format){ open_q4_k, take_q4_k, 144, 0 });
}

/* Signs go to the activations, whose negatives four weight rows share. */
struct iq2_block {
    struct iq2_signs signs;
    uint32_t scale[8]; /* in both halves */
};

static ALWAYS_INLINE float open_iq2_xxs(struct iq2_block *to, const uint8_t *src)
{
    __m256i rest = iq2_rest(src), n = _mm256_srli_epi32(rest, 28);
    __m256i scale = _mm256_or_si256(_mm256_add_epi32(n, n), _mm256_set1_epi32(1));
    scale = _mm256_or_si256(scale, _mm256_slli_epi32(scale, 16));
    iq2_signs_of(&to->signs, rest);
    _mm256_storeu_si256((__m256i *)to->scale, _mm256_permute4x64_epi64(scale, 0xd8));
    __asm__("" : "+m"(to->scale));
    return f16_of(src) * .125f;
}

/* What is unpacked serves n_x activation rows, 1 or 2. */
static ALWAYS_INLINE void dot_iq2_xxs(__m256i sum[][TILE_W], const struct iq2_block *w,
                                      const uint8_t *const *src, const __m256i *const *x, int n_x)
{
    UNROLL for (int i = 0; i < n_x; i++)
        UNROLL for (int j = 0; j < TILE_W; j++)
            sum[i][j] = _mm256_setzero_si256();
    UNROLL for (int g = 0; g < 8; g++) {
        __m256i plus[2], minus[2];
        UNROLL for (int i = 0; i < n_x; i++) {
            plus[i] = _mm256_loadu_si256(x[i] + g);
            minus[i] = _mm256_sub_epi8(_mm256_setzero_si256(), plus[i]);
        }
        UNROLL for (int j = 0; j < TILE_W; j++) {
            __m256i size = iq2_size(src[j], g), sign = iq2_sign(&w[j].signs, g);
            __m256i scale = _mm256_set1_epi32((int)w[j].scale[g]);
            UNROLL for (int i = 0; i < n_x; i++) {
                __m256i v = _mm256_blendv_epi8(plus[i], minus[i], sign);
                __m256i pairs = _mm256_maddubs_epi16(size, v);
                sum[i][j] = _mm256_add_epi32(sum[i][j], _mm256_madd_epi16(pairs, scale));
            }
        }
    }
}

/* Activation rows i .. i+n_x-1. */
static ALWAYS_INLINE void rows_iq2_xxs(const struct tile *t, int i, int n_x)
{
    __m128 acc[2] = { _mm_setzero_ps(), _mm_setzero_ps() };
    for (int b = 0; b < t->k / 256; b++) {
        const uint8_t *src[TILE_W];
        const __m256i *x[2];
        struct iq2_block w[TILE_W];
        __m256i s[2][TILE_W];
        float d[TILE_W];
        UNROLL for (int j = 0; j < TILE_W; j++) {
            src[j] = t->w[j] + (size_t)b * 66;
            d[j] = open_iq2_xxs(&w[j], src[j]);
            fetch_ahead(t, j, (size_t)b * 66);
            fetch_ahead(t, j, (size_t)b * 66 + 64);
        }
        UNROLL for (int e = 0; e < n_x; e++)
            x[e] = x_block(t, i + e, b);
        dot_iq2_xxs(s, w, src, x, n_x);
        UNROLL for (int e = 0; e < n_x; e++) {
            __m128 step = _mm_mul_ps(_mm_setr_ps(d[0], d[1], d[2], d[3]), x_step(t, i + e, b));
            __m128i sum = sum_4x8(s[e][0], s[e][1], s[e][2], s[e][3]);
            acc[e] = _mm_fmadd_ps(step, _mm_cvtepi32_ps(sum), acc[e]);
        }
    }
    UNROLL for (int e = 0; e < n_x; e++)
        put_4(t->out[i + e] + t->at, acc[e], t->n_w);
}

static void tile_iq2_xxs(const struct tile *t)
{
    int i = 0;
    for (; i + 1 < t->n_x; i += 2)
        rows_iq2_xxs(t, i, 2);
    if (i < t->n_x)
        rows_iq2_xxs(t, i, 1);
}

void cpu_q256_avx2(struct cpu_kernels *k)
{
    k->product[DT_Q2_K].tile = tile_q2_k;
    k->product[DT_Q4_K].tile = tile_q4_k;
    k->product[DT_IQ2_XXS].tile = tile_iq2_xxs;
}
