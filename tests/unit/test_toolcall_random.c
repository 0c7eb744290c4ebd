/* test_toolcall_random.c - the output parser's default dialect under truncation at every byte and
 * in random text; the round trip through the renderer. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "chat_deepseek.h"
#include "jsonl.h"
#include "toolcall_record.h"

/* ---- truncation ----------------------------------------------------------------------------- */

/* Cut the text after every byte, for both ways of giving calls and both reasons to end. */
static void truncate_everywhere(const json_t *g, void *user)
{
    int *n = user;
    size_t len;
    const char *text = pyjson_string(json_object_get(g, "text"), &len);
    for (size_t cut = 0; cut <= len; cut++)
        for (int way = 0; way < 8; way++) {
            struct toolcall_options o;
            struct record r, bytes;
            enum toolcall_reason reason = way & 2 ? TOOLCALL_LENGTH : TOOLCALL_EOS;
            toolcall_options_init(&o);
            o.tools = RECORD_TOOLS;
            o.tools_len = sizeof RECORD_TOOLS - 1;
            o.whole_calls = way & 1;
            o.in_reasoning = way & 4;
            record_run(&r, &o, text, cut, CUT_NOT, 0, reason);
            if (r.error || !record_is_sound(&r))
                fail_msg("%s cut to %zu, way %d:\n%s", string_of(g, "name"), cut, way, r.all.data);
            if ((cut + (size_t)way) % 8 == 0) {
                record_run(&bytes, &o, text, cut, CUT_BYTES, 0, reason);
                assert_string_equal(r.all.data, bytes.all.data);
                record_release(&bytes);
            }
            for (int i = 0; i < r.n_call; i++)
                assert_true(r.call[i].complete || !o.whole_calls);
            assert_true(reason == TOOLCALL_EOS || r.done || r.finish == TOOLCALL_FINISH_LENGTH);
            record_release(&r);
            ++*n;
        }
}

static void arguments_are_json_wherever_it_ends(void **state)
{
    (void)state;
    int n = 0;
    jsonl_each("tests/data/chat/parse_goldens_official.jsonl", truncate_everywhere, &n);
    jsonl_each("tests/data/chat/stream_goldens_recipe.jsonl", truncate_everywhere, &n);
    jsonl_each("tests/data/chat/toolcall_default.jsonl", truncate_everywhere, &n);
    assert_in_range(n, 50000, 1000000);
}

/* ---- random text ---------------------------------------------------------------------------- */

/* What reasoning and content are when there are no tools and no stop strings, computed on the
 * whole text. Newlines are trimmed at the start of a part and before the end of reasoning. */
static void split_plainly(const char *text, bool in_reasoning, struct buf *reasoning,
                          struct buf *content)
{
    const char *end = strstr(text, "</think>");
    if (strncmp(text, "<think>", 7) == 0)
        text += 7;
    if (in_reasoning) {
        const char *stop = end ? end : text + strlen(text);
        while (*text == '\n' && text < stop)
            text++;
        const char *last = stop;
        while (end && last > text && last[-1] == '\n')
            last--;
        buf_add(reasoning, text, (size_t)(last - text));
        text = end ? end + 8 : stop;
        if (!end)
            return;
    }
    text += strspn(text, "\n");
    while ((end = strstr(text, "</think>"))) {
        buf_add(content, text, (size_t)(end - text));
        text = end + 8;
    }
    buf_puts(content, text);
}

static void no_byte_is_lost_without_tools(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "a", "\n", "\n\n", "<", "</think>", "</thin", "<think>", "<｜DSML", "é", "<｜DSML｜",
        "tool_calls>", "</｜DSML｜invoke>", "<<", "｜", "\n</",
    };
    struct rng rng = { 11, 0 };
    for (int i = 0; i < 20000; i++) {
        struct toolcall_options o;
        struct record r;
        struct buf text, reasoning, content;
        buf_init(&text, 1 << 20);
        buf_init(&reasoning, 1 << 20);
        buf_init(&content, 1 << 20);
        buf_puts(&text, "");
        for (uint64_t n = rng_next(&rng) % 12; n > 0; n--)
            buf_puts(&text, pieces[rng_next(&rng) % COUNT_OF(pieces)]);
        toolcall_options_init(&o);
        o.in_reasoning = i & 1;
        split_plainly(text.data, o.in_reasoning, &reasoning, &content);
        record_run(&r, &o, text.data, text.len, CUT_RANDOM, (uint64_t)i, TOOLCALL_EOS);
        expect_buf(text.data, "reasoning", &r.text[0], reasoning.data ? reasoning.data : "");
        expect_buf(text.data, "content", &r.text[1], content.data ? content.data : "");
        assert_int_equal(r.text[2].len, 0);
        record_release(&r);
        buf_release(&text);
        buf_release(&reasoning);
        buf_release(&content);
    }
}

/* A word that occurs once in the text occurs once in what comes out: in a text, or in a call. */
static void expect_word(const struct record *r, const char *word, const char *text)
{
    int n = 0;
    for (int i = 0; i < 3; i++)
        n += r->text[i].data && strstr(r->text[i].data, word);
    for (int i = 0; i < r->n_call; i++) {
        n += strstr(r->call[i].arguments.data, word) != NULL;
        n += strstr(r->call[i].name.data, word) != NULL;
    }
    if (n != 1)
        fail_msg("%s is given %d times:\n%s\n  as%s", word, n, text, r->all.data);
}

/* Markup in any order and words between: each word comes out once, calls are sound, the pieces of
 * the pushes do not matter. */
static void no_word_is_lost_in_wild_markup(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "<｜DSML｜tool_calls>", "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n",
        "<｜DSML｜invoke name=\"f\">", "<｜DSML｜invoke name=\"need\">\n",
        "<｜DSML｜invoke name=\"other\">", "</｜DSML｜parameter>", "</｜DSML｜parameter>\n",
        "</｜DSML｜invoke>", "</｜DSML｜tool_calls>",
        "\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>", "</｜DSML｜para>",
        "<｜DSML｜function_calls>", "<｜DSML｜", "</｜DSML｜", "<", "</", "<｜D",
        "</think>", "\n", "\n\n", " ", "1", "{}", "\xff", "\xe4\xb8",
    };
    static const char *const types[] = { " string=\"true\"", " string=\"false\"", "" };
    struct rng rng = { 5, 0 };
    for (int i = 0; i < 10000; i++) {
        struct toolcall_options o;
        struct record r, whole;
        struct buf text;
        int n_word = 0;
        buf_init(&text, 1 << 20);
        buf_puts(&text, "");
        for (uint64_t n = rng_next(&rng) % 24; n > 0; n--) {
            uint64_t k = rng_next(&rng) % (COUNT_OF(pieces) + 8);
            if (k < COUNT_OF(pieces))
                buf_puts(&text, pieces[k]);
            else if (k < COUNT_OF(pieces) + 4)
                buf_printf(&text, "(%d)", n_word++);
            else
                buf_printf(&text, "<｜DSML｜parameter name=\"(%d)\"%s>", n_word++,
                           types[rng_next(&rng) % COUNT_OF(types)]);
        }
        toolcall_options_init(&o);
        o.in_reasoning = i & 1;
        o.whole_calls = i & 2;
        o.tools = RECORD_TOOLS;
        o.tools_len = sizeof RECORD_TOOLS - 1;
        enum toolcall_reason reason = i & 4 ? TOOLCALL_LENGTH : TOOLCALL_EOS;
        record_run(&whole, &o, text.data, text.len, CUT_NOT, 0, reason);
        record_run(&r, &o, text.data, text.len, CUT_RANDOM, (uint64_t)i, reason);
        assert_string_equal(r.all.data, whole.all.data);
        if (!record_is_sound(&r))
            fail_msg("%s\n  as%s", text.data, r.all.data);
        for (int w = 0; w < n_word; w++) {
            char word[16];
            snprintf(word, sizeof word, "(%d)", w);
            expect_word(&r, word, text.data);
        }
        record_release(&r);
        record_release(&whole);
        buf_release(&text);
    }
}

/* ---- round trip ----------------------------------------------------------------------------- */

static const char *pick(struct rng *rng, const char *const *list, size_t n)
{
    return list[rng_next(rng) % n];
}

/* Append a JSON string. */
static void put_string(struct buf *out, const char *s, size_t n)
{
    buf_putc(out, '"');
    pyjson_escape(out, s, n);
    buf_putc(out, '"');
}

static void put_random_arguments(struct rng *rng, struct buf *out)
{
    static const char *const values[] = {
        "\"\"", "\"x\"", "\"l1\\nl2 < 3 && \\\"q\\\" é\\n\"", "5", "1.5", "1e+20", "true", "null",
        "[1, \"é\", {\"k\": []}]", "{}", "123456789012345678901234567890", "\"</｜DSML\"",
        "\"<｜DSML｜invoke name=\\\"\"", "\"\\u0001\\t\\\\\"", "{\"a\": \"</think>\"}",
    };
    static const char *const keys[] = { "a", "b", "ключ", "", "long key", "n" };
    struct buf object;
    unsigned used = 0;
    buf_init(&object, 1 << 16);
    buf_puts(&object, "{");
    for (uint64_t n = rng_next(rng) % 5; n > 0; n--) {
        uint64_t k = rng_next(rng) % COUNT_OF(keys);
        if (used >> k & 1)
            continue;
        buf_puts(&object, used ? ", \"" : "\"");
        buf_puts(&object, keys[k]);
        buf_puts(&object, "\": ");
        buf_puts(&object, pick(rng, values, COUNT_OF(values)));
        used |= 1u << k;
    }
    buf_puts(&object, "}");
    put_string(out, object.data, object.len);
    buf_release(&object);
}

/* [user, assistant with random fields], thinking or not. */
static void put_random_messages(struct rng *rng, bool thinking, struct buf *out)
{
    static const char *const texts[] = { "",           "Hello",         "a\n\nb",
                                         "é中😀 <b>", "1 < 2 </ </th", "x\n y" };
    static const char *const names[] = { "f", "now", "получить", "a b" };
    const char *text = pick(rng, texts, COUNT_OF(texts));
    buf_puts(out, "[{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
                  "\"content\": ");
    put_string(out, text, strlen(text));
    if (thinking) {
        text = pick(rng, texts, COUNT_OF(texts));
        buf_puts(out, ", \"reasoning_content\": ");
        put_string(out, text, strlen(text));
    }
    uint64_t n_call = rng_next(rng) % 4;
    buf_puts(out, n_call ? ", \"tool_calls\": [" : "");
    for (uint64_t i = 0; i < n_call; i++) {
        buf_printf(out, "%s{\"type\": \"function\", \"function\": {\"name\": \"%s\", ",
                   i ? ", " : "", pick(rng, names, COUNT_OF(names)));
        buf_puts(out, "\"arguments\": ");
        put_random_arguments(rng, out);
        buf_puts(out, "}}");
    }
    buf_puts(out, n_call ? "]}]" : "}]");
}

/* The same conversation with what was parsed as its last message. */
static void put_parsed_messages(const struct record *r, struct buf *out)
{
    buf_puts(out, "[{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
                  "\"content\": ");
    put_string(out, r->text[1].data, r->text[1].len);
    buf_puts(out, ", \"reasoning_content\": ");
    put_string(out, r->text[0].data, r->text[0].len);
    buf_puts(out, r->n_call ? ", \"tool_calls\": [" : "");
    for (int i = 0; i < r->n_call; i++) {
        buf_puts(out, i ? ", {\"function\": {\"name\": " : "{\"function\": {\"name\": ");
        put_string(out, r->call[i].name.data, r->call[i].name.len);
        buf_puts(out, ", \"arguments\": ");
        put_string(out, r->call[i].arguments.data, r->call[i].arguments.len);
        buf_puts(out, "}}");
    }
    buf_puts(out, r->n_call ? "]}]" : "}]");
}

static void render_again_gives_the_same(void **state)
{
    (void)state;
    static const char USER_TURN[] = "<｜User｜>q<｜Assistant｜>";
    struct rng rng = { 3, 0 };
    for (int i = 0; i < 3000; i++) {
        struct chat_options co;
        struct toolcall_options to;
        struct chat_text first, second;
        struct buf messages, parsed;
        struct err e = { 0 };
        chat_options_init(&co);
        co.think = i & 1 ? CHAT_THINK_HIGH : CHAT_THINK_NONE;
        buf_init(&messages, 1 << 20);
        put_random_messages(&rng, i & 1, &messages);
        if (chat_render(&first, messages.data, messages.len, &co, &e) < 0)
            fail_msg("%s: %s", messages.data, e.text);
        const char *output = strstr(first.text.data, USER_TURN);
        assert_non_null(output);
        output += strlen(USER_TURN) + strlen(i & 1 ? "<think>" : "</think>");
        for (int mode = TOOLCALL_DEFAULT; mode <= TOOLCALL_STRICT; mode++) {
            struct record r;
            size_t len = strlen(output);
            toolcall_options_init(&to);
            to.mode = (enum toolcall_mode)mode;
            to.in_reasoning = i & 1;
            to.tools = RECORD_TOOLS;
            to.tools_len = sizeof RECORD_TOOLS - 1;
            if (mode == TOOLCALL_RECIPE) /* it knows nothing of the end marker */
                len = (size_t)(strstr(output, "<｜end▁of▁sentence｜>") - output);
            record_run(&r, &to, output, len, CUT_RANDOM, (uint64_t)i, TOOLCALL_EOS);
            if (r.error)
                fail_msg("%s: %s", output, r.e.text);
            buf_init(&parsed, 1 << 20);
            put_parsed_messages(&r, &parsed);
            if (chat_render(&second, parsed.data, parsed.len, &co, &e) < 0)
                fail_msg("%s: %s", parsed.data, e.text);
            assert_string_equal(second.text.data, first.text.data);
            assert_int_equal(r.finish, r.n_call ? TOOLCALL_FINISH_CALLS : TOOLCALL_FINISH_STOP);
            chat_text_release(&second);
            buf_release(&parsed);
            record_release(&r);
        }
        chat_text_release(&first);
        buf_release(&messages);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arguments_are_json_wherever_it_ends),
        cmocka_unit_test(no_byte_is_lost_without_tools),
        cmocka_unit_test(no_word_is_lost_in_wild_markup),
        cmocka_unit_test(render_again_gives_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
