/* floats_impl.h - the narrow floats on the device, bit for bit as in src/quant. */
#ifndef DS_FLOATS_IMPL_H
#define DS_FLOATS_IMPL_H

#include "device_impl.h"

#ifndef CUDA_EMULATED
__device__ __forceinline__ float f16_value(uint32_t h)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((uint16_t)h));
    return x;
}
#else
__device__ __forceinline__ float f16_value(uint32_t h)
{
    uint32_t sign = (h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff;
    if (exp == 31)
        return __uint_as_float(sign | 0x7f800000 | man << 13 | (man ? 0x400000u : 0u));
    if (exp == 0)
        return __uint_as_float(__float_as_uint((float)man * 0x1p-24f) | sign);
    return __uint_as_float(sign | (exp + 112) << 23 | man << 13);
}
#endif

__device__ __forceinline__ float f16_at(const uint8_t *p)
{
    return f16_value(load16(p));
}

__device__ __forceinline__ uint32_t bf16_code(float x)
{
    uint32_t u = __float_as_uint(x);
    if ((u & 0x7fffffff) > 0x7f800000)
        return u >> 16 | 0x40;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

__device__ __forceinline__ float e4m3_value(uint32_t q)
{
    uint32_t sign = (q & 0x80) << 24, abs = q & 0x7f;
    if (abs == 0x7f)
        return __uint_as_float(sign | 0x7fc00000);
    if (abs < 8)
        return __uint_as_float(sign | __float_as_uint((float)abs * 0x1p-9f));
    return __uint_as_float(sign | ((abs << 20) + (120u << 23)));
}

__device__ __forceinline__ uint32_t e4m3_code(float x)
{
    uint32_t u = __float_as_uint(x), sign = u >> 24 & 0x80, abs = u & 0x7fffffff;
    if (abs > 0x7f800000)
        return sign | 0x7f;
    if (abs >= 0x43e00000)
        return sign | 0x7e;
    if (abs < 0x3c800000) /* below 2^-6: adding 2^14 leaves a count of 2^-9, rounded to even */
        return sign | (__float_as_uint(__uint_as_float(abs) + 0x1p14f) - 0x46800000u);
    return sign | (((abs + 0x7ffff + (abs >> 20 & 1)) >> 20) - (120u << 3));
}

__device__ __forceinline__ float e8m0_value(uint32_t e)
{
    return __uint_as_float(e == 255 ? 0x7fc00000u : e ? e << 23 : 0x400000u);
}

__device__ __forceinline__ uint32_t e8m0_ceil_code(float x)
{
    uint32_t u = __float_as_uint(x), e = (u >> 23) + ((u & 0x7fffff) != 0);
    return e < 255 ? e : 255;
}

__device__ __forceinline__ float e2m1_value(uint32_t q)
{
    float x = (float)(0xc8643210u >> (q & 7) * 4 & 15) * .5f;
    return __uint_as_float(__float_as_uint(x) | (q & 8) << 28);
}

__device__ __forceinline__ uint32_t e2m1_code(float x)
{
    uint32_t u = __float_as_uint(x);
    float a = __uint_as_float(u & 0x7fffffff);
    uint32_t q = (a > .25f) + (a >= .75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                 (a >= 3.5f) + (a > 5.f);
    return q | (u >> 28 & 8);
}

#endif
