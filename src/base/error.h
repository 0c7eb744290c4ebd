/* error.h - what went wrong in the world: file, memory, model, peer.
 *
 * Functions that can fail return 0 or a negative enum err_code and take a struct err *
 * as last parameter. The first cause wins and travels up unchanged. */
#ifndef DS_ERROR_H
#define DS_ERROR_H

#include "base.h"

enum err_code {
    ERR_NONE = 0,
    ERR_NO_MEMORY = -1,  /* memory or disk space is exhausted */
    ERR_IO = -2,         /* the operating system refused */
    ERR_FORMAT = -3,     /* a file is damaged, or is not what it should be */
    ERR_UNSUPPORTED = -4,/* valid, but not something this build can do */
    ERR_ARGUMENT = -5,   /* the caller asked for something impossible */
    ERR_LIMIT = -6,      /* a stated limit (context, count, size) is exceeded */
    ERR_MISMATCH = -7,   /* a file belongs to another model */
    ERR_CANCELLED = -8,  /* dstar_cancel() was called */
};

struct err {
    enum err_code code;
    char text[1024]; /* one line, no newline at the end: file, field, found, expected */
};

/* Record an error unless one is recorded already; returns the recorded code.
 * e may be NULL. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The same for a failed system call: appends ": " and the text of errno. */
int err_errno(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Put "what: " before a recorded text, to add the place that only the caller knows. */
int err_prefix(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
