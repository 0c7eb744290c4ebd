/* buf.h - a growing run of bytes with a maximum.
 *
 * Failure is sticky: after running out of memory or passing the maximum, further calls do
 * nothing, and the one check of `failed` at the end is enough. */
#ifndef DS_BUF_H
#define DS_BUF_H

#include "base.h"

struct buf {
    char *data; /* always zero-terminated once something was added; NULL when empty */
    size_t len, cap, max;
    bool failed;
};

/* max: most bytes it may ever hold. Allocates nothing. */
void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b);

/* Empty it and keep its memory. */
void buf_clear(struct buf *b);

void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Drop the first n bytes. */
void buf_drop(struct buf *b, size_t n);

/* Hand the memory to the caller, who frees it with free(); the buffer is empty again.
 * Never NULL unless it failed: an empty buffer gives "". */
char *buf_take(struct buf *b);

#endif
