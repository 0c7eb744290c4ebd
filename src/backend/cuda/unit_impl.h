/* unit_impl.h - packed weights in units of 32 neighbouring elements, as whole numbers and as
 * float32. A unit is what one lane multiplies, and the depth of one tensor-core product. */
#ifndef DS_UNIT_IMPL_H
#define DS_UNIT_IMPL_H

#include "floats_impl.h"

#define UNIT 32

/* Element e is d * q[e] - dm * m[e / 16]; products d * q are exact in float32. */
struct cu_unit {
    int q[8]; /* signed bytes, four each */
    float d, dm;
    int m[2];
    int scale[2], shift; /* of pair_q2_k() alone: what q[e] is yet to be multiplied with, for
                            e / 16, and shifted to the right by */
};

/* Four E2M1 codes, four bits each, to twice their values as bytes. */
__device__ __forceinline__ int e2m1_four(uint32_t codes)
{
    uint32_t sign = (codes & 0x8888) >> 3, at = codes & 0x7777;
    sign = (sign & 0x0011) | (sign & 0x1100) << 8;
    sign = ((sign | sign << 4) & 0x01010101) * 255;
    uint32_t plus = __byte_perm(0x03020100, 0x0c080604, at);
    uint32_t minus = __byte_perm(0xfdfeff00, 0xf4f8fafc, at);
    return (int)((plus & ~sign) | (minus & sign));
}

/* The low four bits of four bytes, together. */
__device__ __forceinline__ uint32_t low_nibbles(uint32_t w)
{
    w &= 0x0f0f0f0f;
    w |= w >> 4;
    return (w & 0xff) | (w >> 8 & 0xff00);
}

__device__ __forceinline__ void unit_q8_0(const struct cu_src *s, int u, struct cu_unit *out)
{
    const uint8_t *p = s->row + (size_t)u * 34;
    out->d = f16_at(p);
    for (int i = 0; i < 8; i++)
        out->q[i] = (int)load32(p + 2 + 4 * i);
}

__device__ __forceinline__ void unit_mxfp4(const struct cu_src *s, int u, struct cu_unit *out)
{
    const uint8_t *p = s->row + (size_t)u * 17;
    out->d = e8m0_value(p[0]) * .5f;
    for (int i = 0; i < 4; i++) {
        uint32_t w = load32(p + 1 + 4 * i);
        out->q[i] = e2m1_four(low_nibbles(w));
        out->q[i + 4] = e2m1_four(low_nibbles(w >> 4));
    }
}

__device__ __forceinline__ void unit_fp4(const struct cu_src *s, int u, struct cu_unit *out)
{
    const uint8_t *p = s->row + (size_t)u * 16;
    out->d = e8m0_value(s->scale[u]) * .5f;
    for (int i = 0; i < 4; i++) {
        uint32_t w = load32(p + 4 * i);
        out->q[2 * i] = e2m1_four(w & 0xffff);
        out->q[2 * i + 1] = e2m1_four(w >> 16);
    }
}

/* The scale of every 16 goes into the numbers: at most 3 * 15. */
__device__ __forceinline__ void unit_q2_k(const struct cu_src *s, int u, struct cu_unit *out)
{
    const uint8_t *p = s->row + (size_t)(u / 8) * 84;
    int g = u % 8;
    out->d = f16_at(p + 80);
    out->dm = f16_at(p + 82);
    for (int h = 0; h < 2; h++) {
        int scale = p[2 * g + h];
        out->m[h] = scale >> 4;
        for (int i = 4 * h; i < 4 * h + 4; i++) {
            uint32_t w = load32(p + 16 + g / 4 * 32 + 4 * i);
            out->q[i] = (int)(w >> g % 4 * 2 & 0x03030303) * (scale & 15);
        }
    }
}

/* Six-bit scale and minimum g of eight, in twelve bytes. */
__device__ __forceinline__ void q4_k_scales(const uint8_t *b, int g, int *scale, int *min)
{
    const uint8_t *p = b + g % 4;
    *scale = g < 4 ? p[0] & 63 : (p[8] & 15) | p[0] >> 6 << 4;
    *min = g < 4 ? p[4] & 63 : p[8] >> 4 | p[4] >> 6 << 4;
}

__device__ __forceinline__ void unit_q4_k(const struct cu_src *s, int u, struct cu_unit *out)
{
    const uint8_t *p = s->row + (size_t)(u / 8) * 144;
    int g = u % 8, scale, min;
    q4_k_scales(p + 4, g, &scale, &min);
    out->d = f16_at(p) * (float)scale;
    out->dm = f16_at(p + 2);
    out->m[0] = out->m[1] = min;
    for (int i = 0; i < 8; i++)
        out->q[i] = (int)(load32(p + 16 + g / 2 * 32 + 4 * i) >> g % 2 * 4 & 0x0f0f0f0f);
}

/* Magnitudes, none of them zero, with the minus signs of four bits. */
__device__ __forceinline__ int signed_four(uint32_t magnitude, uint32_t signs)
{
    uint32_t one = (signs & 15) * 0x00204081 & 0x01010101;
    return (int)((magnitude ^ one * 255) + one);
}

/* Seven stored signs to eight: the number of minus signs is always even. */
__device__ __forceinline__ uint32_t eight_signs(uint32_t seven)
{
    return seven | (uint32_t)(__popc(seven) & 1) << 7;
}

__device__ __forceinline__ void unit_iq2_xxs(const struct cu_src *s, int u, struct cu_unit *out)
{
    const uint8_t *p = s->row + (size_t)(u / 8) * 66, *group = p + 2 + u % 8 * 8;
    uint32_t rest = load32(group + 4), index = load32(group);
    out->d = f16_at(p) * .125f * (float)((rest >> 28) * 2 + 1);
    for (int i = 0; i < 4; i++) {
        uint64_t grid = s->tables->iq2_xxs[index >> 8 * i & 255];
        uint32_t signs = eight_signs(rest >> 7 * i & 127);
        out->q[2 * i] = signed_four((uint32_t)grid, signs);
        out->q[2 * i + 1] = signed_four((uint32_t)(grid >> 32), signs >> 4);
    }
}

/* The types that are multiplied as whole numbers, with activations rounded to eight bits; a
 * constant `type` leaves one case. */
__device__ __forceinline__ void unit_load(int type, const struct cu_src *s, int u,
                                          struct cu_unit *out)
{
    out->dm = 0;
    out->m[0] = out->m[1] = 0;
    switch (type) {
    case DT_Q8_0: unit_q8_0(s, u, out); return;
    case DT_MXFP4: unit_mxfp4(s, u, out); return;
    case DT_FP4: unit_fp4(s, u, out); return;
    case DT_Q2_K: unit_q2_k(s, u, out); return;
    case DT_Q4_K: unit_q4_k(s, u, out); return;
    default: unit_iq2_xxs(s, u, out);
    }
}

#endif
