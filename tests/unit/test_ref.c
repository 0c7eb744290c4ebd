/* test_ref.c - the scalar ops against values worked out elsewhere: the vendor's rotary table and
 * gates, and properties that follow from the mathematics. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "kv_row.h"
#include "ref.h"
#include "rng.h"

#include <math.h>
#include <stdlib.h>

static struct dev dev;
static _Alignas(ARENA_ALIGN) uint8_t memory[1 << 20];

static int begin(void **state)
{
    (void)state;
    dev = (struct dev){ .name = "ref", .ops = &ref_ops };
    arena_init(&dev.scratch, memory, sizeof memory);
    dev_begin(&dev);
    return 0;
}

static struct tensor f32(int cols, int rows)
{
    struct tensor t = dev_tensor(&dev, DT_F32, cols, rows);
    assert_non_null(t.data);
    return t;
}

static void near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%.9g, expected %.9g within %.1e", got, want, tolerance);
}

/* The gates of a known projection: pre, post, and C by rows. */
static void hc_gates(void **state)
{
    static const double want[24] = {
        .52386291, .67731844, .72941763, .68470250, 1.13248119, .47047394, .31843865, .39135656,
        .00464459, .13205218, .52716217, .33621948, .60795368,  .32598152, .06064118, .00531762,
        .00179488, .03080520, .31493831, .65257481, .38560585,  .51116009, .09725734, .00588710,
    };
    enum { N = 4, EMBD = 6 };
    static float fn[24][N * EMBD];
    float base[24], scale[3] = { 0.5f, 0.8f, 1.5f };
    (void)state;
    struct tensor streams = f32(N * EMBD, 1), x = f32(EMBD, 1), gates = f32(24, 1);
    float *v = streams.data;
    double square = 0;
    for (int j = 0; j < N * EMBD; j++) {
        v[j] = (float)(j % 7) - 2.5f;
        square += (double)v[j] * v[j];
    }
    /* Only the first input counts, so that the projection is the given one. */
    double rms = sqrt(square / (N * EMBD) + 1e-6);
    memset(fn, 0, sizeof fn);
    for (int i = 0; i < 24; i++) {
        fn[i][0] = (float)(2 * sin(0.7 * i + 0.3) * rms / v[0]);
        base[i] = 0.1f * (float)(i % 5 - 2);
    }
    struct hc hc = { { fn, DT_F32, N * EMBD, 24, sizeof fn[0], NULL, 0 }, base, scale, N, 20,
                     1e-6f, 1e-6f };
    op_hc_mix(&dev, &x, &gates, &streams, &hc);
    for (int i = 0; i < 24; i++)
        near(tensor_f32(&gates, 0)[i], want[i], 2e-7);
    for (int e = 0; e < EMBD; e++) {
        double sum = 0;
        for (int k = 0; k < N; k++)
            sum += want[k] * v[k * EMBD + e];
        near(tensor_f32(&x, 0)[e], sum, 1e-5);
    }
    /* stream k gets what column k of C says. */
    float old[N * EMBD];
    memcpy(old, v, sizeof old);
    struct tensor y = f32(EMBD, 1);
    for (int e = 0; e < EMBD; e++)
        tensor_f32(&y, 0)[e] = (float)e;
    op_hc_spread(&dev, &streams, &y, &gates, &hc);
    for (int k = 0; k < N; k++)
        for (int e = 0; e < EMBD; e++) {
            double sum = want[4 + k] * e;
            for (int j = 0; j < N; j++)
                sum += want[8 + 4 * j + k] * old[j * EMBD + e];
            near(v[k * EMBD + e], sum, 2e-5);
        }
    assert_int_equal(dev.err.code, 0);
}

static void rotation(void **state)
{
    static const float freq[2] = { 1.0f, 0.25f };
    struct rope rope = { freq, 2 };
    float head[6] = { 7, 8, 1, 0, 0, 2 };
    (void)state;
    ref_rotate(head, 6, &rope, 3, false);
    assert_true(head[0] == 7 && head[1] == 8);
    near(head[2], cos(3), 1e-7);
    near(head[3], sin(3), 1e-7);
    near(head[4], -2 * sin(0.75), 1e-7);
    near(head[5], 2 * cos(0.75), 1e-7);
    ref_rotate(head, 6, &rope, 3, true);
    near(head[2], 1, 1e-6);
    near(head[3], 0, 1e-6);
    near(head[5], 2, 1e-6);
}

static void clamped_swiglu(void **state)
{
    (void)state;
    near(ref_swiglu_one(1, 2, 10), 2 / (1 + exp(-1)), 1e-7);
    near(ref_swiglu_one(50, 50, 10), 100 / (1 + exp(-10)), 1e-4); /* both at the clamp */
    near(ref_swiglu_one(1, -50, 10), -10 / (1 + exp(-1)), 1e-6);
    near(ref_swiglu_one(-50, 1, 10), -50 / (1 + exp(50)), 1e-25); /* the gate has no lower clamp */
    assert_true(isnan(ref_swiglu_one(NAN, 1, 10)));
}

static void routing(void **state)
{
    enum { N = 5, USED = 2 };
    const float bias[N] = { 0, 0, 5, 0, 0 };
    const struct router by_score = { NULL, NULL, 1, N, USED, 1.5f };
    const struct router biased = { bias, NULL, 1, N, USED, 1.5f };
    const int32_t table[2 * USED] = { 0, 1, 4, 3 };
    const struct router hashed = { NULL, table, 2, N, USED, 1 };
    struct row row = { 1, 0, 0, false };
    struct rows r = { 1, &row, 0, NULL };
    (void)state;
    struct tensor logits = f32(N, 1), id = dev_tensor(&dev, DT_I32, USED, 1);
    struct route out = { id, f32(USED, 1) };
    const float g[N] = { 1, -40, -1, 1, 0.5f };
    memcpy(logits.data, g, sizeof g);
    const int32_t *got = out.id.data;
    const float *weight = out.weight.data;

    op_route(&dev, &out, &logits, &by_score, &r); /* of equal scores the lower id */
    assert_true(got[0] == 0 && got[1] == 3);
    near(weight[0], 0.75, 1e-6);
    op_route(&dev, &out, &logits, &biased, &r); /* the bias chooses and does not weigh */
    assert_true(got[0] == 2 && got[1] == 0);
    double a = sqrt(log1p(exp(-1))), b = sqrt(log1p(exp(1)));
    near(weight[0], 1.5 * a / (a + b), 1e-6);
    op_route(&dev, &out, &logits, &hashed, &r); /* token 1: experts 4 and 3 */
    assert_true(got[0] == 4 && got[1] == 3);
    ((float *)logits.data)[4] = -40; /* softplus of -40 is e^-40, not 0 */
    op_route(&dev, &out, &logits, &hashed, &r);
    near(weight[0] / weight[1], exp(-20) / b, 1e-12);
}

/* One window-only layer, float32 rows: attention against its formula. */
static void attention_with_sink(void **state)
{
    enum { DIM = 4, CAP = 3 };
    float ring[CAP][DIM] = { { 1, 0, 0, 0 }, { 0, 1, 0, 0 }, { 0, 0, 2, 0 } };
    const struct kv_shape shape = { .head_dim = DIM, .rope_dim = 2, .row_bytes = sizeof ring[0],
                                    .window = 2, .ring_cap = CAP, .block_tok = 128 };
    struct kv_layer layer = { .ring = (uint8_t *)ring };
    struct kv_view view = { &shape, 1, &layer }, *views[1] = { &view };
    const float sink[1] = { 0.5f };
    const struct attention at = { 1, 0.5f, sink, false, NULL };
    struct row row = { 0, 2, 0, false }; /* sees positions 1 and 2, not 0 */
    struct rows r = { 1, &row, 1, views };
    (void)state;
    struct tensor q = f32(DIM, 1), out = f32(DIM, 1);
    const float query[DIM] = { 9, 2, 1, 3 };
    memcpy(q.data, query, sizeof query);
    op_attend(&dev, &out, &q, NULL, &at, &r, 0);
    double e1 = exp(1), e2 = exp(1), es = exp(0.5), sum = e1 + e2 + es;
    const float *o = out.data;
    assert_true(o[0] == 0 && o[3] == 0);
    near(o[1], e1 / sum, 1e-6);
    near(o[2], 2 * e2 / sum, 1e-6);
}

/* Ties are common, because of the ReLU: the lower row wins, and the picks ascend. */
static void pick_ties(void **state)
{
    enum { DIM = 2, ROWS = 8, TOP = 3 };
    float index[ROWS][DIM] = { { -1, 0 }, { 2, 0 }, { 0, 0 }, { 2, 0 },
                               { 5, 0 },  { 0, 0 }, { 2, 0 }, { -3, 0 } };
    uint8_t *block = (uint8_t *)index;
    const struct kv_shape shape = { .index_dim = DIM, .index_row_bytes = sizeof index[0],
                                    .block_tok = 4 * ROWS };
    struct kv_layer layer = { .ratio = 4, .index_block = &block };
    struct kv_view view = { &shape, 1, &layer }, *views[1] = { &view };
    const struct indexer ix = { 1, DIM, TOP, 1 };
    struct row row[2] = { { 0, 4 * ROWS - 1, 0, false }, { 0, 11, 0, false } };
    struct rows r = { 2, row, 1, views };
    (void)state;
    struct tensor q = f32(DIM, 2), w = f32(1, 2), picked = dev_tensor(&dev, DT_I32, TOP, 2);
    for (int i = 0; i < 2; i++) {
        tensor_f32(&q, i)[0] = 1;
        tensor_f32(&q, i)[1] = 0;
        tensor_f32(&w, i)[0] = 1;
    }
    op_pick(&dev, &picked, &q, &w, &ix, &r, 0);
    const int32_t *p = tensor_i32(&picked, 0);
    assert_true(p[0] == 1 && p[1] == 3 && p[2] == 4);
    p = tensor_i32(&picked, 1); /* three visible: all, without scoring */
    assert_true(p[0] == 0 && p[1] == 1 && p[2] == 2);
    tensor_f32(&w, 0)[0] = -1; /* negative weights: the zeros are best */
    op_pick(&dev, &picked, &q, &w, &ix, &r, 0);
    p = tensor_i32(&picked, 0);
    assert_true(p[0] == 0 && p[1] == 2 && p[2] == 5);
}

/* A failure names the layer and the rest of the step does nothing. */
static void failure_sticks(void **state)
{
    struct err e = { 0 };
    struct row row = { 9, 0, 0, true };
    struct rows r = { 1, &row, 0, NULL };
    (void)state;
    struct tensor table = f32(4, 3), x = f32(4, 1), y = f32(4, 1);
    memset(table.data, 0, 48);
    memset(y.data, 0x55, 16);
    dev.layer = 7;
    op_embed(&dev, &x, &table, &r);
    op_gather(&dev, &y, &x, &r);
    assert_true(((uint8_t *)y.data)[0] == 0x55);
    assert_int_equal(dev_wait(&dev, &e), ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "layer 7"));
    assert_non_null(strstr(e.text, "token 9"));
    dev_begin(&dev);
    assert_int_equal(dev_wait(&dev, &(struct err){ 0 }), 0);
    while (dev_alloc(&dev, 1 << 16))
        ;
    assert_int_equal(dev_wait(&dev, &(struct err){ 0 }), ERR_NO_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(hc_gates, begin),
        cmocka_unit_test_setup(rotation, begin),
        cmocka_unit_test_setup(clamped_swiglu, begin),
        cmocka_unit_test_setup(routing, begin),
        cmocka_unit_test_setup(attention_with_sink, begin),
        cmocka_unit_test_setup(pick_ties, begin),
        cmocka_unit_test_setup(failure_sticks, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
