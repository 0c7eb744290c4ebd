/* test_sampler.c - filters, penalties and draws, on small distributions that are known. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "sampler.h"

#include <math.h>
#include <stdlib.h>

#define N 8
#define N_DRAW 20000

/* Probabilities 0.4 0.25 0.15 0.1 0.05 0.03 0.015 0.005, in a shuffled order of ids. */
static const double prob[N] = { 0.05, 0.4, 0.005, 0.15, 0.03, 0.25, 0.1, 0.015 };

struct bench {
    float logits[N];
    _Alignas(64) uint8_t mem[1024];
    uint64_t base, mask;
    struct sampler_work work;
    struct sampler s;
    struct dstar_sampling p;
};

static void bench_open(struct bench *b)
{
    *b = (struct bench){ .base = 0xff };
    for (int i = 0; i < N; i++)
        b->logits[i] = (float)(log(prob[i]) + 3);
    assert_true(sampler_work_bytes(N) <= sizeof b->mem);
    sampler_work_init(&b->work, N, b->mem);
    sampler_init(&b->s, N, &b->mask, &b->work);
    b->p = (struct dstar_sampling){ .temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 5 };
}

static int32_t pick(struct bench *b, const int32_t *past, int n_past)
{
    int32_t id = -1;
    struct err e = { 0 };
    if (sampler_pick(&b->s, b->logits, past, n_past, &id, &e) < 0)
        fail_msg("%s", e.text);
    return id;
}

/* Shares of N_DRAW draws, compared with `want` (not normalised) within four deviations. */
static void expect_shares(struct bench *b, const double want[N], const int32_t *past, int n_past)
{
    int drawn[N] = { 0 };
    double sum = 0;
    assert_int_equal(sampler_set(&b->s, &b->p, &b->base, NULL), 0);
    for (int i = 0; i < N; i++)
        sum += want[i];
    for (int i = 0; i < N_DRAW; i++)
        drawn[pick(b, past, n_past)]++;
    for (int i = 0; i < N; i++) {
        double p = want[i] / sum, off = 4 * sqrt(N_DRAW * p * (1 - p));
        if (fabs(drawn[i] - N_DRAW * p) > off)
            fail_msg("token %d: %d of %d draws, expected %g", i, drawn[i], N_DRAW, N_DRAW * p);
        assert_int_equal(b->work.count[i], 0);
    }
}

static void test_plain_draws_follow_the_probabilities(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    expect_shares(&b, prob, NULL, 0);
}

static void test_temperature(void **state)
{
    (void)state;
    struct bench b;
    double want[N];
    bench_open(&b);
    for (int i = 0; i < N; i++)
        want[i] = pow(prob[i], 1 / 2.5);
    b.p.temperature = 2.5f;
    expect_shares(&b, want, NULL, 0);
    b.p.temperature = 1e-6f;
    expect_shares(&b, (double[N]){ 0, 1 }, NULL, 0);
    b.p.temperature = 0;
    expect_shares(&b, (double[N]){ 0, 1 }, NULL, 0);
}

static void test_top_k(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    b.p.top_k = 3;
    expect_shares(&b, (double[N]){ 0, 0.4, 0, 0.15, 0, 0.25 }, NULL, 0);
    b.p.top_k = 1;
    expect_shares(&b, (double[N]){ 0, 1 }, NULL, 0);
    b.p.top_k = 100;
    expect_shares(&b, prob, NULL, 0);
}

static void test_top_p(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    b.p.top_p = 0.64f; /* 0.4 + 0.25 is the first to reach it */
    expect_shares(&b, (double[N]){ 0, 0.4, 0, 0, 0, 0.25 }, NULL, 0);
    b.p.top_p = 0.66f;
    expect_shares(&b, (double[N]){ 0, 0.4, 0, 0.15, 0, 0.25 }, NULL, 0);
    b.p.top_p = 0;
    expect_shares(&b, (double[N]){ 0, 1 }, NULL, 0);
    /* Of what top_k left: 0.4 of 0.65 is 0.615. */
    b.p.top_k = 2;
    b.p.top_p = 0.61f;
    expect_shares(&b, (double[N]){ 0, 1 }, NULL, 0);
    b.p.top_p = 0.62f;
    expect_shares(&b, (double[N]){ 0, 0.4, 0, 0, 0, 0.25 }, NULL, 0);
}

static void test_min_p(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    b.p.min_p = 0.3f; /* of 0.4: at least 0.12 */
    expect_shares(&b, (double[N]){ 0, 0.4, 0, 0.15, 0, 0.25 }, NULL, 0);
    b.p.min_p = 1;
    expect_shares(&b, (double[N]){ 0, 1 }, NULL, 0);
    b.p.min_p = 0.3f;
    b.p.top_k = 2;
    expect_shares(&b, (double[N]){ 0, 0.4, 0, 0, 0, 0.25 }, NULL, 0);
}

static void test_penalties(void **state)
{
    (void)state;
    const int32_t past[] = { 5, 1, 1, 3, 1 };
    struct bench b;
    double want[N];
    bench_open(&b);
    b.p.penalty_last_n = -1;
    b.p.frequency_penalty = 0.5f;
    b.p.presence_penalty = 0.25f;
    memcpy(want, prob, sizeof want);
    want[1] *= exp(-0.5 * 3 - 0.25);
    want[3] *= exp(-0.5 - 0.25);
    want[5] *= exp(-0.5 - 0.25);
    expect_shares(&b, want, past, 5);

    b.p.penalty_last_n = 2; /* 3 and 1 */
    memcpy(want, prob, sizeof want);
    want[1] *= exp(-0.75);
    want[3] *= exp(-0.75);
    expect_shares(&b, want, past, 5);

    b.p.penalty_last_n = 0;
    expect_shares(&b, prob, past, 5);

    b.p.penalty_last_n = 100;
    b.p.frequency_penalty = b.p.presence_penalty = 0;
    b.p.repeat_penalty = 1.5f;
    for (int i = 0; i < N; i++) {
        double x = log(prob[i]) + 3;
        if (i == 1 || i == 3 || i == 5)
            x = x < 0 ? x * 1.5 : x / 1.5;
        want[i] = exp(x);
    }
    expect_shares(&b, want, past, 5);
}

/* A logit below zero moves away from the best, not towards it. */
static void test_repeat_penalty_of_negative_logits(void **state)
{
    (void)state;
    const int32_t past[] = { 1 };
    struct bench b;
    double want[N];
    bench_open(&b);
    b.p.repeat_penalty = 2;
    b.p.penalty_last_n = -1;
    for (int i = 0; i < N; i++) {
        b.logits[i] = (float)log(prob[i]);
        want[i] = i == 1 ? prob[i] * prob[i] : prob[i];
    }
    expect_shares(&b, want, past, 1);
}

static void test_banned_and_allowed(void **state)
{
    (void)state;
    const int32_t one = 1, two[] = { 0, 6 };
    struct bench b;
    double want[N];
    bench_open(&b);
    b.base = 0xbe; /* without 0 and 6 */
    b.p.banned = &one;
    b.p.n_banned = 1;
    memcpy(want, prob, sizeof want);
    want[0] = want[1] = want[6] = 0;
    expect_shares(&b, want, NULL, 0);
    b.p.allowed = two;
    b.p.n_allowed = 2;
    memcpy(want, prob, sizeof want);
    want[1] = 0;
    expect_shares(&b, want, NULL, 0);
    b.p.temperature = 0;
    assert_int_equal(sampler_set(&b.s, &b.p, &b.base, NULL), 0);
    assert_int_equal(pick(&b, NULL, 0), 5);
}

static void test_equal_logits(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    for (int i = 0; i < N; i++)
        b.logits[i] = i < 2 ? 0 : 1;
    b.p.temperature = 0;
    assert_int_equal(sampler_set(&b.s, &b.p, &b.base, NULL), 0);
    assert_int_equal(pick(&b, NULL, 0), 2);
    b.p.temperature = 1;
    b.p.top_k = 2; /* the lower ids */
    expect_shares(&b, (double[N]){ 0, 0, 1, 1 }, NULL, 0);
}

static void test_seed(void **state)
{
    (void)state;
    struct bench b;
    int32_t first[50], again[50];
    int n_same = 0;
    bench_open(&b);
    for (int pass = 0; pass < 3; pass++) {
        b.p.seed = pass == 2 ? 6 : 5;
        assert_int_equal(sampler_set(&b.s, &b.p, &b.base, NULL), 0);
        for (int i = 0; i < 50; i++)
            (pass ? again : first)[i] = pick(&b, NULL, 0);
        if (pass == 1)
            assert_memory_equal(first, again, sizeof first);
    }
    for (int i = 0; i < 50; i++)
        n_same += first[i] == again[i];
    assert_in_range(n_same, 1, 40);
}

static void test_damaged_logits(void **state)
{
    (void)state;
    struct bench b;
    struct err e = { 0 };
    int32_t id = -1;
    bench_open(&b);
    assert_int_equal(sampler_set(&b.s, &b.p, &b.base, NULL), 0);
    b.logits[6] = NAN;
    assert_int_equal(sampler_pick(&b.s, b.logits, NULL, 0, &id, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "token 6"));
    b.logits[6] = INFINITY;
    assert_int_equal(sampler_pick(&b.s, b.logits, NULL, 0, &id, NULL), ERR_FORMAT);
    b.logits[6] = -INFINITY;
    assert_int_equal(sampler_pick(&b.s, b.logits, NULL, 0, &id, NULL), 0);
    for (int i = 0; i < N; i++)
        b.logits[i] = -INFINITY;
    e = (struct err){ 0 };
    assert_int_equal(sampler_pick(&b.s, b.logits, NULL, 0, &id, &e), ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "banned"));
}

static void test_values_out_of_range(void **state)
{
    (void)state;
    const int32_t eight = 8, minus = -1;
    const struct {
        struct dstar_sampling p;
        const char *word;
    } cases[] = {
        { { .temperature = -1 }, "temperature" },
        { { .temperature = NAN }, "temperature" },
        { { .top_p = 1.1f }, "top_p" },
        { { .min_p = -0.1f }, "min_p" },
        { { .top_k = -1 }, "top_k" },
        { { .penalty_last_n = -2 }, "penalty_last_n" },
        { { .repeat_penalty = 0 }, "repeat_penalty" },
        { { .repeat_penalty = 1, .presence_penalty = INFINITY }, "presence" },
        { { .repeat_penalty = 1, .banned = &eight, .n_banned = 1 }, "banned holds token 8" },
        { { .repeat_penalty = 1, .allowed = &minus, .n_allowed = 1 }, "allowed holds token -1" },
        { { .repeat_penalty = 1, .stop = &eight, .n_stop = 1 }, "stop holds token 8" },
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct bench b;
        struct err e = { 0 };
        bench_open(&b);
        assert_int_equal(sampler_set(&b.s, &b.p, &b.base, NULL), 0);
        int32_t before = pick(&b, NULL, 0);
        assert_int_equal(sampler_set(&b.s, &cases[i].p, &b.base, &e), ERR_ARGUMENT);
        if (!strstr(e.text, cases[i].word))
            fail_msg("'%s' does not say '%s'", e.text, cases[i].word);
        b.s.rng.n = 0;
        assert_int_equal(pick(&b, NULL, 0), before);
    }
}

static void test_stop_tokens(void **state)
{
    (void)state;
    const int32_t stop[] = { 3, 7 };
    int32_t many[SAMPLER_MAX_STOP + 1] = { 0 };
    struct bench b;
    bench_open(&b);
    b.p.stop = stop;
    b.p.n_stop = 2;
    assert_int_equal(sampler_set(&b.s, &b.p, &b.base, NULL), 0);
    assert_true(sampler_is_stop(&b.s, 3) && sampler_is_stop(&b.s, 7));
    assert_false(sampler_is_stop(&b.s, 0));
    b.p.stop = many;
    b.p.n_stop = SAMPLER_MAX_STOP + 1;
    assert_int_equal(sampler_set(&b.s, &b.p, &b.base, NULL), ERR_LIMIT);
    assert_true(sampler_is_stop(&b.s, 3));
}

/* ---- against the definition, on as many tokens as filters must choose among ------------------ */

#define MANY (80 * DRAW_BLOCK + 7)

static int falling(const void *a, const void *b)
{
    const struct draw_pair *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static double sum_of(const struct draw_pair *x, int n, double best, double temperature)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp((x[i].logit - best) / temperature);
    return sum;
}

/* The fewest of the first k, at least one, whose weights reach `enough`. */
static int reach(const struct draw_pair *x, int k, double enough, double best,
                 double temperature)
{
    double sum = 0;
    int m = 0;
    while (m < k && (m == 0 || sum < enough))
        sum += exp((x[m++].logit - best) / temperature);
    return m;
}

/* What sampler.h says, with everything sorted. unit: the random number. */
static int32_t defined(const struct dstar_sampling *p, struct draw_pair *x, int n, double unit)
{
    static struct draw_pair sorted[MANY];
    double t = p->temperature, all = 0, reached = 0;
    memcpy(sorted, x, (size_t)n * sizeof *x);
    qsort(sorted, (size_t)n, sizeof *x, falling);
    double best = sorted[0].logit;
    if (t == 0)
        return sorted[0].id;
    if ((p->top_k > 0 && p->top_k < n) || p->top_p < 1) {
        int k = p->top_k > 0 ? MIN(p->top_k, n) : n, m = k;
        all = sum_of(p->top_k > 0 ? sorted : x, k, best, t);
        m = p->top_p < 1 ? reach(sorted, k, p->top_p * all, best, t) : k;
        for (int i = 0; i < m; i++) /* the worst first */
            x[i] = sorted[m - 1 - i];
        n = m;
    }
    int m = 0;
    for (int i = 0; i < n; i++)
        if (exp((x[i].logit - best) / t) >= p->min_p)
            x[m++] = x[i];
    double at = unit * sum_of(x, m, best, t);
    for (int i = 0; i < m; i++) {
        reached += exp((x[i].logit - best) / t);
        if (at < reached)
            return x[i].id;
    }
    return x[m - 1].id;
}

/* One logit in `steps` values of each unit, so that many are equal. */
static void fill(float *x, struct rng *r, double spread, int steps)
{
    for (int i = 0; i < MANY; i++) {
        double sum = -6;
        for (int k = 0; k < 12; k++)
            sum += rng_unit(r);
        x[i] = (float)(floor(sum * spread * steps) / steps);
    }
    x[rng_next(r) % MANY] = -INFINITY;
}

static void check_defined(struct sampler *s, const float *logits)
{
    static struct draw_pair x[MANY];
    struct rng r = s->rng;
    struct err e = { 0 };
    int n = 0;
    int32_t id;
    for (int i = 0; i < MANY; i++)
        if (sampler_mask_has(s->allowed, i) && logits[i] != -INFINITY)
            x[n++] = (struct draw_pair){ logits[i], i };
    if (sampler_pick(s, logits, NULL, 0, &id, &e) < 0)
        fail_msg("%s", e.text);
    int32_t want = defined(&s->p, x, n, rng_unit(&r));
    if (id != want)
        fail_msg("top_k %d, top_p %g, min_p %g, temperature %g: token %d, expected %d", s->p.top_k,
                 (double)s->p.top_p, (double)s->p.min_p, (double)s->p.temperature, id, want);
}

static void test_as_defined(void **state)
{
    static const struct {
        float temperature, top_p, min_p;
        int top_k;
    } c[] = {
        { 0, 1, 0, 0 },      { 1, 1, 0, 0 },       { .3f, 1, 0, 0 },   { 1, .9f, 0, 0 },
        { 1, .999f, 0, 0 },  { 2, .5f, 0, 0 },     { 1, 1, 0, 40 },    { 1, 1, 0, 100 },
        { .8f, .9f, 0, 40 }, { 1, 1, 0, MANY },    { 1, .9f, 0, MANY }, { 1, 1, .05f, 0 },
        { 1, .95f, .1f, 0 }, { 1, .9f, .05f, 81 }, { 1, 0, 0, 0 },     { 1, 1, 0, 1 },
    };
    static uint64_t base[MANY / 64 + 1], mask[MANY / 64 + 1];
    static float logits[MANY];
    struct sampler_work work;
    struct sampler s;
    struct rng r = { .seed = 11 };
    (void)state;
    void *mem = aligned_alloc(64, sampler_work_bytes(MANY));
    assert_non_null(mem);
    memset(mem, 0, sampler_work_bytes(MANY));
    sampler_work_init(&work, MANY, mem);
    sampler_init(&s, MANY, mask, &work);
    for (int i = 0; i < 160; i++) {
        size_t at = (size_t)i % COUNT_OF(c);
        struct dstar_sampling p = { .temperature = c[at].temperature, .top_p = c[at].top_p,
                                    .min_p = c[at].min_p, .top_k = c[at].top_k,
                                    .repeat_penalty = 1, .seed = (uint64_t)i };
        fill(logits, &r, i % 3 == 0 ? .2 : 3, i % 2 ? 1000000 : 4);
        memset(base, i % 5 ? 0xff : 0x3c, sizeof base);
        assert_int_equal(sampler_set(&s, &p, base, NULL), 0);
        for (int k = 0; k < 3; k++)
            check_defined(&s, logits);
    }
    free(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_draws_follow_the_probabilities),
        cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_min_p),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_repeat_penalty_of_negative_logits),
        cmocka_unit_test(test_banned_and_allowed),
        cmocka_unit_test(test_equal_logits),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_damaged_logits),
        cmocka_unit_test(test_values_out_of_range),
        cmocka_unit_test(test_stop_tokens),
        cmocka_unit_test(test_as_defined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
