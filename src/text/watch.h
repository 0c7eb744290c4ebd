/* watch.h - look for several literals in a stream of bytes, all at once.
 *
 * What may still become part of a literal is held back, everything else is given on at once, so
 * the result does not depend on how the stream is cut. */
#ifndef DS_WATCH_H
#define DS_WATCH_H

#include "buf.h"

#define WATCH_MAX 40

struct watch_literal {
    const char *text;
    size_t len;
    bool newlines;   /* newlines directly before it belong to it */
    uint16_t *back;  /* [len] Knuth-Morris-Pratt: how much still matches when the next byte fails */
    size_t progress; /* bytes of it that the end of the stream matches */
    size_t before;   /* newlines before those */
};

struct watch {
    struct watch_literal lit[WATCH_MAX];
    int n;
    uint64_t on;     /* bit i: literal i is looked for */
    size_t run;      /* newlines at the end of the stream */
    struct buf held; /* what came and is not given on */
    size_t max_held; /* newlines beyond it are given on */
};

void watch_init(struct watch *w, size_t max_held);
void watch_release(struct watch *w);

/* Add a literal of 1..65535 bytes, which must outlive the watch; returns its number, the next from
 * 0, or -1 without memory. A literal that takes newlines must not begin again inside itself. */
int watch_add(struct watch *w, const char *text, size_t len, bool newlines);

/* Look for the literals of this mask from here on; what is held is forgotten. */
void watch_start(struct watch *w, uint64_t on);

/* Take one byte. Returns the number of the literal that it completes (the lowest of several) or
 * -1. The first *n_text bytes of `held` are then certain to be text, the rest is the literal with
 * its newlines, or what must wait. The caller uses the text and, after -1, drops it from `held`;
 * after a literal it starts anew. */
int watch_byte(struct watch *w, char c, size_t *n_text);

#endif
