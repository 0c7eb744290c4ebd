/* lookup_impl.h - four packed weights at a time to bfloat16, each the weight in float32 rounded to
 * nearest even: by a table of the few values that they have, or as whole numbers times a step. */
#ifndef DS_LOOKUP_IMPL_H
#define DS_LOOKUP_IMPL_H

#include "mma_impl.h"

/* n words at any address. The word behind them may be read too. */
template <int n> __device__ __forceinline__ void load_words(const uint8_t *p, uint32_t *to)
{
    const uint32_t *w = (const uint32_t *)((uintptr_t)p & ~(uintptr_t)3);
    unsigned by = (unsigned)((uintptr_t)p & 3) * 8;
    uint32_t low = w[0];
#pragma unroll
    for (int i = 0; i < n; i++) {
        uint32_t high = w[i + 1];
        to[i] = __funnelshift_r(low, high, by);
        low = high;
    }
}

/* Eight values, or four twice, as bfloat16: their low bytes, their high ones. */
struct values {
    uint32_t low[2], high[2];
};

__device__ __forceinline__ void split_four(const float *x, uint32_t *low, uint32_t *high)
{
    uint32_t a, b;
    BF16_PAIR(a, x[0], x[1]);
    BF16_PAIR(b, x[2], x[3]);
    *low = __byte_perm(a, b, 0x6420);
    *high = __byte_perm(a, b, 0x7531);
}

/* Four weights by codes of four bits, below 8; flip: what their high bytes have besides. */
__device__ __forceinline__ void choose_four(const struct values *v, uint32_t codes, uint32_t flip,
                                            uint32_t *two)
{
    uint32_t low = __byte_perm(v->low[0], v->low[1], codes);
    uint32_t high = __byte_perm(v->high[0], v->high[1], codes) ^ flip;
    two[0] = __byte_perm(low, high, 0x5140);
    two[1] = __byte_perm(low, high, 0x7362);
}

/* Four bytes u, as they lie in the float `base`, are base + u: times d, plus off. */
template <uint32_t base, int at>
__device__ __forceinline__ void scale_four(uint32_t bytes, float d, float off, uint32_t *two)
{
    float x[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        x[i] = fmaf(__uint_as_float(__byte_perm(bytes, base, at == 1 ? 0x7404 | i << 4
                                                                     : 0x7044 | i << 8)),
                    d, off);
    BF16_PAIR(two[0], x[0], x[1]);
    BF16_PAIR(two[1], x[2], x[3]);
}

#endif
