/* test_gguf_write.c - the writer against bytes put together by hand, and against the reader. */
#include "unit/scratch_dir.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gguf_read.h"
#include "gguf_write.h"
#include "unit/gguf_bytes.h"

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

static void must(int rc, const struct err *e)
{
    if (rc < 0)
        fail_msg("%s", e->text);
}

/* Two tensors in pieces, back to front; the same file by hand. */
static void same_bytes(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct err e = { 0 };
    uint8_t data[300];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    char path[600];
    snprintf(path, sizeof path, "%s", scratch_file(&dir, "w.gguf"));
    must(gguf_write_open(&w, path, &e), &e);
    w.alignment = 64;
    gguf_put_str(&w, "general.architecture", "deepseek4");
    gguf_put_u32(&w, "n", 7);
    must(gguf_add_tensor(&w, "a.weight", DT_Q8_0, 2, (int64_t[]){ 64, 3 }, &e), &e);
    assert_int_equal(gguf_add_tensor(&w, "b", DT_F32, 1, (int64_t[]){ 5 }, &e), 1);
    assert_int_equal(gguf_tensor_bytes(&w, 0), 204);
    must(gguf_write_begin(&w, &e), &e);
    must(gguf_write_data(&w, 1, 0, data, 20, &e), &e);
    must(gguf_write_data(&w, 0, 100, data + 100, 104, &e), &e);
    must(gguf_write_data(&w, 0, 0, data, 100, &e), &e);
    assert_false(file_exists(path));
    must(gguf_write_finish(&w, &e), &e);

    struct buf want, got;
    put_head(&want, 2, 3);
    put_kv_str(&want, "general.architecture", "deepseek4");
    put_kv_u32(&want, "n", 7);
    put_kv_u32(&want, "general.alignment", 64);
    put_tensor(&want, "a.weight", 2, 64, 3, DT_Q8_0, 0);
    put_tensor(&want, "b", 1, 5, 0, DT_F32, 256);
    put_data(&want, 64, 204);
    while (want.len % 64)
        buf_putc(&want, 0);
    put_data(&want, 64, 20);
    while (want.len % 64)
        buf_putc(&want, 0);
    buf_init(&got, 1 << 20);
    must(file_read_all(&got, path, &e), &e);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.data, want.data, want.len);
    buf_release(&want);
    buf_release(&got);
}

static void metadata_round_trip(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct gguf g, again;
    struct err e = { 0 };
    struct buf one, two;
    must(gguf_write_open(&w, scratch_file(&dir, "1.gguf"), &e), &e);
    gguf_put_f32(&w, "f", 1e-6f);
    gguf_put_bool(&w, "yes", true);
    gguf_put_i32s(&w, "ratios", (int32_t[]){ 0, -4, 128 }, 3);
    gguf_put_f32s(&w, "clamp", (float[]){ 10.0f, 1.5f }, 2);
    gguf_put_strs(&w, "tokens", 3);
    gguf_put_item(&w, "a", 1);
    gguf_put_item(&w, "", 0);
    gguf_put_item(&w, "b\0c", 3);
    gguf_put_u32(&w, "big", UINT32_MAX);
    gguf_put_kv(&w, &(struct meta_kv){ "i64", META_INT, true, 2,
                                       { (int64_t[]){ INT64_MIN, INT64_MAX } } });
    gguf_put_kv(&w, &(struct meta_kv){ "u64", META_INT, false, 1, { (int64_t[]){ INT64_MAX } } });
    must(gguf_write_begin(&w, &e), &e);
    must(gguf_write_finish(&w, &e), &e);
    buf_init(&one, 1 << 20);
    must(file_read_all(&one, scratch_file(&dir, "1.gguf"), &e), &e);
    must(gguf_parse(&g, "1", (const uint8_t *)one.data, one.len, &e), &e);
    assert_int_equal(meta_count(g.meta), 8);
    assert_int_equal(meta_find(g.meta, "i64")->v.i[0], INT64_MIN);
    assert_int_equal(meta_find(g.meta, "i64")->v.i[1], INT64_MAX);
    assert_int_equal(meta_find(g.meta, "u64")->v.i[0], INT64_MAX);
    assert_true((float)meta_find(g.meta, "f")->v.f[0] == 1e-6f);
    assert_int_equal(meta_find(g.meta, "ratios")->v.i[1], -4);
    assert_int_equal(meta_find(g.meta, "tokens")->v.s[2].len, 3);
    assert_memory_equal(meta_find(g.meta, "tokens")->v.s[2].data, "b\0c", 3);

    must(gguf_write_open(&w, scratch_file(&dir, "2.gguf"), &e), &e);
    for (int i = 0; i < meta_count(g.meta); i++)
        gguf_put_kv(&w, meta_at(g.meta, i));
    must(gguf_write_begin(&w, &e), &e);
    must(gguf_write_finish(&w, &e), &e);
    buf_init(&two, 1 << 20);
    must(file_read_all(&two, scratch_file(&dir, "2.gguf"), &e), &e);
    must(gguf_parse(&again, "2", (const uint8_t *)two.data, two.len, &e), &e);
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.data, two.data, one.len);
    gguf_release(&g);
    gguf_release(&again);
    buf_release(&one);
    buf_release(&two);
}

static void no_room_no_file(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct err e = { 0 };
    char path[600];
    snprintf(path, sizeof path, "%s", scratch_file(&dir, "w.gguf"));
    must(gguf_write_open(&w, path, &e), &e);
    must(gguf_add_tensor(&w, "huge", DT_F32, 2, (int64_t[]){ 1 << 25, 1 << 25 }, &e), &e);
    assert_int_equal(gguf_write_begin(&w, &e), ERR_NO_MEMORY);
    assert_non_null(strstr(e.text, "w.gguf: needs 4503599627370592 bytes, its file system has "));
    gguf_write_abort(&w);
    gguf_write_abort(&w);
    assert_false(file_exists(path));
    assert_false(file_exists(scratch_file(&dir, "w.gguf.part")));
    e.code = ERR_NONE;
    assert_int_equal(gguf_write_open(&w, "/nonexistent/w.gguf", &e), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(same_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(no_room_no_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
