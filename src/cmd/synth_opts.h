/* synth_opts.h - options that say which random model is meant. */
#ifndef DS_SYNTH_OPTS_H
#define DS_SYNTH_OPTS_H

#include "offline.h"
#include "opts.h"

struct synth_opts {
    int shape, layers, experts, seed;
    const char *recipe, *tokenizer;
};

struct opt_group synth_group(struct synth_opts *o);

/* The same without the shape, which is set from elsewhere. */
struct opt_group synth_rest_group(struct synth_opts *o);

/* All but the output. Returns the tokenizer's path, which the caller frees after use; NULL: none
 * is found, which is said. */
char *synth_fill_options(struct synth_options *out, const struct synth_opts *o);

#endif
