/* test_quant.c - the number formats: small floats exhaustively, blocks against a second reading
 * of the formats (tests/data/quant_golden.py), codebooks against their check values. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "file.h"
#include "fp4.h"
#include "half.h"
#include "iq_tables.h"
#include "quant.h"
#include "rng.h"

static float any_float(struct rng *r)
{
    float x = f32_of_bits((uint32_t)rng_next(r));
    return isnan(x) ? 1 : x;
}

static void test_f16_decode(void **state)
{
    (void)state;
    for (int h = 0; h < 65536; h++) {
        int exp = h >> 10 & 31, man = h & 1023;
        double want = exp ? ldexp(1024 + man, exp - 25) : ldexp(man, -24);
        float got = f16_to_f32((uint16_t)h);
        assert_int_equal(!!signbit(got), h >> 15);
        if (exp < 31)
            assert_true(fabs((double)got) == want);
        else
            assert_true(man ? isnan(got) : isinf(got));
    }
}

/* Between two neighbours the nearer one, of equal distances the even code. */
static void check_f16_between(uint16_t h)
{
    float lo = f16_to_f32(h), hi = f16_to_f32((uint16_t)(h + 1));
    if (isinf(hi))
        hi = 65536;
    float mid = (float)(((double)lo + (double)hi) / 2);
    uint16_t even = h & 1 ? (uint16_t)(h + 1) : h;
    for (int sign = 0; sign < 2; sign++) {
        uint16_t s = sign ? 0x8000 : 0;
        float f = sign ? -1 : 1;
        assert_int_equal(f32_to_f16(f * lo), h | s);
        assert_int_equal(f32_to_f16(f * mid), even | s);
        assert_int_equal(f32_to_f16(f * nextafterf(mid, 0)), h | s);
        assert_int_equal(f32_to_f16(f * nextafterf(mid, 1e9f)), (h + 1) | s);
    }
}

static void test_f16_encode(void **state)
{
    (void)state;
    for (int h = 0; h < 0x7c00; h++)
        check_f16_between((uint16_t)h);
    assert_int_equal(f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
    for (uint32_t man = 1; man < 0x800000; man = man * 2 + 1) {
        uint16_t h = f32_to_f16(f32_of_bits(0x7f800000 | man));
        assert_true(isnan(f16_to_f32(h)));
        assert_true(isnan(bf16_to_f32(f32_to_bf16(f32_of_bits(0xff800000 | man)))));
    }
}

static void test_bf16(void **state)
{
    (void)state;
    struct rng r = { 1, 0 };
    for (int i = 0; i < 100000; i++) {
        float x = any_float(&r);
        uint32_t u = f32_bits(x), lo = u & 0xffff0000, rest = u & 0xffff;
        bool up = rest > 0x8000 || (rest == 0x8000 && (lo & 0x10000));
        assert_int_equal((uint32_t)f32_to_bf16(x) << 16, lo + (up ? 0x10000 : 0));
    }
    assert_int_equal(f32_to_bf16(f32_of_bits(0x3f808000)), 0x3f80);
    assert_int_equal(f32_to_bf16(f32_of_bits(0x3f818000)), 0x3f82);
    assert_int_equal(f32_to_bf16(f32_of_bits(0x7f7fffff)), 0x7f80);
}

static void test_e4m3(void **state)
{
    (void)state;
    assert_true(e4m3_to_f32(0x7e) == 448 && e4m3_to_f32(1) == 0x1p-9f);
    assert_true(isnan(e4m3_to_f32(0x7f)) && isnan(e4m3_to_f32(0xff)));
    for (int q = 0; q < 0x7e; q++) {
        float lo = e4m3_to_f32((uint8_t)q), hi = e4m3_to_f32((uint8_t)(q + 1));
        float mid = (lo + hi) / 2;
        assert_true(lo < hi);
        assert_int_equal(f32_to_e4m3(lo), q);
        assert_int_equal(f32_to_e4m3(-lo), q | 0x80);
        assert_int_equal(f32_to_e4m3(mid), q + (q & 1));
        assert_int_equal(f32_to_e4m3(-mid), (q + (q & 1)) | 0x80);
        assert_int_equal(f32_to_e4m3(nextafterf(mid, 0)), q);
        assert_int_equal(f32_to_e4m3(nextafterf(mid, 1e9f)), q + 1);
    }
    assert_int_equal(f32_to_e4m3(1e9f), 0x7e);
    assert_int_equal(f32_to_e4m3(-INFINITY), 0xfe);
    assert_int_equal(f32_to_e4m3(NAN) & 0x7f, 0x7f);
}

static void test_e2m1(void **state)
{
    (void)state;
    static const float tie[] = { .25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, 5 };
    static const float even[] = { 0, 1, 1, 2, 2, 4, 4 };
    for (int i = 0; i < 7; i++) {
        assert_true(e2m1_to_f32(f32_to_e2m1(tie[i])) == even[i]);
        assert_int_equal(f32_to_e2m1(-tie[i]), f32_to_e2m1(tie[i]) | 8);
        assert_int_equal(f32_to_e2m1(nextafterf(tie[i], 0)), i);
        assert_int_equal(f32_to_e2m1(nextafterf(tie[i], 9)), i + 1);
    }
    assert_int_equal(f32_to_e2m1(100), 7);
    assert_int_equal(f32_to_e2m1(-INFINITY), 15);
}

static void test_e8m0(void **state)
{
    (void)state;
    for (int e = 0; e < 255; e++)
        assert_true((double)e8m0_to_f32((uint8_t)e) == ldexp(1, e - 127));
    assert_true(isnan(e8m0_to_f32(255)));
    assert_int_equal(e8m0_ceil(1), 127);
    assert_int_equal(e8m0_ceil(nextafterf(1, 2)), 128);
    assert_int_equal(e8m0_ceil(INFINITY), 255);
}

static uint64_t grid_hash(const uint64_t *grid, int n)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < n; i++) {
        unsigned code = 0;
        for (int j = 0; j < 8; j++)
            code |= (unsigned)((grid[i] >> (8 * j) & 255) / 17) << (2 * j);
        hash = (hash ^ (code & 255)) * UINT64_C(0x100000001b3);
        hash = (hash ^ code >> 8) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* FNV-1a of the codes, whose SHA-256 begins 915952ebc4af8ddb (XS: f66435966ca8d64e). */
static void test_codebooks(void **state)
{
    (void)state;
    assert_true(grid_hash(iq2_xxs_grid, 256) == UINT64_C(0x6fca17f5c451905d));
    assert_true(grid_hash(iq2_xs_grid, 512) == UINT64_C(0x29d6ac8e0e6b14e3));
    for (unsigned s = 0; s < 128; s++) {
        assert_int_equal(iq2_signs(s) & 127, s);
        assert_int_equal(__builtin_popcount(iq2_signs(s)) & 1, 0);
    }
}

/* tests/data/quant_golden.bin: { u32 type, n, bytes, scale bytes; bytes; scales; f32 x n }. */
static void test_golden_blocks(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    assert_int_equal(file_read_all(&b, "tests/data/quant_golden.bin", NULL), 0);
    size_t at = 0;
    int records = 0;
    while (at < b.len) {
        uint32_t head[4];
        memcpy(head, b.data + at, 16);
        const uint8_t *data = (uint8_t *)b.data + at + 16;
        const uint8_t *scale = head[3] ? data + head[2] : NULL;
        size_t values = at + 16 + head[2] + head[3];
        int n = (int)head[1];
        float got[1024];
        assert_true(n <= 1024);
        assert_int_equal(dtype_bytes((enum dtype)head[0], (size_t)n), head[2]);
        quant_decode((enum dtype)head[0], data, scale, got, n);
        for (int i = 0; i < n; i++) {
            float want;
            memcpy(&want, b.data + values + 4 * (size_t)i, 4);
            if (got[i] != want)
                fail_msg("%s[%d]: %.9g, want %.9g", dtype_name((int)head[0]), i, (double)got[i],
                         (double)want);
        }
        at = values + 4 * (size_t)n;
        records++;
    }
    assert_int_equal(records, 12);
    buf_release(&b);
}

static void test_q8_0_encode(void **state)
{
    (void)state;
    struct rng r = { 3, 0 };
    float x[32], y[32];
    uint8_t block[34];
    for (int round = 0; round < 2000; round++) {
        float max = 0, size = ldexpf(1, (int)(rng_next(&r) % 30) - 20);
        for (int i = 0; i < 32; i++) {
            x[i] = (float)(rng_unit(&r) * 2 - 1) * size;
            max = fmaxf(max, fabsf(x[i]));
        }
        assert_true(quant_encode(DT_Q8_0, x, block, 32));
        quant_decode(DT_Q8_0, block, NULL, y, 32);
        float step = f16_at(block);
        assert_true(fabsf(step - max / 127) <= max / 127 * 0x1p-11f + 0x1p-25f);
        for (int i = 0; i < 32; i++) /* the largest may be cut by the rounding of the step */
            assert_true(fabsf(y[i] - x[i]) <= step * .5f + fmaxf(0, fabsf(x[i]) - 127.5f * step));
    }
    memset(x, 0, sizeof x);
    quant_encode(DT_Q8_0, x, block, 32);
    for (int i = 0; i < 34; i++)
        assert_int_equal(block[i], 0);
    x[5] = NAN;
    quant_encode(DT_Q8_0, x, block, 32);
    assert_true(isnan(f16_at(block)));
    x[5] = INFINITY;
    quant_encode(DT_Q8_0, x, block, 32);
    assert_false(isfinite(f16_at(block)));
}

static void test_encode_round_trip(void **state)
{
    (void)state;
    struct rng r = { 4, 0 };
    float x[64], y[64];
    uint8_t packed[4 * 64 + 1];
    for (int i = 0; i < 64; i++)
        x[i] = bf16_to_f32((uint16_t)(rng_next(&r) & 0xbfff)); /* finite */
    static const enum dtype exact[] = { DT_F32, DT_BF16 };
    for (size_t t = 0; t < COUNT_OF(exact); t++) {
        assert_true(quant_encode(exact[t], x, packed + 1, 64)); /* any address */
        quant_decode(exact[t], packed + 1, NULL, y, 64);
        assert_memory_equal(x, y, sizeof x);
    }
    assert_false(quant_encode(DT_Q2_K, x, packed, 64));
    assert_false(quant_encode(DT_IQ2_XXS, x, packed, 64));
}

static void test_fp4_to_mxfp4(void **state)
{
    (void)state;
    struct rng r = { 5, 0 };
    uint8_t fp4[64], scale[4], mx[4 * 17];
    float want[128], got[128];
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 64; i++)
            fp4[i] = (uint8_t)rng_next(&r);
        for (int i = 0; i < 4; i++)
            scale[i] = (uint8_t)(rng_next(&r) % 255);
        quant_fp4_to_mxfp4(fp4, scale, mx, 128);
        quant_decode(DT_FP4, fp4, scale, want, 128);
        quant_decode(DT_MXFP4, mx, NULL, got, 128);
        assert_memory_equal(want, got, sizeof want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_decode),
        cmocka_unit_test(test_f16_encode),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_e4m3),
        cmocka_unit_test(test_e2m1),
        cmocka_unit_test(test_e8m0),
        cmocka_unit_test(test_codebooks),
        cmocka_unit_test(test_golden_blocks),
        cmocka_unit_test(test_q8_0_encode),
        cmocka_unit_test(test_encode_round_trip),
        cmocka_unit_test(test_fp4_to_mxfp4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
