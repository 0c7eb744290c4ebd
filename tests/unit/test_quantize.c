/* test_quantize.c - models made smaller: sizes known in advance, types and errors as asked for,
 * the same bytes with any number of threads, and inputs that must be refused, with the tensor's
 * name. */
#include "unit/true_shapes.h"

#include "unit/quantize_pebble.h"

#include <math.h>

#define NANO "tests/data/oracle/nano"

/* ---- sizes ---- */

/* Bytes of the files in circulation, tensor by tensor. */
static int64_t published_bytes(bool pro)
{
    struct dsv4_hyper h;
    struct true_gguf g = { .h = &h, .type = true_2bit_type };
    true_hyper(&h, pro);
    buf_init(&g.infos, (size_t)1 << 26);
    true_infos(&g, false);
    buf_release(&g.infos);
    return (int64_t)g.at; /* with padding */
}

/* The number in the last column but two of the line that begins with "  all". */
static int64_t planned_bytes(const char *text)
{
    const char *line = strstr(text, "\n  all ");
    int64_t n = 0;
    int column = 0;
    assert_non_null(line);
    for (const char *c = line + 6; *c != '\n' && column < 3; c++) {
        if (c[-1] == ' ' && *c != ' ')
            column++;
        if (column == 2 && *c >= '0' && *c <= '9')
            n = 10 * n + (*c - '0');
    }
    return n;
}

static void plans_without_a_model(void **state)
{
    (void)state;
    static const struct {
        const char *shape, *recipe;
        double bytes; /* as published, or computed from the layouts */
    } c[] = {
        { "flash", "q2", 86.72e9 }, { "pro", "q2", 464.6e9 }, { "flash", "q4", 164.63e9 },
        { "pro", "q4", 899.8e9 },
    };
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct quantize_options o = { .shape = c[i].shape, .recipe = c[i].recipe };
        struct buf text;
        struct err e = { 0 };
        buf_init(&text, 1 << 20);
        if (quantize_plan_text(&o, &text, &e) < 0)
            fail_msg("%s", e.text);
        int64_t bytes = planned_bytes(text.data);
        assert_true(fabs((double)bytes / c[i].bytes - 1) < 1e-3);
        if (strcmp(c[i].recipe, "q2") == 0) {
            int64_t published = published_bytes(i == 1);
            assert_true(published >= bytes && published < bytes + 32 * 2000);
        }
        buf_release(&text);
    }
    struct quantize_options o = { .shape = "medium", .recipe = "q2" };
    struct err e = { 0 };
    assert_int_equal(quantize_plan_text(&o, NULL, &e), ERR_ARGUMENT);
}

/* From directories of true size: a checkpoint and a GGUF promise the same file. */
static void plans_of_true_size(void **state)
{
    (void)state;
    int64_t bytes[2];
    for (int kind = 0; kind < 2; kind++) {
        struct buf text;
        struct err e = { 0 };
        if (kind == 0)
            true_checkpoint(&dir, false);
        else
            true_gguf(&dir, "f.gguf", false, true, true_gguf_type);
        struct quantize_options o = { .src = kind ? in_dir("f.gguf") : dir.path, .recipe = "q2" };
        buf_init(&text, 1 << 20);
        if (quantize_plan_text(&o, &text, &e) < 0)
            fail_msg("%s", e.text);
        bytes[kind] = planned_bytes(text.data);
        assert_non_null(strstr(text.data, "\nthe file will have 86,7"));
        /* 87 GB, where the file system cannot hold them */
        if (file_space_free(dir.path) < (int64_t)86e9) {
            o.out = in_dir("out.gguf");
            must_not(&o, ERR_NO_MEMORY, "out.gguf: needs 867");
            nothing_left(o.out);
        }
        buf_release(&text);
    }
    assert_true(bytes[0] == bytes[1]);
    assert_true(llabs(bytes[0] - published_bytes(false)) < 32 * 2000);
}

/* ---- the file ---- */

static void row_of(const struct weight *w, int64_t r, float *out)
{
    const uint8_t *scale = w->scale;
    if (scale)
        scale += (w->type == DT_FP4 ? r : r / 128) * w->scale_pitch;
    quant_decode(w->type, w->data + (size_t)r * dtype_bytes(w->type, (size_t)w->dim[0]), scale, out,
                 (int)w->dim[0]);
}

/* Relative squared error of a whole tensor of the new file. */
static double error_of(const struct weights *old, const struct weights *new, const char *name)
{
    static float a[1 << 16], b[1 << 16];
    const struct weight *y = weights_find(new, name);
    struct dsv4_place p = dsv4_place_of(name);
    double square = 0, of = 0;
    for (int64_t r = 0; r < y->dim[1] * y->dim[2]; r++) {
        char official[DSV4_NAME_MAX];
        dsv4_official_name(official, p.role, p.block, (int)(r / y->dim[1]));
        const struct weight *x = weights_find(old, official);
        assert_non_null(x);
        row_of(x, r % y->dim[1], a);
        row_of(y, r, b);
        for (int64_t j = 0; j < y->dim[0]; j++) {
            square += ((double)a[j] - (double)b[j]) * ((double)a[j] - (double)b[j]);
            of += (double)a[j] * (double)a[j];
        }
    }
    return square / of;
}

static void types_and_errors(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum dtype type;
        double least, most;
    } c[] = {
        { "blk.2.ffn_gate_exps.weight", DT_IQ2_XXS, .05, .14 },
        { "blk.1.ffn_gate_exps.weight", DT_MXFP4, 0, 0 },
        { "blk.3.ffn_down_exps.weight", DT_Q2_K, .04, .09 },
        { "blk.4.attn_q_a.weight", DT_Q4_K, .001, .006 },
        { "blk.5.ffn_up_shexp.weight", DT_MXFP4, .002, .02 },
        { "blk.5.ffn_gate_shexp.weight", DT_BF16, 0, 0 },
        { "output.weight", DT_Q8_0, 1e-6, 1e-4 },
        { "output_norm.weight", DT_F32, 0, 0 },
        { "mtp.0.e_proj.weight", DT_BF16, 0, 0 },
    };
    struct quantize_options o = options(PEBBLE, "out.gguf");
    must(&o);
    nothing_left(o.out);
    struct weights *old = open_or_fail(PEBBLE), *new = open_or_fail(o.out);
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        const struct weight *w = weights_find(new, c[i].name);
        if (!w)
            fail_msg("%s is missing", c[i].name);
        assert_int_equal(w->type, c[i].type);
        double error = error_of(old, new, c[i].name);
        if (error < c[i].least || error > c[i].most)
            fail_msg("%s: error %g", c[i].name, error);
    }
    struct dsv4_hyper h;
    struct err e = { 0 };
    assert_int_equal(dsv4_hyper_read(&h, weights_meta(new), WEIGHTS_GGUF, &e), 0);
    assert_int_equal(h.n_nextn, 1);
    assert_string_equal(meta_str(weights_meta(new), "dwarfstar.quantize.recipe"), LITTLE);
    assert_non_null(meta_find(weights_meta(new), "tokenizer.ggml.tokens"));
    weights_close(old);
    weights_close(new);
}

/* The exact size is known before. */
static void sizes_come_true(void **state)
{
    (void)state;
    struct quantize_options o = options(PEBBLE, "out.gguf");
    struct buf text;
    struct err e = { 0 };
    struct file_map m;
    buf_init(&text, 1 << 20);
    assert_int_equal(quantize_plan_text(&o, &text, &e), 0);
    assert_false(file_exists(o.out));
    must(&o);
    assert_int_equal(file_map_open(&m, o.out, &e), 0);
    const char *line = strstr(text.data, "the file will have ");
    size_t bytes = 0;
    for (const char *c = line + strlen("the file will have "); *c != ' '; c++)
        bytes = *c == ',' ? bytes : 10 * bytes + (size_t)(*c - '0');
    assert_int_equal(bytes, m.size);
    file_map_close(&m);
    buf_release(&text);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    uint64_t first = 0;
    for (int n = 1; n <= 5; n += 2) {
        struct quantize_options o = options(PEBBLE, "out.gguf");
        o.n_thread = n;
        must(&o);
        if (n == 1)
            first = file_hash(o.out);
        assert_true(file_hash(o.out) == first);
    }
}

/* A GGUF of the same numbers gives the same tensors and tokenizer; types it has can be kept. */
static void from_gguf(void **state)
{
    (void)state;
    struct err e = { 0 };
    struct import_options im = { .dir = PEBBLE, .out = in_dir("p.gguf") };
    if (import_run(&im, &e) < 0)
        fail_msg("%s", e.text);
    struct quantize_options a = options(PEBBLE, "a.gguf"), b = options(in_dir("p.gguf"), "b.gguf");
    must(&a);
    must(&b);
    struct weights *x = open_or_fail(a.out), *y = open_or_fail(b.out);
    assert_int_equal(weights_count(x), weights_count(y));
    for (int i = 0; i < weights_count(x); i++) {
        const struct weight *t = weights_at(x, i), *u = weights_find(y, t->name);
        assert_true(u && u->type == t->type && u->bytes == t->bytes);
        assert_memory_equal(t->data, u->data, t->bytes);
    }
    assert_int_equal(meta_find(weights_meta(x), "tokenizer.ggml.tokens")->n,
                     meta_find(weights_meta(y), "tokenizer.ggml.tokens")->n);
    weights_close(y);
    /* once more from the small file, keeping everything: a copy but for the recipe's name */
    struct quantize_options c = options(a.out, "c.gguf");
    c.recipe = "lossless";
    must(&c);
    y = open_or_fail(c.out);
    for (int i = 0; i < weights_count(x); i++) {
        const struct weight *t = weights_at(x, i), *u = weights_find(y, t->name);
        assert_true(u && u->type == t->type);
        assert_memory_equal(t->data, u->data, t->bytes);
    }
    weights_close(x);
    weights_close(y);
}

static void draft_block(void **state)
{
    (void)state;
    static const char drop[] = "mtp.* drop\n* keep", half[] = "mtp.*norm.weight drop\n* keep";
    static const char other[] = "blk.1.attn_norm.weight drop\n* keep", none[] = "blk.* keep\n";
    struct quantize_options o = options(PEBBLE, "out.gguf");
    o.recipe = in_dir("r.txt");
    scratch_put(&dir, "r.txt", half, sizeof half - 1);
    must_not(&o, ERR_ARGUMENT, "of the draft block and keeps");
    scratch_put(&dir, "r.txt", other, sizeof other - 1);
    must_not(&o, ERR_ARGUMENT, "line 1: drops tensor blk.1.attn_norm.weight, without which");
    scratch_put(&dir, "r.txt", none, sizeof none - 1);
    must_not(&o, ERR_ARGUMENT, "no rule for tensor token_embd.weight");
    nothing_left(o.out);
    scratch_put(&dir, "r.txt", drop, sizeof drop - 1);
    must(&o);
    struct weights *w = open_or_fail(o.out);
    struct dsv4_hyper h;
    struct err e = { 0 };
    assert_int_equal(dsv4_hyper_read(&h, weights_meta(w), WEIGHTS_GGUF, &e), 0);
    assert_int_equal(h.n_nextn, 0);
    for (int i = 0; i < weights_count(w); i++)
        assert_true(strncmp(weights_at(w, i)->name, "mtp.", 4) != 0);
    weights_close(w);
}

/* ---- importances ---- */

/* Squared error of every other column of one expert. */
static double half_error(const struct weights *old, const struct weights *new, int expert,
                         int from)
{
    char name[DSV4_NAME_MAX];
    float a[COLS], b[COLS];
    double sum = 0;
    const struct weight *x = weights_find(old, dsv4_official_name(name, DSV4_GATE_EXPS, 2, expert));
    const struct weight *y = weights_find(new, "blk.2.ffn_gate_exps.weight");
    for (int64_t r = 0; r < x->dim[1]; r++) {
        row_of(x, r, a);
        row_of(y, expert * x->dim[1] + r, b);
        for (int j = from; j < COLS; j += 2)
            sum += ((double)a[j] - (double)b[j]) * ((double)a[j] - (double)b[j]);
    }
    return sum;
}

/* Columns that matter more have less error, also of an expert that saw no token. */
static void importance_matters(void **state)
{
    (void)state;
    struct weights *old = open_or_fail(PEBBLE);
    double ratio[3][3];
    static const float even[] = { 1, 9, 1.f / 9 };
    for (int i = 0; i < 3; i++) {
        make_importances(even[i]);
        put_imatrix("i.imatrix", imp_part, 2);
        struct quantize_options o = options(PEBBLE, "out.gguf");
        o.imatrix = in_dir("i.imatrix");
        must(&o);
        struct weights *new = open_or_fail(o.out);
        for (int x = 0; x < 3; x++)
            ratio[i][x] = half_error(old, new, x, 0) / half_error(old, new, x, 1);
        const struct meta *m = weights_meta(new);
        assert_string_equal(meta_str(m, "quantize.imatrix.file"), o.imatrix);
        assert_string_equal(meta_str(m, "quantize.imatrix.dataset"), "text");
        weights_close(new);
    }
    for (int x = 0; x < 3; x++)
        assert_true(ratio[1][x] < .8 * ratio[0][x] && ratio[2][x] > 1.25 * ratio[0][x]);
    weights_close(old);
}

/* The bytes of expert 1's gate, quantised with the importances as they are. */
static void gate_bytes(const char *out, uint8_t *to, size_t n)
{
    struct quantize_options o = options(PEBBLE, out);
    put_imatrix("i.imatrix", imp_part, 2);
    o.imatrix = in_dir("i.imatrix");
    must(&o);
    struct weights *w = open_or_fail(o.out);
    const struct weight *t = weights_find(w, "blk.2.ffn_gate_exps.weight");
    assert_int_equal(t->bytes, n * EXPERTS);
    memcpy(to, t->data + n, n);
    weights_close(w);
}

/* An expert of 100 tokens counts 256 more of its layer's average, in which it has its 100. */
static void few_tokens(void **state)
{
    (void)state;
    enum { ROWS = 256, BLOCK = 66 };
    static uint8_t few[ROWS * BLOCK], mixed[ROWS * BLOCK], own[ROWS * BLOCK];
    double tokens = 0, sum = 0;
    make_importances(1);
    for (int x = 0; x < EXPERTS; x++) {
        float even = x == 1 ? 9 : 1.f / 9;
        for (int j = 0; j < COLS; j += 2)
            imp_mean[x * COLS + j] = imp_count[x] > 0 ? even : 0;
        tokens += (double)imp_count[x];
        sum += (double)imp_count[x] * (double)even;
    }
    gate_bytes("few.gguf", few, sizeof few);
    for (int i = 0; i < 2; i++) { /* what it should come to, then what it would be alone */
        double even = i ? 9 : (100 * 9 + 256 * sum / tokens) / 356;
        for (int j = 0; j < COLS; j += 2)
            imp_mean[COLS + j] = (float)even;
        imp_count[1] = 1e9f; /* so many that the average hardly counts */
        gate_bytes(i ? "own.gguf" : "mixed.gguf", i ? own : mixed, sizeof own);
    }
    int same = 0, alone = 0;
    for (int r = 0; r < ROWS; r++) {
        same += memcmp(few + r * BLOCK, mixed + r * BLOCK, BLOCK) == 0;
        alone += memcmp(few + r * BLOCK, own + r * BLOCK, BLOCK) == 0;
    }
    assert_true(same >= ROWS - 3 && alone < ROWS / 2);
}

static void bad_importances(void **state)
{
    (void)state;
    struct quantize_options o = options(PEBBLE, "out.gguf");
    o.imatrix = in_dir("i.imatrix");
    make_importances(1);
    put_imatrix("i.imatrix", imp_part, 1);
    must_not(&o, ERR_MISMATCH, "i.imatrix: has no entry for tensor blk.3.ffn_down_exps.weight");
    struct imatrix_part wrong[2] = { imp_part[0], imp_part[1] };
    wrong[1].n_mat = EXPERTS - 1;
    put_imatrix("i.imatrix", wrong, 2);
    must_not(&o, ERR_MISMATCH, "entry blk.3.ffn_down_exps.weight has 25 x 256 values, expected 26");
    imp_mean[5 * COLS + 7] = NAN;
    put_imatrix("i.imatrix", imp_part, 2);
    must_not(&o, ERR_FORMAT, "entry blk.2.ffn_gate_exps.weight, vector 5, value 7 is ");
    make_importances(1);
    memset(imp_count, 0, sizeof imp_count);
    put_imatrix("i.imatrix", imp_part, 2);
    nothing_left(o.out);
    must_not(&o, ERR_MISMATCH, "entry blk.2.ffn_gate_exps.weight has no token for any input");
}

/* ---- numbers that are none ---- */

static void bad_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *tensor;
        int64_t at;
        int byte;
        const char *recipe, *text;
    } c[] = {
        { "layers.0.attn.wq_a.weight", 1000, 0x7f, LITTLE,
          "tensor layers.0.attn.wq_a.weight, row 3, element 232 is infinite or not a number" },
        { "layers.0.attn.wq_a.weight", 1000, 0xff, "*attn_q_a.weight Q8_0\n* keep",
          "tensor layers.0.attn.wq_a.weight, row 3, element 232 is infinite or not a number" },
        { "layers.0.attn.wq_a.weight", 1000, 0x7f, "*attn_q_a.weight Q4_K\n* keep",
          "tensor layers.0.attn.wq_a.weight, row 3, element 232 is infinite or not a number" },
        { "layers.2.ffn.experts.7.w1.scale", 17, 0xff, LITTLE,
          "tensor layers.2.ffn.experts.7.w1.weight, row 2, element 32 is infinite or not a" },
        { "layers.0.ffn.experts.7.w2.scale", 17, 0xff, LITTLE,
          "tensor layers.0.ffn.experts.7.w2.weight, row 2, element 32 is infinite or not a" },
        { "norm.weight", 9, 0x7f, LITTLE, /* with 0x80 or more below it: BF16 infinity or NaN */
          "tensor norm.weight, row 0, element 4 is " },
        { "norm.weight", 9, 0x60, "output_norm.weight F16\n* keep",
          "tensor norm.weight, row 0, element 4 is too large for F16" },
        { "layers.0.ffn.gate.tid2eid", 8 * 10, 200, LITTLE,
          "tensor layers.0.ffn.gate.tid2eid, row 2, element 2 is no expert's number" },
    };
    copy_pebble();
    poke("norm.weight", 8, 0x81);
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct quantize_options o = options(dir.path, "out.gguf");
        struct weights *w = open_or_fail(dir.path);
        int was = weights_find(w, c[i].tensor)->data[c[i].at];
        weights_close(w);
        scratch_put(&dir, "little", c[i].recipe, strlen(c[i].recipe));
        poke(c[i].tensor, c[i].at, c[i].byte);
        o.restart = true;
        must_not(&o, ERR_FORMAT, c[i].text);
        poke(c[i].tensor, c[i].at, was);
    }
}

/* What does not divide or is not there is refused before anything is written. */
static void shapes(void **state)
{
    (void)state;
    static const struct {
        const char *src, *recipe, *text;
        enum err_code code;
    } c[] = {
        { NANO, "q2", "tensor blk.0.ffn_gate_exps.weight has rows of 128, expected whole blocks of "
                      "256 for IQ2_XXS", ERR_UNSUPPORTED },
        { NANO, "*ffn_down_exps.weight Q2_K\n* keep",
          "tensor blk.0.ffn_down_exps.weight has rows of 64, expected whole blocks of 256 for Q2_K",
          ERR_UNSUPPORTED },
        { PEBBLE, "* Q8_0", "tensor output_norm.weight is a vector, expected F16, BF16 or F32",
          ERR_ARGUMENT },
        { PEBBLE, "*norm.weight F32\n*.bias F32\n*sinks* F32\n*_base* F32\n*_scale* F32\n* F16",
          "tensor blk.0.ffn_gate_tid2eid.weight holds numbers of experts, expected keep",
          ERR_ARGUMENT },
        { PEBBLE, "*exps* Q2_K weights=imatrix\n* keep",
          "tensor blk.0.ffn_gate_exps.weight wants an importance matrix, and none is given",
          ERR_ARGUMENT },
    };
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct quantize_options o = options(c[i].src, "out.gguf");
        if (strchr(c[i].recipe, ' '))
            scratch_put(&dir, "little", c[i].recipe, strlen(c[i].recipe));
        else
            o.recipe = c[i].recipe;
        must_not(&o, c[i].code, c[i].text);
        nothing_left(o.out);
    }
    struct quantize_options o = options("tests/data/oracle", "out.gguf");
    must_not(&o, ERR_IO, "config.json");
}

/* A GGUF that lacks a tensor. */
static void missing_tensor(void **state)
{
    (void)state;
    struct buf all, keys;
    struct dsv4_hyper h;
    true_hyper(&h, false);
    h.n_nextn = 0;
    buf_init(&keys, 1 << 20);
    uint64_t n_kv = true_keys(&h, &keys);
    put_head(&all, 1, n_kv);
    buf_add(&all, keys.data, keys.len);
    put_tensor(&all, "token_embd.weight", 2, 4096, 129280, DT_BF16, 0);
    put_data(&all, 32, 0);
    scratch_put(&dir, "m.gguf", all.data, all.len);
    assert_int_equal(truncate(in_dir("m.gguf"), (off_t)(all.len + (size_t)4096 * 129280 * 2)), 0);
    struct quantize_options o = options(in_dir("m.gguf"), "out.gguf");
    must_not(&o, ERR_FORMAT, "m.gguf: tensor output.weight is missing");
    buf_release(&all);
    buf_release(&keys);
}

/* ---- verify ---- */

static void verified(void **state)
{
    (void)state;
    struct quantize_options o = options(PEBBLE, "out.gguf");
    struct buf text, again;
    struct err e = { 0 };
    must(&o);
    buf_init(&text, 1 << 20);
    buf_init(&again, 1 << 20);
    if (quantize_verify(&o, &text, &e) < 0)
        fail_msg("%s", e.text);
    struct weights *old = open_or_fail(PEBBLE), *new = open_or_fail(o.out);
    double want = error_of(old, new, "blk.2.ffn_gate_exps.weight"), error, weighted;
    const char *line = strstr(text.data, "\nblk.2.ffn_gate_exps.weight ");
    assert_int_equal(sscanf(line, " %*s IQ2_XXS %lf %lf", &error, &weighted), 2);
    assert_true(fabs(error / want - 1) < 1e-5 && weighted < error && weighted > .5 * error);
    assert_null(strstr(text.data, "far"));
    /* with other threads, the same; a harmed tensor stands out or cannot be read */
    o.n_thread = 3;
    assert_int_equal(quantize_verify(&o, &again, &e), 0);
    assert_string_equal(text.data, again.data);
    int64_t at = weights_find(new, "blk.3.ffn_norm.weight")->offset;
    weights_close(old);
    weights_close(new);
    flip(o.out, at + 2);
    buf_clear(&again);
    assert_int_equal(quantize_verify(&o, &again, &e), 0);
    line = strstr(again.data, "\nblk.3.ffn_norm.weight ");
    assert_non_null(line);
    assert_true(strstr(line, "far from its kind") < strchr(line + 1, '\n'));
    scratch_put(&dir, "little", "* keep", 6);
    assert_int_equal(quantize_verify(&o, &again, &e), ERR_MISMATCH);
    assert_non_null(strstr(e.text, "out.gguf: tensor output.weight is Q8_0, the recipe says BF16"));
    buf_release(&text);
    buf_release(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(plans_without_a_model), CASE(plans_of_true_size), CASE(types_and_errors),
        CASE(sizes_come_true), CASE(threads_do_not_matter), CASE(from_gguf), CASE(draft_block),
        CASE(importance_matters), CASE(few_tokens), CASE(bad_importances), CASE(bad_numbers),
        CASE(shapes), CASE(missing_tensor), CASE(verified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
