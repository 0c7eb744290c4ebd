/* fp4.c - E2M1, packed the vendor's way and as MXFP4: the same values, other nibble order. */
#include "fp4.h"

#include "quant.h"

static const float e2m1[16] = {
    0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6,
};

float e2m1_to_f32(uint8_t q)
{
    return e2m1[q & 15];
}

uint8_t f32_to_e2m1(float x)
{
    uint32_t u = f32_bits(x);
    float a = f32_of_bits(u & 0x7fffffff);
    /* Midpoints between neighbours; a tie goes up only to an even code. */
    unsigned q = (a > .25f) + (a >= .75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                 (a >= 3.5f) + (a > 5.f);
    return (uint8_t)(q | (u >> 28 & 8));
}

void fp4_decode(const uint8_t *src, const uint8_t *scale, float *dst, int n)
{
    for (int i = 0; i < n; i += 2) {
        float s = e8m0_to_f32(scale[i / 32]);
        dst[i] = e2m1[src[i / 2] & 15] * s;
        dst[i + 1] = e2m1[src[i / 2] >> 4] * s;
    }
}

void mxfp4_decode(const uint8_t *src, float *dst, int n)
{
    for (int i = 0; i < n; i += 32, src += 17) {
        float s = e8m0_to_f32(src[0]);
        for (int j = 0; j < 16; j++) {
            dst[i + j] = e2m1[src[1 + j] & 15] * s;
            dst[i + 16 + j] = e2m1[src[1 + j] >> 4] * s;
        }
    }
}

/* Four bytes to every other one of eight. */
static uint64_t spread(uint32_t four)
{
    uint64_t x = four;
    x = (x | x << 16) & UINT64_C(0x0000ffff0000ffff);
    return (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
}

/* Sixteen bytes at a time: elements 2k and 2k + 1 of the first half, in byte k, meet those of the
 * second half, in byte 8 + k. */
static void regroup(const uint8_t *src, uint8_t *dst)
{
    const uint64_t low = UINT64_C(0x0f0f0f0f0f0f0f0f);
    uint64_t first, second, out[2];
    memcpy(&first, src, 8);
    memcpy(&second, src + 8, 8);
    uint64_t even = (first & low) | (second & low) << 4;
    uint64_t odd = (first >> 4 & low) | (second & ~low);
    out[0] = spread((uint32_t)even) | spread((uint32_t)odd) << 8;
    out[1] = spread((uint32_t)(even >> 32)) | spread((uint32_t)(odd >> 32)) << 8;
    memcpy(dst, out, 16);
}

void quant_fp4_to_mxfp4(const uint8_t *fp4, const uint8_t *scale, uint8_t *mxfp4, int n)
{
    CHECK(n % 32 == 0);
    for (int i = 0; i < n; i += 32, mxfp4 += 17) {
        mxfp4[0] = scale[i / 32];
        regroup(fp4 + i / 2, mxfp4 + 1);
    }
}
