/* gated_impl.h - what becomes of an expert's gate and up. */
#ifndef DS_GATED_IMPL_H
#define DS_GATED_IMPL_H

#include "product_impl.h"

/* silu(a) b, both clamped. */
__device__ __forceinline__ float silu_times(float a, float b, float clamp)
{
    a = a > clamp ? clamp : a;
    b = b > clamp ? clamp : b < -clamp ? -clamp : b;
    return a / (1 + expf(-a)) * b;
}

/* What becomes of an expert's gate and up: weight * silu(gate) * up, weights of pairs. */
struct cu_gating {
    const float *weight;
    size_t weight_pitch;
    int n_used;
    float clamp;
};

__device__ __forceinline__ float pair_weight(const struct cu_gating *g, int pair)
{
    return g->weight[(size_t)(pair / g->n_used) * g->weight_pitch + pair % g->n_used];
}

/* gemm.cu: both of all used experts, of one type, an even number of rows, to rows of bfloat16 at
 * gate->out, many_bytes(gate->rows) apart, in the order of the lists. */
void cuda_gated_many(struct dev *d, const struct cu_product *gate, const struct cu_product *up,
                     const struct cu_gating *g);

#endif
