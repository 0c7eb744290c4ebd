/* sampling_opts.c - sampling as the command line says it. Without --seed every run differs, as
 * people expect of a chat; the seed is among the figures, so that a run can be had again. */
#include "sampling_opts.h"

#include <time.h>

#include "clock.h"
#include "rng.h"

#define AT(field) offsetof(struct sampling_opts, field)
#define NO_SEED UINT64_MAX

static const struct opt options[] = {
    { "temp", 0, OPT_REAL, "X", AT(temperature), 0, 100, "1",
      "temperature; 0: always the most likely token" },
    { "top-k", 0, OPT_INT, "N", AT(top_k), 0, 1 << 24, "0",
      "draw from the N most likely only; 0: all" },
    { "top-p", 0, OPT_REAL, "X", AT(top_p), 0, 1, "1",
      "draw from the most likely that together have probability X" },
    { "min-p", 0, OPT_REAL, "X", AT(min_p), 0, 1, "0",
      "draw from those at least X times as likely as the best" },
    { "repeat-penalty", 0, OPT_REAL, "X", AT(repeat_penalty), 0.01, 100, "1",
      "above 1: tokens seen before become less likely" },
    { "presence-penalty", 0, OPT_REAL, "X", AT(presence_penalty), -100, 100, "0",
      "taken from the score of every token seen before" },
    { "frequency-penalty", 0, OPT_REAL, "X", AT(frequency_penalty), -100, 100, "0",
      "the same, once for each time it was seen" },
    { "penalty-last-n", 0, OPT_INT, "N", AT(penalty_last_n), -1, 1 << 24, "-1",
      "tokens that penalties look back; -1: to the beginning" },
    { "seed", 's', OPT_COUNT, "N", AT(seed), 0, 0, NULL,
      "the same seed and prompt give the same text; else it differs" },
};

struct opt_group sampling_group(struct sampling_opts *o)
{
    *o = (struct sampling_opts){ .seed = NO_SEED };
    return (struct opt_group){ "sampling", options, COUNT_OF(options), o };
}

void sampling_of(struct sampling_opts *o, struct dstar_sampling *out)
{
    if (o->seed == NO_SEED) /* short enough to be typed again */
        o->seed = rng_at((uint64_t)time(NULL), (uint64_t)(clock_now_s() * 1e6)) % 1000000000;
    dstar_sampling_init(out);
    out->temperature = (float)o->temperature;
    out->top_k = o->top_k;
    out->top_p = (float)o->top_p;
    out->min_p = (float)o->min_p;
    out->repeat_penalty = (float)o->repeat_penalty;
    out->presence_penalty = (float)o->presence_penalty;
    out->frequency_penalty = (float)o->frequency_penalty;
    out->penalty_last_n = o->penalty_last_n;
    out->seed = o->seed;
}
