/* cpu_dot.c - the row kernels in plain C: for machines without anything better, and the second
 * opinion on the integer sums of the others, whose bits they share. */
#include "cpu_impl.h"

#include "fp4.h"
#include "iq_tables.h"
#include "kv_row.h"

#include <math.h>

/* ---- float rows -------------------------------------------------------------------------- */

#ifdef FP_FAST_FMAF
#define MUL_ADD(a, b, c) fmaf(a, b, c)
#else
#define MUL_ADD(a, b, c) ((a) * (b) + (c))
#endif

static float sum_lanes(float *lane)
{
    for (int i = 0; i < 8; i++)
        lane[i] += lane[i + 8];
    for (int i = 0; i < 4; i++)
        lane[i] += lane[i + 4];
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

/* Weights may lie at any address. */
static float dot_f32(const uint8_t *w, const float *x, int n)
{
    float lane[16] = { 0 };
    for (int i = 0; i < n; i += 16) {
        float v[16] = { 0 };
        int m = MIN(16, n - i);
        memcpy(v, w + (size_t)i * 4, (size_t)m * 4);
        for (int j = 0; j < m; j++)
            lane[j] = MUL_ADD(v[j], x[i + j], lane[j]);
    }
    return sum_lanes(lane);
}

static void tile_f32(const struct tile *t)
{
    for (int j = 0; j < t->n_w; j++)
        for (int i = 0; i < t->n_x; i++)
            t->out[i][t->at + j] = dot_f32(t->w[j], t->x[i], t->k);
}

static void blend(const struct blend *b)
{
    for (int i = 0; i < b->n_out; i++)
        for (int j = 0; j < b->n_row; j++) {
            float *out = b->out + (size_t)i * b->out_pitch;
            const float *row = b->row + (size_t)j * b->row_pitch;
            float p = b->p[(size_t)i * b->p_pitch + (size_t)j];
            for (int e = 0; e < b->dim; e++)
                out[e] = MUL_ADD(p, row[e], out[e]);
        }
}

static void transpose(float *out, const float *in, int n, int cols)
{
    for (int c = 0; c < cols; c++)
        for (int r = 0; r < KEY_TILE; r++)
            out[c * KEY_TILE + r] = r < n ? in[(size_t)r * (size_t)cols + (size_t)c] : 0;
}

static double sum_squares(const float *x, int n)
{
    double lane[16] = { 0 };
    for (int i = 0; i < n; i++)
        lane[i % 16] += (double)x[i] * (double)x[i]; /* the product is exact */
    for (int i = 0; i < 8; i++)
        lane[i] += lane[i + 8];
    for (int i = 0; i < 4; i++)
        lane[i] += lane[i + 4];
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

static float exp_sum(float *x, int n, float max)
{
    float lane[16] = { 0 };
    for (int i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        lane[i % 16] += x[i];
    }
    return sum_lanes(lane);
}

static void scale_row(float *out, const float *x, const float *weight, float scale, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = x[i] * scale * (weight ? weight[i] : 1);
}

static void swiglu(float *out, const float *gate, const float *up, int n, float clamp,
                   float weight)
{
    for (int i = 0; i < n; i++) {
        float a = gate[i] > clamp ? clamp : gate[i];
        float b = up[i] > clamp ? clamp : up[i] < -clamp ? -clamp : up[i];
        out[i] = a / (1 + expf(-a)) * b * weight;
    }
}

/* ---- blocks of 32 ------------------------------------------------------------------------ */

/* Block b of weight row j as integers; its step is returned. */
typedef float load32_fn(const struct tile *t, int j, int b, int8_t *q);

static float load_q8_0(const struct tile *t, int j, int b, int8_t *q)
{
    const uint8_t *src = t->w[j] + (size_t)b * 34;
    memcpy(q, src + 2, 32);
    return f16_at(src);
}

/* Twice the E2M1 numbers are integers. */
static const int8_t e2m1_twice[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

static float load_mxfp4(const struct tile *t, int j, int b, int8_t *q)
{
    const uint8_t *src = t->w[j] + (size_t)b * 17;
    for (int i = 0; i < 16; i++) {
        q[i] = e2m1_twice[src[1 + i] & 15];
        q[i + 16] = e2m1_twice[src[1 + i] >> 4];
    }
    return e8m0_to_f32(src[0]) * .5f;
}

static float load_fp4(const struct tile *t, int j, int b, int8_t *q)
{
    const uint8_t *src = t->w[j] + (size_t)b * 16;
    for (int i = 0; i < 16; i++) {
        q[2 * i] = e2m1_twice[src[i] & 15];
        q[2 * i + 1] = e2m1_twice[src[i] >> 4];
    }
    return e8m0_to_f32(t->scale[j][b]) * .5f;
}

static int sum_32(const int8_t *q, const int8_t *x)
{
    int sum = 0;
    for (int e = 0; e < 32; e++)
        sum += q[e] * x[e];
    return sum;
}

static void tile_q32(const struct tile *t, load32_fn *load)
{
    for (int j = 0; j < t->n_w; j++) {
        float acc[TILE_X] = { 0 };
        for (int b = 0; b < t->k / 32; b++) {
            int8_t q[32];
            float d = load(t, j, b, q);
            for (int i = 0; i < t->n_x; i++) {
                int sum = sum_32(q, (const int8_t *)t->x[i] + b * 32);
                acc[i] = fmaf(d * act_d(t->x[i], t->k)[b], (float)sum, acc[i]);
            }
        }
        for (int i = 0; i < t->n_x; i++)
            t->out[i][t->at + j] = acc[i];
    }
}

static void tile_q8_0(const struct tile *t)
{
    tile_q32(t, load_q8_0);
}

static void tile_mxfp4(const struct tile *t)
{
    tile_q32(t, load_mxfp4);
}

static void tile_fp4(const struct tile *t)
{
    tile_q32(t, load_fp4);
}

/* ---- blocks of 256 ----------------------------------------------------------------------- */

struct block256 {
    int8_t q[256];
    int scale[16], min[16]; /* of 16 elements each */
    float d, dmin;
};

typedef void load256_fn(const uint8_t *src, struct block256 *b);

static void load_q2_k(const uint8_t *src, struct block256 *b)
{
    for (int e = 0; e < 256; e++)
        b->q[e] = src[16 + e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3;
    for (int s = 0; s < 16; s++) {
        b->scale[s] = src[s] & 15;
        b->min[s] = src[s] >> 4;
    }
    b->d = f16_at(src + 80);
    b->dmin = f16_at(src + 82);
}

static void load_q4_k(const uint8_t *src, struct block256 *b)
{
    const uint8_t *packed = src + 4;
    for (int e = 0; e < 256; e++)
        b->q[e] = src[16 + e / 64 * 32 + e % 32] >> (e / 32 % 2 * 4) & 15;
    for (int s = 0; s < 16; s++) {
        int g = s / 2; /* eight pairs in twelve bytes: 6 + 6 bits, or 4 + 4 and 2 + 2 */
        const uint8_t *p = packed + g % 4;
        b->scale[s] = g < 4 ? p[0] & 63 : (p[8] & 15) | p[0] >> 6 << 4;
        b->min[s] = g < 4 ? p[4] & 63 : p[8] >> 4 | p[4] >> 6 << 4;
    }
    b->d = f16_at(src);
    b->dmin = f16_at(src + 2);
}

/* (scale + 1/2) / 4 is (2 scale + 1) / 8. */
static void load_iq2_xxs(const uint8_t *src, struct block256 *b)
{
    for (int g = 0; g < 8; g++) {
        const uint8_t *group = src + 2 + 8 * g;
        uint32_t rest;
        memcpy(&rest, group + 4, 4);
        b->scale[2 * g] = b->scale[2 * g + 1] = (int)(rest >> 28) * 2 + 1;
        for (int e = 0; e < 32; e++) {
            int magnitude = (int)(iq2_xxs_grid[group[e / 8]] >> (e % 8 * 8) & 255);
            unsigned sign = iq2_signs(rest >> (e / 8 * 7) & 127) >> (e % 8) & 1;
            b->q[32 * g + e] = (int8_t)(sign ? -magnitude : magnitude);
        }
    }
    b->d = f16_at(src) * .125f;
}

static int sum_256(const struct block256 *b, const int8_t *x)
{
    int sum = 0;
    for (int s = 0; s < 16; s++) {
        int part = 0;
        for (int e = 16 * s; e < 16 * s + 16; e++)
            part += b->q[e] * x[e];
        sum += b->scale[s] * part;
    }
    return sum;
}

static int sum_min(const struct block256 *b, const int16_t *x_sum)
{
    int sum = 0;
    for (int s = 0; s < 16; s++)
        sum += b->min[s] * x_sum[s];
    return sum;
}

/* Block b of activation x of k elements, added to acc. */
static float add_block(const struct block256 *w, const void *x, int k, int b, bool has_min,
                       float acc)
{
    float d = act_d(x, k)[b];
    acc = fmaf(w->d * d, (float)sum_256(w, (const int8_t *)x + b * 256), acc);
    if (has_min)
        acc = fmaf(-(w->dmin * d), (float)sum_min(w, act_sum(x, k) + b * 16), acc);
    return acc;
}

static void tile_q256(const struct tile *t, load256_fn *load, size_t bytes, bool has_min)
{
    for (int j = 0; j < t->n_w; j++) {
        float acc[TILE_X] = { 0 };
        for (int b = 0; b < t->k / 256; b++) {
            struct block256 w;
            load(t->w[j] + (size_t)b * bytes, &w);
            for (int i = 0; i < t->n_x; i++)
                acc[i] = add_block(&w, t->x[i], t->k, b, has_min, acc[i]);
        }
        for (int i = 0; i < t->n_x; i++)
            t->out[i][t->at + j] = acc[i];
    }
}

static void tile_q2_k(const struct tile *t)
{
    tile_q256(t, load_q2_k, 84, true);
}

static void tile_q4_k(const struct tile *t)
{
    tile_q256(t, load_q4_k, 144, true);
}

static void tile_iq2_xxs(const struct tile *t)
{
    tile_q256(t, load_iq2_xxs, 66, false);
}

void cpu_kernels_plain(struct cpu_kernels *k)
{
    *k = (struct cpu_kernels){
        .product = {
            [DT_F32] = { .form = ACT_F32, .tile = tile_f32 },
            [DT_Q8_0] = { .form = ACT_Q32, .tile = tile_q8_0 },
            [DT_MXFP4] = { .form = ACT_Q32, .tile = tile_mxfp4 },
            [TYPE_SLOT(DT_FP4)] = { .form = ACT_Q32, .tile = tile_fp4 },
            [DT_Q2_K] = { .form = ACT_Q256, .tile = tile_q2_k },
            [DT_Q4_K] = { .form = ACT_Q256, .tile = tile_q4_k },
            [DT_IQ2_XXS] = { .form = ACT_Q256, .tile = tile_iq2_xxs },
        },
        .decode = quant_decode,
        .kv_unpack = kv_row_unpack,
        .index_unpack = kv_index_row_unpack,
        .hadamard = hadamard,
        .fp4_simulate = fp4_simulate,
        .blend = blend,
        .transpose = transpose,
        .sum_squares = sum_squares,
        .exp_sum = exp_sum,
        .scale_row = scale_row,
        .swiglu = swiglu,
    };
    cpu_pack_plain(k);
}
