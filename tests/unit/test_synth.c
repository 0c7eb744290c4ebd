/* test_synth.c - random models: files that open and run, the same with any number of threads and in
 * any parts, with the sizes of the real models. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "unit/scratch_dir.h"

#include "dwarfstar.h"
#include "hash.h"
#include "import.h"
#include "synth.h"
#include "weights.h"

#include <math.h>

#define TEXT "models/pebble/tokenizer.json"

static struct scratch scratch;

static struct synth_options small(const char *out)
{
    return (struct synth_options){ .out = out, .shape = "small", .recipe = "q2", .tokenizer = TEXT,
                                   .n_thread = 1, .seed = 1 };
}

static char *write_model(const struct synth_options *o)
{
    struct err e = { 0 };
    if (synth_run(o, &e) < 0)
        fail_msg("%s", e.text);
    return (char *)(uintptr_t)o->out;
}

static uint64_t hash_of_file(const char *path)
{
    struct file_map m;
    assert_int_equal(file_map_open(&m, path, NULL), 0);
    uint64_t h = hash_of(m.data, m.size, 0);
    file_map_close(&m);
    return h;
}

static int make(void **state)
{
    scratch_open(&scratch);
    char *path = strdup(scratch_file(&scratch, "small.gguf"));
    struct synth_options o = small(path);
    *state = write_model(&o);
    return 0;
}

static int drop(void **state)
{
    free(*state);
    scratch_close(&scratch);
    return 0;
}

static void threads_change_nothing(void **state)
{
    struct synth_options o = small(scratch_file(&scratch, "three.gguf"));
    char path[512];
    snprintf(path, sizeof path, "%s", o.out);
    o.out = path;
    o.n_thread = 3;
    write_model(&o);
    assert_int_equal(hash_of_file(path), hash_of_file(*state));
    o.seed = 2;
    write_model(&o);
    assert_int_not_equal(hash_of_file(path), hash_of_file(*state));
}

/* Every tensor of the file, made again from its middle. */
static void parts_are_the_file(void **state)
{
    struct synth_options o = small("unused");
    struct weights *w;
    struct synth *s;
    struct err e = { 0 };
    assert_int_equal(weights_open(&w, *state, &e), 0);
    assert_int_equal(synth_open(&s, &o, &e), 0);
    assert_int_equal(synth_n_tensor(s), weights_count(w));
    for (int i = 0; i < synth_n_tensor(s); i++) {
        struct synth_tensor t = synth_tensor_at(s, i);
        const struct weight *there = weights_find(w, t.name);
        assert_non_null(there);
        assert_int_equal(there->type, t.type);
        assert_memory_equal(there->dim, t.dim, sizeof t.dim);
        int64_t rows = t.dim[1] * t.dim[2], first = rows / 2, n = MIN(rows - first, 5);
        size_t row_bytes = there->bytes / (size_t)rows;
        uint8_t *made = malloc((size_t)n * row_bytes);
        assert_non_null(made);
        synth_rows(s, i, first, n, made);
        assert_memory_equal(made, there->data + (size_t)first * row_bytes, (size_t)n * row_bytes);
        free(made);
    }
    synth_close(s);
    weights_close(w);
}

static void experts_are_whole_pages(void **state)
{
    static const char *const part[] = { "gate", "up", "down" };
    struct weights *w;
    assert_int_equal(weights_open(&w, *state, NULL), 0);
    for (int i = 0; i < 18; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", i / 3, part[i % 3]);
        const struct weight *x = weights_find(w, name);
        assert_non_null(x);
        assert_int_equal(x->bytes / (size_t)x->dim[2] % 4096, 0);
        assert_int_equal(x->offset % 4096, 0);
    }
    weights_close(w);
}

struct seen {
    int n, n_best;
    int32_t best[300];
    double least, most; /* standard deviation of a row's logits */
    int n_vocab;
};

static int look(void *user, int pos, const float *logits, const float *mtp)
{
    struct seen *s = user;
    double sum = 0, square = 0;
    int32_t best = 0;
    (void)mtp;
    assert_int_equal(pos, s->n++);
    for (int i = 0; i < s->n_vocab; i++) {
        assert_true(isfinite(logits[i]));
        sum += (double)logits[i];
        square += (double)logits[i] * (double)logits[i];
        best = logits[i] > logits[best] ? i : best;
    }
    double deviation = sqrt(square / s->n_vocab - sum / s->n_vocab * sum / s->n_vocab);
    s->least = fmin(s->least, deviation);
    s->most = fmax(s->most, deviation);
    bool is_new = true;
    for (int i = 0; i < s->n_best; i++)
        is_new = is_new && s->best[i] != best;
    if (is_new)
        s->best[s->n_best++] = best;
    return 0;
}

/* Activations neither die nor explode, and different texts have different answers. */
static void run_model(const char *path, int n_tok)
{
    struct dstar_options o;
    struct dstar_error error;
    dstar_engine *engine;
    dstar_options_init(&o);
    o.model = path;
    o.ctx = 1024;
    if (dstar_open(&engine, &o, &error) < 0)
        fail_msg("%s", error.text);
    struct seen s = { .least = INFINITY, .n_vocab = dstar_engine_info(engine)->n_vocab };
    int32_t id[300];
    for (int i = 0; i < n_tok; i++)
        id[i] = (int32_t)((i * 7919 + 13) % s.n_vocab);
    struct dstar_text_eval job = { id, n_tok, 0, 0, look, &s };
    if (dstar_eval(engine, &job, &error) < 0)
        fail_msg("%s", error.text);
    dstar_close(engine);
    assert_int_equal(s.n, n_tok);
    assert_true(s.least > 1 && s.most < 20);
    assert_true(s.n_best > n_tok / 4);
}

static void it_runs(void **state)
{
    run_model(*state, 300);
}

static void any_shape_and_recipe(void **state)
{
    static const struct {
        const char *shape, *recipe;
        int n_layer, n_expert;
    } c[] = {
        { "small", "lossless", 4, 0 }, { "small", "q4", 3, 7 }, { "small", "q2-q4attn", 5, 48 },
    };
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s", scratch_file(&scratch, "other.gguf"));
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct synth_options o = small(path);
        o.shape = c[i].shape;
        o.recipe = c[i].recipe;
        o.n_layer = c[i].n_layer;
        o.n_expert = c[i].n_expert;
        write_model(&o);
        run_model(path, 40);
    }
}

/* All of the real models' tensors, without writing them; their last rows can be had at once. */
static void large_ones_in_parts(void **state)
{
    static const struct {
        const char *shape;
        double bytes;
    } c[] = { { "flash", 86.72e9 }, { "pro", 464.6e9 } };
    (void)state;
    for (size_t k = 0; k < COUNT_OF(c); k++) {
        struct synth_options o = small("unused");
        struct synth *s;
        struct err e = { 0 };
        double bytes = 0;
        o.shape = c[k].shape;
        assert_int_equal(synth_open(&s, &o, &e), 0);
        for (int i = 0; i < synth_n_tensor(s); i++) {
            struct synth_tensor t = synth_tensor_at(s, i);
            size_t row = dtype_bytes(t.type, (size_t)t.dim[0]);
            uint8_t *made = malloc(row);
            assert_non_null(made);
            bytes += (double)row * (double)(t.dim[1] * t.dim[2]);
            synth_rows(s, i, t.dim[1] * t.dim[2] - 1, 1, made);
            free(made);
        }
        assert_true(fabs(bytes / c[k].bytes - 1) < 1e-3);
        synth_close(s);
    }
}

/* A checkpoint folder opens, runs, and imports to the numbers of the GGUF file; only what the
 * vendor keeps in FP8 has numbers of its own. */
static void checkpoints(void **state)
{
    (void)state;
    char folder[512], imported[512], plain[512];
    struct weights *a, *b;
    struct err e = { 0 };
    int n_same = 0;
    snprintf(folder, sizeof folder, "%s", scratch_file(&scratch, "checkpoint"));
    snprintf(imported, sizeof imported, "%s", scratch_file(&scratch, "imported.gguf"));
    snprintf(plain, sizeof plain, "%s", scratch_file(&scratch, "plain.gguf"));
    struct synth_options o = small(folder);
    o.recipe = "lossless";
    o.format = SYNTH_VENDOR;
    o.n_thread = 3;
    write_model(&o);
    run_model(folder, 60);
    assert_int_equal(synth_run(&o, &e), ERR_ARGUMENT); /* it exists */
    struct import_options in = { .dir = folder, .out = imported };
    e = (struct err){ 0 };
    if (import_run(&in, &e) < 0)
        fail_msg("%s", e.text);
    o.out = plain;
    o.format = SYNTH_GGUF;
    write_model(&o);
    assert_int_equal(weights_open(&a, imported, &e), 0);
    assert_int_equal(weights_open(&b, plain, &e), 0);
    assert_int_equal(weights_count(a), weights_count(b));
    for (int i = 0; i < weights_count(a); i++) {
        const struct weight *x = weights_at(a, i), *y = weights_find(b, x->name);
        assert_non_null(y);
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->bytes, y->bytes);
        bool same = memcmp(x->data, y->data, x->bytes) == 0;
        bool fp8 = strstr(x->name, "attn_q_") || strstr(x->name, "attn_kv.") ||
                   strstr(x->name, "attn_output") || strstr(x->name, "shexp");
        if (!same && (!fp8 || strstr(x->name, "norm")))
            fail_msg("%s: other numbers", x->name);
        n_same += same;
    }
    assert_true(n_same > weights_count(a) / 2);
    weights_close(a);
    weights_close(b);
    struct dir_list list;
    assert_int_equal(dir_list_open(&list, folder, &e), 0);
    for (int i = 0; i < list.n; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, list.name[i]);
        unlink(path);
    }
    dir_list_close(&list);
    assert_int_equal(rmdir(folder), 0);
}

static void refuses(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s", scratch_file(&scratch, "none.gguf"));
    struct err e = { 0 };
    struct synth_options o = small(path);
    o.shape = "huge";
    assert_int_equal(synth_run(&o, &e), ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "huge"));
    o = small(path);
    o.n_expert = 5; /* a token uses six */
    e = (struct err){ 0 };
    assert_int_equal(synth_run(&o, &e), ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "experts is 5"));
    o = small(path);
    o.format = SYNTH_VENDOR; /* in types that it cannot have */
    e = (struct err){ 0 };
    assert_int_equal(synth_run(&o, &e), ERR_ARGUMENT);
    o = small(path);
    o.n_layer = 1000;
    e = (struct err){ 0 };
    assert_int_equal(synth_run(&o, &e), ERR_ARGUMENT);
    o = small(path);
    o.tokenizer = "models/none.json";
    e = (struct err){ 0 };
    assert_true(synth_run(&o, &e) < 0);
    assert_false(file_exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_change_nothing), cmocka_unit_test(parts_are_the_file),
        cmocka_unit_test(experts_are_whole_pages), cmocka_unit_test(it_runs),
        cmocka_unit_test(any_shape_and_recipe),   cmocka_unit_test(large_ones_in_parts),
        cmocka_unit_test(checkpoints),            cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
