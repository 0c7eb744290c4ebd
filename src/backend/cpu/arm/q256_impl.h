/* q256_impl.h - blocks of 256 weights as signed bytes, one group of 32 at a time: Q2_K, Q4_K,
 * IQ2_XXS. Products differ between instruction sets, unpacking does not. */
#ifndef DS_Q256_IMPL_H
#define DS_Q256_IMPL_H

#include "neon_impl.h"

#include "iq_tables.h"

/* What a row's block needs before its eight groups can be taken one by one. */
struct block {
    const uint8_t *src;
    int16x8_t min[2]; /* factors of the activations' 16 sums */
    uint8_t scale[16]; /* of 16 weights, or the first eight of 32 */
    uint32_t sign[8];
    float d, dmin;
};

struct group {
    int8x16_t lo, hi;
};

static ALWAYS_INLINE float f16_of(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}

typedef void open_fn(struct block *b, const uint8_t *src);
typedef void take_fn(struct group *to, const struct block *b, int g);

struct format {
    open_fn *open;
    take_fn *take;
    size_t bytes;
    bool scale_16; /* scales are of 16 weights */
    bool has_min;
};

static ALWAYS_INLINE void open_q2_k(struct block *b, const uint8_t *src)
{
    uint8x16_t packed = vld1q_u8(src), min = vshrq_n_u8(packed, 4);
    vst1q_u8(b->scale, vandq_u8(packed, vdupq_n_u8(15)));
    b->min[0] = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(min)));
    b->min[1] = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(min)));
    b->src = src + 16;
    b->d = f16_of(src + 80);
    b->dmin = f16_of(src + 82);
}

static ALWAYS_INLINE int8x16_t bits_at(const uint8_t *p, int shift, int mask)
{
    uint8x16_t v = vshlq_u8(vld1q_u8(p), vdupq_n_s8((int8_t)-shift));
    return vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8((uint8_t)mask)));
}

static ALWAYS_INLINE void take_q2_k(struct group *to, const struct block *b, int g)
{
    const uint8_t *p = b->src + g / 4 * 32;
    *to = (struct group){ bits_at(p, g % 4 * 2, 3), bits_at(p + 16, g % 4 * 2, 3) };
}

/* Eight pairs of scale and minimum in twelve bytes: 6 + 6 bits, or 4 + 4 and 2 + 2. */
static ALWAYS_INLINE void open_q4_k(struct block *b, const uint8_t *src)
{
    uint32_t u[3], scale[4] = { 0 }, min[2];
    memcpy(u, src + 4, 12);
    scale[0] = u[0] & 0x3f3f3f3f;
    scale[1] = (u[2] & 0x0f0f0f0f) | (u[0] >> 6 & 0x03030303) << 4;
    min[0] = u[1] & 0x3f3f3f3f;
    min[1] = (u[2] >> 4 & 0x0f0f0f0f) | (u[1] >> 6 & 0x03030303) << 4;
    memcpy(b->scale, scale, 16);
    uint8x8_t m = vcreate_u8((uint64_t)min[1] << 32 | min[0]);
    b->min[0] = vreinterpretq_s16_u16(vmovl_u8(vzip1_u8(m, m)));
    b->min[1] = vreinterpretq_s16_u16(vmovl_u8(vzip2_u8(m, m)));
    b->src = src + 16;
    b->d = f16_of(src);
    b->dmin = f16_of(src + 2);
}

static ALWAYS_INLINE void take_q4_k(struct group *to, const struct block *b, int g)
{
    const uint8_t *p = b->src + g / 2 * 32;
    *to = (struct group){ bits_at(p, g % 2 * 4, 15), bits_at(p + 16, g % 2 * 4, 15) };
}

/* (scale + 1/2) / 4 is (2 scale + 1) / 8. */
static ALWAYS_INLINE void open_iq2_xxs(struct block *b, const uint8_t *src)
{
    for (int g = 0; g < 8; g++) {
        memcpy(&b->sign[g], src + 2 + 8 * g + 4, 4);
        b->scale[g] = (uint8_t)((b->sign[g] >> 28) * 2 + 1);
    }
    b->src = src + 2;
    b->d = f16_of(src) * .125f;
}

/* Sixteen magnitudes, minus where a sign bit is set: -x is (x ^ m) - m. */
static ALWAYS_INLINE int8x16_t signed_16(const uint8_t *index, unsigned signs)
{
    static const uint8_t bit[16] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    uint64x2_t size = vcombine_u64(vcreate_u64(iq2_xxs_grid[index[0]]),
                                   vcreate_u64(iq2_xxs_grid[index[1]]));
    uint8x16_t s = vcombine_u8(vdup_n_u8((uint8_t)iq2_signs(signs & 127)),
                               vdup_n_u8((uint8_t)iq2_signs(signs >> 7 & 127)));
    int8x16_t minus = vreinterpretq_s8_u8(vtstq_u8(s, vld1q_u8(bit)));
    return vsubq_s8(veorq_s8(vreinterpretq_s8_u64(size), minus), minus);
}

static ALWAYS_INLINE void take_iq2_xxs(struct group *to, const struct block *b, int g)
{
    const uint8_t *index = b->src + 8 * g;
    *to = (struct group){ signed_16(index, b->sign[g]), signed_16(index + 2, b->sign[g] >> 14) };
}

#define FORMAT_Q2_K { open_q2_k, take_q2_k, 84, true, true }
#define FORMAT_Q4_K { open_q4_k, take_q4_k, 144, false, true }
#define FORMAT_IQ2_XXS { open_iq2_xxs, take_iq2_xxs, 66, false, false }

#endif
