/* q8_lanes.c - Q8_0 from float32, bfloat16 and E4M3, 32 numbers at a time. */
#include "q8_lanes_impl.h"

#include "cpu.h"
#include "fp8.h"
#include "lanes_impl.h"

typedef int8_t i8x8 __attribute__((vector_size(8)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));

/* The largest of eight lanes, none of which is negative. */
LANES_INLINE int32_t top_lane(i32x8 v)
{
    int32_t x[8];
    memcpy(x, &v, sizeof x);
    int32_t a = MAX(x[0], x[1]), b = MAX(x[2], x[3]), c = MAX(x[4], x[5]), d = MAX(x[6], x[7]);
    a = MAX(a, b);
    c = MAX(c, d);
    return MAX(a, c);
}

/* The step of 32 numbers, and their codes in the low bytes of code[]. */
LANES_INLINE bool encode(const f32x8 x[4], uint8_t *step, i32x8 code[4])
{
    i32x8 most = (i32x8)f32x8_abs(x[0]);
    for (int i = 1; i < 4; i++) {
        i32x8 size = (i32x8)f32x8_abs(x[i]), larger = size > most;
        most = (size & larger) | (most & ~larger);
    }
    /* Sizes compare as their bits do; an exponent of all ones is above every number. */
    int32_t max = top_lane(most);
    uint16_t h = f32_to_f16(f32_of_bits((uint32_t)max) / 127);
    float d = f16_to_f32(h);
    memcpy(step, &h, 2);
    for (int i = 0; i < 4; i++) {
        f32x8 q = h ? x[i] / f32x8_all(d) : f32x8_all(0);
        q = f32x8_max(f32x8_min(q, f32x8_all(127)), f32x8_all(-127));
        code[i] = (i32x8)(q + f32x8_all(12582912.f)); /* rounds to whole numbers, in the low bits */
    }
    return h < 0x7c00;
}

/* code[i] has elements 8 i to 8 i + 7. */
LANES_INLINE void put_rows(uint8_t *dst, const i32x8 code[4])
{
    for (int i = 0; i < 4; i++) {
        i8x8 bytes = __builtin_convertvector(code[i] << 24 >> 24, i8x8);
        memcpy(dst + 8 * i, &bytes, sizeof bytes);
    }
}

/* code[i] has elements i, 4 + i, 8 + i, ... */
LANES_INLINE void put_columns(uint8_t *dst, const i32x8 code[4])
{
    i32x8 bytes = (code[0] & 255) | (code[1] & 255) << 8 | (code[2] & 255) << 16 | code[3] << 24;
    memcpy(dst, &bytes, sizeof bytes);
}

LANES_INLINE bool from_f32(const float *src, uint8_t *dst, int n)
{
    bool good = true;
    for (int i = 0; i < n; i += 32, dst += 34) {
        f32x8 x[4];
        i32x8 code[4];
        for (int j = 0; j < 4; j++)
            x[j] = f32x8_load(src + i + 8 * j);
        good &= encode(x, dst, code);
        put_rows(dst + 2, code);
    }
    return good;
}

LANES_INLINE bool from_bf16(const uint8_t *src, uint8_t *dst, int n)
{
    bool good = true;
    for (int i = 0; i < n; i += 32, dst += 34) {
        f32x8 x[4];
        i32x8 code[4];
        for (int j = 0; j < 4; j++) {
            u16x8 half;
            memcpy(&half, src + 2 * (i + 8 * j), sizeof half);
            x[j] = (f32x8)(__builtin_convertvector(half, i32x8) << 16);
        }
        good &= encode(x, dst, code);
        put_rows(dst + 2, code);
    }
    return good;
}

/* Normal numbers are those of binary32 with another bias; below 8, codes count 2^-9; 0x7f is
 * NaN. */
LANES_INLINE f32x8 e4m3(i32x8 q)
{
    i32x8 abs = q & 0x7f, nan = abs == 0x7f, bits = (abs << 20) + (120 << 23);
    f32x8 small = __builtin_convertvector(abs, f32x8) * f32x8_all(0x1p-9f);
    f32x8 x = f32x8_pick(abs < 8, small, (f32x8)(bits | (nan & 0x7f800000)));
    return (f32x8)((i32x8)x | (q & 0x80) << 24);
}

LANES_INLINE bool from_f8(const uint8_t *src, const uint8_t *scale, uint8_t *dst, int n)
{
    bool good = true;
    for (int i = 0; i < n; i += 32, dst += 34) {
        f32x8 x[4], s = f32x8_all(e8m0_to_f32(scale[i / 128]));
        i32x8 four, code[4];
        memcpy(&four, src + i, sizeof four);
        for (int j = 0; j < 4; j++)
            x[j] = e4m3(four >> (8 * j)) * s;
        good &= encode(x, dst, code);
        put_columns(dst + 2, code);
    }
    return good;
}

#define BOTH(ISA, TARGET)                                                                         \
    TARGET static bool f32_##ISA(const float *src, uint8_t *dst, int n)                           \
    {                                                                                             \
        return from_f32(src, dst, n);                                                             \
    }                                                                                             \
    TARGET static bool bf16_##ISA(const uint8_t *src, uint8_t *dst, int n)                        \
    {                                                                                             \
        return from_bf16(src, dst, n);                                                            \
    }                                                                                             \
    TARGET static bool f8_##ISA(const uint8_t *src, const uint8_t *scale, uint8_t *dst, int n)    \
    {                                                                                             \
        return from_f8(src, scale, dst, n);                                                       \
    }                                                                                             \
    static const struct q8_kernels ISA = { f32_##ISA, bf16_##ISA, f8_##ISA };

BOTH(plain, )
BOTH(avx2, LANES_AVX2)

const struct q8_kernels *q8_kernels(unsigned isa)
{
    return isa & CPU_AVX2 ? &avx2 : &plain;
}
