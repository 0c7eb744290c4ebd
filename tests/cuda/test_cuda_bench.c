/* test_cuda_bench.c - measuring on a GPU: times of ops that add up, routes from a file that the
 * route kernel reads, memory's speed, loading. In the emulator, or linked with the true objects
 * on a GPU. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "unit/scratch_dir.h"

#include "clock.h"
#include "dwarfstar.h"
#include "measure.h"
#include "synth.h"

#ifndef CUDA_ON_CARD
void emu_set_memory(size_t bytes);
#endif

#include <math.h>

enum { N_TOK = 4, N_VOCAB = 4096, N_LAYER = 4, N_EXPERT = 8, N_USED = 6, N_HASH = 3 };

struct bed {
    struct scratch dir;
    struct file_memory file;
    dstar_engine *engine;
    float logits[N_TOK * N_VOCAB];
};

static int make(void **state)
{
    struct bed *b = calloc(1, sizeof *b);
    struct synth_options o = { .shape = "small", .recipe = "q2", .seed = 1, .n_layer = N_LAYER,
                               .n_expert = N_EXPERT, .counted = true,
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
    open.device = "cuda";
    open.ctx = 1024;
    if (dstar_open(&b->engine, &open, &error) < 0)
        fail_msg("%s", error.text);
    *state = b;
    return 0;
}

static int drop(void **state)
{
    struct bed *b = *state;
    dstar_close(b->engine);
    file_memory_close(&b->file);
    scratch_close(&b->dir);
    free(b);
    return 0;
}

static int keep(void *user, int pos, const float *logits, const float *mtp)
{
    struct bed *b = user;
    (void)mtp;
    memcpy(b->logits + (size_t)pos * N_VOCAB, logits, N_VOCAB * sizeof *logits);
    return 0;
}

/* Its routes go to `path`. */
static void evaluate(struct bed *b, const char *path)
{
    static const int32_t id[N_TOK] = { 7, 1999, 23, 512 };
    struct dstar_error error;
    struct dstar_text_eval job = { id, N_TOK, 0, 0, keep, b };
    struct trace *t;
    struct err e = { 0 };
    assert_int_equal(trace_begin(&t, b->engine, &e), 0);
    if (dstar_eval(b->engine, &job, &error) < 0)
        fail_msg("%s", error.text);
    if (trace_write(t, path, false, &e) < 0)
        fail_msg("%s", e.text);
    trace_end(t);
}

static void routes_from_a_file(void **state)
{
    struct bed *b = *state;
    struct imposed *m;
    struct err e = { 0 };
    struct routes own, other;
    char path[512], seen[512];
    float *logits = malloc(sizeof b->logits);
    size_t row = (size_t)N_LAYER * N_USED;
    assert_non_null(logits);
    snprintf(path, sizeof path, "%s", scratch_file(&b->dir, "own.tr"));
    snprintf(seen, sizeof seen, "%s", scratch_file(&b->dir, "seen.tr"));
    evaluate(b, path);
    memcpy(logits, b->logits, sizeof b->logits);
    assert_int_equal(impose_begin(&m, b->engine, path, &e), 0);
    evaluate(b, seen);
    assert_memory_equal(b->logits, logits, sizeof b->logits);
    impose_end(m);
    assert_int_equal(routes_read(&own, path, N_EXPERT, &e), 0);

    uint8_t file[16 + 3 * N_LAYER * N_USED * 2] = { 3, 0, 0, 0, N_LAYER, 0, 0, 0, N_USED };
    for (int i = 0; i < 3 * N_LAYER * N_USED; i++) /* three tokens */
        file[16 + 2 * i] = (uint8_t)((i % N_USED + i / N_USED) % N_EXPERT);
    scratch_put(&b->dir, "other.tr", file, sizeof file);
    assert_int_equal(impose_begin(&m, b->engine, scratch_file(&b->dir, "other.tr"), &e), 0);
    evaluate(b, seen);
    assert_memory_not_equal(b->logits, logits, sizeof b->logits);
    impose_end(m);
    assert_int_equal(routes_read(&other, seen, N_EXPERT, &e), 0);
    for (int t = 0; t < N_TOK; t++)
        for (size_t k = 0; k < row; k++) {
            size_t i = (size_t)(t % 3) * row + k;
            int want = k < N_HASH * N_USED ? own.id[(size_t)t * row + k] : file[16 + 2 * i];
            assert_int_equal(other.id[(size_t)t * row + k], want);
        }
    evaluate(b, seen);
    assert_memory_equal(b->logits, logits, sizeof b->logits);
    routes_release(&own);
    routes_release(&other);
    free(logits);
}

static void check_kind(const struct layer_times *t, bool head)
{
    double sum = 0;
    for (int i = 0; i < t->n_op; i++) {
        bool product = strncmp(t->op[i].name, "matmul", 6) == 0 ||
                       strcmp(t->op[i].name, "experts") == 0;
        assert_true(t->op[i].in_layer_s > 0 && t->op[i].in_layer_s < 10);
        assert_true((t->op[i].alone_s > 0) == product);
        sum += t->op[i].in_layer_s;
    }
    assert_true(fabs(sum / t->s[0] - 1) < 1e-6); /* a layer is its ops, and nothing else */
    assert_true(head ? t->n_op < 10 : t->n_op > 15);
}

static void times_add_up(void **state)
{
    struct bed *b = *state;
    dstar_session *s;
    struct dstar_error error;
    struct err e = { 0 };
    struct layer_bench *l = calloc(1, sizeof *l);
    assert_non_null(l);
    assert_int_equal(dstar_session_new(&s, b->engine, &error), 0);
    for (int n = 1; n <= 9; n += 8) { /* one, and more than kernels for few take */
        *l = (struct layer_bench){ .n_tok = n, .at = 40, .repeat = 1 };
        if (measure_layers(l, s, &e) < 0)
            fail_msg("%s", e.text);
        for (int k = 0; k < N_LAYER_KIND; k++)
            check_kind(&l->kind[k], k == LAYER_HEAD);
    }
    dstar_session_free(s);
    free(l);
}

/* Steps that run again and again, plain and recorded: the card was at them, not all of the time. */
static void work_is_timed(void **state)
{
    struct bed *b = *state;
    static const int32_t id[N_TOK] = { 7, 1999, 23, 512 };
    struct dstar_error error;
    struct dstar_text_eval job = { id, N_TOK, 1, 0, keep, b };
    double before = 0;
    assert_true(measure_busy_s(b->engine) == 0);
    double start = clock_now_s();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dstar_eval(b->engine, &job, &error), 0);
        double busy = measure_busy_s(b->engine);
        assert_true(busy > before && busy < clock_now_s() - start);
        before = busy;
    }
}

static void speeds_are_measured(void **state)
{
    struct bed *b = *state;
    struct err e = { 0 };
    double bytes_per_s;
#ifndef CUDA_ON_CARD
    emu_set_memory((size_t)64 << 20);
#endif
    if (measure_memory(&bytes_per_s, b->engine, 1, &e) < 0)
        fail_msg("%s", e.text);
    assert_true(bytes_per_s > 1e8 && bytes_per_s < 1e14);
#ifdef CUDA_ON_CARD /* the emulator takes minutes */
    for (int i = 0; measure_kernel_type(i); i++) {
        struct kernel_bench k = { .type = i, .n_x = 1, .repeat = 3 };
        if (measure_kernel(&k, b->engine, &e) < 0)
            fail_msg("%s", e.text);
        assert_true(k.s[0] > 1e-7 && k.s[0] < 1e-2);
    }
#endif
}

/* What came there is the file but for its tokens and what the host keeps. */
static void loading_is_measured(void **state)
{
    struct bed *b = *state;
    struct synth_options o = { .out = scratch_file(&b->dir, "stored.gguf"), .shape = "small",
                               .recipe = "q2", .seed = 1, .n_layer = N_LAYER,
                               .n_expert = N_EXPERT, .tokenizer = "models/pebble/tokenizer.json" };
    struct dstar_options open;
    struct dstar_error error;
    struct err e = { 0 };
    struct file_in f;
    dstar_engine *engine;
    double read[2], bus;
    char path[512];
    snprintf(path, sizeof path, "%s", o.out);
    o.out = path;
    if (synth_run(&o, &e) < 0)
        fail_msg("%s", e.text);
    dstar_options_init(&open);
    open.model = path;
    open.ctx = 512;
    open.device = "cpu";
    assert_int_equal(dstar_open(&engine, &open, &error), 0);
    assert_true(measure_load(engine).bytes == 0 && measure_load(engine).s == 0);
    dstar_close(engine);
    open.device = "cuda";
    assert_int_equal(dstar_open(&engine, &open, &error), 0);
    struct load_times t = measure_load(engine);
    assert_int_equal(measure_bus(&bus, engine, &e), 0);
    dstar_close(engine);
    assert_int_equal(file_in_open(&f, path, &e), 0);
    assert_true(t.bytes > .9 * (double)f.size && t.bytes <= (double)f.size);
    file_in_close(&f);
    assert_true(t.s > 0 && t.s < t.open_s);
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            assert_int_equal(measure_forget_files(path, &e), 0);
        assert_int_equal(measure_files(&read[i], path, &e), 0);
    }
    assert_true(bus > 1e7 && bus < 1e13 && read[0] > 1e5 && read[1] > 1e7 && read[1] < 1e13);
    assert_int_equal(measure_files(&read[0], "no such file", &e), ERR_IO);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_from_a_file),
        cmocka_unit_test(times_add_up),
        cmocka_unit_test(loading_is_measured),
        cmocka_unit_test(work_is_timed),
        cmocka_unit_test(speeds_are_measured),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, make, drop);
}
