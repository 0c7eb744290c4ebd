/* pyjson.c - a pass over the text before jansson, and a printer after it.
 *
 * The pass knows only strings and numbers. What jansson cannot hold it writes as a string that
 * begins with a zero byte; the grammar stays jansson's business, since a string stands wherever a
 * number may (except as a key, and keys with zero bytes jansson refuses). When nothing needs a
 * disguise, which is nearly always, the text is parsed where it is.
 * Rejected: JSON_DECODE_INT_AS_REAL (loses digits), and a reader of our own. */
#include "pyjson.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "utf8.h"

static const char ZERO[] = "\\u0000";
enum {
    N_ZERO = sizeof ZERO - 1,
    MAX_INT_DIGITS = 4300 /* sys.int_info.default_max_str_digits */
};

/* ---- before jansson ------------------------------------------------------------------------ */

/* The text on its way to jansson: bytes up to `copied` are in `out`. */
struct disguise {
    const char *text, *end;
    const char *copied;
    struct buf out;
    bool not_rfc;  /* NaN or Infinity was seen */
    int surrogate; /* the first one that was alone, or 0 */
    int line;
    struct err *e;
};

/* Put `n` bytes of replacement in place of from..to. */
static void replace(struct disguise *d, const char *from, const char *to, const char *with,
                    size_t n)
{
    buf_add(&d->out, d->copied, (size_t)(from - d->copied));
    buf_add(&d->out, with, n);
    d->copied = to;
}

static void disguise_as(struct disguise *d, const char *from, const char *to, const char *number,
                        size_t n)
{
    replace(d, from, from, "\"", 1);
    replace(d, from, from, ZERO, N_ZERO);
    replace(d, from, to, number, n);
    replace(d, to, to, "\"", 1);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Value of the four hex digits after \u, or -1. */
static int hex4(const char *p, const char *end)
{
    int v = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = is_digit(c)              ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* p is behind "\u". Returns what comes after the escape (and its partner). jansson does not tell
 * half a surrogate pair from other faults, so it gets U+FFFD there and we remember. */
static const char *pass_escape(struct disguise *d, const char *p)
{
    int c = hex4(p, d->end);
    if (c < 0)
        return p; /* jansson will say what is wrong */
    p += 4;
    if (c < 0xD800 || c > 0xDFFF)
        return p;
    if (c < 0xDC00 && d->end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
        int low = hex4(p + 2, d->end);
        if (low >= 0xDC00 && low <= 0xDFFF)
            return p + 6;
    }
    replace(d, p - 4, p, "fffd", 4);
    if (!d->surrogate)
        d->surrogate = c;
    return p;
}

/* p is behind the opening quote; returns what comes after the closing one. */
static const char *pass_string(struct disguise *d, const char *p)
{
    if ((size_t)(d->end - p) >= N_ZERO && memcmp(p, ZERO, N_ZERO) == 0)
        replace(d, p, p, ZERO, N_ZERO);
    while (p < d->end && *p != '"') {
        if (*p != '\\') {
            p++;
            continue;
        }
        if (++p == d->end)
            return p;
        if (*p++ == 'u')
            p = pass_escape(d, p);
    }
    return p < d->end ? p + 1 : p;
}

/* Does an integer of digits p..end fit a json_int_t? */
static bool fits_int64(bool negative, const char *p, const char *end)
{
    const char *limit = negative ? "9223372036854775808" : "9223372036854775807";
    size_t n = (size_t)(end - p), n_limit = strlen(limit);
    return n < n_limit || (n == n_limit && memcmp(p, limit, n) <= 0);
}

/* The real at from..to is beyond the largest double. jansson judges, so that both agree. */
static bool overflows(const char *from, const char *to)
{
    size_t n = (size_t)(to - from);
    if (n < 300 && !memchr(from, 'e', n) && !memchr(from, 'E', n))
        return false;
    json_error_t why;
    json_t *v = json_loadb(from, n, JSON_DECODE_ANY, &why);
    bool big = !v && json_error_code(&why) == json_error_numeric_overflow;
    json_decref(v);
    return big;
}

/* p is at '-' or a digit; returns what comes after the number. */
static const char *pass_number(struct disguise *d, const char *p)
{
    const char *from = p, *digits = p + (*p == '-');
    for (p = digits; p < d->end && is_digit(*p);)
        p++;
    bool integer = p == d->end || (*p != '.' && *p != 'e' && *p != 'E');
    if (integer) {
        if (p - digits > MAX_INT_DIGITS) {
            err_set(d->e, ERR_LIMIT, "JSON line %d: expected an integer of at most %d digits, "
                    "found one of %td", d->line, (int)MAX_INT_DIGITS, p - digits);
            return NULL;
        }
        if (p > digits && *digits != '0' && !fits_int64(*from == '-', digits, p))
            disguise_as(d, from, p, from, (size_t)(p - from));
        return p;
    }
    while (p < d->end && (is_digit(*p) || memchr("+-.eE", *p, 5)))
        p++;
    if (overflows(from, p)) {
        const char *inf = *from == '-' ? "-Infinity" : "Infinity";
        disguise_as(d, from, p, inf, strlen(inf));
    }
    return p;
}

/* Python's three words beyond JSON. Returns what comes after the one at p, or NULL. */
static const char *pass_word(struct disguise *d, const char *p)
{
    static const char *const words[] = { "NaN", "Infinity", "-Infinity" };
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(d->end - p) < n || memcmp(p, words[i], n) != 0)
            continue;
        disguise_as(d, p, p + n, words[i], n);
        d->not_rfc = true;
        return p + n;
    }
    return NULL;
}

static int disguise_all(struct disguise *d)
{
    if (memchr(d->text, 0, (size_t)(d->end - d->text))) /* jansson passes over them */
        return err_set(d->e, ERR_FORMAT, "JSON: expected text, found a zero byte");
    for (const char *p = d->text; p < d->end;) {
        const char *after = NULL;
        if (*p == '\n')
            d->line++;
        if (*p == 'N' || *p == 'I' || *p == '-')
            after = pass_word(d, p);
        if (after)
            p = after;
        else if (*p == '"')
            p = pass_string(d, p + 1);
        else if (*p == '-' || is_digit(*p))
            p = pass_number(d, p);
        else
            p++;
        if (!p)
            return ERR_FORMAT;
    }
    return 0;
}

/* Parse through the disguise; not_rfc may be NULL. */
static json_t *load(const char *text, size_t len, bool *not_rfc, struct err *e)
{
    struct err own = { 0 };
    struct disguise d = { .text = text, .end = text + len, .copied = text, .line = 1,
                          .e = e ? e : &own };
    json_error_t why;
    json_t *v = NULL;
    buf_init(&d.out, SIZE_MAX / 2);
    if (disguise_all(&d) < 0)
        goto fail;
    if (d.copied != text)
        replace(&d, d.end, d.end, "", 0);
    if (d.out.failed) {
        err_set(e, ERR_NO_MEMORY, "out of memory while reading JSON of %zu bytes", len);
        goto fail;
    }
    bool changed = d.copied != text;
    v = json_loadb(changed ? d.out.data : text, changed ? d.out.len : len,
                   JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    for (char *p = why.text; !v && *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    if (!v)
        err_set(e, json_error_code(&why) == json_error_out_of_memory ? ERR_NO_MEMORY : ERR_FORMAT,
                "JSON line %d: %s", why.line, why.text);
    if (v && d.surrogate) {
        err_set(e, ERR_UNSUPPORTED, "JSON: expected characters, found \\u%04x without its partner, "
                "half a surrogate pair", (unsigned)d.surrogate);
        json_decref(v);
        v = NULL;
    }
    if (not_rfc)
        *not_rfc = d.not_rfc;
fail:
    buf_release(&d.out);
    return v;
}

json_t *pyjson_load(const char *text, size_t len, struct err *e)
{
    return load(text, len, NULL, e);
}

bool pyjson_is_strict(const char *text, size_t len)
{
    bool not_rfc = true;
    json_t *v = load(text, len, &not_rfc, NULL);
    bool ok = v && !not_rfc;
    json_decref(v);
    return ok;
}

/* ---- values -------------------------------------------------------------------------------- */

/* The disguised number's text, or NULL. */
static const char *hidden_number(const json_t *v)
{
    if (!json_is_string(v) || json_string_length(v) < 2)
        return NULL;
    const char *s = json_string_value(v);
    return s[0] == 0 && s[1] != 0 ? s + 1 : NULL;
}

enum pyjson_kind pyjson_kind_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return PYJSON_OBJECT;
    case JSON_ARRAY: return PYJSON_ARRAY;
    case JSON_STRING: return hidden_number(v) ? PYJSON_NUMBER : PYJSON_STRING;
    case JSON_INTEGER:
    case JSON_REAL: return PYJSON_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE: return PYJSON_BOOL;
    case JSON_NULL: break;
    }
    return PYJSON_NULL;
}

const char *pyjson_kind_name(const json_t *v)
{
    static const char *const names[] = { "null",     "a boolean", "a number",
                                         "a string", "an array",  "an object" };
    return v ? names[pyjson_kind_of(v)] : "nothing";
}

const char *pyjson_string(const json_t *v, size_t *len)
{
    if (!json_is_string(v) || hidden_number(v))
        return NULL;
    const char *s = json_string_value(v);
    size_t n = json_string_length(v);
    size_t skip = n > 0 && s[0] == 0 ? 1 : 0;
    *len = n - skip;
    return s + skip;
}

json_t *pyjson_get(const json_t *v, const char *key)
{
    json_t *member = json_object_get(v, key);
    return json_is_null(member) ? NULL : member;
}

bool pyjson_truth(const json_t *v)
{
    size_t len;
    if (!v)
        return false;
    switch (json_typeof(v)) {
    case JSON_OBJECT: return json_object_size(v) > 0;
    case JSON_ARRAY: return json_array_size(v) > 0;
    case JSON_STRING: return !pyjson_string(v, &len) || len > 0;
    case JSON_INTEGER: return json_integer_value(v) != 0;
    case JSON_REAL: return json_real_value(v) != 0;
    case JSON_TRUE: return true;
    case JSON_FALSE:
    case JSON_NULL: break;
    }
    return false;
}

/* ---- printing ------------------------------------------------------------------------------ */

void pyjson_escape(struct buf *out, const char *bytes, size_t n)
{
    size_t from = 0;
    if (n == 0) /* bytes may be NULL then */
        return;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_add(out, bytes + from, i - from);
        from = i + 1;
        switch (c) {
        case '"': buf_puts(out, "\\\""); break;
        case '\\': buf_puts(out, "\\\\"); break;
        case '\n': buf_puts(out, "\\n"); break;
        case '\r': buf_puts(out, "\\r"); break;
        case '\t': buf_puts(out, "\\t"); break;
        case '\b': buf_puts(out, "\\b"); break;
        case '\f': buf_puts(out, "\\f"); break;
        default: buf_printf(out, "\\u%04x", c);
        }
    }
    buf_add(out, bytes + from, n - from);
}

/* The fewest digits of x > 0 that read back as x, and the decimal exponent of the first one.
 * Correct rounding to n digits finds them, except at powers of two: there the gap below is half
 * the gap above, and the n digits that read back may be the next ones up. The locale's decimal
 * point comes and goes with snprintf and strtod and is never looked at. */
static int shortest_digits(double x, char digits[18], int *exponent)
{
    for (int n = 1; n <= 17; n++) {
        char text[64];
        snprintf(text, sizeof text, "%.*e", n - 1, x);
        bool same = strtod(text, NULL) == x;
        char *e = strrchr(text, 'e');
        if (!same && e[-1] < '9') {
            e[-1]++;
            same = strtod(text, NULL) == x;
        }
        if (!same)
            continue;
        *exponent = (int)strtol(e + 1, NULL, 10);
        int k = 0;
        for (const char *p = text; p < e; p++)
            if (is_digit(*p))
                digits[k++] = *p;
        return k;
    }
    CHECK(!"17 digits tell doubles apart");
    return 0;
}

void pyjson_real(struct buf *out, double x)
{
    char digits[18];
    int exponent;
    if (isnan(x) || isinf(x)) {
        buf_puts(out, isnan(x) ? "NaN" : x < 0 ? "-Infinity" : "Infinity");
        return;
    }
    if (signbit(x))
        buf_putc(out, '-');
    if (x == 0) {
        buf_puts(out, "0.0");
        return;
    }
    int n = shortest_digits(fabs(x), digits, &exponent);
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (exponent < -4 || exponent >= 16) {
        buf_putc(out, digits[0]);
        if (n > 1)
            buf_putc(out, '.');
        buf_add(out, digits + 1, (size_t)n - 1);
        buf_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0)
        buf_puts(out, "0.");
    for (int i = exponent + 1; i < 0; i++)
        buf_putc(out, '0');
    for (int i = 0; i < MAX(n, exponent + 1); i++) {
        if (i == exponent + 1 && i > 0)
            buf_putc(out, '.');
        buf_putc(out, i < n ? digits[i] : '0');
    }
    if (n <= exponent + 1)
        buf_puts(out, ".0");
}

void pyjson_brief(char out[PYJSON_BRIEF_BYTES], const json_t *v)
{
    struct buf text;
    buf_init(&text, SIZE_MAX / 2);
    if (v)
        pyjson_dump(&text, v);
    size_t n = MIN(text.len, (size_t)PYJSON_BRIEF_BYTES - 4);
    if (n > 0)
        n = utf8_valid_len(text.data, n);
    if (n > 0)
        memcpy(out, text.data, n);
    memcpy(out + n, n < text.len ? "..." : "", n < text.len ? 4 : 1);
    buf_release(&text);
}

static void dump_string(struct buf *out, const char *s, size_t len)
{
    buf_putc(out, '"');
    pyjson_escape(out, s, len);
    buf_putc(out, '"');
}

static void dump_object(struct buf *out, const json_t *v)
{
    const char *key, *before = "";
    json_t *member;
    buf_putc(out, '{');
    json_object_foreach((json_t *)v, key, member) {
        buf_puts(out, before);
        dump_string(out, key, strlen(key));
        buf_puts(out, ": ");
        pyjson_dump(out, member);
        before = ", ";
    }
    buf_putc(out, '}');
}

void pyjson_dump(struct buf *out, const json_t *v)
{
    const char *s;
    size_t len = 0;
    switch (json_typeof(v)) {
    case JSON_OBJECT: dump_object(out, v); break;
    case JSON_ARRAY:
        buf_putc(out, '[');
        for (size_t i = 0; i < json_array_size(v); i++) {
            buf_puts(out, i ? ", " : "");
            pyjson_dump(out, json_array_get(v, i));
        }
        buf_putc(out, ']');
        break;
    case JSON_STRING:
        s = pyjson_string(v, &len);
        if (s)
            dump_string(out, s, len);
        else
            buf_puts(out, hidden_number(v));
        break;
    case JSON_INTEGER: buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v)); break;
    case JSON_REAL: pyjson_real(out, json_real_value(v)); break;
    case JSON_TRUE: buf_puts(out, "true"); break;
    case JSON_FALSE: buf_puts(out, "false"); break;
    case JSON_NULL: buf_puts(out, "null"); break;
    }
}
