/* pack_impl.h - rows of the cache, packed and unpacked by a block of threads: the layout and the
 * rounding of src/quant/kv_row.c, bit for bit. */
#ifndef DS_PACK_IMPL_H
#define DS_PACK_IMPL_H

#include "floats_impl.h"

#define FP8_GROUP 64
#define FP4_GROUP 32

__device__ __forceinline__ void copy_row(const float *x, int n, uint8_t *row)
{
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        ((float *)row)[i] = x[i];
}

/* A NaN is passed over. */
__device__ __forceinline__ float larger(float max, float x)
{
    float size = fabsf(x);
    return size > max ? size : max;
}

/* | E4M3 x nope | BF16 x rope_dim | E8M0 x groups | zeros |; a warp for a group. */
__device__ __forceinline__ void pack_kv_row(const float *x, int head_dim, int rope_dim,
                                            uint8_t *row, size_t bytes)
{
    int nope = head_dim - rope_dim, n_group = (nope + FP8_GROUP - 1) / FP8_GROUP;
    uint8_t *scale = row + nope + 2 * rope_dim;
    for (int g = WARP_ID; g < n_group; g += N_WARP) {
        int at = g * FP8_GROUP + LANE;
        float a = at < nope ? x[at] : 0, b = at + WARP < nope ? x[at + WARP] : 0;
        uint32_t e = e8m0_ceil_code(warp_max(larger(larger(1e-4f, a), b)) * (1.f / 448));
        float s = e8m0_value(e);
        if (at < nope)
            row[at] = (uint8_t)e4m3_code(a / s);
        if (at + WARP < nope)
            row[at + WARP] = (uint8_t)e4m3_code(b / s);
        if (LANE == 0)
            scale[g] = (uint8_t)e;
    }
    for (int i = (int)threadIdx.x; i < rope_dim; i += (int)blockDim.x) {
        uint32_t b = bf16_code(x[nope + i]);
        row[nope + 2 * i] = (uint8_t)b;
        row[nope + 2 * i + 1] = (uint8_t)(b >> 8);
    }
    for (int i = nope + 2 * rope_dim + n_group + (int)threadIdx.x; i < (int)bytes;
         i += (int)blockDim.x)
        row[i] = 0;
}

__device__ __forceinline__ float kv_value(const uint8_t *row, int head_dim, int rope_dim, int i)
{
    int nope = head_dim - rope_dim;
    if (i < nope)
        return e4m3_value(row[i]) * e8m0_value(row[nope + 2 * rope_dim + i / FP8_GROUP]);
    return __uint_as_float(load16(row + nope + 2 * (i - nope)) << 16);
}

/* The scale of 32 numbers, one in each lane: 255, no number, if one of them is a NaN. */
__device__ __forceinline__ uint32_t fp4_scale(float x)
{
    float max = warp_max(larger(6 * 0x1p-126f, x));
    unsigned nan = __ballot_sync(ALL_LANES, x != x);
    return nan ? 255 : e8m0_ceil_code(max * (1.f / 6));
}

/* | E2M1 x dim, element 2i in the low nibble | E8M0 x dim / 32 | */
__device__ __forceinline__ void pack_index_row(const float *x, int dim, uint8_t *row)
{
    for (int g = WARP_ID; g < dim / FP4_GROUP; g += N_WARP) {
        float v = x[g * FP4_GROUP + LANE];
        uint32_t e = fp4_scale(v), code = e2m1_code(v / e8m0_value(e));
        uint32_t next = __shfl_xor_sync(ALL_LANES, code, 1);
        if (LANE % 2 == 0)
            row[g * FP4_GROUP / 2 + LANE / 2] = (uint8_t)(code | next << 4);
        if (LANE == 0)
            row[dim / 2 + g] = (uint8_t)e;
    }
}

__device__ __forceinline__ float index_value(const uint8_t *row, int dim, int i)
{
    return e2m1_value(row[i / 2] >> i % 2 * 4) * e8m0_value(row[dim / 2 + i / FP4_GROUP]);
}

/* x := H x in shared memory; n a power of two. A thread for each pair. */
__device__ __forceinline__ void hadamard_row(float *x, int n)
{
    for (int len = 1; len < n; len *= 2) {
        for (int i = (int)threadIdx.x; i < n / 2; i += (int)blockDim.x) {
            int at = i / len * 2 * len + i % len;
            float a = x[at], b = x[at + len];
            x[at] = a + b;
            x[at + len] = a - b;
        }
        __syncthreads();
    }
    float norm = (float)(1 / sqrt((double)n));
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        x[i] *= norm;
    __syncthreads();
}

#endif
