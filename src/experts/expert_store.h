/* expert_store.h - routed experts that come from files while the model runs.
 *
 * The layer code says which experts it wants, does other work, and then takes what is there and
 * what arrives. That cannot change what is computed: a row's partial results are summed in one
 * order whenever they were made. Layers whose experts have another size have a shelf of their own,
 * so that a small expert never takes the place of a large one, nor a large one that of several. */
#ifndef DS_EXPERT_STORE_H
#define DS_EXPERT_STORE_H

#include "expert_shelf.h"

#define EXPERT_MOST_SHELVES 6 /* more sizes than that share the last one */

struct expert_store;

/* As for a shelf, but the map has all layers; memory is divided in proportion to their bytes. */
void expert_store_sizes(const struct expert_shelf_ask *ask, size_t *least, size_t *most);
int expert_store_open(struct expert_store **s, const struct expert_shelf_ask *ask, struct err *e);
void expert_store_close(struct expert_store *s);

/* Before the first step: scores from a profile, and what it counts most into memory as far as there
 * is room. told may be NULL; if it ends that: ERR_CANCELLED. A read that fails is no failure. */
int expert_store_popular(struct expert_store *s, const struct expert_profile *p,
                         const struct report *told, struct err *e);

/* Between steps: the same for a conversation that goes on. Counts are what expert_store_profile()
 * said when it was left; what others have used since and is worth more stays. */
int expert_store_restore(struct expert_store *s, const struct expert_profile *p,
                         const struct report *told, struct err *e);

/* What is popular now; false: nothing was used yet. */
bool expert_store_profile(const struct expert_store *s, struct expert_profile *p);

/* ---- a step: s NULL when all experts are mapped ---------------------------------------------- */

/* Rows r will be computed; what they are sure to need is read ahead. */
void experts_begin(struct expert_store *s, struct dev *d, const struct rows *r);

/* What one layer of a step needs. */
struct expert_need {
    struct expert_shelf *shelf; /* NULL: all are mapped */
    const struct expert_set *all;
    bool given;
};

/* Layer l will use the experts that the route names; missing ones begin to be read. `all` lives
 * until experts_done(). One need at a time. */
void experts_want(struct expert_store *s, struct dev *d, const struct expert_set *all, int l,
                  const struct route *route, struct expert_need *need);

/* Some of them that are in memory and were not given before, ascending; waits for reads when there
 * are none. They stay until the next call. False: all were given, or the device has failed; also
 * through a read that failed, which the failure then names. */
bool experts_next(struct expert_need *need, struct dev *d, struct expert_set *some);

void experts_done(struct expert_need *need);

/* ---- looking inside ------------------------------------------------------------------------ */

int expert_store_n_shelf(const struct expert_store *s);
const struct expert_shelf *expert_store_shelf(const struct expert_store *s, int i);
int expert_store_shelf_of(const struct expert_store *s, int layer);

#endif
