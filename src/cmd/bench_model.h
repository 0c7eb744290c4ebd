/* bench_model.h - the model that is measured: a file, or a random one made in memory. */
#ifndef DS_BENCH_MODEL_H
#define DS_BENCH_MODEL_H

#include "engine_opts.h"
#include "file.h"
#include "measure.h"
#include "synth_opts.h"

struct bench_model {
    struct engine_opts opts;
    struct synth_opts synth;
    int shape;          /* of a random model; -1: a file */
    const char *routes; /* NULL: the router's own */

    dstar_engine *engine;
    struct file_memory memory;
    struct imposed *imposed;
};

#define BENCH_MODEL_GROUPS 3

/* Fill groups of options, and presets of what they fill. */
void bench_model_groups(struct opt_group group[BENCH_MODEL_GROUPS], struct bench_model *m);

/* Open it. Returns 0, or the exit status after the error was printed. Close it in any case. */
int bench_model_open(struct bench_model *m);
void bench_model_close(struct bench_model *m);

#endif
