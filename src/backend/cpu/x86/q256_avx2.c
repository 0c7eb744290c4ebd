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
    __m256i part[2]; /* the type's own */
    __m256i min; /* 16 factors of the activations' 16 sums */
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
};

static ALWAYS_INLINE __m256i add_group(__m256i sum, struct group w, const __m256i *x)
{
    __m256i pairs = _mm256_maddubs_epi16(w.q, _mm256_loadu_si256(x));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, w.scale));
}

/* The f16 in the low halves of lanes. */
static ALWAYS_INLINE __m128 f16_low_4(__m128i v)
{
    v = _mm_and_si128(v, _mm_set1_epi32(0xffff));
    return _mm_cvtph_ps(_mm_packus_epi32(v, v));
}

/* acc plus the sums of four rows, still lane by lane, with their steps and minima; x_sum, dx: of
 * the same block of activations. */
static ALWAYS_INLINE __m128 add_sums(const struct block *w, const __m256i sum[TILE_W],
                                     __m256i x_sum, __m128 dx, __m128 acc)
{
    __m128i steps = _mm_setr_epi32(w[0].steps, w[1].steps, w[2].steps, w[3].steps);
    __m128 d = _mm_mul_ps(f16_low_4(steps), dx);
    __m128 dmin = _mm_mul_ps(f16_low_4(_mm_srli_epi32(steps, 16)), dx);
    __m256i min[TILE_W];
    UNROLL for (int j = 0; j < TILE_W; j++)
        min[j] = _mm256_madd_epi16(w[j].min, x_sum);
    acc = _mm_fmadd_ps(d, _mm_cvtepi32_ps(sum_4x8(sum[0], sum[1], sum[2], sum[3])), acc);
    return _mm_fnmadd_ps(dmin, _mm_cvtepi32_ps(sum_4x8(min[0], min[1], min[2], min[3])), acc);
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

static ALWAYS_INLINE __m256i dot_taken(const struct block *w, struct format f, const __m256i *x)
{
    __m256i sum = _mm256_setzero_si256();
    UNROLL for (int g = 0; g < 8; g++) {
        struct group group;
        f.take(&group, w, g);
        sum = add_group(sum, group, x + g);
    }
    return sum;
}

/* Groups go from unpacking straight into the sums. */
static ALWAYS_INLINE void tile_one(const struct tile *t, int i, struct format f)
{
    __m128 acc = _mm_setzero_ps();
    for (int b = 0; b < t->k / 256; b++) {
        const __m256i *x = x_block(t, i, b);
        struct block w[TILE_W];
        open_blocks(t, f, b, w);
        __m256i sum[TILE_W];
        UNROLL for (int j = 0; j < TILE_W; j++)
            sum[j] = dot_taken(&w[j], f, x);
        acc = add_sums(w, sum, x_sums(t, i, b), x_step(t, i, b), acc);
    }
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
    __m128i min = _mm_and_si128(_mm_srli_epi16(packed, 4), _mm_set1_epi8(15));
    b->src = src + 16;
    b->part[0] = _mm256_cvtepu8_epi16(_mm_shuffle_epi8(scale, even_odd));
    b->min = _mm256_cvtepu8_epi16(min);
    memcpy(&b->steps, src + 80, 4);
}

static ALWAYS_INLINE void take_q2_k(struct group *to, const struct block *b, int g)
{
    __m256i q = _mm256_loadu_si256((const __m256i *)(b->src + g / 4 * 32));
    q = _mm256_and_si256(_mm256_srli_epi16(q, g % 4 * 2), _mm256_set1_epi8(3));
    *to = (struct group){ q, spread_u16(b->part[0], g) };
}

static void tile_q2_k(const struct tile *t)
{
    tile_q256(t, (struct format){ open_q2_k, take_q2_k, 84 });
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
    b->part[0] = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(both));
    b->min = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(both, both));
    memcpy(&b->steps, src, 4);
}

static ALWAYS_INLINE void take_q4_k(struct group *to, const struct block *b, int g)
{
    __m256i q = _mm256_loadu_si256((const __m256i *)(b->src + g / 2 * 32));
    q = _mm256_and_si256(_mm256_srli_epi16(q, g % 2 * 4), _mm256_set1_epi8(15));
    *to = (struct group){ q, spread_u16(b->part[0], g) };
}

static void tile_q4_k(const struct tile *t)
{
    tile_q256(t, (struct format){ open_q4_k, take_q4_k, 144 });
}

/* Signs go to the activations, whose negatives four weight rows share. */
struct iq2_block {
    struct iq2_signs signs;
    uint32_t scale[8]; /* in both halves */
};

static ALWAYS_INLINE float open_iq2_xxs(struct iq2_block *to, const uint8_t *src)
{
    __m256i n = _mm256_srli_epi32(iq2_rest(src), 28);
    __m256i scale = _mm256_or_si256(_mm256_add_epi32(n, n), _mm256_set1_epi32(1));
    scale = _mm256_or_si256(scale, _mm256_slli_epi32(scale, 16));
    to->signs = iq2_signs_of(src);
    _mm256_storeu_si256((__m256i *)to->scale, scale);
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
