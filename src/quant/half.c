/* half.c - binary16 and bfloat16 by bit arithmetic.
 *
 * Hardware conversions agree with these bit for bit (also for subnormals and NaN) and are used
 * in the kernels; here no instruction set is assumed. */
#include "half.h"

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exp = (h >> 10) & 31;
    uint32_t man = h & 0x3ff;
    if (exp == 31) {
        uint32_t quiet = man ? 0x400000 : 0;
        return f32_of_bits(sign | 0x7f800000 | man << 13 | quiet);
    }
    if (exp == 0) { /* zero or subnormal: man * 2^-24, exact */
        float x = (float)man * 0x1p-24f;
        return f32_of_bits(f32_bits(x) | sign);
    }
    return f32_of_bits(sign | (exp + 112) << 23 | man << 13);
}

/* v / 2^shift rounded to nearest even; 1 <= shift <= 31. */
static uint32_t shift_rne(uint32_t v, int shift)
{
    uint32_t down = v >> shift;
    uint32_t rest = v & ((1u << shift) - 1);
    uint32_t half = 1u << (shift - 1);
    return down + (rest > half || (rest == half && (down & 1)));
}

uint16_t f32_to_f16(float x)
{
    uint32_t u = f32_bits(x);
    uint32_t sign = (u >> 16) & 0x8000;
    uint32_t abs = u & 0x7fffffff;
    if (abs > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | ((abs >> 13) & 0x3ff));
    if (abs >= 0x47800000) /* 2^16 and more */
        return (uint16_t)(sign | 0x7c00);
    if (abs < 0x33000000) /* below half the smallest subnormal */
        return (uint16_t)sign;
    if (abs < 0x38800000) { /* subnormal: count of 2^-24; may round up to the smallest normal */
        int shift = 126 - (int)(abs >> 23);
        uint32_t man = (abs & 0x7fffff) | 0x800000;
        return (uint16_t)(sign | shift_rne(man, shift));
    }
    /* A carry out of the mantissa raises the exponent, at the top to infinity. */
    return (uint16_t)(sign | shift_rne(abs - (112u << 23), 13));
}

uint16_t f32_to_bf16(float x)
{
    uint32_t u = f32_bits(x);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)shift_rne(u, 16);
}
