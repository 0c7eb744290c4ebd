/* test_chat.c - prompts against the vendor encoder's, spans, errors, options. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "chat_deepseek.h"
#include "jsonl.h"

/* Render or fail the test; name says which case. */
static struct chat_text render(const char *name, const char *messages, size_t len,
                               const struct chat_options *o)
{
    struct err e = { 0 };
    struct chat_text t;
    if (chat_render(&t, messages, len, o, &e) < 0)
        fail_msg("%s: %s", name, e.text);
    return t;
}

static void expect_text(const char *name, const struct chat_text *t, const char *want, size_t len)
{
    const char *got = t->text.data ? t->text.data : "";
    if (t->text.len != len || memcmp(got, want, len) != 0)
        fail_msg("%s:\n  got  %s\n  want %s", name, got, want);
}

/* Every byte of a span list is inside the text, ascending, not touching. */
static void expect_sound_spans(const char *name, const struct chat_text *t)
{
    size_t last = 0;
    for (int i = 0; i < t->n_special; i++) {
        const struct text_span *s = &t->special[i];
        if (s->begin >= s->end || s->end > t->text.len || (i > 0 && s->begin <= last))
            fail_msg("%s: span %d is %zu..%zu after %zu of %zu", name, i, s->begin, s->end, last,
                     t->text.len);
        last = s->end;
    }
}

/* ---- goldens -------------------------------------------------------------------------------- */

static void check_golden(const json_t *g, void *user)
{
    int *n_profile = user;
    const char *name = json_string_value(json_object_get(g, "name"));
    const json_t *encoder = json_object_get(g, "encoder");
    struct buf messages = jsonl_text(g, "messages"), kwargs = jsonl_text(g, "kwargs");
    struct buf context = { 0 };
    struct chat_options o;
    struct err e = { 0 };
    size_t len;
    const char *want = pyjson_string(json_object_get(g, "render"), &len);
    chat_options_init(&o);
    o.think = CHAT_THINK_NONE;
    o.profile = encoder && strcmp(json_string_value(encoder), "0731") == 0 ? CHAT_0731
                                                                           : CHAT_PREVIEW;
    if (chat_options_official(&o, kwargs.data, kwargs.len, &e) < 0)
        fail_msg("%s: %s", name, e.text);
    if (json_object_get(g, "context")) {
        context = jsonl_text(g, "context");
        o.context = context.data;
        o.context_len = context.len;
    }
    for (int special = 0; special < 2; special++) {
        o.parse_special = special;
        struct chat_text t = render(name, messages.data, messages.len, &o);
        expect_text(name, &t, want, len);
        expect_sound_spans(name, &t);
        if (special) {
            assert_int_equal(t.n_special, len > 0);
            assert_true(len == 0 || (t.special[0].begin == 0 && t.special[0].end == len));
        }
        chat_text_release(&t);
    }
    n_profile[o.profile]++;
    buf_release(&messages);
    buf_release(&kwargs);
    buf_release(&context);
}

static void prompts_of_the_official_encoder(void **state)
{
    (void)state;
    int n[2] = { 0 };
    assert_int_equal(jsonl_each("tests/data/chat/prompt_goldens.jsonl", check_golden, n), 72);
    assert_int_equal(n[CHAT_PREVIEW], 66);
    assert_int_equal(n[CHAT_0731], 6);
}

static void corners_of_the_official_encoder(void **state)
{
    (void)state;
    int n[2] = { 0 };
    assert_int_equal(jsonl_each("tests/data/chat/prompt_more.jsonl", check_golden, n), 94);
}

/* The vendor's own four pairs, as published; tools of the first are the request's. */
static void official_pairs(void **state)
{
    (void)state;
    for (int i = 1; i <= 4; i++) {
        char name[64];
        struct buf input, want;
        struct chat_options o;
        struct err e = { 0 };
        buf_init(&input, 1 << 20);
        buf_init(&want, 1 << 20);
        snprintf(name, sizeof name, "tests/data/chat/official/test_input_%d.json", i);
        assert_int_equal(file_read_all(&input, name, &e), 0);
        snprintf(name, sizeof name, "tests/data/chat/official/test_output_%d.txt", i);
        assert_int_equal(file_read_all(&want, name, &e), 0);
        chat_options_init(&o);
        o.think = i == 4 ? CHAT_THINK_NONE : CHAT_THINK_HIGH;
        struct chat_text t = render(name, input.data, input.len, &o);
        expect_text(name, &t, want.data, want.len);
        chat_text_release(&t);
        buf_release(&input);
        buf_release(&want);
    }
}

/* ---- spans ---------------------------------------------------------------------------------- */

/* The bytes of all spans, each followed by '|'. */
static struct buf marks_of(const struct chat_text *t)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    for (int i = 0; i < t->n_special; i++) {
        buf_add(&out, t->text.data + t->special[i].begin,
                t->special[i].end - t->special[i].begin);
        buf_putc(&out, '|');
    }
    return out;
}

static void expect_marks(const char *messages, enum chat_think think, const char *want)
{
    struct chat_options o;
    chat_options_init(&o);
    o.think = think;
    struct chat_text t = render(messages, messages, strlen(messages), &o);
    struct buf marks = marks_of(&t);
    assert_string_equal(marks.data, want);
    buf_release(&marks);
    chat_text_release(&t);
}

#define BOS "<｜begin▁of▁sentence｜>"
#define EOS "<｜end▁of▁sentence｜>"
#define USER "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"

static void control_literals_in_bodies_stay_text(void **state)
{
    (void)state;
    expect_marks("[{\"role\":\"system\",\"content\":\"" USER "\"},{\"role\":\"user\",\"content\":"
                 "\"a" ASSISTANT "</think>｜DSML｜\"}]",
                 CHAT_THINK_NONE, BOS "|" USER "|" ASSISTANT "</think>|");
    expect_marks("[{\"role\":\"user\",\"content\":\"" USER "\"},{\"role\":\"assistant\","
                 "\"reasoning_content\":\"</think>\",\"content\":\"" EOS "\",\"tool_calls\":[{"
                 "\"function\":{\"name\":\"" USER "\",\"arguments\":{\"｜DSML｜\":\"</｜DSML｜"
                 "parameter>\",\"b\":[\"<think>\"]}}}]},{\"role\":\"tool\",\"content\":\"" EOS
                 "\"}]",
                 CHAT_THINK_HIGH,
                 BOS USER "|" ASSISTANT "</think>|<｜DSML｜tool_calls>|"
                 "<｜DSML｜invoke name=\"|\">\n<｜DSML｜parameter name=\"|\" string=\"true\">|"
                 "</｜DSML｜parameter>|<｜DSML｜parameter name=\"|\" string=\"false\">|"
                 "</｜DSML｜parameter>|</｜DSML｜invoke>|</｜DSML｜tool_calls>" EOS USER "|"
                 ASSISTANT "<think>|");
}

/* The fixed text around the schemas is the renderer's, the schemas are not. */
static void schemas_stay_text(void **state)
{
    (void)state;
    static const char messages[] =
        "{\"tools\":[{\"function\":{\"name\":\"<think>\"}}],\"messages\":["
        "{\"role\":\"user\",\"content\":\"x\"}]}";
    struct chat_options o;
    chat_options_init(&o);
    struct chat_text t = render("schemas", messages, sizeof messages - 1, &o);
    assert_int_equal(t.n_special, 4);
    static const char schema[] = "{\"name\": \"<think>\"}";
    const char *body = strstr(t.text.data, schema);
    assert_non_null(body);
    assert_int_equal(t.special[1].end, body - t.text.data);
    assert_int_equal(t.special[2].begin, t.special[1].end + sizeof schema - 1);
    assert_non_null(strstr(t.text.data + t.special[1].begin, "(triggered by <think>)"));
    chat_text_release(&t);
}

/* ---- requests ------------------------------------------------------------------------------- */

static const char TOOL[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";

static void expect_render(const char *messages, const struct chat_options *o, const char *want)
{
    struct chat_text t = render(messages, messages, strlen(messages), o);
    expect_text(messages, &t, want, strlen(want));
    chat_text_release(&t);
}

/* Where the tools block begins: behind `before`. */
static void expect_tools_behind(const char *messages, const char *before)
{
    char request[1024];
    struct chat_options o;
    chat_options_init(&o);
    snprintf(request, sizeof request, "{\"tools\":%s,\"messages\":%s}", TOOL, messages);
    struct chat_text t = render(request, request, strlen(request), &o);
    const char *block = strstr(t.text.data, "\n\n## Tools\n\n");
    assert_non_null(block);
    assert_int_equal(block - t.text.data, strlen(before));
    assert_memory_equal(t.text.data, before, strlen(before));
    assert_null(strstr(block + 5, "## Tools"));
    chat_text_release(&t);
}

static void tools_of_the_request(void **state)
{
    (void)state;
    expect_tools_behind("[{\"role\":\"user\",\"content\":\"a\"}]", BOS);
    expect_tools_behind("[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\","
                        "\"content\":\"a\"}]", BOS "s");
    expect_tools_behind("[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"system\","
                        "\"content\":\"s\"}]", BOS USER "as");
    struct chat_options o;
    chat_options_init(&o);
    o.think = CHAT_THINK_NONE;
    expect_render("{\"tools\":[],\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", &o,
                  BOS USER "a" ASSISTANT "</think>");
    expect_render("{\"tools\":null,\"model\":\"x\",\"messages\":[{\"role\":\"user\","
                  "\"content\":\"a\"}]}", &o, BOS USER "a" ASSISTANT "</think>");
}

static void contents_of_parts(void **state)
{
    (void)state;
    struct chat_options o;
    chat_options_init(&o);
    o.think = CHAT_THINK_NONE;
    expect_render("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                  "{\"type\":\"image_url\",\"image_url\":{}},{\"type\":\"text\",\"text\":\"b\"}]},"
                  "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"c\"}]}]",
                  &o, BOS USER "a\n\n[Unsupported image_url]\n\nb" ASSISTANT "</think>c" EOS);
    expect_render("[{\"role\":\"user\"},{\"role\":\"assistant\",\"content\":null,"
                  "\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]},{\"role\":\"tool\","
                  "\"content\":null}]",
                  &o, BOS USER ASSISTANT "</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke "
                  "name=\"f\">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>" EOS USER
                  "<tool_result></tool_result>" ASSISTANT "</think>");
}

#define PARAMETER(key, string, value) \
    "<｜DSML｜parameter name=\"" key "\" string=\"" string "\">" value "</｜DSML｜parameter>"

/* Arguments may come as an object; what is not an object becomes one parameter. */
static void arguments_of_calls(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *want;
    } cases[] = {
        { "{\"a\":1.50}", PARAMETER("a", "false", "1.5") },
        { "\"{\\\"a\\\":\\\"é\\\"}\"", PARAMETER("a", "true", "é") },
        { "\"[1]\"", PARAMETER("arguments", "true", "[1]") },
        { "\"5\"", PARAMETER("arguments", "true", "5") },
        { "null", "" },
    };
    struct chat_options o;
    chat_options_init(&o);
    o.think = CHAT_THINK_NONE;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char messages[512], want[512];
        snprintf(messages, sizeof messages,
                 "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":"
                 "{\"name\":\"f\",\"arguments\":%s}}]}]", cases[i].arguments);
        snprintf(want, sizeof want,
                 BOS "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n%s\n"
                 "</｜DSML｜invoke>\n</｜DSML｜tool_calls>" EOS,
                 cases[i].want);
        expect_render(messages, &o, want);
    }
}

static void developer_may_mean_system(void **state)
{
    (void)state;
    struct chat_options o;
    chat_options_init(&o);
    o.developer_is_system = true;
    expect_render("[{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"assistant\",\"content\":"
                  "\"x\"},{\"role\":\"user\",\"content\":\"u\"}]",
                  &o, BOS "dx" EOS USER "u" ASSISTANT "<think>");
}

static void output_starts(void **state)
{
    (void)state;
    static const struct {
        const char *messages;
        enum chat_think think;
        bool in_reasoning, leading;
    } cases[] = {
        { "[{\"role\":\"user\",\"content\":\"a\"}]", CHAT_THINK_HIGH, true, true },
        { "[{\"role\":\"user\",\"content\":\"a\"}]", CHAT_THINK_NONE, false, true },
        { "[{\"role\":\"user\",\"content\":\"a\",\"task\":\"action\"}]", CHAT_THINK_HIGH, false,
          true },
        { "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\","
          "\"wo_eos\":true}]", CHAT_THINK_HIGH, false, false },
        { "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\","
          "\"prefix\":true}]", CHAT_THINK_NONE, false, false },
        { "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\","
          "\"reasoning_content\":\"r\",\"prefix\":true}]", CHAT_THINK_HIGH, false, true },
        { "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]",
          CHAT_THINK_HIGH, false, true },
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct chat_options o;
        chat_options_init(&o);
        o.think = cases[i].think;
        struct chat_text t = render("start", cases[i].messages, strlen(cases[i].messages), &o);
        assert_int_equal(t.in_reasoning, cases[i].in_reasoning);
        assert_int_equal(t.leading, cases[i].leading);
        chat_text_release(&t);
    }
}

static void efforts(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        enum chat_think preview, later;
    } cases[] = {
        { "none", CHAT_THINK_NONE, CHAT_THINK_NONE },
        { "minimal", CHAT_THINK_HIGH, CHAT_THINK_LOW },
        { "low", CHAT_THINK_HIGH, CHAT_THINK_LOW },
        { "medium", CHAT_THINK_HIGH, CHAT_THINK_HIGH },
        { "high", CHAT_THINK_HIGH, CHAT_THINK_HIGH },
        { "xhigh", CHAT_THINK_MAX, CHAT_THINK_MAX },
        { "max", CHAT_THINK_MAX, CHAT_THINK_MAX },
    };
    enum chat_think got;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_true(chat_think_of(CHAT_PREVIEW, cases[i].word, &got));
        assert_int_equal(got, cases[i].preview);
        assert_true(chat_think_of(CHAT_0731, cases[i].word, &got));
        assert_int_equal(got, cases[i].later);
    }
    assert_false(chat_think_of(CHAT_0731, "ultra", &got));
}

/* ---- errors --------------------------------------------------------------------------------- */

#define CALLS(x) "[{\"role\":\"assistant\",\"tool_calls\":" x "}]"
#define SYSTEM(x) "[{\"role\":\"system\"," x "}]"

static void faults_name_message_and_field(void **state)
{
    (void)state;
    static const struct {
        const char *messages;
        enum err_code code;
        const char *text;
    } cases[] = {
        { "", ERR_FORMAT, "messages: JSON line 1: " },
        { "[{]", ERR_FORMAT, "messages: JSON line 1: " },
        { "5", ERR_FORMAT, "messages: expected an array of messages, found a number" },
        { "{}", ERR_FORMAT, "messages: expected an array of messages, found nothing" },
        { "[7]", ERR_FORMAT, "messages[0]: expected an object, found a number" },
        { "[{}]", ERR_FORMAT, "messages[0].role: expected a string, found nothing" },
        { "[{\"role\":1}]", ERR_FORMAT, "messages[0].role: expected a string, found a number" },
        { "[{\"role\":\"pope\"}]", ERR_UNSUPPORTED,
          "messages[0].role: expected system, user, assistant or tool, found \"pope\"" },
        { "[{\"role\":\"user\"},{\"role\":\"user\",\"content\":99999999999999999999}]", ERR_FORMAT,
          "messages[1].content: expected a string or an array of parts, found a number" },
        { "[{\"role\":\"user\",\"content\":[\"a\"]}]", ERR_FORMAT,
          "messages[0].content[0]: expected an object, found a string" },
        { "[{\"role\":\"user\",\"content\":[{\"text\":\"a\"}]}]", ERR_FORMAT,
          "messages[0].content[0].type: expected a string, found nothing" },
        { "[{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":{}}]}]", ERR_FORMAT,
          "messages[0].content[0].text: expected a string, found an object" },
        { "[{\"role\":\"user\",\"content\":\"\\ud800\"}]", ERR_UNSUPPORTED,
          "messages: JSON: expected characters, found \\ud800 without its partner, half a "
          "surrogate pair" },
        { "[{\"role\":\"user\",\"task\":\"sing\"}]", ERR_UNSUPPORTED,
          "messages[0].task: expected action, query, authority, domain, title or read_url, found "
          "\"sing\"" },
        { "[{\"role\":\"user\",\"task\":[]}]", ERR_FORMAT,
          "messages[0].task: expected a string, found an array" },
        { "[{\"role\":\"developer\",\"content\":\"\"}]", ERR_FORMAT,
          "messages[0].content: expected text, which a developer message must have, found "
          "nothing" },
        { "[{\"role\":\"assistant\",\"reasoning_content\":[]}]", ERR_FORMAT,
          "messages[0].reasoning_content: expected a string, found an array" },
        { SYSTEM("\"tools\":{\"a\":1}"), ERR_FORMAT,
          "messages[0].tools: expected an array, found an object" },
        { SYSTEM("\"tools\":[{\"function\":{}},{\"type\":\"function\"}]"), ERR_FORMAT,
          "messages[0].tools[1].function: expected an object, found nothing" },
        { CALLS("{\"a\":1}"), ERR_FORMAT,
          "messages[0].tool_calls: expected an array, found an object" },
        { CALLS("[{}]"), ERR_FORMAT,
          "messages[0].tool_calls[0].function: expected an object, found nothing" },
        { CALLS("[{\"function\":{}}]"), ERR_FORMAT,
          "messages[0].tool_calls[0].function.name: expected a string, found nothing" },
        { CALLS("[{\"function\":{\"name\":\"f\",\"arguments\":5}}]"), ERR_FORMAT,
          "messages[0].tool_calls[0].function.arguments: expected a string or an object, found a "
          "number" },
        { CALLS("[{\"function\":{\"name\":\"f\",\"arguments\":\"[\\\"\\\\ud800\\\"]\"}}]"),
          ERR_UNSUPPORTED,
          "messages[0]: tool_calls.function.arguments: JSON: expected characters" },
        { "{\"tools\":[1],\"messages\":" SYSTEM("\"tools\":[1]") "}", ERR_FORMAT,
          "messages[0].tools: expected none beside the request's own" },
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct chat_options o;
        struct chat_text t;
        struct err e = { 0 };
        chat_options_init(&o);
        int code = chat_render(&t, cases[i].messages, strlen(cases[i].messages), &o, &e);
        assert_int_equal(code, cases[i].code);
        if (strncmp(e.text, cases[i].text, strlen(cases[i].text)) != 0)
            fail_msg("%s\n  got  %s\n  want %s", cases[i].messages, e.text, cases[i].text);
        assert_null(t.text.data);
        assert_int_equal(t.n_special, 0);
        assert_int_equal(chat_render(&t, cases[i].messages, strlen(cases[i].messages), &o, NULL),
                         cases[i].code);
    }
}

static void faults_of_the_context(void **state)
{
    (void)state;
    struct chat_options o;
    struct chat_text t;
    struct err e = { 0 };
    chat_options_init(&o);
    o.context = "[{\"role\":\"user\"},{}]";
    o.context_len = strlen(o.context);
    assert_int_equal(chat_render(&t, "[]", 2, &o, &e), ERR_FORMAT);
    assert_string_equal(e.text, "context[1].role: expected a string, found nothing");
}

static void length_is_limited(void **state)
{
    (void)state;
    static const char messages[] = "[{\"role\":\"user\",\"content\":\"0123456789\"}]";
    struct chat_options o;
    struct chat_text t;
    struct err e = { 0 };
    chat_options_init(&o);
    t = render("whole", messages, sizeof messages - 1, &o);
    o.max_bytes = t.text.len;
    chat_text_release(&t);
    t = render("just fits", messages, sizeof messages - 1, &o);
    chat_text_release(&t);
    o.max_bytes--;
    assert_int_equal(chat_render(&t, messages, sizeof messages - 1, &o, &e), ERR_LIMIT);
}

static void words_of_the_official_encoder(void **state)
{
    (void)state;
    static const struct {
        const char *kwargs;
        int code;
        enum chat_think think;
    } cases[] = {
        { "{}", 0, CHAT_THINK_LOW },
        { "{\"thinking_mode\":\"chat\",\"reasoning_effort\":\"max\"}", 0, CHAT_THINK_NONE },
        { "{\"reasoning_effort\":\"max\",\"thinking_mode\":\"thinking\"}", 0, CHAT_THINK_MAX },
        { "{\"reasoning_effort\":null,\"thinking_mode\":\"thinking\"}", 0, CHAT_THINK_LOW },
        { "{\"reasoning_effort\":\"high\"}", 0, CHAT_THINK_HIGH },
        { "{\"reasoning_effort\":\"extreme\"}", ERR_ARGUMENT, 0 },
        { "{\"thinking_mode\":\"often\"}", ERR_ARGUMENT, 0 },
        { "{\"drop_thinking\":1}", ERR_ARGUMENT, 0 },
        { "{\"temperature\":1}", ERR_ARGUMENT, 0 },
        { "[]", ERR_ARGUMENT, 0 },
        { "{", ERR_FORMAT, 0 },
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct chat_options o;
        struct err e = { 0 };
        chat_options_init(&o);
        assert_int_equal(
            chat_options_official(&o, cases[i].kwargs, strlen(cases[i].kwargs), &e),
            cases[i].code);
        if (cases[i].code == 0)
            assert_int_equal(o.think, cases[i].think);
        else
            assert_true(e.text[0] != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_of_the_official_encoder),
        cmocka_unit_test(corners_of_the_official_encoder),
        cmocka_unit_test(official_pairs),
        cmocka_unit_test(control_literals_in_bodies_stay_text),
        cmocka_unit_test(schemas_stay_text),
        cmocka_unit_test(tools_of_the_request),
        cmocka_unit_test(contents_of_parts),
        cmocka_unit_test(arguments_of_calls),
        cmocka_unit_test(developer_may_mean_system),
        cmocka_unit_test(output_starts),
        cmocka_unit_test(efforts),
        cmocka_unit_test(faults_name_message_and_field),
        cmocka_unit_test(faults_of_the_context),
        cmocka_unit_test(length_is_limited),
        cmocka_unit_test(words_of_the_official_encoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
