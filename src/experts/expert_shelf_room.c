/* expert_shelf_room.c - which experts have room at first, and memory that goes back to the system
 * and comes again.
 *
 * Who gives way is decided by value, but memory can only be given back in whole huge pages. So the
 * last places of the slab go, and what shall stay of those moves to places before them: a copy in
 * memory costs a thousandth of reading it again. */
#include "expert_shelf_impl.h"

#include <stdlib.h>

/* ---- what was popular ------------------------------------------------------------------------ */

struct popular {
    uint32_t count;
    int key;
};

static int falling(const void *a, const void *b)
{
    const struct popular *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return (x->key > y->key) - (x->key < y->key);
}

/* Those that may get a slot: the most popular, then in order of the file. */
static int choose_popular(struct expert_shelf *s, const struct expert_profile *p,
                          struct popular *all)
{
    int n = 0, n_key = s->slots.n_key;
    for (int k = s->slots.policy.shape.n_weak * s->use.n_expert; k < n_key; k++)
        if (p->count[k] > 0 && expert_map_bytes(s->ask.map, k) > 0)
            all[n++] = (struct popular){ p->count[k], k };
    qsort(all, (size_t)n, sizeof *all, falling);
    n = MIN(n, s->slots.n_open);
    for (int i = 0; i < n; i++)
        all[i].count = 0;
    qsort(all, (size_t)n, sizeof *all, falling);
    return n;
}

/* tidy: heap - at open, and when a session is loaded */
int expert_shelf_preload(struct expert_shelf *s, const struct expert_profile *p,
                         const struct report *told, struct err *e)
{
    struct popular *all = malloc((size_t)s->slots.n_key * sizeof *all);
    uint64_t before = expert_reads_stats(s->reads)->bytes_read;
    int code = 0;
    if (!all)
        return err_set(e, ERR_NO_MEMORY, "out of memory for popular experts");
    int n = choose_popular(s, p, all);
    for (int i = 0; i < n || shelf_count_reading(s) > 0;) {
        for (; i < n && shelf_count_reading(s) < SHELF_SWEEP_LOADS; i++) {
            int key = all[i].key, n_expert = s->use.n_expert;
            int slot = expert_slots_preload(&s->slots, key / n_expert, key % n_expert);
            if (slot >= 0)
                shelf_add_read(s, s->place_of[slot], key, EXPERT_DEMAND);
        }
        shelf_begin_reads(s);
        shelf_poll(s, SHELF_WAIT_S);
        if (code == 0)
            code = report_to(told, "popular experts", (double)i / MAX(n, 1), e);
        if (code < 0)
            n = i;
    }
    free(all);
    uint64_t bytes = expert_reads_stats(s->reads)->bytes_read - before;
    s->stats.preload_bytes += bytes;
    s->bytes_before += bytes;
    return code;
}

int expert_shelf_popular(struct expert_shelf *s, const struct expert_profile *p,
                         const struct report *told, struct err *e)
{
    expert_profile_give(p, &s->slots.policy, 1);
    return expert_shelf_preload(s, p, told, e);
}

int expert_shelf_restore(struct expert_shelf *s, const struct expert_profile *p,
                         const struct report *told, struct err *e)
{
    expert_slots_recall(&s->slots, p->count);
    return expert_shelf_preload(s, p, told, e);
}

/* ---- giving back ----------------------------------------------------------------------------- */

static bool is_reading_from(const struct expert_shelf *s, int first)
{
    for (int p = first; p < s->n_place; p++)
        if (s->place[p].reading)
            return true;
    return false;
}

/* What place p has and is goes to place q, that of a closed slot, and the slot to p. */
static void move_place(struct expert_shelf *s, int p, int q)
{
    struct place *from = &s->place[p], *to = &s->place[q];
    int closed = to->slot;
    if (from->ready)
        memcpy(shelf_memory_of(s, q), shelf_memory_of(s, p), s->place_bytes);
    *to = *from;
    *from = (struct place){ .key = -1, .slot = closed };
    s->place_of[closed] = p;
    if (to->slot >= 0)
        s->place_of[to->slot] = q;
    else if (to->key >= 0)
        s->staged[to->key] = q;
    for (int i = 0; i < s->n_spare; i++)
        if (s->spare[i] == p)
            s->spare[i] = q;
}

static bool is_closed(const struct expert_shelf *s, int p)
{
    return s->place[p].slot >= 0 && s->slots.slot[s->place[p].slot].state == EXPERT_CLOSED;
}

/* Closed slots have the places from n on, all others those before: there are as many. */
static void settle(struct expert_shelf *s, int n)
{
    int q = 0;
    for (int p = 0; p < s->n_place; p++)
        if (is_closed(s, p))
            s->place[p] = (struct place){ .key = -1, .slot = s->place[p].slot };
    for (int p = n; p < s->n_place; p++) {
        if (is_closed(s, p))
            continue;
        while (!is_closed(s, q))
            q++;
        CHECK(q < n);
        move_place(s, p, q);
    }
}

void expert_shelf_resize(struct expert_shelf *s, size_t bytes)
{
    int n_spare = s->n_place - s->slots.n_slot, now = s->slots.n_open, extra;
    int n = MIN((int)(bytes / s->place_bytes) - n_spare, s->slots.n_slot);
    n = MAX(n, shelf_most_used(&s->ask));
    CHECK(!s->is_open);
    if (n == now)
        return;
    shelf_poll(s, 0);
    size_t end = s->place_bytes * (size_t)(now + n_spare);
    if (is_reading_from(s, MIN(n, now) + n_spare))
        return; /* the next look will find it done */
    if (n > now && slab_take_again(&s->slab, end, s->place_bytes * (size_t)(n - now), NULL) < 0)
        return;
    n = expert_slots_resize(&s->slots, n);
    extra = (int)(s->ask.larger_bytes / s->place_bytes);
    expert_slots_resize(&s->larger, MIN(s->larger.n_slot, n + extra));
    settle(s, n + n_spare);
    end = s->place_bytes * (size_t)(n + n_spare);
    s->stats.n_resize++;
    s->stats.given_bytes = n < s->slots.n_slot ? s->slab.size - end : 0;
    if (n < now)
        slab_give_back(&s->slab, end, s->slab.size - end);
}
