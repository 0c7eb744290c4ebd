/* q8_lanes_impl.h - Q8_0 blocks at the speed of memory; the same bytes as q8_0_encode(). */
#ifndef DS_Q8_LANES_IMPL_H
#define DS_Q8_LANES_IMPL_H

#include "base.h"

/* n elements, a multiple of 32. False: a number is not finite, or too large for the step. */
struct q8_kernels {
    bool (*from_f32)(const float *src, uint8_t *dst, int n);
    bool (*from_bf16)(const uint8_t *src, uint8_t *dst, int n);
    bool (*from_f8)(const uint8_t *src, const uint8_t *scale, uint8_t *dst, int n);
};

const struct q8_kernels *q8_kernels(unsigned isa);

#endif
