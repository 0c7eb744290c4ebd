/* pressure.h - how much memory this process can still have, and whether anybody waits for some. */
#ifndef DS_PRESSURE_H
#define DS_PRESSURE_H

#include "base.h"

/* The machine, and every cgroup (v1 or v2) with a limit that this process belongs to, are places
 * where memory can be short. Page cache that can be dropped counts as available. 0: unknown. */
struct pressure {
    size_t limit;            /* the least that all of a place is */
    size_t free;             /* the least that is available in one */
    size_t total, available; /* of the place with the least share available */
    double stall;            /* percent of the last 10 s in which a task waited for memory (PSI);
                                -1: unknown */
};

/* root: "" but in tests; what stands before /proc and /sys. */
void pressure_read(struct pressure *p, const char *root);

#endif
