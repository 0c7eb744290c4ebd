/* test_quant_random.c - random blocks: the same bytes in any parts, sizes as promised, every number
 * finite and legal, and for ever the same. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "hash.h"
#include "quant_random.h"

#include <math.h>
#include <stdlib.h>

enum { N = 256 * 512 }; /* numbers */

static const enum dtype types[] = { DT_Q8_0, DT_Q2_K, DT_Q4_K, DT_IQ2_XXS, DT_MXFP4,
                                    DT_FP4,  DT_F8_E4M3, DT_F32, DT_F16, DT_BF16 };

static int block_of(enum dtype type)
{
    return type == DT_FP4 ? 32 : dtype_info((int)type)->block;
}

static uint8_t *make(const struct quant_random *q, uint64_t first, size_t n_block)
{
    uint8_t *data = malloc(dtype_bytes(q->type, n_block * (size_t)block_of(q->type)));
    assert_non_null(data);
    quant_random(q, first, n_block, data);
    return data;
}

static float *decode(const struct quant_random *q, const uint8_t *data)
{
    float *x = malloc(N * sizeof *x);
    uint8_t *scale = malloc(N / 32);
    assert_non_null(x);
    assert_non_null(scale);
    bool scaled = q->type == DT_FP4 || q->type == DT_F8_E4M3;
    if (scaled)
        quant_random_scales(q, 0, N / 32, scale);
    quant_decode(q->type, data, scaled ? scale : NULL, x, N);
    free(scale);
    return x;
}

static void parts_are_the_whole(void **state)
{
    (void)state;
    static const size_t cut[] = { 0, 1, 3, 8, 11, 64, 100 };
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        struct quant_random q = { .type = types[t], .key = 7, .shift = -9 };
        size_t bytes = dtype_bytes(q.type, (size_t)block_of(q.type));
        uint64_t far = UINT64_C(0x123456789ab);
        uint8_t *whole = make(&q, far, 100);
        for (size_t i = 0; i + 1 < COUNT_OF(cut); i++) {
            uint8_t *part = make(&q, far + cut[i], cut[i + 1] - cut[i]);
            assert_memory_equal(part, whole + cut[i] * bytes, (cut[i + 1] - cut[i]) * bytes);
            free(part);
        }
        q.key++;
        uint8_t *other = make(&q, far, 100);
        assert_memory_not_equal(whole, other, 100 * bytes);
        free(other);
        free(whole);
    }
}

static void sizes_are_as_promised(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        struct quant_random q = { .type = types[t], .key = 42 };
        q.shift = quant_random_shift(q.type, 1.0 / 64);
        uint8_t *data = make(&q, 0, N / (size_t)block_of(q.type));
        float *x = decode(&q, data);
        double sum = 0, square = 0, is = ldexp(quant_random_unit(q.type), q.shift);
        for (int i = 0; i < N; i++) {
            assert_true(isfinite(x[i]));
            sum += (double)x[i];
            square += (double)x[i] * (double)x[i];
        }
        double rms = sqrt(square / N);
        if (fabs(rms / is - 1) > .02)
            fail_msg("%s: %g, promised %g", dtype_name((int)q.type), rms, is);
        assert_true(is * 64 > .70 && is * 64 < 1.42);
        assert_true(fabs(sum / N) < .02 * rms);
        free(x);
        free(data);
    }
}

static void codes_are_legal(void **state)
{
    (void)state;
    struct quant_random q = { .type = DT_Q8_0, .key = 3, .shift = -20 };
    uint8_t *data = make(&q, 0, N / 32);
    for (int i = 0; i < N; i++)
        assert_int_not_equal(data[i / 32 * 34 + 2 + i % 32], 0x80); /* -128 */
    free(data);
    q.type = DT_F16;
    q.around_one = true;
    data = make(&q, 0, N);
    float *x = decode(&q, data);
    for (int i = 0; i < N; i++)
        assert_true(x[i] >= .875f && x[i] < 1.125f && x[i] * 64 == floorf(x[i] * 64));
    free(x);
    free(data);
}

/* The vendor's layout and GGUF's hold the same numbers. */
static void fp4_is_mxfp4(void **state)
{
    (void)state;
    struct quant_random v = { .type = DT_FP4, .key = 5, .shift = -7 };
    struct quant_random g = v;
    g.type = DT_MXFP4;
    uint8_t *a = make(&v, 0, N / 32), *b = make(&g, 0, N / 32), *c = malloc(N / 32 * 17);
    uint8_t scale[N / 32];
    assert_non_null(c);
    quant_random_scales(&v, 0, N / 32, scale);
    quant_fp4_to_mxfp4(a, scale, c, N);
    assert_memory_equal(b, c, N / 32 * 17);
    free(a);
    free(b);
    free(c);
}

/* Files made by different versions, or on other machines, must agree: 1024 blocks each, computed
 * in Python from docs/formats.md. */
static void for_ever_the_same(void **state)
{
    (void)state;
    static const uint64_t golden[COUNT_OF(types)] = {
        UINT64_C(0x02eef99772eb4fc2), UINT64_C(0x49f2157128842736),
        UINT64_C(0xd7bf48f762e973f7), UINT64_C(0xdd7e6622c39f5b83),
        UINT64_C(0x285e7ecc6d46e5e9), UINT64_C(0x94d861825e93cea9),
        UINT64_C(0x6deef160f18873d9), UINT64_C(0xd37735ef8dc48349),
        UINT64_C(0x6ad4e1602b374316), UINT64_C(0x14481e953d9e0d59),
    };
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        struct quant_random q = { .type = types[t], .key = 1, .shift = -12 };
        uint8_t *data = make(&q, 0, 1024);
        uint64_t h = hash_of(data, dtype_bytes(q.type, 1024 * (size_t)block_of(q.type)), 0);
        if (h != golden[t])
            fail_msg("%s: 0x%016llx", dtype_name((int)q.type), (unsigned long long)h);
        free(data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_the_whole), cmocka_unit_test(sizes_are_as_promised),
        cmocka_unit_test(codes_are_legal),     cmocka_unit_test(fp4_is_mxfp4),
        cmocka_unit_test(for_ever_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
