/* lanes_impl.h - eight numbers at a time, in GNU C's portable vectors.
 *
 * The compiler turns them into whatever the machine has. Operations and their order are written
 * down, so that every machine and instruction set finds the same bytes. Rejected: intrinsics, which
 * belong to one machine, and plain loops, whose reductions a compiler may not reorder.
 * Everything is inlined: no vector is passed between functions, and how that would be done on
 * machines without such registers, of which gcc warns, does not matter (the Makefile's -Wno-psabi
 * for *_lanes.c). */
#ifndef DS_LANES_IMPL_H
#define DS_LANES_IMPL_H

#include "base.h"

#define LANES_INLINE static inline __attribute__((always_inline))

/* A body is compiled once for any machine and, on x86-64, once more for AVX2. */
#if defined(__x86_64__)
#define LANES_AVX2 __attribute__((target("avx2")))
#else
#define LANES_AVX2
#endif

typedef float f32x8 __attribute__((vector_size(32)));
typedef int32_t i32x8 __attribute__((vector_size(32)));

LANES_INLINE f32x8 f32x8_load(const float *p)
{
    f32x8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

LANES_INLINE void f32x8_store(float *p, f32x8 v)
{
    memcpy(p, &v, sizeof v);
}

LANES_INLINE f32x8 f32x8_all(float x)
{
    return (f32x8){ x, x, x, x, x, x, x, x };
}

/* a where the mask is set, else b. */
LANES_INLINE f32x8 f32x8_pick(i32x8 mask, f32x8 a, f32x8 b)
{
    return (f32x8)(((i32x8)a & mask) | ((i32x8)b & ~mask));
}

LANES_INLINE f32x8 f32x8_max(f32x8 a, f32x8 b)
{
    return f32x8_pick(a > b, a, b);
}

LANES_INLINE f32x8 f32x8_min(f32x8 a, f32x8 b)
{
    return f32x8_pick(a < b, a, b);
}

LANES_INLINE f32x8 f32x8_abs(f32x8 a)
{
    return (f32x8)((i32x8)a & 0x7fffffff);
}

/* To the nearest whole number, ties to even; for |x| < 2^22. */
LANES_INLINE f32x8 f32x8_round(f32x8 x)
{
    f32x8 big = f32x8_all(12582912.f); /* its unit in the last place is 1 */
    return (x + big) - big;
}

LANES_INLINE float f32x8_top(f32x8 v)
{
    float x[8];
    f32x8_store(x, v);
    float a = MAX(x[0], x[1]), b = MAX(x[2], x[3]), c = MAX(x[4], x[5]), d = MAX(x[6], x[7]);
    a = MAX(a, b);
    c = MAX(c, d);
    return MAX(a, c);
}

LANES_INLINE float f32x8_sum(f32x8 v)
{
    float x[8];
    f32x8_store(x, v);
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

#endif
