/* test_cuda_synth.c - random weights made in a GPU's memory: the bytes that the processor makes;
 * and a model of them says what the model that is stored says, bit for bit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "cuda_dev.h"
#include "dwarfstar.h"
#include "synth.h"

static const enum dtype types[] = { DT_Q8_0, DT_Q2_K, DT_Q4_K, DT_IQ2_XXS, DT_MXFP4,
                                    DT_FP4,  DT_F8_E4M3, DT_F32, DT_F16, DT_BF16 };

static void compare(struct dev *d, const struct quant_random *q, size_t n)
{
    struct err e = { 0 };
    size_t bytes = n * (q->type == DT_FP4 ? 16 : (size_t)dtype_info((int)q->type)->bytes);
    uint8_t *want = malloc(bytes), *got = malloc(bytes + 16);
    void *there;
    assert_non_null(want);
    assert_non_null(got);
    memset(got, 0x5a, bytes + 16);
    assert_int_equal(cuda_memory_new(d, &there, bytes + 16, &e), 0);
    dev_begin(d);
    dev_copy(d, there, got, bytes + 16);
    dev_random(d, q, 0, n, there);
    if (n > 8) /* from the middle on, once more */
        dev_random(d, q, n / 16 * 8, n - n / 16 * 8,
                   (uint8_t *)there + bytes / n * (n / 16 * 8));
    dev_copy(d, got, there, bytes + 16);
    assert_int_equal(dev_wait(d, &e), 0);
    quant_random(q, 0, n, want);
    if (memcmp(want, got, bytes) != 0)
        fail_msg("%s: other bytes", dtype_name((int)q->type));
    for (int i = 0; i < 16; i++)
        assert_int_equal(got[bytes + (size_t)i], 0x5a); /* and none behind them */
    cuda_memory_free(d, there);
    free(want);
    free(got);
}

static void bytes_are_the_same(void **state)
{
    (void)state;
    static const size_t n[] = { 1, 7, 256, 700 };
    struct backend_options o = { 0 };
    struct dev *d;
    struct err e = { 0 };
    assert_int_equal(cuda_open(&d, 0, &o, &e), 0);
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        for (size_t i = 0; i < COUNT_OF(n); i++) {
            struct quant_random q = { .type = types[t], .key = UINT64_C(0xfedcba9876543210) + i };
            for (q.shift = -20; q.shift <= 0; q.shift += 5)
                compare(d, &q, n[i]);
        }
    }
    struct quant_random norm = { .type = DT_F32, .key = 9, .around_one = true };
    compare(d, &norm, 700);
    cuda_close(d);
}

enum { N_TOK = 3 };

static int keep(void *user, int pos, const float *logits, const float *mtp)
{
    float **at = user;
    (void)mtp;
    memcpy(*at + (size_t)pos * 4096, logits, 4096 * sizeof *logits);
    return 0;
}

/* Logits of a few tokens. */
static float *run(const char *device, const char *recipe, bool counted)
{
    static const int32_t id[N_TOK] = { 5, 999, 77 };
    struct synth_options o = { .shape = "small", .recipe = recipe, .n_layer = 3, .n_expert = 48,
                               .tokenizer = "models/pebble/tokenizer.json", .seed = 3,
                               .counted = counted };
    struct dstar_options open;
    struct dstar_error error;
    struct file_memory m;
    struct err e = { 0 };
    dstar_engine *engine;
    if (synth_memory(&o, &m, &e) < 0)
        fail_msg("%s", e.text);
    dstar_options_init(&open);
    open.model = m.path;
    open.device = device;
    open.ctx = 512;
    if (dstar_open(&engine, &open, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(dstar_engine_info(engine)->n_vocab, 4096);
    float *logits = calloc(N_TOK * 4096, sizeof *logits);
    assert_non_null(logits);
    struct dstar_text_eval job = { id, N_TOK, 0, 0, keep, &logits };
    if (dstar_eval(engine, &job, &error) < 0)
        fail_msg("%s", error.text);
    dstar_close(engine);
    file_memory_close(&m);
    return logits;
}

static void models_are_the_same(void **state)
{
    static const char *const c[][2] = { { "cuda", "q2" }, { "cuda", "lossless" }, { "cpu", "q2" } };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        float *stored = run(c[i][0], c[i][1], false), *counted = run(c[i][0], c[i][1], true);
        assert_memory_equal(stored, counted, N_TOK * 4096 * sizeof *stored);
        assert_true(stored[0] != stored[1]);
        free(stored);
        free(counted);
    }
}

/* Reports come from one of the threads that load, of which a card has up to sixteen. */
#ifdef CUDA_ON_CARD
#define N_EXPERT 240
#else
#define N_EXPERT 48
#endif

struct seen {
    int n; /* reports on weights */
    double last, until;
    bool planned; /* what memory will be taken for was said */
};

static void hear(void *user, int level, const char *remark)
{
    struct seen *s = user;
    (void)level;
    s->planned |= strstr(remark, " of weights ") && strstr(remark, " stay free");
}

static int see(void *user, const char *what, double done)
{
    struct seen *s = user;
    if (strcmp(what, "weights") == 0 && done > .1) {
        s->n++;
        assert_true(done <= 1 && s->planned);
        s->last = done > s->last ? done : s->last;
    }
    return done > s->until;
}

/* Weights that are stored come in pieces, after the plan, seen and ended by whoever opens. */
static void loading_is_seen(void **state)
{
    (void)state;
    struct synth_options o = { .shape = "small", .recipe = "lossless", .n_expert = N_EXPERT,
                               .tokenizer = "models/pebble/tokenizer.json" };
    struct dstar_options open;
    struct dstar_error error;
    struct file_memory m;
    struct err e = { 0 };
    dstar_engine *engine = NULL;
    struct seen all = { .until = 2 }, half = { .until = .5 };
    if (synth_memory(&o, &m, &e) < 0)
        fail_msg("%s", e.text);
    dstar_options_init(&open);
    open.model = m.path;
    open.device = "cuda";
    open.ctx = 512;
    open.progress = see;
    open.progress_user = open.log_user = &half;
    open.log = hear;
    assert_int_equal(dstar_open(&engine, &open, &error), DSTAR_CANCELLED);
    assert_null(engine);
    open.progress_user = open.log_user = &all;
    if (dstar_open(&engine, &open, &error) < 0)
        fail_msg("%s", error.text);
    dstar_close(engine);
    file_memory_close(&m);
    assert_true(half.n >= 1 && all.n > 3 && half.last < all.last && all.last > .8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_same),
        cmocka_unit_test(models_are_the_same),
        cmocka_unit_test(loading_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
