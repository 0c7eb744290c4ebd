/* test_inspect.c - sums over the directories of the real models, which must equal what their
 * publisher states, and over small and foreign files. */
#include "unit/true_shapes.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "clock.h"
#include "offline.h"

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

static void look(struct inspect *x, const char *path)
{
    struct err e = { 0 };
    double start = clock_now_s();
    if (inspect_open(x, path, &e) < 0)
        fail_msg("%s", e.text);
    double took_s = clock_now_s() - start;
    print_message("%d tensors in %.3f s\n", x->total.n_tensor, took_s);
    /* Under a second on a slow core. The bound leaves room for emulators and sanitizers; a check
     * of every name against every other would take minutes. */
    assert_true(took_s < 20);
}

static void same_hyper(const struct dsv4_hyper *h, bool pro)
{
    struct dsv4_hyper want;
    true_hyper(&want, pro);
    for (int i = 0; i < dsv4_n_keys; i++) {
        size_t n = dsv4_keys[i].type == META_BOOL ? sizeof(bool) : 4, at = dsv4_keys[i].offset;
        if (memcmp((const char *)h + at, (const char *)&want + at, n) != 0)
            fail_msg("%s differs", dsv4_keys[i].config);
    }
    assert_memory_equal(h->ratio, want.ratio, sizeof want.ratio);
    assert_int_equal(h->cache_simulation, DSV4_CACHE_VENDOR);
}

/* Published: total_size of the index, tensors and parameters of the model card. */
static void flash_checkpoint(void **state)
{
    (void)state;
    struct inspect x;
    true_checkpoint(&dir, false);
    look(&x, dir.path);
    assert_int_equal(x.total.n_tensor, 69187);
    assert_int_equal(x.total.bytes, 159609485896);
    assert_int_equal(x.total.parameters, 290942289362);
    assert_int_equal(x.part[DSV4_PART_DRAFT].bytes, 3593787756);
    assert_int_equal(x.part[DSV4_PART_DRAFT].parameters, 6610048891);
    assert_int_equal(x.part[DSV4_PART_EMBEDDING].parameters, 529530880);
    assert_int_equal(x.part[DSV4_PART_ROUTED].parameters, (int64_t)43 * 256 * 3 * 4096 * 2048);
    assert_int_equal(x.part[DSV4_PART_HASH].bytes, 3 * 129280 * 6 * 8);
    assert_int_equal(x.part[DSV4_PART_HASH].parameters, 0);
    assert_int_equal(x.part[DSV4_PART_OTHER].n_tensor, 0);
    assert_true(x.has_hyper && x.has_mtp && !x.has_dspark);
    same_hyper(&x.hyper, false);
    inspect_close(&x);
}

static void pro_checkpoint(void **state)
{
    (void)state;
    struct inspect x;
    true_checkpoint(&dir, true);
    look(&x, dir.path);
    assert_int_equal(x.total.n_tensor, 145116);
    assert_int_equal(x.total.bytes, 864704792696);
    assert_int_equal(x.total.parameters, 1598837347742);
    assert_int_equal(x.part[DSV4_PART_DRAFT].parameters, 25840145979);
    assert_int_equal(x.type[0].type, DT_FP4);
    same_hyper(&x.hyper, true);
    inspect_close(&x);
}

/* The parameters are the checkpoint's; FP4 with its scales and MXFP4 take the same room. */
static void flash_gguf(void **state)
{
    (void)state;
    struct inspect x;
    true_gguf(&dir, "f.gguf", false, true, true_gguf_type);
    look(&x, scratch_file(&dir, "f.gguf"));
    assert_int_equal(x.total.parameters, 290942289362);
    assert_int_equal(x.part[DSV4_PART_ROUTED].bytes, (int64_t)43 * 256 * 3 * 4096 * 2048 / 32 * 17);
    assert_int_equal(x.part[DSV4_PART_OTHER].n_tensor, 0);
    assert_true(x.has_mtp && !x.text.found);
    assert_string_equal(x.architecture, "deepseek4");
    struct dsv4_hyper *h = &x.hyper;
    h->bos = 0; /* token ids are the tokenizer's in GGUF */
    h->eos = h->pad = 1;
    same_hyper(h, false);
    inspect_close(&x);
}

/* Published size of the 2-bit file: 86,720,111,488 bytes, a few MB of them its tokenizer. */
static void flash_2bit_gguf(void **state)
{
    (void)state;
    struct inspect x;
    true_gguf(&dir, "f.gguf", false, false, true_2bit_type);
    look(&x, scratch_file(&dir, "f.gguf"));
    assert_int_equal(x.total.parameters, 284332240471);
    assert_in_range(x.file_bytes, 86710000000, 86720111488);
    assert_int_equal(x.type[0].type, DT_IQ2_XXS);
    assert_false(x.has_mtp);
    inspect_close(&x);
}

static void a_table_and_json(void **state)
{
    (void)state;
    struct inspect x;
    struct buf text, json;
    true_gguf(&dir, "f.gguf", true, true, true_gguf_type);
    look(&x, scratch_file(&dir, "f.gguf"));
    buf_init(&text, 1 << 20);
    buf_init(&json, 1 << 20);
    inspect_text(&x, &text);
    inspect_json(&x, &json);
    assert_non_null(strstr(text.data, "routed experts"));
    assert_non_null(strstr(text.data, " 1,598,837,347,742\n"));
    assert_non_null(
        strstr(text.data, "compress_ratios                                31 x 128 30 x 4\n"));
    json_t *o = json_loadb(json.data, json.len, 0, NULL);
    json_t *parts = json_object_get(o, "parts");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(parts, "routed_experts"),
                                                        "parameters")),
                     (int64_t)61 * 384 * 3 * 7168 * 3072);
    json_t *hyper = json_object_get(o, "hyperparameters");
    assert_int_equal(json_integer_value(json_object_get(hyper, "index_topk")), 1024);
    assert_int_equal(json_array_size(json_object_get(hyper, "compress_ratios")), 61);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(o, "total"), "tensors")),
                     x.total.n_tensor);
    json_decref(o);
    buf_release(&text);
    buf_release(&json);
    inspect_close(&x);
}

static void foreign_file(void **state)
{
    (void)state;
    struct inspect x;
    struct buf b, json;
    put_head(&b, 1, 1);
    put_kv_str(&b, "general.architecture", "lla\xffma");
    put_tensor(&b, "blk.0.attn_q.weight", 2, 32, 2, DT_Q8_0, 0);
    put_data(&b, 32, 68);
    scratch_put(&dir, "x.gguf", b.data, b.len);
    look(&x, scratch_file(&dir, "x.gguf"));
    assert_false(x.has_hyper);
    assert_non_null(strstr(x.problem, "this program computes only \"deepseek4\""));
    assert_int_equal(x.part[DSV4_PART_OTHER].bytes, 68);
    assert_int_equal(x.total.parameters, 64);
    buf_init(&json, 1 << 16);
    inspect_json(&x, &json);
    json_t *o = json_loadb(json.data, json.len, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(o, "architecture")), "lla?ma");
    json_decref(o);
    buf_release(&json);
    buf_release(&b);
    inspect_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(flash_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(pro_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(flash_gguf, setup, teardown),
        cmocka_unit_test_setup_teardown(flash_2bit_gguf, setup, teardown),
        cmocka_unit_test_setup_teardown(a_table_and_json, setup, teardown),
        cmocka_unit_test_setup_teardown(foreign_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
