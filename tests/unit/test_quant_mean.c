/* test_quant_mean.c - the least repair of a sum, and rows whose errors cancel. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "cpu.h"
#include "quant_mean.h"
#include "rng.h"

enum { N = 512, ROWS = 24 };

static float mean[N], square[N], shift[N], weight[N];
static struct rng random_numbers = { 4, 0 };

static double unit(void)
{
    return rng_unit(&random_numbers);
}

/* Sizes that differ much between columns; of each a part is the mean. */
static void make_inputs(double share)
{
    for (int j = 0; j < N; j++) {
        square[j] = (float)exp(4 * unit() - 2);
        double m = sqrt((double)square[j] * share * unit() * 2);
        mean[j] = (float)(unit() < .5 ? -m : m);
    }
}

static double loss_of(const double *error, double sum, int n)
{
    double loss = 0;
    for (int j = 0; j < n; j++) {
        double m = (double)mean[j];
        loss += ((double)square[j] - m * m) * error[j] * error[j];
        sum += m * error[j];
    }
    return loss + sum * sum;
}

/* Repairing a sum column by column is the least loss there is: every change of it loses more. */
static void least_repair(void **state)
{
    (void)state;
    enum { FEW = 9 };
    make_inputs(.4);
    quant_mean_make(mean, square, shift, weight, FEW);
    double error[FEW], sum = 3;
    for (int j = 0; j < FEW; j++) {
        error[j] = -(double)shift[j] * sum;
        sum += (double)mean[j] * error[j];
    }
    double least = loss_of(error, 3, FEW);
    assert_true(least < loss_of((double[FEW]){ 0 }, 3, FEW) * .9);
    for (int j = 0; j < FEW; j++) {
        double was = error[j];
        for (int k = -1; k <= 1; k += 2) {
            error[j] = was + k * 1e-3;
            assert_true(loss_of(error, 3, FEW) > least);
        }
        error[j] = was;
    }
    /* and an error more in the first column, repaired by others, weighs what was said */
    double more[FEW] = { 1 };
    sum = (double)mean[0];
    for (int j = 1; j < FEW; j++) {
        more[j] = -(double)shift[j] * sum;
        sum += (double)mean[j] * more[j];
    }
    assert_true(fabs(loss_of(more, 0, FEW) - (double)weight[0]) < 1e-5 * (double)weight[0]);
}

struct losses {
    double own, common; /* of deviations; of the mean */
};

static struct losses measure(enum dtype type, const float *x, const uint8_t *row)
{
    float y[N];
    struct losses l = { 0 };
    double sum = 0;
    quant_decode(type, row, NULL, y, N);
    for (int j = 0; j < N; j++) {
        double e = (double)x[j] - (double)y[j], m = (double)mean[j];
        l.own += ((double)square[j] - m * m) * e * e;
        sum += m * e;
    }
    l.common = sum * sum;
    return l;
}

static void errors_cancel(void **state)
{
    (void)state;
    static const enum dtype types[] = { DT_IQ2_XXS, DT_Q2_K, DT_Q4_K };
    struct quant_mean m = { mean, shift, weight, 1 };
    void *mem = aligned_alloc(64, round_up(quant_search_bytes(), 64));
    struct quant_search *q = quant_search_init(mem, QUANT_FAST, cpu_isa_detect());
    for (size_t k = 0; k < COUNT_OF(types); k++) {
        struct losses before = { 0 }, after = { 0 };
        for (int r = 0; r < ROWS; r++) {
            float x[N];
            uint8_t row[N];
            make_inputs(.2);
            quant_mean_make(mean, square, shift, weight, N);
            for (int j = 0; j < N; j++)
                x[j] = (float)(unit() + unit() + unit() - 1.5);
            quant_search_row(q, types[k], x, square, row, N);
            struct losses a = measure(types[k], x, row);
            quant_mean_row(q, &m, types[k], x, row, N);
            struct losses b = measure(types[k], x, row);
            before.own += a.own;
            before.common += a.common;
            after.own += b.own;
            after.common += b.common;
        }
        assert_true(after.common < .06 * before.common);
        assert_true(after.own < 1.04 * before.own);
        assert_true(after.own + after.common < .9 * (before.own + before.common));
    }
    free(mem);
}

/* Without means there is nothing to repair. */
static void nothing_changes(void **state)
{
    (void)state;
    static const enum dtype types[] = { DT_IQ2_XXS, DT_Q2_K, DT_Q4_K };
    struct quant_mean m = { mean, shift, weight, 1 };
    void *mem = aligned_alloc(64, round_up(quant_search_bytes(), 64));
    struct quant_search *q = quant_search_init(mem, QUANT_FAST, cpu_isa_detect());
    make_inputs(0);
    quant_mean_make(mean, square, shift, weight, N);
    assert_memory_equal(weight, square, sizeof weight);
    for (size_t k = 0; k < COUNT_OF(types); k++) {
        float x[N];
        uint8_t row[N] = { 0 }, again[N] = { 0 };
        for (int j = 0; j < N; j++)
            x[j] = (float)(unit() + unit() + unit() - 1.5);
        quant_search_row(q, types[k], x, square, row, N);
        memcpy(again, row, sizeof row);
        quant_mean_row(q, &m, types[k], x, again, N);
        assert_memory_equal(row, again, sizeof row);
    }
    free(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(least_repair),
        cmocka_unit_test(errors_cancel),
        cmocka_unit_test(nothing_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
