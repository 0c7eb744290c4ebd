/* test_gram.c - sums of x x^T against their definition, to the last bit: products in float32 within
 * a block, one row after another, then double. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gram.h"

/* Neither width nor rows fill their blocks. */
static void sums(void **state)
{
    (void)state;
    enum { N = 100, ROWS = 300 };
    static float x[ROWS][N];
    static double want[N][N];
    struct gram g;
    struct gram_rows r;
    struct pool *pool;
    assert_int_equal(pool_new(&pool, 2, NULL), 0);
    assert_int_equal(gram_open(&g, N, NULL), 0);
    assert_int_equal(gram_rows_open(&r, N, NULL), 0);
    for (int i = 0; i < ROWS * N; i++)
        x[i / N][i % N] = (float)((i * 7919) % 1000 - 480) / 100;
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++)
            for (int from = 0; from < ROWS; from += GRAM_ROWS) {
                float sum = 0;
                for (int k = from; k < MIN(ROWS, from + GRAM_ROWS); k++)
                    sum += x[k][i] * x[k][j];
                want[i][j] += (double)sum;
            }
    for (int k = 0; k < ROWS; k++)
        gram_put(&g, &r, x[k], pool);
    gram_flush(&g, &r, pool);
    assert_int_equal(g.n_row, ROWS);
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++)
            assert_true(g.sum[(size_t)i * (size_t)g.pitch + (size_t)j] == want[i][j]);
    gram_rows_close(&r);
    gram_close(&g);
    pool_free(pool);
}

/* Flushes are where they are asked for, and one run of rows serves two sums. */
static void flushes(void **state)
{
    (void)state;
    struct gram g[2];
    struct gram_rows r;
    float x[3] = { 1, 2, 4 };
    assert_int_equal(gram_rows_open(&r, 64, NULL), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(gram_open(&g[i], 3, NULL), 0);
        for (int k = 0; k <= i; k++)
            gram_put(&g[i], &r, x, NULL);
        assert_int_equal(g[i].n_row, 0);
        gram_flush(&g[i], &r, NULL);
        gram_flush(&g[i], &r, NULL);
        assert_int_equal(g[i].n_row, i + 1);
        assert_true(g[i].sum[2 * (size_t)g[i].pitch + 1] == 8 * (i + 1));
    }
    gram_close(&g[0]);
    gram_close(&g[1]);
    gram_rows_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(sums), cmocka_unit_test(flushes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
