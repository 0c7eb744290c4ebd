/* test_quantize_feedback.c - error feedback in whole files: what is gained, what held-out tokens
 * decide, the same bytes however the work was done, and what is refused. */
#include "unit/quantize_pebble.h"

#include <math.h>

#include "hessian.h"
#include "rng.h"

/* Up reads the inputs of gate. */
#define FED                               \
    "blk.2.ffn_gate_exps.weight IQ2_XXS\n" \
    "blk.3.ffn_up_exps.weight Q2_K\n"     \
    "blk.4.ffn_down_exps.weight Q2_K\n"   \
    "* keep\n"

static struct imatrix_part fed_part[3] = {
    { "blk.2.ffn_gate_exps.weight", COLS, EXPERTS, imp_mean, imp_count, NULL },
    { "blk.3.ffn_up_exps.weight", COLS, EXPERTS, imp_mean, imp_count, NULL },
    { "blk.4.ffn_down_exps.weight", COLS, EXPERTS, imp_mean, imp_count, NULL },
};

static double learn[COLS][COLS], held[COLS][COLS];

/* Columns in a chain, neighbours far apart in the file, each at its own size. */
static void fill(double sum[COLS][COLS], double c, double n_token)
{
    for (int i = 0; i < COLS; i++) {
        for (int j = 0; j < COLS; j++)
            sum[i][j] = n_token * pow(c, abs(i * 37 % COLS - j * 37 % COLS)) * (1 + i % 5) *
                        (1 + j % 5);
    }
}

static const char *put_hessian_for(const char *file, const char *gate, const char *down, int n,
                                   bool with_held)
{
    struct hessian_writer w;
    struct hessian_sums a = { &learn[0][0], COLS, 9000 }, b = { &held[0][0], COLS, 1000 };
    struct err e = { 0 };
    static char paths[2][600];
    char *path = paths[strcmp(file, "other.gguf") == 0];
    snprintf(path, sizeof paths[0], "%s", scratch_file(&dir, file));
    assert_int_equal(hessian_write_open(&w, path, &e), 0);
    assert_int_equal(hessian_write_add(&w, gate, n, with_held, &e), 0);
    assert_int_equal(hessian_write_add(&w, down, n, with_held, &e), 1);
    assert_int_equal(hessian_write_begin(&w, &e), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(hessian_write_put(&w, i, &a, with_held ? &b : NULL, &e), 0);
    assert_int_equal(hessian_write_finish(&w, &e), 0);
    return path;
}

static const char *put_hessian(const char *file, bool with_held)
{
    return put_hessian_for(file, "blk.2.ffn_gate_exps", "blk.3.ffn_gate_exps", COLS, with_held);
}

static void fill_both(double learned, double kept)
{
    fill(learn, learned, 9000);
    fill(held, kept, 1000);
}

/* The error of the outputs of a tensor, from the report. */
static double output_error(const struct quantize_options *o, const char *tensor)
{
    struct buf text;
    struct err e = { 0 };
    double x[4];
    buf_init(&text, 1 << 20);
    if (quantize_verify(o, &text, &e) < 0)
        fail_msg("%s", e.text);
    const char *line = strstr(text.data, tensor);
    assert_non_null(line);
    assert_int_equal(sscanf(line, "%*s %*s %lf %lf %lf %lf", &x[0], &x[1], &x[2], &x[3]), 4);
    buf_release(&text);
    return x[3];
}

/* Parts that were coded with feedback, of all tensors. */
static int n_chosen(const char *path)
{
    struct weights *w = open_or_fail(path);
    const struct meta_kv *name, *part, *chosen;
    name = meta_find(weights_meta(w), "dwarfstar.quantize.feedback.tensors");
    part = meta_find(weights_meta(w), "dwarfstar.quantize.feedback.parts");
    chosen = meta_find(weights_meta(w), "dwarfstar.quantize.feedback.chosen");
    assert_true(name && part && chosen && name->n == part->n && chosen->n == part->n);
    assert_string_equal(name->v.s[0].data, "blk.2.ffn_gate_exps.weight");
    assert_true(part->v.i[0] == EXPERTS && part->v.i[1] == EXPERTS);
    int n = 0;
    for (int i = 0; i < chosen->n; i++)
        n += (int)chosen->v.i[i];
    weights_close(w);
    return n;
}

static uint64_t hash_of_tensor(const char *path, const char *name)
{
    struct weights *w = open_or_fail(path);
    const struct weight *t = weights_find(w, name);
    assert_non_null(t);
    uint64_t h = hash_of(t->data, t->bytes, 0);
    weights_close(w);
    return h;
}

static void outputs_are_nearer(void **state)
{
    (void)state;
    static const char *const tensor[] = { "blk.2.ffn_gate_exps", "blk.3.ffn_up_exps" };
    struct quantize_options plain = options(PEBBLE, "plain.gguf");
    struct quantize_options fed = options(PEBBLE, "fed.gguf");
    make_importances(3);
    put_imatrix("imp", fed_part, 3);
    plain.imatrix = fed.imatrix = in_dir("imp");
    fill_both(.8, .78);
    must(&plain);
    plain.hessian = fed.hessian = put_hessian("h.gguf", true);
    must(&fed);
    assert_int_equal(n_chosen(fed.out), 2 * EXPERTS);
    for (int i = 0; i < 2; i++) {
        double a = output_error(&plain, tensor[i]), b = output_error(&fed, tensor[i]);
        if (!(a > 0 && b < .75 * a))
            fail_msg("%s: %g, with feedback %g", tensor[i], a, b);
    }
    nothing_left(fed.out);
}

/* What was learned is not true of other tokens: nothing changes. */
static void held_out_tokens_decide(void **state)
{
    (void)state;
    static const char gate[] = "blk.2.ffn_gate_exps.weight", up[] = "blk.3.ffn_up_exps.weight";
    struct quantize_options o = options(PEBBLE, "plain.gguf");
    must(&o);
    uint64_t want[2] = { hash_of_tensor(o.out, gate), hash_of_tensor(o.out, up) };
    for (int kind = 0; kind < 3; kind++) {
        o = options(PEBBLE, "fed.gguf");
        fill_both(kind == 0 ? .7 : 0, kind == 2 ? .7 : 0); /* gone; never there; only there */
        o.hessian = put_hessian("h.gguf", true);
        must(&o);
        assert_int_equal(n_chosen(o.out), 0);
        assert_true(hash_of_tensor(o.out, gate) == want[0]);
        assert_true(hash_of_tensor(o.out, up) == want[1]);
        assert_int_equal(unlink(o.out), 0);
    }
    /* the same without tokens to judge by, or if the recipe says so */
    fill_both(.7, .7);
    o.hessian = put_hessian("h.gguf", false);
    must(&o);
    assert_int_equal(n_chosen(o.out), 0);
    assert_int_equal(unlink(o.out), 0);
    static const char off[] = "blk.2.ffn_gate_exps.weight IQ2_XXS ldlq=off\n"
                              "blk.3.ffn_up_exps.weight Q2_K ldlq=on\n* keep\n";
    scratch_put(&dir, "off", off, strlen(off));
    o.recipe = in_dir("off");
    must(&o);
    assert_true(hash_of_tensor(o.out, gate) == want[0]);
    assert_true(hash_of_tensor(o.out, up) != want[1]);
}

/* Expert 4's own inputs go before those of the layer, if it saw enough of them; what goes into down
 * is an expert's own affair. */
static void own_inputs(void **state)
{
    (void)state;
    for (int few = 0; few < 2; few++) {
        struct quantize_options o = options(PEBBLE, "fed.gguf");
        struct hessian_writer w;
        struct err e = { 0 };
        fill_both(.7, 0);
        struct hessian_sums all = { &learn[0][0], COLS, 9000 };
        struct hessian_sums own = { &learn[0][0], COLS, few ? 255 : 9000 };
        struct hessian_sums other = { &held[0][0], COLS, 1000 };
        o.hessian = in_dir("h.gguf");
        assert_int_equal(hessian_write_open(&w, o.hessian, &e), 0);
        assert_int_equal(hessian_write_add(&w, "blk.2.ffn_gate_exps", COLS, true, &e), 0);
        assert_int_equal(hessian_write_add(&w, "blk.4.ffn_down_exps", COLS, true, &e), 1);
        assert_int_equal(hessian_write_add(&w, "blk.2.ffn_gate_exps.4", COLS, true, &e), 2);
        assert_int_equal(hessian_write_add(&w, "blk.4.ffn_down_exps.7", COLS, true, &e), 3);
        assert_int_equal(hessian_write_begin(&w, &e), 0);
        assert_int_equal(hessian_write_put(&w, 0, &all, &all, &e), 0);
        assert_int_equal(hessian_write_put(&w, 1, &all, &all, &e), 0);
        assert_int_equal(hessian_write_put(&w, 2, &own, &other, &e), 0);
        assert_int_equal(hessian_write_put(&w, 3, &all, &all, &e), 0);
        assert_int_equal(hessian_write_finish(&w, &e), 0);
        must(&o);
        assert_int_equal(n_chosen(o.out), EXPERTS - !few + 1);
    }
}

/* Says stop at a call, and counts. */
struct stopper {
    int n, stop;
};

static bool stop_at(void *user, const char *what, double share)
{
    struct stopper *s = user;
    assert_true(what && share >= 0 && share <= 1);
    return ++s->n == s->stop;
}

/* 1, 2, 5 threads; then stopped before, among and just before the end of the units with feedback,
 * which are the last. */
static void threads_and_interruptions(void **state)
{
    (void)state;
    struct stopper s = { 0, 0 };
    struct quantize_options o = options(PEBBLE, "fed.gguf");
    uint64_t want = 0;
    fill_both(.7, .68);
    const char *first = put_hessian("h.gguf", true);
    fill_both(.69, .68);
    const char *other = put_hessian("other.gguf", true);
    o.hessian = first;
    for (int n = 5; n > 0; n /= 2) {
        o.n_thread = n;
        o.progress = n == 1 ? stop_at : NULL;
        o.user = &s;
        must(&o);
        assert_true(n == 5 || file_hash(o.out) == want);
        want = file_hash(o.out);
        assert_int_equal(unlink(o.out), 0);
    }
    int n_unit = s.n, left[] = { 2 * EXPERTS + 3, 2 * EXPERTS - 7, 1 };
    for (size_t i = 0; i < COUNT_OF(left); i++) {
        struct err e = { 0 };
        s = (struct stopper){ 0, n_unit - left[i] };
        o.progress = stop_at;
        assert_int_equal(quantize_run(&o, &e), ERR_CANCELLED);
        o.progress = NULL;
        o.hessian = other;
        must_not(&o, ERR_MISMATCH, "was begun with another model, recipe or Hessian");
        o.hessian = first;
        must(&o);
        assert_true(file_hash(o.out) == want);
        assert_int_equal(n_chosen(o.out), 2 * EXPERTS);
        assert_int_equal(unlink(o.out), 0);
    }
}

static void harm(const char *file, double find, double put)
{
    struct buf b;
    float from = (float)find, to = (float)put;
    int n = 0;
    buf_init(&b, 1 << 22);
    assert_int_equal(file_read_all(&b, in_dir(file), NULL), 0);
    for (size_t i = 0; i + 4 <= b.len; i += 4) {
        if (memcmp(b.data + i, &from, 4) == 0) {
            memcpy(b.data + i, &to, 4);
            n++;
        }
    }
    assert_true(n > 0);
    scratch_put(&dir, file, b.data, b.len);
    buf_release(&b);
}

static void refused(void **state)
{
    (void)state;
    struct quantize_options o = options(PEBBLE, "fed.gguf");
    fill_both(.7, .7);
    o.hessian = put_hessian_for("h.gguf", "blk.2.ffn_gate_exps", "blk.3.ffn_gate_exps", 128, true);
    must_not(&o, ERR_MISMATCH, "tensor blk.2.ffn_gate_exps.hessian is of 128 columns, expected the "
                               "256 of tensor blk.2.ffn_gate_exps.weight");
    o.hessian = put_hessian_for("h.gguf", "blk.70.ffn_gate_exps", "x", COLS, true);
    must_not(&o, ERR_MISMATCH, "h.gguf: has the inputs of no tensor of this model");
    o.hessian = in_dir("little");
    must_not(&o, ERR_FORMAT, "little: ");

    held[200][20] = 77.25;
    learn[30][3] = 55.125;
    o.hessian = put_hessian("h.gguf", true);
    harm("h.gguf", 77.25, (double)NAN);
    must_not(&o, ERR_FORMAT, "tensor blk.2.ffn_gate_exps.hessian_held, row 200, column 20 is nan");
    harm("h.gguf", 55.125, (double)INFINITY);
    o.restart = true;
    must_not(&o, ERR_FORMAT, "tensor blk.2.ffn_gate_exps.hessian, row 30, column 3 is inf");

    /* a correlation above 1: no feedback, unless it is asked for */
    fill_both(.7, .7);
    learn[200][100] = learn[200][200] * 1000;
    o.hessian = put_hessian("h.gguf", true);
    must(&o);
    assert_int_equal(n_chosen(o.out), 0);
    assert_int_equal(unlink(o.out), 0);
    static const char on[] = "blk.2.ffn_gate_exps.weight IQ2_XXS ldlq=on\n* keep\n";
    scratch_put(&dir, "on", on, strlen(on));
    o.recipe = in_dir("on");
    must_not(&o, ERR_FORMAT, "tensor blk.2.ffn_gate_exps.hessian is not positive definite");
    o.hessian = NULL;
    must_not(&o, ERR_ARGUMENT, "line 1: tensor blk.2.ffn_gate_exps.weight wants error feedback, "
                               "and a Hessian file is not there");
    fill_both(.7, .7);
    o.hessian = put_hessian_for("h.gguf", "blk.3.ffn_gate_exps", "x", COLS, true);
    must_not(&o, ERR_MISMATCH, "and blk.2.ffn_gate_exps.hessian is not there");
}

static int with_recipe(void **state)
{
    setup(state);
    scratch_put(&dir, "little", FED, strlen(FED));
    return 0;
}

int main(void)
{
#define FED_CASE(f) cmocka_unit_test_setup_teardown(f, with_recipe, teardown)
    const struct CMUnitTest tests[] = {
        FED_CASE(outputs_are_nearer), FED_CASE(held_out_tokens_decide), FED_CASE(own_inputs),
        FED_CASE(threads_and_interruptions), FED_CASE(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
