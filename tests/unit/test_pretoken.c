/* test_pretoken.c - the pieces of a text, and the patterns that are refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "buf.h"
#include "pretoken_impl.h"
#include "rng.h"
#include "utf8.h"

/* The pieces with a bar between them. */
static void pieces(struct pretoken *p, const char *text, size_t len, struct buf *out)
{
    struct text_span piece;
    struct err e = { 0 };
    size_t at = 0;
    int more;
    buf_clear(out);
    pretoken_start(p, text, len);
    while ((more = pretoken_next(p, &piece, &e)) > 0) {
        assert_int_equal(piece.begin, at);
        assert_true(piece.end > piece.begin && piece.end <= len);
        buf_puts(out, at ? "|" : "");
        buf_add(out, text + piece.begin, piece.end - piece.begin);
        at = piece.end;
    }
    assert_int_equal(more, 0);
    assert_int_equal(at, len);
}

static struct pretoken *joyai(void)
{
    struct err e = { 0 };
    struct pretoken *p;
    if (pretoken_new(&p, pretoken_joyai, PRETOKEN_N_JOYAI, NULL, &e) < 0)
        fail_msg("%s", e.text);
    assert_string_equal(pretoken_name(p), "joyai-llm");
    return p;
}

static void test_rule(void **state)
{
    (void)state;
    static const char *const want[] = {
        /* digits: all of category N, groups of three from the left */
        "123|45", "x|123|4", "٣٤٥|٦", "½|x",
        /* the CJK ranges, which end before extension A and half-width kana; a mark or a symbol
         * inside a run still breaks it */
        "a| |中文| b", "中文|，|中文", "カ|・|ナ", "カタ|゛|カ", "ｶﾅ|カナ",
        "㐀|一", "한국",
        /* words take one character before them, punctuation only before ASCII letters */
        "Hello| world|!", "it|'s|.com|(x| _|y", "a|.|é", "_name|_|é", "x|+|é", "é\xCC\x81",
        "a|\tb", "a|\xC2\xA0" "b|\xE3\x80\x80|\xE3\x80\x80" "c",
        /* punctuation takes one space before and all line ends behind */
        "a| !!\n|b", "a| !!\n\n|b", "a|...\r\n|b", "!a|!b|!!| c",
        "👍🏽", "👩|‍|💻", "❤|️x",
        /* white space: up to the last line end; all but the last character before text, all of it
         * at the end of the piece, and a digit begins another piece */
        "a|  \n|b", "a| \n  \n| | b", "a|\n\n| | b", "a|  ", "a|  |5", "a|  | b|\r\n\r|d",
        "a|\xC2\x85\n|b",
        /* U+180E is no white space, but what may stand before a word, or a gap */
        "a|\xE1\xA0\x8E" "b", "a| |\xE1\xA0\x8E\xE1\xA0\x8E|!", "a| \n|\xE1\xA0\x8E|\n|b",
        /* control characters likewise */
        "a|\x01\x02|!", "a|\x01" "b", "a|\x01|\x01" "b",
    };
    struct pretoken *p = joyai();
    struct buf text, got;
    buf_init(&text, 1000);
    buf_init(&got, 1000);
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        buf_clear(&text);
        for (const char *c = want[i]; *c; c++)
            if (*c != '|')
                buf_putc(&text, *c);
        pieces(p, text.data, text.len, &got);
        if (strcmp(got.data, want[i]) != 0)
            fail_msg("got %s, expected %s", got.data, want[i]);
    }
    buf_release(&text);
    buf_release(&got);
    pretoken_free(p);
}
/* ---- the rule once more, by hand ---- */

enum class { NONE, LETTER, MARK, NUMBER, PUNCT, SYMBOL, SPACE, LINE };

struct letter {
    uint32_t c;
    size_t at; /* in the text */
    enum class class;
};

static bool has_property(uint32_t c, const char *property)
{
    char s[4];
    int error;
    size_t where, len = (size_t)utf8_put(s, c);
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)property, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error,
                                     &where, NULL);
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    bool yes = pcre2_match(code, (PCRE2_SPTR)s, len, 0, 0, match, NULL) > 0;
    pcre2_match_data_free(match);
    pcre2_code_free(code);
    return yes;
}

static enum class class_of(uint32_t c)
{
    static const char *const property[] = { [LETTER] = "\\p{L}", [MARK] = "\\p{M}",
                                            [NUMBER] = "\\p{N}", [PUNCT] = "\\p{P}",
                                            [SYMBOL] = "\\p{S}" };
    if (c == '\r' || c == '\n')
        return LINE;
    if ((c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
        (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
        c == 0x205F || c == 0x3000)
        return SPACE;
    for (int k = LETTER; k <= SYMBOL; k++)
        if (has_property(c, property[k]))
            return (enum class)k;
    return NONE;
}

static bool is_cjk(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
}

static bool ascii_letter(uint32_t c)
{
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

static bool is_word(enum class k) { return k == LETTER || k == MARK; }
static bool is_sign(enum class k) { return k == PUNCT || k == SYMBOL; }
static bool is_white(enum class k) { return k == SPACE || k == LINE; }

/* Where the match of the third pattern that starts at letter i ends; i itself if none does. */
static int match_end(const struct letter *x, int i, int n)
{
    int j = i, line = -1;
    if (x[i].c < 128 && is_sign(x[i].class) && i + 1 < n && ascii_letter(x[i + 1].c)) {
        for (j = i + 1; j < n && ascii_letter(x[j].c);)
            j++;
        return j;
    }
    bool prefix = x[i].class != LINE && x[i].class != LETTER && !is_sign(x[i].class);
    if (is_word(x[i].class) || (prefix && i + 1 < n && is_word(x[i + 1].class))) {
        for (j = i + 1; j < n && is_word(x[j].class);)
            j++;
        return j;
    }
    j = i + (x[i].c == ' ');
    if (j < n && is_sign(x[j].class)) {
        while (j < n && is_sign(x[j].class))
            j++;
        while (j < n && x[j].class == LINE)
            j++;
        return j;
    }
    for (j = i; j < n && is_white(x[j].class); j++)
        line = x[j].class == LINE ? j : line;
    if (line >= 0)
        return line + 1;
    return j == n || j - i <= 1 ? j : j - 1;
}

/* The third pattern over x[begin..end-1]: marks the borders. */
static void cut_words(const struct letter *x, int begin, int end, bool *border)
{
    for (int i = begin; i < end;) {
        int to = match_end(x + begin, i - begin, end - begin) + begin;
        if (to > i)
            border[i] = border[to] = true;
        i = MAX(to, i + 1);
    }
}

static void cut(const struct letter *x, int n, bool *border)
{
    memset(border, 0, (size_t)(n + 1) * sizeof *border);
    for (int i = 0, to; i < n; i = to) {
        int kind = x[i].class == NUMBER ? 1 : is_cjk(x[i].c) ? 2 : 3;
        for (to = i; to < n; to++)
            if (kind != (x[to].class == NUMBER ? 1 : is_cjk(x[to].c) ? 2 : 3))
                break;
        border[i] = border[to] = true;
        if (kind == 1)
            for (int k = i; k < to; k += 3)
                border[k] = true;
        else
            cut_words(x, i, to, border);
    }
}

/* A few characters of every kind, so that rules meet; and now and then any character at all. */
static uint32_t random_character(struct rng *r)
{
    static const uint32_t often[] = { 'a', 'Z', 'q', ' ', ' ', ' ', '\n', '\r', '\t', '.', '\'',
        '_', '+', '$', '(', '1', '2', 0, 0x1F, 0x7F, 0x85, 0xA0, 0xAD, 0xE9, 0x2BC, 0x300, 0x301,
        0x3A9, 0x660, 0x180E, 0x200B, 0x200D, 0x2003, 0x2028, 0x2014, 0x20AC, 0x2160, 0x3000,
        0x3001, 0x30A2, 0x30FB, 0x309B, 0x3099, 0x4E00, 0x9FA5, 0x9FA6, 0xAC00, 0xFE0F, 0xFEFF,
        0xFF21, 0x1F642, 0x1F3FB, 0xE000, 0x10FFFF, 0xBD };
    uint64_t x = rng_next(r);
    if (x % 16)
        return often[(x >> 8) % COUNT_OF(often)];
    uint32_t c = (uint32_t)((x >> 8) % 0x30000);
    return c >= 0xD800 && c < 0xE000 ? 'b' : c;
}

static void test_against_hand(void **state)
{
    (void)state;
    enum { MAX_LETTERS = 24 };
    struct pretoken *p = joyai();
    struct rng r = { 5, 0 };
    enum class *known = calloc(0x110000, sizeof *known); /* class + 1 */
    assert_non_null(known);
    for (int round = 0; round < 60000; round++) {
        struct letter x[MAX_LETTERS + 1];
        bool border[MAX_LETTERS + 1];
        char text[MAX_LETTERS * 4];
        int n = 1 + (int)(rng_next(&r) % MAX_LETTERS), i = 0, more;
        size_t len = 0;
        for (int k = 0; k < n; k++) {
            uint32_t c = random_character(&r);
            if (!known[c])
                known[c] = class_of(c) + 1;
            x[k] = (struct letter){ c, len, known[c] - 1 };
            len += (size_t)utf8_put(text + len, c);
        }
        x[n].at = len;
        cut(x, n, border);
        struct text_span piece;
        struct err e = { 0 };
        pretoken_start(p, text, len);
        while ((more = pretoken_next(p, &piece, &e)) > 0) {
            for (i++; i < n && !border[i];)
                i++;
            if (piece.end != x[i].at)
                fail_msg("round %d: a piece ends at %zu, expected %zu", round, piece.end, x[i].at);
        }
        assert_int_equal(more, 0);
        assert_int_equal(i, n);
    }
    free(known);
    pretoken_free(p);
}

/* ---- other patterns ---- */

static void test_other_rules(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *pieces;
    } rule[] = {
        { "(?i:'s|'ll)|\\p{L}+", "it|'S| |I|'ll" },
        { " ?[^\\s\\p{L}\\p{N}]+", "a| ?!|b|\xE1\xA0\x8E|\xE3\x80\x80" },
        { "[\\s]", "a|\xE3\x80\x80|b" },
        { "[\\S]+", "a\xE1\xA0\x8E" "b| |c" },
        { "\\S+", "a\xE1\xA0\x8E" "b| |c" },
        { "[^\\S\\n]+", "a|  |\nb" },
        { "(?<=a)b|\\x{63}\\]", "a|b|b|c]|c" },
    };
    struct buf text, got;
    buf_init(&text, 1000);
    buf_init(&got, 1000);
    for (size_t i = 0; i < COUNT_OF(rule); i++) {
        struct err e = { 0 };
        struct pretoken *p;
        if (pretoken_new(&p, &rule[i].pattern, 1, NULL, &e) < 0)
            fail_msg("%s", e.text);
        assert_null(pretoken_name(p));
        buf_clear(&text);
        for (const char *c = rule[i].pieces; *c; c++)
            if (*c != '|')
                buf_putc(&text, *c);
        pieces(p, text.data, text.len, &got);
        assert_string_equal(got.data, rule[i].pieces);
        pretoken_free(p);
    }
    buf_release(&text);
    buf_release(&got);
}

/* A pattern sees nothing outside its piece, before or behind. */
static void test_pieces_stand_alone(void **state)
{
    (void)state;
    static const char *const pattern[] = { "[0-9]", "(?<=1)a|b(?!2)" };
    struct err e = { 0 };
    struct pretoken *p;
    struct buf got;
    buf_init(&got, 100);
    assert_int_equal(pretoken_new(&p, pattern, 2, NULL, &e), 0);
    pieces(p, "x1ac xb2", 8, &got);
    assert_string_equal(got.data, "x|1|ac x|b|2");
    pretoken_free(p);
    assert_int_equal(pretoken_new(&p, pattern + 1, 1, NULL, &e), 0);
    pieces(p, "x1ac xb2", 8, &got);
    assert_string_equal(got.data, "x1|a|c xb2");
    pretoken_free(p);
    buf_release(&got);
}

/* What PCRE2 would read in another way, or not at all. */
static void test_refused(void **state)
{
    (void)state;
    static const char *const pattern[] = {
        "a*", "", "a|", "(?=a)", "\\w+", "\\ba", "\\h", "a\\", "\\1", "\\p", "\\pL+", "\\p{L",
        "\\p{Nonsense}", "\\x41", "a.b", "^a", "a$", "[a[b]]", "[a&&b]", "[]a]", "[^]a]", "[a",
        "(a", "a)", "a{2}+", "\\p{N}{2,}?", "(*UTF)a", "(?R)a", "(?1)", "(?i)a", "(?C)a", "(?#x)a",
        "\\Qa\\E", "[[:alpha:]]", "\\u0041", "a**",
    };
    for (size_t i = 0; i < COUNT_OF(pattern); i++) {
        struct err e = { 0 };
        struct pretoken *p;
        if (pretoken_new(&p, &pattern[i], 1, NULL, &e) != ERR_UNSUPPORTED)
            fail_msg("'%s': %s", pattern[i], e.text);
        assert_null(p);
        assert_non_null(strstr(e.text, pattern[i]));
    }
}

/* A search that would never end is an error, not a hang. */
static void test_endless_search(void **state)
{
    (void)state;
    const char *pattern = "(?:a+)+b", text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!b";
    struct err e = { 0 };
    struct text_span piece;
    struct pretoken *p;
    assert_int_equal(pretoken_new(&p, &pattern, 1, NULL, &e), 0);
    pretoken_start(p, text, sizeof text - 1);
    assert_int_equal(pretoken_next(p, &piece, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "byte 0"));
    pretoken_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule),        cmocka_unit_test(test_against_hand),
        cmocka_unit_test(test_other_rules), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_pieces_stand_alone),
        cmocka_unit_test(test_endless_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
