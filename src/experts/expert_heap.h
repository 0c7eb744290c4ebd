/* expert_heap.h - keys in the order in which they would be given up, least worth keeping first. */
#ifndef DS_EXPERT_HEAP_H
#define DS_EXPERT_HEAP_H

#include "arena.h"

/* A binary heap that knows where each key stands. The least key has the least score; of equal ones
 * the longest unused; of those the lowest key. A key's score and use may change only while the key
 * is not in the heap, or when expert_heap_order() follows. */
struct expert_heap {
    int32_t *key;          /* [n] */
    int32_t *at;           /* [n_key] place in `key`; -1: not here */
    const double *score;   /* [n_key] borrowed */
    const uint64_t *last;  /* [n_key] borrowed: when it was used last; larger is later */
    int n, cap, n_key;
};

/* Empty, for at most `cap` of n_key keys. An arena that only counts is counted with, no more. */
void expert_heap_init(struct expert_heap *h, struct arena *a, int cap, int n_key);

void expert_heap_add(struct expert_heap *h, int key);    /* not in it yet; there is room */
bool expert_heap_remove(struct expert_heap *h, int key); /* false: was not in it */
int expert_heap_pop(struct expert_heap *h);              /* the least; there is one */

/* Put in order after scores have changed. */
void expert_heap_order(struct expert_heap *h);

#endif
