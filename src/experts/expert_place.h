/* expert_place.h - how experts lie in memory, so that direct reads can put them there. */
#ifndef DS_EXPERT_PLACE_H
#define DS_EXPERT_PLACE_H

#include "expert_map.h"

/* Memory for up to `run` experts: for each part a segment of as many pieces, each with room for the
 * largest of its kind and what a read in whole units brings along. */
struct expert_place {
    const struct expert_map *map;
    size_t unit;  /* offsets in file and memory, and sizes, of direct reads are multiples */
    int run;
    size_t piece[EXPERT_N_PART], segment_at[EXPERT_N_PART];
    size_t bytes; /* of a place; a multiple of the unit */
};

void expert_place_init(struct expert_place *p, const struct expert_map *map, size_t unit, int run);

/* n experts from key on, in a place at mem. */
struct expert_run {
    int key, n;
    void *mem;
};

/* Where a part of expert key + i is; NULL: no such part. */
const void *expert_place_part(const struct expert_place *p, const struct expert_run *run, int i,
                              enum expert_part part);

/* What one read may bring. */
struct expert_span {
    struct expert_extent at; /* bytes 0: nothing, the part is absent */
    uint8_t *dst;
    size_t must;             /* bytes of it that are wanted: the rest is alignment, and may lie
                                beyond the end of the file */
    int n;                   /* experts of the run: all of it when they are neighbours, else 1 */
};

struct expert_span expert_place_span(const struct expert_place *p, const struct expert_run *run,
                                     int i, enum expert_part part, bool direct);

#endif
