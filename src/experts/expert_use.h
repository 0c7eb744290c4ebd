/* expert_use.h - what a layer of a step asks of the cache: the different experts of its rows, and
 * whether they are wanted one by one or swept over. Engine and simulation ask through here. */
#ifndef DS_EXPERT_USE_H
#define DS_EXPERT_USE_H

#include "expert_slots.h"

#define EXPERT_FEW_ROWS 8     /* of a step that is no sweep, at most */
#define EXPERT_RECENT_ROWS 64 /* last rows of a sweep, that tell what comes next */
#define EXPERT_MOST 1024      /* experts of a layer */

struct expert_use {
    int n_expert;     /* of a layer */
    int layer;
    int n_row, n;     /* n different experts; ascending if there is more than one row */
    bool is_sweep;
    int32_t *expert;  /* [n_expert] */
    int32_t *recent;  /* [n_expert] uses by the last rows */
    int32_t *slot;    /* [n_expert] as a want or a sweep gives them */
    uint64_t *missing; /* [n_expert / 64, rounded up] bits */
    int32_t *count;   /* [n_expert] zero between calls */
    int32_t *late;    /* [n_expert] the same */
};

/* All memory is of the arena; with an arena that only counts, it is counted and nothing more. */
void expert_use_init(struct expert_use *u, int n_expert, struct arena *a);

/* Rows in order, the same number of experts each: begin says how many rows there will be. */
void expert_use_begin(struct expert_use *u, int n_row);
void expert_use_add(struct expert_use *u, int row, const int32_t *expert, int n);

/* After the last row: the experts in order, and how a cache of n_slot is to be asked for them. */
void expert_use_end(struct expert_use *u, int n_slot, int layer);

/* Ask: fills slot and missing. -1 as expert_slots_want(). */
int expert_use_decide(struct expert_use *u, struct expert_slots *s);

static inline bool expert_use_missing(const struct expert_use *u, int i)
{
    return u->missing[i / 64] >> i % 64 & 1;
}

/* Let go of what was decided. */
void expert_use_done(const struct expert_use *u, struct expert_slots *s);

#endif
