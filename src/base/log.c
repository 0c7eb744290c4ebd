/* log.c - format a remark and hand it to the sink. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>

void log_put(const struct log *log, enum log_level level, const char *fmt, ...)
{
    if (!log || !log->sink)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log->sink(log->user, level, text);
}
