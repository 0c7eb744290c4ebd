/* test_pyjson.c - JSON values and floats against what Python printed (make_pyjson.py), and the
 * accessors that see through the disguise. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

#include "pyjson.h"

static void floats_as_python_prints_them(void **state)
{
    (void)state;
    FILE *f = fopen("tests/data/chat/pyjson_floats.txt", "r");
    assert_non_null(f);
    char want[64];
    uint64_t bits;
    int n = 0;
    while (fscanf(f, "%" SCNx64 " %63s", &bits, want) == 2) {
        double x;
        struct buf out;
        memcpy(&x, &bits, sizeof x);
        buf_init(&out, 64);
        pyjson_real(&out, x);
        assert_string_equal(out.data, want);
        buf_release(&out);
        n++;
    }
    fclose(f);
    assert_int_equal(n, 900);
}

static void check_value(const char *line)
{
    json_error_t why;
    json_t *c = json_loads(line, JSON_ALLOW_NUL, &why);
    assert_non_null(c);
    const json_t *text = json_object_get(c, "text"), *dumps = json_object_get(c, "dumps");
    const char *error = json_string_value(json_object_get(c, "error"));
    struct err e = { 0 };
    json_t *v = pyjson_load(json_string_value(text), json_string_length(text), &e);
    if (dumps) {
        struct buf out;
        if (!v)
            fail_msg("%s: %s", line, e.text);
        buf_init(&out, 1 << 20);
        pyjson_dump(&out, v);
        assert_string_equal(out.data, json_string_value(dumps));
        buf_release(&out);
    } else {
        if (v)
            fail_msg("accepted: %s", line);
        assert_int_equal(e.code, strcmp(error, "limit") == 0       ? ERR_LIMIT
                                 : strcmp(error, "surrogate") == 0 ? ERR_UNSUPPORTED
                                                                   : ERR_FORMAT);
        assert_non_null(strstr(e.text, "JSON"));
    }
    json_decref(v);
    json_decref(c);
}

static void values_as_python_prints_them(void **state)
{
    (void)state;
    FILE *f = fopen("tests/data/chat/pyjson_values.jsonl", "r");
    assert_non_null(f);
    static char line[1 << 16];
    int n = 0;
    for (; fgets(line, sizeof line, f); n++)
        check_value(line);
    fclose(f);
    assert_int_equal(n, 123);
}

static json_t *load(const char *text)
{
    struct err e = { 0 };
    json_t *v = pyjson_load(text, strlen(text), &e);
    if (!v)
        fail_msg("%s: %s", text, e.text);
    return v;
}

static void accessors_see_through_the_disguise(void **state)
{
    (void)state;
    json_t *v = load("[99999999999999999999, \"\\u00001\", NaN, 1e999, \"\\u0000\", \"\", 0.0, 7,"
                     " null, false, {}, [], {\"a\": null, \"b\": 1}, \"NaN\"]");
    static const enum pyjson_kind kind[] = {
        PYJSON_NUMBER, PYJSON_STRING, PYJSON_NUMBER, PYJSON_NUMBER, PYJSON_STRING,
        PYJSON_STRING, PYJSON_NUMBER, PYJSON_NUMBER, PYJSON_NULL,   PYJSON_BOOL,
        PYJSON_OBJECT, PYJSON_ARRAY,  PYJSON_OBJECT, PYJSON_STRING,
    };
    static const bool truth[] = { true,  true, true,  true,  true,  false, false,
                                  true,  false, false, false, false, true, true };
    size_t len;
    assert_int_equal(json_array_size(v), COUNT_OF(kind));
    for (size_t i = 0; i < COUNT_OF(kind); i++) {
        const json_t *x = json_array_get(v, i);
        assert_int_equal(pyjson_kind_of(x), kind[i]);
        assert_int_equal(pyjson_truth(x), truth[i]);
        assert_int_equal(pyjson_string(x, &len) != NULL, kind[i] == PYJSON_STRING);
    }
    assert_memory_equal(pyjson_string(json_array_get(v, 1), &len), "\0001", 2);
    assert_int_equal(len, 2);
    assert_memory_equal(pyjson_string(json_array_get(v, 4), &len), "\0", 1);
    assert_int_equal(len, 1);
    assert_string_equal(pyjson_kind_name(json_array_get(v, 0)), "a number");
    assert_string_equal(pyjson_kind_name(NULL), "nothing");
    assert_null(pyjson_get(json_array_get(v, 12), "a"));
    assert_non_null(pyjson_get(json_array_get(v, 12), "b"));
    assert_null(pyjson_get(json_array_get(v, 11), "b"));
    assert_false(pyjson_truth(NULL));
    json_decref(v);
}

static void strict_is_rfc_8259(void **state)
{
    (void)state;
    static const char *const good[] = { "1", "\"a\"", "null", " [1e999, 99999999999999999999] ",
                                        "{\"a\": [true]}", "\"\\ud83d\\ude00\"", "-0.0e-5" };
    static const char *const bad[] = { "NaN", "[Infinity]", "-Infinity", "\"\\ud800\"", "", "nul",
                                       "1 2", "{\"a\": 1,}", "\"\xff\"", "\"\xed\xa0\x80\"", "'a'",
                                       "[1", "01" };
    for (size_t i = 0; i < COUNT_OF(good); i++)
        assert_true(pyjson_is_strict(good[i], strlen(good[i])));
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(pyjson_is_strict(bad[i], strlen(bad[i])));
    assert_false(pyjson_is_strict("1\0", 2));
}

/* Errors name the line, also behind strings and disguised numbers. */
static void errors_name_the_line(void **state)
{
    (void)state;
    static const char text[] = "[99999999999999999999,\n\"a\",\n\"\\ud83d\\ude00\n\"]";
    static const char other[] = "[99999999999999999999,\nNaN,\n\n x]";
    struct err e = { 0 };
    assert_null(pyjson_load(text, sizeof text - 1, &e));
    assert_non_null(strstr(e.text, "line 3"));
    e.code = ERR_NONE;
    assert_null(pyjson_load(other, sizeof other - 1, &e));
    assert_non_null(strstr(e.text, "line 4"));
}

static void deep_nesting_is_refused_not_followed(void **state)
{
    (void)state;
    enum { DEEP = 100000 };
    char *text = malloc(DEEP);
    assert_non_null(text);
    memset(text, '[', DEEP);
    struct err e = { 0 };
    assert_null(pyjson_load(text, DEEP, &e));
    assert_int_equal(e.code, ERR_FORMAT);
    free(text);
}

/* A program may set a locale with a decimal comma. Skipped where none is installed. */
static void floats_do_not_follow_the_locale(void **state)
{
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8"))
        skip();
    floats_as_python_prints_them(state);
    values_as_python_prints_them(state);
    setlocale(LC_NUMERIC, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_as_python_prints_them),
        cmocka_unit_test(values_as_python_prints_them),
        cmocka_unit_test(accessors_see_through_the_disguise),
        cmocka_unit_test(strict_is_rfc_8259),
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(deep_nesting_is_refused_not_followed),
        cmocka_unit_test(floats_do_not_follow_the_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
