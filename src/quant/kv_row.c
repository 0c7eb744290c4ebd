/* kv_row.c - rows of the cache, packed as the model was trained to see them.
 *
 * The vendor's simulation takes per group s = 2^ceil(log2(max|x| / largest)), rounds x / s to the
 * small format and multiplies by s again; the quotient max * (1 / largest) is formed in float32,
 * in which an exact ratio gives exactly 1. Packing stores code and s instead. Dividing by a
 * power of two is exact, and code * s always fits bfloat16, so packing a simulated row again
 * gives the same bytes.
 * A NaN stays one: E4M3 has a code for it; E2M1 has none, so the group's scale becomes NaN, as it
 * does for both when a value is infinite. */
#include "kv_row.h"

#include "fp4.h"

#include <math.h>

#define FP8_GROUP 64
#define FP4_GROUP 32

/* A NaN is passed over. */
static float larger(float max, float x)
{
    float size = fabsf(x);
    return size > max ? size : max;
}

static uint8_t fp8_group_scale(const float *x, int n)
{
    float max = 1e-4f;
    for (int i = 0; i < n; i++)
        max = larger(max, x[i]);
    return e8m0_ceil(max * (1.f / 448));
}

static uint8_t fp4_group_scale(const float *x)
{
    float max = 6 * 0x1p-126f;
    bool nan = false;
    for (int i = 0; i < FP4_GROUP; i++) {
        max = larger(max, x[i]);
        nan |= isnan(x[i]);
    }
    return nan ? 255 : e8m0_ceil(max * (1.f / 6));
}

void fp8_simulate(float *x, int n)
{
    for (int i = 0; i < n; i += FP8_GROUP) {
        int m = MIN(FP8_GROUP, n - i);
        float s = e8m0_to_f32(fp8_group_scale(x + i, m));
        for (int j = i; j < i + m; j++)
            x[j] = e4m3_to_f32(f32_to_e4m3(x[j] / s)) * s;
    }
}

void fp4_simulate(float *x, int n)
{
    CHECK(n % FP4_GROUP == 0);
    for (int i = 0; i < n; i += FP4_GROUP) {
        float s = e8m0_to_f32(fp4_group_scale(x + i));
        for (int j = i; j < i + FP4_GROUP; j++)
            x[j] = e2m1_to_f32(f32_to_e2m1(x[j] / s)) * s;
    }
}

static int n_fp8_scale(int nope)
{
    return (nope + FP8_GROUP - 1) / FP8_GROUP;
}

size_t kv_row_bytes(int head_dim, int rope_dim)
{
    int nope = head_dim - rope_dim;
    return round_up((size_t)(nope + 2 * rope_dim + n_fp8_scale(nope)), 8);
}

void kv_row_pack(const float *x, int head_dim, int rope_dim, uint8_t *row)
{
    int nope = head_dim - rope_dim;
    uint8_t *scale = row + nope + 2 * rope_dim;
    uint8_t *end = row + kv_row_bytes(head_dim, rope_dim);
    for (int i = 0; i < rope_dim; i++) {
        uint16_t b = f32_to_bf16(x[nope + i]);
        memcpy(row + nope + 2 * i, &b, 2);
    }
    for (int i = 0; i < nope; i += FP8_GROUP) {
        int m = MIN(FP8_GROUP, nope - i);
        uint8_t e = fp8_group_scale(x + i, m);
        float s = e8m0_to_f32(e);
        for (int j = i; j < i + m; j++)
            row[j] = f32_to_e4m3(x[j] / s);
        *scale++ = e;
    }
    memset(scale, 0, (size_t)(end - scale));
}

void kv_row_unpack(const uint8_t *row, int head_dim, int rope_dim, float *x)
{
    int nope = head_dim - rope_dim;
    const uint8_t *scale = row + nope + 2 * rope_dim;
    for (int i = 0; i < nope; i++)
        x[i] = e4m3_to_f32(row[i]) * e8m0_to_f32(scale[i / FP8_GROUP]);
    for (int i = 0; i < rope_dim; i++) {
        uint16_t b;
        memcpy(&b, row + nope + 2 * i, 2);
        x[nope + i] = bf16_to_f32(b);
    }
}

size_t kv_index_row_bytes(int dim)
{
    CHECK(dim % FP4_GROUP == 0);
    return (size_t)(dim / 2 + dim / FP4_GROUP);
}

void kv_index_row_pack(const float *x, int dim, uint8_t *row)
{
    CHECK(dim % FP4_GROUP == 0);
    uint8_t *scale = row + dim / 2;
    for (int i = 0; i < dim; i += FP4_GROUP) {
        uint8_t e = fp4_group_scale(x + i);
        float s = e8m0_to_f32(e);
        for (int j = i; j < i + FP4_GROUP; j += 2)
            row[j / 2] = (uint8_t)(f32_to_e2m1(x[j] / s) | f32_to_e2m1(x[j + 1] / s) << 4);
        *scale++ = e;
    }
}

void kv_index_row_unpack(const uint8_t *row, int dim, float *x)
{
    fp4_decode(row, row + dim / 2, x, dim);
}

static void butterfly(float *x, int len)
{
    for (int i = 0; i < len; i++) {
        float a = x[i], b = x[i + len];
        x[i] = a + b;
        x[i + len] = a - b;
    }
}

void hadamard(float *x, int n)
{
    CHECK(n > 0 && (n & (n - 1)) == 0);
    for (int len = 1; len < n; len *= 2)
        for (int i = 0; i < n; i += 2 * len)
            butterfly(x + i, len);
    float norm = (float)(1 / sqrt((double)n));
    for (int i = 0; i < n; i++)
        x[i] *= norm;
}
