/* test_weights.c - whole models on disk: checkpoint folders, split GGUF, scales, and what is
 * missing or contradicts itself. */
#include "unit/scratch_dir.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "unit/gguf_bytes.h"
#include "weights.h"

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

static void put_text(const char *name, const char *text)
{
    scratch_put(&dir, name, text, strlen(text));
}

static void put_shard(const char *name, const char *header, size_t n)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    put_le(&b, strlen(header), 8);
    buf_puts(&b, header);
    for (size_t i = 0; i < n; i++)
        buf_putc(&b, (char)i);
    scratch_put(&dir, name, b.data, b.len);
    buf_release(&b);
}

static void refuse(const char *path, enum err_code code, const char *words)
{
    struct weights *w;
    struct err e = { 0 };
    int rc = weights_open(&w, path, &e);
    if (rc != (int)code || !strstr(e.text, words))
        fail_msg("got %d \"%s\", expected %d \"%s\"", rc, e.text, (int)code, words);
    assert_null(w);
}

#define ENTRY(name, dtype, shape, from, to)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to   \
    "]}"

static void good_checkpoint(void)
{
    put_text("config.json",
             "{\"hidden_size\":128,\"eps\":1e-6,\"scaling\":{\"type\":\"yarn\",\"factor\":16},"
             "\"ratios\":[0,4,128],\"mixed\":[1,2.5],\"flag\":true,\"nothing\":null,\"none\":[]}");
    put_text("tokenizer.json", "{}");
    put_text("model.safetensors.index.json",
             "{\"metadata\":{},\"weight_map\":{\"q.weight\":\"a.safetensors\","
             "\"q.scale\":\"b.safetensors\",\"e.weight\":\"b.safetensors\","
             "\"e.scale\":\"b.safetensors\",\"n.weight\":\"a.safetensors\"}}");
    /* q: 3 rows of 130 columns, so the tiles are [1][2]. e: 2 rows of 64 elements. */
    put_shard("a.safetensors",
              "{" ENTRY("q.weight", "F8_E4M3", "[3,130]", 0, 390) ","
                  ENTRY("n.weight", "BF16", "[5]", 390, 400) "}", 400);
    put_shard("b.safetensors",
              "{" ENTRY("q.scale", "F8_E8M0", "[1,2]", 0, 2) ","
                  ENTRY("e.weight", "I8", "[2,32]", 2, 66) ","
                  ENTRY("e.scale", "F8_E8M0", "[2,2]", 66, 70) "}", 70);
}

static void checkpoint(void **state)
{
    (void)state;
    struct weights *w;
    struct err e = { 0 };
    good_checkpoint();
    if (weights_open(&w, dir.path, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(weights_kind(w), WEIGHTS_CHECKPOINT);
    assert_int_equal(weights_count(w), 5);
    assert_int_equal(weights_n_file(w), 2);
    assert_non_null(strstr(weights_file(w, 1), "/b.safetensors"));
    assert_string_equal(weights_tokenizer_path(w), scratch_file(&dir, "tokenizer.json"));
    const struct weight *q = weights_find(w, "q.weight"), *x = weights_find(w, "e.weight");
    const struct weight *qs = weights_find(w, "q.scale"), *xs = weights_find(w, "e.scale");
    assert_true(q->type == DT_F8_E4M3 && q->scale == qs->data && q->scale_pitch == 2);
    assert_int_equal(q->file, 0);
    assert_int_equal(qs->file, 1);
    assert_true(x->type == DT_FP4 && x->dim[0] == 64 && x->dim[1] == 2 && x->bytes == 64);
    assert_true(x->scale == xs->data && x->scale_pitch == 2);
    assert_int_equal(x->data[0], 2);
    assert_null(weights_find(w, "absent"));
    assert_null(weights_find(w, "n.weight")->scale);
    weights_close(w);
}

static void config_as_metadata(void **state)
{
    (void)state;
    struct weights *w;
    struct err e = { 0 };
    int64_t i;
    double f;
    good_checkpoint();
    assert_int_equal(weights_open(&w, dir.path, &e), 0);
    const struct meta *m = weights_meta(w);
    assert_int_equal(meta_int(m, "hidden_size", &i, &e), 0);
    assert_int_equal(i, 128);
    assert_int_equal(meta_float(m, "eps", &f, &e), 0);
    assert_true(f == 1e-6);
    assert_string_equal(meta_str(m, "scaling.type"), "yarn");
    assert_int_equal(meta_float(m, "scaling.factor", &f, &e), 0);
    assert_true(f == 16.0);
    const struct meta_kv *kv = meta_find(m, "ratios");
    assert_true(kv->type == META_INT && kv->is_array && kv->n == 3 && kv->v.i[2] == 128);
    kv = meta_find(m, "mixed");
    assert_true(kv->type == META_FLOAT && kv->n == 2 && kv->v.f[1] == 2.5);
    assert_int_equal(meta_int(m, "flag", &i, &e), 0);
    assert_int_equal(i, 1);
    assert_int_equal(meta_int_or(m, "nothing", 7, &i, &e), 0);
    assert_int_equal(i, 7);
    kv = meta_find(m, "none");
    assert_true(kv->type == META_NONE && kv->is_array && kv->n == 0);
    assert_int_equal(meta_int(m, "eps", &i, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "key eps is a number with a fraction, expected an integer"));
    weights_close(w);
}

static void damaged_checkpoints(void **state)
{
    (void)state;
    good_checkpoint();
    scratch_remove(&dir, "b.safetensors");
    refuse(dir.path, ERR_IO, "b.safetensors: is missing, but");

    good_checkpoint();
    put_shard("b.safetensors", "{" ENTRY("q.scale", "F8_E8M0", "[1,2]", 0, 2) "}", 2);
    refuse(dir.path, ERR_FORMAT,
           "names tensor e.weight in b.safetensors, which does not hold it (no file does)");

    good_checkpoint();
    put_text("model.safetensors.index.json",
             "{\"weight_map\":{\"q.weight\":\"b.safetensors\",\"n.weight\":\"a.safetensors\"}}");
    refuse(
        dir.path, ERR_FORMAT,
        "names tensor q.weight in b.safetensors, which does not hold it (it is in a.safetensors)");
    put_text("model.safetensors.index.json",
             "{\"weight_map\":{\"q.weight\":\"a.safetensors\",\"q.scale\":\"b.safetensors\"}}");
    refuse(dir.path, ERR_FORMAT, "does not name tensor n.weight, which");
    put_text("model.safetensors.index.json", "{\"weight_map\":");
    refuse(dir.path, ERR_FORMAT, "model.safetensors.index.json: header, byte");

    good_checkpoint();
    put_shard("b.safetensors",
              "{" ENTRY("q.scale", "F8_E8M0", "[1,2]", 0, 2) ","
                  ENTRY("q.weight", "I8", "[1]", 2, 3) "}", 3);
    refuse(dir.path, ERR_FORMAT, "b.safetensors: tensor q.weight is also in ");

    good_checkpoint();
    put_text("config.json", "{\"hidden_size\": 12");
    refuse(dir.path, ERR_FORMAT, "config.json: line 1:");
    put_text("config.json", "[]");
    refuse(dir.path, ERR_FORMAT, "config.json: is not a JSON object");
    put_text("config.json", "{\"a\":{\"b\":1},\"a.b\":2}");
    refuse(dir.path, ERR_FORMAT, "config.json: key a.b occurs twice");
    scratch_remove(&dir, "config.json");
    refuse(dir.path, ERR_IO, "config.json: cannot open");
}

/* The same model in one file, which is where scales go wrong one at a time. */
static void scales(void **state)
{
    (void)state;
    put_text("config.json", "{}");
    refuse(dir.path, ERR_IO, "holds neither model.safetensors.index.json nor model.safetensors");
    put_shard("model.safetensors", "{" ENTRY("q.weight", "F8_E4M3", "[3,130]", 0, 390) "}", 390);
    refuse(dir.path, ERR_FORMAT, "tensor q.weight is FP8, but there is no tensor q.scale");
    put_shard("model.safetensors", "{" ENTRY("e.weight", "I8", "[2,32]", 0, 64) "}", 64);
    refuse(dir.path, ERR_FORMAT,
           "tensor e.weight is packed FP4 (I8), but there is no tensor e.scale");
    put_shard("model.safetensors",
              "{" ENTRY("q.weight", "F8_E4M3", "[3,130]", 0, 390) ","
                  ENTRY("q.scale", "F8_E8M0", "[2,1]", 390, 392) "}", 392);
    refuse(dir.path, ERR_FORMAT,
           "tensor q.scale has shape [2, 1], expected [1, 2] for the scales of q.weight");
    put_shard("model.safetensors",
              "{" ENTRY("q.weight", "F8_E4M3", "[3,130]", 0, 390) ","
                  ENTRY("q.scale", "F32", "[1,2]", 390, 398) "}", 398);
    refuse(dir.path, ERR_UNSUPPORTED, "tensor q.scale has dtype F32, expected F8_E8M0");
    put_shard("model.safetensors",
              "{" ENTRY("e.weight", "I8", "[2,32]", 0, 64) ","
                  ENTRY("e.scale", "F8_E8M0", "[2,1]", 64, 66) "}", 66);
    refuse(dir.path, ERR_FORMAT, "tensor e.scale has shape [2, 1], expected [2, 2]");
    put_shard("model.safetensors",
              "{" ENTRY("e.weight", "I8", "[2,17]", 0, 34) ","
                  ENTRY("e.scale", "F8_E8M0", "[2,1]", 34, 36) "}", 36);
    refuse(dir.path, ERR_FORMAT,
           "tensor e.weight has rows of 34 elements, expected whole blocks of 32");
    put_shard("model.safetensors", "{" ENTRY("ids", "I8", "[2,32]", 0, 64) "}", 64);
    struct weights *w;
    struct err e = { 0 };
    assert_int_equal(weights_open(&w, dir.path, &e), 0);
    assert_int_equal(weights_at(w, 0)->type, DT_I8);
    assert_null(weights_tokenizer_path(w));
    weights_close(w);
    refuse(scratch_file(&dir, "model.safetensors"), ERR_ARGUMENT,
           "give the folder with config.json");
}

/* Part `no` (from 0) of `count`, one tensor each; total: split.tensors.count. */
static void put_part(const char *name, int no, int count, int total, const char *tensor,
                     const char *architecture)
{
    struct buf b;
    put_head(&b, 1, count ? 4 : 1);
    put_kv_str(&b, "general.architecture", architecture);
    if (count) {
        put_kv_u32(&b, "split.no", (uint32_t)no);
        put_kv_u32(&b, "split.count", (uint32_t)count);
        put_kv_u32(&b, "split.tensors.count", (uint32_t)total);
    }
    put_tensor(&b, tensor, 1, 8, 0, DT_F32, 0);
    put_data(&b, 32, 32);
    scratch_put(&dir, name, b.data, b.len);
    buf_release(&b);
}

static void numbered_parts(void **state)
{
    (void)state;
    struct weights *w;
    struct err e = { 0 };
    put_part("m-00001-of-00003.gguf", 0, 3, 3, "a", "x");
    put_part("m-00002-of-00003.gguf", 1, 3, 3, "b", "x");
    put_part("m-00003-of-00003.gguf", 2, 3, 3, "c", "x");
    if (weights_open(&w, scratch_file(&dir, "m-00002-of-00003.gguf"), &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(weights_n_file(w), 3);
    assert_int_equal(weights_count(w), 3);
    assert_string_equal(weights_at(w, 0)->name, "a");
    assert_int_equal(weights_find(w, "c")->file, 2);
    assert_int_equal(weights_kind(w), WEIGHTS_GGUF);
    assert_string_equal(meta_str(weights_meta(w), "general.architecture"), "x");
    weights_close(w);

    put_part("m-00002-of-00003.gguf", 1, 3, 3, "a", "x");
    refuse(scratch_file(&dir, "m-00001-of-00003.gguf"), ERR_FORMAT, "tensor a is also in");
    put_part("m-00002-of-00003.gguf", 2, 3, 3, "b", "x");
    refuse(scratch_file(&dir, "m-00001-of-00003.gguf"), ERR_FORMAT,
           "states split.no 2 of split.count 3, expected 1 of 3");
    put_part("m-00002-of-00003.gguf", 1, 3, 3, "b", "y");
    refuse(scratch_file(&dir, "m-00001-of-00003.gguf"), ERR_MISMATCH,
           "has architecture y, expected x");
    put_part("m-00002-of-00003.gguf", 1, 3, 3, "b", "x");
    put_part("m-00001-of-00003.gguf", 0, 3, 4, "a", "x");
    refuse(scratch_file(&dir, "m-00001-of-00003.gguf"), ERR_FORMAT,
           "states split.tensors.count 4, the parts hold 3");
    scratch_remove(&dir, "m-00003-of-00003.gguf");
    refuse(scratch_file(&dir, "m-00001-of-00003.gguf"), ERR_IO,
           "m-00003-of-00003.gguf: is missing, part 3 of 3");
    put_part("renamed.gguf", 0, 3, 3, "a", "x");
    refuse(scratch_file(&dir, "renamed.gguf"), ERR_FORMAT,
           "is part 1 of 3, but is not named NAME-00001-of-00003.gguf");
}

static void layer_parts(void **state)
{
    (void)state;
    struct weights *w;
    struct err e = { 0 };
    put_part("P-Q4K-Layers00-30.gguf", 0, 0, 0, "a", "x");
    put_part("P-Q4K-Layers-31-output.gguf", 0, 0, 0, "b", "x");
    put_part("Q-Q4K-Layers-31-output.gguf", 0, 0, 0, "z", "x");
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "P-Q4K-Layers00-30.gguf" : "P-Q4K-Layers-31-output.gguf";
        if (weights_open(&w, scratch_file(&dir, name), &e) < 0)
            fail_msg("%s", e.text);
        assert_int_equal(weights_n_file(w), 2);
        assert_string_equal(weights_at(w, 0)->name, "a");
        assert_string_equal(weights_at(w, 1)->name, "b");
        weights_close(w);
    }
    refuse(scratch_file(&dir, "Q-Q4K-Layers-31-output.gguf"), ERR_IO,
           "the part with layer 0 is missing beside it");
    put_part("P-Q4K-Layers31-60.gguf", 0, 0, 0, "c", "x");
    refuse(scratch_file(&dir, "P-Q4K-Layers00-30.gguf"), ERR_FORMAT, "hold layer 31");
    /* A file that only mentions layers is one model. */
    put_part("F-Layers37-42Q4K-OtherLayersQ2.gguf", 0, 0, 0, "a", "x");
    assert_int_equal(
        weights_open(&w, scratch_file(&dir, "F-Layers37-42Q4K-OtherLayersQ2.gguf"), &e), 0);
    assert_int_equal(weights_n_file(w), 1);
    weights_close(w);
}

static void no_file(void **state)
{
    (void)state;
    refuse("/nonexistent/x.gguf", ERR_IO, "/nonexistent/x.gguf: cannot open");
    scratch_put(&dir, "empty.gguf", "", 0);
    refuse(scratch_file(&dir, "empty.gguf"), ERR_FORMAT,
           "empty.gguf: ends at byte 0 inside the magic");
    struct buf b;
    put_head(&b, 0, 0);
    scratch_put(&dir, "none.gguf", b.data, b.len);
    buf_release(&b);
    refuse(scratch_file(&dir, "none.gguf"), ERR_FORMAT, "none.gguf: holds 0 tensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(config_as_metadata, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_checkpoints, setup, teardown),
        cmocka_unit_test_setup_teardown(scales, setup, teardown),
        cmocka_unit_test_setup_teardown(numbered_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(layer_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(no_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
