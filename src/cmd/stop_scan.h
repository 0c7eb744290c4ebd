/* stop_scan.h - find the strings that end a raw text, however it is cut into pieces. */
#ifndef DS_STOP_SCAN_H
#define DS_STOP_SCAN_H

#include "buf.h"

struct stop_scan {
    const char *const *stop; /* not empty strings */
    int n_stop;
    struct buf held; /* what may be the beginning of one */
};

void stop_scan_init(struct stop_scan *s, const char *const *stop, int n_stop);
void stop_scan_release(struct stop_scan *s);

/* Take a piece; returns how many bytes at the front of `held` are sure to be text. They are to be
 * dropped with buf_drop() after use. *which: the stop string that comes next then, or -1. */
size_t stop_scan_push(struct stop_scan *s, const char *text, size_t len, int *which);

#endif
