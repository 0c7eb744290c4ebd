/* test_quant_feedback.c - error feedback: the factor, codes against their definition and against
 * every possibility, and what is gained over inputs that go together. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu.h"
#include "fp4.h"
#include "hash.h"
#include "quant_feedback.h"
#include "rng.h"
#include "tile_lanes_impl.h"

enum { ROWS = QUANT_FEEDBACK_ROWS, MAX_N = 768, BYTES = ROWS * MAX_N };

static struct quant_search *search[2]; /* any instruction set; none */
static unsigned isa[2];
static struct pool *pool;

static void *memory(size_t n)
{
    void *mem = aligned_alloc(64, round_up(n, 64));
    assert_non_null(mem);
    return mem;
}

static int setup(void **state)
{
    (void)state;
    isa[0] = cpu_isa_detect();
    assert_int_equal(pool_new(&pool, 3, NULL), 0);
    for (int i = 0; i < 2; i++)
        search[i] = quant_search_init(memory(quant_search_bytes()), QUANT_FAST, isa[i]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(search[0]);
    free(search[1]);
    pool_free(pool);
    return 0;
}

/* Around a normal number; sums of uniform ones, so that no library's logarithm decides. */
static float normal(struct rng *r)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += rng_unit(r);
    return (float)(sum - 6);
}

static void round_fp4(float *v, int n)
{
    for (int i = 0; i < n; i += 32) {
        float max = 0;
        for (int j = i; j < i + 32; j++)
            max = fmaxf(max, fabsf(v[j]));
        float s = e8m0_to_f32(e8m0_ceil(max / 6));
        for (int j = i; j < i + 32; j++)
            v[j] = e2m1_to_f32(f32_to_e2m1(v[j] / s)) * s;
    }
}

/* ---- inputs that go together ---- */

/* Inputs of n columns: `share` of each is a mixture of n_cause causes, later ones weaker, the rest
 * its own; each at its own size. */
struct world {
    int n, n_cause;
    float share, *mix, *size;
};

static void world_open(struct world *w, int n, int n_cause, float share)
{
    struct rng r = { 21, 0 };
    *w = (struct world){ n, n_cause, share, memory(sizeof(float) * (size_t)(n * n_cause)),
                         memory(sizeof(float) * (size_t)n) };
    for (int j = 0; j < n; j++) {
        float *m = w->mix + j * n_cause, sum = 0;
        for (int f = 0; f < n_cause; f++) {
            m[f] = normal(&r) / sqrtf((float)(f + 1));
            sum += m[f] * m[f];
        }
        for (int f = 0; f < n_cause; f++)
            m[f] *= sqrtf(share / sum);
        w->size[j] = expf(normal(&r) * .5f);
    }
}

static void world_close(struct world *w)
{
    free(w->mix);
    free(w->size);
}

/* The mean of v v^T over so many inputs, in tiles. */
static float *observe(const struct world *w, int n_token, uint64_t seed)
{
    enum { STEP = 256, MAX_CAUSE = 64 };
    size_t n = (size_t)w->n;
    const struct tile_kernels *k = tile_kernels(isa[0]);
    float *h = memory(4 * n * n), *v = memory(4 * n * STEP), *turned = memory(4 * n * STEP);
    struct rng r = { seed, 0 };
    assert_true(w->n_cause <= MAX_CAUSE && n_token % STEP == 0);
    memset(h, 0, 4 * n * n);
    for (int at = 0; at < n_token; at += STEP) {
        for (int t = 0; t < STEP; t++) {
            float cause[MAX_CAUSE];
            for (int f = 0; f < w->n_cause; f++)
                cause[f] = normal(&r);
            for (int j = 0; j < w->n; j++) {
                float x = sqrtf(1 - w->share) * normal(&r);
                for (int f = 0; f < w->n_cause; f++)
                    x += w->mix[j * w->n_cause + f] * cause[f];
                v[tile_at(STEP, t, j)] = turned[tile_at(w->n, j, t)] = x * w->size[j];
            }
        }
        for (int t = 0; t < w->n / 16; t++)
            k->add(h + (size_t)t * n * 16, turned, n * 16, v + (size_t)t * STEP * 16, STEP / 16,
                   w->n);
    }
    for (size_t i = 0; i < n * n; i++)
        h[i] /= (float)n_token;
    free(v);
    free(turned);
    return h;
}

/* Divide by root[i] root[j]; root is made of h's own diagonal if asked for. */
static void correlate(float *h, float *root, int n, bool own)
{
    for (int i = 0; own && i < n; i++)
        root[i] = sqrtf(h[tile_at(n, i, i)]);
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++)
            h[tile_at(n, i, j)] /= root[i] * root[j];
    }
}

/* A factor of the matrix with everything off the diagonal made less by a share. */
static bool factor(struct quant_factor *f, float *mem, const float *h, int n, float shrink,
                   unsigned which)
{
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++)
            mem[tile_at(n, i, j)] = i == j ? 1 : (1 - shrink) * h[tile_at(n, i, j)];
    }
    return quant_factor_make(f, mem, n, which, which ? pool : NULL);
}

/* ---- the factor ---- */

static void factor_is_one(void **state)
{
    (void)state;
    enum { N = 512 };
    struct world w;
    struct quant_factor f;
    float root[N], *mem = memory(4 * quant_factor_floats(N));
    world_open(&w, N, 8, .8f);
    float *h = observe(&w, 1024, 1);
    correlate(h, root, N, true);
    assert_true(factor(&f, mem, h, N, .1f, isa[0]));
    double most = 0;
    for (int i = 0; i < N; i += 7) {
        for (int j = i; j < N; j += 5) {
            double sum = 0, want = i == j ? 1 : (double)(.9f * h[tile_at(N, i, j)]);
            for (int k = j; k < N; k++)
                sum += (double)f.r[tile_at(N, i, k)] * (double)f.r[tile_at(N, j, k)];
            most = fmax(most, fabs(sum - want));
            assert_true(i == j || f.r[tile_at(N, j, i)] == 0 || j / 256 != i / 256);
        }
        double r = (double)f.r[tile_at(N, i, i)];
        assert_true(fabs((double)f.gain[i] - r * r) < 1e-6);
    }
    assert_true(most < 1e-5);
    h[tile_at(N, 3, 300)] = h[tile_at(N, 300, 3)] = 1.5f; /* no correlation is larger than 1 */
    assert_false(factor(&f, mem, h, N, 0, isa[0]));
    h[tile_at(N, 3, 300)] = h[tile_at(N, 300, 3)] = NAN;
    assert_false(factor(&f, mem, h, N, .1f, isa[0]));
    free(h);
    free(mem);
    world_close(&w);
}

/* ---- codes ---- */

struct setting {
    int n;
    struct quant_factor f;
    struct quant_feedback b;
    float *mem, *own, *root, *x;
    uint8_t *dst;
};

static void setting_open(struct setting *s, int n, unsigned which)
{
    *s = (struct setting){ .n = n, .mem = memory(4 * quant_factor_floats(n)),
                           .own = memory(4 * quant_feedback_floats(n)),
                           .root = memory(4 * (size_t)n), .x = memory(4 * (size_t)(ROWS * n)),
                           .dst = memory(BYTES) };
    quant_feedback_init(&s->b, s->own, n, which);
}

static void setting_close(struct setting *s)
{
    free(s->mem);
    free(s->own);
    free(s->root);
    free(s->x);
    free(s->dst);
}

static void fill_weights(struct setting *s, uint64_t seed)
{
    struct rng r = { seed, 0 };
    for (int i = 0; i < ROWS * s->n; i++)
        s->x[i] = normal(&r) * .02f;
    round_fp4(s->x, ROWS * s->n);
}

/* Upper R with R R^T = c, as it is told. */
static double (*plain_factor(const float *h, int n, double shrink))[MAX_N]
{
    double(*c)[MAX_N] = memory(sizeof *c * MAX_N);
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++)
            c[i][j] = i == j ? 1 : (1 - shrink) * (double)h[tile_at(n, i, j)];
    }
    for (int j = n - 1; j >= 0; j--) {
        for (int k = j + 1; k < n; k++)
            c[j][j] -= c[j][k] * c[j][k];
        c[j][j] = sqrt(c[j][j]);
        for (int i = 0; i < j; i++) {
            for (int k = j + 1; k < n; k++)
                c[i][j] -= c[i][k] * c[j][k];
            c[i][j] /= c[j][j];
        }
    }
    return c;
}

/* For the scales a block has, is every number the nearest one to x_j + sum of e_i R_ij / R_jj that
 * its sub-block of `len` holds? Numbers a half step from two are let pass. */
static int not_nearest(const struct setting *s, double (*r)[MAX_N], enum dtype type, int row,
                       int len)
{
    float y[MAX_N];
    double e[MAX_N];
    int n_bad = 0;
    quant_decode(type, s->dst + (size_t)row * dtype_bytes(type, (size_t)s->n), NULL, y, s->n);
    for (int j = 0; j < s->n; j++) {
        double target = (double)s->x[row * s->n + j], lo = INFINITY, hi = -INFINITY, step = 0;
        e[j] = ((double)s->x[row * s->n + j] - (double)y[j]) * (double)s->root[j];
        for (int i = 0; i < j; i++)
            target += e[i] * r[i][j] / r[j][j] / (double)s->root[j];
        for (int i = j / len * len; i < j / len * len + len; i++) {
            lo = fmin(lo, (double)y[i]);
            hi = fmax(hi, (double)y[i]);
            for (int k = j / len * len; k < i; k++) {
                double apart = fabs((double)y[i] - (double)y[k]);
                step = apart > 0 && (step == 0 || apart < step) ? apart : step;
            }
        }
        double far = fabs(target - (double)y[j]);
        n_bad += target > lo && target < hi && step > 0 && far > step * .51;
    }
    return n_bad;
}

static void codes_as_defined(void **state)
{
    (void)state;
    enum { N = MAX_N };
    static const struct {
        enum dtype type;
        int len;
    } form[] = { { DT_Q2_K, 16 }, { DT_Q4_K, 32 } };
    struct world w;
    struct setting s;
    world_open(&w, N, 8, .8f);
    setting_open(&s, N, isa[0]);
    float *h = observe(&w, 1024, 1);
    correlate(h, s.root, N, true);
    double(*r)[MAX_N] = plain_factor(h, N, .1);
    assert_true(factor(&s.f, s.mem, h, N, .1f, isa[0]));
    fill_weights(&s, 4);
    for (size_t t = 0; t < COUNT_OF(form); t++) {
        struct quant_rows rows = { form[t].type, s.root, 0, s.x, NULL, ROWS, s.dst };
        int n_bad = 0, n_all = 0;
        quant_feedback_rows(&s.b, search[0], &s.f, &rows);
        for (int i = 0; i < ROWS; i += 5, n_all += N)
            n_bad += not_nearest(&s, r, form[t].type, i, form[t].len);
        assert_int_equal(n_bad, 0);
        assert_true(n_all > 0);
    }
    /* the errors that are kept are those of the bytes */
    struct quant_rows rows = { DT_IQ2_XXS, s.root, 0, s.x, NULL, 31, s.dst };
    quant_feedback_rows(&s.b, search[0], &s.f, &rows);
    double one = quant_feedback_loss(&s.b, h);
    quant_feedback_compare(&s.b, &rows);
    double other = quant_feedback_loss(&s.b, h), sum = 0;
    assert_true(fabs(one - other) < 1e-5 * one);
    for (int i = 0; i < 31; i++) {
        float y[N];
        double e[N];
        quant_decode(DT_IQ2_XXS, s.dst + (size_t)i * dtype_bytes(DT_IQ2_XXS, N), NULL, y, N);
        for (int j = 0; j < N; j++)
            e[j] = ((double)s.x[i * N + j] - (double)y[j]) * (double)s.root[j];
        for (int j = 0; j < N; j++) {
            for (int k = 0; k < N; k++)
                sum += e[j] * e[k] * (double)h[tile_at(N, j, k)];
        }
    }
    assert_true(fabs(one - sum) < 1e-4 * sum);
    free(r);
    free(h);
    setting_close(&s);
    world_close(&w);
}

/* Rows that are searched for larger come out larger, and what is kept are the errors of x. */
static void factors(void **state)
{
    (void)state;
    enum { N = MAX_N };
    struct world w;
    struct setting s;
    float larger[ROWS], y[N];
    double common[2] = { 0 };
    world_open(&w, N, 8, .8f);
    setting_open(&s, N, isa[0]);
    float *h = observe(&w, 1024, 1);
    correlate(h, s.root, N, true);
    assert_true(factor(&s.f, s.mem, h, N, .1f, isa[0]));
    fill_weights(&s, 4);
    for (int i = 0; i < ROWS; i++)
        larger[i] = 1.1f;
    for (int k = 0; k < 2; k++) {
        struct quant_rows rows = { DT_IQ2_XXS, s.root, 0, s.x, k ? larger : NULL, ROWS, s.dst };
        quant_feedback_rows(&s.b, search[0], &s.f, &rows);
        double one = quant_feedback_loss(&s.b, h);
        quant_feedback_compare(&s.b, &rows);
        assert_true(fabs(one - quant_feedback_loss(&s.b, h)) < 1e-5 * one);
        for (int i = 0; i < ROWS; i++) {
            quant_decode(DT_IQ2_XXS, s.dst + (size_t)i * dtype_bytes(DT_IQ2_XXS, N), NULL, y, N);
            for (int j = 0; j < N; j++) {
                double d = (double)s.root[j] * (double)s.root[j];
                common[k] += d * (double)y[j] * (double)s.x[i * N + j];
            }
        }
    }
    assert_true(common[1] > 1.05 * common[0] && common[1] < 1.11 * common[0]);
    free(h);
    setting_close(&s);
    world_close(&w);
}

/* Two columns that are nearly one and hold the same number, all others whole codes: of the sixteen
 * ways to code the two, the best is found, though each alone would be rounded otherwise. */
static void two_columns(void **state)
{
    (void)state;
    enum { N = 256, A = 5, B = 9 };
    struct setting s;
    struct rng r = { 31, 0 };
    setting_open(&s, N, isa[0]);
    float *h = memory(4 * N * N), c = .96f;
    int n_other = 0;
    for (int i = 0; i < N; i++) {
        s.root[i] = 1;
        for (int j = 0; j < N; j++)
            h[tile_at(N, i, j)] = i == j ? 1 : (i == A && j == B) || (i == B && j == A) ? c : 0;
    }
    assert_true(factor(&s.f, s.mem, h, N, 0, isa[0]));
    for (int i = 0; i < ROWS * N; i++)
        s.x[i] = (float)(i % 4);
    for (int i = 0; i < ROWS; i++) {
        s.x[i * N + A] = s.x[i * N + B] = .5f + 2 * (float)rng_unit(&r);
    }
    struct quant_rows rows = { DT_Q2_K, s.root, 0, s.x, NULL, ROWS, s.dst };
    quant_feedback_rows(&s.b, search[0], &s.f, &rows);
    for (int i = 0; i < ROWS; i++) {
        const float *x = s.x + i * N;
        float y[N];
        double best = INFINITY;
        quant_decode(DT_Q2_K, s.dst + i * 84, NULL, y, N);
        for (int k = 0; k < 16; k++) {
            double a = (double)(x[A] - y[k % 4]), b = (double)(x[B] - y[k / 4]);
            best = fmin(best, a * a + b * b + 2 * (double)c * a * b);
        }
        double a = (double)(x[A] - y[A]), b = (double)(x[B] - y[B]);
        double got = a * a + b * b + 2 * (double)c * a * b;
        assert_true(got <= best + 1e-3);
        n_other += fabsf(y[A] - rintf(x[A])) > .4f || fabsf(y[B] - rintf(x[B])) > .4f;
    }
    assert_true(n_other > ROWS / 4);
    free(h);
    setting_close(&s);
}

/* ---- what is gained ---- */

/* Loss over other inputs of the same world, with feedback and without; *told: what a probe says. */
static double gain(const struct world *w, enum dtype type, int n_token, float shrink, double *told)
{
    struct setting s;
    double loss[2];
    setting_open(&s, w->n, isa[0]);
    float *h = observe(w, n_token, 1), *held = observe(w, 16 * w->n, 2);
    float *weight = memory(4 * (size_t)w->n);
    correlate(h, s.root, w->n, true);
    correlate(held, s.root, w->n, false);
    assert_true(factor(&s.f, s.mem, h, w->n, shrink, isa[0]));
    fill_weights(&s, 5);
    struct quant_rows rows = { type, s.root, 0, s.x, NULL, ROWS, s.dst };
    for (int j = 0; j < w->n; j++)
        weight[j] = s.root[j] * s.root[j];
    for (int i = 0; i < ROWS; i++)
        quant_search_row(search[0], type, s.x + i * w->n, weight,
                         s.dst + (size_t)i * dtype_bytes(type, (size_t)w->n), w->n);
    quant_feedback_compare(&s.b, &rows);
    loss[0] = quant_feedback_loss(&s.b, held);
    quant_feedback_rows(&s.b, search[0], &s.f, &rows);
    loss[1] = quant_feedback_loss(&s.b, held);
    quant_feedback_probe(&s.b, &s.f, 9);
    *told = quant_feedback_loss(&s.b, held) * 3 / (ROWS * w->n);
    free(h);
    free(held);
    free(weight);
    setting_close(&s);
    return loss[1] / loss[0];
}

/* Three worlds, from weak to strong; then one whose columns have nothing in common, where feedback
 * follows noise and its share has to be small. */
static void what_is_gained(void **state)
{
    (void)state;
    static const struct {
        float share;
        int n_cause, per_column;
        float shrink;
        double iq2, q2;
    } want[] = { { .5f, 12, 16, .05f, .62, .66 },
                 { .6f, 16, 16, .05f, .52, .55 },
                 { .75f, 24, 16, .05f, .38, .42 },
                 { .5f, 12, 1, .5f, .65, .68 },
                 { 0, 1, 8, .85f, 1.01, 1.01 } };
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        struct world w;
        double told[2];
        world_open(&w, 512, want[i].n_cause, want[i].share);
        double a = gain(&w, DT_IQ2_XXS, want[i].per_column * 512, want[i].shrink, &told[0]);
        double b = gain(&w, DT_Q2_K, want[i].per_column * 512, want[i].shrink, &told[1]);
        if (a > want[i].iq2 || b > want[i].q2 || fabs(a - told[0]) > .05 || told[0] != told[1])
            fail_msg("world %zu: IQ2_XXS %.3f, Q2_K %.3f of the loss, told %.3f", i, a, b, told[0]);
        world_close(&w);
    }
}

/* The same bytes from every instruction set, machine and compiler. */
static void same_bytes_everywhere(void **state)
{
    (void)state;
    enum { N = 512 };
    static const struct {
        enum dtype type;
        uint64_t hash;
    } want[] = { { DT_IQ2_XXS, 0x8f51d009e1fcf30f },
                 { DT_Q2_K, 0xdfaa5caa332d2ac0 }, { DT_Q4_K, 0xb2bd8e26968f7401 } };
    float *h = memory(4 * N * N);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++)
            h[tile_at(N, i, j)] = 1.f / (float)(1 + abs(i - j));
    }
    for (int which = 0; which < 2; which++) {
        struct setting s;
        struct rng r = { 41, 0 };
        setting_open(&s, N, isa[which]);
        for (int j = 0; j < N; j++)
            s.root[j] = (float)(1 + j % 7);
        for (int i = 0; i < ROWS * N; i++)
            s.x[i] = (float)((int)(rng_next(&r) % 2001) - 1000 + (int)(rng_next(&r) % 2001) - 1000);
        assert_true(factor(&s.f, s.mem, h, N, .125f, isa[which]));
        for (size_t t = 0; t < COUNT_OF(want); t++) {
            struct quant_rows rows = { want[t].type, s.root, 0, s.x, NULL, ROWS, s.dst };
            quant_feedback_rows(&s.b, search[which], &s.f, &rows);
            uint64_t got = hash_of(s.dst, ROWS * dtype_bytes(want[t].type, N), 0);
            if (got != want[t].hash)
                fail_msg("%s, %d: hash 0x%016llx", dtype_name((int)want[t].type), which,
                         (unsigned long long)got);
        }
        setting_close(&s);
    }
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factor_is_one),
        cmocka_unit_test(codes_as_defined),
        cmocka_unit_test(factors),
        cmocka_unit_test(two_columns),
        cmocka_unit_test(what_is_gained),
        cmocka_unit_test(same_bytes_everywhere),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
