/* affine_lanes.c - the inner loops of the Q2_K and Q4_K searches, eight sub-blocks at a time, so
 * that sums over a sub-block need no sum across lanes. */
#include "affine_lanes_impl.h"

#include "cpu.h"
#include "lanes_impl.h"

#define ALL f32x8_all
#define LOAD f32x8_load
#define TINY 1e-30f

LANES_INLINE f32x8 whole(f32x8 x, float most)
{
    return f32x8_max(f32x8_min(f32x8_round(x), ALL(most)), ALL(0));
}

LANES_INLINE f32x8 inverse(f32x8 x)
{
    return ALL(1) / f32x8_max(x, ALL(TINY));
}

/* What is the same for all codes, and the best form found. */
struct best_form {
    f32x8 w, wx, wxx, a, b, error, wq, wqq;
};

/* Least squares for the codes nearest to (inv, b); kept where better. Returns the new a and b. */
LANES_INLINE void fit_once(const struct affine_tile *t, int len, float top, f32x8 at[2],
                           struct best_form *best)
{
    f32x8 wq = ALL(0), wqq = ALL(0), wqx = ALL(0), inv = inverse(at[0]), w = best->w;
    for (int i = 0; i < len; i++) {
        f32x8 x = LOAD(t->x[i]), q = whole((x + at[1]) * inv, top), p = LOAD(t->w[i]) * q;
        wq += p;
        wqq += p * q;
        wqx += p * x;
    }
    f32x8 det = wqq * w - wq * wq;
    i32x8 flat = ~(det > ALL(1e-5f) * wqq * w);
    f32x8 over = ALL(1) / f32x8_pick(flat, ALL(1), det);
    f32x8 a = (wqx * w - best->wx * wq) * over, b = (wqx * wq - best->wx * wqq) * over;
    i32x8 none = (b < ALL(0)) | flat; /* a minimum may only be subtracted */
    a = f32x8_pick(none, wqx * inverse(wqq), a);
    b = f32x8_pick(none, ALL(0), b);
    f32x8 error = best->wxx - a * wqx + b * best->wx;
    i32x8 better = (error < best->error) & (a > ALL(0));
    best->a = f32x8_pick(better, a, best->a);
    best->b = f32x8_pick(better, b, best->b);
    best->error = f32x8_pick(better, error, best->error);
    best->wq = f32x8_pick(better, wq, best->wq);
    best->wqq = f32x8_pick(better, wqq, best->wqq);
    at[0] = a;
    at[1] = b;
}

LANES_INLINE void fit(const struct affine_tile *t, int len, float top,
                      const struct affine_starts *s, struct affine_fit *f)
{
    f32x8 zero = ALL(0), low = LOAD(t->x[0]), high = low;
    struct best_form best = { zero, zero, zero, zero, zero, zero, zero, zero };
    for (int i = 0; i < len; i++) {
        f32x8 x = LOAD(t->x[i]), w = LOAD(t->w[i]);
        best.w += w;
        best.wx += w * x;
        best.wxx += w * x * x;
        low = f32x8_min(low, x);
        high = f32x8_max(high, x);
    }
    /* all codes zero: y = -b */
    best.b = f32x8_max(-best.wx * inverse(best.w), zero);
    best.error = best.wxx + best.b * best.wx;
    for (int k = 0; k < s->n_step * s->n_shift; k++) {
        float step = s->step + s->step_by * (float)(k / s->n_shift);
        float shift = s->shift + s->shift_by * (float)(k % s->n_shift);
        f32x8 range = high - low;
        f32x8 at[2] = { range * ALL(1 / step), f32x8_max(zero - low - range * ALL(shift), zero) };
        for (int turn = 0; turn < s->turns; turn++)
            fit_once(t, len, top, at, &best);
    }
    f32x8_store(f->a, best.a);
    f32x8_store(f->b, best.b);
    f32x8_store(f->w, best.w);
    f32x8_store(f->wq, best.wq);
    f32x8_store(f->wqq, best.wqq);
}

LANES_INLINE float guess(const struct affine_fit *f, int n_vec, float most, float d, float dmin)
{
    f32x8 sum = ALL(0), over_d = ALL(1 / d), over_min = ALL(dmin > 0 ? 1 / dmin : 0);
    for (int k = 0; k < n_vec; k++, f++) {
        f32x8 a = LOAD(f->a), b = LOAD(f->b), wqq = LOAD(f->wqq), wq = LOAD(f->wq);
        f32x8 db = whole(b * over_min, most) * ALL(dmin) - b;
        f32x8 wish = a + wq * db * inverse(wqq); /* the best a for this b */
        f32x8 da = whole(wish * over_d, most) * ALL(d) - a;
        sum += wqq * da * da - ALL(2) * wq * da * db + LOAD(f->w) * db * db;
    }
    return f32x8_sum(sum);
}

LANES_INLINE f32x8 error_of(const struct affine_tile *t, int len, float top, f32x8 a, f32x8 b)
{
    f32x8 sum = ALL(0), inv = inverse(a);
    for (int i = 0; i < len; i++) {
        f32x8 y = LOAD(t->x[i]) + b, r = y - a * whole(y * inv, top);
        sum += LOAD(t->w[i]) * r * r;
    }
    return sum;
}

LANES_INLINE void choose(const struct affine_tile *t, const struct affine_kernels *k,
                         const struct affine_fit *f, const float step[2], int radius,
                         struct affine_pair *out)
{
    f32x8 scale0 = whole(LOAD(f->a) * ALL(step[0] > 0 ? 1 / step[0] : 0), k->most);
    f32x8 min0 = whole(LOAD(f->b) * ALL(step[1] > 0 ? 1 / step[1] : 0), k->most);
    f32x8 least = ALL(1e30f), best_scale = scale0, best_min = min0;
    int side = 2 * radius + 1;
    for (int i = 0; i < side * side; i++) {
        f32x8 scale = whole(scale0 + ALL((float)(i / side - radius)), k->most);
        f32x8 min = whole(min0 + ALL((float)(i % side - radius)), k->most);
        f32x8 error = error_of(t, k->len, k->top, scale * ALL(step[0]), min * ALL(step[1]));
        i32x8 better = error < least;
        least = f32x8_pick(better, error, least);
        best_scale = f32x8_pick(better, scale, best_scale);
        best_min = f32x8_pick(better, min, best_min);
    }
    f32x8_store(out->scale, best_scale);
    f32x8_store(out->min, best_min);
    f32x8_store(out->error, least);
}

LANES_INLINE void add_sums(const struct affine_tile *t, const struct affine_kernels *k,
                           const struct affine_pair *p, const float step[2],
                           struct affine_sums *sums)
{
    f32x8 scale = LOAD(p->scale), min = LOAD(p->min), b = min * ALL(step[1]);
    f32x8 inv = inverse(scale * ALL(step[0])), zero = ALL(0);
    f32x8 uu = zero, uv = zero, vv = zero, ux = zero, vx = zero;
    for (int i = 0; i < k->len; i++) {
        f32x8 x = LOAD(t->x[i]), u = scale * whole((x + b) * inv, k->top);
        f32x8 wu = LOAD(t->w[i]) * u, wv = LOAD(t->w[i]) * min;
        uu += wu * u;
        uv += wu * min;
        vv += wv * min;
        ux += wu * x;
        vx += wv * x;
    }
    sums->uu += (double)f32x8_sum(uu);
    sums->uv += (double)f32x8_sum(uv);
    sums->vv += (double)f32x8_sum(vv);
    sums->ux += (double)f32x8_sum(ux);
    sums->vx += (double)f32x8_sum(vx);
}

/* Each body for each type and target, with the type's sizes as constants. */
#define SHAPE(TYPE) .n_sub = TYPE##_SUB, .len = TYPE##_LEN, .top = TYPE##_TOP, .most = TYPE##_MOST
#define EACH(TYPE, ISA, TARGET)                                                                   \
    TARGET static void fit_##TYPE##_##ISA(const struct affine_tile *t,                            \
                                          const struct affine_starts *s, struct affine_fit *f)    \
    {                                                                                             \
        fit(t, TYPE##_LEN, TYPE##_TOP, s, f);                                                     \
    }                                                                                             \
    TARGET static float guess_##TYPE##_##ISA(const struct affine_fit *f, float d, float dmin)     \
    {                                                                                             \
        return guess(f, TYPE##_SUB / 8, TYPE##_MOST, d, dmin);                                    \
    }                                                                                             \
    TARGET static void choose_##TYPE##_##ISA(const struct affine_tile *t,                         \
                                             const struct affine_fit *f, const float step[2],     \
                                             int radius, struct affine_pair *out)                 \
    {                                                                                             \
        const struct affine_kernels shape = { SHAPE(TYPE) };                                      \
        choose(t, &shape, f, step, radius, out);                                                  \
    }                                                                                             \
    TARGET static void sums_##TYPE##_##ISA(const struct affine_tile *t,                           \
                                           const struct affine_pair *p, const float step[2],      \
                                           struct affine_sums *sums)                              \
    {                                                                                             \
        const struct affine_kernels shape = { SHAPE(TYPE) };                                      \
        add_sums(t, &shape, p, step, sums);                                                       \
    }                                                                                             \
    static const struct affine_kernels TYPE##_##ISA = { SHAPE(TYPE), fit_##TYPE##_##ISA,          \
                                                        guess_##TYPE##_##ISA,                     \
                                                        choose_##TYPE##_##ISA,                    \
                                                        sums_##TYPE##_##ISA };

enum { q2_SUB = 16, q2_LEN = 16, q2_TOP = 3, q2_MOST = 15 };
enum { q4_SUB = 8, q4_LEN = 32, q4_TOP = 15, q4_MOST = 63 };

EACH(q2, plain, )
EACH(q2, avx2, LANES_AVX2)
EACH(q4, plain, )
EACH(q4, avx2, LANES_AVX2)

const struct affine_kernels *affine_q2(unsigned isa)
{
    return isa & CPU_AVX2 ? &q2_avx2 : &q2_plain;
}

const struct affine_kernels *affine_q4(unsigned isa)
{
    return isa & CPU_AVX2 ? &q4_avx2 : &q4_plain;
}
