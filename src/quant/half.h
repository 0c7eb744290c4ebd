/* half.h - the two 16-bit floats, by bit arithmetic: no compiler support needed, the same bits
 * everywhere. Encoding rounds to nearest even, overflow becomes infinity, a NaN stays a NaN
 * (quiet, the payload's upper bits kept). Signs of zero are kept. */
#ifndef DS_HALF_H
#define DS_HALF_H

#include "base.h"

static inline uint32_t f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float f32_of_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* IEEE binary16. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float x);

/* The upper half of binary32. */
static inline float bf16_to_f32(uint16_t b)
{
    return f32_of_bits((uint32_t)b << 16);
}
uint16_t f32_to_bf16(float x);

/* Little-endian f16 at any address. */
static inline float f16_at(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return f16_to_f32(h);
}

#endif
