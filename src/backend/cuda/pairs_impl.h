/* pairs_impl.h - routed experts of a few rows: every pair (a row's use of an expert) is a product
 * of its own, whose blocks look up their expert in the route. */
#ifndef DS_PAIRS_IMPL_H
#define DS_PAIRS_IMPL_H

#include "round_impl.h"

#define STATIC_SHARED 1024 /* no kernel of pairs declares more */

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

/* Place of an expert in the set, or -1. */
__device__ __forceinline__ int set_place(const struct cu_set *s, int id)
{
    if (!s->id)
        return id >= s->first_id && id < s->first_id + s->n ? id - s->first_id : -1;
    int lo = 0, hi = s->n;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (s->id[mid] < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n && s->id[lo] == id ? lo : -1;
}

__device__ __forceinline__ struct cu_weights set_weights(const struct cu_matrices *m, int e)
{
    if (m->each)
        return weights_in(m->each, e);
    struct cu_weights w = m->first;
    w.data += (size_t)e * m->pitch;
    w.scale += (size_t)e * m->scale_pitch;
    return w;
}

/* The product of one pair; false: its expert is not at hand. */
__device__ __forceinline__ bool pair_product(const struct cu_pairs *p, int pair, struct cu_few *f)
{
    size_t row = (size_t)(pair / p->n_used), slot = (size_t)(pair % p->n_used);
    int e = set_place(&p->set, p->route[row * p->route_pitch + slot]);
    *f = p->f;
    if (e < 0)
        return false;
    f->w = set_weights(&p->w, e);
    if (p->up.first.data) {
        f->up = set_weights(&p->up, e);
        f->weight = p->weight[row * p->weight_pitch + slot];
    }
    f->x += (size_t)(pair / p->x_div) * f->x_pitch;
    if (f->rounded)
        f->rounded += (size_t)(pair / p->x_div) * n_record(f->k);
    f->out += (size_t)pair * f->out_pitch;
    return true;
}

/* expert_few.cu: whether there are kernels for it; of packed weights. */
bool cuda_pairs_fit(const struct dev *d, enum dtype type, int k);
/* rounded: room for all of x, as records (round_impl.h). */
void cuda_pairs(struct dev *d, struct cu_pairs *p, uint8_t *rounded);

/* expert_half.cu: the same for types that have halves (half_impl.h). */
bool cuda_halves_fit(const struct dev *d, enum dtype type, int k);
void cuda_halves(struct dev *d, struct cu_pairs *p);

#endif
