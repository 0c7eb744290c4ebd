/* rounded_impl.h - which products round their activations, and to what: with few rows to eight
 * bits, with many to bfloat16. */
#ifndef DS_ROUNDED_IMPL_H
#define DS_ROUNDED_IMPL_H

#include "device_impl.h"

/* Elements that share a step in eight bits, as on the CPU, and so whole blocks of weights; 0: types
 * whose activations are not rounded. */
__host__ __device__ __forceinline__ constexpr int act_block(int type)
{
    switch (type) {
    case DT_Q8_0:
    case DT_MXFP4:
    case DT_FP4: return 32;
    case DT_Q2_K:
    case DT_Q4_K:
    case DT_IQ2_XXS: return 256;
    default: return 0;
    }
}

/* Of a row of k in bfloat16, k a multiple of 32. */
__host__ __device__ __forceinline__ size_t many_bytes(int k)
{
    return 2 * (size_t)k;
}

/* pack.cu: n rows of k floats, `pitch` bytes apart, to rounded rows, to_pitch bytes apart. */
struct cu_pack {
    const uint8_t *from;
    size_t pitch;
    uint8_t *to;
    int k, block, n; /* block: of eight bits */
    size_t to_pitch;
};

/* To bfloat16, for many rows; to records (round_impl.h), for up to FEW_MAX. Those are rounded by
 * groups, n_group in a row, and what a group has of all rows lies together. */
void cuda_pack_many(struct dev *d, const struct cu_pack *p);
void cuda_pack_few(struct dev *d, const struct cu_pack *p, int n_group);

#endif
