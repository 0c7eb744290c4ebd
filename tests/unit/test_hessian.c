/* test_hessian.c - sums of x x^T through the file and back; merging; what is refused, by name. */
#include "unit/scratch_dir.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "hessian.h"

enum { N = 37 };

static const char gate[] = "blk.0.ffn_gate_exps", down[] = "blk.0.ffn_down_exps";

/* A whole square; only its lower triangle counts. */
static void fill(double sum[N][N], double seed)
{
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++)
            sum[i][j] = j > i ? NAN : i == j ? 100 + i : sin(seed + i * 7 + j);
    }
}

static void write_file(const char *path, double learn[N][N], double held[N][N], bool with_held,
                       struct err *e)
{
    struct hessian_writer w;
    struct hessian_sums a = { &learn[0][0], N, 12 }, b = { &held[0][0], N, 5 };
    assert_int_equal(hessian_write_open(&w, path, e), 0);
    gguf_put_str(&w.out, "hessian.text", "of one's own");
    assert_int_equal(hessian_write_add(&w, gate, N, with_held, e), 0);
    assert_int_equal(hessian_write_add(&w, down, 3, false, e), 1);
    assert_int_equal(hessian_write_begin(&w, e), 0);
    if (hessian_write_put(&w, 1, &a, NULL, e) < 0 ||
        hessian_write_put(&w, 0, &a, with_held ? &b : NULL, e) < 0) {
        hessian_write_abort(&w);
        return;
    }
    assert_int_equal(hessian_write_finish(&w, e), 0);
}

static void there_and_back(void **state)
{
    (void)state;
    static double learn[N][N], held[N][N], more[N][N];
    float mean[N];
    struct scratch dir;
    struct hessian_file *h;
    struct err e = { 0 };
    scratch_open(&dir);
    fill(learn, 1);
    fill(held, 2);
    write_file(scratch_file(&dir, "h.gguf"), learn, held, true, &e);
    assert_int_equal(hessian_open(&h, scratch_file(&dir, "h.gguf"), &e), 0);
    assert_int_equal(hessian_count(h), 2);
    assert_int_equal(hessian_find(h, "blk.1.ffn_gate_exps"), -1);
    int at = hessian_find(h, gate), other = hessian_find(h, down);
    assert_string_equal(hessian_name(h, at), gate);
    assert_int_equal(hessian_size(h, at), N);
    assert_int_equal(hessian_size(h, other), 3);
    assert_int_equal(hessian_tokens(h, at, HESSIAN_LEARN), 12);
    assert_int_equal(hessian_tokens(h, at, HESSIAN_HELD), 5);
    assert_int_equal(hessian_tokens(h, other, HESSIAN_HELD), 0);
    for (int part = 0; part < 2; part++) {
        double(*sum)[N] = part ? held : learn;
        fill(more, 3);
        assert_int_equal(hessian_add(h, at, (enum hessian_part)part, &more[0][0], N, &e), 0);
        for (int i = 0; i < N; i++) {
            assert_int_equal(hessian_row(h, at, (enum hessian_part)part, i, mean, &e), 0);
            for (int j = 0; j <= i; j++) {
                double x = (double)(float)sum[i][j], old = i == j ? 100 + i : sin(3 + i * 7 + j);
                assert_true(mean[j] == (float)(x * (1 / (part ? 5. : 12.))));
                assert_true(more[i][j] == old + x);
            }
        }
    }
    uint64_t hash = hessian_hash(h);
    hessian_close(h);
    held[1][0] += 1;
    write_file(scratch_file(&dir, "h.gguf"), learn, held, true, &e);
    assert_int_equal(hessian_open(&h, scratch_file(&dir, "h.gguf"), &e), 0);
    assert_true(hessian_hash(h) != hash);
    hessian_close(h);
    scratch_close(&dir);
}

/* A number that is none is refused when it is written, and named when it is read. */
static void no_numbers(void **state)
{
    (void)state;
    static double learn[N][N], held[N][N];
    float mean[N];
    struct scratch dir;
    struct buf bytes;
    struct hessian_file *h;
    struct err e = { 0 };
    scratch_open(&dir);
    const char *path = scratch_file(&dir, "h.gguf");
    fill(learn, 1);
    fill(held, 2);
    held[30][7] = INFINITY;
    write_file(path, learn, held, true, &e);
    assert_int_equal(e.code, ERR_FORMAT);
    assert_non_null(strstr(e.text, "input blk.0.ffn_gate_exps, row 30, column 7 has a sum of inf"));
    assert_false(file_exists(path));

    e = (struct err){ 0 };
    held[30][7] = 1234.5;
    held[9][9] = 4321.5;
    write_file(path, learn, held, true, &e);
    for (int damage = 0; damage < 2; damage++) {
        float find = damage ? 4321.5f : 1234.5f, put = damage ? -1 : NAN;
        buf_init(&bytes, 1 << 20);
        assert_int_equal(file_read_all(&bytes, scratch_file(&dir, "h.gguf"), &e), 0);
        for (size_t i = 0; i + 4 <= bytes.len; i += 4) {
            if (memcmp(bytes.data + i, &find, 4) == 0)
                memcpy(bytes.data + i, &put, 4);
        }
        scratch_put(&dir, "bad.gguf", bytes.data, bytes.len);
        buf_release(&bytes);
        assert_int_equal(hessian_open(&h, scratch_file(&dir, "bad.gguf"), &e), 0);
        int at = hessian_find(h, gate);
        int code = 0;
        for (int i = 0; i < N && code == 0; i++) {
            assert_int_equal(hessian_row(h, at, HESSIAN_LEARN, i, mean, &e), 0);
            code = hessian_row(h, at, HESSIAN_HELD, i, mean, &e);
        }
        assert_int_equal(code, ERR_FORMAT);
        assert_non_null(strstr(e.text, "tensor blk.0.ffn_gate_exps.hessian_held, row "));
        assert_non_null(strstr(e.text, damage ? "9, column 9 is -1, expected a sum of squares"
                                              : "30, column 7 is nan, expected a number"));
        e = (struct err){ 0 };
        hessian_close(h);
    }
    scratch_close(&dir);
}

static void refused(const struct scratch *dir, const char *text)
{
    struct hessian_file *h;
    struct err e = { 0 };
    assert_int_equal(hessian_open(&h, scratch_file(dir, "x.gguf"), &e), ERR_FORMAT);
    assert_null(h);
    if (!strstr(e.text, text))
        fail_msg("%s", e.text);
}

/* Tensors of a file put together freely: name, type, numbers. */
static void put_tensors(const struct scratch *dir, const char *type, int n, const char *const *name,
                        const enum dtype *form, const int64_t *dim)
{
    static const uint8_t zeros[4096] = { 0 };
    struct gguf_writer w;
    struct err e = { 0 };
    assert_int_equal(gguf_write_open(&w, scratch_file(dir, "x.gguf"), &e), 0);
    gguf_put_str(&w, "general.type", type);
    for (int i = 0; i < n; i++)
        assert_int_equal(gguf_add_tensor(&w, name[i], form[i], 1, &dim[i], &e), i);
    assert_int_equal(gguf_write_begin(&w, &e), 0);
    for (int i = 0; i < n; i++)
        assert_int_equal(gguf_write_data(&w, i, 0, zeros, gguf_tensor_bytes(&w, i), &e), 0);
    assert_int_equal(gguf_write_finish(&w, &e), 0);
}

static void other_files(void **state)
{
    (void)state;
    static const char *const name[] = { "a.hessian", "a.hessian_counts", "a.hessian_held" };
    struct scratch dir;
    scratch_open(&dir);
    put_tensors(&dir, "imatrix", 2, name, (enum dtype[]){ DT_F32, DT_I64 }, (int64_t[]){ 10, 2 });
    refused(&dir, "key general.type is imatrix, expected hessian");
    put_tensors(&dir, "hessian", 1, name + 1, (enum dtype[]){ DT_I64 }, (int64_t[]){ 2 });
    refused(&dir, "has no tensor NAME.hessian");
    put_tensors(&dir, "hessian", 1, name, (enum dtype[]){ DT_F32 }, (int64_t[]){ 10 });
    refused(&dir, "tensor a.hessian_counts is missing");
    put_tensors(&dir, "hessian", 2, name, (enum dtype[]){ DT_F32, DT_I64 }, (int64_t[]){ 11, 2 });
    refused(&dir, "tensor a.hessian has 11 numbers, expected a triangle");
    put_tensors(&dir, "hessian", 2, name, (enum dtype[]){ DT_F16, DT_I64 }, (int64_t[]){ 10, 2 });
    refused(&dir, "tensor a.hessian is F16, expected F32");
    put_tensors(&dir, "hessian", 2, name, (enum dtype[]){ DT_F32, DT_I64 }, (int64_t[]){ 10, 3 });
    refused(&dir, "tensor a.hessian_counts is I64 x 3, expected I64 x 2");
    put_tensors(&dir, "hessian", 3, name, (enum dtype[]){ DT_F32, DT_I64, DT_F32 },
                (int64_t[]){ 10, 2, 15 });
    refused(&dir, "tensor a.hessian_held has 15 numbers, expected as many as to learn from");
    scratch_put(&dir, "x.gguf", "GGUF", 4);
    refused(&dir, "x.gguf: ");
    scratch_close(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(no_numbers),
        cmocka_unit_test(other_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
