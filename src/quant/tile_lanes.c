/* tile_lanes.c - the products of tile_lanes_impl.h: four rows by sixteen columns in registers.
 * Products and sums are rounded apart, so that machines with and without fused ones agree. */
#include "tile_lanes_impl.h"

#include "cpu.h"
#include "lanes_impl.h"

#define TIMES(row)                      \
    s = f32x8_all(p[16 * (row) + k]);   \
    c##row##0 += s * b0;                \
    c##row##1 += s * b1

#define LOAD(row)                                       \
    f32x8 c##row##0 = f32x8_load(o + 16 * (row));       \
    f32x8 c##row##1 = f32x8_load(o + 16 * (row) + 8)

#define STORE(row)                                      \
    f32x8_store(o + 16 * (row), c##row##0);             \
    f32x8_store(o + 16 * (row) + 8, c##row##1)

LANES_INLINE void add(float *out, const float *a, size_t a_step, const float *b, int n_tile, int m)
{
    for (int i = 0; i < m; i += 4) {
        float *o = out + 16 * i;
        LOAD(0);
        LOAD(1);
        LOAD(2);
        LOAD(3);
        for (int t = 0; t < n_tile; t++) {
            const float *p = a + (size_t)t * a_step + 16 * i, *q = b + 256 * t;
            for (int k = 0; k < 16; k++) {
                f32x8 b0 = f32x8_load(q + 16 * k), b1 = f32x8_load(q + 16 * k + 8), s;
                TIMES(0);
                TIMES(1);
                TIMES(2);
                TIMES(3);
            }
        }
        STORE(0);
        STORE(1);
        STORE(2);
        STORE(3);
    }
}

LANES_INLINE void take(float *x, const float *v, const float *u, int tile)
{
    for (int t = tile; t < 16; t++) {
        f32x8 x0 = f32x8_load(x + 16 * t), x1 = f32x8_load(x + 16 * t + 8);
        const float *p = u + 4096 * t;
        for (int j = 0; j < 8; j++) {
            f32x8 s = f32x8_all(v[j]);
            x0 -= s * f32x8_load(p + 16 * j);
            x1 -= s * f32x8_load(p + 16 * j + 8);
        }
        f32x8_store(x + 16 * t, x0);
        f32x8_store(x + 16 * t + 8, x1);
    }
}

/* Each body twice. */
#define BOTH(ISA, TARGET)                                                                      \
    TARGET static void add_##ISA(float *out, const float *a, size_t a_step, const float *b,    \
                                 int n_tile, int m)                                            \
    {                                                                                          \
        add(out, a, a_step, b, n_tile, m);                                                     \
    }                                                                                          \
    TARGET static void take_##ISA(float *x, const float *v, const float *u, int tile)          \
    {                                                                                          \
        take(x, v, u, tile);                                                                   \
    }                                                                                          \
    static const struct tile_kernels ISA = { add_##ISA, take_##ISA };

BOTH(plain, )
BOTH(avx2, LANES_AVX2)

const struct tile_kernels *tile_kernels(unsigned isa)
{
    return isa & CPU_AVX2 ? &avx2 : &plain;
}
