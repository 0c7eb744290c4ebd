/* rounded_impl.h - activations rounded to eight bits as products read them. */
#ifndef DS_ROUNDED_IMPL_H
#define DS_ROUNDED_IMPL_H

#include "device_impl.h"

/* x = d q, a step d for every block. A block with a NaN or an infinity has d = NaN. The same
 * rounding as on the CPU, bit for bit. For products with many rows:
 * | i8 q x k | sums of 16: k / 8 bytes | f32 d x k / block |. Blocks of 256 have 16 sums,
 * s = low + 256 high: | i8 low x 16 | i8 high x 16 |; others have none. */
__device__ __forceinline__ float *many_d(const uint8_t *row, int k, int block)
{
    return (float *)(row + k + k / 8) + block;
}

__device__ __forceinline__ int8_t *many_sums(const uint8_t *row, int k, int block)
{
    return (int8_t *)(row + k) + 32 * block;
}

/* Elements that share a step: 0 for types whose activations are not rounded. */
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

static inline size_t act_bytes(int block, int k)
{
    return round_up((size_t)k + (size_t)(k / block * 4 + k / 16 * 2), 64);
}

/* pack.cu: n rows of k floats, `pitch` bytes apart, to packed rows, to_pitch bytes apart; k a
 * multiple of block. */
struct cu_pack {
    const uint8_t *from;
    size_t pitch;
    uint8_t *to;
    int k, block, n;
    size_t to_pitch;
};

/* n_group: each row holds so many rows of k, and those of a group follow each other. For products
 * of many rows, or of up to FEW_MAX, whose packed rows are records (round_impl.h). */
void cuda_pack_many(struct dev *d, const struct cu_pack *p, int n_group);
void cuda_pack_few(struct dev *d, const struct cu_pack *p, int n_group);

#endif
