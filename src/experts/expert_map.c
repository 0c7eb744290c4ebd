/* expert_map.c - one table of extents, whatever the files look like. */
#include "expert_map.h"

#include <stdlib.h>

int expert_map_open(struct expert_map *m, int n_layer, int n_expert, struct err *e)
{
    CHECK(n_layer > 0 && n_expert > 0);
    *m = (struct expert_map){ n_layer, n_expert, NULL };
    m->at = calloc((size_t)n_layer * (size_t)n_expert * EXPERT_N_PART, sizeof *m->at);
    if (!m->at)
        return err_set(e, ERR_NO_MEMORY, "out of memory for the places of %d experts",
                       n_layer * n_expert);
    return 0;
}

void expert_map_close(struct expert_map *m)
{
    free(m->at);
    *m = (struct expert_map){ 0 };
}

void expert_map_set(struct expert_map *m, int key, enum expert_part part,
                    const struct expert_extent *at)
{
    CHECK(key >= 0 && key < m->n_layer * m->n_expert && part < EXPERT_N_PART);
    m->at[(size_t)key * EXPERT_N_PART + (size_t)part] = *at;
}

void expert_map_stack(struct expert_map *m, int layer, enum expert_part part,
                      const struct expert_extent *first)
{
    struct expert_extent at = *first;
    for (int i = 0; i < m->n_expert; i++) {
        expert_map_set(m, layer * m->n_expert + i, part, &at);
        at.offset += at.bytes;
    }
}

uint64_t expert_map_bytes(const struct expert_map *m, int key)
{
    uint64_t sum = 0;
    for (int p = 0; p < EXPERT_N_PART; p++)
        sum += expert_map_at(m, key, (enum expert_part)p)->bytes;
    return sum;
}
