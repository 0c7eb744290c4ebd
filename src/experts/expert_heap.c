/* expert_heap.c - the heap behind every choice of what to give up.
 *
 * A decayed count need not be decayed to be compared: all counts shrink at the same rate, so their
 * order changes only where one is used. A heap therefore stays in order by itself, and a choice
 * costs the logarithm of the slots. Rejected: scanning all slots at each miss, which is simpler and
 * costs most where misses are many and the cache is large. */
#include "expert_heap.h"

void expert_heap_init(struct expert_heap *h, struct arena *a, int cap, int n_key)
{
    *h = (struct expert_heap){ .cap = cap, .n_key = n_key };
    h->key = arena_alloc(a, (size_t)cap * sizeof *h->key);
    h->at = arena_alloc(a, (size_t)n_key * sizeof *h->at);
    for (int k = 0; h->at && k < n_key; k++)
        h->at[k] = -1;
}

static bool less(const struct expert_heap *h, int a, int b)
{
    if (h->score[a] != h->score[b])
        return h->score[a] < h->score[b];
    return h->last[a] != h->last[b] ? h->last[a] < h->last[b] : a < b;
}

static void put(struct expert_heap *h, int i, int key)
{
    h->key[i] = key;
    h->at[key] = i;
}

static void rise(struct expert_heap *h, int i)
{
    int key = h->key[i];
    for (; i > 0 && less(h, key, h->key[(i - 1) / 2]); i = (i - 1) / 2)
        put(h, i, h->key[(i - 1) / 2]);
    put(h, i, key);
}

static void sink(struct expert_heap *h, int i)
{
    int key = h->key[i];
    for (int child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && less(h, h->key[child + 1], h->key[child]))
            child++;
        if (!less(h, h->key[child], key))
            break;
        put(h, i, h->key[child]);
    }
    put(h, i, key);
}

void expert_heap_add(struct expert_heap *h, int key)
{
    CHECK(h->n < h->cap && h->at[key] < 0);
    put(h, h->n++, key);
    rise(h, h->n - 1);
}

bool expert_heap_remove(struct expert_heap *h, int key)
{
    int i = h->at[key];
    if (i < 0)
        return false;
    int moved = h->key[--h->n];
    h->at[key] = -1;
    if (moved != key) {
        put(h, i, moved);
        rise(h, i);
        sink(h, h->at[moved]);
    }
    return true;
}

int expert_heap_pop(struct expert_heap *h)
{
    CHECK(h->n > 0);
    int key = h->key[0];
    expert_heap_remove(h, key);
    return key;
}

void expert_heap_order(struct expert_heap *h)
{
    for (int i = h->n / 2 - 1; i >= 0; i--)
        sink(h, i);
}
