/* test_bootstrap.c - intervals of means over texts, where they are known. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "bootstrap.h"
#include "rng.h"

#include <math.h>

enum { DRAWS = 10000 };

static struct paired measure(const double *a, const double *b, const double *rows, int n,
                             uint64_t seed)
{
    struct paired_sums s = { a, b, rows, n };
    struct paired p;
    struct err e = { 0 };
    assert_int_equal(bootstrap_paired(&p, &s, DRAWS, seed, &e), 0);
    return p;
}

/* b is twice a, and half a row more: pairing must see through the spread of a. */
static void test_pairs(void **state)
{
    enum { N = 50 };
    double a[N], twice[N], more[N], rows[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        rows[i] = 1 + i % 7;
        a[i] = rows[i] * (1 + i * i);
        twice[i] = 2 * a[i];
        more[i] = a[i] + 0.5 * rows[i];
    }
    struct paired p = measure(a, twice, rows, N, 1);
    assert_true(p.a.low < 0.8 * p.a.value && p.a.high > 1.2 * p.a.value);
    assert_float_equal(p.ratio.value, 2, 1e-12);
    assert_float_equal(p.ratio.low, 2, 1e-12);
    assert_float_equal(p.ratio.high, 2, 1e-12);
    p = measure(a, more, rows, N, 1);
    assert_float_equal(p.difference.value, 0.5, 1e-9);
    assert_float_equal(p.difference.low, 0.5, 1e-9);
    assert_float_equal(p.difference.high, 0.5, 1e-9);
}

/* The mean of four texts, one of them 1 and the others 0: of 256 ways to draw, 81 give 0, 108 1/4,
 * 54 1/2, 12 3/4 and one 1. So 2.5 % lies at 0 and 97.5 % at 3/4: 1/2 covers 94.9 %. */
static void test_few(void **state)
{
    const double a[4] = { 0, 1, 0, 0 }, zero[4] = { 0 }, rows[4] = { 1, 1, 1, 1 };
    (void)state;
    struct paired p = measure(a, zero, rows, 4, 7);
    assert_float_equal(p.a.value, 0.25, 1e-12);
    assert_float_equal(p.a.low, 0, 1e-12);
    assert_float_equal(p.a.high, 0.75, 1e-12);
    assert_float_equal(p.b.high, 0, 0);
    assert_float_equal(p.difference.low, -0.75, 1e-12);
    assert_float_equal(p.difference.high, 0, 1e-12);
}

/* Many texts of equal size: 1.96 standard errors to either side. */
static void test_many(void **state)
{
    enum { N = 1000 };
    static double a[N], b[N], rows[N];
    struct rng rng = { 3, 0 };
    double sum = 0, squares = 0;
    (void)state;
    for (int i = 0; i < N; i++) {
        rows[i] = 1;
        a[i] = rng_unit(&rng);
        b[i] = 1;
        sum += a[i];
        squares += a[i] * a[i];
    }
    double mean = sum / N, error = sqrt((squares / N - mean * mean) / N);
    struct paired p = measure(a, b, rows, N, 1), again = measure(a, b, rows, N, 1);
    assert_float_equal(p.a.low, mean - 1.96 * error, 0.1 * error);
    assert_float_equal(p.a.high, mean + 1.96 * error, 0.1 * error);
    assert_memory_equal(&p, &again, sizeof p);
    again = measure(a, b, rows, N, 2);
    assert_true(p.a.low != again.a.low);
    assert_float_equal(p.a.low, again.a.low, 0.2 * error);
}

/* A text of many rows weighs more. */
static void test_weights(void **state)
{
    const double a[2] = { 0, 30 }, b[2] = { 10, 0 }, rows[2] = { 10, 30 };
    (void)state;
    struct paired p = measure(a, b, rows, 2, 1);
    assert_float_equal(p.a.value, 0.75, 1e-12);
    assert_float_equal(p.b.value, 0.25, 1e-12);
    assert_float_equal(p.ratio.value, 1.0 / 3, 1e-12);
    assert_float_equal(p.a.high, 1, 1e-12);
    assert_float_equal(p.difference.low, -1, 1e-12);
    assert_float_equal(p.difference.high, 1, 1e-12);
}

static void test_refused(void **state)
{
    const double zero[2] = { 0 }, one[2] = { 1, 1 };
    struct paired_sums empty = { one, one, zero, 2 }, good = { one, one, one, 2 };
    struct paired p;
    struct err e = { 0 };
    (void)state;
    assert_int_equal(bootstrap_paired(&p, &empty, DRAWS, 1, &e), ERR_ARGUMENT);
    assert_int_equal(bootstrap_paired(&p, &good, 39, 1, NULL), ERR_ARGUMENT);
    assert_string_equal(e.text, "bootstrap: 2 texts with 0 rows, 10000 draws, expected rows and at "
                                "least 40 draws");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs), cmocka_unit_test(test_few), cmocka_unit_test(test_many),
        cmocka_unit_test(test_weights), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
