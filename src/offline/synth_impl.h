/* synth_impl.h - one random model under way. */
#ifndef DS_SYNTH_IMPL_H
#define DS_SYNTH_IMPL_H

#include "quant_random.h"
#include "quantize_impl.h"
#include "synth.h"

struct synth {
    struct quantize q; /* first: threads of its pool know nothing else */
    struct synth_options o;
    struct quantize_options plan;
    struct import_options keys;
    struct quant_random *random; /* [q.n_tensor]; of a table of ids only the key */
};

/* What all words of a tensor are counted from. */
uint64_t synth_key(uint64_t seed, const char *name);

/* How a tensor's numbers are made. name: as in GGUF. */
struct quant_random synth_random(const struct synth *s, enum dsv4_role role, const char *name,
                                 enum dtype type, int64_t inputs);

/* Experts of tokens first, first + 1, ...: n_used different ones of each. */
void synth_ids(const struct synth *s, uint64_t key, int64_t first, int64_t n, int32_t *id);

/* All files of a checkpoint folder. */
int synth_write_vendor(struct synth *s, struct err *e);

#endif
