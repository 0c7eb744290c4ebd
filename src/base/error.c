/* error.c - first cause wins. */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* Names from files get into the text, and it must stay one harmless line on any terminal. */
static void one_line(struct err *e)
{
    for (char *c = e->text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    }
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    if (!e)
        return code;
    if (e->code != ERR_NONE)
        return e->code;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    one_line(e);
    return code;
}

int err_errno(struct err *e, const char *fmt, ...)
{
    int saved = errno;
    enum err_code code = saved == ENOMEM || saved == ENOSPC ? ERR_NO_MEMORY : ERR_IO;
    if (!e)
        return code;
    if (e->code != ERR_NONE)
        return e->code;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->text)
        snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s", strerror(saved));
    one_line(e);
    return code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    if (!e || e->code == ERR_NONE)
        return e ? e->code : ERR_NONE;
    char text[sizeof e->text];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, ": %.900s", e->text);
    memcpy(e->text, text, sizeof text);
    one_line(e);
    return e->code;
}
