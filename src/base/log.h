/* log.h - where remarks go: a sink that the application hands down. */
#ifndef DS_LOG_H
#define DS_LOG_H

#include "base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN };

/* sink == NULL drops everything. text is one line without a newline. */
struct log {
    void (*sink)(void *user, int level, const char *text);
    void *user;
};

void log_put(const struct log *log, enum log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);

#endif
