/* test_cmd_parts.c - pieces of the program that no model can be made to exercise: an answer with
 * control characters in it, stop strings cut anywhere, the conversation as messages.
 *
 * The program is no library, so its sources are included; the terminal is played. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../../src/cmd/answer_show.c"
#include "../../src/cmd/stop_scan.c"
#include "../../src/cmd/suggest.c"
#include "../../src/cmd/talk.c"

static bool played[3];

bool term_is(enum term_stream s)
{
    return played[s];
}

const char *term_style(enum term_stream s, enum term_look look)
{
    static const char *const name[] = { "[plain]", "[dim]",   "[bold]",
                                        "[red]",   "[green]", "[cyan]" };
    return played[s] ? name[look] : "";
}

void term_remark(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
}

/* What is written to a stream while it is caught. */
struct caught {
    FILE *stream;
    int kept, fd;
    char text[1024];
};

static void catch_begin(struct caught *c, FILE *stream)
{
    char name[] = "/tmp/dstar-parts-XXXXXX";
    fflush(stream);
    c->stream = stream;
    c->kept = dup(fileno(stream));
    c->fd = mkstemp(name);
    unlink(name);
    dup2(c->fd, fileno(stream));
}

static void catch_end(struct caught *c)
{
    fflush(c->stream);
    memset(c->text, 0, sizeof c->text);
    assert_true(pread(c->fd, c->text, sizeof c->text - 1, 0) >= 0);
    dup2(c->kept, fileno(c->stream));
    close(c->kept);
    close(c->fd);
}

/* Show the events; compare both streams. */
static void show(const struct dstar_event *ev, int n, struct answer_show *s, const char *out,
                 const char *err)
{
    struct caught o, e;
    catch_begin(&o, stdout);
    catch_begin(&e, stderr);
    for (int i = 0; i < n; i++)
        answer_show_event(s, &ev[i]);
    answer_show_end(s);
    catch_end(&e);
    catch_end(&o);
    assert_string_equal(o.text, out);
    assert_string_equal(e.text, err);
}

#define TEXT(k, s) { .kind = (k), .text = (s), .len = sizeof(s) - 1 }

static const struct dstar_event whole[] = {
    TEXT(DSTAR_REASONING, "Hm"),
    TEXT(DSTAR_REASONING, "m."),
    TEXT(DSTAR_CONTENT, "A\033]0;t\007B\r\xc2\x9b" "C\xc3\xa9\n"),
    TEXT(DSTAR_CONTENT, "end"),
    TEXT(DSTAR_RAW, "hidden"),
    { .kind = DSTAR_CALL_BEGIN, .id = "x", .name = "f" },
    TEXT(DSTAR_CALL_ARGS, "{\"a\": "),
    TEXT(DSTAR_CALL_ARGS, "1}"),
    { .kind = DSTAR_CALL_END, .complete = 1 },
    { .kind = DSTAR_CALL_BEGIN, .id = "y", .name = "g" },
    TEXT(DSTAR_CALL_ARGS, "{}"),
    { .kind = DSTAR_CALL_END, .complete = 0 },
    { .kind = DSTAR_FINISHED },
};

static void test_show(void **state)
{
    (void)state;
    struct answer_show s;
    played[TERM_OUT] = played[TERM_ERR] = true;
    answer_show_init(&s, false, false);
    show(whole, COUNT_OF(whole), &s,
         "[dim]Hmm.[plain]\n\nA]0;tBC\xc3\xa9\nend\n[cyan]call f {\"a\": 1}[plain]\n"
         "[cyan]call g {} (cut off)[plain]\n", "");
    played[TERM_OUT] = false;
    answer_show_init(&s, false, false);
    show(whole, COUNT_OF(whole), &s,
         "A\033]0;t\007B\r\xc2\x9b" "C\xc3\xa9\nend\ncall f {\"a\": 1}\ncall g {} (cut off)\n",
         "[dim]Hmm.[plain]\n");
    played[TERM_ERR] = false;
    answer_show_init(&s, true, false);
    show(whole, 3, &s, "A\033]0;t\007B\r\xc2\x9b" "C\xc3\xa9\n", "");
}

static void test_show_ends(void **state)
{
    (void)state;
    static const struct dstar_event text[] = { TEXT(DSTAR_CONTENT, "abc"),
                                               { .kind = DSTAR_FINISHED } };
    struct answer_show s;
    played[TERM_OUT] = played[TERM_ERR] = false;
    answer_show_init(&s, false, false);
    show(text, 1, &s, "abc\n", ""); /* failed in the middle */
    answer_show_init(&s, false, true);
    show(text, 2, &s, "abc", "");
    played[TERM_OUT] = true;
    answer_show_init(&s, false, true);
    show(text, 2, &s, "abc\n", "");
}

/* However the text is cut, what comes before the first stop string is the same. */
static void test_stop_scan(void **state)
{
    (void)state;
    static const char text[] = "aababcab";
    static const struct {
        const char *stop[2], *before;
        int which;
    } job[] = {
        { { "abc", "x" }, "aab", 0 },
        { { "zz", "bab" }, "aa", 1 },
        { { "abad", "ababa" }, "aababcab", -1 },
        { { "cab", "abc" }, "aab", 1 },
        { { "cabb", "zz" }, "aababcab", -1 },
    };
    for (size_t j = 0; j < COUNT_OF(job); j++)
        for (unsigned cuts = 0; cuts < 1u << (sizeof text - 2); cuts++) {
            struct stop_scan s;
            char got[16] = "";
            int which = -1;
            size_t from = 0;
            stop_scan_init(&s, job[j].stop, 2);
            for (size_t i = 0; i + 1 < sizeof text && which < 0; i++) {
                if (!(cuts >> i & 1) && i + 2 < sizeof text)
                    continue;
                size_t n = stop_scan_push(&s, text + from, i + 1 - from, &which);
                strncat(got, s.held.data, n);
                buf_drop(&s.held, n);
                from = i + 1;
            }
            if (which < 0)
                strncat(got, s.held.data, s.held.len);
            stop_scan_release(&s);
            assert_string_equal(got, job[j].before);
            assert_int_equal(which, job[j].which);
        }
}

static const char *nearest(const char *typed)
{
    static const char *const word[] = { "run", "chat", "temp", "top-k", "top-p", "tokenize",
                                        "detokenize", "max-tokens", "seed" };
    struct suggest s;
    suggest_init(&s, typed);
    for (size_t i = 0; i < COUNT_OF(word); i++)
        suggest_offer(&s, word[i]);
    return s.best ? s.best : "";
}

static void test_suggest(void **state)
{
    (void)state;
    static const char *const pair[][2] = {
        { "rnu", "run" },        { "caht", "chat" },      { "temprature", "temp" },
        { "tokenise", "tokenize" }, { "tok", "tokenize" }, { "max_tokens", "max-tokens" },
        { "topp", "top-p" },     { "sed", "seed" },       { "zzz", "" },
        { "x", "" },             { "", "" },
        { "a-word-of-more-than-thirty-one-letters", "" },
    };
    for (size_t i = 0; i < COUNT_OF(pair); i++)
        assert_string_equal(nearest(pair[i][0]), pair[i][1]);
}

static void expect_text(const struct talk *t, const char *messages)
{
    struct err e = { 0 };
    struct talk_text text;
    assert_int_equal(talk_text(t, &text, &e), 0);
    assert_string_equal(text.messages, messages);
    talk_text_release(&text);
}

static void test_talk(void **state)
{
    (void)state;
    struct talk t, again;
    struct err e = { 0 };
    json_t *calls = json_loads("[{\"id\":\"1\",\"function\":{\"name\":\"f\"}},"
                               "{\"id\":\"2\",\"function\":{\"name\":\"g\"}}]", 0, NULL);
    assert_int_equal(talk_init(&t, &e), 0);
    assert_int_equal(talk_set_system(&t, "S", &e), 0);
    assert_int_equal(talk_set_system(&t, "T", &e), 0);
    assert_int_equal(talk_say(&t, "a\xff\0b", 4, &e), 0); /* Latin-1, and a zero byte */
    assert_int_equal(talk_answered(&t, "c", "r", calls, &e), 0);
    assert_string_equal(talk_open_call(&t), "f");
    assert_int_equal(talk_say(&t, "one", 3, &e), 0);
    assert_string_equal(talk_open_call(&t), "g");
    char *kept = talk_dump(&t);
    assert_int_equal(talk_say(&t, "two", 3, &e), 0);
    assert_null(talk_open_call(&t));
    talk_unsay(&t);
    assert_string_equal(talk_open_call(&t), "g");
    assert_int_equal(talk_init(&again, &e), 0);
    assert_int_equal(talk_parse(&again, kept, strlen(kept), "f", &e), 0);
    free(kept);
    static const char messages[] =
        "[{\"role\":\"system\",\"content\":\"T\"},"
        "{\"role\":\"user\",\"content\":\"a\xc3\xbf\\u0000b\"},"
        "{\"role\":\"assistant\",\"content\":\"c\",\"reasoning_content\":\"r\",\"tool_calls\":"
        "[{\"id\":\"1\",\"function\":{\"name\":\"f\"}},"
        "{\"id\":\"2\",\"function\":{\"name\":\"g\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"one\"}]";
    expect_text(&t, messages);
    expect_text(&again, messages);
    assert_int_equal(talk_parse(&again, "{}", 2, "f", &e), ERR_FORMAT);
    expect_text(&again, messages);
    assert_int_equal(talk_set_system(&again, "", &e), 0);
    assert_null(talk_system(&again));
    talk_clear(&t);
    expect_text(&t, "[{\"role\":\"system\",\"content\":\"T\"}]");
    talk_clear(&again);
    expect_text(&again, "[]");
    talk_release(&t);
    talk_release(&again);
    json_decref(calls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_show),    cmocka_unit_test(test_show_ends),
        cmocka_unit_test(test_stop_scan), cmocka_unit_test(test_suggest),
        cmocka_unit_test(test_talk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
