/* expert_split.h - which routed experts lie in a device's own memory, when not all of them fit. */
#ifndef DS_EXPERT_SPLIT_H
#define DS_EXPERT_SPLIT_H

#include "expert_map.h"

#define EXPERT_ALIGN 256 /* of every part of an expert, wherever it lies */
#define EXPERT_MAX_SLOT 256

static inline uint64_t expert_part_room(uint64_t bytes)
{
    return round_up(bytes, EXPERT_ALIGN);
}

struct expert_split {
    uint8_t *near;     /* [n_layer * n_expert] 1: in the device's memory; 0: in the host's */
    int n, n_near;     /* experts that there are, that lie near */
    uint64_t bytes, near_bytes; /* of those, with every part aligned */
    uint64_t ahead_bytes; /* to be kept of the room: for a layer's far ones, copied for a step of
                             many rows */
    int n_slot;           /* of each layer: places for far ones that were used last */
    uint64_t slot_bytes;  /* to be kept of the room for those */
    double far_bytes;  /* for each expert that a token uses in every layer, if it uses those of a
                          layer alike, or as counted: so many bytes lie far */
};

/* At most `room` bytes near: the most used ones, whatever their layers. count: [n_layer * n_expert]
 * uses, or NULL; among equals, every layer gets the same share. No slots that would leave more than
 * far_most bytes far. */
int expert_split_open(struct expert_split *s, const struct expert_map *map, const uint32_t *count,
                      uint64_t room, uint64_t far_most, struct err *e);
void expert_split_close(struct expert_split *s);

/* What each of a layer's experts takes; 0 where they differ, or there are none. */
uint64_t expert_split_each(const struct expert_map *map, int layer);

/* Of a layer's experts that lie far. */
uint64_t expert_split_far(const struct expert_split *s, const struct expert_map *map, int layer);

/* What all experts take, and how many there are. */
uint64_t expert_split_bytes(const struct expert_map *map, int *n);

static inline bool expert_split_all(const struct expert_split *s)
{
    return s->n_near == s->n;
}

#endif
