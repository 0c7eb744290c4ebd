/* slab.h - a large piece of memory that stays: taken at once, in huge pages if there are any,
 * locked if that is allowed, never copied to a child or into a core file. */
#ifndef DS_SLAB_H
#define DS_SLAB_H

#include "report.h"

#define SLAB_UNIT ((size_t)2 << 20) /* its size, and what is given back of it, in units of this */

struct slab {
    uint8_t *mem;      /* aligned to SLAB_UNIT; zeros */
    size_t size;       /* a multiple of SLAB_UNIT */
    size_t huge_bytes; /* in huge pages when it was taken */
    bool locked;
    size_t lock_limit; /* when not locked: how much this process may lock */
    void *map;
    size_t map_size;
};

/* At least `size` bytes, all of them backed by memory on return. size 0 is fine. ERR_NO_MEMORY,
 * ERR_CANCELLED by `told`. */
int slab_open(struct slab *s, size_t size, const struct report *told, struct err *e);
void slab_close(struct slab *s); /* also of a zeroed struct */

/* Units that lie wholly in [at, at + n) go back to the system; they read as zeros and take memory
 * again when written. Returns how many bytes that were. */
size_t slab_give_back(struct slab *s, size_t at, size_t n);

/* What was given back of [at, at + n), whole pages, is backed by memory again, as at open.
 * ERR_NO_MEMORY. */
int slab_take_again(struct slab *s, size_t at, size_t n, struct err *e);

#endif
