/* test_quantize_gain.c - rows that have lost size, and rows that have not. */
#include "unit/quantize_pebble.h"

#include <math.h>

#define RECIPE(gain)                                       \
    "mtp.* drop\n"                                         \
    "blk.2.ffn_gate_exps.weight IQ2_XXS gain=" gain "\n"   \
    "blk.3.ffn_down_exps.weight Q2_K gain=" gain "\n"      \
    "blk.4.attn_q_a.weight Q4_K weights=none gain=" gain "\n" \
    "* keep\n"

#define TENSOR "blk.2.ffn_gate_exps.weight"

/* Each row's product with the source's, over that of the source's with itself: least and most. */
static void gains(const char *file, const char *tensor, bool weighted, double out[2])
{
    struct weights *source = open_or_fail(in_dir("source.gguf"));
    struct weights *made = open_or_fail(in_dir(file));
    const struct weight *a = weights_find(source, tensor), *b = weights_find(made, tensor);
    size_t step[2] = { a->bytes / (size_t)(a->dim[1] * a->dim[2]),
                       b->bytes / (size_t)(b->dim[1] * b->dim[2]) };
    float x[COLS], y[COLS];
    out[0] = INFINITY;
    out[1] = 0;
    assert_int_equal(a->dim[0], COLS);
    for (int64_t r = 0; r < a->dim[1] * a->dim[2]; r++) {
        double whole = 0, common = 0;
        quant_decode(a->type, a->data + (size_t)r * step[0], NULL, x, COLS);
        quant_decode(b->type, b->data + (size_t)r * step[1], NULL, y, COLS);
        for (int j = 0; j < COLS; j++) {
            double w = !weighted || j % 2 ? 1 : 4;
            whole += w * (double)x[j] * (double)x[j];
            common += w * (double)x[j] * (double)y[j];
        }
        out[0] = fmin(out[0], common / whole);
        out[1] = fmax(out[1], common / whole);
    }
    weights_close(source);
    weights_close(made);
}

static void make(const char *name, const char *recipe)
{
    char file[32];
    struct quantize_options o = options(PEBBLE, name);
    snprintf(file, sizeof file, "%s.imatrix", name);
    scratch_put(&dir, "little", recipe, strlen(recipe));
    for (int x = 0; x < EXPERTS; x++) {
        imp_count[x] = 1000;
        for (int j = 0; j < COLS; j++)
            imp_mean[x * COLS + j] = j % 2 ? 1 : 4;
    }
    put_imatrix(file, imp_part, 2);
    o.imatrix = in_dir(file);
    must(&o);
}

static void rows_keep_their_size(void **state)
{
    static const char *const tensor[] = { "blk.2.ffn_gate_exps.weight",
                                          "blk.3.ffn_down_exps.weight", "blk.4.attn_q_a.weight" };
    static const double lost[] = { 0.95, 0.99, 0.9999 }; /* some row is at least so small without */
    (void)state;
    make("source.gguf", "mtp.* drop\n* keep\n");
    make("on.gguf", RECIPE("on"));
    make("off.gguf", RECIPE("off"));
    for (int i = 0; i < 3; i++) {
        double with[2], without[2];
        gains("on.gguf", tensor[i], i < 2, with);
        gains("off.gguf", tensor[i], i < 2, without);
        assert_true(without[0] < lost[i]);
        assert_true(with[0] > 0.998 && with[1] < 1.01); /* steps are 16-bit floats */
    }
}

/* Of the first expert's rows: the mean over rows of (sum of error x mean)^2, and of its square sum
 * of errors weighed by what inputs deviate from the mean. */
static void losses(const char *file, const float *mean, double out[2])
{
    struct weights *source = open_or_fail(in_dir("source.gguf"));
    struct weights *made = open_or_fail(in_dir(file));
    const struct weight *a = weights_find(source, TENSOR), *b = weights_find(made, TENSOR);
    size_t step[2] = { a->bytes / (size_t)(a->dim[1] * a->dim[2]),
                       b->bytes / (size_t)(b->dim[1] * b->dim[2]) };
    float x[COLS], y[COLS];
    out[0] = out[1] = 0;
    for (int64_t r = 0; r < a->dim[1]; r++) {
        double sum = 0;
        quant_decode(a->type, a->data + (size_t)r * step[0], NULL, x, COLS);
        quant_decode(b->type, b->data + (size_t)r * step[1], NULL, y, COLS);
        for (int j = 0; j < COLS; j++) {
            double e = (double)x[j] - (double)y[j], m = (double)mean[j];
            sum += e * m;
            out[1] += ((double)imp_mean[j] - m * m) * e * e;
        }
        out[0] += sum * sum;
    }
    weights_close(source);
    weights_close(made);
}

/* The mean of the first expert, which has many tokens, and nothing for the others. */
static void errors_cancel(void **state)
{
    (void)state;
    static float value[EXPERTS * COLS];
    struct imatrix_part part = { TENSOR, COLS, EXPERTS, imp_mean, imp_count, value };
    double without[2], with[2];
    make("source.gguf", "mtp.* drop\n* keep\n");
    for (int x = 0; x < EXPERTS; x++)
        imp_count[x] = x ? 0 : 1e6f;
    for (int j = 0; j < COLS; j++)
        value[j] = (j % 3 - 1) * (j % 2 ? .5f : 1);
    put_imatrix("values", &part, 1);
    for (int i = 0; i < 2; i++) {
        const char *recipe = i ? TENSOR " IQ2_XXS\n* keep" : TENSOR " IQ2_XXS mean=off\n* keep";
        struct quantize_options o = options(PEBBLE, i ? "with.gguf" : "without.gguf");
        scratch_put(&dir, "little", recipe, strlen(recipe));
        o.imatrix = in_dir("values");
        must(&o);
    }
    losses("without.gguf", value, without);
    losses("with.gguf", value, with);
    assert_true(with[0] < .03 * without[0] && with[0] > 0);
    assert_true(with[1] < 1.03 * without[1]);
    value[7] = NAN;
    put_imatrix("values", &part, 1);
    struct quantize_options o = options(PEBBLE, "none.gguf");
    o.imatrix = in_dir("values");
    must_not(&o, ERR_FORMAT, "entry " TENSOR ", vector 0, sum 7 is nan");
}

int main(void)
{
    const struct CMUnitTest tests[] = { CASE(rows_keep_their_size), CASE(errors_cancel) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
