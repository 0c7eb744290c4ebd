/* test_cuda_calibrate.c - calibrating on a GPU: what it adds up by itself is, bit for bit, what the
 * host adds up of all that it shows, and what the processor finds, as near as its numbers are;
 * going on after a stop; inputs that are no numbers; no room. In the emulator or on a GPU. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "unit/scratch_dir.h"

#include <math.h>

#include "collect_impl.h"
#include "deepseek4.h"
#include "measure.h"
#include "ops.h"

/* The archive's may be without CUDA. */
#ifndef HAVE_CUDA
#define HAVE_CUDA
#endif
#include "../../src/backend/backend.c"

#ifndef CUDA_ON_CARD
void emu_set_memory(size_t bytes);
#endif

static struct scratch dir;

/* A step of many rows, one of so few that other kernels take it; answers have steps of one. */
static const char texts[] = "{\"text\": \"an oak is a tree; a harbour is a place\"}\n"
                            "{\"text\": \"8 plus 6\"}\n";

static int make(void **state)
{
    (void)state;
    scratch_open(&dir);
    scratch_put(&dir, "a.jsonl", texts, strlen(texts));
    return 0;
}

static int drop(void **state)
{
    (void)state;
    scratch_close(&dir);
    return 0;
}

/* A file of the scratch folder; its name is valid until the eighth after it. */
static const char *in_dir(const char *name)
{
    static char path[8][600];
    static int next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], "%s", scratch_file(&dir, name));
    return path[next];
}

static dstar_engine *open_engine(const char *device, int max_rows, bool exact)
{
    dstar_engine *engine;
    struct dstar_options o;
    struct dstar_error error;
    dstar_options_init(&o);
    o.model = "models/pebble";
    o.device = device;
    o.ctx = 512;
    o.max_rows = max_rows;
    o.exact = exact;
    o.cache_simulation = exact ? 0 : -1; /* what is rounded may part where two nearly agree */
    if (dstar_open(&engine, &o, &error) < 0)
        fail_msg("%s", error.text);
    return engine;
}

/* shown: sums of products are wanted, too, so all rows come to the host. */
static int try_run(dstar_engine *engine, const char *out, bool shown, bool resume,
                   bool (*progress)(void *, double, int64_t), struct err *e)
{
    static const char *corpus[1];
    struct buf report;
    corpus[0] = in_dir("a.jsonl");
    struct calibrate_options job = { .corpus = corpus, .n_corpus = 1, .out = out, .sums = true,
                                     .piece = 16, .save_every = 1000, .answer = 1, .threads = 1,
                                     .resume = resume, .progress = progress,
                                     .hessian = shown ? in_dir("products.gguf") : NULL };
    buf_init(&report, 1 << 20);
    int code = calibrate_run(engine, &job, &report, e);
    buf_release(&report);
    return code;
}

static void run(dstar_engine *engine, const char *name, bool shown)
{
    struct err e = { 0 };
    if (try_run(engine, in_dir(name), shown, false, NULL, &e) < 0)
        fail_msg("%s", e.text);
}

static void same_files(const char *a, const char *b)
{
    struct buf x, y;
    buf_init(&x, 1 << 26);
    buf_init(&y, 1 << 26);
    assert_int_equal(file_read_all(&x, in_dir(a), NULL), 0);
    assert_int_equal(file_read_all(&y, in_dir(b), NULL), 0);
    assert_true(x.len > 0 && x.len == y.len);
    assert_memory_equal(x.data, y.data, x.len);
    buf_release(&x);
    buf_release(&y);
}

static void as_shown(void **state)
{
    (void)state;
    dstar_engine *engine = open_engine("cuda", 64, false);
    run(engine, "there.gguf", false);
    run(engine, "here.gguf", true);
    dstar_close(engine);
    same_files("there.gguf", "here.gguf");
}

static float number(const struct weight *w, size_t i)
{
    float x;
    memcpy(&x, w->data + 4 * i, 4);
    return x;
}

/* Counts are the same; so are sums but for what the inputs differ by: a share of the column's own
 * or, where that is nearly nothing, of a middling one. 8e-6 was found. */
#define NEAR 3e-5

static void compare(const struct weight *got, const struct weight *want)
{
    size_t n = want->bytes / 4;
    double middle = 0;
    assert_int_equal(got->bytes, want->bytes);
    for (size_t i = 0; i < n; i++)
        middle += fabs((double)number(want, i)) / (double)n;
    for (size_t i = 0; i < n; i++) {
        double x = (double)number(got, i), y = (double)number(want, i);
        double most = strstr(want->name, ".counts") ? 0 : NEAR * fmax(fabs(y), middle);
        if (!(fabs(x - y) <= most))
            fail_msg("%s %zu: %.9g, expected %.9g", want->name, i, x, y);
    }
}

static void as_the_processor(void **state)
{
    (void)state;
    struct weights *got, *want;
    for (int cuda = 0; cuda < 2; cuda++) {
        dstar_engine *engine = open_engine(cuda ? "cuda" : "cpu", 64, true);
        run(engine, cuda ? "cuda.gguf" : "cpu.gguf", false);
        dstar_close(engine);
    }
    assert_int_equal(weights_open(&got, in_dir("cuda.gguf"), NULL), 0);
    assert_int_equal(weights_open(&want, in_dir("cpu.gguf"), NULL), 0);
    assert_int_equal(weights_count(got), weights_count(want));
    for (int i = 0; i < weights_count(want); i++) {
        const struct weight *w = weights_at(want, i), *g = weights_find(got, w->name);
        assert_non_null(g);
        compare(g, w);
    }
    weights_close(got);
    weights_close(want);
}

static bool stop_now(void *user, double share, int64_t n_token)
{
    (void)user, (void)share, (void)n_token;
    return true;
}

static void goes_on(void **state)
{
    (void)state;
    struct err e = { 0 };
    dstar_engine *engine = open_engine("cuda", 64, false);
    run(engine, "whole.gguf", false);
    assert_int_equal(try_run(engine, in_dir("parts.gguf"), false, false, stop_now, &e),
                     ERR_CANCELLED);
    e = (struct err){ 0 };
    if (try_run(engine, in_dir("parts.gguf"), false, true, NULL, &e) < 0)
        fail_msg("%s", e.text);
    dstar_close(engine);
    same_files("whole.gguf", "parts.gguf");
}

/* A product with an input of which one element is no number. */
static void no_number(void **state)
{
    (void)state;
    struct collector *c;
    struct err e = { 0 };
    static float row[256];
    dstar_engine *engine = open_engine("cuda", 64, true);
    struct dev *d = engine_of(engine)->dev;
    const struct tensor *w = &engine_of(engine)->model->layer[3].q_b;
    row[200] = NAN;
    assert_true(w->cols == 256);
    assert_int_equal(collect_begin(&c, engine, &(struct collect_want){ .threads = 1 }, &e), 0);
    dev_begin(d);
    struct tensor x = dev_tensor(d, DT_F32, w->cols, 1), out = dev_tensor(d, DT_F32, w->rows, 1);
    dev_copy(d, x.data, row, sizeof row);
    op_matmul(d, &out, w, &x);
    assert_int_equal(dev_wait(d, &e), 0);
    assert_int_equal(collect_fetch(c, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "blk.3.attn_q_b.weight"));
    collect_end(c);
    e = (struct err){ 0 };
#ifndef CUDA_ON_CARD
    emu_set_memory(dev_memory_all(d) - dev_memory_left(d) + (1 << 20));
    assert_int_equal(collect_begin(&c, engine, &(struct collect_want){ .threads = 1 }, &e),
                     ERR_NO_MEMORY);
    assert_non_null(strstr(e.text, "its sums need"));
    emu_set_memory((size_t)4 << 30);
#endif
    dstar_close(engine);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_shown),
        cmocka_unit_test(as_the_processor),
        cmocka_unit_test(goes_on),
        cmocka_unit_test(no_number),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, make, drop);
}
