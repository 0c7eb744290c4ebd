/* expert_slots.c - one budget of slots for the experts of all layers, as a pure state machine.
 *
 * One budget, since layers differ in how concentrated their routes are: a share for each layer
 * wastes slots on the flat ones. A slot that is being read is no victim even when nobody uses it
 * any more: the read may still write into it.
 *
 * One size of slots. Layers of different types would get an object each with slots of their size;
 * dividing the budget between them is then a decision of its own, and is not made here. */
#include "expert_slots.h"

void expert_slots_init(struct expert_slots *s, const struct expert_shape *shape, struct arena *a)
{
    *s = (struct expert_slots){ .n_slot = shape->n_slot, .n_open = shape->n_slot,
                                .n_empty = shape->n_slot };
    expert_policy_init(&s->policy, shape, a);
    s->n_key = s->policy.n_key;
    s->slot = arena_alloc(a, (size_t)s->n_slot * sizeof *s->slot);
    s->slot_of = arena_alloc(a, (size_t)s->n_key * sizeof *s->slot_of);
    s->empty = arena_alloc(a, (size_t)s->n_slot * sizeof *s->empty);
    expert_heap_init(&s->idle, a, s->n_slot, s->n_key);
    if (!a->mem)
        return;
    CHECK(!a->overflow);
    s->idle.score = expert_policy_score(&s->policy);
    s->idle.last = s->policy.last;
    for (int k = 0; k < s->n_key; k++)
        s->slot_of[k] = -1;
    for (int i = 0; i < s->n_slot; i++) {
        s->slot[i] = (struct expert_slot){ .key = -1, .state = EXPERT_EMPTY };
        s->empty[i] = s->n_slot - 1 - i;
    }
}

void expert_slots_step(struct expert_slots *s, int n_tok)
{
    if (!expert_policy_step(&s->policy, n_tok))
        return;
    s->idle.score = expert_policy_score(&s->policy);
    expert_heap_order(&s->idle);
}

/* An empty slot, or that of the victim; there is one. */
static int take(struct expert_slots *s)
{
    if (s->n_empty > 0)
        return s->empty[--s->n_empty];
    int key = expert_heap_pop(&s->idle), slot = s->slot_of[key];
    CHECK(s->slot[slot].pins == 0 && s->slot[slot].state == EXPERT_READY);
    s->slot_of[key] = -1;
    s->counts.evictions++;
    return slot;
}

/* FNV-1a, a word at a time. */
static void note(struct expert_slots *s, int key, int slot)
{
    uint64_t what = (uint64_t)(uint32_t)key << 32 | (uint32_t)slot;
    s->decided = (s->decided ^ what) * 0x100000001b3 + 1;
}

/* Pinned if it is in memory, -1 else. */
static int find(struct expert_slots *s, int key)
{
    int slot = s->slot_of[key];
    if (slot < 0)
        return -1;
    expert_heap_remove(&s->idle, key);
    s->slot[slot].pins++;
    *(s->slot[slot].state == EXPERT_READY ? &s->counts.hits : &s->counts.joins) += 1;
    return slot;
}

static int fill(struct expert_slots *s, int key, int pins)
{
    int slot = take(s);
    s->slot[slot] = (struct expert_slot){ key, pins, EXPERT_READING };
    s->slot_of[key] = slot;
    return slot;
}

/* Slots that a want of these could fill: not pinned and not among them. */
static int count_free(const struct expert_slots *s, int first, const int32_t *expert, int n,
                      int *n_missing)
{
    int n_free = s->n_empty + s->idle.n;
    *n_missing = 0;
    for (int i = 0; i < n; i++) {
        CHECK(expert[i] >= 0 && expert[i] < s->policy.shape.n_expert);
        *n_missing += s->slot_of[first + expert[i]] < 0;
        n_free -= s->idle.at[first + expert[i]] >= 0;
    }
    return n_free;
}

int expert_slots_want(struct expert_slots *s, int layer, const int32_t *expert, int n,
                      int32_t *slot, uint64_t *missing)
{
    int first = layer * s->policy.shape.n_expert, n_missing;
    CHECK(n >= 0 && n <= 64 && layer >= 0 && layer < s->policy.shape.n_layer);
    *missing = 0;
    if (count_free(s, first, expert, n, &n_missing) < n_missing)
        return -1;
    /* Out of the heap before their scores change, and before a victim is sought. */
    for (int i = 0; i < n; i++)
        slot[i] = find(s, first + expert[i]);
    expert_policy_route(&s->policy, layer, expert, n);
    for (int i = 0; i < n; i++) {
        if (slot[i] < 0) {
            slot[i] = fill(s, first + expert[i], 1);
            *missing |= (uint64_t)1 << i;
        }
        note(s, first + expert[i], slot[i]);
    }
    s->counts.lookups += (uint64_t)n;
    s->counts.misses += (uint64_t)n_missing;
    return n_missing;
}

/* More than the least valuable of those that could be given up; of equals, used later. */
static bool is_worth_a_slot(const struct expert_slots *s, int key)
{
    const double *score = s->idle.score;
    const uint64_t *last = s->idle.last;
    int least = s->idle.n > 0 ? s->idle.key[0] : -1;
    if (s->n_empty > 0 || least < 0)
        return s->n_empty > 0;
    return score[key] != score[least] ? score[key] > score[least] : last[key] > last[least];
}

/* tidy: wide - see its declaration */
int expert_slots_sweep(struct expert_slots *s, int layer, const int32_t *expert,
                       const int32_t *recent, int n, int32_t *slot, uint64_t *missing)
{
    int first = layer * s->policy.shape.n_expert, n_missing = 0;
    CHECK(n >= 0 && n <= s->policy.shape.n_expert && layer >= 0 &&
          layer < s->policy.shape.n_layer);
    memset(missing, 0, ((size_t)n + 63) / 64 * sizeof *missing);
    for (int i = 0; i < n; i++)
        slot[i] = find(s, first + expert[i]);
    for (int i = 0; i < n; i++)
        if (recent[i] > 0)
            expert_policy_feed(&s->policy, layer, &expert[i], &recent[i], 1);
    for (int i = 0; i < n; i++) {
        if (slot[i] < 0) {
            missing[i / 64] |= (uint64_t)1 << i % 64;
            n_missing++;
            if (is_worth_a_slot(s, first + expert[i]))
                slot[i] = fill(s, first + expert[i], 1);
            s->counts.passed += slot[i] < 0;
        }
        note(s, first + expert[i], slot[i]);
    }
    s->counts.lookups += (uint64_t)n;
    s->counts.misses += (uint64_t)n_missing;
    return n_missing;
}

int expert_slots_preload(struct expert_slots *s, int layer, int expert)
{
    int key = layer * s->policy.shape.n_expert + expert;
    if (s->slot_of[key] >= 0 || !is_worth_a_slot(s, key))
        return -1;
    int slot = fill(s, key, 0);
    note(s, key, slot);
    return slot;
}

void expert_slots_recall(struct expert_slots *s, const uint32_t *count)
{
    expert_policy_recall(&s->policy, count);
    expert_heap_order(&s->idle);
}

int expert_slots_resize(struct expert_slots *s, int n)
{
    CHECK(n > 0 && n <= s->n_slot);
    for (; s->n_open > n && (s->n_empty > 0 || s->idle.n > 0); s->n_open--)
        s->slot[take(s)] = (struct expert_slot){ .key = -1, .state = EXPERT_CLOSED };
    for (int i = 0; s->n_open < n && i < s->n_slot; i++) {
        if (s->slot[i].state != EXPERT_CLOSED)
            continue;
        s->slot[i].state = EXPERT_EMPTY;
        s->empty[s->n_empty++] = i;
        s->n_open++;
    }
    expert_policy_resize(&s->policy, s->n_open);
    note(s, -1, s->n_open);
    return s->n_open;
}

/* Where a slot goes that nobody uses. */
static void rest(struct expert_slots *s, int slot)
{
    if (s->slot[slot].state == EXPERT_READY)
        expert_heap_add(&s->idle, s->slot[slot].key);
    else if (s->slot[slot].state == EXPERT_EMPTY)
        s->empty[s->n_empty++] = slot;
}

void expert_slots_arrived(struct expert_slots *s, int slot)
{
    CHECK(slot >= 0 && slot < s->n_slot && s->slot[slot].state == EXPERT_READING);
    s->slot[slot].state = EXPERT_READY;
    if (s->slot[slot].pins == 0)
        rest(s, slot);
}

void expert_slots_failed(struct expert_slots *s, int slot)
{
    CHECK(slot >= 0 && slot < s->n_slot && s->slot[slot].state == EXPERT_READING);
    s->slot_of[s->slot[slot].key] = -1;
    s->slot[slot].key = -1;
    s->slot[slot].state = EXPERT_EMPTY;
    if (s->slot[slot].pins == 0)
        rest(s, slot);
}

void expert_slots_done(struct expert_slots *s, const int32_t *slot, int n)
{
    for (int i = 0; i < n; i++) {
        CHECK(slot[i] >= 0 && slot[i] < s->n_slot && s->slot[slot[i]].pins > 0);
        if (--s->slot[slot[i]].pins == 0)
            rest(s, slot[i]);
    }
}

static void verify_slot(const struct expert_slots *s, int i)
{
    const struct expert_slot *slot = &s->slot[i];
    CHECK(slot->pins >= 0);
    CHECK((slot->state == EXPERT_EMPTY || slot->state == EXPERT_CLOSED) == (slot->key < 0));
    CHECK(slot->state != EXPERT_CLOSED || slot->pins == 0);
    if (slot->key < 0)
        return;
    CHECK(s->slot_of[slot->key] == i); /* hence no two slots of one expert */
    CHECK((s->idle.at[slot->key] >= 0) == (slot->pins == 0 && slot->state == EXPERT_READY));
}

void expert_slots_verify(const struct expert_slots *s)
{
    int n_resident = 0, n_full = 0, n_lost = 0, n_closed = 0;
    for (int k = 0; k < s->n_key; k++)
        n_resident += s->slot_of[k] >= 0;
    for (int i = 0; i < s->n_slot; i++) {
        verify_slot(s, i);
        n_full += s->slot[i].key >= 0;
        n_closed += s->slot[i].state == EXPERT_CLOSED;
        n_lost += s->slot[i].key < 0 && s->slot[i].pins > 0; /* failed, not yet let go */
    }
    CHECK(n_resident == n_full && s->n_empty + n_full + n_lost == s->n_open);
    CHECK(s->n_open + n_closed == s->n_slot && s->policy.shape.n_slot == s->n_open);
    for (int i = 0; i < s->n_empty; i++)
        CHECK(s->slot[s->empty[i]].state == EXPERT_EMPTY && s->slot[s->empty[i]].pins == 0);
    CHECK(s->counts.lookups == s->counts.hits + s->counts.joins + s->counts.misses);
}
