/* sampling_opts.h - the options that say how the next token is drawn. */
#ifndef DS_SAMPLING_OPTS_H
#define DS_SAMPLING_OPTS_H

#include "dwarfstar.h"
#include "opts.h"

struct sampling_opts {
    double temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    int top_k, penalty_last_n;
    uint64_t seed;
};

struct opt_group sampling_group(struct sampling_opts *o);

/* Lists are left empty. A seed that was not given is drawn here and kept in `o`, to be shown. */
void sampling_of(struct sampling_opts *o, struct dstar_sampling *out);

#endif
