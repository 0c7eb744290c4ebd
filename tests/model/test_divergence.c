/* test_divergence.c - divergences worked out by hand; a model against what it said itself, and
 * against what is damaged. */
#include "unit/scratch_dir.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "half.h"
#include "measure.h"

#include <math.h>

enum { N_DOC = 3, N_TOK = 150, EVERY = 16 };

static dstar_engine *engine;
static struct scratch dir;
static int32_t token[N_DOC][N_TOK];
static uint8_t scored[N_DOC][N_TOK];
static struct text_doc doc[N_DOC];
static char ref_path[512];

/* ---- by hand ---- */

/* p: four equal; q: 1/8 1/8 1/8 5/8. sum p log(p / q) = 3/4 log 2 + 1/4 log 2/5. The reference's
 * numbers need not sum to one: e^-1 each is read as 1/4. */
static void test_row(void **state)
{
    const uint16_t p[4] = { 0xbc00, 0xbc00, 0xbc00, 0xbc00 }; /* -1 */
    const float q[4] = { 3, 3, 3, 3 + logf(5) };
    struct divergence_row row;
    (void)state;
    assert_int_equal(divergence_of_row(&row, p, q, 4, 1, NULL), 0);
    assert_float_equal(row.kl, 0.75 * log(2) + 0.25 * log(0.4), 1e-7);
    assert_float_equal(row.nll, log(8), 1e-7);
    assert_int_equal(row.best, 3);
}

/* p: 2/3 and 1/3 of which F16 knows neither; what is left of the divergence from itself is of
 * second order, and it is never negative. */
static void test_rounding(void **state)
{
    const float q[3] = { 0, -logf(2), -20 };
    uint16_t p[3];
    struct divergence_row row;
    (void)state;
    double whole = log(1.5 + exp(-20));
    for (int i = 0; i < 3; i++)
        p[i] = f32_to_f16((float)(q[i] - whole));
    assert_int_equal(divergence_of_row(&row, p, q, 3, 0, NULL), 0);
    assert_true(row.kl >= 0 && row.kl < 1e-7);
}

static void test_not_finite(void **state)
{
    const uint16_t p[2] = { 0xb98c, 0xb98c }, bad[2] = { 0x7e00, 0xb98c };
    const float q[2] = { 1, 2 }, nan[2] = { 1, NAN }, inf[2] = { 1, INFINITY };
    struct divergence_row row;
    (void)state;
    assert_int_equal(divergence_of_row(&row, p, q, 2, 0, NULL), 0);
    assert_int_equal(divergence_of_row(&row, p, nan, 2, 0, NULL), ERR_FORMAT);
    assert_int_equal(divergence_of_row(&row, p, inf, 2, 0, NULL), ERR_FORMAT);
    assert_int_equal(divergence_of_row(&row, bad, q, 2, 0, NULL), ERR_FORMAT);
}

static void test_quantile(void **state)
{
    const float x[4] = { 1, 2, 3, 4 };
    (void)state;
    assert_float_equal(divergence_quantile(x, 4, 0.5), 2, 0);
    assert_float_equal(divergence_quantile(x, 4, 0.51), 3, 0);
    assert_float_equal(divergence_quantile(x, 4, 0.999), 4, 0);
    assert_float_equal(divergence_quantile(x, 4, 0), 1, 0);
    assert_float_equal(divergence_quantile(x, 0, 0.5), 0, 0);
}

/* ---- a model ---- */

static dstar_engine *open_model(bool exact)
{
    const char *build = getenv("DSTAR_BUILD");
    char path[512];
    struct dstar_options o;
    struct dstar_error error;
    dstar_engine *en = NULL;
    snprintf(path, sizeof path, "%s/pebble.gguf", build ? build : "build");
    dstar_options_init(&o);
    o.model = file_exists(path) ? path : "models/pebble";
    o.ctx = 512;
    o.exact = exact;
    if (dstar_open(&en, &o, &error) < 0)
        fail_msg("%s", error.text);
    return en;
}

static void write_reference(const char *path, int every, int chunk)
{
    struct reference_plan plan = { .doc = doc, .n_doc = N_DOC, .text_hash = 0x1234, .every = every,
                                   .chunk = chunk };
    struct err e = { 0 };
    if (reference_write(engine, path, &plan, &e) < 0)
        fail_msg("%s", e.text);
}

/* Of three texts: in the first all count, of the second a few, of the third none. */
static int begin(void **state)
{
    (void)state;
    scratch_open(&dir);
    snprintf(ref_path, sizeof ref_path, "%s", scratch_file(&dir, "a.ref"));
    engine = open_model(false);
    for (int d = 0; d < N_DOC; d++) {
        for (int i = 0; i < N_TOK; i++) {
            token[d][i] = (i * i * (d + 3) + 300 + i) % 2304;
            scored[d][i] = d == 0 ? TEXT_COUNTS : d == 1 && i % 5 == 2 ? TEXT_ANSWER : TEXT_NOT;
        }
        doc[d] = (struct text_doc){ d ? "b" : "a", d ? "second" : "first", token[d],
                                    N_TOK - 10 * d, scored[d] };
    }
    write_reference(ref_path, EVERY, 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    dstar_close(engine);
    scratch_close(&dir);
    return 0;
}

static void compare(struct divergence *d, dstar_engine *with, int chunk, int nth)
{
    struct reference *r;
    struct err e = { 0 };
    struct divergence_plan plan = { .chunk = chunk, .nth = nth };
    if (reference_open(&r, ref_path, &e) < 0 || divergence_measure(d, with, r, &plan, &e) < 0)
        fail_msg("%s", e.text);
    reference_close(r);
}

/* In other pieces the same model says the same, bit for bit: what is left is rounding to F16. */
static void test_itself(void **state)
{
    struct divergence d;
    (void)state;
    compare(&d, engine, 37, 1);
    assert_int_equal(d.n_text, N_DOC);
    assert_int_equal(d.text[0].n_row, N_TOK - 1);
    assert_int_equal(d.text[1].n_row, 28);
    assert_int_equal(d.text[1].n_answer, 28);
    assert_int_equal(d.text[2].n_row, 0);
    assert_int_equal(d.all.n_row, N_TOK + 27);
    assert_int_equal(d.all.n_answer, 28);
    assert_int_equal(d.all.n_same_best, d.all.n_row);
    assert_true(d.all.kl / (double)d.all.n_row < 1e-6 && d.kl_max < 1e-5 && d.all.kl > 0);
    assert_float_equal(d.all.nll, d.all.nll_ref, 1e-4);
    for (int l = 0; l < d.n_layer; l++) {
        assert_int_equal(d.layer[l].n_same_set, d.all.n_row);
        assert_int_equal(d.layer[l].n_same_expert, d.all.n_row * d.n_used);
        assert_float_equal(d.layer[l].error, 0, 0);
        assert_true(d.layer[l].size > 0);
        assert_int_equal(d.layer[l].learned, l >= 2);
    }
    divergence_release(&d);
    compare(&d, engine, 0, 2); /* the first and the third */
    assert_int_equal(d.n_text, 2);
    assert_int_equal(d.all.n_row, N_TOK - 1);
    divergence_release(&d);
}

/* Activations that are not rounded make another model of it, a little. */
static void test_another(void **state)
{
    struct divergence d;
    dstar_engine *exact = open_model(true);
    (void)state;
    compare(&d, exact, 0, 1);
    assert_true(d.all.kl / (double)d.all.n_row > 1e-6 && d.all.kl / (double)d.all.n_row < 0.05);
    assert_true(d.kl_50 <= d.kl_99 && d.kl_99 <= d.kl_999 && d.kl_999 <= d.kl_max);
    int64_t n = d.all.n_row;
    for (int l = 0; l < d.n_layer; l++) {
        struct divergence_layer *x = &d.layer[l];
        assert_true(x->error > 0 && x->error < 0.1 * x->size);
        assert_true(x->learned || x->n_same_set == n);
        assert_true(x->n_same_expert >= x->n_same_set * d.n_used);
        assert_true(x->n_same_expert > n * d.n_used * 9 / 10);
    }
    divergence_release(&d);
    dstar_close(exact);
}

/* ---- files ---- */

static void test_read(void **state)
{
    struct reference *r;
    struct reference_row row;
    struct err e = { 0 };
    (void)state;
    assert_int_equal(reference_open(&r, ref_path, &e), 0);
    const struct reference_info *info = reference_info(r);
    assert_string_equal(info->model, "pebble");
    assert_int_equal(info->n_doc, N_DOC);
    assert_int_equal(info->text_hash, 0x1234);
    assert_int_equal(info->n_tok, 3 * N_TOK - 30);
    assert_string_equal(reference_doc(r, 1)->set, "second");
    assert_memory_equal(reference_doc(r, 1)->id, token[1], sizeof *token[1] * (N_TOK - 10));
    assert_int_equal(reference_first_row(r, 1), N_TOK - 1);
    for (int64_t i = 0; i < info->n_row; i++) {
        double sum = 0;
        assert_int_equal(reference_row(r, i, &row, &e), 0);
        assert_int_equal(row.streams != NULL, i % EVERY == 0);
        for (int v = 0; v < info->shape.n_vocab; v++)
            sum += exp(f16_to_f32(row.logprob[v]));
        assert_float_equal(sum, 1, 0.01);
        if (i < N_TOK - 1)
            assert_float_equal(row.nll, -f16_to_f32(row.logprob[token[0][i + 1]]), 0.02);
    }
    reference_close(r);
}

/* Where the file has these bytes; it has them once. */
static size_t find(const char *data, size_t len, const void *what, size_t n)
{
    for (size_t i = 0; i + n <= len; i++) {
        if (memcmp(data + i, what, n) == 0)
            return i;
    }
    fail_msg("bytes to damage were not found");
    return 0;
}

/* A file that differs in one bit of byte `at`, or ends there; measured with the model. Its error
 * without the path. */
static const char *fault_of_damage(const struct buf *good, size_t at, bool cut)
{
    static struct err e;
    char path[512];
    struct reference *r;
    struct divergence d;
    struct divergence_plan plan = { .nth = 1 };
    good->data[at] ^= 1;
    snprintf(path, sizeof path, "%s", scratch_file(&dir, "bad.ref"));
    scratch_put(&dir, "bad.ref", good->data, cut ? at : good->len);
    good->data[at] ^= 1;
    e = (struct err){ 0 };
    if (reference_open(&r, path, &e) == 0 && divergence_measure(&d, engine, r, &plan, &e) == 0)
        divergence_release(&d);
    reference_close(r);
    assert_true(e.code < 0);
    assert_non_null(strstr(e.text, "bad.ref: "));
    return strstr(e.text, "bad.ref: ") + 9;
}

static void test_damaged(void **state)
{
    struct buf all;
    struct reference *r;
    struct reference_row row;
    (void)state;
    buf_init(&all, (size_t)1 << 28);
    assert_int_equal(file_read_all(&all, ref_path, NULL), 0);
    assert_int_equal(reference_open(&r, ref_path, NULL), 0);
    int n_vocab = reference_info(r)->shape.n_vocab;
    assert_int_equal(reference_row(r, 16, &row, NULL), 0);
    size_t tokens = find(all.data, all.len, token[0], sizeof token[0]);
    size_t numbers = find(all.data, all.len, row.logprob, (size_t)n_vocab * 2);
    size_t streams = find(all.data, all.len, row.streams, 4096);
    reference_close(r);

    assert_non_null(strstr(fault_of_damage(&all, tokens, false), "its tokens have the"));
    assert_string_equal(fault_of_damage(&all, numbers + 1001, false),
                        "row 16: its numbers are not as they were written");
    assert_string_equal(fault_of_damage(&all, streams + 1001, false),
                        "row 16: its streams are not as they were written");
    const char *key = "reference.vocab_hash";
    size_t vocab = find(all.data, all.len, key, strlen(key)) + strlen(key) + 4 + 8;
    assert_non_null(strstr(fault_of_damage(&all, vocab + 15, false), "has another vocabulary"));
    for (size_t at = all.len - 1; at > 100; at = at * 3 / 4)
        fault_of_damage(&all, at, true);
    buf_release(&all);
}

static void test_nothing_counts(void **state)
{
    struct reference_plan plan = { .doc = doc + 2, .n_doc = 1 };
    struct err e = { 0 };
    (void)state;
    assert_int_equal(reference_write(engine, scratch_file(&dir, "no.ref"), &plan, &e),
                     ERR_ARGUMENT);
    assert_false(file_exists(scratch_file(&dir, "no.ref")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row),     cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_quantile),
        cmocka_unit_test(test_itself),  cmocka_unit_test(test_another),
        cmocka_unit_test(test_read),    cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_nothing_counts),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
