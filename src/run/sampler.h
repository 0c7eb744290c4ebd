/* sampler.h - from logits to one token.
 *
 * In this order: banned tokens go; penalties (repetition, then frequency and presence); division by
 * the temperature; top_k; top_p of what top_k left; min_p; then one draw. */
#ifndef DS_SAMPLER_H
#define DS_SAMPLER_H

#include "draw.h"
#include "dwarfstar.h"
#include "error.h"
#include "rng.h"

#define SAMPLER_MAX_STOP 64

struct sampler_block {
    float most;  /* the best logit in it */
    double upto; /* the sum of the group's weights to its end */
};

/* Working memory, which conversations computed by one thread may share. */
struct sampler_work {
    float *logit;                /* [n_vocab], whole blocks */
    struct sampler_block *block; /* [n_vocab / DRAW_BLOCK], rounded up */
    double *upto;                /* [draw_groups()] the sum of weights to each one's end */
    struct draw_pair *pair;      /* [n_vocab] */
    int32_t *count;              /* [n_vocab] zero between calls */
};

/* Bytes of it; its parts in memory of zeros, aligned like an arena's. */
size_t sampler_work_bytes(int n_vocab);
void sampler_work_init(struct sampler_work *w, int n_vocab, void *mem);

struct sampler {
    int n_vocab;
    struct dstar_sampling p; /* its lists are not kept but for: */
    uint64_t *allowed;       /* bit set: may be drawn */
    int32_t stop[SAMPLER_MAX_STOP];
    int n_stop;
    struct rng rng;
    struct sampler_work *work;
};

/* Bytes of the bit mask. */
size_t sampler_mask_bytes(int n_vocab);

static inline bool sampler_mask_has(const uint64_t *mask, int32_t id)
{
    return mask[id / 64] >> id % 64 & 1;
}

static inline void sampler_mask_set(uint64_t *mask, int32_t id, bool on)
{
    uint64_t bit = UINT64_C(1) << id % 64;
    mask[id / 64] = on ? mask[id / 64] | bit : mask[id / 64] & ~bit;
}

/* mask: memory of sampler_mask_bytes() that stays the caller's. sampler_set() comes next. */
void sampler_init(struct sampler *s, int n_vocab, uint64_t *mask, struct sampler_work *work);

/* base: what may be drawn unless p says otherwise. ERR_ARGUMENT: a value or id out of range, named;
 * ERR_LIMIT: too many stop tokens. On failure nothing changed. */
int sampler_set(struct sampler *s, const struct dstar_sampling *p, const uint64_t *base,
                struct err *e);

/* Draw from logits [n_vocab] after the tokens past[n_past]. ERR_FORMAT: a logit is not a number, or
 * infinite; ERR_ARGUMENT: everything is banned. Does not advance the random numbers on failure. */
int sampler_pick(struct sampler *s, const float *logits, const int32_t *past, int n_past,
                 int32_t *id, struct err *e);

/* For a device that draws: what it is to do for the next token, and what came of it. False: that
 * says too little, and sampler_pick() has to look at the logits. */
void sampler_ask(const struct sampler *s, struct draw *d);
bool sampler_take(struct sampler *s, const struct draw *d, int32_t *id);

bool sampler_is_stop(const struct sampler *s, int32_t id);

#endif
