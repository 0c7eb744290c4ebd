/* test_fit.c - what is foretold for sizes of memory: the engine's own plans, rates that grow, and a
 * picture that is well formed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine.h"
#include "expert_expect.h"
#include "measure.h"

#define MODEL "models/pebble"

static double hits(double share, int text)
{
    return expert_expect_hits(share, text);
}

static dstar_engine *open_plan(uint64_t memory)
{
    struct dstar_options o;
    struct dstar_error error;
    dstar_engine *engine;
    dstar_options_init(&o);
    o.model = MODEL;
    o.part = DSTAR_PLAN;
    o.memory_bytes = memory;
    if (dstar_open(&engine, &o, &error) < 0)
        fail_msg("%s", error.text);
    return engine;
}

/* The numbers are those of the table in docs/streaming.md; between them it rises. */
static void test_hits(void **state)
{
    (void)state;
    static const double share[] = { 0.01, 0.02, 0.05, 0.10, 0.20, 0.50 };
    static const double stable[] = { 0.195, 0.288, 0.425, 0.541, 0.670, 0.854 };
    static const double sticky[] = { 0.299, 0.497, 0.740, 0.841, 0.909, 0.966 };
    for (int i = 0; i < 6; i++) {
        assert_true(fabs(hits(share[i], 0) - stable[i]) < 1e-9);
        assert_true(fabs(hits(share[i], 2) - sticky[i]) < 1e-9);
    }
    for (int text = 0; text < 3; text++) {
        assert_true(hits(0, text) == 0 && hits(1, text) == 1 && hits(2, text) == 1);
        for (double s = 0.001; s < 1; s += 0.001) {
            assert_true(hits(s, text) <= hits(s + 0.001, text));
            assert_true(text == 0 || hits(s, text) >= hits(s, text - 1));
        }
    }
}

static void test_budgets(void **state)
{
    (void)state;
    static struct fit f;
    struct err e = { 0 };
    dstar_engine *engine = open_plan(0);
    struct fit_ask ask = { .drive_bytes_per_s = 1e8, .n_thread = 1 };
    assert_int_equal(fit(&f, engine, &ask, &e), 0);
    assert_true(f.least > f.fixed && f.all > f.least && f.n >= 3);
    assert_true(f.read_bytes > 0 && f.read_bytes < f.fixed);
    assert_int_equal(f.n_expert, 7 * 26);
    assert_true(f.drive_bytes_per_s == 1e8 && f.depth == 0);
    for (int i = 0; i < f.n; i++) {
        const struct fit_point *p = &f.point[i], *before = &f.point[MAX(i - 1, 0)];
        assert_true(p->memory >= before->memory && p->share >= before->share);
        assert_true(p->tok_s >= before->tok_s && p->bytes_per_tok <= before->bytes_per_tok);
        assert_true(p->tok_s_low <= p->tok_s && p->tok_s <= p->tok_s_high);
        assert_true(p->streams == (p->memory < f.all) || p->is_machine || p->share == 1);
        assert_true(p->tok_s > 0 && p->tok_s <= p->drive_tok_s);
    }
    const struct fit_point *least = &f.point[0];
    assert_true(least->streams && !least->too_little && least->share < 1);
    assert_true(fabs(least->bytes_per_tok - f.used_bytes * (1 - least->hits)) < 1);
    assert_true(fabs(least->drive_tok_s - 1e8 / least->bytes_per_tok) < 1e-6);

    ask.memory[0] = floor(f.least * 0.5); /* an engine says the same of it */
    ask.memory[1] = floor(f.least * 1.2);
    ask.n_memory = 2;
    double asked[] = { ask.memory[0], ask.memory[1] };
    assert_int_equal(fit(&f, engine, &ask, &e), 0);
    double taken = (double)engine_of(engine)->budget.taken;
    dstar_close(engine);
    for (int i = 0; i < 2; i++) {
        assert_true(f.point[i].memory == asked[i]);
        assert_true(f.point[i].too_little == (i == 0));
        engine = open_plan((uint64_t)asked[i]);
        const struct budget *b = &engine_of(engine)->budget;
        double grown = fabs((double)b->taken - taken); /* since the process has, by testing */
        assert_true(b->is_streaming);
        assert_true(fabs((double)b->experts - f.point[i].experts) < 3e6 + grown);
        dstar_close(engine);
    }
}

static void test_drive(void **state)
{
    (void)state;
    static struct fit f;
    struct err e = { 0 };
    dstar_engine *engine = open_plan(0);
    struct fit_ask ask = { .n_thread = 1 };
    assert_int_equal(fit(&f, engine, &ask, &e), 0);
    assert_true(f.drive_bytes_per_s > 0 && f.depth >= 1 && f.depth <= 32 && f.path[0]);
    dstar_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hits),
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_drive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
