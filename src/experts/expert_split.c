/* expert_split.c - the order in which experts are given the faster memory.
 *
 * An expert there saves its bytes each time it is used and costs its bytes once: what counts is how
 * often it is used, in any layer. Equals take turns by layer, and within a layer in an order that
 * leaps over its experts: many-row kernels go through them in ascending order, and should meet slow
 * ones between fast ones, not all at the end.
 *
 * Where c of them fit, 1 - c of that memory is for those that were used last. On routes that lie on
 * both sides of what was measured of the real model (docs/streaming.md), for c of 0.4, 0.65 and
 * 0.9, such a split serves 0.75 to 0.96, 0.87 to 0.98 and 0.97 to 0.99 of the uses, at each c
 * within 0.02 of the best split; one without such slots serves c. */
#include "expert_split.h"

#include <stdlib.h>

struct ranked {
    uint32_t count, turn;
    int key;
};

/* Most used first. */
static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    if (x->turn != y->turn)
        return x->turn < y->turn ? -1 : 1;
    return x->key - y->key;
}

static uint64_t room_of(const struct expert_map *map, int key)
{
    uint64_t sum = 0;
    for (int p = 0; p < EXPERT_N_PART; p++)
        sum += expert_part_room(expert_map_at(map, key, (enum expert_part)p)->bytes);
    return sum;
}

uint64_t expert_split_bytes(const struct expert_map *map, int *n)
{
    uint64_t sum = 0;
    *n = 0;
    for (int k = 0; k < map->n_layer * map->n_expert; k++) {
        uint64_t bytes = room_of(map, k);
        *n += bytes > 0;
        sum += bytes;
    }
    return sum;
}

uint64_t expert_split_far(const struct expert_split *s, const struct expert_map *map, int layer)
{
    uint64_t sum = 0;
    for (int k = layer * map->n_expert; k < (layer + 1) * map->n_expert; k++)
        sum += s->near[k] ? 0 : room_of(map, k);
    return sum;
}

/* Kept for copies: what lies far of a layer when all have the same share, and no more than a part
 * of the room. What does not find place there is read where it lies. */
#define AHEAD_PART 4
static uint64_t ahead_of(const struct expert_split *s, const struct expert_map *map, uint64_t room)
{
    uint64_t near = room - s->slot_bytes;
    uint64_t far = s->bytes > near ? (s->bytes - near) / (uint64_t)map->n_layer : 0;
    return MIN(expert_part_room(far), room / AHEAD_PART);
}

uint64_t expert_split_each(const struct expert_map *map, int layer)
{
    uint64_t each = room_of(map, layer * map->n_expert);
    for (int k = layer * map->n_expert; k < (layer + 1) * map->n_expert; k++)
        each = room_of(map, k) == each ? each : 0;
    return each;
}

/* Slots of every layer in what is left of the room. */
static void reserve_slots(struct expert_split *s, const struct expert_map *map, uint64_t room,
                          uint64_t far_most)
{
    uint64_t row = 0, least = s->bytes > far_most ? s->bytes - far_most : 0;
    for (int l = 0; l < map->n_layer; l++)
        row += expert_split_each(map, l);
    least += least ? row : 0; /* near ones come whole */
    if (room >= s->bytes || row == 0)
        return;
    double share = (double)room / (double)s->bytes;
    uint64_t most = MIN((uint64_t)((double)room * (1 - share)), room > least ? room - least : 0);
    s->n_slot = (int)MIN(most / row, EXPERT_MAX_SLOT);
    s->slot_bytes = (uint64_t)s->n_slot * row;
}

static void fill(struct expert_split *s, const struct expert_map *map, struct ranked *order,
                 const uint32_t *count, uint64_t room)
{
    int n_key = map->n_layer * map->n_expert;
    for (int k = 0; k < n_key; k++) /* the golden ratio's multiples never crowd */
        order[k] = (struct ranked){ count ? count[k] : 0,
                                    (uint32_t)(k % map->n_expert) * 2654435769u, k };
    qsort(order, (size_t)n_key, sizeof *order, by_rank);
    for (int i = 0; i < n_key; i++) {
        uint64_t bytes = room_of(map, order[i].key);
        if (bytes == 0 || s->near_bytes + bytes > room)
            continue;
        s->near[order[i].key] = 1;
        s->near_bytes += bytes;
        s->n_near++;
    }
}

/* Bytes of a layer's experts that lie far, weighed by use. */
static double far_of(const struct expert_split *s, const struct expert_map *map,
                     const uint32_t *count, int layer)
{
    double far = 0, all = 0;
    for (int k = layer * map->n_expert; k < (layer + 1) * map->n_expert; k++) {
        double uses = count ? count[k] + 1e-9 : 1;
        all += uses;
        far += s->near[k] ? 0 : uses * (double)room_of(map, k);
    }
    return far / all;
}

int expert_split_open(struct expert_split *s, const struct expert_map *map, const uint32_t *count,
                      uint64_t room, uint64_t far_most, struct err *e)
{
    size_t n_key = (size_t)map->n_layer * (size_t)map->n_expert;
    struct ranked *order = malloc(n_key * sizeof *order);
    *s = (struct expert_split){ .near = calloc(n_key, sizeof *s->near) };
    s->bytes = expert_split_bytes(map, &s->n);
    for (int i = 0; i < 2; i++) { /* slots leave more far, to be copied ahead */
        s->ahead_bytes = ahead_of(s, map, room);
        reserve_slots(s, map, room - s->ahead_bytes, far_most);
    }
    if (s->near && order)
        fill(s, map, order, count, room - s->ahead_bytes - s->slot_bytes);
    for (int l = 0; s->near && l < map->n_layer; l++)
        s->far_bytes += far_of(s, map, count, l);
    free(order);
    return s->near && order ? 0 : err_set(e, ERR_NO_MEMORY, "out of memory for the places of %zu "
                                          "experts", n_key);
}

void expert_split_close(struct expert_split *s)
{
    free(s->near);
    *s = (struct expert_split){ 0 };
}
