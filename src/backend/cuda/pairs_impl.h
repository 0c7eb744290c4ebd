/* pairs_impl.h - routed experts of a few rows: every pair (a row's use of an expert) is a product
 * of its own, whose blocks look up their expert in the route. */
#ifndef DS_PAIRS_IMPL_H
#define DS_PAIRS_IMPL_H

#include "list_impl.h"

/* The experts at hand, ascending. */
struct cu_set {
    int n, first_id;
    const int *id; /* [n]; NULL: from first_id on */
};

/* One matrix of every expert of the set. */
struct cu_matrices {
    struct cu_weights first;
    size_t pitch, scale_pitch; /* bytes from one expert to the next */
    const struct tensor *each; /* of the first in a list of experts; NULL: at equal distances */
};

struct cu_pairs {
    struct cu_few f;         /* what all pairs share; x, out: the first row's or pair's */
    struct cu_set set;
    struct cu_matrices w, up; /* up.first.data NULL: no gate */
    const int32_t *route;
    const float *weight;     /* with a gate */
    size_t route_pitch, weight_pitch;
    int n_used, n_pair;
    int x_div;               /* row of x: pair / x_div */
    const struct cu_tables *tables;
    bool knows_route;        /* another kernel followed the one that wrote it */
};

/* expert_few.cu: whether there are kernels for it; of packed weights. */
bool cuda_pairs_fit(const struct dev *d, enum dtype type, int k);
/* rounded: room for all of x, as records (round_impl.h). */
void cuda_pairs(struct dev *d, struct cu_pairs *p, uint8_t *rounded);

#endif
