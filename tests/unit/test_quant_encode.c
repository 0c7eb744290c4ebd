/* test_quant_encode.c - encoders that search: against published searches given the same weights,
 * against every possibility where they claim the best, and on blocks made to trip them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "cpu.h"
#include "fp4.h"
#include "hash.h"
#include "quant_encode.h"
#include "rng.h"
#include "unit/published_search.h"
#include "weights.h"

enum { BLOCKS = 1200, N = 256 * BLOCKS };

/* How much less error than the published search is asked for, per cent. */
static const struct {
    double importance_iq2, same_iq2, same_q2;
} least = { 14, 13, 6.5 };

static float x[N], weight[N], importance[4096];
static uint8_t packed[3][BLOCKS * 144];
static struct quant_search *fast, *exact, *plain;
static struct published_grid *grid;

static struct quant_search *make_search(enum quant_effort effort, unsigned isa)
{
    void *mem = aligned_alloc(64, round_up(quant_search_bytes(), 64));
    assert_non_null(mem);
    return quant_search_init(mem, effort, isa);
}

static int setup(void **state)
{
    (void)state;
    fast = make_search(QUANT_FAST, cpu_isa_detect());
    exact = make_search(QUANT_EXACT, cpu_isa_detect());
    plain = make_search(QUANT_FAST, 0);
    grid = malloc(sizeof *grid);
    published_init(grid);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(fast);
    free(exact);
    free(plain);
    free(grid);
    return 0;
}

static float gauss(struct rng *r)
{
    double u = rng_unit(r) + 1e-300, v = rng_unit(r);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* As the vendor's experts: to FP4 with one power of two per 32. */
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

static void make_importance(struct rng *r)
{
    for (size_t i = 0; i < COUNT_OF(importance); i++)
        importance[i] = expf(gauss(r));
}

static void emphasise(float power)
{
    for (int i = 0; i < N; i += 4096)
        quant_emphasise(x + i, importance, power, weight + i, MIN(4096, N - i));
}

static void gaussian_corpus(uint64_t seed)
{
    struct rng r = { seed, 0 };
    make_importance(&r);
    for (int i = 0; i < N; i++)
        x[i] = gauss(&r) * .02f;
    round_fp4(x, N);
}

/* Routed experts of the bundled model: FP4 that was trained. */
static void trained_corpus(void)
{
    struct weights *w;
    struct err e = { 0 };
    struct rng r = { 11, 0 };
    make_importance(&r);
    if (weights_open(&w, "models/pebble", &e) < 0)
        fail_msg("%s", e.text);
    for (int at = 0, expert = 0; at < N; expert++) {
        char name[64];
        snprintf(name, sizeof name, "layers.3.ffn.experts.%d.w%d.weight", expert / 3,
                 expert % 3 + 1);
        const struct weight *t = weights_find(w, name);
        assert_non_null(t);
        for (int row = 0; row < t->dim[1] && at < N; row++, at += 256)
            quant_decode(DT_FP4, t->data + 128 * row, t->scale + t->scale_pitch * row, x + at, 256);
    }
    weights_close(w);
}

static double block_error(enum dtype type, const uint8_t *block, const float *v, const float *w)
{
    float y[256];
    double sum = 0;
    quant_decode(type, block, NULL, y, 256);
    for (int i = 0; i < 256; i++)
        sum += (double)w[i] * ((double)v[i] - (double)y[i]) * ((double)v[i] - (double)y[i]);
    return sum;
}

static void published(enum dtype type, const float *v, const float *w, uint8_t *dst)
{
    if (type == DT_IQ2_XXS)
        published_iq2_xxs(grid, v, w, dst);
    else
        published_q2_k(v, w, dst);
}

/* Mean error below the published search's in per cent; *above: blocks where ours is larger.
 * judge: the weights of the error; theirs are always the published ones. */
static double gain_over_published(struct quant_search *q, enum dtype type, const float *ours,
                                  const float *theirs, const float *judge, int *above)
{
    int bytes = dtype_info((int)type)->bytes;
    double sum[2] = { 0, 0 };
    *above = 0;
    quant_search_row(q, type, x, ours, packed[0], N);
    for (int b = 0; b < BLOCKS; b++) {
        published(type, x + 256 * b, theirs + 256 * b, packed[1]);
        double e = block_error(type, packed[0] + b * bytes, x + 256 * b, judge + 256 * b);
        double p = block_error(type, packed[1], x + 256 * b, judge + 256 * b);
        sum[0] += e;
        sum[1] += p;
        *above += e > p;
    }
    return 100 * (1 - sum[0] / sum[1]);
}

/* Both given the same importance, judged by it: the published one brings its own emphasis. */
static void iq2_for_an_importance(void **state)
{
    (void)state;
    static float plain_importance[N];
    int above;
    gaussian_corpus(7);
    emphasise(.5f);
    for (int i = 0; i < N; i++)
        plain_importance[i] = importance[i % 4096];
    double gain = gain_over_published(fast, DT_IQ2_XXS, plain_importance, weight, plain_importance,
                                      &above);
    assert_true(gain >= least.importance_iq2);
    assert_true(above * 1000 <= BLOCKS);
    gain = gain_over_published(exact, DT_IQ2_XXS, plain_importance, weight, plain_importance,
                               &above);
    assert_true(gain >= least.importance_iq2);
    assert_int_equal(above, 0);
}

/* Both minimise and are judged by the very same weights. */
static void iq2_for_same_weights(void **state)
{
    (void)state;
    int above;
    gaussian_corpus(8);
    emphasise(.5f);
    double quick = gain_over_published(fast, DT_IQ2_XXS, weight, weight, weight, &above);
    assert_true(above * 1000 <= BLOCKS);
    double best = gain_over_published(exact, DT_IQ2_XXS, weight, weight, weight, &above);
    assert_int_equal(above, 0);
    assert_true(best >= least.same_iq2 && quick > best - .3 && quick <= best);
}

static void iq2_of_a_trained_model(void **state)
{
    (void)state;
    int above;
    trained_corpus();
    for (int round = 0; round < 2; round++) {
        if (round == 0)
            emphasise(.5f);
        else
            for (int i = 0; i < N; i++)
                weight[i] = 1;
        assert_true(gain_over_published(fast, DT_IQ2_XXS, weight, weight, weight, &above) > 0);
        assert_true(above * 1000 <= BLOCKS);
        assert_true(gain_over_published(exact, DT_IQ2_XXS, weight, weight, weight, &above) > 0);
        assert_int_equal(above, 0);
    }
}

static void q2_for_same_weights(void **state)
{
    (void)state;
    int above;
    for (int round = 0; round < 2; round++) {
        if (round == 0)
            gaussian_corpus(9);
        else
            trained_corpus();
        emphasise(.5f);
        double gain = gain_over_published(fast, DT_Q2_K, weight, weight, weight, &above);
        assert_true(gain >= least.same_q2 && above * 200 <= BLOCKS);
        double wide = gain_over_published(exact, DT_Q2_K, weight, weight, weight, &above);
        assert_true(wide >= gain && above == 0);
    }
}

/* What the best codes gain at a scale, over all entries and signs, in double. */
struct whole_group {
    double a[256], b[256];
};

static double whole_gain(const struct whole_group *g, double s)
{
    double best = -1e300;
    for (int v = 0; v < 256; v++)
        best = fmax(best, s * (g->b[v] - s * g->a[v]));
    return best;
}

static void whole_lines(struct whole_group *g, const float *v, const float *w)
{
    for (int entry = 0; entry < 256; entry++) {
        double cheapest = 1e300;
        int odd = 0;
        g->a[entry] = g->b[entry] = 0;
        for (int j = 0; j < 8; j++) {
            double mag = (double)(iq2_xxs_grid[entry] >> (8 * j) & 255);
            double p = 2 * (double)w[j] * fabs((double)v[j]) * mag;
            g->a[entry] += (double)w[j] * mag * mag;
            g->b[entry] += p;
            cheapest = fmin(cheapest, p);
            odd ^= v[j] < 0;
        }
        if (odd)
            g->b[entry] -= 2 * cheapest;
    }
}

/* The least error over every step, share, entry and sign; tables of gains over scales are shared by
 * steps with the same exponent's end, so this takes a while. */
static double least_error(const float *v, const float *w, uint16_t from, uint16_t to)
{
    static struct whole_group g[32];
    double base = 0, best = -1e300;
    for (int i = 0; i < 32; i++)
        whole_lines(&g[i], v + 8 * i, w + 8 * i);
    for (int i = 0; i < 256; i++)
        base += (double)w[i] * (double)v[i] * (double)v[i];
    for (uint16_t h = from; h <= to; h++) {
        double d = (double)f16_to_f32(h), sum = 0;
        for (int i = 0; i < 8; i++) {
            double top = -1e300;
            for (int n = 0; n < 16; n++) {
                double s = d * (2 * n + 1) / 8, gain = 0;
                for (int j = 0; j < 4; j++)
                    gain += whole_gain(&g[4 * i + j], s);
                top = fmax(top, gain);
            }
            sum += top;
        }
        best = fmax(best, sum);
    }
    return base - best;
}

/* Every binary16 step within two octaves of the chosen one, and a block of few large numbers. */
static void iq2_exact_is_the_best(void **state)
{
    (void)state;
    gaussian_corpus(10);
    emphasise(.5f);
    for (int b = 0; b < 3; b++) {
        float *v = x + 256 * b, *w = weight + 256 * b;
        for (int i = 0; b == 2 && i < 256; i += 37)
            v[i] *= 9;
        uint16_t h;
        quant_search_row(exact, DT_IQ2_XXS, v, w, packed[0], 256);
        memcpy(&h, packed[0], 2);
        double got = block_error(DT_IQ2_XXS, packed[0], v, w);
        double want = least_error(v, w, (uint16_t)(h - 700), (uint16_t)(h + 1100));
        assert_true(got <= want * (1 + 1e-5));
        assert_true(got >= want * (1 - 1e-9));
    }
}

/* Best codes for the scales a block has: choosing them again changes nothing. */
static void groups_again(void **state)
{
    (void)state;
    static const enum dtype types[] = { DT_IQ2_XXS, DT_Q2_K, DT_Q4_K };
    gaussian_corpus(12);
    emphasise(.5f);
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        size_t bytes = dtype_bytes(types[t], 256 * 20);
        int group = quant_group(types[t]);
        quant_search_row(fast, types[t], x, weight, packed[0], 256 * 20);
        memcpy(packed[1], packed[0], bytes);
        for (int i = 0; i < 256 * 20; i += group) {
            uint8_t *block = packed[1] + dtype_bytes(types[t], (size_t)(i / 256 * 256));
            float y[8], all[256];
            memcpy(y, x + i, sizeof y);
            quant_search_group(fast, types[t], block, i % 256, y, weight + i);
            quant_decode(types[t], block, NULL, all, 256);
            assert_memory_equal(y, all + i % 256, (size_t)group * sizeof *y);
        }
        assert_memory_equal(packed[0], packed[1], bytes);
        float other[8] = { .01f, -.02f, .03f, -.04f, 0, .02f, -.001f, .05f }, all[256];
        quant_search_group(fast, types[t], packed[1], 96, other, weight);
        quant_decode(types[t], packed[1], NULL, all, 256);
        assert_memory_equal(other, all + 96, (size_t)group * sizeof *other);
    }
}

/* The same bytes from every instruction set, machine and compiler. */
static void same_bytes_everywhere(void **state)
{
    (void)state;
    static const struct {
        enum dtype type;
        uint64_t fast, exact;
    } want[] = {
        { DT_IQ2_XXS, 0x9d41bd44e9927af3, 0x1fcbfbb5e6690795 },
        { DT_Q2_K, 0x0f7490520302ef2e, 0x44ba89882bcb11f3 },
        { DT_Q4_K, 0x46ca1d2986ec6c64, 0x9dffa95738744d6e },
        { DT_MXFP4, 0xa28803ba24df74d0, 0xa28803ba24df74d0 },
    };
    enum { SOME = 256 * 40 };
    struct rng r = { 13, 0 };
    for (int i = 0; i < SOME; i++) { /* whole numbers only: no library's logarithm decides */
        x[i] = (float)((int)(rng_next(&r) % 2001) - 1000 + (int)(rng_next(&r) % 2001) - 1000);
        weight[i] = (float)(rng_next(&r) % 1000 + 1);
    }
    for (size_t t = 0; t < COUNT_OF(want); t++) {
        size_t bytes = dtype_bytes(want[t].type, SOME);
        quant_search_row(fast, want[t].type, x, weight, packed[0], SOME);
        quant_search_row(plain, want[t].type, x, weight, packed[1], SOME);
        quant_search_row(exact, want[t].type, x, weight, packed[2], SOME);
        assert_memory_equal(packed[0], packed[1], bytes);
        uint64_t a = hash_of(packed[0], bytes, 0), b = hash_of(packed[2], bytes, 0);
        if (a != want[t].fast || b != want[t].exact)
            fail_msg("%s: hashes 0x%016llx, 0x%016llx", dtype_name((int)want[t].type),
                     (unsigned long long)a, (unsigned long long)b);
    }
}

/* Units do not matter: powers of two change steps alone. */
static void units(void **state)
{
    (void)state;
    static float big[256], heavy[256];
    gaussian_corpus(14);
    emphasise(.5f);
    for (int i = 0; i < 256; i++) {
        big[i] = x[i] * 0x1p10f;
        heavy[i] = weight[i] * 0x1p40f;
    }
    quant_search_row(exact, DT_IQ2_XXS, x, weight, packed[0], 256);
    quant_search_row(exact, DT_IQ2_XXS, big, heavy, packed[1], 256);
    assert_true(f16_at(packed[1]) == 0x1p10f * f16_at(packed[0]));
    assert_memory_equal(packed[0] + 2, packed[1] + 2, 64);
    quant_search_row(fast, DT_Q2_K, x, weight, packed[0], 256);
    quant_search_row(fast, DT_Q2_K, big, heavy, packed[1] + 1, 256); /* any address */
    assert_memory_equal(packed[0], packed[1] + 1, 80);
    float ones[256], none[256] = { 0 };
    for (int i = 0; i < 256; i++)
        ones[i] = 1;
    quant_search_row(fast, DT_IQ2_XXS, x, ones, packed[0], 256);
    quant_search_row(fast, DT_IQ2_XXS, x, NULL, packed[1], 256);
    quant_search_row(fast, DT_IQ2_XXS, x, none, packed[2], 256);
    assert_memory_equal(packed[0], packed[1], 66);
    assert_memory_equal(packed[0], packed[2], 66);
}

/* Every type on every odd block: no more error than coding nothing, and nothing but numbers. */
static void odd_blocks(void **state)
{
    (void)state;
    static const enum dtype types[] = { DT_IQ2_XXS, DT_Q2_K, DT_Q4_K, DT_MXFP4 };
    struct quant_search *search[] = { fast, exact, plain };
    for (int kind = 0; kind < 12; kind++) {
        struct rng r = { 100 + (uint64_t)kind, 0 };
        float v[256], w[256], y[256];
        for (int i = 0; i < 256; i++) {
            float g = gauss(&r);
            w[i] = expf(4 * gauss(&r));
            v[i] = kind == 0    ? 0
                   : kind == 1  ? (i == 77 ? -3.f : 0)
                   : kind == 2  ? (i / 32 == 3 ? 0 : g)
                   : kind == 3  ? g * 1e-30f
                   : kind == 4  ? g * 1e-9f
                   : kind == 5  ? g * 1e4f
                   : kind == 6  ? g * 1e30f
                   : kind == 7  ? -1
                   : kind == 8  ? fabsf(g)
                   : kind == 9  ? (i % 64 == 5 ? 1e6f * g : g)
                   : kind == 10 ? g * f32_of_bits(1u << (i % 20))
                                : (i & 1 ? 2.5f : -2.5f);
            if (kind == 2)
                w[i] = i % 3 ? 0 : w[i];
        }
        for (size_t t = 0; t < COUNT_OF(types) * COUNT_OF(search); t++) {
            enum dtype type = types[t % 4];
            double error = 0, nothing = 0;
            quant_search_row(search[t / 4], type, v, w, packed[0], 256);
            quant_decode(type, packed[0], NULL, y, 256);
            for (int i = 0; i < 256; i++) {
                assert_true(isfinite(y[i]));
                double e = (double)v[i] - (double)y[i];
                error += (double)w[i] * e * e;
                nothing += (double)w[i] * (double)v[i] * (double)v[i];
            }
            if (error > nothing * (1 + 1e-5))
                fail_msg("kind %d as %s: error %g of %g", kind, dtype_name((int)type), error,
                         nothing);
        }
    }
}

/* Numbers that a format holds come back. */
static void what_fits_is_kept(void **state)
{
    (void)state;
    struct rng r = { 15, 0 };
    float v[256], y[256];
    for (int i = 0; i < 256; i++)
        v[i] = gauss(&r);
    round_fp4(v, 256);
    quant_search_row(fast, DT_MXFP4, v, NULL, packed[0], 256);
    quant_decode(DT_MXFP4, packed[0], NULL, y, 256);
    for (int i = 0; i < 256; i++)
        assert_true(v[i] == y[i]);
    for (int i = 0; i < 256; i++)
        v[i] = (float)(rng_next(&r) % 16) * .5f - 3;
    quant_search_row(fast, DT_Q4_K, v, NULL, packed[0], 256);
    quant_decode(DT_Q4_K, packed[0], NULL, y, 256);
    for (int i = 0; i < 256; i++)
        assert_true(fabsf(v[i] - y[i]) < 2e-3f); /* steps are binary16 */
    for (int i = 0; i < 256; i++)
        v[i] = (float)(rng_next(&r) % 4) * .5f - .5f;
    quant_search_row(fast, DT_Q2_K, v, NULL, packed[0], 256);
    quant_decode(DT_Q2_K, packed[0], NULL, y, 256);
    for (int i = 0; i < 256; i++)
        assert_true(fabsf(v[i] - y[i]) < 1e-3f);
}

static void emphasis(void **state)
{
    (void)state;
    float v[300], w[300], imp[300];
    for (int i = 0; i < 300; i++) {
        v[i] = i < 256 ? 3 : 4;
        imp[i] = (float)i;
    }
    quant_emphasise(v, imp, .5f, w, 300);
    assert_true(fabsf(w[100] - 100 * sqrtf(18)) < 1e-3f && fabsf(w[299] - 299 * sqrtf(32)) < 1e-2f);
    quant_emphasise(v, imp, 0, w, 300);
    assert_true(w[7] == 7);
    quant_emphasise(v, NULL, .25f, w, 300);
    assert_true(fabsf(w[0] - powf(18, .25f)) < 1e-5f);
    quant_emphasise(v, NULL, .75f, w, 300);
    assert_true(fabsf(w[0] - powf(18, .75f)) < 1e-4f);
}

/* Faster ways from form to form give the bytes of decoding and encoding, or say no. */
static void recoding(void **state)
{
    (void)state;
    static const struct {
        enum dtype from, to;
    } way[] = { { DT_F8_E4M3, DT_Q8_0 }, { DT_BF16, DT_Q8_0 }, { DT_F32, DT_Q8_0 },
                { DT_FP4, DT_MXFP4 },    { DT_F8_E4M3, DT_BF16 }, { DT_BF16, DT_F16 },
                { DT_Q8_0, DT_F32 },
                { DT_F32, DT_BF16 } };
    struct quant_search *search[] = { fast, plain };
    enum { SOME = 512 };
    float num[SOME];
    uint8_t src[4 * SOME], scale[16], got[4 * SOME], want[4 * SOME];
    for (int round = 0; round < 300; round++) {
        struct rng r = { 200 + (uint64_t)round, 0 };
        for (size_t t = 0; t < 2 * COUNT_OF(way); t++) {
            enum dtype from = way[t / 2].from, to = way[t / 2].to;
            for (size_t i = 0; i < sizeof src; i++)
                src[i] = (uint8_t)rng_next(&r);
            for (int i = 0; from == DT_BF16 && i < SOME; i++) /* near each other, round by round */
                src[2 * i + 1] = (uint8_t)((src[2 * i + 1] & 0x80) | (round / 3 + i % 2));
            for (int i = 0; i < 16; i++)
                scale[i] = (uint8_t)(90 + rng_next(&r) % 40);
            if (round % 7 == 3)
                scale[2] = 255;
            bool with_scale = from == DT_F8_E4M3 || from == DT_FP4, good = true;
            quant_decode(from, src, with_scale ? scale : NULL, num, SOME);
            for (int i = 0; i < SOME; i++)
                good &= isfinite(num[i]) && (to != DT_F16 || fabsf(num[i]) < 65520);
            for (int i = 0; to == DT_BF16 && i < SOME; i++)
                good &= isfinite(bf16_to_f32(f32_to_bf16(num[i])));
            if (to == DT_MXFP4)
                quant_fp4_to_mxfp4(src, scale, want, SOME);
            else
                assert_true(quant_encode(to, num, want, SOME));
            for (int i = 0; good && to == DT_Q8_0 && i < SOME; i += 32)
                good &= isfinite(f16_at(want + i / 32 * 34));
            struct quant_run run = { from, src, with_scale ? scale : NULL };
            assert_int_equal(quant_recode(search[t % 2], &run, to, got, num, SOME), good);
            if (good)
                assert_memory_equal(got, want, dtype_bytes(to, SOME));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(iq2_for_an_importance),
        cmocka_unit_test(iq2_for_same_weights),
        cmocka_unit_test(iq2_of_a_trained_model),
        cmocka_unit_test(q2_for_same_weights),
        cmocka_unit_test(iq2_exact_is_the_best),
        cmocka_unit_test(groups_again),
        cmocka_unit_test(same_bytes_everywhere),
        cmocka_unit_test(units),
        cmocka_unit_test(odd_blocks),
        cmocka_unit_test(what_fits_is_kept),
        cmocka_unit_test(emphasis),
        cmocka_unit_test(recoding),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
