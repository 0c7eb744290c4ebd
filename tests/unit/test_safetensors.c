/* test_safetensors.c - the reader of checkpoint files: what it takes apart and what it refuses. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "buf.h"
#include "safetensors.h"

/* A file with this header and n bytes of data 0, 1, 2 ... */
static void make(struct buf *b, const char *header, size_t n)
{
    size_t len = strlen(header);
    buf_init(b, 1 << 20);
    for (int i = 0; i < 8; i++)
        buf_putc(b, (char)(len >> 8 * i & 255));
    buf_puts(b, header);
    for (size_t i = 0; i < n; i++)
        buf_putc(b, (char)i);
}

static void refuse_bytes(struct buf *b, enum err_code code, const char *words)
{
    struct safetensors s;
    struct err e = { 0 };
    int rc = safetensors_parse(&s, "x.safetensors", (const uint8_t *)b->data, b->len, &e);
    if (rc != (int)code || !strstr(e.text, words) || strncmp(e.text, "x.safetensors: ", 15) != 0)
        fail_msg("got %d \"%s\", expected %d \"%s\"", rc, e.text, (int)code, words);
    assert_null(s.tensor);
    buf_release(b);
}

static void refuse(const char *header, size_t n, enum err_code code, const char *words)
{
    struct buf b;
    make(&b, header, n);
    refuse_bytes(&b, code, words);
}

static void a_good_file(void **state)
{
    (void)state;
    struct buf b;
    struct safetensors s;
    struct err e = { 0 };
    make(&b, "{\"__metadata__\":{\"format\":\"pt\"},"
             "\"a.weight\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[1,25]},"
             "\"b\":{\"dtype\":\"F8_E8M0\",\"shape\":[],\"data_offsets\":[0,1]},"
             "\"c\":{\"dtype\":\"I64\",\"shape\":[1,1,2,1],\"data_offsets\":[25,41]}}  ", 41);
    int rc = safetensors_parse(&s, "x", (const uint8_t *)b.data, b.len, &e);
    assert_int_equal(rc, 0);
    assert_int_equal(s.n_tensor, 3);
    const struct weight *a = &s.tensor[0], *c = &s.tensor[1], *d = &s.tensor[2];
    assert_string_equal(a->name, "a.weight");
    assert_true(a->type == DT_BF16 && a->n_dim == 2 && a->dim[0] == 4 && a->dim[1] == 3);
    assert_int_equal(a->bytes, 24);
    assert_int_equal(a->data[0], 1);
    assert_ptr_equal(a->data, (const uint8_t *)b.data + a->offset);
    assert_true(c->type == DT_F8_E8M0 && c->n_dim == 1 && c->dim[0] == 1 && c->bytes == 1);
    assert_true(d->type == DT_I64 && d->n_dim == 4 && d->dim[0] == 1 && d->dim[1] == 2);
    safetensors_release(&s);
    buf_release(&b);
}

#define T(dtype, shape, offsets) \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void bad_headers(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    buf_add(&b, "\1\0\0", 3);
    refuse_bytes(&b, ERR_FORMAT, "has 3 bytes, expected a header of at least 8");
    make(&b, T("F32", "[2]", "[0,8]"), 8);
    b.data[2] = 1;
    refuse_bytes(&b, ERR_FORMAT, "states a header of 65590 bytes, expected at most 62");
    make(&b, "{}", 0);
    b.data[7] = (char)0xff;
    refuse_bytes(&b, ERR_FORMAT, "states a header of 18374686479671623682 bytes");
    refuse("{\"t\":", 0, ERR_FORMAT, "header, byte 5:");
    refuse("[1]", 0, ERR_FORMAT, "the header is not a JSON object");
    refuse("{\"t\":1}", 0, ERR_UNSUPPORTED, "tensor t has dtype missing");
    refuse("{\"t\":{},\"t\":{}}", 0, ERR_FORMAT, "duplicate object key");
}

static void bad_tensors(void **state)
{
    (void)state;
    refuse(T("F31", "[2]", "[0,8]"), 8, ERR_UNSUPPORTED,
           "tensor t has dtype F31, expected BF16, F16, F32, F8_E4M3, F8_E8M0, I8, I32 or I64");
    refuse(T("F32", "[1,1,1,1,2]", "[0,8]"), 8, ERR_FORMAT, "a shape of 5 dimensions");
    refuse(T("F32", "[2,\"a\"]", "[0,8]"), 8, ERR_FORMAT, "a shape that is not all integers");
    refuse(T("F32", "[2,0]", "[0,0]"), 8, ERR_FORMAT, "has shape [2, 0], expected no empty");
    refuse(T("F32", "[-2]", "[0,8]"), 8, ERR_FORMAT, "has shape [-2], expected no empty");
    refuse(T("F32", "[4294967296,4294967296]", "[0,8]"), 8, ERR_FORMAT, "more than 2^63 elements");
    refuse(T("I64", "[2305843009213693952]", "[0,8]"), 8, ERR_FORMAT, "more than 2^63 bytes");
    refuse(T("F32", "[2]", "[0]"), 8, ERR_FORMAT, "data_offsets are not two integers");
    refuse(T("F32", "[2]", "[0,8.0]"), 8, ERR_FORMAT, "data_offsets are not two integers");
    refuse(T("F32", "[2]", "[-8,0]"), 8, ERR_FORMAT, "data_offsets -8 to 0, expected inside the 8");
    refuse(T("F32", "[2]", "[8,0]"), 8, ERR_FORMAT, "data_offsets 8 to 0");
    refuse(T("F32", "[2]", "[4,12]"), 8, ERR_FORMAT, "data_offsets 4 to 12, expected inside the 8");
    refuse(T("F32", "[3]", "[0,8]"), 8, ERR_FORMAT,
           "tensor t has 8 bytes, expected 12 for F32 [3]");
    refuse("{\"a\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[2,6]},"
           "\"b\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
           8, ERR_FORMAT, "lies inside tensor b (4 bytes from");
}

static void every_truncation(void **state)
{
    (void)state;
    struct buf b;
    make(&b, T("F32", "[2]", "[0,8]"), 8);
    for (size_t n = 0; n < b.len; n++) {
        struct safetensors s;
        struct err e = { 0 };
        uint8_t *exact = malloc(n ? n : 1);
        assert_non_null(exact);
        memcpy(exact, b.data, n);
        assert_int_equal(safetensors_parse(&s, "x", exact, n, &e), ERR_FORMAT);
        free(exact);
    }
    buf_release(&b);
}

static int index_of(struct shard_index *x, const char *text, struct err *e)
{
    e->code = ERR_NONE;
    return shard_index_parse(x, "i.json", text, strlen(text), e);
}

static void indexes(void **state)
{
    (void)state;
    struct shard_index x;
    struct err e = { 0 };
    assert_int_equal(index_of(&x, "{\"metadata\":{\"total_size\":1},\"weight_map\":"
                                  "{\"a\":\"2.st\",\"b\":\"1.st\",\"c\":\"2.st\"}}", &e), 0);
    assert_int_equal(x.n_tensor, 3);
    assert_int_equal(x.n_shard, 2);
    assert_string_equal(x.shard[0], "1.st");
    assert_string_equal(x.shard[1], "2.st");
    assert_string_equal(x.name[2], "c");
    assert_string_equal(x.file[2], "2.st");
    shard_index_release(&x);
    assert_int_equal(index_of(&x, "{\"weight_map\":{}}", &e), ERR_FORMAT);
    assert_string_equal(e.text, "i.json: weight_map is missing or empty");
    assert_int_equal(index_of(&x, "{\"weight_map\":{\"a\":\"../x\"}}", &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "gives tensor a the file \"../x\""));
    assert_int_equal(index_of(&x, "{\"weight_map\":{\"a\":\"b/x\"}}", &e), ERR_FORMAT);
    assert_int_equal(index_of(&x, "{\"weight_map\":{\"a\":1}}", &e), ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file), cmocka_unit_test(bad_headers),
        cmocka_unit_test(bad_tensors), cmocka_unit_test(every_truncation),
        cmocka_unit_test(indexes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
