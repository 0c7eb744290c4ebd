/* fault.c - set, translate and print; base's codes are the same numbers as the library's. */
#include "fault.h"

#include <stdarg.h>
#include <stdio.h>

#include "interrupt.h"
#include "opts.h"
#include "term.h"

int fault_set(struct dstar_error *error, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    error->code = code;
    vsnprintf(error->text, sizeof error->text, fmt, ap);
    va_end(ap);
    return code;
}

int fault_of(struct dstar_error *error, const struct err *e)
{
    return fault_set(error, (int)e->code, "%s", e->text);
}

int fault_print(const struct dstar_error *error)
{
    if (error->code == DSTAR_CANCELLED && interrupt_seen())
        return EXIT_INTERRUPTED;
    term_error("%s", error->text);
    return EXIT_ERROR;
}
