/* few256_avx512.c - few activation rows times weights in blocks of 256: Q2_K, Q4_K, IQ2_XXS.
 *
 * Integer factors are applied while a vector still belongs to one weight row, so that one sum per
 * block and row is left. Columns stand in the order in which the format's bits unpack. */
#include "few_impl.h"
#include "iq2_impl.h"

#define STAGE_X 32 /* blocks times activation rows of a stage, at most */
#define STAGE_T 16 /* blocks of a stage, at most */

/* A block of an activation row. */
struct block_x {
    LINE int8_t q[4][64];
    LINE int32_t start[16]; /* of sums: minus what the offset adds */
    int32_t hi[4], lo[4];   /* sums that belong to minima, 128 hi + lo, in bytes */
};

/* Some blocks of all activations, and what comes of them. */
struct stage {
    const struct band *b;
    int block, n;                           /* first; how many */
    size_t distance;                        /* to what is fetched */
    struct block_x x[STAGE_X];              /* [n][n_x] */
    LINE __m512i sum[STAGE_X][HALF / QUAD]; /* [n][n_x], per quad */
    LINE int32_t head[STAGE_T][5][HALF];    /* a block's steps and minima, as stored */
    float d[STAGE_X];
    LINE float acc[FEW_MAX][BAND_W];
};

/* A block of a weight row: unsigned weights and the factors of their sums. */
struct unpacked {
    __m512i w[4], scale[4];
};

typedef void order_fn(struct block_x *x, const int8_t *q, const int16_t *sum);
typedef void take_fn(struct unpacked *to, const uint8_t *block);
typedef __m512i dot_fn(const struct unpacked *w, const struct block_x *x);
typedef void note_fn(int32_t (*head)[HALF], const uint8_t *const *block);
typedef __m512 add_fn(int32_t (*head)[HALF], __m512i sum, const struct block_x *x, __m512 dx,
                      __m512 acc);

struct format {
    order_fn *order;
    take_fn *take;
    dot_fn *dot;
    note_fn *note;
    add_fn *add;
    size_t bytes;
};

static ALWAYS_INLINE void add_quad(struct stage *s, int t, int quad, const uint8_t *const *block,
                                   int n_x, struct format f)
{
    __m512i pair[FEW_MAX][2];
    UNROLL for (int p = 0; p < 2; p++) {
        struct unpacked w[2];
        UNROLL for (int j = 0; j < 2; j++) {
            f.take(&w[j], block[2 * p + j]);
            fetch_lines(block[2 * p + j], s->distance, f.bytes);
        }
        UNROLL for (int i = 0; i < n_x; i++) {
            const struct block_x *x = &s->x[t * n_x + i];
            pair[i][p] = sum_pair(f.dot(&w[0], x), f.dot(&w[1], x));
        }
    }
    UNROLL for (int i = 0; i < n_x; i++)
        s->sum[t * n_x + i][quad] = join_pairs(pair[i][0], pair[i][1]);
}

/* Rows 4 quad .. of the band through the stage. */
static ALWAYS_INLINE void run_quad(struct stage *s, int quad, int n_x, struct format f)
{
    const struct band *b = s->b;
    const uint8_t *block[QUAD];
    size_t at = (size_t)s->block * f.bytes;
    int in_half = quad % (HALF / QUAD);
    s->distance = fetch_distance(b, quad, at, (size_t)s->n * f.bytes,
                                 (size_t)(b->k / 256) * f.bytes);
    if (s->block == 0)
        fetch_quad(b, quad);
    UNROLL for (int j = 0; j < QUAD; j++)
        block[j] = b->w[QUAD * quad + j] + at;
    for (int t = 0; t < s->n; t++) {
        f.note((int32_t (*)[HALF])&s->head[t][0][QUAD * in_half], block);
        add_quad(s, t, in_half, block, n_x, f);
        UNROLL for (int j = 0; j < QUAD; j++)
            block[j] += f.bytes;
    }
}

/* Steps applied to the sums of 16 rows. */
static ALWAYS_INLINE void add_sums(struct stage *s, int first, int n_x, struct format f)
{
    __m512 acc[FEW_MAX];
    UNROLL for (int i = 0; i < n_x; i++)
        acc[i] = _mm512_load_ps(s->acc[i] + first);
    for (int t = 0; t < s->n; t++)
        UNROLL for (int i = 0; i < n_x; i++) {
            int at = t * n_x + i;
            acc[i] = f.add(s->head[t], join_quads(s->sum[at]), &s->x[at],
                           _mm512_set1_ps(s->d[at]), acc[i]);
        }
    UNROLL for (int i = 0; i < n_x; i++)
        _mm512_store_ps(s->acc[i] + first, acc[i]);
}

static ALWAYS_INLINE void open_x(struct stage *s, int t, int i, int n_x, struct format f)
{
    const void *row = s->b->x[MIN(i, s->b->n_x - 1)];
    int block = s->block + t, at = t * n_x + i;
    f.order(&s->x[at], (const int8_t *)row + (size_t)block * 256,
            act_sum(row, s->b->k) + (size_t)block * 16);
    s->d[at] = act_d(row, s->b->k)[block];
}

static ALWAYS_INLINE void few_256(const struct band *b, int n_x, struct format f)
{
    struct stage s;
    int n_block = b->k / 256, most = MIN(STAGE_T, STAGE_X / n_x);
    s.b = b;
    memset(s.acc, 0, (size_t)n_x * sizeof *s.acc);
    for (s.block = 0; s.block < n_block; s.block += most) {
        s.n = MIN(most, n_block - s.block);
        for (int t = 0; t < s.n; t++)
            for (int i = 0; i < n_x; i++)
                open_x(&s, t, i, n_x, f);
        for (int quad = 0; quad < N_QUAD; quad++) {
            run_quad(&s, quad, n_x, f);
            if ((quad + 1) % (HALF / QUAD) == 0)
                add_sums(&s, quad / (HALF / QUAD) * HALF, n_x, f);
        }
    }
    for (int i = 0; i < b->n_x; i++)
        memcpy(b->out[i] + b->at, s.acc[i], (size_t)b->n_w * sizeof **s.acc);
}

static ALWAYS_INLINE void few_any(const struct band *b, struct format f)
{
    switch (b->n_x) {
    case 1: few_256(b, 1, f); return;
    case 2: few_256(b, 2, f); return;
    case 3: few_256(b, 3, f); return;
    case 4: few_256(b, 4, f); return;
    case 5:
    case 6: few_256(b, 6, f); return;
    default: few_256(b, 8, f); return;
    }
}

/* Sixteen bytes of each of four rows: words of the same place side by side. */
static ALWAYS_INLINE void turn_4(int32_t (*to)[HALF], __m128i a, __m128i b, __m128i c, __m128i d)
{
    __m128i ab = _mm_unpacklo_epi32(a, b), cd = _mm_unpacklo_epi32(c, d);
    __m128i ab_hi = _mm_unpackhi_epi32(a, b), cd_hi = _mm_unpackhi_epi32(c, d);
    _mm_store_si128((__m128i *)to[0], _mm_unpacklo_epi64(ab, cd));
    _mm_store_si128((__m128i *)to[1], _mm_unpackhi_epi64(ab, cd));
    _mm_store_si128((__m128i *)to[2], _mm_unpacklo_epi64(ab_hi, cd_hi));
    _mm_store_si128((__m128i *)to[3], _mm_unpackhi_epi64(ab_hi, cd_hi));
}

static ALWAYS_INLINE void note_16(int32_t (*to)[HALF], const uint8_t *const *block)
{
    __m128i v[QUAD];
    UNROLL for (int j = 0; j < QUAD; j++)
        v[j] = _mm_loadu_si128((const __m128i *)block[j]);
    turn_4(to, v[0], v[1], v[2], v[3]);
}

static ALWAYS_INLINE void note_4(int32_t *to, const uint8_t *const *block, size_t at)
{
    __m128i v = _mm_setzero_si128();
    UNROLL for (int j = 0; j < QUAD; j++)
        v = put_lane(v, j, block[j] + at);
    _mm_store_si128((__m128i *)to, v);
}

/* acc := fma(-(dmin dx), m, fma(d dx, sum, acc)); d, dmin: the halves of a stored word. */
static ALWAYS_INLINE __m512 add_both(__m512i steps, __m512i sum, __m512i m, __m512 dx, __m512 acc)
{
    __m512 d = _mm512_mul_ps(f16_low(steps), dx);
    __m512 dmin = _mm512_mul_ps(f16_low(_mm512_srli_epi32(steps, 16)), dx);
    acc = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(sum), acc);
    return _mm512_fnmadd_ps(dmin, _mm512_cvtepi32_ps(m), acc);
}

/* Minima, four bytes of each row, times what belongs to them. */
static ALWAYS_INLINE void add_min(__m512i *hi, __m512i *lo, __m512i min, const struct block_x *x,
                                  int g)
{
    *hi = _mm512_dpbusd_epi32(*hi, min, _mm512_set1_epi32(x->hi[g]));
    *lo = _mm512_dpbusd_epi32(*lo, min, _mm512_set1_epi32(x->lo[g]));
}

static ALWAYS_INLINE __m512i two_256(const int8_t *lo, const int8_t *hi)
{
    __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)lo));
    return _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)hi), 1);
}

/* ---- Q2_K: scales of 16 columns, at most 15, times weights of at most 3 fit a byte --------- */

static ALWAYS_INLINE void order_q2_k(struct block_x *x, const int8_t *q, const int16_t *sum)
{
    UNROLL for (int s = 0; s < 4; s++)
        _mm512_store_si512(x->q[s], two_256(q + 32 * s, q + 128 + 32 * s));
    __m256i v = _mm256_loadu_si256((const __m256i *)sum);
    _mm_storeu_si128((__m128i *)x->hi, _mm256_cvtepi16_epi8(_mm256_srai_epi16(v, 7)));
    _mm_storeu_si128((__m128i *)x->lo,
                     _mm256_cvtepi16_epi8(_mm256_and_si256(v, _mm256_set1_epi16(127))));
}

/* A quarter of a vector is 16 columns; its word s has their scale times 0, 1, 2, 3 for the
 * weights that lie 2 s bits up. */
static ALWAYS_INLINE void take_q2_k(struct unpacked *to, const uint8_t *block)
{
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    __m128i scale = _mm_and_si128(_mm_loadu_si128((const __m128i *)block), _mm_set1_epi8(15));
    __m512i products = _mm512_mullo_epi32(_mm512_cvtepu8_epi32(_mm_shuffle_epi8(scale, order)),
                                          _mm512_set1_epi32(0x03020100));
    __m512i q = load_512(block + 16);
    UNROLL for (int s = 0; s < 4; s++) {
        __m512i i = _mm512_ternarylogic_epi32(_mm512_srli_epi16(q, (unsigned)(2 * s)),
                                              _mm512_set1_epi8(3),
                                              _mm512_set1_epi8((char)(4 * s)), 0xea);
        to->w[s] = _mm512_shuffle_epi8(products, i);
    }
}

static ALWAYS_INLINE __m512i dot_q2_k(const struct unpacked *w, const struct block_x *x)
{
    __m512i sum = _mm512_setzero_si512();
    UNROLL for (int s = 0; s < 4; s++)
        sum = _mm512_dpbusd_epi32(sum, w->w[s], _mm512_load_si512(x->q[s]));
    return sum;
}

static ALWAYS_INLINE void note_q2_k(int32_t (*head)[HALF], const uint8_t *const *block)
{
    note_16(head, block);
    note_4(head[4], block, 80);
}

static ALWAYS_INLINE __m512 add_q2_k(int32_t (*head)[HALF], __m512i sum, const struct block_x *x,
                                     __m512 dx, __m512 acc)
{
    __m512i hi = _mm512_setzero_si512(), lo = hi;
    UNROLL for (int g = 0; g < 4; g++) {
        __m512i min = _mm512_srli_epi16(_mm512_load_si512(head[g]), 4);
        add_min(&hi, &lo, _mm512_and_si512(min, _mm512_set1_epi8(15)), x, g);
    }
    __m512i m = _mm512_add_epi32(_mm512_slli_epi32(hi, 7), lo);
    return add_both(_mm512_load_si512(head[4]), sum, m, dx, acc);
}

static void few_q2_k(const struct band *b)
{
    few_any(b, (struct format){ order_q2_k, take_q2_k, dot_q2_k, note_q2_k, add_q2_k, 84 });
}

/* ---- Q4_K ---------------------------------------------------------------------------------- */

/* Groups of 32 columns in the order 0 2, 1 3, 4 6, 5 7. */
static ALWAYS_INLINE void order_q4_k(struct block_x *x, const int8_t *q, const int16_t *sum)
{
    UNROLL for (int s = 0; s < 4; s++) {
        const int8_t *from = q + 128 * (s / 2) + 32 * (s % 2);
        _mm512_store_si512(x->q[s], two_256(from, from + 64));
    }
    __m256i v = _mm256_madd_epi16(_mm256_loadu_si256((const __m256i *)sum), _mm256_set1_epi16(1));
    _mm_storeu_si64(x->hi, _mm256_cvtepi32_epi8(_mm256_srai_epi32(v, 7)));
    _mm_storeu_si64(x->lo, _mm256_cvtepi32_epi8(_mm256_and_si256(v, _mm256_set1_epi32(127))));
}

/* Two of four bytes to the lower and upper lanes. */
static ALWAYS_INLINE __m512i two_scales(uint32_t four, int shift)
{
    return _mm512_inserti64x4(_mm512_set1_epi32((int)(four >> shift & 255)),
                              _mm256_set1_epi32((int)(four >> (shift + 16) & 255)), 1);
}

static ALWAYS_INLINE void take_q4_k(struct unpacked *to, const uint8_t *block)
{
    uint32_t u[3];
    memcpy(u, block + 4, 12);
    uint32_t scale[2] = { u[0] & 0x3f3f3f3f,
                          (u[2] & 0x0f0f0f0f) | (u[0] >> 6 & 0x03030303) << 4 };
    UNROLL for (int h = 0; h < 2; h++) {
        __m512i q = load_512(block + 16 + 64 * h);
        to->w[2 * h] = _mm512_and_si512(q, _mm512_set1_epi8(15));
        to->w[2 * h + 1] = _mm512_and_si512(_mm512_srli_epi16(q, 4), _mm512_set1_epi8(15));
        to->scale[2 * h] = two_scales(scale[h], 0);
        to->scale[2 * h + 1] = two_scales(scale[h], 8);
    }
}

static ALWAYS_INLINE __m512i dot_q4_k(const struct unpacked *w, const struct block_x *x)
{
    __m512i sum[4];
    UNROLL for (int s = 0; s < 4; s++) {
        sum[s] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w->w[s], _mm512_load_si512(x->q[s]));
        sum[s] = _mm512_mullo_epi32(sum[s], w->scale[s]);
    }
    return _mm512_add_epi32(_mm512_add_epi32(sum[0], sum[1]), _mm512_add_epi32(sum[2], sum[3]));
}

static ALWAYS_INLINE __m512 add_q4_k(int32_t (*head)[HALF], __m512i sum, const struct block_x *x,
                                     __m512 dx, __m512 acc)
{
    const __m512i six = _mm512_set1_epi8(0x3f), four = _mm512_set1_epi8(15);
    __m512i u1 = _mm512_load_si512(head[2]), u2 = _mm512_load_si512(head[3]);
    __m512i hi = _mm512_setzero_si512(), lo = hi;
    __m512i top = _mm512_and_si512(_mm512_srli_epi32(u1, 2), _mm512_set1_epi8(0x30));
    add_min(&hi, &lo, _mm512_and_si512(u1, six), x, 0);
    add_min(&hi, &lo,
            _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(u2, 4), four), top), x, 1);
    __m512i m = _mm512_add_epi32(_mm512_slli_epi32(hi, 7), lo);
    return add_both(_mm512_load_si512(head[0]), sum, m, dx, acc);
}

/* Two rows; with more the bands of AVX2 are faster. */
static void few_q4_k(const struct band *b)
{
    if (b->n_x > 2)
        cpu_band_q4_k_avx2(b);
    else
        few_256(b, 2,
                (struct format){ order_q4_k, take_q4_k, dot_q4_k, note_16, add_q4_k, 144 });
}

/* ---- IQ2_XXS ------------------------------------------------------------------------------- */

/* Sixteen bits are a group of eight columns: k of every group, and k + 4, make vector k. */
static ALWAYS_INLINE void order_iq2_xxs(struct block_x *x, const int8_t *q, const int16_t *sum)
{
    const __m512i pairs = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i v[4];
    UNROLL for (int m = 0; m < 4; m++)
        v[m] = _mm512_permutexvar_epi32(lanes, _mm512_shuffle_epi8(load_512(q + 64 * m), pairs));
    __m512i a = _mm512_shuffle_i32x4(v[0], v[1], 0x44), b = _mm512_shuffle_i32x4(v[0], v[1], 0xee);
    __m512i c = _mm512_shuffle_i32x4(v[2], v[3], 0x44), d = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
    _mm512_store_si512(x->q[0], _mm512_shuffle_i32x4(a, c, 0x88));
    _mm512_store_si512(x->q[1], _mm512_shuffle_i32x4(a, c, 0xdd));
    _mm512_store_si512(x->q[2], _mm512_shuffle_i32x4(b, d, 0x88));
    _mm512_store_si512(x->q[3], _mm512_shuffle_i32x4(b, d, 0xdd));
    __m512i s = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)sum));
    _mm512_store_si512(x->start, _mm512_mullo_epi32(s, _mm512_set1_epi32(-43)));
}

static ALWAYS_INLINE void take_iq2_xxs(struct unpacked *to, const uint8_t *block)
{
    __m512i words = load_512(block + 2);
    unpack_iq2_xxs(to->w, words);
    /* 2 n + 1; the bit below the four of n is a sign. */
    __m512i n = _mm512_or_si512(_mm512_srli_epi32(words, 27), _mm512_set1_epi32(1));
    to->scale[0] = _mm512_shuffle_epi32(n, 0xf5);
}

static ALWAYS_INLINE __m512i dot_iq2_xxs(const struct unpacked *w, const struct block_x *x)
{
    __m512i sum = _mm512_load_si512(x->start);
    UNROLL for (int k = 0; k < 4; k++)
        sum = _mm512_dpbusd_epi32(sum, w->w[k], _mm512_load_si512(x->q[k]));
    return _mm512_mullo_epi32(sum, w->scale[0]);
}

static ALWAYS_INLINE void note_iq2_xxs(int32_t (*head)[HALF], const uint8_t *const *block)
{
    note_4(head[0], block, 0);
}

static ALWAYS_INLINE __m512 add_iq2_xxs(int32_t (*head)[HALF], __m512i sum,
                                        const struct block_x *x, __m512 dx, __m512 acc)
{
    (void)x;
    __m512 d = _mm512_mul_ps(f16_low(_mm512_load_si512(head[0])), _mm512_set1_ps(.125f));
    return _mm512_fmadd_ps(_mm512_mul_ps(d, dx), _mm512_cvtepi32_ps(sum), acc);
}

static void few_iq2_xxs(const struct band *b)
{
    few_any(b, (struct format){ order_iq2_xxs, take_iq2_xxs, dot_iq2_xxs, note_iq2_xxs,
                                add_iq2_xxs, 66 });
}

void cpu_few256_avx512(struct cpu_kernels *k)
{
    k->product[DT_Q2_K].few = few_q2_k;
    k->product[DT_Q4_K].few = few_q4_k;
    k->product[DT_Q4_K].few_x = 2; /* one row is faster by the tile of AVX2 */
    k->product[DT_IQ2_XXS].few = few_iq2_xxs;
}
