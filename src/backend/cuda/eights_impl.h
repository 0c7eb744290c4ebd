/* eights_impl.h - eight neighbouring weights that are single numbers, and their products. */
#ifndef DS_EIGHTS_IMPL_H
#define DS_EIGHTS_IMPL_H

#include "async_impl.h"
#include "floats_impl.h"
#include "list_impl.h"

#define EIGHT 8

/* Eight weights as they lie in memory, and what they are to be multiplied with. */
struct cu_eight {
    alignas(16) uint32_t word[8];
    float scale;
};

__device__ __forceinline__ constexpr int number_bytes(int type)
{
    return type == DT_F32 ? 4 : type == DT_F8_E4M3 ? 1 : 2;
}

/* Elements `at`.. of row r of w; beyond the row they are zero. */
template <int type, bool wide>
__device__ __forceinline__ void eight_load(const struct cu_few *f, int r, int at,
                                           struct cu_eight *e)
{
    const int bytes = number_bytes(type), words = EIGHT * bytes / 4;
    const uint8_t *p = f->w.data + (size_t)r * f->w.pitch + (size_t)at * bytes;
    int n = at < f->k ? (f->k - at) * bytes : 0;
    e->scale = 1;
    if (type == DT_F8_E4M3 && n > 0)
        e->scale = e8m0_value(f->w.scale[(size_t)(r / 128) * f->w.scale_pitch + at / 128]);
#pragma unroll
    for (int i = 0; i < words; i++)
        e->word[i] = 0;
    if (wide && n > 0) {
        if (words == 2)
            *(uint2 *)e->word = *(const uint2 *)p;
        for (int i = 0; i < words / 4; i++)
            *(uint4 *)(e->word + 4 * i) = ((const uint4 *)p)[i];
    }
#pragma unroll
    for (int b = 0; b < 4 * words && !wide; b++)
        e->word[b / 4] |= b < n ? (uint32_t)p[b] << b % 4 * 8 : 0;
}

template <int type> __device__ __forceinline__ float eight_at(const struct cu_eight *e, int i)
{
    switch (type) {
    case DT_F32: return __uint_as_float(e->word[i]);
    case DT_F16: return f16_value(e->word[i / 2] >> i % 2 * 16 & 0xffff);
    case DT_BF16: return __uint_as_float(e->word[i / 2] >> i % 2 * 16 << 16);
    default: return e4m3_value(e->word[i / 4] >> i % 4 * 8 & 255) * e->scale;
    }
}

template <bool wide> __device__ __forceinline__ void eight_floats(const float *x, int n, float *to)
{
    float4 half[2];
    if (wide) {
        half[0] = ((const float4 *)x)[0];
        half[1] = ((const float4 *)x)[1];
    }
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        to[i] = wide ? (&half[i / 4].x)[i % 4] : i < n ? x[i] : 0;
}

/* sum[r][i] plus the products of e[r] with elements `at`.. of row i of x. */
template <int type, int n_row, int n_x, bool wide>
__device__ __forceinline__ void eight_add(const struct cu_few *f, const struct cu_eight *e, int at,
                                          float (*sum)[n_x])
{
#pragma unroll
    for (int i = 0; i < n_x; i++) {
        float x[EIGHT];
        eight_floats<wide>(few_x(f, i) + at, f->k - at, x);
#pragma unroll
        for (int j = 0; j < n_row * EIGHT; j++)
            sum[j / EIGHT][i] = fmaf(eight_at<type>(&e[j / EIGHT], j % EIGHT), x[j % EIGHT],
                                     sum[j / EIGHT][i]);
    }
}

#endif
