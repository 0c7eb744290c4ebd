/* report.h - somebody who is told how far long work has come, and may end it. */
#ifndef DS_REPORT_H
#define DS_REPORT_H

#include "error.h"

struct report {
    int (*fn)(void *user, const char *what, double done); /* not 0: end it */
    void *user;
};

/* done: of `what`, from 0 to 1. r NULL: nobody is told. ERR_CANCELLED. */
static inline int report_to(const struct report *r, const char *what, double done, struct err *e)
{
    if (r && r->fn && r->fn(r->user, what, done))
        return err_set(e, ERR_CANCELLED, "%s: cancelled", what);
    return 0;
}

#endif
