/* test_detok.c - characters: where they are broken, and that the cuts of a stream do not show. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "detok.h"
#include "rng.h"
#include "utf8.h"

#define BAD UTF8_REPLACEMENT

static void decode(struct buf *out, const char *bytes, size_t n)
{
    struct detok d;
    buf_clear(out);
    detok_init(&d, false);
    detok_push_bytes(&d, bytes, n, out);
    detok_finish(&d, out);
}

/* Examples of Unicode 15, section 3.9, tables 3-8 to 3-11, and the borders of what is valid. */
static void test_maximal_subparts(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } example[] = {
        { "\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", BAD BAD BAD BAD BAD BAD BAD BAD "A" },
        { "\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", BAD BAD BAD BAD BAD BAD BAD BAD "A" },
        { "\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", BAD BAD BAD BAD BAD "A" BAD BAD "B" },
        { "\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", BAD BAD BAD BAD "A" },
        { "\xF0\x90\x80", BAD },
        { "\xF0\x90\x80\xF0\x90\x80\x80", BAD "\xF0\x90\x80\x80" },
        { "\xE4\xB8\xAD\xE4\xB8", "\xE4\xB8\xAD" BAD },
        { "\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF", "\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF" },
        { "\xEE\x80\x80\xEF\xBF\xBF\xF4\x8F\xBF\xBF", "\xEE\x80\x80\xEF\xBF\xBF\xF4\x8F\xBF\xBF" },
        { "\xF5\x80\x80\x80", BAD BAD BAD BAD },
        { "", "" },
    };
    struct buf out;
    buf_init(&out, 1000);
    for (size_t i = 0; i < COUNT_OF(example); i++) {
        decode(&out, example[i].bytes, strlen(example[i].bytes));
        assert_string_equal(out.data ? out.data : "", example[i].text);
    }
    buf_release(&out);
}

/* Every code point: written, recognised, read. */
static void test_all_characters(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        char s[5] = { 0 };
        int len;
        if (c == 0xD800)
            c = 0xE000;
        int n = utf8_put(s, c);
        s[n] = 'x';
        if (utf8_step(s, 5) != n || utf8_get(s, &len) != c || len != n ||
            utf8_valid_len(s, (size_t)n) != (size_t)n || (n > 1 && utf8_step(s, 1) != 0))
            fail_msg("U+%04X", c);
    }
    static const struct {
        uint32_t c;
        const char *s;
    } known[] = { { 'A', "A" }, { 0xE9, "é" }, { 0x4E2D, "中" }, { 0x1F642, "🙂" } };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        char s[5] = { 0 };
        utf8_put(s, known[i].c);
        assert_string_equal(s, known[i].s);
    }
}

static void random_bytes(struct rng *r, char *s, size_t n)
{
    static const char favoured[] = "A\x80\xBF\xC2\xE0\xED\xF0\xF4\x9F\xA0\x90";
    for (size_t i = 0; i < n; i++) {
        uint64_t x = rng_next(r);
        s[i] = x % 2 ? (char)(x >> 8) : favoured[(x >> 8) % (sizeof favoured - 1)];
    }
}

/* However a stream is cut: the same text, whole characters at every moment, little held back. */
static void test_chunks(void **state)
{
    (void)state;
    struct rng r = { 4, 0 };
    struct buf whole, parts, raw;
    buf_init(&whole, 1000);
    buf_init(&parts, 1000);
    buf_init(&raw, 1000);
    for (int i = 0; i < 20000; i++) {
        char s[40];
        size_t n = rng_next(&r) % sizeof s;
        struct detok text, bytes;
        random_bytes(&r, s, n);
        decode(&whole, s, n);
        buf_clear(&parts);
        buf_clear(&raw);
        detok_init(&text, false);
        detok_init(&bytes, true);
        for (size_t at = 0, step; at < n; at += step) {
            step = rng_next(&r) % 4;
            step = MIN(step, n - at);
            detok_push_bytes(&text, s + at, step, &parts);
            detok_push_bytes(&bytes, s + at, step, &raw);
            assert_in_range(text.n_held, 0, 3);
            assert_int_equal(utf8_valid_len(parts.data, parts.len), parts.len);
            assert_int_equal(raw.len, at + step);
        }
        detok_finish(&text, &parts);
        detok_finish(&bytes, &raw);
        assert_int_equal(parts.len, whole.len);
        assert_memory_equal(parts.data ? parts.data : "", whole.data ? whole.data : "", whole.len);
        assert_memory_equal(raw.data ? raw.data : "", s, n);
    }
    buf_release(&whole);
    buf_release(&parts);
    buf_release(&raw);
}

/* A character is handed on by the very byte that completes it. */
static void test_no_delay(void **state)
{
    (void)state;
    static const char text[] = "aé中🙂";
    struct detok d;
    struct buf out;
    buf_init(&out, 100);
    detok_init(&d, false);
    for (size_t i = 0; i < strlen(text); i++) {
        detok_push_bytes(&d, text + i, 1, &out);
        assert_int_equal(out.len, utf8_valid_len(text, i + 1));
    }
    detok_finish(&d, &out);
    assert_string_equal(out.data, text);
    buf_release(&out);
}

static void test_show(void **state)
{
    (void)state;
    char longer[300];
    memset(longer, 'x', sizeof longer);
    assert_string_equal(utf8_show("a\n\x7F\xFF中", 7).text, "a???中");
    assert_string_equal(utf8_show("", 0).text, "");
    struct utf8_shown shown = utf8_show(longer, sizeof longer);
    assert_true(strlen(shown.text) < sizeof shown.text);
    assert_string_equal(shown.text + strlen(shown.text) - 4, "x...");
    for (size_t i = 0; i + 2 < sizeof longer; i += 3)
        memcpy(longer + i, "中", 3);
    shown = utf8_show(longer, sizeof longer);
    assert_int_equal(utf8_valid_len(shown.text, strlen(shown.text)), strlen(shown.text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_maximal_subparts), cmocka_unit_test(test_all_characters),
        cmocka_unit_test(test_chunks),           cmocka_unit_test(test_no_delay),
        cmocka_unit_test(test_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
