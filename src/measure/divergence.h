/* divergence.h - how far a model is from a reference. All sums are in double. */
#ifndef DS_DIVERGENCE_H
#define DS_DIVERGENCE_H

#include "reference.h"

/* One prediction against the reference's. */
struct divergence_row {
    double kl;      /* sum of p log(p / q), p the reference, in nats */
    double nll;     /* of the token that follows, by the model */
    int best;       /* the model's likeliest token, the first of equals */
};

/* logprob [n] F16, made to sum to one; logits [n] float32. ERR_FORMAT: one is not finite. */
int divergence_of_row(struct divergence_row *out, const uint16_t *logprob, const float *logits,
                      int n, int next, struct err *e);

/* The value below which a share of n sorted values lies: number ceil(share * n) of them. */
double divergence_quantile(const float *sorted, int64_t n, double share);

struct divergence_text {
    int doc;          /* number in the reference */
    int64_t n_row, n_same_best;
    int64_t n_answer;        /* rows that are the model's turn in a dialogue */
    double kl, nll_ref, nll; /* sums over rows */
    double kl_answer;        /* over those of answers */
};

void divergence_add(struct divergence_text *sum, const struct divergence_text *t);

struct divergence_layer {
    bool learned;          /* its router may differ */
    int64_t n_row, n_same_set, n_same_expert; /* n_same_expert: of n_row * n_used */
    double error, size;    /* sums of squares: streams minus the reference's, the reference's */
};

struct divergence {
    int n_text, n_layer, n_used;
    struct divergence_text *text;   /* [n_text] those that were computed */
    struct divergence_layer *layer; /* [n_layer] */
    struct divergence_text all;
    double change;                  /* sum of squared changes of the next token's probability */
    double kl_50, kl_99, kl_999, kl_max;
};

struct divergence_plan {
    int chunk;   /* tokens computed at once; 0: as many as fit */
    int nth;     /* only texts 0, nth, 2 nth, ...; 1: all */
    bool (*progress)(void *user, int64_t done, int64_t total); /* tokens; true: stop */
    void *user;
};

/* Compute the reference's texts with the model. On failure nothing is held. */
int divergence_measure(struct divergence *d, dstar_engine *engine, const struct reference *r,
                       const struct divergence_plan *plan, struct err *e);
void divergence_release(struct divergence *d);

#endif
