/* fp8.c - E4M3 by bit arithmetic: its normals are those of binary32 with a shifted exponent, its
 * subnormals are counts of 2^-9. */
#include "fp8.h"

float e4m3_to_f32(uint8_t q)
{
    uint32_t sign = (uint32_t)(q & 0x80) << 24;
    uint32_t abs = q & 0x7f;
    if (abs == 0x7f)
        return f32_of_bits(sign | 0x7fc00000);
    if (abs < 8)
        return f32_of_bits(sign | f32_bits((float)abs * 0x1p-9f));
    return f32_of_bits(sign | ((abs << 20) + (120u << 23)));
}

uint8_t f32_to_e4m3(float x)
{
    uint32_t u = f32_bits(x);
    uint8_t sign = (uint8_t)(u >> 24 & 0x80);
    uint32_t abs = u & 0x7fffffff;
    if (abs > 0x7f800000)
        return sign | 0x7f;
    if (abs >= 0x43e00000) /* 448 */
        return sign | 0x7e;
    if (abs < 0x3c800000) { /* below 2^-6: adding 2^14 leaves a count of 2^-9, rounded to even */
        float count = f32_of_bits(abs) + 0x1p14f;
        return (uint8_t)(sign | (f32_bits(count) - f32_bits(0x1p14f)));
    }
    uint32_t up = abs + 0x7ffff + (abs >> 20 & 1);
    return (uint8_t)(sign | ((up >> 20) - (120u << 3)));
}

void f8_e4m3_decode(const uint8_t *src, const uint8_t *scale, float *dst, int n)
{
    for (int i = 0; i < n; i++)
        dst[i] = e4m3_to_f32(src[i]) * e8m0_to_f32(scale[i / 128]);
}
