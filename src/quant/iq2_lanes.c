/* iq2_lanes.c - the inner loops of the IQ2_XXS search, over the 256 entries of its codebook. */
#include "iq2_lanes_impl.h"

#include "cpu.h"
#include "lanes_impl.h"

#include <math.h>

LANES_INLINE void slopes(const struct iq2_tables *t, const float *w, float *a)
{
    f32x8 weight[8];
    for (int j = 0; j < 8; j++)
        weight[j] = f32x8_all(w[j]);
    for (int v = 0; v < 256; v += 8) {
        f32x8 sum = weight[0] * f32x8_load(&t->g2[0][v]);
        for (int j = 1; j < 8; j++)
            sum += weight[j] * f32x8_load(&t->g2[j][v]);
        f32x8_store(a + v, sum);
    }
}

LANES_INLINE void offsets(const struct iq2_tables *t, const f32x8 p[8], float *b)
{
    for (int v = 0; v < 256; v += 8) {
        f32x8 sum = p[0] * f32x8_load(&t->g[0][v]);
        for (int j = 1; j < 8; j++)
            sum += p[j] * f32x8_load(&t->g[j][v]);
        f32x8_store(b + v, sum);
    }
}

/* With one sign wrong. */
LANES_INLINE void offsets_odd(const struct iq2_tables *t, const f32x8 p[8], float *b)
{
    for (int v = 0; v < 256; v += 8) {
        f32x8 sum = p[0] * f32x8_load(&t->g[0][v]), least = sum;
        for (int j = 1; j < 8; j++) {
            f32x8 y = p[j] * f32x8_load(&t->g[j][v]);
            sum += y;
            least = f32x8_min(least, y);
        }
        f32x8_store(b + v, sum - (least + least));
    }
}

LANES_INLINE void lines(const struct iq2_tables *t, const float *x, const float *w,
                        struct iq2_lines *out)
{
    f32x8 p[8];
    int odd = 0;
    for (int j = 0; j < 8; j++) {
        odd ^= x[j] < 0;
        p[j] = f32x8_all(2 * w[j] * fabsf(x[j]));
    }
    slopes(t, w, out->a);
    if (odd)
        offsets_odd(t, p, out->b);
    else
        offsets(t, p, out->b);
}

LANES_INLINE f32x8 height(const struct iq2_lines *l, f32x8 s, int v)
{
    return f32x8_load(l->b + v) - s * f32x8_load(l->a + v);
}

LANES_INLINE float highest(const struct iq2_lines *l, float s, float known, int *which)
{
    f32x8 at = f32x8_all(s), top[4];
    for (int i = 0; i < 4; i++)
        top[i] = height(l, at, 8 * i);
    for (int v = 32; v < 256; v += 32) {
        for (int i = 0; i < 4; i++)
            top[i] = f32x8_max(top[i], height(l, at, v + 8 * i));
    }
    float x[8];
    f32x8_store(x, f32x8_max(f32x8_max(top[0], top[1]), f32x8_max(top[2], top[3])));
    float best = f32x8_top(f32x8_load(x));
    if (!(best > known))
        return best;
    int v = 0;
    while (v < 7 && x[v] != best)
        v++;
    while (v < 248 && l->b[v] - s * l->a[v] != best)
        v += 8;
    *which = v;
    return best;
}

LANES_INLINE void sample(const struct iq2_lines *l, const float *s, float *a, float *b)
{
    f32x8 at[IQ2_SAMPLES], top[IQ2_SAMPLES], slope[IQ2_SAMPLES];
    for (int i = 0; i < IQ2_SAMPLES; i++) {
        at[i] = f32x8_all(s[i]);
        top[i] = height(l, at[i], 0);
        slope[i] = f32x8_load(l->a);
    }
    for (int v = 8; v < 256; v += 8) {
        f32x8 av = f32x8_load(l->a + v), bv = f32x8_load(l->b + v);
        for (int i = 0; i < IQ2_SAMPLES; i++) {
            f32x8 y = bv - at[i] * av;
            i32x8 higher = y > top[i];
            top[i] = f32x8_pick(higher, y, top[i]);
            slope[i] = f32x8_pick(higher, av, slope[i]);
        }
    }
    for (int i = 0; i < IQ2_SAMPLES; i++) {
        float y[8], m[8];
        f32x8_store(y, top[i]);
        f32x8_store(m, slope[i]);
        int k = 0;
        for (int j = 1; j < 8; j++)
            k = y[j] > y[k] ? j : k;
        a[i] = m[k];
        b[i] = y[k] + s[i] * m[k];
    }
}

/* The hull is the highest of its own lines. Four vectors at once hide the maximum's latency. */
LANES_INLINE void heights(const struct iq2_hull *e, const float *s, float *h, int n)
{
    for (int i = 0; i < n; i += 32) {
        f32x8 at[4], top[4];
        for (int j = 0; j < 4; j++) {
            at[j] = f32x8_load(s + i + 8 * j);
            top[j] = f32x8_all(e->b[0]) - at[j] * f32x8_all(e->a[0]);
        }
        for (int k = 1; k < e->n; k++) {
            f32x8 a = f32x8_all(e->a[k]), b = f32x8_all(e->b[k]);
            for (int j = 0; j < 4; j++)
                top[j] = f32x8_max(top[j], b - at[j] * a);
        }
        for (int j = 0; j < 4; j++)
            f32x8_store(h + i + 8 * j, top[j]);
    }
}

LANES_INLINE void add_best(const float *t, const int *off, float *sum, int n)
{
    for (int i = 0; i < n; i += 8) {
        f32x8 top = f32x8_load(t + i + off[0]);
        for (int k = 1; k < 16; k++)
            top = f32x8_max(top, f32x8_load(t + i + off[k]));
        f32x8_store(sum + i, f32x8_load(sum + i) + top);
    }
}

/* Each body twice. */
#define BOTH(ISA, TARGET)                                                                         \
    TARGET static void lines_##ISA(const struct iq2_tables *t, const float *x, const float *w,    \
                                   struct iq2_lines *out)                                         \
    {                                                                                             \
        lines(t, x, w, out);                                                                      \
    }                                                                                             \
    TARGET static float highest_##ISA(const struct iq2_lines *l, float s, float known, int *v)    \
    {                                                                                             \
        return highest(l, s, known, v);                                                           \
    }                                                                                             \
    TARGET static void sample_##ISA(const struct iq2_lines *l, const float *s, float *a,          \
                                    float *b)                                                     \
    {                                                                                             \
        sample(l, s, a, b);                                                                       \
    }                                                                                             \
    TARGET static void heights_##ISA(const struct iq2_hull *e, const float *s, float *h, int n)   \
    {                                                                                             \
        heights(e, s, h, n);                                                                      \
    }                                                                                             \
    TARGET static void add_best_##ISA(const float *t, const int *off, float *sum, int n)          \
    {                                                                                             \
        add_best(t, off, sum, n);                                                                 \
    }                                                                                             \
    static const struct iq2_kernels ISA = { lines_##ISA, highest_##ISA, sample_##ISA,             \
                                            heights_##ISA, add_best_##ISA };

BOTH(plain, )
BOTH(avx2, LANES_AVX2)

const struct iq2_kernels *iq2_kernels(unsigned isa)
{
    return isa & CPU_AVX2 ? &avx2 : &plain;
}
