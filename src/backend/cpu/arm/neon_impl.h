/* neon_impl.h - the few steps that the kernels of 64-bit ARM share. */
#ifndef DS_NEON_IMPL_H
#define DS_NEON_IMPL_H

#include "cpu_impl.h"

#include <arm_neon.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Before a loop of few, constant turns: all of them written out, so that arrays of vectors stay in
 * registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Weights of the next tile, while this one is computed. Never faults, wherever it points. */
static ALWAYS_INLINE void fetch_ahead(const struct tile *t, int j, size_t at)
{
    __builtin_prefetch((const void *)((uintptr_t)t->w[j] + at + t->ahead));
}

/* Lane j: the sum over the lanes of the j-th vector. */
static ALWAYS_INLINE int32x4_t sum_4x4_i(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

static ALWAYS_INLINE float32x4_t sum_4x4_f(float32x4_t a, float32x4_t b, float32x4_t c,
                                           float32x4_t d)
{
    return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
}

/* Four f16 from four addresses. */
static ALWAYS_INLINE float32x4_t f16_x4(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                                        const uint8_t *d)
{
    uint16_t h[4];
    memcpy(h, a, 2);
    memcpy(h + 1, b, 2);
    memcpy(h + 2, c, 2);
    memcpy(h + 3, d, 2);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h)));
}

/* E8M0 bytes in four lanes to 2^(e - 128), half the scale: the weights are held doubled. */
static ALWAYS_INLINE float32x4_t e8m0_half(uint32x4_t e)
{
    uint32x4_t bits = vshlq_n_u32(e, 23);
    uint32x4_t least = vandq_u32(vceqzq_u32(e), vdupq_n_u32(0x400000));
    uint32x4_t nan = vandq_u32(vceqq_u32(e, vdupq_n_u32(255)), vdupq_n_u32(0x7fc00000));
    bits = vorrq_u32(bits, vorrq_u32(least, nan));
    return vmulq_f32(vreinterpretq_f32_u32(bits), vdupq_n_f32(.5f));
}

/* Low nibbles as E2M1, twice the number. */
static ALWAYS_INLINE int8x16_t e2m1_twice(uint8x16_t code)
{
    static const int8_t table[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
    return vqtbl1q_s8(vld1q_s8(table), vandq_u8(code, vdupq_n_u8(15)));
}

/* The first n of four results to their places. */
static ALWAYS_INLINE void put_4(float *out, float32x4_t v, int n)
{
    float f[4];
    if (n == 4) {
        vst1q_f32(out, v);
        return;
    }
    vst1q_f32(f, v);
    for (int j = 0; j < n; j++)
        out[j] = f[j];
}

void cpu_pack_neon(struct cpu_kernels *k);
void cpu_q32_dotprod(struct cpu_kernels *k);
void cpu_q256_dotprod(struct cpu_kernels *k);

#endif
