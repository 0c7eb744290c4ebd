/* term.h - what is said to the person at the terminal, beside the answer itself. */
#ifndef DS_TERM_H
#define DS_TERM_H

#include "base.h"
#include "clock.h"

enum term_stream { TERM_OUT = 1, TERM_ERR = 2 };
enum term_look { TERM_PLAIN, TERM_DIM, TERM_BOLD, TERM_RED, TERM_GREEN, TERM_CYAN };

/* Look at the streams and at NO_COLOR and TERM once, at the start. */
void term_init(void);

bool term_is(enum term_stream s); /* a terminal that understands control sequences */
int term_width(enum term_stream s); /* columns; 0: not a terminal */

/* The sequence that switches to a look; "" where colours are not wanted. */
const char *term_style(enum term_stream s, enum term_look look);

/* One line on stderr: "dstar: ...". A progress line there is removed first. */
void term_error(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* A dimmed line on stderr, if that is a terminal. */
void term_remark(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* A line on stderr that shows how far something is; from its second second on, ten times a second,
 * and only on a terminal. One at a time. `unit` may be "" (done and total are then a fraction). */
struct progress {
    const char *what, *unit;
    double begin_s, shown_s, first;
};

void progress_begin(struct progress *p, const char *what, const char *unit, double first);
void progress_show(struct progress *p, double done, double total);
void progress_end(struct progress *p);

/* "1.5 GiB" into `out` of at least 16 bytes, which is returned. */
char *term_bytes(char *out, double bytes);

/* "1h 05m", "3m 20s", "12 s", "0.35 s" likewise. */
char *term_seconds(char *out, double s);

#endif
