/* q8_0.c - blocks of 32 with one f16 step: eight bits (Q8_0) and four (Q4_0).
 *
 * Q8_0: | f16 d | i8 q x 32 |, x = d q.
 * Q4_0: | f16 d | u8 x 16 |, low nibble element j, high nibble j + 16, x = d (q - 8). */
#include "half.h"
#include "quant_impl.h"

#include <math.h>

void q8_0_decode(const uint8_t *src, float *dst, int n)
{
    for (int i = 0; i < n; i += 32, src += 34) {
        float d = f16_at(src);
        for (int j = 0; j < 32; j++)
            dst[i + j] = d * (float)(int8_t)src[2 + j];
    }
}

void q4_0_decode(const uint8_t *src, float *dst, int n)
{
    for (int i = 0; i < n; i += 32, src += 18) {
        float d = f16_at(src);
        for (int j = 0; j < 16; j++) {
            dst[i + j] = d * (float)((src[2 + j] & 15) - 8);
            dst[i + 16 + j] = d * (float)((src[2 + j] >> 4) - 8);
        }
    }
}

/* Numbers are divided by the step as stored, after its rounding to f16: the rounding then costs
 * nothing. A NaN or an infinity makes the step one, so that the block cannot pass as numbers. */
static void q8_0_encode_block(const float *x, uint8_t *dst)
{
    float max = 0, bad = 0;
    for (int j = 0; j < 32; j++) {
        max = fmaxf(max, fabsf(x[j]));
        bad += x[j] * 0;
    }
    uint16_t d16 = f32_to_f16(max / 127 + bad);
    float d = f16_to_f32(d16);
    memcpy(dst, &d16, 2);
    for (int j = 0; j < 32; j++) {
        float q = d > 0 && isfinite(d) ? rintf(x[j] / d) : 0;
        dst[2 + j] = (uint8_t)(int8_t)MAX(-127, MIN(127, q));
    }
}

void q8_0_encode(const float *src, uint8_t *dst, int n)
{
    for (int i = 0; i < n; i += 32, dst += 34)
        q8_0_encode_block(src + i, dst);
}
