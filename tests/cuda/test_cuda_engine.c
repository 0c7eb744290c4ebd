/* test_cuda_engine.c - the whole engine on the CUDA device, in the emulator: the bundled model,
 * read in a step of many rows and in steps of one, must say what it says on the processor; a
 * conversation that was saved and loaded, or cut, goes on with the same bits; layers can be
 * measured; what does not fit is refused. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "unit/scratch_dir.h"

#include "dwarfstar.h"
#include "measure.h"

#define MAX_KL 1e-4 /* nats, mean of the tokens */
#define MARGIN .05 /* of log probabilities, above which the best token must be the same */

#define STEPS 12

static const char text[] = "A dwarf star is small and dim; most of the stars near the Sun are ";

static struct dstar_error error;

static dstar_engine *open_on(const char *device, int exact)
{
    struct dstar_options o;
    char path[512];
    dstar_engine *engine = NULL;
    snprintf(path, sizeof path, "%s/pebble.gguf", getenv("DSTAR_BUILD"));
    dstar_options_init(&o);
    o.model = path;
    o.device = device;
    o.exact = exact;
    o.ctx = 512;
    if (dstar_open(&engine, &o, &error) < 0)
        fail_msg("%s", error.text);
    return engine;
}

static float *log_probs(const dstar_session *s, int n)
{
    const float *x = dstar_logits(s);
    float *p = malloc((size_t)n * sizeof *p);
    assert_non_null(x);
    assert_non_null(p);
    for (int i = 0; i < n; i++)
        p[i] = dstar_logprob(x, n, i);
    return p;
}

/* Nats between what two say of the next token. */
static double apart(const dstar_session *a, const dstar_session *b, int n)
{
    float *p = log_probs(a, n), *q = log_probs(b, n);
    double kl = 0;
    for (int i = 0; i < n; i++)
        kl += exp((double)p[i]) * ((double)p[i] - (double)q[i]);
    free(p);
    free(q);
    return kl;
}

/* Where the first is sure of the best token, the second must name it too. */
static void same_best(const dstar_session *a, const dstar_session *b, int n)
{
    struct dstar_candidate p[2], q;
    dstar_top(dstar_logits(a), n, p, 2);
    dstar_top(dstar_logits(b), n, &q, 1);
    if (p[0].logprob - p[1].logprob > (float)MARGIN)
        assert_int_equal(p[0].id, q.id);
}

static void compute(dstar_session *s)
{
    while (!dstar_logits(s))
        if (dstar_session_step(s, &error) < 0)
            fail_msg("%s", error.text);
}

/* Three engines read one text: mean distances of the others from the first, and whether they are
 * sure of the same tokens, unless `chaos`. */
static void read_together(dstar_engine *e[3], double far[3], bool chaos)
{
    dstar_session *s[3];
    struct dstar_tokens t = { 0 };
    int n_vocab = dstar_engine_info(e[0])->n_vocab;
    assert_int_equal(dstar_tokenise(e[0], text, strlen(text), 0, &t, &error), 0);
    assert_true(t.n > 9);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(dstar_session_new(&s[i], e[i], &error), 0);
        assert_int_equal(dstar_session_set(s[i], t.id, t.n, &error), 0);
    }
    for (int k = 0; k <= STEPS; k++) {
        for (int i = 0; i < 3; i++) {
            if (k > 0)
                assert_int_equal(dstar_session_append(s[i], t.id + k, 1, &error), 0);
            compute(s[i]);
            far[i] += apart(s[0], s[i], n_vocab) / (STEPS + 1);
            if (!chaos)
                same_best(s[0], s[i], n_vocab);
        }
    }
    dstar_tokens_release(&t);
    for (int i = 0; i < 3; i++) {
        dstar_session_free(s[i]);
        dstar_close(e[i]);
    }
}

static void says_the_same(void **state)
{
    (void)state;
    dstar_engine *e[3] = { open_on("cpu", 1), open_on("cuda", 1), open_on("ref", 1) };
    double far[3] = { 0 };
    read_together(e, far, false);
    print_message("exact: %.2g nats apart; the definition %.2g\n", far[1], far[2]);
    assert_true(far[1] <= MAX_KL);
}

/* A sum in another order moves some activation across the border between two of its 255 steps, that
 * moves others, and in the end they are rounded independently: two devices are then as far from
 * each other as from exact activations, and to be as near to those is what can be demanded. */
static void rounds_as_well(void **state)
{
    (void)state;
    dstar_engine *e[3] = { open_on("cpu", 1), open_on("cuda", 0), open_on("cpu", 0) };
    double far[3] = { 0 };
    read_together(e, far, true);
    print_message("rounded: %.2g nats from exact, the processor %.2g\n", far[1], far[2]);
    assert_true(far[1] <= 2 * far[2] + MAX_KL);
}

static void goes_on_when_loaded(void **state)
{
    (void)state;
    dstar_engine *e = open_on("cuda", 0);
    dstar_session *s, *again;
    struct dstar_tokens t = { 0 };
    char path[] = "/tmp/dstar-cuda-XXXXXX";
    int fd = mkstemp(path), n_vocab = dstar_engine_info(e)->n_vocab;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(dstar_tokenise(e, text, strlen(text), 0, &t, &error), 0);
    assert_int_equal(dstar_session_new(&s, e, &error), 0);
    assert_int_equal(dstar_session_set(s, t.id, t.n, &error), 0);
    compute(s);
    assert_int_equal(dstar_session_save(s, path, &error), 0);
    assert_int_equal(dstar_session_append(s, t.id, 1, &error), 0);
    compute(s);
    float *want = log_probs(s, n_vocab);
    dstar_session_free(s);
    assert_int_equal(dstar_session_new(&again, e, &error), 0);
    assert_int_equal(dstar_session_load(again, path, &error), 0);
    assert_int_equal(dstar_session_append(again, t.id, 1, &error), 0);
    compute(again);
    float *got = log_probs(again, n_vocab);
    assert_memory_equal(got, want, (size_t)n_vocab * sizeof *got);
    free(got);
    free(want);
    remove(path);
    dstar_tokens_release(&t);
    dstar_session_free(again);
    dstar_close(e);
}

/* Back behind more tokens than the slack, to the mark at the end of the text. */
static void goes_on_when_cut(void **state)
{
    (void)state;
    dstar_engine *e = open_on("cuda", 0);
    dstar_session *s;
    struct dstar_tokens t = { 0 };
    int n_vocab = dstar_engine_info(e)->n_vocab;
    assert_int_equal(dstar_tokenise(e, text, strlen(text), 0, &t, &error), 0);
    assert_int_equal(dstar_session_new(&s, e, &error), 0);
    assert_int_equal(dstar_session_set(s, t.id, t.n - 1, &error), 0);
    compute(s);
    assert_int_equal(dstar_session_append(s, t.id + t.n - 1, 1, &error), 0);
    compute(s);
    float *want = log_probs(s, n_vocab);
    for (int i = 0; i < 3; i++)
        assert_int_equal(dstar_session_append(s, t.id, t.n, &error), 0);
    compute(s);
    assert_int_equal(dstar_session_set(s, t.id, t.n, &error), 0);
    compute(s);
    float *got = log_probs(s, n_vocab);
    assert_memory_equal(got, want, (size_t)n_vocab * sizeof *got);
    free(got);
    free(want);
    dstar_tokens_release(&t);
    dstar_session_free(s);
    dstar_close(e);
}

static void measures_layers(void **state)
{
    (void)state;
    dstar_engine *e = open_on("cuda", 0);
    dstar_session *s;
    struct err why = { 0 };
    static struct layer_bench b;
    b.n_tok = 2;
    b.at = 200;
    b.repeat = 1;
    assert_int_equal(dstar_session_new(&s, e, &error), 0);
    if (measure_layers(&b, s, &why) < 0)
        fail_msg("%s", why.text);
    assert_true(b.kind[LAYER_SPARSE].n_op > 20 && b.kind[LAYER_SPARSE].alone_s > 0);
    dstar_session_free(s);
    dstar_close(e);
}

#ifndef CUDA_ON_CARD
void emu_set_memory(size_t bytes);
void emu_set_no_driver(bool none);

static void does_not_fit(void **state)
{
    (void)state;
    struct dstar_options o;
    char path[512];
    dstar_engine *engine = NULL;
    snprintf(path, sizeof path, "%s/pebble.gguf", getenv("DSTAR_BUILD"));
    dstar_options_init(&o);
    o.model = path;
    o.device = "cuda";
    emu_set_memory(1 << 20);
    assert_int_equal(dstar_open(&engine, &o, &error), DSTAR_NO_MEMORY);
    assert_non_null(strstr(error.text, "GB left"));
    emu_set_memory((size_t)4 << 30);
}

static char remarks[4096];

static void remark(void *user, int level, const char *remark_text)
{
    size_t n = strlen(remarks);
    (void)user;
    (void)level;
    snprintf(remarks + n, sizeof remarks - n, "%s\n", remark_text);
}

/* What is chosen for the model and what is said of it. */
static void chooses(struct dstar_options *o, const char *device, const char *why)
{
    dstar_engine *e = NULL;
    remarks[0] = 0;
    if (dstar_open(&e, o, &error) < 0)
        fail_msg("%s", error.text);
    const char *is = dstar_engine_info(e)->device;
    if (strncmp(is, device, strlen(device)) != 0 || !strstr(remarks, why))
        fail_msg("expected %s: %s; it is %s, and was said:\n%s", device, why, is, remarks);
    dstar_close(e);
}

/* A hole behind the bundled model makes it as large as one that is worth a GPU. */
static void chooses_itself(void **state)
{
    (void)state;
    struct dstar_options o;
    struct scratch dir;
    char command[1200], small[512];
    scratch_open(&dir);
    snprintf(small, sizeof small, "%s/pebble.gguf", getenv("DSTAR_BUILD"));
    snprintf(command, sizeof command, "cp '%s' '%s'", small, scratch_file(&dir, "large.gguf"));
    assert_int_equal(system(command), 0);
    assert_int_equal(truncate(scratch_file(&dir, "large.gguf"), (off_t)1 << 30), 0);
    dstar_options_init(&o);
    o.log = remark;
    o.ctx = 512;
    o.model = small;
    chooses(&o, "cpu", "device auto: the processor: the model is small");
    o.model = scratch_file(&dir, "large.gguf");
    chooses(&o, "cuda", "device auto: emulated GPU");
    o.device = "auto";
    chooses(&o, "cuda", "device auto: emulated GPU");
    emu_set_memory(1 << 20);
    chooses(&o, "cpu", "device auto: the processor: ");
    assert_non_null(strstr(remarks, "device cuda has 0.00 GB left"));
    emu_set_memory((size_t)20 << 20); /* for the weights, but not for so many conversations */
    o.sessions = 8;
    chooses(&o, "cpu", "device auto: the processor: ");
    assert_non_null(strstr(remarks, "MiB of memory for 512 tokens"));
    o.sessions = 1;
    emu_set_memory((size_t)4 << 30);
    o.cpu = "scalar";
    chooses(&o, "cpu", "device auto: the processor: an instruction set was asked for");
    o.cpu = NULL;
    emu_set_no_driver(true);
    chooses(&o, "cpu", "device auto: the processor: device cuda: no GPU can be used: no NVIDIA");
    o.device = "cuda";
    dstar_engine *none = NULL;
    assert_int_equal(dstar_open(&none, &o, &error), DSTAR_UNSUPPORTED);
    emu_set_no_driver(false);
    scratch_close(&dir);
}
#endif

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_the_same),
        cmocka_unit_test(rounds_as_well),
        cmocka_unit_test(goes_on_when_loaded),
        cmocka_unit_test(goes_on_when_cut),
        cmocka_unit_test(measures_layers),
#ifndef CUDA_ON_CARD
        cmocka_unit_test(does_not_fit),
        cmocka_unit_test(chooses_itself),
#endif
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
