/* few32_avx512.c - few activation rows times weights in blocks of 32: Q8_0, MXFP4, the vendor's
 * FP4. Four blocks are a turn: of each, its 16 first and its 16 last columns lie in one quarter of
 * two vectors, so that a quarter's four sums belong to one block. */
#include "few_impl.h"

#define TURN 4      /* blocks */
#define STAGE_X 64  /* turns times activation rows of a stage, at most */
#define STAGE_T 32  /* turns of a stage, at most */

/* Activations of a turn: first halves of its blocks, then their second halves. */
struct turn_x {
    LINE int8_t q[2][64];
};

/* Some turns of all activations, and what comes of them. */
struct stage {
    const struct band *b;
    int block, n; /* first block; turns */
    struct turn_x x[STAGE_X];                           /* [n][n_x] */
    LINE __m512i sum[STAGE_X][HALF / QUAD];             /* [n][n_x], per quad: a part for a block */
    LINE int32_t step[STAGE_T][TURN][HALF];             /* as stored */
    LINE float d[STAGE_X][TURN];
    LINE int32_t start[STAGE_X][TURN];                  /* minus what the offset adds */
    LINE float acc[FEW_MAX][BAND_W];
};

/* Four rows at a turn. */
struct quad {
    const uint8_t *w[QUAD], *scale[QUAD];
    size_t distance; /* to what is fetched */
};

typedef void take_fn(__m512i w[2], const uint8_t *row);
typedef void note_fn(int32_t (*step)[HALF], const struct quad *q);
typedef __m512 step_fn(int32_t (*step)[HALF], int g);

struct format {
    take_fn *take;
    note_fn *note;
    step_fn *step;
    int offset;
    size_t bytes, scale_bytes;
};

/* Activation row i at turn t; blocks beyond the row's end add nothing. */
static ALWAYS_INLINE void open_x(struct stage *s, int t, int i, int n_x, int offset)
{
    const void *row = s->b->x[MIN(i, s->b->n_x - 1)];
    int k = s->b->k, block = s->block + TURN * t, n = MIN(TURN, k / 32 - block);
    const int8_t *q = (const int8_t *)row + (size_t)block * 32;
    const int16_t *sum = act_sum_q32(row, k) + (size_t)block * 2;
    __mmask64 all = (__mmask64)-1, lo = n > 1 ? all : all >> 32;
    __mmask64 hi = n > 3 ? all : n > 2 ? all >> 32 : 0;
    __m512i a = _mm512_maskz_loadu_epi8(lo, q), b = _mm512_maskz_loadu_epi8(hi, q + 64);
    int at = t * n_x + i;
    _mm512_store_si512(s->x[at].q[0], _mm512_shuffle_i32x4(a, b, 0x88));
    _mm512_store_si512(s->x[at].q[1], _mm512_shuffle_i32x4(a, b, 0xdd));
    _mm_store_ps(s->d[at], _mm_maskz_loadu_ps((__mmask8)((1 << n) - 1), act_d(row, k) + block));
    __m128i sums = _mm_maskz_loadu_epi16((__mmask8)((1 << 2 * n) - 1), sum);
    _mm_store_si128((__m128i *)s->start[at],
                    _mm_madd_epi16(sums, _mm_set1_epi16((short)-offset)));
}

static ALWAYS_INLINE void add_quad(struct stage *s, int t, int quad, const struct quad *q,
                                   int n_x, struct format f)
{
    __m512i w[QUAD][2];
    UNROLL for (int j = 0; j < QUAD; j++) {
        f.take(w[j], q->w[j]);
        fetch_lines(q->w[j], q->distance, TURN * f.bytes);
    }
    UNROLL for (int i = 0; i < n_x; i++) {
        const struct turn_x *x = &s->x[t * n_x + i];
        __m512i r[QUAD], lo = _mm512_load_si512(x->q[0]), hi = _mm512_load_si512(x->q[1]);
        UNROLL for (int j = 0; j < QUAD; j++)
            r[j] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), w[j][0], lo),
                                       w[j][1], hi);
        s->sum[t * n_x + i][quad] = join_pairs(sum_pair(r[0], r[1]), sum_pair(r[2], r[3]));
    }
}

/* The last blocks of four rows, zeros behind them. */
static void pad_quad(struct quad *q, uint8_t (*pad)[TURN * 36], size_t bytes, size_t scale_bytes)
{
    for (int j = 0; j < QUAD; j++) {
        memset(pad[j], 0, sizeof *pad);
        memcpy(pad[j], q->w[j], bytes);
        q->w[j] = pad[j];
        if (scale_bytes) {
            memcpy(pad[j] + TURN * 34, q->scale[j], scale_bytes);
            q->scale[j] = pad[j] + TURN * 34;
        }
    }
}

/* Rows 4 quad .. of the band through the stage. */
static ALWAYS_INLINE void run_quad(struct stage *s, int quad, int n_x, struct format f)
{
    uint8_t pad[QUAD][TURN * 36];
    const struct band *b = s->b;
    struct quad q;
    size_t at = (size_t)s->block * f.bytes;
    q.distance = fetch_distance(b, quad, at, (size_t)(s->n * TURN) * f.bytes,
                                (size_t)(b->k / 32) * f.bytes);
    if (s->block == 0)
        fetch_quad(b, quad);
    UNROLL for (int j = 0; j < QUAD; j++) {
        q.w[j] = b->w[QUAD * quad + j] + at;
        if (f.scale_bytes)
            q.scale[j] = b->scale[QUAD * quad + j] + s->block;
    }
    int in_half = quad % (HALF / QUAD);
    for (int t = 0; t < s->n; t++) {
        int left = b->k / 32 - s->block - TURN * t;
        if (left < TURN)
            pad_quad(&q, pad, (size_t)left * f.bytes, (size_t)left * f.scale_bytes);
        f.note((int32_t (*)[HALF])&s->step[t][0][QUAD * in_half], &q);
        add_quad(s, t, in_half, &q, n_x, f);
        UNROLL for (int j = 0; j < QUAD; j++) {
            q.w[j] += TURN * f.bytes;
            if (f.scale_bytes)
                q.scale[j] += TURN * f.scale_bytes;
        }
    }
}

/* Steps applied to the sums of 16 rows. */
static ALWAYS_INLINE void add_sums(struct stage *s, int first, int n_x, struct format f)
{
    __m512 acc[FEW_MAX];
    UNROLL for (int i = 0; i < n_x; i++)
        acc[i] = _mm512_load_ps(s->acc[i] + first);
    for (int t = 0; t < s->n; t++) {
        __m512 d[TURN];
        UNROLL for (int g = 0; g < TURN; g++)
            d[g] = f.step(s->step[t], g);
        UNROLL for (int i = 0; i < n_x; i++) {
            int at = t * n_x + i;
            __m512i sum[TURN];
            turn_quads(sum, s->sum[at]);
            UNROLL for (int g = 0; g < TURN; g++) {
                sum[g] = _mm512_add_epi32(sum[g], _mm512_set1_epi32(s->start[at][g]));
                __m512 step = _mm512_mul_ps(d[g], _mm512_set1_ps(s->d[at][g]));
                acc[i] = _mm512_fmadd_ps(step, _mm512_cvtepi32_ps(sum[g]), acc[i]);
            }
        }
    }
    UNROLL for (int i = 0; i < n_x; i++)
        _mm512_store_ps(s->acc[i] + first, acc[i]);
}

static ALWAYS_INLINE void few_32(const struct band *b, int n_x, struct format f)
{
    struct stage s;
    int n_turn = (b->k / 32 + TURN - 1) / TURN, most = MIN(STAGE_T, STAGE_X / n_x);
    s.b = b;
    memset(s.acc, 0, (size_t)n_x * sizeof *s.acc);
    for (int turn = 0; turn < n_turn; turn += most) {
        s.block = TURN * turn;
        s.n = MIN(most, n_turn - turn);
        for (int t = 0; t < s.n; t++)
            UNROLL for (int i = 0; i < n_x; i++)
                open_x(&s, t, i, n_x, f.offset);
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
    case 1: few_32(b, 1, f); return;
    case 2: few_32(b, 2, f); return;
    case 3: few_32(b, 3, f); return;
    case 4: few_32(b, 4, f); return;
    case 5:
    case 6: few_32(b, 6, f); return;
    default: few_32(b, 8, f); return;
    }
}

/* One of a block's fields of each of four rows, to the steps of a turn. */
static ALWAYS_INLINE void note_field(int32_t (*step)[HALF], const struct quad *q, size_t bytes)
{
    UNROLL for (int g = 0; g < TURN; g++) {
        __m128i v = _mm_setzero_si128();
        UNROLL for (int j = 0; j < QUAD; j++)
            v = put_lane(v, j, q->w[j] + (size_t)g * bytes);
        _mm_store_si128((__m128i *)step[g], v);
    }
}

/* ---- Q8_0 ---------------------------------------------------------------------------------- */

static ALWAYS_INLINE void take_q8_0(__m512i w[2], const uint8_t *row)
{
    UNROLL for (int h = 0; h < 2; h++) {
        __m512i v = _mm512_setzero_si512();
        UNROLL for (int g = 0; g < TURN; g++)
            v = put_part(v, g, row + 34 * g + 2 + 16 * h);
        w[h] = _mm512_xor_si512(v, _mm512_set1_epi8(-128));
    }
}

static ALWAYS_INLINE void note_q8_0(int32_t (*step)[HALF], const struct quad *q)
{
    note_field(step, q, 34);
}

static ALWAYS_INLINE __m512 step_q8_0(int32_t (*step)[HALF], int g)
{
    return f16_low(_mm512_load_si512(step[g]));
}

static void few_q8_0(const struct band *b)
{
    few_any(b, (struct format){ take_q8_0, note_q8_0, step_q8_0, 128, 34, 0 });
}

/* ---- MXFP4, FP4 ---------------------------------------------------------------------------- */

static ALWAYS_INLINE void take_mxfp4(__m512i w[2], const uint8_t *row)
{
    __m512i v = _mm512_setzero_si512();
    UNROLL for (int g = 0; g < TURN; g++)
        v = put_part(v, g, row + 17 * g + 1);
    w[0] = e2m1_lifted(v);
    w[1] = e2m1_lifted(_mm512_srli_epi16(v, 4));
}

static ALWAYS_INLINE void note_mxfp4(int32_t (*step)[HALF], const struct quad *q)
{
    note_field(step, q, 17);
}

static ALWAYS_INLINE __m512 step_mxfp4(int32_t (*step)[HALF], int g)
{
    return e8m0_half_16(_mm512_and_si512(_mm512_load_si512(step[g]), _mm512_set1_epi32(255)));
}

/* Two rows; with more the bands of AVX2 are faster. */
static void few_mxfp4(const struct band *b)
{
    if (b->n_x > 2)
        cpu_band_mxfp4_avx2(b);
    else
        few_32(b, 2, (struct format){ take_mxfp4, note_mxfp4, step_mxfp4, 12, 17, 0 });
}

/* Columns alternate between low and high nibbles. */
static ALWAYS_INLINE void take_fp4(__m512i w[2], const uint8_t *row)
{
    __m512i v = load_512(row);
    __m512i even = e2m1_lifted(v), odd = e2m1_lifted(_mm512_srli_epi16(v, 4));
    w[0] = _mm512_unpacklo_epi8(even, odd);
    w[1] = _mm512_unpackhi_epi8(even, odd);
}

static ALWAYS_INLINE void note_fp4(int32_t (*step)[HALF], const struct quad *q)
{
    __m128i v = _mm_setzero_si128();
    UNROLL for (int j = 0; j < QUAD; j++)
        v = put_lane(v, j, q->scale[j]);
    _mm_store_si128((__m128i *)step[0], v);
}

static ALWAYS_INLINE __m512 step_fp4(int32_t (*step)[HALF], int g)
{
    __m512i e = _mm512_srli_epi32(_mm512_load_si512(step[0]), (unsigned)(8 * g));
    return e8m0_half_16(_mm512_and_si512(e, _mm512_set1_epi32(255)));
}

static void few_fp4(const struct band *b)
{
    few_any(b, (struct format){ take_fp4, note_fp4, step_fp4, 12, 16, 1 });
}

void cpu_few32_avx512(struct cpu_kernels *k)
{
    k->product[DT_Q8_0].few = few_q8_0;
    k->product[DT_Q8_0].few_x = 2; /* one row is faster by the tile of AVX2 */
    k->product[DT_MXFP4].few = few_mxfp4;
    k->product[DT_MXFP4].few_x = 2;
    k->product[TYPE_SLOT(DT_FP4)].few = few_fp4;
}
