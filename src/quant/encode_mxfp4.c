/* encode_mxfp4.c - MXFP4 from numbers: the power of two, of those that may be best, with the least
 * weighted error; each number to the nearest code.
 *
 * Up to the exponent at which the largest number is 6 or less, each lower one cuts the largest
 * numbers for a finer grid below; after three nothing is gained. Numbers that are FP4 times a power
 * of two come back exactly. */
#include "encode_impl.h"

#include "fp4.h"

static float error_at(const float *x, const float *w, float scale)
{
    float sum = 0;
    for (int j = 0; j < 32; j++) {
        float r = x[j] - e2m1_to_f32(f32_to_e2m1(x[j] / scale)) * scale;
        sum += w[j] * r * r;
    }
    return sum;
}

void mxfp4_search(const float *x, const float *w, uint8_t *dst)
{
    float max = 0, least = INFINITY;
    for (int j = 0; j < 32; j++)
        max = MAX(max, fabsf(x[j]));
    /* a number below 2^-126 / 6 is lost to the smallest power anyway */
    int top = max > 0x1p-120f ? e8m0_ceil(max * (1.f / 6)) : 0, best = top;
    for (int e = top; e > MAX(top - 3, 0); e--) {
        float error = error_at(x, w, e8m0_to_f32((uint8_t)e));
        if (error < least) {
            least = error;
            best = e;
        }
    }
    dst[0] = (uint8_t)best;
    float scale = e8m0_to_f32((uint8_t)best);
    for (int j = 0; j < 16; j++)
        dst[1 + j] = (uint8_t)(f32_to_e2m1(x[j] / scale) | f32_to_e2m1(x[16 + j] / scale) << 4);
}
