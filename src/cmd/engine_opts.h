/* engine_opts.h - the options that say which model is opened and on what. */
#ifndef DS_ENGINE_OPTS_H
#define DS_ENGINE_OPTS_H

#include "dwarfstar.h"
#include "fault.h"
#include "opts.h"

/* What the bundled model is. */
#define ABOUT_PEBBLE                                                                               \
    "Without -m and DSTAR_MODEL the bundled model answers: pebble, 48 million parameters, "      \
    "trained for minutes. It is there to try and to test the program: it knows formats, sums, "    \
    "short definitions and little else."

struct engine_opts {
    const char *model, *ssd_io, *popular;
    const char *device;
    int cpu, threads, ctx, cache_simulation, profile;
    uint64_t memory_bytes, gpu_memory_bytes;
    bool exact, verbose;

    /* Set by commands, not by options. */
    int part;    /* enum dstar_part */
    int max_rows;
    bool mtp;
    bool quiet; /* nothing is said but errors */
};

/* All of them, and those that matter when nothing is computed. */
struct opt_group engine_group(struct engine_opts *o);
struct opt_group tokens_group(struct engine_opts *o);

/* The model to use: the option, DSTAR_MODEL, or the bundled one; to be freed by the caller. NULL:
 * none was found, and that was said. */
char *engine_model(const struct engine_opts *o);

/* Open it, showing progress, and say on a terminal what was opened. Returns 0, or the exit status
 * after the error was printed. The caller closes it. */
int engine_start(dstar_engine **engine, const struct engine_opts *o);

#endif
