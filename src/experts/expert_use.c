/* expert_use.c - from rows to different experts, and to the cache.
 *
 * One row keeps the order of its route, which is that of falling weight: of two experts used by the
 * same token the one used last is the longer kept, so the order is part of a decision. */
#include "expert_use.h"

void expert_use_init(struct expert_use *u, int n_expert, struct arena *a)
{
    size_t n = (size_t)n_expert;
    CHECK(n_expert > 0 && n_expert <= EXPERT_MOST);
    *u = (struct expert_use){ .n_expert = n_expert };
    u->expert = arena_alloc(a, n * sizeof *u->expert);
    u->recent = arena_alloc(a, n * sizeof *u->recent);
    u->slot = arena_alloc(a, n * sizeof *u->slot);
    u->missing = arena_alloc(a, (n + 63) / 64 * sizeof *u->missing);
    u->count = arena_alloc(a, n * sizeof *u->count);
    u->late = arena_alloc(a, n * sizeof *u->late);
    if (!u->late)
        return;
    memset(u->count, 0, n * sizeof *u->count);
    memset(u->late, 0, n * sizeof *u->late);
}

void expert_use_begin(struct expert_use *u, int n_row)
{
    u->n_row = n_row;
    u->n = 0;
}

void expert_use_add(struct expert_use *u, int row, const int32_t *expert, int n)
{
    bool is_late = row >= u->n_row - EXPERT_RECENT_ROWS;
    for (int i = 0; i < n; i++) {
        CHECK(expert[i] >= 0 && expert[i] < u->n_expert);
        if (u->count[expert[i]]++ == 0)
            u->expert[u->n++] = expert[i];
        u->late[expert[i]] += is_late;
    }
}

void expert_use_end(struct expert_use *u, int n_slot, int layer)
{
    int n = 0;
    for (int e = 0; e < u->n_expert && u->n_row > 1; e++)
        if (u->count[e] > 0)
            u->expert[n++] = e;
    for (int i = 0; i < u->n; i++) {
        u->recent[i] = u->late[u->expert[i]];
        u->count[u->expert[i]] = u->late[u->expert[i]] = 0;
    }
    u->layer = layer;
    u->is_sweep = u->n_row > EXPERT_FEW_ROWS || u->n > MIN(n_slot, 64);
}

int expert_use_decide(struct expert_use *u, struct expert_slots *s)
{
    if (u->is_sweep)
        return expert_slots_sweep(s, u->layer, u->expert, u->recent, u->n, u->slot, u->missing);
    return expert_slots_want(s, u->layer, u->expert, u->n, u->slot, u->missing);
}

void expert_use_done(const struct expert_use *u, struct expert_slots *s)
{
    for (int i = 0; i < u->n; i++)
        if (u->slot[i] >= 0)
            expert_slots_done(s, &u->slot[i], 1);
}
