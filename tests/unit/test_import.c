/* test_import.c - checkpoints to GGUF: every number is the vendor's, every key is there, and what
 * is damaged is refused without leaving a file. */
#include "unit/true_shapes.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "offline.h"
#include "tokenizer.h"

#define NANO "tests/data/oracle/nano"
#define TRUEHEAD "tests/data/oracle/truehead"
#define PEBBLE "models/pebble"

static struct scratch dir;

static int setup(void **state)
{
    (void)state;
    scratch_open(&dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_close(&dir);
    return 0;
}

static struct weights *open_or_fail(const char *path)
{
    struct weights *w;
    struct err e = { 0 };
    if (weights_open(&w, path, &e) < 0)
        fail_msg("%s", e.text);
    return w;
}

static struct weights *import(const char *from, struct import_options o)
{
    struct err e = { 0 };
    char out[600];
    snprintf(out, sizeof out, "%s", scratch_file(&dir, "out.gguf"));
    o.dir = from;
    o.out = out;
    if (import_run(&o, &e) < 0)
        fail_msg("%s", e.text);
    return open_or_fail(out);
}

/* Numbers of row r of a matrix, wherever its scales are. */
static void row_of(const struct weight *w, int64_t r, float *out)
{
    const uint8_t *scale = w->scale;
    if (scale)
        scale += (w->type == DT_FP4 ? r : r / 128) * w->scale_pitch;
    size_t bytes = dtype_bytes(w->type, (size_t)w->dim[0]);
    quant_decode(w->type, w->data + (size_t)r * bytes, scale, out, (int)w->dim[0]);
}

static int64_t id_at(const struct weight *w, int64_t i)
{
    int64_t id = 0;
    int32_t id32;
    if (w->type == DT_I64) {
        memcpy(&id, w->data + 8 * i, 8);
        return id;
    }
    memcpy(&id32, w->data + 4 * i, 4);
    return id32;
}

/* Largest |new - old| relative to the largest |old| of the row. */
static double row_error(const float *a, const float *b, int64_t n)
{
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)a[i]));
    }
    return largest > 0 ? worst / largest : worst;
}

/* Each tensor of the checkpoint against its place in the GGUF; returns how many were compared. */
static int compare(const struct weights *old, const struct weights *new, bool q8)
{
    static float a[1 << 16], b[1 << 16];
    int n = 0;
    for (int i = 0; i < weights_count(old); i++) {
        const struct weight *x = weights_at(old, i);
        struct dsv4_place p = dsv4_place_of(x->name);
        char name[DSV4_NAME_MAX];
        if (p.is_scale)
            continue;
        assert_true(p.role < DSV4_N_ROLE);
        const struct weight *y = weights_find(new, dsv4_gguf_name(name, p.role, p.block));
        if (!y)
            fail_msg("%s is missing", name);
        assert_true(y->dim[0] == x->dim[0] && y->dim[1] == x->dim[1] && x->dim[0] <= 1 << 16);
        enum dsv4_form form = dsv4_names[p.role].form;
        assert_int_equal(y->type == DT_Q8_0, q8 && form == DSV4_DENSE);
        assert_true(form != DSV4_EXACT || y->type == DT_F32);
        int64_t first = p.expert > 0 ? p.expert * x->dim[1] : 0;
        for (int64_t r = 0; r < x->dim[1]; r++) {
            if (form == DSV4_IDS) {
                for (int64_t c = 0; c < x->dim[0]; c++)
                    assert_int_equal(id_at(x, r * x->dim[0] + c), id_at(y, r * x->dim[0] + c));
                continue;
            }
            row_of(x, r, a);
            row_of(y, first + r, b);
            double error = row_error(a, b, x->dim[0]);
            /* Q8_0: half a step of 1/127 of the block's largest, and its scale is an f16. */
            if (y->type == DT_Q8_0 ? error > 0.5 / 127 + 1.0 / 2048 : error != 0)
                fail_msg("%s row %d differs by %g", x->name, (int)r, error);
        }
        n++;
    }
    return n;
}

static void every_number(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum dtype experts;
        bool mtp;
    } cases[] = { { NANO, DT_BF16, false },
                  { TRUEHEAD, DT_BF16, true },
                  { PEBBLE, DT_MXFP4, true } };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct weights *old = open_or_fail(cases[i].path);
        struct weights *new = import(cases[i].path, (struct import_options){ 0 });
        int n = compare(old, new, false);
        print_message("%s: %d tensors to %d\n", cases[i].path, n, weights_count(new));
        assert_int_equal(weights_find(new, "blk.0.ffn_gate_exps.weight")->type, cases[i].experts);
        assert_int_equal(weights_find(new, "mtp.0.e_proj.weight") != NULL, cases[i].mtp);
        weights_close(old);
        weights_close(new);
    }
}

/* Widths that are not whole tiles, and matrices taken in several runs of rows that begin inside a
 * tile, as with Pro's 7168 columns. */
static void runs_and_tiles(void **state)
{
    (void)state;
    struct dsv4_hyper h;
    true_hyper(&h, false);
    h.n_layer = 2;
    h.ratio[0] = 4;
    h.ratio[1] = 0;
    h.n_vocab = 100;
    h.n_embd = 1440;
    h.q_lora = 1440;
    h.n_head = 4;
    h.n_group = 2;
    h.o_lora = 200;
    h.n_expert = 6;
    h.n_ff = 992;
    h.n_hash_layer = 0;
    h.index_heads = 3;
    true_checkpoint_of(&dir, &h, true);
    struct weights *old = open_or_fail(dir.path);
    struct weights *new = import(dir.path, (struct import_options){ 0 });
    assert_int_equal(weights_find(new, "blk.1.ffn_down_exps.weight")->type, DT_MXFP4);
    assert_int_equal(weights_find(new, "mtp.0.h_proj.weight")->type, DT_BF16);
    assert_int_equal(compare(old, new, false), 141);
    weights_close(old);
    weights_close(new);
}

static void dense_q8_0(void **state)
{
    (void)state;
    struct weights *old = open_or_fail(TRUEHEAD);
    struct weights *new = import(TRUEHEAD, (struct import_options){ .dense = IMPORT_DENSE_Q8_0 });
    compare(old, new, true);
    assert_int_equal(weights_find(new, "output.weight")->type, DT_Q8_0);
    assert_int_equal(weights_find(new, "token_embd.weight")->type, DT_BF16);
    assert_int_equal(weights_find(new, "mtp.0.e_proj.weight")->type, DT_BF16);
    assert_int_equal(weights_find(new, "blk.1.indexer.proj.weight")->type, DT_BF16);
    weights_close(old);
    weights_close(new);
}

static void hyperparameters(void **state)
{
    (void)state;
    static const char *const paths[] = { NANO, TRUEHEAD, PEBBLE };
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        struct dsv4_hyper a, b;
        struct err e = { 0 };
        struct weights *old = open_or_fail(paths[i]);
        struct weights *new = import(paths[i], (struct import_options){ .profile = "0731" });
        const struct meta *m = weights_meta(new);
        assert_int_equal(dsv4_hyper_read(&a, weights_meta(old), WEIGHTS_CHECKPOINT, &e), 0);
        if (dsv4_hyper_read(&b, m, WEIGHTS_GGUF, &e) < 0)
            fail_msg("%s", e.text);
        for (int k = 0; k < dsv4_n_keys; k++) {
            size_t n = dsv4_keys[k].type == META_BOOL ? sizeof(bool) : 4, at = dsv4_keys[k].offset;
            if (memcmp((const char *)&a + at, (const char *)&b + at, n) != 0)
                fail_msg("%s: %s differs", paths[i], dsv4_keys[k].config);
        }
        assert_memory_equal(a.ratio, b.ratio, sizeof a.ratio);
        assert_int_equal(a.cache_simulation, b.cache_simulation);
        assert_string_equal(meta_str(m, "dwarfstar.effort_profile"), "0731");
        weights_close(old);
        weights_close(new);
    }
}

/* What other readers of "deepseek4" files ask for, from their sources. */
static void keys_others_require(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "block_count", "context_length", "embedding_length", "vocab_size", "attention.head_count",
        "attention.head_count_kv", "attention.key_length", "attention.value_length",
        "attention.q_lora_rank", "attention.output_lora_rank", "attention.output_group_count",
        "attention.sliding_window", "attention.indexer.head_count", "attention.indexer.key_length",
        "attention.indexer.top_k", "attention.compress_ratios", "attention.compress_rope_freq_base",
        "attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base",
        "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
        "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "expert_count",
        "expert_used_count", "expert_feed_forward_length", "expert_shared_count",
        "hash_layer_count", "expert_weights_scale", "expert_weights_norm", "hyper_connection.count",
        "hyper_connection.sinkhorn_iterations", "hyper_connection.epsilon", "swiglu_clamp_exp",
        "swiglu_clamp_shexp", "expert_gating_func", "nextn_predict_layers",
        "leading_dense_block_count",
    };
    struct weights *new = import(PEBBLE, (struct import_options){ 0 });
    const struct meta *m = weights_meta(new);
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        char key[96];
        snprintf(key, sizeof key, "deepseek4.%s", keys[i]);
        if (!meta_find(m, key))
            fail_msg("%s is missing", key);
    }
    assert_int_equal(meta_find(m, "deepseek4.expert_gating_func")->v.i[0], 4);
    assert_int_equal(meta_find(m, "deepseek4.expert_weights_norm")->type, META_BOOL);
    assert_int_equal(meta_find(m, "deepseek4.swiglu_clamp_exp")->n, 7);
    assert_string_equal(meta_str(m, "general.architecture"), "deepseek4");
    assert_string_equal(meta_str(m, "general.name"), "pebble");
    assert_string_equal(meta_str(m, "dwarfstar.cache_simulation"), "vendor"); /* not stated */
    assert_null(meta_find(m, "dwarfstar.effort_profile"));
    weights_close(new);
}

static void copy_to_scratch(const char *from, const char *name, const char *extra)
{
    char path[600];
    struct buf b;
    struct err e = { 0 };
    snprintf(path, sizeof path, "%s/%s", from, name);
    buf_init(&b, (size_t)1 << 26);
    assert_int_equal(file_read_all(&b, path, &e), 0);
    if (extra) /* into the object, before its end */
        b.len = (size_t)(strrchr(b.data, '}') - b.data);
    if (extra)
        buf_puts(&b, extra);
    assert_false(b.failed);
    scratch_put(&dir, name, b.data, b.len);
    buf_release(&b);
}

/* A checkpoint that was trained without rounding of cached rows says so, and so does the file. */
static void cache_simulation_is_kept(void **state)
{
    (void)state;
    copy_to_scratch(NANO, "model.safetensors", NULL);
    copy_to_scratch(NANO, "config.json", ", \"cache_simulation\": \"none\" }");
    struct weights *new = import(dir.path, (struct import_options){ 0 });
    assert_string_equal(meta_str(weights_meta(new), "dwarfstar.cache_simulation"), "none");
    weights_close(new);
    scratch_remove(&dir, "config.json");
    scratch_remove(&dir, "model.safetensors");
}

static void the_tokenizer(void **state)
{
    (void)state;
    static const char text[] =
        "Birds, 1234567 of them: \xc3\xa9t\xc3\xa9 <think>\n\n\tx == y</think> \xe4\xbd\xa0";
    struct weights *new = import(PEBBLE, (struct import_options){ 0 });
    struct tokenizer *a, *b;
    struct ids x = { 0 }, y = { 0 };
    struct err e = { 0 };
    struct text_span all = { 0, sizeof text - 1 };
    if (tokenizer_open_json(&a, PEBBLE "/tokenizer.json", NULL, &e) < 0 ||
        tokenizer_open_meta(&b, weights_meta(new), "out.gguf", NULL, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(tokenizer_n_vocab(a), tokenizer_n_vocab(b));
    assert_int_equal(tokenizer_n_merge(a), tokenizer_n_merge(b));
    for (int id = 0; id < tokenizer_n_vocab(a); id++) {
        size_t n, k;
        const char *s = tokenizer_bytes(a, id, &n), *t = tokenizer_bytes(b, id, &k);
        assert_true(n == k && memcmp(s, t, n) == 0);
        assert_int_equal(tokenizer_type(a, id), tokenizer_type(b, id));
    }
    assert_int_equal(tokenizer_encode(a, text, sizeof text - 1, &all, 1, &x, &e), 0);
    assert_int_equal(tokenizer_encode(b, text, sizeof text - 1, &all, 1, &y, &e), 0);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.id, y.id, sizeof *x.id * (size_t)x.n);
    ids_release(&x);
    ids_release(&y);
    tokenizer_close(a);
    tokenizer_close(b);
    weights_close(new);
}

/* ---- damage ---- */

static struct buf read_file(const char *folder, const char *name)
{
    struct buf b;
    struct err e = { 0 };
    char *path = path_join(folder, name);
    buf_init(&b, 1 << 26);
    if (file_read_all(&b, path, &e) < 0)
        fail_msg("%s", e.text);
    free(path);
    return b;
}

static char *find_in(struct buf *b, const char *text)
{
    char *at = memmem(b->data, b->len, text, strlen(text));
    if (!at)
        fail_msg("%s is not in the file", text);
    return at;
}

/* A copy of a checkpoint as it is, `model` its safetensors. */
static void put_copy(const char *from, const struct buf *model)
{
    struct buf config = read_file(from, "config.json");
    scratch_put(&dir, "config.json", config.data, config.len);
    scratch_put(&dir, "model.safetensors", model->data, model->len);
    buf_release(&config);
}

static void refuse(struct import_options o, enum err_code code, const char *words)
{
    struct err e = { 0 };
    char out[600];
    snprintf(out, sizeof out, "%s", scratch_file(&dir, "out.gguf"));
    o.out = out;
    if (!o.dir)
        o.dir = dir.path;
    int rc = import_run(&o, &e);
    if (rc != (int)code || !strstr(e.text, words))
        fail_msg("got %d \"%s\", expected %d \"%s\"", rc, e.text, (int)code, words);
    assert_false(file_exists(out));
    assert_false(file_exists(scratch_file(&dir, "out.gguf.part")));
}

/* nano with `from` in its header replaced by `to`, of the same length. */
static void refuse_renamed(const char *from, const char *to, enum err_code code, const char *words)
{
    struct buf b = read_file(NANO, "model.safetensors");
    assert_int_equal(strlen(from), strlen(to));
    memcpy(find_in(&b, from), to, strlen(to));
    put_copy(NANO, &b);
    refuse((struct import_options){ 0 }, code, words);
    buf_release(&b);
}

static void wrong_tensors(void **state)
{
    (void)state;
    refuse_renamed("layers.2.attn.kv_norm.weight", "layers.2.attn.kv_form.weight", ERR_FORMAT,
                   "tensor layers.2.attn.kv_norm.weight is missing");
    refuse_renamed("layers.1.ffn.experts.7.w3.weight", "layers.1.ffn.experts.8.w3.weight",
                   ERR_FORMAT, "tensor layers.1.ffn.experts.7.w3.weight is missing");
    refuse_renamed("\"F32\",\"shape\":[24,512]", "\"F32\",\"shape\":[512,24]", ERR_FORMAT,
                   "has 512 rows of 24, expected 24 of 512");
    refuse_renamed("\"layers.0.ffn.gate.tid2eid\":{\"dtype\":\"I64\",\"shape\":[256,2]",
                   "\"layers.0.ffn.gate.tid2eid\":{\"dtype\":\"F32\",\"shape\":[512,2]", ERR_FORMAT,
                   "tensor layers.0.ffn.gate.tid2eid has 512 rows of 2, expected 256 of 2");
}

/* A tensor too many: one layer fewer in config.json. */
static void tensors_left_over(void **state)
{
    (void)state;
    struct buf b = read_file(NANO, "model.safetensors"), config = read_file(NANO, "config.json");
    put_copy(NANO, &b);
    memcpy(find_in(&config, "\"num_hidden_layers\": 4"), "\"num_hidden_layers\": 3", 22);
    scratch_put(&dir, "config.json", config.data, config.len);
    refuse((struct import_options){ 0 }, ERR_UNSUPPORTED,
           "tensor layers.3.attn.attn_sink has no place in this model");
    buf_release(&b);
    buf_release(&config);
}

static void wrong_numbers(void **state)
{
    (void)state;
    struct buf b = read_file(NANO, "model.safetensors");
    struct weights *w = open_or_fail(NANO);
    int64_t ids_at = weights_find(w, "layers.0.ffn.gate.tid2eid")->offset;
    int64_t norm_at = weights_find(w, "layers.2.ffn_norm.weight")->offset;
    weights_close(w);
    char *id = b.data + ids_at + 8 * 5, was = *id;
    *id = 8;
    put_copy(NANO, &b);
    refuse((struct import_options){ 0 }, ERR_FORMAT,
           "tensor layers.0.ffn.gate.tid2eid, row 2 names expert 8, expected 0 to 7");
    *id = was;
    b.data[norm_at + 2 * 9] = (char)0x80;
    b.data[norm_at + 2 * 9 + 1] = 0x7f;
    put_copy(NANO, &b);
    refuse((struct import_options){ 0 }, ERR_FORMAT,
           "tensor layers.2.ffn_norm.weight, row 0, element 9 is infinite or not a number");
    buf_release(&b);
}

static bool stop_half_way(void *user, int64_t done, int64_t total)
{
    int *calls = user;
    ++*calls;
    return done > total / 2;
}

static bool watch(void *user, int64_t done, int64_t total)
{
    int64_t *last = user;
    assert_true(done > last[0] && done <= total);
    last[0] = done;
    last[1] = total;
    return false;
}

static void progress_and_cancelling(void **state)
{
    (void)state;
    int calls = 0;
    int64_t seen[2] = { 0, 0 };
    refuse((struct import_options){ .dir = NANO, .progress = stop_half_way, .user = &calls },
           ERR_CANCELLED, "the import was cancelled");
    assert_true(calls > 10);
    struct weights *new = import(NANO, (struct import_options){ .progress = watch, .user = seen });
    assert_true(seen[0] == seen[1] && seen[0] > 0);
    int64_t sum = 0;
    for (int i = 0; i < weights_count(new); i++)
        sum += (int64_t)weights_at(new, i)->bytes;
    assert_int_equal(sum, seen[1]);
    weights_close(new);
}

static int n_remark;

static void hear(void *user, int level, const char *text)
{
    (void)user;
    (void)level;
    n_remark += strstr(text, "left out: 47 tensors of draft blocks") != NULL;
}

static void options(void **state)
{
    (void)state;
    struct log log = { hear, NULL };
    struct weights *old = open_or_fail(TRUEHEAD), *new;
    int n_draft = 0;
    for (int i = 0; i < weights_count(old); i++)
        n_draft += strncmp(weights_at(old, i)->name, "mtp.", 4) == 0;
    assert_int_equal(n_draft, 47);
    new = import(TRUEHEAD, (struct import_options){ .no_mtp = true, .log = &log });
    assert_null(weights_find(new, "mtp.0.e_proj.weight"));
    assert_int_equal(meta_find(weights_meta(new), "deepseek4.nextn_predict_layers")->v.i[0], 0);
    assert_int_equal(n_remark, 1);
    weights_close(new);
    weights_close(old);
    scratch_remove(&dir, "out.gguf");
    refuse((struct import_options){ .dir = NANO, .profile = "1" }, ERR_ARGUMENT,
           "effort profile is \"1\", expected");
    refuse((struct import_options){ .dir = "/nonexistent" }, ERR_IO, "/nonexistent: cannot open");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_number, setup, teardown),
        cmocka_unit_test_setup_teardown(runs_and_tiles, setup, teardown),
        cmocka_unit_test_setup_teardown(dense_q8_0, setup, teardown),
        cmocka_unit_test_setup_teardown(hyperparameters, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_others_require, setup, teardown),
        cmocka_unit_test_setup_teardown(cache_simulation_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(the_tokenizer, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_tensors, setup, teardown),
        cmocka_unit_test_setup_teardown(tensors_left_over, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(progress_and_cancelling, setup, teardown),
        cmocka_unit_test_setup_teardown(options, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
