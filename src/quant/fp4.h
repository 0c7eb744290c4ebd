/* fp4.h - E2M1 numbers: 0 .5 1 1.5 2 3 4 6, bit 3 is the sign; no infinity, no NaN.
 *
 * The vendor packs neighbours into a byte (element 2i low), ggml's MXFP4 element j with j + 16. */
#ifndef DS_FP4_H
#define DS_FP4_H

#include "fp8.h"

float e2m1_to_f32(uint8_t q); /* the low four bits */

/* To nearest, ties to the even code; beyond 6 to 6. x is not NaN. */
uint8_t f32_to_e2m1(float x);

/* n numbers, two per byte, one scale per 32. */
void fp4_decode(const uint8_t *src, const uint8_t *scale, float *dst, int n);

/* n / 32 blocks of | E8M0 | 16 bytes |. */
void mxfp4_decode(const uint8_t *src, float *dst, int n);

#endif
