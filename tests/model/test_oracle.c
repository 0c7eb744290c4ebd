/* test_oracle.c - the network against the vendor's own code, on every checkpoint at hand.
 *
 * plain: logits of the whole prompt, of chunks and token by token, on the scalar table and on the
 * fast one, which must agree with themselves bit for bit. qat: rounding makes the networks chaotic
 * (a value near a boundary falls to the other side), so each layer is compared from given streams,
 * and the whole as a divergence that is small beside the one that rounding itself makes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "net.h"

/* Largest difference of a logit: float32 sums in another order. */
#define LOGIT_TOLERANCE 1e-4
/* From given streams. A cached value that falls to the other side of a rounding boundary is seen by
 * every later row that attends to it: one in a window of 128 shows in up to 128 of truehead's 300
 * rows. Such rows are counted; they may be off by what one FP8 step of a value makes, and at least
 * half of the rows must see none. */
#define STREAM_TOLERANCE 1e-4
#define CROSSED_TOLERANCE 5e-3

static const char *const folders[] = { "nano", "truehead", "flashlike", "prolike" };

struct oracle {
    const char *name;
    char dir[512];
    int32_t *tok;
    int n_tok, n_vocab;
};

static const char *place(struct oracle *o, const char *name)
{
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", o->dir, name);
    return path;
}

/* The streams are in the repository for one folder; for another TESTDATA may have them. */
static const char *hidden_place(struct oracle *o)
{
    static char path[600];
    const char *more = getenv("DSTAR_TESTDATA"), *file = "hidden.qat.safetensors";
    snprintf(path, sizeof path, "%s", place(o, file));
    if (!file_exists(path) && more)
        snprintf(path, sizeof path, "%s/oracle/%s/%s", more, o->name, file);
    return path;
}

/* In the repository, or in the folder that TESTDATA names. */
static bool oracle_find(struct oracle *o, const char *name)
{
    const char *more = getenv("DSTAR_TESTDATA");
    o->name = name;
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

static void compare(const char *what, const float *got, const float *want, int rows, int n_vocab)
{
    int same = 0;
    double diff = net_max_difference(got, want, (size_t)rows * n_vocab);
    for (int i = 0; i < rows; i++)
        same += net_top(got + (size_t)i * n_vocab, n_vocab) ==
                net_top(want + (size_t)i * n_vocab, n_vocab);
    print_message("%s: largest difference %.2e, top-1 %d of %d\n", what, diff, same, rows);
    assert_true(diff <= LOGIT_TOLERANCE);
    assert_int_equal(same, rows);
}

static void check_plain(struct oracle *o, const char *device)
{
    struct net n;
    net_open(&n, o->dir, device, 0, o->n_tok);
    int v = model_info(n.model)->n_vocab, chunks[] = { o->n_tok, 64, 7, 1 };
    bool mtp = model_info(n.model)->has_mtp;
    size_t size = (size_t)o->n_tok * v;
    float *want = net_floats(place(o, "logits.plain.f32"), size);
    float *want_mtp = mtp ? net_floats(place(o, "mtp.plain.f32"), size) : NULL;
    float *whole = net_zero(size * 4), *draft = net_zero(size * 4);
    float *part = net_zero(size * 4), *part_draft = net_zero(size * 4);
    for (int c = 0; c < 4; c++) {
        float *to = c ? part : whole, *to_draft = c ? part_draft : draft;
        net_run(&n, o->tok, o->n_tok, chunks[c], to, mtp ? to_draft : NULL);
        assert_memory_equal(to, whole, size * 4);
        assert_memory_equal(to_draft, draft, size * 4);
    }
    compare(o->dir, whole, want, o->n_tok, v);
    if (mtp)
        compare("  draft block", draft, want_mtp, o->n_tok, v);
    free(want), free(want_mtp), free(whole), free(draft), free(part), free(part_draft);
    net_close(&n);
}

static void check_qat(struct oracle *o, const char *device)
{
    struct net n;
    net_open(&n, o->dir, device, 1, o->n_tok);
    int v = model_info(n.model)->n_vocab;
    size_t size = (size_t)o->n_tok * v;
    float *want = net_floats(place(o, "logits.qat.f32"), size);
    float *plain = net_floats(place(o, "logits.plain.f32"), size);
    float *got = net_zero(size * 4);
    net_run(&n, o->tok, o->n_tok, o->n_tok, got, NULL);
    double engine = net_kl(got, want, o->n_tok, v), rounding = net_kl(plain, want, o->n_tok, v);
    print_message("%s: KL to qat %.5f, of plain %.5f\n", o->dir, engine, rounding);
    assert_true(engine <= 0.1 * rounding);
    free(want), free(plain), free(got);
    net_close(&n);
}

/* Streams before and after layer l, all tokens at once: how many values are further off. */
static void check_layer(struct net *n, struct oracle *o, int l, const float *before,
                        const float *after)
{
    int cols = n->model->s.n_hc * n->model->s.n_embd, rows = o->n_tok, off = 0;
    struct rows r = { rows, n->row, 1, n->views };
    struct err e = { 0 };
    for (int i = 0; i < rows; i++)
        n->row[i] = (struct row){ o->tok[i], i, 0, true };
    dev_begin(n->dev);
    struct tensor x = dev_tensor(n->dev, DT_F32, cols, rows);
    memcpy(x.data, before, (size_t)rows * cols * sizeof *before);
    struct dsv4_flow f = dsv4_flow_into(n->model, &n->model->layer[l], &x);
    dsv4_layer_forward(n->model, &n->model->layer[l], l, NULL, &f, &r);
    net_must(dev_wait(n->dev, &e), &e);
    const float *got = x.data;
    double worst = 0;
    for (int i = 0; i < rows; i++) {
        double diff = net_max_difference(got + (size_t)i * cols, after + (size_t)i * cols,
                                         (size_t)cols);
        off += diff > STREAM_TOLERANCE;
        worst = fmax(worst, diff);
    }
    print_message("%s layer %d (ratio %d): %d of %d rows see a value across a rounding boundary, "
                  "off by at most %.2e\n",
                  o->dir, l, n->model->s.ratio[l], off, rows, worst);
    assert_true(off <= rows / 2);
    assert_true(worst <= CROSSED_TOLERANCE);
}

static void check_hidden(struct oracle *o, const char *device)
{
    struct net n;
    if (!file_exists(hidden_place(o)))
        return;
    net_open(&n, o->dir, device, 1, o->n_tok);
    int n_layer = n.model->s.n_layer;
    size_t size = (size_t)o->n_tok * n.model->s.n_hc * n.model->s.n_embd;
    float *all = net_floats(hidden_place(o), size * (size_t)(n_layer + 1));
    net_cache(&n, o->n_tok);
    for (int l = 0; l < n_layer; l++)
        check_layer(&n, o, l, all + size * l, all + size * (l + 1));
    net_cache_free(&n, o->n_tok);
    free(all);
    net_close(&n);
}

static void on_all(void (*check)(struct oracle *, const char *), const char *device)
{
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        struct oracle o = { 0 };
        if (!oracle_find(&o, folders[i]))
            continue;
        check(&o, device);
        free(o.tok);
    }
}

static void plain_scalar(void **state)
{
    (void)state;
    on_all(check_plain, "ref");
}

static void plain_cpu(void **state)
{
    (void)state;
    on_all(check_plain, "cpu exact");
}

static void qat_scalar(void **state)
{
    (void)state;
    on_all(check_qat, "ref");
}

static void qat_cpu(void **state)
{
    (void)state;
    on_all(check_qat, "cpu exact");
}

static void layers_scalar(void **state)
{
    (void)state;
    on_all(check_hidden, "ref");
}

static void layers_cpu(void **state)
{
    (void)state;
    on_all(check_hidden, "cpu exact");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_scalar), cmocka_unit_test(layers_scalar),
        cmocka_unit_test(qat_scalar),   cmocka_unit_test(plain_cpu),
        cmocka_unit_test(layers_cpu),   cmocka_unit_test(qat_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
