/* synth_opts.c - a random model by its shape; its tokenizer is the bundled model's. */
#define _GNU_SOURCE
#include "synth_opts.h"

#include <stdlib.h>

#include "engine_opts.h"
#include "term.h"

#define AT(field) offsetof(struct synth_opts, field)

static const struct opt options[] = {
    { "shape", 0, OPT_WORD, "flash|pro|small", AT(shape), 0, 0, "small",
      "the released models' sizes, or one for tests" },
    { "layers", 0, OPT_INT, "N", AT(layers), 1, 256, NULL, "the first N layers; else all" },
    { "experts", 0, OPT_INT, "N", AT(experts), 1, 8192, NULL,
      "routed experts of a layer; else as the shape has" },
    { "quant", 0, OPT_TEXT, "RECIPE", AT(recipe), 0, 0, "q2",
      "q2, q2-q4attn, q4, lossless, or a file of rules" },
    { "seed", 's', OPT_INT, "N", AT(seed), 0, INT32_MAX, "1", "which random model" },
    { "tokenizer", 0, OPT_TEXT, "MODEL", AT(tokenizer), 0, 0, NULL,
      "whose tokens it gets, padded; else the bundled model's" },
};

struct opt_group synth_group(struct synth_opts *o)
{
    *o = (struct synth_opts){ 0 };
    return (struct opt_group){ "random model", options, COUNT_OF(options), o };
}

struct opt_group synth_rest_group(struct synth_opts *o)
{
    *o = (struct synth_opts){ 0 };
    return (struct opt_group){ "random model", options + 1, COUNT_OF(options) - 1, o };
}

char *synth_fill_options(struct synth_options *out, const struct synth_opts *o)
{
    static const char *const shape[] = { "flash", "pro", "small" };
    struct engine_opts any = { .model = o->tokenizer };
    char *text = engine_model(&any);
    if (!text)
        term_error("a random model needs a tokenizer: name one with --tokenizer MODEL");
    *out = (struct synth_options){
        .shape = shape[o->shape],
        .recipe = o->recipe,
        .tokenizer = text,
        .n_layer = o->layers,
        .n_expert = o->experts,
        .seed = (uint64_t)o->seed,
    };
    return text;
}
