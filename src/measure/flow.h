/* flow.h - what it costs that experts are read when needed, as counts of an engine. */
#ifndef DS_FLOW_H
#define DS_FLOW_H

#include "buf.h"
#include "dwarfstar.h"

/* Of steps of one token each, or of all others. */
struct flow_part {
    uint64_t n_tok, n_step, lookups, hits, bytes;
    double wait_s; /* nothing could be computed until a read came */
    double model_wait_s; /* as expert_shelf.h says: what the drive's rate alone explains */
};

/* Since the engine was opened, or between two looks. */
struct flow {
    bool is_streaming;       /* false: all weights are in memory, and the rest is 0, but for */
    int n_near, n_split;     /* experts in a GPU's memory, of all; equal unless others are far */
    double far_bytes;        /* that a token should read from the host */
    double far_read, far_tok; /* bytes that tokens of steps of few did read there, those tokens */
    int n_slot, n_key;       /* experts in memory at most; of all layers */
    struct flow_part decode, prefill;
    uint64_t misses, larger_misses; /* decided; and by a cache that were larger_bytes larger */
    uint64_t larger_bytes, read_bytes;
    uint64_t given_bytes;    /* of the experts' memory, given back since memory is short */
    double busy_s;           /* something was being read */
    double drive_bytes_per_s; /* at the start; 0: was not measured */
};

void flow_of(dstar_engine *engine, struct flow *f);

/* f := f without what was before. */
void flow_since(struct flow *f, const struct flow *before);

/* For people, one line: "12 of 48 experts (25%) in the GPU's memory, 0.62 GB/token from the host's"
 * ("about", where that is the plan's), or "experts 66% hit, 0.62 GB/token, SSD 4.4 of 5.2 GB/s,
 * waits 31% of time; +4 GiB cache would give about x1.3". decode_s: seconds in which f's tokens
 * were written. Nothing when all weights lie where they are used. */
void flow_line(const struct flow *f, double decode_s, struct buf *out);

/* Everything since the engine was opened, one JSON object: f's counts, drive, memory, layers. */
void flow_json(dstar_engine *engine, const struct flow *f, struct buf *out);

#endif
