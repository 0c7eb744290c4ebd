/* test_bench.c - what measuring relies on: models in memory, routes from a file, drawn caches, and
 * times that add up. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "unit/scratch_dir.h"

#include "dwarfstar.h"
#include "measure.h"
#include "synth.h"

#include <math.h>

enum { N_TOK = 40, N_VOCAB = 4096 };

struct bed {
    struct scratch dir;
    struct file_memory file;
    dstar_engine *engine;
    float *logits;
    int n;
};

static int make(void **state)
{
    struct bed *b = calloc(1, sizeof *b);
    struct synth_options o = { .shape = "small", .recipe = "q2", .seed = 1,
                               .tokenizer = "models/pebble/tokenizer.json" };
    struct dstar_options open;
    struct dstar_error error;
    struct err e = { 0 };
    assert_non_null(b);
    scratch_open(&b->dir);
    if (synth_memory(&o, &b->file, &e) < 0)
        fail_msg("%s", e.text);
    dstar_options_init(&open);
    open.model = b->file.path;
    open.ctx = 5000;
    open.threads = 2;
    if (dstar_open(&b->engine, &open, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(dstar_engine_info(b->engine)->n_vocab, N_VOCAB);
    b->logits = malloc(N_TOK * N_VOCAB * sizeof *b->logits);
    assert_non_null(b->logits);
    *state = b;
    return 0;
}

static int drop(void **state)
{
    struct bed *b = *state;
    dstar_close(b->engine);
    file_memory_close(&b->file);
    scratch_close(&b->dir);
    free(b->logits);
    free(b);
    return 0;
}

static int keep(void *user, int pos, const float *logits, const float *mtp)
{
    struct bed *b = user;
    (void)mtp;
    memcpy(b->logits + (size_t)pos * N_VOCAB, logits, N_VOCAB * sizeof *logits);
    b->n++;
    return 0;
}

static void evaluate(struct bed *b)
{
    int32_t id[N_TOK];
    struct dstar_error error;
    for (int i = 0; i < N_TOK; i++)
        id[i] = (i * 7919 + 13) % N_VOCAB;
    struct dstar_text_eval job = { id, N_TOK, 0, 0, keep, b };
    b->n = 0;
    if (dstar_eval(b->engine, &job, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(b->n, N_TOK);
}

/* With the model's own routes nothing changes; with others everything does, and nothing lasts. */
static void routes_from_a_file(void **state)
{
    struct bed *b = *state;
    struct trace *t;
    struct imposed *m;
    struct err e = { 0 };
    size_t n = N_TOK * N_VOCAB * sizeof(float);
    char path[512];
    snprintf(path, sizeof path, "%s", scratch_file(&b->dir, "own.tr"));
    assert_int_equal(trace_begin(&t, b->engine, &e), 0);
    evaluate(b);
    assert_int_equal(trace_write(t, path, false, &e), 0);
    trace_end(t);
    float *own = malloc(n);
    assert_non_null(own);
    memcpy(own, b->logits, n);
    if (impose_begin(&m, b->engine, path, &e) < 0)
        fail_msg("%s", e.text);
    evaluate(b);
    assert_memory_equal(b->logits, own, n);
    impose_end(m);

    uint8_t other[16 + 6 * 6 * 2] = { 1, 0, 0, 0, 6, 0, 0, 0, 6 }; /* one token, six layers */
    for (int i = 0; i < 36; i++)
        other[16 + 2 * i] = (uint8_t)(10 + i % 6);
    scratch_put(&b->dir, "other.tr", other, sizeof other);
    assert_int_equal(impose_begin(&m, b->engine, scratch_file(&b->dir, "other.tr"), &e), 0);
    evaluate(b);
    assert_memory_not_equal(b->logits, own, n);
    impose_end(m);
    evaluate(b);
    assert_memory_equal(b->logits, own, n);
    free(own);
}

static void routes_of_another_shape(void **state)
{
    struct bed *b = *state;
    struct imposed *m;
    struct err e = { 0 };
    uint8_t few[16 + 2 * 6 * 2] = { 1, 0, 0, 0, 2, 0, 0, 0, 6 };
    for (int i = 0; i < 12; i++)
        few[16 + 2 * i] = (uint8_t)(i % 6);
    scratch_put(&b->dir, "few.tr", few, sizeof few);
    assert_int_equal(impose_begin(&m, b->engine, scratch_file(&b->dir, "few.tr"), &e),
                     ERR_MISMATCH);
    assert_null(m);
    e = (struct err){ 0 };
    few[16] = 16; /* there are experts 0 to 15 */
    scratch_put(&b->dir, "few.tr", few, sizeof few);
    assert_int_equal(impose_begin(&m, b->engine, scratch_file(&b->dir, "few.tr"), &e),
                     ERR_FORMAT);
}

/* A conversation can go on behind a drawn past, and looks at it. */
static void drawn_caches(void **state)
{
    struct bed *b = *state;
    dstar_session *s;
    struct dstar_error error;
    struct err e = { 0 };
    int32_t id[2][10], first[10];
    assert_int_equal(dstar_session_new(&s, b->engine, &error), 0);
    for (int k = 0; k < 4; k++) {
        int32_t *out = id[k % 2];
        assert_int_equal(measure_fill_cache(s, 4000, (uint64_t)(k / 2), &e), 0);
        int n, n_computed;
        dstar_session_tokens(s, &n, &n_computed);
        assert_int_equal(n, 4000);
        assert_int_equal(n_computed, 4000);
        assert_int_equal(dstar_session_append(s, &(int32_t){ 77 }, 1, &error), 0);
        for (int i = 0; i < 10; i++) {
            struct dstar_sampling greedy;
            dstar_sampling_init(&greedy);
            greedy.temperature = 0;
            assert_int_equal(dstar_session_sampling(s, &greedy, &error), 0);
            while (dstar_session_step(s, &error) > 0)
                continue;
            assert_int_equal(dstar_sample(s, &out[i], &error), 0);
            assert_int_equal(dstar_session_append(s, &out[i], 1, &error), 0);
        }
        if (k == 1) {
            assert_memory_equal(id[0], id[1], sizeof id[0]);
            memcpy(first, id[0], sizeof first);
        }
    }
    assert_memory_equal(id[0], id[1], sizeof id[0]);
    assert_memory_not_equal(first, id[0], sizeof first);
    assert_int_equal(measure_fill_cache(s, 5001, 1, &e), ERR_LIMIT);
    dstar_session_free(s);
}

static void times_add_up(void **state)
{
    struct bed *b = *state;
    static const int n_layer[N_LAYER_KIND] = { 2, 2, 2, 1 };
    dstar_session *s;
    struct dstar_error error;
    struct err e = { 0 };
    struct layer_bench *l = calloc(1, sizeof *l);
    assert_non_null(l);
    assert_int_equal(dstar_session_new(&s, b->engine, &error), 0);
    *l = (struct layer_bench){ .n_tok = 1, .at = 4000, .repeat = 3 };
    if (measure_layers(l, s, &e) < 0)
        fail_msg("%s", e.text);
    for (int k = 0; k < N_LAYER_KIND; k++) {
        const struct layer_times *t = &l->kind[k];
        assert_int_equal(t->n_layer, n_layer[k]);
        double sum = 0, bytes = 0, least = INFINITY;
        bool attends = false, experts = false;
        for (int i = 0; i < t->n_op; i++) {
            bool product = strncmp(t->op[i].name, "matmul", 6) == 0 ||
                           strcmp(t->op[i].name, "experts") == 0;
            assert_true(t->op[i].in_layer_s > 0 && t->op[i].in_layer_s < 1);
            assert_true((t->op[i].alone_s > 0) == product);
            sum += t->op[i].in_layer_s;
            bytes += t->op[i].bytes;
            attends = attends || strcmp(t->op[i].name, "attend") == 0;
            experts = experts || strcmp(t->op[i].name, "experts") == 0;
        }
        for (int i = 0; i < 3; i++)
            least = fmin(least, t->s[i]);
        assert_true(sum > 0 && least > 0);
        assert_true(fabs(bytes / t->bytes - 1) < 1e-9);
        assert_int_equal(attends, k != LAYER_HEAD);
        assert_int_equal(experts, k != LAYER_HEAD);
    }
    for (int i = 0; i < 3; i++)
        assert_true(l->step_s[i] > 0 && l->step_s[i] < 1);
    /* six experts of 442,368 bytes (IQ2_XXS, Q2_K), a layer's shared expert and attention beside */
    double bytes = l->kind[LAYER_WINDOW].bytes;
    assert_true(bytes > 6 * 442368 && bytes < 6 * 442368 + 4e6);
    /* the window, and of 1000 blocks of 4 index rows all and 32 picked */
    assert_true(l->kind[LAYER_SPARSE].cache_bytes > l->kind[LAYER_HEAVY].cache_bytes);
    l->n_tok = 100000;
    assert_int_equal(measure_layers(l, s, &e), ERR_LIMIT);
    dstar_session_free(s);
    free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_from_a_file), cmocka_unit_test(routes_of_another_shape),
        cmocka_unit_test(drawn_caches),       cmocka_unit_test(times_add_up),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
