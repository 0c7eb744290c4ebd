/* q256_avx2.c - products with weights in blocks of 256: Q2_K, Q4_K, IQ2_XXS.
 *
 * A block of four rows is unpacked to unsigned bytes and 16-bit scales, then multiplied by every
 * activation row: the unpacking is paid once. Scales are applied by the instruction that adds
 * pairs anyway. Signed weights become unsigned by an offset of 43, the largest magnitude; what
 * it adds is taken away through the sums of the activations, exactly. */
#include "avx2_impl.h"

#include "half.h"
#include "iq_tables.h"

/* What a row's block needs before its eight groups of 32 can be taken one by one. */
struct block {
    const uint8_t *src;
    __m256i part[2]; /* the type's own */
    uint32_t sign[8], scale[8];
    __m256i min; /* 16 factors of the activations' 16 sums */
    float d, dmin;
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
    bool has_min;
};

static ALWAYS_INLINE __m256i add_group(__m256i sum, struct group w, const __m256i *x)
{
    __m256i pairs = _mm256_maddubs_epi16(w.q, _mm256_loadu_si256(x));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, w.scale));
}

/* acc plus the sums of four rows, still lane by lane, with their steps and minima; x_sum, dx: of
 * the same block of activations. */
static ALWAYS_INLINE __m128 add_sums(const struct block *w, const __m256i sum[TILE_W],
                                     __m256i x_sum, __m128 dx, bool has_min, __m128 acc)
{
    __m128 d = _mm_mul_ps(_mm_setr_ps(w[0].d, w[1].d, w[2].d, w[3].d), dx);
    __m256i min[TILE_W], s[TILE_W];
    UNROLL for (int j = 0; j < TILE_W; j++) {
        min[j] = _mm256_madd_epi16(w[j].min, x_sum);
        s[j] = has_min ? sum[j] : _mm256_sub_epi32(sum[j], min[j]); /* the offset */
    }
    acc = _mm_fmadd_ps(d, _mm_cvtepi32_ps(sum_4x8(s[0], s[1], s[2], s[3])), acc);
    if (!has_min)
        return acc;
    __m128 dmin = _mm_mul_ps(_mm_setr_ps(w[0].dmin, w[1].dmin, w[2].dmin, w[3].dmin), dx);
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

/* One activation row: groups go from unpacking straight into the sums. */
static ALWAYS_INLINE void tile_one(const struct tile *t, struct format f)
{
    __m128 acc = _mm_setzero_ps();
    for (int b = 0; b < t->k / 256; b++) {
        const __m256i *x = x_block(t, 0, b);
        struct block w[TILE_W];
        open_blocks(t, f, b, w);
        __m256i sum[TILE_W];
        UNROLL for (int j = 0; j < TILE_W; j++)
            sum[j] = dot_taken(&w[j], f, x);
        acc = add_sums(w, sum, x_sums(t, 0, b), x_step(t, 0, b), f.has_min, acc);
    }
    put_4(t->out[0] + t->at, acc, t->n_w);
}

/* Blocks number `at` of four rows in memory, a group of 32 columns after the other. */
struct four {
    struct block w[TILE_W];
    struct group g[8][TILE_W];
    int at;
};

/* Sums of four rows with n_x activation rows, lane by lane: what is loaded is used for all, since
 * loads are the scarcest. */
static ALWAYS_INLINE void dot_four(__m256i sum[][TILE_W], const struct four *w,
                                   const __m256i *const *x, int n_x)
{
    UNROLL for (int i = 0; i < n_x; i++)
        UNROLL for (int j = 0; j < TILE_W; j++)
            sum[i][j] = _mm256_setzero_si256();
    for (int g = 0; g < 8; g++)
        UNROLL for (int j = 0; j < TILE_W; j++)
            UNROLL for (int i = 0; i < n_x; i++)
                sum[i][j] = add_group(sum[i][j], w->g[g][j], x[i] + g);
}

/* Activation rows i .. i+n_x-1. */
static ALWAYS_INLINE void add_rows(const struct tile *t, int i, int n_x, const struct four *w,
                                   bool has_min, __m128 *acc)
{
    __m256i sum[2][TILE_W];
    const __m256i *x[2];
    UNROLL for (int e = 0; e < n_x; e++)
        x[e] = x_block(t, i + e, w->at);
    dot_four(sum, w, x, n_x);
    UNROLL for (int e = 0; e < n_x; e++)
        acc[i + e] = add_sums(w->w, sum[e], x_sums(t, i + e, w->at), x_step(t, i + e, w->at),
                              has_min, acc[i + e]);
}

/* Several: the four blocks are unpacked to memory first. */
static ALWAYS_INLINE void tile_many(const struct tile *t, struct format f)
{
    __m128 acc[TILE_X];
    for (int i = 0; i < t->n_x; i++)
        acc[i] = _mm_setzero_ps();
    for (int b = 0; b < t->k / 256; b++) {
        struct four w;
        w.at = b;
        open_blocks(t, f, b, w.w);
        UNROLL for (int j = 0; j < TILE_W; j++)
            UNROLL for (int g = 0; g < 8; g++)
                f.take(&w.g[g][j], &w.w[j], g);
        int i = 0;
        for (; i + 1 < t->n_x; i += 2)
            add_rows(t, i, 2, &w, f.has_min, acc);
        if (i < t->n_x)
            add_rows(t, i, 1, &w, f.has_min, acc);
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
    b->d = f16_of(src + 80);
    b->dmin = f16_of(src + 82);
}

static ALWAYS_INLINE void take_q2_k(struct group *to, const struct block *b, int g)
{
    __m256i q = _mm256_loadu_si256((const __m256i *)(b->src + g / 4 * 32));
    q = _mm256_and_si256(_mm256_srli_epi16(q, g % 4 * 2), _mm256_set1_epi8(3));
    *to = (struct group){ q, spread_u16(b->part[0], g) };
}

static void tile_q2_k(const struct tile *t)
{
    tile_q256(t, (struct format){ open_q2_k, take_q2_k, 84, true });
}

static ALWAYS_INLINE void open_q4_k(struct block *b, const uint8_t *src)
{
    uint32_t u[3];
    memcpy(u, src + 4, 12);
    uint32_t scale_hi = (u[2] & 0x0f0f0f0f) | (u[0] >> 6 & 0x03030303) << 4;
    uint32_t min_hi = (u[2] >> 4 & 0x0f0f0f0f) | (u[1] >> 6 & 0x03030303) << 4;
    __m128i scale = _mm_setr_epi32((int)(u[0] & 0x3f3f3f3f), (int)scale_hi, 0, 0);
    __m128i min = _mm_setr_epi32((int)(u[1] & 0x3f3f3f3f), (int)min_hi, 0, 0);
    b->src = src + 16;
    b->part[0] = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(scale));
    b->min = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(min, min));
    b->d = f16_of(src);
    b->dmin = f16_of(src + 2);
}

static ALWAYS_INLINE void take_q4_k(struct group *to, const struct block *b, int g)
{
    __m256i q = _mm256_loadu_si256((const __m256i *)(b->src + g / 2 * 32));
    q = _mm256_and_si256(_mm256_srli_epi16(q, g % 2 * 4), _mm256_set1_epi8(15));
    *to = (struct group){ q, spread_u16(b->part[0], g) };
}

static void tile_q4_k(const struct tile *t)
{
    tile_q256(t, (struct format){ open_q4_k, take_q4_k, 144, true });
}

/* The 28 sign bits of eight groups to 32 bytes: fields of seven, and their parity on top. */
static ALWAYS_INLINE __m256i sign_bytes(__m256i rest)
{
    const __m256i parity = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    __m256i f = _mm256_and_si256(rest, _mm256_set1_epi32(0x7f));
    f = _mm256_or_si256(f, _mm256_and_si256(_mm256_slli_epi32(rest, 1), _mm256_set1_epi32(0x7f00)));
    f = _mm256_or_si256(f,
                        _mm256_and_si256(_mm256_slli_epi32(rest, 2), _mm256_set1_epi32(0x7f0000)));
    f = _mm256_or_si256(
        f, _mm256_and_si256(_mm256_slli_epi32(rest, 3), _mm256_set1_epi32(0x7f000000)));
    __m256i fold = _mm256_and_si256(_mm256_xor_si256(f, _mm256_srli_epi16(f, 4)),
                                    _mm256_set1_epi8(15));
    return _mm256_or_si256(f, _mm256_shuffle_epi8(parity, fold));
}

static ALWAYS_INLINE void open_iq2_xxs(struct block *b, const uint8_t *src)
{
    __m256i lo = _mm256_loadu_si256((const __m256i *)(src + 2));
    __m256i hi = _mm256_loadu_si256((const __m256i *)(src + 34));
    __m256i odd = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi), 0xdd));
    __m256i rest = _mm256_permute4x64_epi64(odd, 0xd8); /* the second word of every group */
    __m256i n = _mm256_srli_epi32(rest, 28);
    __m256i scale = _mm256_or_si256(_mm256_add_epi32(n, n), _mm256_set1_epi32(1));
    scale = _mm256_or_si256(scale, _mm256_slli_epi32(scale, 16));
    _mm256_storeu_si256((__m256i *)b->sign, sign_bytes(rest));
    _mm256_storeu_si256((__m256i *)b->scale, scale);
    b->src = src + 2;
    b->min = _mm256_mullo_epi16(scale, _mm256_set1_epi16(43)); /* a scale serves two sums of 16 */
    b->d = f16_of(src) * .125f;
}

static ALWAYS_INLINE void take_iq2_xxs(struct group *to, const struct block *b, int g)
{
    const __m256i byte_of = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2,
                                             2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit_of = _mm256_set1_epi64x((long long)0x8040201008040201);
    uint32_t index;
    memcpy(&index, b->src + 8 * g, 4);
    __m256i size = _mm256_set_epi64x(
        (long long)iq2_xxs_grid[index >> 24], (long long)iq2_xxs_grid[index >> 16 & 255],
        (long long)iq2_xxs_grid[index >> 8 & 255], (long long)iq2_xxs_grid[index & 255]);
    __m256i s = _mm256_shuffle_epi8(_mm256_set1_epi32((int)b->sign[g]), byte_of);
    __m256i minus = _mm256_cmpeq_epi8(_mm256_and_si256(s, bit_of), bit_of);
    /* -x is ~x + 1; 43 is added in the same step. */
    __m256i q = _mm256_add_epi8(_mm256_xor_si256(size, minus),
                                _mm256_sub_epi8(_mm256_set1_epi8(43), minus));
    *to = (struct group){ q, _mm256_set1_epi32((int)b->scale[g]) };
}

static void tile_iq2_xxs(const struct tile *t)
{
    tile_q256(t, (struct format){ open_iq2_xxs, take_iq2_xxs, 66, false });
}

void cpu_q256_avx2(struct cpu_kernels *k)
{
    k->product[DT_Q2_K].tile = tile_q2_k;
    k->product[DT_Q4_K].tile = tile_q4_k;
    k->product[DT_IQ2_XXS].tile = tile_iq2_xxs;
}
