/* group_impl.h - pairs (a row's use of an expert) grouped by expert; group.cu. */
#ifndef DS_GROUP_IMPL_H
#define DS_GROUP_IMPL_H

#include "product_impl.h"

#define MAX_EXPERT 1024

struct grouping {
    const int *id;          /* [n_set] the set's experts, ascending; NULL: from first_id on */
    int first_id, n_set, n_used, n_pair;
    const int32_t *route;   /* [n_pair] ids */
    size_t route_pitch;     /* in ids */
    struct cu_groups *groups;
    int *active, *first, *pair;
    struct cu_tile *tile;   /* [group_tiles()] */
};

/* At most so many tiles: whole ones, and the last one of every list. */
static inline size_t group_tiles(const struct grouping *g)
{
    return (size_t)(g->n_pair / GROUP_TILE + MIN(g->n_pair, g->n_set));
}

void cuda_group(struct dev *d, const struct grouping *g);

/* sums.cu: adds the rows of x that each expert is given: row pair / div, or with div 0 the rows in
 * the order of lists. */
void cuda_sum_lists(struct dev *d, const struct dev_sums *to, const struct tensor *x,
                    const struct grouping *g, int div);

#endif
