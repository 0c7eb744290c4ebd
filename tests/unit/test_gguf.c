/* test_gguf.c - the GGUF reader: what it takes apart, and what it refuses with which words. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "gguf_read.h"
#include "unit/gguf_bytes.h"

static int parse(struct gguf *g, const struct buf *b, struct err *e)
{
    e->code = ERR_NONE;
    return gguf_parse(g, "x.gguf", (const uint8_t *)b->data, b->len, e);
}

/* Parse, expect the error and that its text holds `words`. */
static void refuse(struct buf *b, enum err_code code, const char *words)
{
    struct gguf g;
    struct err e;
    int rc = parse(&g, b, &e);
    if (rc != (int)code || !strstr(e.text, words) || strncmp(e.text, "x.gguf: ", 8) != 0)
        fail_msg("got %d \"%s\", expected %d \"%s\"", rc, rc < 0 ? e.text : "", (int)code, words);
    assert_null(strchr(e.text, '\n'));
    assert_null(g.tensor);
    buf_release(b);
}

static void put_array(struct buf *b, const char *key, int type, uint64_t n)
{
    put_str(b, key);
    put_le(b, 9, 4);
    put_le(b, (uint64_t)type, 4);
    put_le(b, n, 8);
}

static void all_value_types(void **state)
{
    (void)state;
    struct buf b;
    put_head(&b, 0, 14);
    const struct { const char *key; int type, bytes; uint64_t bits; } kv[] = {
        { "u8", 0, 1, 250 },      { "i8", 1, 1, 250 },
        { "u16", 2, 2, 65000 },   { "i16", 3, 2, 65000 },
        { "u32", 4, 4, 4000000000u }, { "i32", 5, 4, 4000000000u },
        { "f32", 6, 4, 0x3fc00000 }, { "bool", 7, 1, 1 },
        { "u64", 10, 8, 1ull << 62 }, { "i64", 11, 8, (uint64_t)-5 },
        { "f64", 12, 8, 0x3ff8000000000000u },
    };
    for (size_t i = 0; i < COUNT_OF(kv); i++) {
        put_str(&b, kv[i].key);
        put_le(&b, (uint64_t)kv[i].type, 4);
        put_le(&b, kv[i].bits, kv[i].bytes);
    }
    put_kv_str(&b, "str", "h\xc3\xa9llo");
    put_array(&b, "strs", 8, 2);
    put_str(&b, "one");
    put_str(&b, "");
    put_array(&b, "i32s", 5, 3);
    put_le(&b, 0, 4);
    put_le(&b, 4, 4);
    put_le(&b, 128, 4);

    struct gguf g;
    struct err e = { 0 };
    assert_int_equal(parse(&g, &b, &e), 0);
    const struct { const char *key; int64_t want; } ints[] = {
        { "u8", 250 }, { "i8", -6 }, { "u16", 65000 }, { "i16", -536 }, { "u32", 4000000000 },
        { "i32", -294967296 }, { "bool", 1 }, { "u64", (int64_t)1 << 62 }, { "i64", -5 },
    };
    int64_t i;
    double f;
    for (size_t k = 0; k < COUNT_OF(ints); k++) {
        assert_int_equal(meta_int(g.meta, ints[k].key, &i, &e), 0);
        assert_int_equal(i, ints[k].want);
    }
    assert_int_equal(meta_float(g.meta, "f32", &f, &e), 0);
    assert_true(f == 1.5);
    assert_int_equal(meta_float(g.meta, "f64", &f, &e), 0);
    assert_true(f == 1.5);
    assert_string_equal(meta_str(g.meta, "str"), "h\xc3\xa9llo");
    const struct meta_kv *strs = meta_find(g.meta, "strs"), *i32s = meta_find(g.meta, "i32s");
    assert_true(strs->is_array && strs->n == 2 && strs->v.s[1].len == 0);
    assert_string_equal(strs->v.s[0].data, "one");
    assert_true(i32s->is_array && i32s->n == 3 && i32s->v.i[2] == 128);
    assert_int_equal(meta_count(g.meta), 14);
    assert_string_equal(meta_at(g.meta, 0)->key, "u8");
    gguf_release(&g);
    buf_release(&b);
}

static void typed_reads(void **state)
{
    (void)state;
    struct buf b;
    put_head(&b, 0, 2);
    put_kv_str(&b, "name", "x");
    put_kv_u32(&b, "n", 7);
    struct gguf g;
    struct err e = { 0 };
    int64_t i;
    double f;
    assert_int_equal(parse(&g, &b, &e), 0);
    assert_int_equal(meta_int(g.meta, "absent", &i, &e), ERR_FORMAT);
    assert_string_equal(e.text, "x.gguf: key absent is missing");
    e.code = ERR_NONE;
    assert_int_equal(meta_int(g.meta, "name", &i, &e), ERR_FORMAT);
    assert_string_equal(e.text, "x.gguf: key name is a string, expected an integer");
    assert_int_equal(meta_int_or(g.meta, "absent", 9, &i, &e), 0);
    assert_int_equal(i, 9);
    assert_int_equal(meta_float_or(g.meta, "n", 1.5, &f, &e), 0);
    assert_true(f == 7.0);
    assert_null(meta_str(g.meta, "n"));
    gguf_release(&g);
    buf_release(&b);
}

/* Two tensors, alignment 64. */
static void good(struct buf *b)
{
    put_head(b, 2, 2);
    put_kv_u32(b, "general.alignment", 64);
    put_kv_str(b, "general.architecture", "deepseek4");
    put_tensor(b, "a.weight", 2, 64, 3, DT_Q8_0, 0);
    put_tensor(b, "b.weight", 1, 5, 0, DT_F32, 256);
    put_data(b, 64, 256 + 20);
}

static void tensors(void **state)
{
    (void)state;
    struct buf b;
    struct gguf g;
    struct err e = { 0 };
    good(&b);
    assert_int_equal(parse(&g, &b, &e), 0);
    assert_int_equal(g.n_tensor, 2);
    assert_int_equal(g.version, 3);
    assert_int_equal(g.data_at % 64, 0);
    const struct weight *a = &g.tensor[0], *c = &g.tensor[1];
    assert_string_equal(a->name, "a.weight");
    assert_int_equal(a->type, DT_Q8_0);
    assert_int_equal(a->n_dim, 2);
    assert_true(a->dim[0] == 64 && a->dim[1] == 3 && a->dim[2] == 1 && a->dim[3] == 1);
    assert_int_equal(a->bytes, 2 * 34 * 3);
    assert_int_equal(c->bytes, 20);
    assert_ptr_equal(c->data, (const uint8_t *)b.data + c->offset);
    assert_int_equal(c->data[1], 1);
    gguf_release(&g);
    buf_release(&b);
}

/* Whatever is cut off, the reader says so and touches nothing beyond. */
static void every_truncation(void **state)
{
    (void)state;
    struct buf b;
    good(&b);
    for (size_t n = 0; n < b.len; n++) {
        struct gguf g;
        struct err e = { 0 };
        uint8_t *exact = malloc(n ? n : 1);
        assert_non_null(exact);
        memcpy(exact, b.data, n);
        assert_int_equal(gguf_parse(&g, "x.gguf", exact, n, &e), ERR_FORMAT);
        assert_true(strlen(e.text) > 20);
        free(exact);
    }
    buf_release(&b);
}

static void one_tensor(struct buf *b, int n_dim, uint64_t d0, uint64_t d1, int type, uint64_t at)
{
    put_head(b, 1, 0);
    put_tensor(b, "t", n_dim, d0, d1, type, at);
    put_data(b, 32, 1024);
}

static void bad_headers(void **state)
{
    (void)state;
    struct buf b;
    put_head(&b, 0, 0);
    b.data[0] = 'X';
    refuse(&b, ERR_FORMAT, "starts with bytes 58 47 55 46, expected \"GGUF\"");
    put_head(&b, 0, 0);
    b.data[4] = 1;
    refuse(&b, ERR_UNSUPPORTED, "is GGUF version 1, expected 2 or 3");
    put_head(&b, 0, 0);
    memcpy(b.data + 4, "\0\0\0\3", 4);
    refuse(&b, ERR_UNSUPPORTED, "is big-endian");
    put_head(&b, UINT64_MAX, 0);
    refuse(&b, ERR_FORMAT, "the number of tensors is 18446744073709551615, expected at most 0");
    put_head(&b, 0, 1ull << 40);
    refuse(&b, ERR_FORMAT, "the number of metadata entries is 1099511627776, expected at most 0");
    put_head(&b, 3, 0);
    put_data(&b, 32, 64);
    refuse(&b, ERR_FORMAT, "the number of tensors is 3, expected at most 2 in the 80 bytes left");
    put_head(&b, 3, 1);
    put_kv_str(&b, "k", "a value that takes the room the tensors would need, were they there");
    put_data(&b, 32, 64);
    refuse(&b, ERR_FORMAT, "3 tensors, expected at most 2 in the");
}

static void bad_metadata(void **state)
{
    (void)state;
    struct buf b;
    put_head(&b, 0, 1);
    put_le(&b, 1ull << 60, 8);
    put_data(&b, 32, 64);
    refuse(&b, ERR_FORMAT, "a metadata key is 1152921504606846976, expected at most");
    put_head(&b, 0, 1);
    put_str(&b, "");
    put_data(&b, 32, 64);
    refuse(&b, ERR_FORMAT, "a metadata key at byte 24 has 0 bytes");
    put_head(&b, 0, 1);
    put_str(&b, "k");
    put_le(&b, 13, 4);
    put_data(&b, 32, 64);
    refuse(&b, ERR_FORMAT, "key k has value type 13, expected 0 to 12");
    put_head(&b, 0, 1);
    put_array(&b, "k", 4, 1ull << 61);
    put_data(&b, 32, 64);
    refuse(&b, ERR_FORMAT, "the array length of k is 2305843009213693952, expected at most");
    put_head(&b, 0, 1);
    put_array(&b, "k", 9, 1);
    put_data(&b, 32, 64);
    refuse(&b, ERR_UNSUPPORTED, "key k is an array of arrays");
    put_head(&b, 0, 1);
    put_array(&b, "k", 0, (1 << 24) + 1);
    put_data(&b, 32, (1 << 24) + 64);
    refuse(&b, ERR_LIMIT, "key k has 16777217 elements");
    put_head(&b, 0, 1);
    put_str(&b, "k");
    put_le(&b, 8, 4);
    put_le(&b, 1ull << 33, 8);
    put_data(&b, 32, 64);
    refuse(&b, ERR_FORMAT, "a string's length of k is 8589934592, expected at most");
    put_head(&b, 0, 1);
    put_str(&b, "k");
    put_le(&b, 7, 4);
    put_le(&b, 2, 1);
    refuse(&b, ERR_FORMAT, "key k is a bool of value 2");
    put_head(&b, 0, 1);
    put_str(&b, "k");
    put_le(&b, 10, 4);
    put_le(&b, UINT64_MAX, 8);
    refuse(&b, ERR_FORMAT, "key k is 18446744073709551615, expected less than 2^63");
    put_head(&b, 0, 2);
    put_kv_u32(&b, "k\n\033[2J", 1);
    put_kv_u32(&b, "k\n\033[2J", 1);
    refuse(&b, ERR_FORMAT, "key k??[2J occurs twice");
    put_head(&b, 0, 1);
    put_kv_u32(&b, "general.alignment", 12);
    refuse(&b, ERR_FORMAT, "general.alignment is 12, expected a multiple of 8");
}

static void bad_tensors(void **state)
{
    (void)state;
    struct buf b;
    one_tensor(&b, 5, 32, 1, DT_F32, 0);
    refuse(&b, ERR_FORMAT, "tensor t has 5 dimensions, expected 1 to 4");
    one_tensor(&b, 0, 32, 1, DT_F32, 0);
    refuse(&b, ERR_FORMAT, "tensor t has 0 dimensions");
    one_tensor(&b, 2, 0, 4, DT_F32, 0);
    refuse(&b, ERR_FORMAT, "tensor t has shape [4, 0], expected no empty dimension");
    one_tensor(&b, 2, 1ull << 40, 1ull << 40, DT_F32, 0);
    refuse(&b, ERR_FORMAT, "more than 2^63 elements");
    one_tensor(&b, 2, 1ull << 31, 1ull << 31, DT_F32, 0);
    refuse(&b, ERR_FORMAT, "more than 2^63 bytes");
    one_tensor(&b, 1, 1ull << 63, 1, DT_F32, 0);
    refuse(&b, ERR_FORMAT, "tensor t has dimension 9223372036854775808");
    one_tensor(&b, 2, 48, 4, DT_Q8_0, 0);
    refuse(&b, ERR_FORMAT, "rows of 48 elements, expected whole blocks of 32 for Q8_0");
    one_tensor(&b, 2, 32, 4, 3, 0);
    refuse(&b, ERR_UNSUPPORTED, "tensor t has type 3, known are 0 F32, 1 F16, 2 Q4_0, 8 Q8_0,");
    one_tensor(&b, 2, 32, 4, DT_FP4, 0);
    refuse(&b, ERR_UNSUPPORTED, "tensor t has type 1002, known are");
    one_tensor(&b, 2, 32, 4, DT_F32, 8);
    refuse(&b, ERR_FORMAT, "tensor t has offset 8, expected a multiple of 32");
    one_tensor(&b, 2, 32, 8, DT_F32, 32);
    refuse(&b, ERR_FORMAT, "1024 bytes from byte 32 of the data, expected to end by 1024");
    one_tensor(&b, 2, 32, 8, DT_F32, 1ull << 62);
    refuse(&b, ERR_FORMAT, "from byte 4611686018427387904 of the data, expected to end by 1024");

    put_head(&b, 2, 0);
    put_tensor(&b, "a", 1, 32, 0, DT_F32, 32);
    put_tensor(&b, "b", 1, 32, 0, DT_F32, 0);
    put_data(&b, 32, 1024);
    refuse(&b, ERR_FORMAT, "lies inside tensor b (128 bytes from");
    put_head(&b, 2, 0);
    put_tensor(&b, "a", 1, 8, 0, DT_F32, 0);
    put_tensor(&b, "a", 1, 8, 0, DT_F32, 32);
    put_data(&b, 32, 1024);
    refuse(&b, ERR_FORMAT, "tensor a occurs twice");
}

static void counted_tensor(struct buf *b, int type, int shift, int how)
{
    put_head(b, 1, 1);
    put_array(b, "dwarfstar.counted", 5, 4);
    put_le(b, 0x89abcdef, 4);
    put_le(b, 0xfedcba98, 4);
    put_le(b, (uint32_t)shift, 4);
    put_le(b, (uint32_t)how, 4);
    put_tensor(b, "t", 1, 32, 0, type, 0);
    put_data(b, 32, 128);
}

/* Tensors whose numbers are made: what is said of them must be possible. */
static void counted(void **state)
{
    (void)state;
    struct buf b;
    struct gguf g;
    struct err e = { 0 };
    counted_tensor(&b, DT_Q8_0, -18, 1);
    assert_int_equal(gguf_parse(&g, "x.gguf", (uint8_t *)b.data, b.len, &e), 0);
    assert_true(g.tensor[0].counted && !g.tensor[0].random.around_one);
    assert_true(g.tensor[0].random.key == UINT64_C(0xfedcba9889abcdef));
    assert_int_equal(g.tensor[0].random.shift, -18);
    assert_int_equal(g.tensor[0].random.type, DT_Q8_0);
    gguf_release(&g);
    buf_release(&b);
    counted_tensor(&b, DT_Q8_0, 12, 0); /* stored */
    assert_int_equal(gguf_parse(&g, "x.gguf", (uint8_t *)b.data, b.len, &e), 0);
    assert_false(g.tensor[0].counted);
    gguf_release(&g);
    buf_release(&b);
    counted_tensor(&b, DT_Q8_0, 12, 1);
    refuse(&b, ERR_FORMAT, "tensor t: no random numbers of type Q8_0 with shift 12");
    counted_tensor(&b, DT_I32, 0, 1);
    refuse(&b, ERR_FORMAT, "tensor t: no random numbers of type I32");
    put_head(&b, 1, 1);
    put_array(&b, "dwarfstar.counted", 5, 1);
    put_le(&b, 1, 4);
    put_tensor(&b, "t", 1, 32, 0, DT_F32, 0);
    put_data(&b, 32, 128);
    refuse(&b, ERR_FORMAT, "key dwarfstar.counted has 1 values, expected 4 integers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_value_types), cmocka_unit_test(typed_reads),
        cmocka_unit_test(tensors),         cmocka_unit_test(every_truncation),
        cmocka_unit_test(bad_headers),     cmocka_unit_test(bad_metadata),
        cmocka_unit_test(bad_tensors),     cmocka_unit_test(counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
