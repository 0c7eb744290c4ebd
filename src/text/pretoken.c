/* pretoken.c - PCRE2 runs the patterns; each stage pulls pieces from the one before.
 *
 * Patterns come in Oniguruma's language. The subset that tokenizers use means the same in PCRE2
 * with Unicode properties, except \s, where PCRE2 counts U+180E as a space: it is spelled out.
 * Whatever else could differ is refused, because a silent difference would only show in the
 * answers of the model. */
#include "pretoken_impl.h"

#include "utf8.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define PATTERN_MAX 65536
#define JIT_STACK_BYTES (1 << 20)

/* Unicode's White_Space, and the rest. */
#define SPACES                                                                        \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}" \
    "\\x{202f}\\x{205f}\\x{3000}"
#define NON_SPACES                                                                      \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}"          \
    "\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}"         \
    "\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

/* The third pattern. Files spell CR and LF in classes either way: escaped or as they are. */
#define WORDS(crlf)                                                                             \
    ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^" crlf "\\p{L}\\p{P}\\p{S}]?"        \
     "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[" crlf "]*|\\s*[" crlf "]+|\\s+(?!\\S)|\\s+")

const char *const pretoken_joyai[PRETOKEN_N_JOYAI] = {
    "\\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    WORDS("\\r\\n"),
};

struct stage {
    pcre2_code *code;
    pcre2_match_data *match;
    bool jit;
    /* The piece being cut: text[begin..end-1], of which text[at..] is left. A match is known
     * to be text[at..match_end-1] when match_end > at. */
    size_t begin, at, end, match_end;
};

struct pretoken {
    int n;
    bool is_joyai, started;
    struct stage stage[PRETOKEN_MAX_STAGE];
    pcre2_match_context *context;
    pcre2_jit_stack *jit_stack;
    const char *text;
    size_t len;
};

/* Rewrite one escape sequence (s[0] is the backslash) for PCRE2; returns its length, or 0 when it
 * may mean something else there. */
static size_t translate_escape(const char *s, bool in_class, struct buf *out)
{
    char c = s[1];
    size_t n = 2;
    if (c == 's' || c == 'S') {
        buf_puts(out, in_class ? "" : "[");
        buf_puts(out, c == 's' ? SPACES : NON_SPACES);
        buf_puts(out, in_class ? "" : "]");
        return n;
    }
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    bool digit = c >= '0' && c <= '9';
    if (c == 0 || digit || (letter && !strchr("pPdDrntx", c)))
        return 0;
    if (strchr("pPx", c)) { /* \p{L}, \x{41}: up to the brace */
        const char *close = s[2] == '{' ? strchr(s, '}') : NULL;
        if (!close)
            return 0;
        n = (size_t)(close - s) + 1;
    }
    buf_add(out, s, n);
    return n;
}

/* In a class, nested classes and && are operations there and characters here. Outside: anchors
 * and the dot know other lines there, a brace's quantifier is not possessive, options reach
 * further, and verbs, recursion and callouts are PCRE2's own. */
static bool differs(const char *s, bool in_class)
{
    if (in_class)
        return s[0] == '[' || (s[0] == '&' && s[1] == '&');
    if (s[0] == '(' && s[1] == '?')
        return strncmp(s + 2, "i:", 2) != 0 && (!s[2] || !strchr(":!=<>", s[2]));
    return strchr("^$.", s[0]) || strncmp(s, "(*", 2) == 0 ||
           (s[0] == '}' && s[1] && strchr("+?*{", s[1])) || strncmp(s, "[]", 2) == 0 ||
           strncmp(s, "[^]", 3) == 0;
}

/* Oniguruma's pattern in PCRE2's language. */
static int translate(const char *s, struct buf *out, struct err *e)
{
    bool in_class = false;
    for (size_t i = 0, n; s[i]; i += n) {
        n = 1;
        if (s[i] == '\\') {
            n = translate_escape(s + i, in_class, out);
        } else if (differs(s + i, in_class)) {
            n = 0;
        } else {
            if (s[i] == '[')
                n += s[i + 1] == '^';
            in_class = s[i] == '[' || (in_class && s[i] != ']');
            buf_add(out, s + i, n);
        }
        if (n == 0)
            return err_set(e, ERR_UNSUPPORTED, "split pattern '%s': '%s' at byte %zu",
                           utf8_show(s, strlen(s)).text, utf8_show(s + i, 2).text, i);
    }
    if (out->failed)
        return err_set(e, ERR_LIMIT, "split pattern '%s' is too long",
                       utf8_show(s, strlen(s)).text);
    return 0;
}

/* `shown` is the pattern for messages, `translated` what PCRE2 is to run. */
static int compile_translated(struct stage *s, const char *shown, const struct buf *translated,
                              const struct log *log, struct err *e)
{
    int error;
    size_t at;
    uint32_t empty = 0;
    PCRE2_UCHAR why[120];
    s->code = pcre2_compile((PCRE2_SPTR)(translated->data ? translated->data : ""),
                            translated->len, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    if (!s->code) {
        pcre2_get_error_message(error, why, sizeof why);
        return err_set(e, ERR_UNSUPPORTED, "split pattern '%s': %s", shown, (char *)why);
    }
    pcre2_pattern_info(s->code, PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty)
        return err_set(e, ERR_UNSUPPORTED, "split pattern '%s' can match nothing", shown);
    s->jit = pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE) == 0;
    if (!s->jit)
        log_put(log, LOG_INFO, "split pattern '%s' runs interpreted: no JIT here", shown);
    s->match = pcre2_match_data_create(1, NULL);
    return s->match ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for a split pattern");
}

static int compile(struct stage *s, const char *pattern, const struct log *log, struct err *e)
{
    struct utf8_shown shown = utf8_show(pattern, strlen(pattern));
    struct buf translated;
    buf_init(&translated, PATTERN_MAX);
    int code = translate(pattern, &translated, e);
    if (code == 0)
        code = compile_translated(s, shown.text, &translated, log, e);
    buf_release(&translated);
    return code;
}

static bool is_joyai(const char *const *pattern, int n)
{
    return n == PRETOKEN_N_JOYAI && strcmp(pattern[0], pretoken_joyai[0]) == 0 &&
           strcmp(pattern[1], pretoken_joyai[1]) == 0 &&
           (strcmp(pattern[2], pretoken_joyai[2]) == 0 ||
            strcmp(pattern[2], WORDS("\r\n")) == 0);
}

int pretoken_new(struct pretoken **out, const char *const *pattern, int n, const struct log *log,
                 struct err *e)
{
    struct pretoken *p = calloc(1, sizeof *p);
    int code = ERR_NO_MEMORY;
    *out = NULL;
    if (!p)
        return err_set(e, code, "no memory for the split patterns");
    CHECK(n <= PRETOKEN_MAX_STAGE);
    p->is_joyai = is_joyai(pattern, n);
    p->context = pcre2_match_context_create(NULL);
    p->jit_stack = pcre2_jit_stack_create(32768, JIT_STACK_BYTES, NULL);
    if (!p->context || !p->jit_stack) {
        err_set(e, code, "no memory for the split patterns");
        goto fail;
    }
    pcre2_jit_stack_assign(p->context, NULL, p->jit_stack);
    for (; p->n < n; p->n++) {
        code = compile(&p->stage[p->n], pattern[p->n], log, e);
        if (code < 0)
            goto fail;
    }
    *out = p;
    return 0;
fail:
    pretoken_free(p);
    return code;
}

void pretoken_free(struct pretoken *p)
{
    if (!p)
        return;
    for (int i = 0; i < PRETOKEN_MAX_STAGE; i++) {
        pcre2_match_data_free(p->stage[i].match);
        pcre2_code_free(p->stage[i].code);
    }
    pcre2_jit_stack_free(p->jit_stack);
    pcre2_match_context_free(p->context);
    free(p);
}

const char *pretoken_name(const struct pretoken *p)
{
    return p->is_joyai ? "joyai-llm" : NULL;
}

void pretoken_start(struct pretoken *p, const char *text, size_t len)
{
    p->text = text;
    p->len = len;
    p->started = false;
    for (int i = 0; i < p->n; i++)
        p->stage[i].at = p->stage[i].end = p->stage[i].match_end = 0;
}

/* Search the rest of the stage's piece: *begin is where a match begins, or its end. */
static int find(struct pretoken *p, struct stage *s, size_t *begin, struct err *e)
{
    PCRE2_SPTR piece = (PCRE2_SPTR)p->text + s->begin;
    size_t len = s->end - s->begin, from = s->at - s->begin;
    int rc = s->jit ? pcre2_jit_match(s->code, piece, len, from, 0, s->match, p->context) :
                      pcre2_match(s->code, piece, len, from, PCRE2_NO_UTF_CHECK, s->match,
                                  p->context);
    *begin = s->end;
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        PCRE2_UCHAR why[120];
        pcre2_get_error_message(rc, why, sizeof why);
        return err_set(e, ERR_LIMIT, "splitting the text at byte %zu: %s", s->at, (char *)why);
    }
    const size_t *where = pcre2_get_ovector_pointer(s->match);
    CHECK(where[1] > where[0] && where[0] >= from);
    *begin = s->begin + where[0];
    s->match_end = s->begin + where[1];
    return 0;
}

/* The next piece that stages 0..n-1 leave of the text. */
static int next_of(struct pretoken *p, int n, struct text_span *piece, struct err *e)
{
    if (n == 0) {
        *piece = (struct text_span){ 0, p->len };
        bool first = !p->started && p->len > 0;
        p->started = true;
        return first;
    }
    struct stage *s = &p->stage[n - 1];
    if (s->at == s->end) {
        int got = next_of(p, n - 1, piece, e);
        if (got <= 0)
            return got;
        s->begin = s->at = piece->begin;
        s->end = piece->end;
    }
    size_t begin = s->at;
    if (s->match_end <= s->at) {
        TRY(find(p, s, &begin, e));
    }
    *piece = (struct text_span){ s->at, begin > s->at ? begin : s->match_end };
    s->at = piece->end;
    return 1;
}

int pretoken_next(struct pretoken *p, struct text_span *piece, struct err *e)
{
    return next_of(p, p->n, piece, e);
}
