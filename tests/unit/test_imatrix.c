/* test_imatrix.c - importance matrices in both public formats, and what is refused. */
#include "unit/scratch_dir.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "imatrix.h"
#include "unit/imatrix_bytes.h"

static const float mean[] = { 1, 2, .5f, 4, 0, 0, 0, 0, 3, .25f, 8, 1, 7, 6, 5, 4 };
static const float count[] = { 4, 0, 512, 2 };
static const float value[] = { -1, .5f, 0, 2, 0, 0, 0, 0, -.25f, .125f, -2, 1 };
static const struct imatrix_part parts[] = {
    { "blk.0.ffn_gate_exps.weight", 4, 3, mean, count, value },
    { "output.weight", 4, 1, mean + 12, count + 3, NULL },
};

static void check(const struct imatrix *m, bool counted)
{
    struct err e = { 0 };
    float got[4];
    double n;
    assert_int_equal(imatrix_count(m), 2);
    assert_int_equal(imatrix_chunks(m), 17);
    assert_string_equal(imatrix_dataset(m), "text");
    assert_int_equal(imatrix_find(m, "blk.0.ffn_up_exps.weight"), -1);
    for (int p = 0; p < 2; p++) {
        int entry = imatrix_find(m, parts[p].name);
        assert_true(entry >= 0);
        assert_int_equal(imatrix_check(m, entry, 4, parts[p].n_mat, &e), 0);
        for (int i = 0; i < parts[p].n_mat; i++) {
            assert_int_equal(imatrix_read(m, entry, i, 4, got, &n, &e), 0);
            assert_memory_equal(got, parts[p].mean + 4 * i, sizeof got);
            assert_true(n == (counted ? (double)parts[p].count[i] : -1));
            assert_true(imatrix_has_values(m, entry) == (counted && p == 0));
            if (!imatrix_has_values(m, entry))
                continue;
            assert_int_equal(imatrix_read_values(m, entry, i, 4, got, &e), 0);
            assert_memory_equal(got, parts[p].value + 4 * i, sizeof got);
        }
    }
    assert_int_equal(imatrix_check(m, 0, 4, 2, &e), ERR_MISMATCH);
    assert_string_equal(e.text, counted ? "x: entry blk.0.ffn_gate_exps.weight has 3 x 4 values, "
                                          "expected 2 x 4"
                                        : "x: entry blk.0.ffn_gate_exps.weight has 1 x 12 values, "
                                          "expected 2 x 4");
}

static struct imatrix *parse(const struct buf *b)
{
    struct imatrix *m;
    struct err e = { 0 };
    if (imatrix_parse(&m, "x", (const uint8_t *)b->data, b->len, &e) < 0)
        fail_msg("%s", e.text);
    return m;
}

static void both_formats(void **state)
{
    (void)state;
    struct buf b;
    put_gguf_imatrix(&b, parts, 2);
    struct imatrix *m = parse(&b);
    check(m, true);
    imatrix_close(m);
    buf_release(&b);
    for (int n_call = 1; n_call < 9; n_call *= 2) {
        put_legacy(&b, parts, 2, n_call);
        m = parse(&b);
        check(m, false);
        imatrix_close(m);
        buf_release(&b);
    }
}

static void from_a_file(void **state)
{
    (void)state;
    struct scratch dir;
    struct buf b;
    struct imatrix *m;
    struct err e = { 0 };
    scratch_open(&dir);
    put_legacy(&b, parts, 2, 3);
    scratch_put(&dir, "i.dat", b.data, b.len);
    buf_release(&b);
    assert_int_equal(imatrix_open(&m, scratch_file(&dir, "i.dat"), &e), 0);
    assert_string_equal(imatrix_path(m), scratch_file(&dir, "i.dat"));
    imatrix_close(m);
    assert_int_equal(imatrix_open(&m, scratch_file(&dir, "none"), &e), ERR_IO);
    assert_null(m);
    imatrix_close(m);
    scratch_close(&dir);
}

/* Every way to cut a file short, and every single byte changed: an error or other numbers. */
static void damaged(void **state)
{
    (void)state;
    for (int format = 0; format < 2; format++) {
        struct buf b;
        if (format == 0)
            put_gguf_imatrix(&b, parts, 2);
        else
            put_legacy(&b, parts, 2, 3);
        int refused = 0;
        for (size_t cut = 0; cut < b.len; cut++) {
            struct imatrix *m;
            struct err e = { 0 };
            bool code = imatrix_parse(&m, "x", (const uint8_t *)b.data, cut, &e) < 0;
            assert_true(code == (m == NULL) && (!code || strncmp(e.text, "x: ", 3) == 0));
            refused += code;
            imatrix_close(m);
        }
        assert_true(refused > (int)b.len - 70); /* only the trailer or the padding may be missing */
        for (size_t i = 0; i < b.len; i++) {
            struct imatrix *m;
            struct err e = { 0 };
            float got[12];
            double n;
            b.data[i] ^= 0x55;
            if (imatrix_parse(&m, "x", (const uint8_t *)b.data, b.len, &e) < 0)
                assert_true(e.code != ERR_NONE && !strchr(e.text, '\n'));
            else if (imatrix_check(m, 0, 4, 3, &e) == 0)
                imatrix_read(m, 0, 2, 4, got, &n, &e);
            if (m && imatrix_check(m, 0, 4, 3, &e) == 0 && imatrix_has_values(m, 0))
                imatrix_read_values(m, 0, 2, 4, got, &e);
            imatrix_close(m);
            b.data[i] ^= 0x55;
        }
        buf_release(&b);
    }
}

static void bad_values(void **state)
{
    (void)state;
    static const float bad[] = { 1, -1, 1, 1 }, inf[] = { 1, 1, 1, INFINITY }, one[] = { 1 };
    static const float minus[] = { -1 };
    const struct {
        struct imatrix_part part;
        const char *text;
    } c[] = {
        { { "a", 4, 1, bad, one, NULL }, "x: entry a, vector 0, value 1 is -1, expected a number "
                                         "of at least 0" },
        { { "a", 4, 1, inf, one, NULL }, "x: entry a, vector 0, value 3 is inf, expected a number "
                                         "of at least 0" },
        { { "a", 4, 1, mean, minus, NULL }, "x: entry a, count 0 is -1" },
        { { "a", 4, 1, mean, one, inf }, "x: entry a, vector 0, sum 3 is inf" },
    };
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct buf b;
        struct err e = { 0 };
        float got[4];
        double n;
        put_gguf_imatrix(&b, &c[i].part, 1);
        struct imatrix *m = parse(&b);
        int code = imatrix_read(m, 0, 0, 4, got, &n, &e);
        if (code == 0)
            code = imatrix_read_values(m, 0, 0, 4, got, &e);
        assert_int_equal(code, ERR_FORMAT);
        assert_string_equal(e.text, c[i].text);
        imatrix_close(m);
        buf_release(&b);
    }
}

static void refused(const struct buf *b, const char *text)
{
    struct imatrix *m;
    struct err e = { 0 };
    assert_int_equal(imatrix_parse(&m, "x", (const uint8_t *)b->data, b->len, &e), ERR_FORMAT);
    assert_string_equal(e.text, text);
}

static void other_files(void **state)
{
    (void)state;
    const struct imatrix_part twice[] = { parts[1], parts[1] };
    struct buf b;
    put_legacy(&b, twice, 2, 1);
    refused(&b, "x: entry output.weight occurs twice");
    buf_release(&b);
    put_head(&b, 0, 1);
    put_kv_str(&b, "general.type", "model");
    refused(&b, "x: key general.type is model, expected imatrix");
    buf_release(&b);
    put_head(&b, 0, 1);
    put_kv_str(&b, "general.type", "imatrix");
    refused(&b, "x: has no entries");
    buf_release(&b);
    put_head(&b, 1, 1);
    put_kv_str(&b, "general.type", "imatrix");
    put_tensor(&b, "a.in_sum2", 2, 8, 1, 0, 0);
    put_data(&b, 32, 32);
    refused(&b, "x: tensor a.counts is missing");
    buf_release(&b);
    put_head(&b, 3, 1);
    put_kv_str(&b, "general.type", "imatrix");
    put_tensor(&b, "a.in_sum2", 2, 8, 1, 0, 0);
    put_tensor(&b, "a.counts", 2, 1, 1, 0, 32);
    put_tensor(&b, "a.in_sum", 2, 4, 2, 0, 64);
    put_data(&b, 32, 96);
    refused(&b, "x: tensor a.in_sum is F32, 2 x 4, expected F32, 1 x 8");
    buf_release(&b);
    buf_init(&b, 100);
    buf_puts(&b, "A text, and nothing that could be an importance matrix.");
    refused(&b, "x: states 1702109249 entries, the limit is 1048576 (is it an importance matrix?)");
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_formats), cmocka_unit_test(from_a_file), cmocka_unit_test(damaged),
        cmocka_unit_test(bad_values),   cmocka_unit_test(other_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
