/* test_toolcall.c - the output parser: goldens of three dialects, whole, byte by byte and cut at
 * random; ids, options, limits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "jsonl.h"
#include "toolcall_record.h"

enum { RANDOM_CUTS = 8 };

/* ---- strict --------------------------------------------------------------------------------- */

static void compare_strict(const json_t *g, const struct record *r)
{
    const char *name = string_of(g, "name");
    const json_t *ok = json_object_get(g, "ok"), *calls = json_object_get(ok, "tool_calls");
    if (!ok) {
        const char *want = strstr(string_of(g, "error"), ": ") + 2;
        assert_int_equal(r->error, ERR_FORMAT);
        if (strcmp(r->e.text, want) != 0)
            fail_msg("strict %s:\n  got  %s\n  want %s", name, r->e.text, want);
        assert_int_equal(r->all.len, 0);
        return;
    }
    if (r->error)
        fail_msg("strict %s: %s", name, r->e.text);
    expect_buf(name, "reasoning", &r->text[0], string_of(ok, "reasoning_content"));
    expect_buf(name, "content", &r->text[1], string_of(ok, "content"));
    assert_int_equal(r->n_call, json_array_size(calls));
    for (int i = 0; i < r->n_call; i++) {
        const json_t *f = json_object_get(json_array_get(calls, (size_t)i), "function");
        expect_buf(name, "name", &r->call[i].name, string_of(f, "name"));
        expect_buf(name, "arguments", &r->call[i].arguments, string_of(f, "arguments"));
        assert_true(r->call[i].complete);
    }
    assert_int_equal(r->finish, r->n_call ? TOOLCALL_FINISH_CALLS : TOOLCALL_FINISH_STOP);
}

static void strict_golden(const json_t *g, void *user)
{
    (void)user;
    struct toolcall_options o;
    const char *text = string_of(g, "text");
    toolcall_options_init(&o);
    o.mode = TOOLCALL_STRICT;
    o.in_reasoning = strcmp(string_of(g, "thinking_mode"), "thinking") == 0;
    for (int cut = 0; cut < 2 + RANDOM_CUTS; cut++) {
        struct record r;
        record_run(&r, &o, text, strlen(text), MIN(cut, CUT_RANDOM), (uint64_t)cut, TOOLCALL_EOS);
        compare_strict(g, &r);
        record_release(&r);
    }
}

static void strict_as_the_official_parser(void **state)
{
    (void)state;
    assert_int_equal(jsonl_each("tests/data/chat/parse_goldens_official.jsonl", strict_golden,
                                NULL), 24);
}

/* ---- recipe --------------------------------------------------------------------------------- */

static bool list_has(const json_t *list, const char *word)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), word) == 0)
            return true;
    return false;
}

static void compare_recipe(const json_t *g, const struct record *r)
{
    const char *name = string_of(g, "name");
    const json_t *want = json_object_get(g, "expect"), *calls = json_object_get(want, "tool_calls");
    const json_t *invalid = json_object_get(want, "invalid");
    assert_int_equal(r->error, 0);
    expect_buf(name, "reasoning", &r->text[0], string_of(want, "reasoning"));
    expect_buf(name, "content", &r->text[1], string_of(want, "content"));
    if (r->n_call != (int)json_array_size(calls))
        fail_msg("recipe %s: %d calls", name, r->n_call);
    for (int i = 0; i < r->n_call; i++) {
        const json_t *c = json_array_get(calls, (size_t)i);
        expect_buf(name, "name", &r->call[i].name, string_of(c, "name"));
        expect_buf(name, "arguments", &r->call[i].arguments, string_of(c, "arguments"));
        assert_int_equal(r->call[i].complete, json_is_true(json_object_get(c, "closed")));
        assert_true(r->call[i].ended);
    }
    assert_int_equal(r->warnings >> TOOLCALL_WARN_EXTRA_THINK_END & 1,
                     list_has(invalid, "extra_think_end"));
    assert_int_equal(r->warnings >> TOOLCALL_WARN_AFTER_END & 1,
                     list_has(invalid, "content_after_finished"));
    assert_int_equal(r->stop, json_is_null(json_object_get(want, "stop")) ? -1 : 0);
    assert_int_equal(r->done, strcmp(string_of(want, "end_state"), "F") == 0);
}

static void recipe_golden(const json_t *g, void *user)
{
    (void)user;
    struct toolcall_options o;
    const char *text = string_of(g, "text"), *stage = string_of(g, "initial_stage");
    const json_t *stops = json_object_get(g, "stop_sequences");
    const char *stop[1] = { json_string_value(json_array_get(stops, 0)) };
    toolcall_options_init(&o);
    o.mode = TOOLCALL_RECIPE;
    o.in_reasoning = strcmp(stage, "start") == 0 || strcmp(stage, "reasoning") == 0;
    o.leading = strcmp(stage, "start") == 0 || strcmp(stage, "content_leading") == 0;
    o.parse_calls = json_is_true(json_object_get(g, "parse_tool_calls"));
    o.stop = stop;
    o.n_stop = (int)json_array_size(stops);
    assert_in_range(o.n_stop, 0, 1);
    for (int cut = 0; cut < 2 + RANDOM_CUTS; cut++) {
        struct record r;
        record_run(&r, &o, text, strlen(text), MIN(cut, CUT_RANDOM), (uint64_t)cut, TOOLCALL_EOS);
        compare_recipe(g, &r);
        record_release(&r);
    }
}

static void recipe_as_the_serving_code(void **state)
{
    (void)state;
    assert_int_equal(jsonl_each("tests/data/chat/stream_goldens_recipe.jsonl", recipe_golden,
                                NULL), 43);
}

/* ---- default -------------------------------------------------------------------------------- */

/* As in the goldens' lists of warnings. */
static const char *const warning_names[] = {
    [TOOLCALL_WARN_EXTRA_THINK_END] = "extra_think_end",
    [TOOLCALL_WARN_EXTRA_THINK_BEGIN] = "extra_think_begin",
    [TOOLCALL_WARN_AFTER_END] = "after_end",
    [TOOLCALL_WARN_CONTROL] = "control",
    [TOOLCALL_WARN_IN_REASONING] = "in_reasoning",
    [TOOLCALL_WARN_NO_WRAPPER] = "no_wrapper",
    [TOOLCALL_WARN_UNKNOWN_TOOL] = "unknown_tool",
    [TOOLCALL_WARN_NO_TYPE] = "no_type",
    [TOOLCALL_WARN_BAD_JSON] = "bad_json",
    [TOOLCALL_WARN_BAD_UTF8] = "bad_utf8",
    [TOOLCALL_WARN_DUPLICATE_KEY] = "duplicate_key",
    [TOOLCALL_WARN_UNWRAPPED] = "unwrapped",
    [TOOLCALL_WARN_BAD_CLOSE] = "bad_close",
    [TOOLCALL_WARN_STRAY_TEXT] = "stray_text",
    [TOOLCALL_WARN_CUT_OFF] = "cut_off",
    [TOOLCALL_WARN_TOO_LONG] = "too_long",
};

static void compare_default(const json_t *g, const struct record *r)
{
    static const char *const finishes[] = { "stop", "length", "calls" };
    const char *name = string_of(g, "name");
    const json_t *want = json_object_get(g, "expect"), *calls = json_object_get(want, "calls");
    const json_t *warnings = json_object_get(want, "warnings");
    if (r->error)
        fail_msg("default %s: %s", name, r->e.text);
    expect_buf(name, "reasoning", &r->text[0], string_of(want, "reasoning"));
    expect_buf(name, "content", &r->text[1], string_of(want, "content"));
    expect_buf(name, "raw", &r->text[2], string_of(want, "raw"));
    if (r->n_call != (int)json_array_size(calls))
        fail_msg("default %s: %d calls\n%s", name, r->n_call, r->all.data);
    for (int i = 0; i < r->n_call; i++) {
        const json_t *c = json_array_get(calls, (size_t)i);
        expect_buf(name, "name", &r->call[i].name, string_of(c, "name"));
        expect_buf(name, "arguments", &r->call[i].arguments, string_of(c, "arguments"));
        if (r->call[i].complete == json_is_true(json_object_get(c, "cut_off")))
            fail_msg("default %s: call %d complete %d", name, i, r->call[i].complete);
    }
    for (size_t w = 0; w < COUNT_OF(warning_names); w++)
        if ((r->warnings >> w & 1) != list_has(warnings, warning_names[w]))
            fail_msg("default %s: warning %s\n%s", name, warning_names[w], r->all.data);
    if (strcmp(finishes[r->finish], string_of(want, "finish")) != 0)
        fail_msg("default %s: finish %s", name, finishes[r->finish]);
    assert_int_equal(r->stop, json_object_get(want, "stop")
                                  ? json_integer_value(json_object_get(want, "stop")) : -1);
    if (!record_is_sound(r))
        fail_msg("default %s: arguments are not JSON\n%s", name, r->all.data);
}

/* Options of a default golden; stop points to room for the strings. */
static void default_options(struct toolcall_options *o, const json_t *g, const char *stop[4])
{
    const json_t *stops = json_object_get(g, "stop"), *held = json_object_get(g, "max_held");
    toolcall_options_init(o);
    o->in_reasoning = strcmp(string_of(g, "start"), "reasoning") == 0;
    o->leading = !json_is_true(json_object_get(g, "continues"));
    o->whole_calls = json_is_true(json_object_get(g, "whole"));
    o->stop_at_control = !json_is_true(json_object_get(g, "control_is_text"));
    o->tools = json_is_true(json_object_get(g, "no_tools")) ? NULL : RECORD_TOOLS;
    o->tools_len = sizeof RECORD_TOOLS - 1;
    o->max_held = held ? (size_t)json_integer_value(held) : o->max_held;
    o->stop = stop;
    o->n_stop = (int)json_array_size(stops);
    assert_in_range(o->n_stop, 0, 4);
    for (int i = 0; i < o->n_stop; i++)
        stop[i] = json_string_value(json_array_get(stops, (size_t)i));
}

static void default_golden(const json_t *g, void *user)
{
    (void)user;
    struct toolcall_options o;
    const char *stop[4];
    size_t len;
    const char *text = pyjson_string(json_object_get(g, "text"), &len);
    bool length = strcmp(string_of(g, "reason"), "length") == 0;
    assert_string_equal(string_of(g, "mode"), "default");
    default_options(&o, g, stop);
    for (int cut = 0; cut < 2 + RANDOM_CUTS; cut++) {
        struct record r;
        record_run(&r, &o, text, len, MIN(cut, CUT_RANDOM), (uint64_t)cut,
                   length ? TOOLCALL_LENGTH : TOOLCALL_EOS);
        compare_default(g, &r);
        record_release(&r);
    }
}

static void default_recovers(void **state)
{
    (void)state;
    assert_in_range(jsonl_each("tests/data/chat/toolcall_default.jsonl", default_golden, NULL), 50,
                    500);
}

/* Well-formed text means the same in all dialects: what the strict parser accepts, and whose
 * values are JSON, the default dialect reads with the same result, save trimmed newlines. */
static void agrees_with_strict(const json_t *g, void *user)
{
    int *n = user;
    struct toolcall_options o;
    struct record strict, ours;
    const char *text = string_of(g, "text");
    if (!json_object_get(g, "ok") || strstr(string_of(g, "name"), "bad_json") ||
        strstr(string_of(g, "name"), "newlines"))
        return;
    toolcall_options_init(&o);
    o.in_reasoning = strcmp(string_of(g, "thinking_mode"), "thinking") == 0;
    o.tools = RECORD_TOOLS;
    o.tools_len = sizeof RECORD_TOOLS - 1;
    record_run(&ours, &o, text, strlen(text), CUT_NOT, 0, TOOLCALL_EOS);
    o.mode = TOOLCALL_STRICT;
    record_run(&strict, &o, text, strlen(text), CUT_NOT, 0, TOOLCALL_EOS);
    expect_buf(string_of(g, "name"), "reasoning", &ours.text[0],
                  strict.text[0].data ? strict.text[0].data : "");
    expect_buf(string_of(g, "name"), "content", &ours.text[1],
                  strict.text[1].data ? strict.text[1].data : "");
    assert_int_equal(ours.n_call, strict.n_call);
    for (int i = 0; i < ours.n_call; i++) {
        assert_string_equal(ours.call[i].name.data, strict.call[i].name.data);
        assert_string_equal(ours.call[i].arguments.data, strict.call[i].arguments.data);
        assert_string_equal(ours.call[i].id, strict.call[i].id);
    }
    record_release(&ours);
    record_release(&strict);
    ++*n;
}

static void dialects_agree_on_good_text(void **state)
{
    (void)state;
    int n = 0;
    jsonl_each("tests/data/chat/parse_goldens_official.jsonl", agrees_with_strict, &n);
    assert_int_equal(n, 10);
}

/* ---- the rest ------------------------------------------------------------------------------- */

static const char CALLS[] =
    "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"now\">\n</｜DSML｜invoke>\n"
    "<｜DSML｜invoke name=\"now\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";

static void fill_with_nines(void *user, void *out, size_t n)
{
    memset(out, 0x99, n);
    ++*(int *)user;
}

static void ids_follow_the_seed(void **state)
{
    (void)state;
    struct toolcall_options o;
    struct record a, b, c, d;
    int n_random = 0;
    toolcall_options_init(&o);
    o.tools = RECORD_TOOLS;
    o.tools_len = sizeof RECORD_TOOLS - 1;
    o.id_seed = 1;
    record_run(&a, &o, CALLS, sizeof CALLS - 1, CUT_NOT, 0, TOOLCALL_EOS);
    record_run(&b, &o, CALLS, sizeof CALLS - 1, CUT_BYTES, 0, TOOLCALL_EOS);
    o.id_seed = 2;
    record_run(&c, &o, CALLS, sizeof CALLS - 1, CUT_NOT, 0, TOOLCALL_EOS);
    o.random = fill_with_nines;
    o.random_user = &n_random;
    record_run(&d, &o, CALLS, sizeof CALLS - 1, CUT_NOT, 0, TOOLCALL_EOS);
    assert_int_equal(a.n_call, 2);
    assert_string_equal(a.call[0].id, b.call[0].id);
    assert_string_equal(a.call[1].id, b.call[1].id);
    assert_string_not_equal(a.call[0].id, a.call[1].id);
    assert_string_not_equal(a.call[0].id, c.call[0].id);
    assert_string_equal(d.call[0].id, "call_99999999999999999999999999999999");
    assert_int_equal(n_random, 2);
    record_release(&a);
    record_release(&b);
    record_release(&c);
    record_release(&d);
}

static void options_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *tools, *stop;
        int n_stop;
        enum err_code code;
        const char *text;
    } cases[] = {
        { "{}", NULL, 0, ERR_FORMAT, "tools: expected an array, found an object" },
        { "[", NULL, 0, ERR_FORMAT, "tools: JSON line 1: " },
        { "[{\"function\":{}}]", NULL, 0, ERR_FORMAT,
          "tools[0].function.name: expected a string, found nothing" },
        { "[{\"name\":\"a\"},7]", NULL, 0, ERR_FORMAT,
          "tools[1].function.name: expected a string, found nothing" },
        { NULL, "", 1, ERR_ARGUMENT, "stop[0]: expected a string of 1 to 1024 bytes, found 0" },
        { NULL, "x", 17, ERR_LIMIT, "stop: expected at most 16 strings, found 17" },
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *stop[17];
        struct toolcall_options o;
        struct err e = { 0 };
        toolcall_options_init(&o);
        for (int k = 0; k < 17; k++)
            stop[k] = cases[i].stop;
        o.tools = cases[i].tools;
        o.tools_len = cases[i].tools ? strlen(cases[i].tools) : 0;
        o.stop = stop;
        o.n_stop = cases[i].n_stop;
        assert_null(toolcall_new(&o, record_event, NULL, &e));
        assert_int_equal(e.code, cases[i].code);
        assert_memory_equal(e.text, cases[i].text, strlen(cases[i].text));
        assert_null(toolcall_new(&o, record_event, NULL, NULL));
    }
}

/* Much text of one kind goes through in small memory; strict needs room for all of it. */
static void long_text_is_not_gathered(void **state)
{
    (void)state;
    struct toolcall_options o;
    struct record r;
    struct buf text;
    buf_init(&text, (size_t)16 << 20);
    buf_puts(&text, "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n"
                    "<｜DSML｜parameter name=\"a\" string=\"true\">");
    while (text.len < (size_t)1 << 20)
        buf_puts(&text, "0123456789 < é\n");
    buf_puts(&text, "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>");
    toolcall_options_init(&o);
    o.tools = RECORD_TOOLS;
    o.tools_len = sizeof RECORD_TOOLS - 1;
    o.max_held = 4096;
    record_run(&r, &o, text.data, text.len, CUT_NOT, 0, TOOLCALL_EOS);
    assert_int_equal(r.error, 0);
    assert_int_equal(r.warnings, 0);
    assert_int_equal(r.n_call, 1);
    assert_true(r.call[0].complete && r.call[0].arguments.len > (size_t)1 << 20);
    assert_true(record_is_sound(&r));
    record_release(&r);
    o.mode = TOOLCALL_STRICT;
    record_run(&r, &o, text.data, text.len, CUT_NOT, 0, TOOLCALL_EOS);
    assert_int_equal(r.error, ERR_LIMIT);
    record_release(&r);
    buf_release(&text);
}

/* Texts, names, keys and strings are UTF-8 whatever came. */
static void broken_characters_are_replaced(void **state)
{
    (void)state;
    static const char text[] =
        "\xff\xe4\xb8</think>\xe4\xb8\xad\xf0\x9f<｜DSML｜tool_calls>\n"
        "<｜DSML｜invoke name=\"f\xe4\xb8\">\n"
        "<｜DSML｜parameter name=\"a\0\xc3\" string=\"true\">x\xf0\x9f\x98y\0\xed\xa0\x80"
        "</｜DSML｜parameter>\n"
        "<｜DSML｜parameter name=\"b\" string=\"false\">\"\xff\"</｜DSML｜parameter>\n"
        "<｜DSML｜parameter name=\"c\" string=\"true\">\xe4\xb8</｜DSML｜parameter>\n"
        "</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
    for (int cut = CUT_NOT; cut <= CUT_BYTES; cut++) {
        struct toolcall_options o;
        struct record r;
        toolcall_options_init(&o);
        o.in_reasoning = true;
        o.tools = RECORD_TOOLS;
        o.tools_len = sizeof RECORD_TOOLS - 1;
        record_run(&r, &o, text, sizeof text - 1, (enum cut)cut, 0, TOOLCALL_EOS);
        assert_string_equal(r.text[0].data, "\xef\xbf\xbd\xef\xbf\xbd");
        assert_string_equal(r.text[1].data, "\xe4\xb8\xad\xef\xbf\xbd");
        assert_int_equal(r.n_call, 1);
        assert_string_equal(r.call[0].name.data, "f\xef\xbf\xbd");
        assert_string_equal(r.call[0].arguments.data,
                            "{\"a\xef\xbf\xbd\xef\xbf\xbd\": \"x\xef\xbf\xbdy\\u0000\xef\xbf\xbd"
                            "\xef\xbf\xbd\xef\xbf\xbd\", \"b\": \"\\\"\xef\xbf\xbd\\\"\", \"c\": "
                            "\"\xef\xbf\xbd\"}");
        assert_int_equal(r.warnings, 1u << TOOLCALL_WARN_BAD_UTF8 | 1u << TOOLCALL_WARN_BAD_JSON |
                                         1u << TOOLCALL_WARN_UNKNOWN_TOOL);
        record_release(&r);
    }
}

static void every_warning_has_a_text(void **state)
{
    (void)state;
    for (int w = 0; w <= TOOLCALL_WARN_TOO_LONG; w++)
        assert_string_not_equal(toolcall_warning_text((enum toolcall_warning)w), "unknown");
    assert_int_equal(COUNT_OF(warning_names), TOOLCALL_WARN_TOO_LONG + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strict_as_the_official_parser),
        cmocka_unit_test(recipe_as_the_serving_code),
        cmocka_unit_test(default_recovers),
        cmocka_unit_test(dialects_agree_on_good_text),
        cmocka_unit_test(ids_follow_the_seed),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(long_text_is_not_gathered),
        cmocka_unit_test(broken_characters_are_replaced),
        cmocka_unit_test(every_warning_has_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
