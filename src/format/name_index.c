/* name_index.c - open addressing over 64-bit hashes.
 *
 * A checkpoint has up to 150 thousand names, looked up a few times each while a model is opened;
 * nothing is ever removed. Rejected: sorting and bisection, because the files' order must stay. */
#include "name_index.h"

#include "hash.h"

#include <stdlib.h>

static struct name_slot *slot_of(const struct name_index *x, const char *name, uint64_t hash)
{
    size_t i = (size_t)hash & (x->n_slot - 1);
    while (x->slot[i].name && (x->slot[i].hash != hash || strcmp(x->slot[i].name, name) != 0))
        i = (i + 1) & (x->n_slot - 1);
    return &x->slot[i];
}

static int grow(struct name_index *x, struct err *e)
{
    struct name_index larger = { .n_slot = x->n_slot ? x->n_slot * 2 : 64, .n = x->n };
    larger.slot = calloc(larger.n_slot, sizeof *larger.slot);
    if (!larger.slot)
        return err_set(e, ERR_NO_MEMORY, "out of memory for an index of %d names", x->n);
    for (size_t i = 0; i < x->n_slot; i++) {
        if (x->slot[i].name)
            *slot_of(&larger, x->slot[i].name, x->slot[i].hash) = x->slot[i];
    }
    free(x->slot);
    *x = larger;
    return 0;
}

int name_index_add(struct name_index *x, const char *name, int number, int *older, struct err *e)
{
    uint64_t hash = hash_of(name, strlen(name), 0);
    if (((size_t)x->n + 1) * 2 > x->n_slot)
        TRY(grow(x, e));
    struct name_slot *s = slot_of(x, name, hash);
    *older = s->name ? s->number : -1;
    if (!s->name) {
        *s = (struct name_slot){ hash, name, number };
        x->n++;
    }
    return 0;
}

void name_index_release(struct name_index *x)
{
    free(x->slot);
    *x = (struct name_index){ 0 };
}

int name_index_find(const struct name_index *x, const char *name)
{
    if (x->n == 0)
        return -1;
    const struct name_slot *s = slot_of(x, name, hash_of(name, strlen(name), 0));
    return s->name ? s->number : -1;
}
