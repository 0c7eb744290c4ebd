/* pick_impl.h - what the kernels that score compressed rows are given. */
#ifndef DS_PICK_IMPL_H
#define DS_PICK_IMPL_H

#include "pack_impl.h"

#include <math.h>

struct picking {
    struct cu_mat q, weight;
    int n_head, dim, top_k, l, row0;
    float scale;
    float *score; /* [rows at a time][pitch] */
    size_t pitch;
    struct cu_step step;
};

__device__ __forceinline__ int n_visible(const struct picking *p, const struct cu_row *r)
{
    return (r->pos + 1) / kv_of(&p->step, r->seq, p->l)->ratio;
}

/* A row must be taken, whatever the scores. */
__device__ __forceinline__ float known(float score)
{
    return isnan(score) ? -INFINITY : score;
}

/* pick_packed.cu: the scores of n rows, from p->row0 on, of a cache whose rows are like that; the
 * step has few. A row's scores are the same bits among any number. */
bool cuda_scores_packed(const struct kv_shape *s, const struct indexer *ix);
void cuda_score_packed(struct dev *d, const struct picking *p, int n, bool few);

#endif
