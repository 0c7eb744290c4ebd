/* expert_map.h - where in the model's files the bytes of each routed expert lie. */
#ifndef DS_EXPERT_MAP_H
#define DS_EXPERT_MAP_H

#include "error.h"

/* An expert is up to six pieces of the files: three matrices, and their scales where these are kept
 * apart. In this order it is read. */
enum expert_part {
    EXPERT_GATE,
    EXPERT_UP,
    EXPERT_GATE_SCALE,
    EXPERT_UP_SCALE,
    EXPERT_DOWN,
    EXPERT_DOWN_SCALE,
    EXPERT_N_PART,
};

/* Bits: what the first half of an expert's computation needs, and all of it. */
#define EXPERT_FIRST_PARTS 0x0fu
#define EXPERT_ALL_PARTS 0x3fu

struct expert_extent {
    uint64_t offset, bytes; /* bytes 0: there is no such part */
    int file;
};

struct expert_map {
    int n_layer, n_expert;
    struct expert_extent *at; /* [n_layer * n_expert][EXPERT_N_PART]; key = layer * n_expert + e */
};

/* Empty: layers without routed experts stay so. */
int expert_map_open(struct expert_map *m, int n_layer, int n_expert, struct err *e);
void expert_map_close(struct expert_map *m);

/* All experts of a layer, one after another from `first`: the tensor [n_expert] of a GGUF. */
void expert_map_stack(struct expert_map *m, int layer, enum expert_part part,
                      const struct expert_extent *first);

/* One expert's: a checkpoint's tensor. */
void expert_map_set(struct expert_map *m, int key, enum expert_part part,
                    const struct expert_extent *at);

static inline const struct expert_extent *expert_map_at(const struct expert_map *m, int key,
                                                        enum expert_part part)
{
    return &m->at[(size_t)key * EXPERT_N_PART + (size_t)part];
}

uint64_t expert_map_bytes(const struct expert_map *m, int key); /* of all parts */

#endif
