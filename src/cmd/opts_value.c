/* opts_value.c - the text of a value, read strictly as its type: a number is the whole text. */
#include "opts_value.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu.h"

/* A decimal number that is the whole text; no spaces, no hexadecimal, no "inf". */
static bool read_real(const char *text, double *out)
{
    if (!*text || strspn(text, "+-0123456789.eE") != strlen(text))
        return false;
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    return *end == 0 && errno == 0;
}

static bool read_count(const char *text, char **end, uint64_t *out)
{
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    *out = strtoull(text, end, 10);
    return errno == 0;
}

static bool read_int(const struct opt *o, const char *text, char **end, int *out)
{
    errno = 0;
    long n = strtol(text, end, 10);
    bool starts = isdigit((unsigned char)*text) ||
                  (*text == '-' && isdigit((unsigned char)text[1]));
    *out = (int)n;
    return starts && errno == 0 && n >= (long)o->least && n <= (long)o->most;
}

static bool read_bytes(const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end;
    if (!read_count(text, &end, out))
        return false;
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (*out > UINT64_MAX >> shift)
        return false;
    *out <<= shift;
    return !*end || (unit && !end[1]);
}

static bool read_memory(const char *text, uint64_t *out)
{
    char number[32];
    char *end;
    size_t n = strlen(text);
    *out = 0;
    if (strcmp(text, "auto") == 0)
        return true;
    if (n == 0 || n >= sizeof number)
        return false;
    if (text[n - 1] == '%') {
        double total = (double)cpu_memory_total();
        bool ok = read_count(text, &end, out) && end == text + n - 1 && *out >= 1 && *out <= 100;
        *out = (uint64_t)(total / 100 * (double)*out);
        return ok && *out > 0;
    }
    snprintf(number, sizeof number, "%s", text);
    if (n > 2 && toupper((unsigned char)number[n - 1]) == 'B')
        number[n - 1] = 0;
    return read_bytes(number, out);
}

static bool read_word(const struct opt *o, const char *text, int *out)
{
    size_t n = strlen(text);
    const char *p = o->arg;
    for (*out = 0;; ++*out) {
        size_t len = strcspn(p, "|");
        if (len == n && strncmp(p, text, n) == 0)
            return true;
        if (!p[len])
            return false;
        p += len + 1;
    }
}

static bool read_ints(const struct opt *o, const char *text, struct opt_ints *out)
{
    for (out->n = 0; out->n < OPT_MOST;) {
        char *end;
        if (!read_int(o, text, &end, &out->value[out->n++]))
            return false;
        if (!*end)
            return true;
        if (*end != ',')
            return false;
        text = end + 1;
    }
    return false;
}

bool opts_store(const struct opt *o, void *into, const char *text)
{
    void *at = (char *)into + o->at;
    char *end = "";
    struct opt_texts *texts = at;
    switch (o->type) {
    case OPT_FLAG: *(bool *)at = true; return true;
    case OPT_INT: return read_int(o, text, &end, at) && !*end;
    case OPT_COUNT:
        return read_count(text, &end, at) && !*end && *(uint64_t *)at <= INT64_MAX;
    case OPT_BYTES: return read_bytes(text, at);
    case OPT_MEMORY: return read_memory(text, at);
    case OPT_WORD: return read_word(o, text, at);
    case OPT_INTS: return read_ints(o, text, at);
    case OPT_TEXT: *(const char **)at = text; return true;
    case OPT_REAL:
        return read_real(text, at) && *(double *)at >= o->least && *(double *)at <= o->most;
    case OPT_TEXTS:
        if (texts->n == OPT_MOST)
            return false;
        texts->text[texts->n++] = text;
        return true;
    }
    return false;
}

void opts_expected(const struct opt *o, char *out, size_t cap)
{
    switch (o->type) {
    case OPT_WORD: snprintf(out, cap, "%s", o->arg); break;
    case OPT_BYTES: snprintf(out, cap, "a size such as 8G or 500M"); break;
    case OPT_MEMORY: snprintf(out, cap, "a size such as 8GB, a share such as 30%%, or auto"); break;
    case OPT_COUNT: snprintf(out, cap, "a whole number, not negative"); break;
    case OPT_TEXTS: snprintf(out, cap, "at most %d of them", OPT_MOST); break;
    case OPT_INT:
        snprintf(out, cap, "a whole number from %.0f to %.0f", o->least, o->most);
        break;
    case OPT_INTS:
        snprintf(out, cap, "whole numbers from %.0f to %.0f with commas between", o->least,
                 o->most);
        break;
    default: snprintf(out, cap, "a number from %g to %g", o->least, o->most); break;
    }
}
