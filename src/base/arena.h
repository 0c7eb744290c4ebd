/* arena.h - memory that is taken piece by piece and given back all at once.
 *
 * An arena without memory (mem NULL) only counts: that is how a step's scratch is planned.
 * It then hands out NULL and `peak` tells how much a real one would need. */
#ifndef DS_ARENA_H
#define DS_ARENA_H

#include "base.h"

#define ARENA_ALIGN 64

struct arena {
    uint8_t *mem; /* aligned to ARENA_ALIGN, owned by the caller; NULL: count only */
    size_t size, used, peak;
    bool overflow; /* sticky: something did not fit */
};

void arena_init(struct arena *a, void *mem, size_t size);

/* n bytes aligned to ARENA_ALIGN, not cleared; NULL when counting or when full. */
void *arena_alloc(struct arena *a, size_t n);

/* Everything allocated after the mark is given back by the rewind. */
size_t arena_mark(const struct arena *a);
void arena_rewind(struct arena *a, size_t mark);

#endif
