/* name_index.h - find one of many names in constant time; tells duplicates. */
#ifndef DS_NAME_INDEX_H
#define DS_NAME_INDEX_H

#include "error.h"

/* Numbers of names the caller keeps; holds no strings itself. */
struct name_index {
    struct name_slot {
        uint64_t hash;
        const char *name; /* NULL: free */
        int number;
    } *slot;
    size_t n_slot; /* a power of two, at least twice n */
    int n;
};

/* *older: -1 when the name was added, else the number it already has. Fails only when memory is
 * exhausted. A zeroed index is empty. The name is borrowed until the release. */
int name_index_add(struct name_index *x, const char *name, int number, int *older, struct err *e);
void name_index_release(struct name_index *x);

/* -1: absent. */
int name_index_find(const struct name_index *x, const char *name);

#endif
