/* expert_probe.h - how fast a drive gives experts, and how many reads at once it takes for that. */
#ifndef DS_EXPERT_PROBE_H
#define DS_EXPERT_PROBE_H

#include "expert_reads.h"

#define EXPERT_PROBE_DEPTHS 6    /* 1, 2, 4 ... 32 reads in flight */
#define EXPERT_PROBE_PLACES 8    /* enough for the deepest */
#define EXPERT_PROBE_SLOW 500e6  /* bytes per second: below, a user should be told */

struct expert_probe {
    int depth;              /* the least with 95 % of the best rate */
    double bytes_per_s;     /* with this depth */
    double rate[EXPERT_PROBE_DEPTHS]; /* bytes per second with 2^i; 0: not measured */
};

/* Reads random experts for at most `most_s` (0: 0.5), into n_place places from mem on, while
 * nothing else is being read; then limits what is read ahead to the depth found. Each depth is
 * tried twice, upwards and downwards, so that a drive that becomes slower does not make one depth
 * look good. Depths that the places cannot fill, or that were not asked for at open, are left out.
 * ERR_IO as a read says. */
int expert_probe(struct expert_probe *out, struct expert_reads *r, void *mem, int n_place,
                 double most_s, struct err *e);

#endif
