/* expert_shelf_impl.h - a shelf from inside: expert_shelf.c reads and gives, expert_shelf_room.c
 * says who has room at first, and gives room back. */
#ifndef DS_EXPERT_SHELF_IMPL_H
#define DS_EXPERT_SHELF_IMPL_H

#include "expert_shelf.h"
#include "slab.h"

#define SHELF_MOST_LOADS 128   /* being read at once */
#define SHELF_SWEEP_LOADS 16   /* of them begun by a sweep: the first shall be complete soon */
#define SHELF_WAIT_S 0.02      /* between looks at whether the step was cancelled */

struct place {
    int32_t key;  /* what is in it or being read into it; -1: nothing that anybody wants */
    int32_t slot; /* that it belongs to; -1: spare */
    bool reading, ready;
    bool failed;  /* but still being read into, perhaps */
    int16_t load; /* while reading */
};

struct expert_shelf {
    struct expert_slots slots;
    struct expert_slots larger;      /* what more memory would have in it; holds only names */
    struct expert_use use, next_use; /* of the layer; of the one after it */
    struct expert_shelf_ask ask;
    void *tables;
    struct slab slab;
    struct expert_reads *reads;
    size_t place_bytes;
    struct place *place; /* [n_slot + n_spare] */
    int32_t *place_of;   /* [n_slot] */
    struct expert_tally *of_layer;
    int32_t *staged;     /* [n_key] spare place that holds it; -1 */
    int32_t *spare;      /* stack of places */
    int n_place, n_spare;
    struct expert *some; /* [n_expert] */
    uint8_t *phase;      /* [n_expert] of the need's experts */
    int layer, cursor;   /* of the need; experts before the cursor are read or being read */
    bool is_open;
    int n_missing;       /* of the need's experts, when it was asked */
    double asked_s;      /* when its reads had begun */
    double first_wait_s; /* when one was first waited for; 0: not yet */
    const struct rows *rows;             /* of the step */
    struct expert_load load[SHELF_MOST_LOADS]; /* collected, to be begun together */
    int n_load;
    int32_t place_of_load[SHELF_MOST_LOADS];
    int16_t free_load[SHELF_MOST_LOADS];
    int n_free_load;
    struct expert_arrival arrival[SHELF_MOST_LOADS];
    struct err failed;   /* the last read that failed */
    int n_unchecked_tok;
    struct expert_shelf_stats stats;
    struct expert_tally *tally; /* of the step */
    uint64_t bytes_before;
};

/* The most experts that one token uses in a layer. */
int shelf_most_used(const struct expert_shelf_ask *ask);

static inline uint8_t *shelf_memory_of(const struct expert_shelf *s, int place)
{
    return s->slab.mem + s->place_bytes * (size_t)place;
}

static inline int shelf_count_reading(const struct expert_shelf *s)
{
    return SHELF_MOST_LOADS - s->n_free_load;
}

/* Collect a read into a place; begin those that were collected; take what has arrived by now, or
 * first within wait_s. */
void shelf_add_read(struct expert_shelf *s, int place, int key, enum expert_urgency urgency);
void shelf_begin_reads(struct expert_shelf *s);
void shelf_poll(struct expert_shelf *s, double wait_s);

#endif
