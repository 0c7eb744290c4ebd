/* test_cuda_oracle.c - the network on a GPU against the vendor's own code: the checkpoints of
 * tests/model/test_oracle.c, whole, in chunks and token by token. In the emulator the smallest one
 * and two chunks of it; linked with the true objects all that are at hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dwarfstar.h"
#include "net.h"

#ifndef CUDA_ON_CARD
static const char *const folders[] = { "nano" };
static const int chunks[] = { 700, 7 };
#else
static const char *const folders[] = { "nano", "truehead", "flashlike", "prolike" };
static const int chunks[] = { 700, 64, 7, 1 };
#endif

#define LOGIT_TOLERANCE 1e-4 /* as on the processor: float32 sums in another order */

struct oracle {
    char dir[512];
    int32_t *tok;
    float *logits, *mtp;
    int n_tok, n_vocab;
};

static const char *place(const struct oracle *o, const char *name)
{
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", o->dir, name);
    return path;
}

/* In the repository, or in the folder that TESTDATA names. */
static bool find(struct oracle *o, const char *name)
{
    const char *more = getenv("DSTAR_TESTDATA");
    *o = (struct oracle){ 0 };
    snprintf(o->dir, sizeof o->dir, "tests/data/oracle/%s", name);
    if (!file_exists(place(o, "tokens.json")) && more)
        snprintf(o->dir, sizeof o->dir, "%s/oracle/%s", more, name);
    if (!file_exists(place(o, "tokens.json"))) {
        print_message("%s: not here; TESTDATA may name a folder with oracle/%s\n", name, name);
        return false;
    }
    o->tok = net_tokens(place(o, "tokens.json"), &o->n_tok);
    return true;
}

static void drop(struct oracle *o)
{
    free(o->tok);
    free(o->logits);
    free(o->mtp);
}

static dstar_engine *open_on_gpu(struct oracle *o, int simulate)
{
    struct dstar_options open;
    struct dstar_error error;
    dstar_engine *engine;
    dstar_options_init(&open);
    open.model = o->dir;
    open.device = "cuda";
    open.exact = 1;
    open.cache_simulation = simulate;
    open.mtp = 1;
    open.ctx = 1024;
    open.max_rows = 700;
    if (dstar_open(&engine, &open, &error) < 0)
        fail_msg("%s", error.text);
    o->n_vocab = dstar_engine_info(engine)->n_vocab;
    size_t bytes = (size_t)o->n_tok * (size_t)o->n_vocab * sizeof(float);
    o->logits = net_zero(bytes);
    o->mtp = net_zero(bytes);
    return engine;
}

static int keep(void *user, int pos, const float *logits, const float *mtp)
{
    struct oracle *o = user;
    size_t n = (size_t)o->n_vocab;
    memcpy(o->logits + (size_t)pos * n, logits, n * sizeof *logits);
    if (mtp)
        memcpy(o->mtp + (size_t)pos * n, mtp, n * sizeof *mtp);
    return 0;
}

static void evaluate(struct oracle *o, dstar_engine *engine, int chunk, int mtp)
{
    struct dstar_error error;
    struct dstar_text_eval job = { o->tok, o->n_tok, chunk, mtp, keep, o };
    if (dstar_eval(engine, &job, &error) < 0)
        fail_msg("%s", error.text);
}

static void compare(const char *what, const struct oracle *o, const float *got, const float *want)
{
    size_t n = (size_t)o->n_vocab;
    int same = 0;
    double diff = net_max_difference(got, want, (size_t)o->n_tok * n);
    for (int i = 0; i < o->n_tok; i++)
        same += net_top(got + (size_t)i * n, o->n_vocab) ==
                net_top(want + (size_t)i * n, o->n_vocab);
    print_message("%s: largest difference %.2e, top-1 %d of %d\n", what, diff, same, o->n_tok);
    assert_true(diff <= LOGIT_TOLERANCE);
    assert_int_equal(same, o->n_tok);
}

static void check_plain(struct oracle *o)
{
    dstar_engine *engine = open_on_gpu(o, 0);
    size_t n = (size_t)o->n_tok * (size_t)o->n_vocab;
    int mtp = dstar_engine_info(engine)->has_mtp;
    float *want = net_floats(place(o, "logits.plain.f32"), n);
    float *draft = mtp ? net_floats(place(o, "mtp.plain.f32"), n) : NULL;
    for (size_t c = 0; c < COUNT_OF(chunks); c++) {
        memset(o->logits, 0, n * sizeof *o->logits);
        evaluate(o, engine, chunks[c], mtp);
        compare(o->dir, o, o->logits, want);
        if (mtp)
            compare("  draft block", o, o->mtp, draft);
    }
    free(want);
    free(draft);
    dstar_close(engine);
}

/* Rounding to the cache's types makes the networks chaotic: a divergence that is small beside the
 * one that rounding itself makes. */
static void check_qat(struct oracle *o)
{
    dstar_engine *engine = open_on_gpu(o, 1);
    size_t n = (size_t)o->n_tok * (size_t)o->n_vocab;
    float *want = net_floats(place(o, "logits.qat.f32"), n);
    float *plain = net_floats(place(o, "logits.plain.f32"), n);
    evaluate(o, engine, 700, 0);
    double far = net_kl(o->logits, want, o->n_tok, o->n_vocab);
    double rounding = net_kl(plain, want, o->n_tok, o->n_vocab);
    print_message("%s: KL to qat %.5f, of plain %.5f\n", o->dir, far, rounding);
    assert_true(far <= .1 * rounding);
    free(want);
    free(plain);
    dstar_close(engine);
}

static void on_all(void (*check)(struct oracle *))
{
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        struct oracle o;
        if (find(&o, folders[i])) {
            check(&o);
            drop(&o);
        }
    }
}

static void plain(void **state)
{
    (void)state;
    on_all(check_plain);
}

static void qat(void **state)
{
    (void)state;
    on_all(check_qat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(qat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
