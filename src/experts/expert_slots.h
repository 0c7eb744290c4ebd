/* expert_slots.h - which routed experts are in memory: places, who uses them, and what is given up
 * for what is missing. Knows nothing of files and does no reading. */
#ifndef DS_EXPERT_SLOTS_H
#define DS_EXPERT_SLOTS_H

#include "expert_policy.h"

/*  EMPTY --want--> READING --arrived--> READY --victim of a want--> READING another
 *    ^---failed-------+                   |
 *    +--fewer--> CLOSED <----fewer--------+     CLOSED --more--> EMPTY              */
enum expert_state { EXPERT_EMPTY, EXPERT_READING, EXPERT_READY, EXPERT_CLOSED };

/* A place for one expert. All places have one size, that of the largest expert. */
struct expert_slot {
    int32_t key; /* layer * n_expert + expert; -1: none */
    int32_t pins; /* steps that use it: it is then no victim */
    enum expert_state state;
};

/* lookups = hits + joins + misses. */
struct expert_counts {
    uint64_t lookups;
    uint64_t hits;   /* ready */
    uint64_t joins;  /* being read already, for another */
    uint64_t misses; /* to be read: bytes read = misses * bytes of an expert */
    uint64_t passed; /* of the misses: read by a sweep and not kept */
    uint64_t evictions;
};

/* What is decided depends on the calls alone: two that get the same calls decide the same, in an
 * engine and in a simulation. Memory that is given back is a call, too, which a recording holds;
 * guesses of what comes would have to become one. */
struct expert_slots {
    struct expert_policy policy;
    struct expert_slot *slot; /* [n_slot] */
    int32_t *slot_of;         /* [n_key] -1: not in memory */
    int32_t *empty;           /* [n_slot] stack of slots */
    struct expert_heap idle;  /* keys that are ready and not used: the possible victims */
    int n_slot, n_open;       /* all; those that are not closed */
    int n_key, n_empty;
    struct expert_counts counts;
    uint64_t decided; /* hash of every expert looked up and of the slot it was given: two that
                         agree in it have decided the same */
};

/* Memory is the arena's, all of it; with an arena that only counts, it is counted and nothing
 * more, and the object must not be used. shape->n_slot at least what one want asks for. */
void expert_slots_init(struct expert_slots *s, const struct expert_shape *shape, struct arena *a);

/* n_tok tokens begin. */
void expert_slots_step(struct expert_slots *s, int n_tok);

/* A layer needs n different experts. slot[i] is where expert[i] is or will be, pinned once; for
 * each whose bit in *missing is set the caller has to read it into slot[i]. n is at most 64.
 * Returns how many are missing; -1 when too many slots are pinned: then nothing has changed. */
int expert_slots_want(struct expert_slots *s, int layer, const int32_t *expert, int n,
                      int32_t *slot, uint64_t *missing);

/* Many tokens at once need n different experts of a layer, ascending, n at most n_expert; the last
 * of the tokens use expert[i] recent[i] times. slot[i] is as above, bit i % 64 of missing[i / 64]
 * too; but -1 for one that is not worth a place: it is to be read, used and forgotten. Only slots
 * that are empty or hold what is worth less are given, so a sweep over everything leaves in memory
 * what was worth keeping. What has no slot is not to be let go of. Returns how many are missing. */
/* tidy: wide - two lists of experts, two lists of answers */
int expert_slots_sweep(struct expert_slots *s, int layer, const int32_t *expert,
                       const int32_t *recent, int n, int32_t *slot, uint64_t *missing);

/* Between steps: the expert gets a slot that is empty or holds what is worth less, to be read into
 * it and pinned by nobody. -1: there is none, or it is in memory. */
int expert_slots_preload(struct expert_slots *s, int layer, int expert);

/* Between steps: experts count at least as if they had been used so often, count[n_key] thousandths
 * of uses by the rule with the longest memory. */
void expert_slots_recall(struct expert_slots *s, const uint32_t *count);

/* Only n slots may hold an expert from now on, n at least what one want asks for, at most n_slot.
 * Fewer than now: empty ones are closed, then those of the least valuable experts that are ready
 * and not used. Returns how many are open then, more than n if others are used or being read. */
int expert_slots_resize(struct expert_slots *s, int n);

/* A slot's expert is complete, or could not be read. After a failure the slot has no expert; those
 * who have pinned it let go of it as always. */
void expert_slots_arrived(struct expert_slots *s, int slot);
void expert_slots_failed(struct expert_slots *s, int slot);

/* Let go of slots that a want has given. */
void expert_slots_done(struct expert_slots *s, const int32_t *slot, int n);

/* CHECK that everything agrees with everything; slow, for tests. */
void expert_slots_verify(const struct expert_slots *s);

#endif
