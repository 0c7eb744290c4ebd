/* quant_impl.h - one decoder per ggml type; n is a multiple of the type's block. */
#ifndef DS_QUANT_IMPL_H
#define DS_QUANT_IMPL_H

#include "base.h"

void q4_0_decode(const uint8_t *src, float *dst, int n);
void q8_0_decode(const uint8_t *src, float *dst, int n);
void q8_0_encode(const float *src, uint8_t *dst, int n);
void q2_k_decode(const uint8_t *src, float *dst, int n);
void q3_k_decode(const uint8_t *src, float *dst, int n);
void q4_k_decode(const uint8_t *src, float *dst, int n);
/* Six-bit scale and minimum of sub-block s of 8, in twelve bytes (Q4_K and Q5_K). */
void q4_k_scale(const uint8_t *b, int s, int *scale, int *min);

void q5_k_decode(const uint8_t *src, float *dst, int n);
void q6_k_decode(const uint8_t *src, float *dst, int n);
void iq2_xxs_decode(const uint8_t *src, float *dst, int n);
void iq2_xs_decode(const uint8_t *src, float *dst, int n);

#endif
