/* test_kv_row.c - cache rows: the vendor's rounding, its goldens, and packing without loss. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "fp4.h"
#include "kv_row.h"
#include "rng.h"

static void random_row(struct rng *r, float *x, int n)
{
    float size = ldexpf(1, (int)(rng_next(r) % 40) - 30);
    for (int i = 0; i < n; i++)
        x[i] = (float)(rng_unit(r) * 2 - 1) * size;
}

static void test_goldens(void **state)
{
    (void)state;
    float x[64] = { 3, -1.2345f, .01f, .7f, 100, -7.3f };
    static const float want8[] = { 3, -1.25f, .009765625f, .6875f, 96, -7.5f };
    fp8_simulate(x, 64);
    assert_memory_equal(x, want8, sizeof want8);
    float y[32] = { 3, -1.2345f, .01f, .7f, 5, -.25f, .75f, 2.5f };
    static const float want4[] = { 3, -1, 0, .5f, 4, -0.f, 1, 2 };
    fp4_simulate(y, 32);
    assert_memory_equal(y, want4, sizeof want4);
}

/* max / largest an exact power of two must not be bumped to the next. */
static void test_exact_ratio(void **state)
{
    (void)state;
    for (int e = -13; e < 30; e++) {
        float x[64] = { ldexpf(448, e), ldexpf(1, e - 9) };
        fp8_simulate(x, 64);
        assert_true(x[0] == ldexpf(448, e) && x[1] == ldexpf(1, e - 9));
    }
    for (int e = -120; e < 30; e++) {
        float x[32] = { ldexpf(6, e), ldexpf(.5f, e) };
        fp4_simulate(x, 32);
        assert_true(x[0] == ldexpf(6, e) && x[1] == ldexpf(.5f, e));
    }
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(kv_row_bytes(512, 64), 584);
    assert_int_equal(kv_row_bytes(192, 64), 264);
    assert_int_equal(kv_row_bytes(64, 16), 88);
    assert_int_equal(kv_row_bytes(48, 16), 72);
    assert_int_equal(kv_index_row_bytes(128), 68);
    assert_int_equal(kv_index_row_bytes(64), 34);
    assert_int_equal(kv_index_row_bytes(32), 17);
}

static void check_row(struct rng *r, int head_dim, int rope_dim)
{
    int nope = head_dim - rope_dim;
    float x[512], y[512], z[512];
    uint8_t row[1024], again[1024];
    size_t bytes = kv_row_bytes(head_dim, rope_dim);
    memset(row, 0xaa, sizeof row);
    random_row(r, x, head_dim);
    kv_row_pack(x, head_dim, rope_dim, row);
    for (size_t i = bytes; i < bytes + 8; i++)
        assert_int_equal(row[i], 0xaa);
    for (size_t i = (size_t)(nope + 2 * rope_dim + (nope + 63) / 64); i < bytes; i++)
        assert_int_equal(row[i], 0);
    kv_row_unpack(row, head_dim, rope_dim, y);
    fp8_simulate(x, nope);
    for (int i = nope; i < head_dim; i++)
        x[i] = bf16_to_f32(f32_to_bf16(x[i]));
    assert_memory_equal(x, y, sizeof *x * (size_t)head_dim);
    memcpy(z, y, sizeof z);
    fp8_simulate(z, nope); /* rounding is a projection */
    assert_memory_equal(z, y, sizeof *x * (size_t)nope);
    kv_row_pack(y, head_dim, rope_dim, again);
    kv_row_unpack(again, head_dim, rope_dim, z);
    assert_memory_equal(z, y, sizeof *x * (size_t)head_dim);
}

static void test_row(void **state)
{
    (void)state;
    struct rng r = { 7, 0 };
    for (int i = 0; i < 300; i++) {
        check_row(&r, 512, 64);
        check_row(&r, 192, 64);
        check_row(&r, 64, 16);
        check_row(&r, 48, 16);
    }
}

static void test_index_row(void **state)
{
    (void)state;
    struct rng r = { 8, 0 };
    float x[128], y[128];
    uint8_t row[80];
    for (int i = 0; i < 300; i++) {
        int dim = 32 << i % 3;
        random_row(&r, x, dim);
        memset(row, 0xaa, sizeof row);
        kv_index_row_pack(x, dim, row);
        assert_int_equal(row[kv_index_row_bytes(dim)], 0xaa);
        kv_index_row_unpack(row, dim, y);
        fp4_simulate(x, dim);
        assert_memory_equal(x, y, sizeof *x * (size_t)dim);
    }
}

static void test_not_finite_stays_visible(void **state)
{
    (void)state;
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    uint8_t row[584];
    for (int b = 0; b < 3; b++) {
        float x[512] = { 0 }, y[512];
        x[70] = x[500] = bad[b];
        kv_row_pack(x, 512, 64, row);
        kv_row_unpack(row, 512, 64, y);
        assert_true(isnan(y[70]) && !isfinite(y[500]) && y[0] == 0);
        fp8_simulate(x, 448);
        assert_true(isnan(x[70]));
        float i[64] = { 0 }, j[64];
        i[40] = bad[b];
        kv_index_row_pack(i, 64, row);
        kv_index_row_unpack(row, 64, j);
        assert_true(isnan(j[40]) && j[0] == 0);
        fp4_simulate(i, 64);
        assert_true(isnan(i[40]));
    }
}

static void test_hadamard(void **state)
{
    (void)state;
    struct rng r = { 9, 0 };
    for (int n = 1; n <= 256; n *= 2) {
        float x[256], y[256];
        random_row(&r, x, n);
        memcpy(y, x, sizeof y);
        hadamard(y, n);
        for (int i = 0; i < n; i++) {
            double sum = 0, size = 0;
            for (int j = 0; j < n; j++) {
                double t = (double)x[j] / sqrt(n);
                sum += __builtin_popcount((unsigned)(i & j)) & 1 ? -t : t;
                size += fabs(t);
            }
            assert_true(fabs(sum - (double)y[i]) <= size * 1e-6);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_exact_ratio),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_row),
        cmocka_unit_test(test_index_row),
        cmocka_unit_test(test_not_finite_stays_visible),
        cmocka_unit_test(test_hadamard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
