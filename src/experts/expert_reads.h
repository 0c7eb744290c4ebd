/* expert_reads.h - experts from the files into memory, many at once.
 *
 * A place is memory for one expert, or for a run of consecutive ones. It has a segment for each
 * part, with a page to spare: a direct read begins at a page of the file, and lands so that the
 * part begins as far into a page of memory as it does into one of the file. Nothing is copied.
 *
 * All calls on one object come from one thread at a time, and wait only where they say so. */
#ifndef DS_EXPERT_READS_H
#define DS_EXPERT_READS_H

#include "aio.h"
#include "expert_map.h"
#include "log.h"

enum expert_urgency {
    EXPERT_DEMAND, /* somebody waits: gate and up of all that is asked for, then down */
    EXPERT_AHEAD,  /* when nothing is in demand: expert by expert, in small reads */
};

struct expert_reads_ask {
    const struct expert_map *map; /* stays the caller's, and stays */
    struct aio_ask io;            /* files of the map, path, depth, memory to register */
    int run;            /* consecutive experts a place may hold; 0: 1 */
    int most_places;    /* being read at once */
    size_t piece_bytes; /* of a read, at most; 0: 2 MiB */
    double warn_s, fail_s; /* a read that hangs; 0: 10 and 60 */
    struct log log;
};

struct expert_reads;

/* Every extent lies within its file, or ERR_FORMAT says which does not. */
int expert_reads_open(struct expert_reads **r, const struct expert_reads_ask *ask, struct err *e);

/* Waits up to 10 s for what is in flight; as aio_close(). NULL is fine. */
int expert_reads_close(struct expert_reads *r);

/* Bytes of a place, a multiple of its alignment expert_reads_align(). Alike for all keys. */
size_t expert_reads_place_bytes(const struct expert_reads *r);
size_t expert_reads_align(const struct expert_reads *r);

/* n experts from `key` on, of one layer, into memory at `place`. `id` is the caller's name for the
 * place, 0 .. most_places-1, none of which is being read twice at a time. `generation` comes back
 * with what arrives. */
struct expert_load {
    int id, key, n;
    uint32_t generation;
    enum expert_urgency urgency;
    void *place;
};

/* Never refuses, never waits: what the depth does not allow yet is started by expert_reads_poll().
 * Loads of one call are in demand together. */
void expert_reads_start(struct expert_reads *r, const struct expert_load *load, int n);

/* What was begun before, maybe ahead, is in demand now: errors so far were another's, and it is
 * tried as often as if it began now. Not being read: nothing. */
void expert_reads_urge(struct expert_reads *r, int id);

/* No longer wanted: what is not in flight is dropped, and the rest reported as ERR_CANCELLED when
 * the place is quiet. */
void expert_reads_drop(struct expert_reads *r, int id);

struct expert_arrival {
    int id, key, n;
    uint32_t generation;
    unsigned parts;     /* bits of all that is complete by now, for all n experts */
    bool quiet;         /* nothing of it is in flight: the last report of this load */
    enum err_code code; /* ERR_NONE; ERR_IO, ERR_FORMAT: it will not be complete; if it is not
                           quiet then, its memory may still be written to: keep it, use it not */
    const char *why;    /* until the next poll: file, offset, layer, expert, what happened */
};

/* Start what may be started, and tell what has arrived: a report for each load whose complete parts
 * have grown, or which is over. Waits for the first up to wait_s; 0: does not. Returns how many. */
int expert_reads_poll(struct expert_reads *r, struct expert_arrival *out, int max, double wait_s);

/* Loads that are not quiet. */
int expert_reads_busy(const struct expert_reads *r);

/* Where a part of expert key + i is, in a place that holds a run of n from key on. NULL: no such
 * part. */
const void *expert_reads_part(const struct expert_reads *r, const struct expert_load *load, int i,
                              enum expert_part part);

/* Fingerprint of all parts of expert key + i, once they are there. */
uint64_t expert_reads_hash(const struct expert_reads *r, const struct expert_load *load, int i);

/* Reads in flight at most, 1 .. the depth asked for at open; and at most when one more is begun for
 * what is read ahead. */
void expert_reads_limit(struct expert_reads *r, int n_demand, int n_ahead);

/* ERR_IO: a file was changed or cut since it was opened. To be asked every 64 tokens or so; it is
 * asked after each failed read anyway. */
int expert_reads_check(const struct expert_reads *r, struct err *e);

#define EXPERT_LATENCY_BUCKETS 64 /* a quarter of a doubling each, from 16 microseconds on */

struct expert_reads_stats {
    uint64_t bytes_wanted, bytes_read; /* read: with alignment and what was read again */
    uint64_t n_read, n_short, n_again, n_error, n_hung; /* again: EINTR, EAGAIN */
    uint64_t n_reread, n_buffered;     /* loads repeated after an error; of these buffered */
    uint64_t n_load, n_failed, n_dropped;
    double busy_s;   /* something was in flight */
    double depth_s;  /* integral of reads in flight: divided by busy_s, the mean depth */
    double longest_s;
    uint32_t latency[EXPERT_LATENCY_BUCKETS]; /* reads */
};

const struct expert_reads_stats *expert_reads_stats(const struct expert_reads *r);
const struct aio_info *expert_reads_io(const struct expert_reads *r);
const struct expert_map *expert_reads_map(const struct expert_reads *r);

/* Below which a share (0.5, 0.95) of reads came back. */
double expert_reads_latency_s(const struct expert_reads_stats *s, double share);

#endif
