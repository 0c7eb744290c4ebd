/* pack_neon.c - activations to eight bits, with the bits of cpu_pack.c. */
#include "neon_impl.h"

#include "half.h"

#include <math.h>

/* The bits of the largest |x|; NaN lies above infinity. */
static ALWAYS_INLINE uint32_t top_bits(const float *x, int n)
{
    uint32x4_t top = vdupq_n_u32(0);
    for (int i = 0; i < n; i += 4) {
        uint32x4_t v = vreinterpretq_u32_f32(vld1q_f32(x + i));
        top = vmaxq_u32(top, vbicq_u32(v, vdupq_n_u32(0x80000000)));
    }
    return vmaxvq_u32(top);
}

/* To the nearest, ties to even. */
static ALWAYS_INLINE int16x8_t round_8(const float *x, float inverse)
{
    int32x4_t lo = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), inverse));
    int32x4_t hi = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), inverse));
    return vcombine_s16(vmovn_s32(lo), vmovn_s32(hi));
}

static ALWAYS_INLINE void pack_group(const float *x, int8_t *q, float *d, int16_t *sum, int n)
{
    uint32_t top = top_bits(x, n);
    if (top >= 0x7f800000 || top < f32_bits(0x1p-100f)) {
        *d = top >= 0x7f800000 ? NAN : 0;
        memset(q, 0, (size_t)n);
        memset(sum, 0, (size_t)n / 16 * sizeof *sum);
        return;
    }
    float max = f32_of_bits(top), inverse = 127 / max;
    *d = max / 127;
    for (int i = 0; i < n; i += 16) {
        int16x8_t lo = round_8(x + i, inverse), hi = round_8(x + i + 8, inverse);
        vst1q_s8(q + i, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
        sum[i / 16] = vaddvq_s16(vaddq_s16(lo, hi));
    }
}

static void pack_q32(const float *x, void *row, int n)
{
    int8_t *q = row;
    float *d = (float *)(q + n);
    int16_t *sum = (int16_t *)(d + n / 32);
    for (int i = 0; i < n; i += 32)
        pack_group(x + i, q + i, d + i / 32, sum + i / 16, 32);
}

static void pack_q256(const float *x, void *row, int n)
{
    int8_t *q = row;
    float *d = (float *)(q + n);
    int16_t *sum = (int16_t *)(d + n / 256);
    for (int i = 0; i < n; i += 256)
        pack_group(x + i, q + i, d + i / 256, sum + i / 16, 256);
}

void cpu_pack_neon(struct cpu_kernels *k)
{
    k->pack[ACT_Q32] = pack_q32;
    k->pack[ACT_Q256] = pack_q256;
}
