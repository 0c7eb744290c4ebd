/* widen_impl.h - every type of weights to float32, bit for bit as src/quant does, 32 elements at a
 * time: for products with activations as they are, and for the embedding. */
#ifndef DS_WIDEN_IMPL_H
#define DS_WIDEN_IMPL_H

#include "unit_impl.h"

__device__ __forceinline__ float signed_byte(int four, int i)
{
    return (float)(int8_t)(four >> 8 * (i % 4));
}

__device__ __forceinline__ void widen_unit(const struct cu_unit *unit, float *x)
{
#pragma unroll
    for (int i = 0; i < UNIT; i++)
        x[i] = unit->d * signed_byte(unit->q[i / 4], i) - unit->dm * (float)unit->m[i / 16];
}

__device__ __forceinline__ void widen_q4_0(const uint8_t *p, float *x)
{
    float d = f16_at(p);
#pragma unroll
    for (int i = 0; i < 16; i++) {
        x[i] = d * (float)((p[2 + i] & 15) - 8);
        x[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
    }
}

__device__ __forceinline__ void widen_q3_k(const uint8_t *p, int g, float *x)
{
    float d = f16_at(p + 108);
#pragma unroll
    for (int i = 0; i < UNIT; i++) {
        int s = 2 * g + i / 16;
        const uint8_t *b = p + 96;
        int low = s < 8 ? b[s] & 15 : b[s - 8] >> 4, high = b[8 + s % 4] >> s / 4 * 2 & 3;
        int q = (p[32 + g / 4 * 32 + i] >> g % 4 * 2 & 3) + (p[i] >> g & 1) * 4 - 4;
        x[i] = d * (float)((low | high << 4) - 32) * (float)q;
    }
}

__device__ __forceinline__ void widen_q5_k(const uint8_t *p, int g, float *x)
{
    int scale, min;
    q4_k_scales(p + 4, g, &scale, &min);
    float d = f16_at(p) * (float)scale, dm = f16_at(p + 2) * (float)min;
#pragma unroll
    for (int i = 0; i < UNIT; i++) {
        int q = (p[48 + g / 2 * 32 + i] >> g % 2 * 4 & 15) + (p[16 + i] >> g & 1) * 16;
        x[i] = d * (float)q - dm;
    }
}

__device__ __forceinline__ void widen_q6_k(const uint8_t *p, int g, float *x)
{
    int half = g / 4, t = g % 4;
    float d = f16_at(p + 208);
#pragma unroll
    for (int i = 0; i < UNIT; i++) {
        int low = p[64 * half + t % 2 * 32 + i] >> t / 2 * 4 & 15;
        int high = p[128 + 32 * half + i] >> t * 2 & 3;
        x[i] = d * (float)(int8_t)p[192 + 2 * g + i / 16] * (float)((low | high << 4) - 32);
    }
}

__device__ __forceinline__ void widen_iq2_xs(const struct cu_tables *t, const uint8_t *p, int g,
                                             float *x)
{
    float d = f16_at(p);
#pragma unroll
    for (int i = 0; i < UNIT; i++) {
        int l = 4 * g + i / 8, j = i % 8;
        uint32_t code = load16(p + 2 + 2 * l), nibble = p[66 + l / 4] >> l / 2 % 2 * 4 & 15;
        float v = d * ((float)nibble + .5f) * .25f * (float)(t->iq2_xs[code & 511] >> 8 * j & 255);
        x[i] = eight_signs(code >> 9) >> j & 1 ? -v : v;
    }
}

/* Elements of a row of single numbers; beyond n they are zero. */
__device__ __forceinline__ void widen_numbers(int type, const struct cu_src *s, int first, int n,
                                              float *x)
{
#pragma unroll
    for (int i = 0; i < UNIT; i++) {
        size_t at = (size_t)first + i;
        x[i] = 0;
        if (i >= n)
            continue;
        if (type == DT_F32)
            x[i] = __uint_as_float(load32(s->row + 4 * at));
        else if (type == DT_F16)
            x[i] = f16_at(s->row + 2 * at);
        else if (type == DT_BF16)
            x[i] = __uint_as_float(load16(s->row + 2 * at) << 16);
        else
            x[i] = e4m3_value(s->row[at]) * e8m0_value(s->scale[at / 128]);
    }
}

/* Unit u of a row of k elements. A row's blocks are whole; rows of single numbers may end within
 * a unit. */
__device__ __forceinline__ void widen(int type, const struct cu_src *s, int u, int k, float *x)
{
    const uint8_t *row = s->row;
    int g = u % 8;
    size_t block = (size_t)(u / 8);
    struct cu_unit unit;
    switch (type) {
    case DT_F32:
    case DT_F16:
    case DT_BF16:
    case DT_F8_E4M3: widen_numbers(type, s, u * UNIT, k - u * UNIT, x); return;
    case DT_Q4_0: widen_q4_0(row + (size_t)u * 18, x); return;
    case DT_Q3_K: widen_q3_k(row + block * 110, g, x); return;
    case DT_Q5_K: widen_q5_k(row + block * 176, g, x); return;
    case DT_Q6_K: widen_q6_k(row + block * 210, g, x); return;
    case DT_IQ2_XS: widen_iq2_xs(s->tables, row + block * 74, g, x); return;
    default:
        unit_load(type, s, u, &unit);
        widen_unit(&unit, x);
    }
}

#endif
