/* fp8.h - E4M3 numbers and E8M0 scales (OCP 8-bit floating point and microscaling formats).
 *
 * E4M3: bias 7, subnormal step 2^-9, largest 448, no infinity, S.1111.111 is NaN.
 * E8M0: 2^(e - 127), 255 is NaN. */
#ifndef DS_FP8_H
#define DS_FP8_H

#include "half.h"

float e4m3_to_f32(uint8_t q);

/* To nearest, ties to the even code; beyond 448 (infinity too) to 448; NaN stays NaN. */
uint8_t f32_to_e4m3(float x);

static inline float e8m0_to_f32(uint8_t e)
{
    if (e == 255)
        return f32_of_bits(0x7fc00000);
    return f32_of_bits(e ? (uint32_t)e << 23 : 0x400000);
}

/* The smallest power of two s with x <= s, as E8M0; x a positive normal number. Infinity and NaN
 * give 255. The exponent is read from the bits: a logarithm's rounding must not decide. */
static inline uint8_t e8m0_ceil(float x)
{
    uint32_t u = f32_bits(x);
    uint32_t e = (u >> 23) + ((u & 0x7fffff) != 0);
    return (uint8_t)MIN(e, 255);
}

/* n E4M3 numbers, one scale per 128. */
void f8_e4m3_decode(const uint8_t *src, const uint8_t *scale, float *dst, int n);

#endif
