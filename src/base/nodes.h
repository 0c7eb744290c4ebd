/* nodes.h - memory of machines whose processors have memories of their own (NUMA). */
#ifndef DS_NODES_H
#define DS_NODES_H

#include "base.h"

#define NODES_MOST 1024

struct nodes {
    int n;                                    /* how many */
    unsigned long bits[NODES_MOST / (8 * sizeof(long))];
};

/* A list as Linux prints it, "0-3,8". False: it is not one, or names nodes beyond NODES_MOST. */
bool nodes_parse(struct nodes *out, const char *list);

/* Those that have memory; n is 1 where the system does not say. */
void nodes_find(struct nodes *out);

/* Weights and caches are used by all threads alike, so their pages go to all nodes in turn: every
 * memory then gives its share of the bandwidth. The first is for pages that the calling thread
 * touches first from now on, those of mapped files included; the second for a range that nobody
 * has touched. With fewer than two nodes nothing is done. False: the system refused. */
bool nodes_spread_thread(const struct nodes *to);
bool nodes_spread_memory(const struct nodes *to, void *mem, size_t size);

#endif
