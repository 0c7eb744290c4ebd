/* simulate.h - recorded routes against caches of experts of any size, without a model. */
#ifndef DS_SIMULATE_H
#define DS_SIMULATE_H

#include "error.h"
#include "expert_policy.h"

/* In a trace, a word among those of steps with this bit is places left, the next one all places. */
#define TRACE_ROOM 0x80000000u

/* The routes of a file that trace_write() made. */
struct routes {
    int n_tok, n_layer, n_used;
    uint16_t *id; /* [n_tok][n_layer][n_used] different experts of a layer */
    uint32_t *step; /* [n_step] tokens of each step; NULL: one each */
    int n_step;
    struct routes_room *room; /* [n_room] ascending by step */
    int n_room;
};

/* Before a step, memory was given back or taken again: n_open of n_slot places are left. */
struct routes_room {
    int step, n_open, n_slot;
};

/* Read and check: every number below n_expert, and none twice in one layer of a token. */
int routes_read(struct routes *r, const char *path, int n_expert, struct err *e);
void routes_release(struct routes *r);

struct simulated {
    uint64_t lookups, hits, misses;
    uint64_t ruled_tok[EXPERT_MOST_RULES]; /* tokens under each rule of the shape */
    int n_switch;                          /* how often the rule changed */
    uint64_t decided; /* expert_slots.decided: an engine that decided the same has the same */
};

/* Replay the routes on the objects that an engine has, with reads that take no time. Steps of many
 * tokens look an expert up once for all of them. Memory given back is the same share of the shape's
 * slots. ERR_ARGUMENT: fewer slots than experts used by one
 * token in a layer, or another shape than the routes. */
int simulate(struct simulated *out, const struct routes *r, const struct expert_shape *shape,
             struct err *e);

/* The fewest misses that any choice of victims can have with so many slots and a layer's experts
 * in memory together (but not a sweep's): give up what is used last in the future (Belady 1966). */
int simulate_best(struct simulated *out, const struct routes *r, const struct expert_shape *shape,
                  struct err *e);

#endif
