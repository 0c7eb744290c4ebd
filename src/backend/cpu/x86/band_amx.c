/* band_amx.c - bands through the tile unit: 16 weight rows by 16 activation rows at a time.
 *
 * The chunks are those of the AVX-512 bands: a line holds 4 columns of 32 weight rows, which is
 * how the unit wants its second operand. Activations of the chunk are copied side by side for the
 * first. Sums are exact integers, and steps are applied in the same order by the same operations,
 * so the bits are those of every other instruction set. Where a format has steps of 32 columns a
 * tile ends after 32 columns; where it has one of 256, after those. Rejected: formats with integer
 * factors of 32 columns, whose sums pass through memory to be scaled and scaled again (slower). */
#include "avx512_impl.h"

#define TILES_X 32 /* activation rows whose sums are in tiles: 2 x 16 */
#define FEW_X 16   /* fewer leave the tiles half empty */

/* Palette 1: rows and bytes of a row of each tile. 0-3 sums, 4-5 activations, 6-7 weights. */
struct tile_shape {
    uint8_t palette, start;
    uint8_t unused[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};

/* TILES_X activation rows at the columns of a chunk. */
struct group_x {
    LINE int8_t q[TILES_X][CHUNK];
    LINE int32_t start[TILES_X][8];  /* where sums of 32 columns begin */
    const float *d[TILES_X];
    const int16_t *sum[TILES_X];
};

struct tile_sums {
    LINE int32_t v[TILES_X][BAND_W];
};

/* k: columns that one instruction multiplies, 32 or 64. */
static void set_tiles(int k)
{
    struct tile_shape t = { .palette = 1 };
    for (int i = 0; i < 8; i++) {
        t.bytes[i] = i == 4 || i == 5 ? (uint16_t)k : 64;
        t.rows[i] = i >= 6 ? (uint8_t)(k / 4) : 16;
    }
    _tile_loadconfig(&t);
}

/* Activation rows from i on; beyond the last it is repeated. */
static void open_group(struct group_x *x, const struct source *s, int i,
                       const struct band_format *f)
{
    const struct band *b = s->b;
    bool by_32 = f->scaling == STEP_32;
    __mmask16 some = (__mmask16)((1u << (2 * s->n)) - 1);
    for (int j = 0; j < TILES_X; j++) {
        const void *row = b->x[MIN(i + j, b->n_x - 1)];
        memcpy(x->q[j], (const int8_t *)row + (size_t)s->block * 32, (size_t)s->n * 32);
        x->d[j] = act_d(row, b->k) + (by_32 ? s->block : s->block / 8);
        x->sum[j] = (by_32 ? act_sum_q32(row, b->k) : act_sum(row, b->k)) + s->block * 2;
        __m256i sum = _mm256_maskz_loadu_epi16(some, x->sum[j]);
        _mm256_store_si256((__m256i *)x->start[j],
                           _mm256_madd_epi16(sum, _mm256_set1_epi16((short)-f->offset)));
    }
}

/* One step of the unit at column `at`, of as many columns as set_tiles() has said. */
#define MULTIPLY_TILES(c, x, at)                              \
    do {                                                      \
        _tile_loadd(4, (x)->q[0] + (at), CHUNK);              \
        _tile_loadd(5, (x)->q[16] + (at), CHUNK);             \
        _tile_loadd(6, (c)->q[(at) / 4][0], sizeof *(c)->q);  \
        _tile_loadd(7, (c)->q[(at) / 4][16], sizeof *(c)->q); \
        _tile_dpbsud(0, 4, 6);                                \
        _tile_dpbsud(1, 4, 7);                                \
        _tile_dpbsud(2, 5, 6);                                \
        _tile_dpbsud(3, 5, 7);                                \
    } while (0)

/* Sums of n columns from `at`, in steps of k. */
static void sum_columns(struct tile_sums *s, const struct chunk *c, const struct group_x *x,
                        int at, int n, int k)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int e = at; e < at + n; e += k)
        MULTIPLY_TILES(c, x, e);
    _tile_stored(0, s->v[0], sizeof *s->v);
    _tile_stored(1, s->v[0] + 16, sizeof *s->v);
    _tile_stored(2, s->v[16], sizeof *s->v);
    _tile_stored(3, s->v[16] + 16, sizeof *s->v);
}

/* acc := fma(d dx, s, acc) */
static ALWAYS_INLINE void apply_step(float (*acc)[BAND_W], const struct tile_sums *s,
                                     const float *d, const struct group_x *x, int g, bool start)
{
    for (int i = 0; i < TILES_X; i++) {
        __m512 dx = _mm512_set1_ps(x->d[i][g]);
        __m512i first = _mm512_set1_epi32(start ? x->start[i][g] : 0);
        UNROLL for (int h = 0; h < BAND_W; h += 16) {
            __m512i sum = _mm512_add_epi32(_mm512_load_si512(s->v[i] + h), first);
            __m512 step = _mm512_mul_ps(_mm512_load_ps(d + h), dx);
            _mm512_store_ps(acc[i] + h, _mm512_fmadd_ps(step, _mm512_cvtepi32_ps(sum),
                                                        _mm512_load_ps(acc[i] + h)));
        }
    }
}

/* acc := fma(-(dmin dx), m, acc), m from the sums of 16 activations. */
static void apply_min(float (*acc)[BAND_W], const struct chunk *c, const struct group_x *x)
{
    for (int i = 0; i < TILES_X; i++) {
        __m512 dx = _mm512_set1_ps(x->d[i][0]);
        UNROLL for (int h = 0; h < BAND_W; h += 16) {
            __m512i m = _mm512_setzero_si512();
            UNROLL for (int g = 0; g < 8; g++) {
                int32_t pair;
                memcpy(&pair, x->sum[i] + 2 * g, 4);
                m = _mm512_dpwssd_epi32(m, _mm512_load_si512(c->min[g][h]),
                                        _mm512_set1_epi32(pair));
            }
            __m512 step = _mm512_mul_ps(_mm512_load_ps(c->dmin + h), dx);
            _mm512_store_ps(acc[i] + h, _mm512_fnmadd_ps(step, _mm512_cvtepi32_ps(m),
                                                         _mm512_load_ps(acc[i] + h)));
        }
    }
}

static void add_chunk(float (*acc)[BAND_W], const struct chunk *c, int n,
                      const struct group_x *x, const struct band_format *f)
{
    struct tile_sums s;
    if (f->scaling == STEP_32) {
        for (int g = 0; g < n; g++) {
            sum_columns(&s, c, x, 32 * g, 32, 32);
            apply_step(acc, &s, c->d[g], x, g, true);
        }
        return;
    }
    sum_columns(&s, c, x, 0, CHUNK, 64);
    apply_step(acc, &s, c->d[0], x, 0, false);
    if (f->has_min)
        apply_min(acc, c, x);
}

static void band_amx(const struct band *b, const struct band_format *f)
{
    LINE float acc[BAND_X][BAND_W];
    struct chunk c;
    struct source s;
    struct group_x x;
    int n_block = b->k / 32;
    if (b->n_x < FEW_X) {
        cpu_band_avx512(b, f);
        return;
    }
    s.b = b;
    memset(acc, 0, round_up((size_t)b->n_x, TILES_X) * sizeof *acc);
    set_tiles(f->scaling == STEP_256 ? 64 : 32);
    for (s.block = 0; s.block < n_block; s.block += 8) {
        s.n = MIN(8, n_block - s.block);
        f->unpack(&s, &c);
        for (int i = 0; i < b->n_x; i += TILES_X) {
            open_group(&x, &s, i, f);
            add_chunk(acc + i, &c, s.n, &x, f);
        }
    }
    _tile_release();
    for (int i = 0; i < b->n_x; i++)
        memcpy(b->out[i] + b->at, acc[i], (size_t)b->n_w * sizeof **acc);
}

static void band_q2_k(const struct band *b)
{
    band_amx(b, &cpu_format_q2_k);
}

static void band_q8_0(const struct band *b)
{
    band_amx(b, &cpu_format_q8_0);
}

static void band_mxfp4(const struct band *b)
{
    band_amx(b, &cpu_format_mxfp4);
}

static void band_fp4(const struct band *b)
{
    band_amx(b, &cpu_format_fp4);
}

void cpu_kernels_amx(struct cpu_kernels *k)
{
    k->product[DT_Q2_K].band = band_q2_k;
    k->product[DT_Q8_0].band = band_q8_0;
    k->product[DT_MXFP4].band = band_mxfp4;
    k->product[TYPE_SLOT(DT_FP4)].band = band_fp4;
}
