/* draw.h - one token from a row's logits, drawn by a device that keeps them.
 *
 * What a draw means stands in run/sampler.c. Weights are summed by blocks of tokens and groups of
 * blocks, in a fixed order, so that both come to the same bits; what settings ask for beyond that,
 * the host takes from a list of the best. */
#ifndef DS_DRAW_H
#define DS_DRAW_H

#include "dev.h"

#define DRAW_BLOCK 64  /* tokens */
#define DRAW_GROUP 32  /* blocks */
#define DRAW_MOST 1024 /* candidates that are listed */

struct draw_pair {
    float logit;
    int32_t id;
};

enum draw_kind {
    DRAW_NOTHING, /* the logits are kept, no more */
    DRAW_BEST,    /* the lowest id of the best */
    DRAW_ONE,     /* by weight */
    DRAW_LIST     /* candidates among which the host will draw */
};

/* What came of it. */
struct drawn {
    int32_t id;     /* BEST, ONE; -1: nothing */
    int32_t n_open; /* tokens that may be drawn; < 0: a logit is no number, or infinite */
    int32_t n;      /* LIST: candidates; they are not there if more than DRAW_MOST */
    float best;
    double sum;     /* of all weights, if it was asked for */
    struct draw_pair pair[DRAW_MOST]; /* ascending ids */
};

/* What the device finds out of a group. */
struct draw_group {
    double upto[DRAW_GROUP];   /* sums of the group's weights to the end of every block */
    uint32_t most[DRAW_GROUP]; /* the best of every block, as a key that grows with it */
    uint32_t best;
    int32_t n_open; /* < 0: damaged */
};

/* A row that wants a token; all but `out` in memory of the device. */
struct draw {
    const float *logits;
    float *kept;              /* a copy of them */
    uint64_t *allowed;        /* a bit for each token */
    struct draw_group *group; /* [draw_groups()] */
    struct drawn *out;        /* memory of the host that the device reaches, see dev_host_take() */
    int kind;                 /* enum draw_kind */
    int kth;                  /* LIST: all that reach the kth of the blocks' best; or, if 0, */
    double below;             /* that reach best + below - |best| / 1e6 */
    bool with_sum;
    double steep, unit;       /* a token weighs 2^((logit - best) steep); a random number below 1 */
};

static inline int draw_groups(int n_vocab)
{
    return (n_vocab + DRAW_BLOCK * DRAW_GROUP - 1) / (DRAW_BLOCK * DRAW_GROUP);
}

/* Whether the device can; then logits stay with it until somebody asks for them. */
bool dev_draws(const struct dev *d);

/* n rows' draws, queued as a step's last work: done after dev_wait(). */
void dev_draw(struct dev *d, const struct draw *draw, int n, int n_vocab);

#endif
