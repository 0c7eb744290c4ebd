/* times_impl.h - a unit of packed weights, as pair_impl.h gives it, times rounded activations. */
#ifndef DS_TIMES_IMPL_H
#define DS_TIMES_IMPL_H

#include "unit_impl.h"

/* c plus four products of a's bytes, which have no sign, and b's, which have one. */
#ifdef CUDA_EMULATED
#define dp4a_plus(a, b, c) emu_dp4a_plus(a, b, c)
#else
__device__ __forceinline__ int dp4a_plus(int a, int b, int c)
{
    asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(c) : "r"(a), "r"(b));
    return c;
}
#endif

__device__ __forceinline__ constexpr bool has_minima(int type)
{
    return type == DT_Q2_K || type == DT_Q4_K;
}

template <int type>
__device__ __forceinline__ int whole_times(const struct cu_unit *w, const int *x)
{
    int s[2] = { 0, 0 };
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (type == DT_Q2_K)
            s[i / 4] = dp4a_plus(w->q[i], x[i], s[i / 4]);
        else
            s[0] = __dp4a(w->q[i], x[i], s[0]);
    return type == DT_Q2_K ? (s[0] * w->scale[0] + s[1] * w->scale[1]) >> w->shift : s[0];
}

/* sum plus a unit times 32 activations of step d. */
template <int type>
__device__ __forceinline__ float unit_times(const struct cu_unit *w, const int *x, float d,
                                            const int16_t *x_sum, float sum)
{
    int s = whole_times<type>(w, x);
    sum = fmaf(w->d * d, (float)s, sum);
    if (has_minima(type))
        sum = fmaf(-(w->dm * d), (float)(w->m[0] * x_sum[0] + w->m[1] * x_sum[1]), sum);
    return sum;
}

#endif
