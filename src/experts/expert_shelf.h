/* expert_shelf.h - experts of one size: their slots, their memory, and when they are read.
 *
 * Which experts stay in memory is expert_slots' business; where they lie and when they are read is
 * decided here. A shelf has some of a model's layers and is asked about no others. */
#ifndef DS_EXPERT_SHELF_H
#define DS_EXPERT_SHELF_H

#include "expert_profile.h"
#include "expert_reads.h"
#include "expert_use.h"
#include "ops.h"
#include "pressure.h"
#include "report.h"

/* The routed experts of a layer. */
struct expert_layer {
    struct expert_set set;   /* shapes and types; data is not looked at */
    const int32_t *by_token; /* [n_vocab][n_used] experts by token, or NULL */
    int n_used;
};

struct expert_shelf_ask {
    const struct expert_layer *layer; /* [map->n_layer] borrowed, like the map */
    const struct expert_map *map;     /* of the shelf's layers; the others' experts have no bytes */
    struct aio_ask io;                /* path, depth and files */
    double warn_s, fail_s;            /* as in expert_reads_ask */
    size_t bytes;                     /* of memory for experts, at least the least */
    size_t larger_bytes;              /* more than that has the cache that is simulated beside */
    const struct report *told;        /* while memory is taken; NULL: nobody */
    struct log log;
    void (*look)(void *user, struct pressure *p); /* for tests; NULL: pressure_read() */
    void *look_user;
};

struct expert_shelf;

/* The least memory with which a shelf works at all, and how much holds everything. */
void expert_shelf_sizes(const struct expert_shelf_ask *ask, size_t *least, size_t *most);

/* Takes all its memory and opens the files. */
int expert_shelf_open(struct expert_shelf **s, const struct expert_shelf_ask *ask, struct err *e);
void expert_shelf_close(struct expert_shelf *s);

/* Contracts: expert_store_popular(), expert_store_restore(). */
int expert_shelf_popular(struct expert_shelf *s, const struct expert_profile *p,
                         const struct report *told, struct err *e);
int expert_shelf_restore(struct expert_shelf *s, const struct expert_profile *p,
                         const struct report *told, struct err *e);

/* Between steps: use at most so many bytes of memory from now on, but never less than the least nor
 * more than at first. As long as a read is under way in what would go, nothing happens. */
void expert_shelf_resize(struct expert_shelf *s, size_t bytes);

/* Contracts: experts_begin() and so on; the device is not planning. */
void expert_shelf_begin(struct expert_shelf *s, struct dev *d, const struct rows *r);
void expert_shelf_want(struct expert_shelf *s, struct dev *d, int l, const struct route *route);
bool expert_shelf_next(struct expert_shelf *s, struct dev *d, struct expert_set *some);
void expert_shelf_done(struct expert_shelf *s);

/* Of steps of one row each, or of all others. */
struct expert_tally {
    uint64_t n_tok, n_step;
    uint64_t lookups, hits;
    uint64_t bytes;      /* read, whatever for */
    double wait_s;       /* nothing was computed meanwhile */
    double model_wait_s; /* would be, if reads took their bytes' time at the drive's rate so far and
                            only what is in memory were computed meanwhile; steps of one row */
};

struct expert_shelf_stats {
    struct expert_tally decode, prefill;
    const struct expert_tally *layer;    /* [map->n_layer] both; n_step counts its uses */
    uint64_t larger_misses;              /* of the cache that is simulated beside */
    size_t larger_bytes;                 /* by which it is larger */
    uint64_t preload_bytes;
    uint64_t n_resize;                   /* how often memory was given back or taken again */
    size_t given_bytes;                  /* of the slab that the system has now */
    double probe_bytes_per_s;            /* of the drive at open; 0: was not measured */
    uint64_t n_ahead, n_ahead_used;      /* experts read before a layer asked for them */
    size_t slab_bytes, huge_bytes;
    bool locked;
    size_t lock_limit;                   /* when not locked: how much this process may lock */
};

void expert_shelf_stats(const struct expert_shelf *s, struct expert_shelf_stats *out);
const struct expert_slots *expert_shelf_slots(const struct expert_shelf *s);
const struct expert_reads *expert_shelf_reads(const struct expert_shelf *s);

#endif
