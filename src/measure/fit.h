/* fit.h - what a model can do on this machine with so much memory, before it is loaded. */
#ifndef DS_FIT_H
#define DS_FIT_H

#include "dwarfstar.h"
#include "error.h"

#define FIT_MOST 48

struct fit_ask {
    int ctx;                 /* tokens of a conversation; 0: as the engine chooses for a budget */
    double drive_bytes_per_s; /* 0: measured, for half a second */
    double memory[FIT_MOST]; /* budgets in bytes; none: from the least to what holds all */
    int n_memory;
    int n_thread;
};

/* With one budget. Rates are bounds: of the drive, and of reading weights from memory; computing
 * comes on top, and a batch of a layer that waits for its last read. */
struct fit_point {
    double memory;
    double experts;          /* bytes of it that are left for experts */
    double share;            /* of all experts */
    double hits, hits_low, hits_high; /* of lookups while an answer is written */
    double bytes_per_tok;    /* from the drive */
    double drive_tok_s;      /* infinite: everything is in memory */
    double tok_s, tok_s_low, tok_s_high; /* by drive and memory together */
    bool streams, is_machine;
    bool too_little;         /* less than the least; the least is taken then */
    int ctx;
};

struct fit {
    double least, all;       /* memory: at least, and for everything to stay in it */
    double machine;          /* what can be had now */
    double fixed;            /* of weights that are always in memory */
    double read_bytes;       /* of these a token reads */
    double experts, expert;  /* of all experts, and of one */
    double used_bytes;       /* of experts that a token uses */
    int n_expert;
    double drive_bytes_per_s, memory_bytes_per_s;
    int depth;               /* reads in flight the drive wants; 0: not measured */
    char path[24];           /* how it was read */
    int n;
    struct fit_point point[FIT_MOST];
};

/* Of an engine that was opened with DSTAR_PLAN. ERR_UNSUPPORTED: its experts lie where they cannot
 * be read on their own. */
int fit(struct fit *out, dstar_engine *engine, const struct fit_ask *ask, struct err *e);

#endif
