/* test_expert_slots.c - the cache of experts: by hand, and under random events with a second,
 * simpler account of what must hold. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "expert_slots.h"
#include "route_stream.h"

static struct expert_slots *slots_new(const struct expert_shape *shape)
{
    struct expert_slots *s = malloc(sizeof *s);
    struct arena a;
    arena_init(&a, NULL, 0);
    expert_slots_init(s, shape, &a);
    size_t size = a.peak;
    void *mem = aligned_alloc(ARENA_ALIGN, round_up(size, ARENA_ALIGN));
    memset(mem, 0xa5, size); /* nothing may be taken for zero */
    arena_init(&a, mem, size);
    expert_slots_init(s, shape, &a);
    assert_int_equal(a.used, size);
    assert_ptr_equal(s->policy.last, mem); /* the first piece: slots_free() frees all by it */
    return s;
}

static void slots_free(struct expert_slots *s)
{
    free(s->policy.last);
    free(s);
}

static int want(struct expert_slots *s, int layer, int a, int b, int32_t slot[2])
{
    uint64_t missing;
    int32_t expert[2] = { a, b };
    int n = expert_slots_want(s, layer, expert, 2, slot, &missing);
    if (n >= 0)
        assert_int_equal(n, (missing & 1) + (missing >> 1));
    return n;
}

/* A whole use: wanted, read, let go. Gives the number of misses. */
static int use(struct expert_slots *s, int layer, int a, int b)
{
    int32_t slot[2];
    int n = want(s, layer, a, b, slot);
    for (int i = 0; i < 2; i++)
        if (s->slot[slot[i]].state == EXPERT_READING)
            expert_slots_arrived(s, slot[i]);
    expert_slots_done(s, slot, 2);
    expert_slots_verify(s);
    return n;
}

static bool has(const struct expert_slots *s, int layer, int expert)
{
    return s->slot_of[layer * s->policy.shape.n_expert + expert] >= 0;
}

static void test_lru_by_hand(void **state)
{
    (void)state;
    struct expert_shape shape = { 2, 8, 4, 0, 1, { EXPERT_LRU } };
    struct expert_slots *s = slots_new(&shape);
    assert_int_equal(use(s, 0, 1, 2), 2);
    assert_int_equal(use(s, 1, 1, 2), 2); /* other experts: they are of another layer */
    assert_int_equal(use(s, 0, 1, 2), 0);
    assert_int_equal(use(s, 0, 3, 4), 2); /* for layer 1's */
    assert_false(has(s, 1, 1) || has(s, 1, 2));
    assert_int_equal(use(s, 0, 2, 5), 1); /* for 1, the longest unused */
    assert_true(!has(s, 0, 1) && has(s, 0, 2) && has(s, 0, 3) && has(s, 0, 4) && has(s, 0, 5));
    assert_int_equal(s->counts.evictions, 3);
    assert_int_equal(s->counts.lookups, 10);
    assert_int_equal(s->counts.hits, 3);
    slots_free(s);
}

static void test_frequency_by_hand(void **state)
{
    (void)state;
    struct expert_shape shape = { 1, 8, 4, 0, 1, { 2 } };
    struct expert_slots *s = slots_new(&shape);
    for (int i = 0; i < 3; i++)
        use(s, 0, 1, 2);
    use(s, 0, 3, 4);
    use(s, 0, 5, 6); /* 1 and 2 are older, but used thrice */
    assert_true(has(s, 0, 1) && has(s, 0, 2) && !has(s, 0, 3) && !has(s, 0, 4));
    expert_slots_step(s, 4); /* three uses are now worth 3/4 */
    use(s, 0, 5, 6);
    use(s, 0, 3, 4); /* 3 and 4 were used once before and once now; the weakest are 1 and 2 */
    assert_true(!has(s, 0, 1) && !has(s, 0, 2) && has(s, 0, 5));
    slots_free(s);
}

/* What is not in memory keeps its score. */
static void test_history_of_absent(void **state)
{
    (void)state;
    struct expert_shape shape = { 1, 8, 2, 0, 1, { 32 } };
    struct expert_slots *s = slots_new(&shape);
    for (int i = 0; i < 3; i++)
        use(s, 0, 1, 2);
    use(s, 0, 3, 4);
    assert_false(has(s, 0, 1));
    const double *score = expert_policy_score(&s->policy);
    assert_true(score[1] == 3 && score[3] == 1 && score[5] == 0);
    slots_free(s);
}

static void test_pins_and_reads(void **state)
{
    (void)state;
    struct expert_shape shape = { 1, 8, 4, 0, 1, { EXPERT_LRU } };
    struct expert_slots *s = slots_new(&shape);
    int32_t a[2], b[2], c[2];
    assert_int_equal(want(s, 0, 0, 1, a), 2);
    assert_int_equal(want(s, 0, 1, 2, b), 1); /* 1 is being read already */
    assert_int_equal(b[0], a[1]);
    assert_int_equal(s->slot[a[1]].pins, 2);
    assert_int_equal(s->counts.joins, 1);
    uint64_t n_use = s->policy.n_use;
    assert_int_equal(want(s, 0, 3, 4, c), -1); /* one slot is free, two are needed */
    assert_int_equal(s->policy.n_use, n_use);
    assert_int_equal(s->counts.lookups, 4);
    expert_slots_verify(s);
    expert_slots_done(s, a, 2); /* 0 is let go of, but still being read: no victim */
    assert_int_equal(want(s, 0, 3, 4, c), -1);
    expert_slots_arrived(s, a[0]);
    assert_int_equal(want(s, 0, 3, 4, c), 2);
    assert_false(has(s, 0, 0));
    expert_slots_verify(s);
    slots_free(s);
}

static void test_failed_read(void **state)
{
    (void)state;
    struct expert_shape shape = { 1, 8, 4, 0, 1, { EXPERT_LRU } };
    struct expert_slots *s = slots_new(&shape);
    int32_t a[2], b[2];
    want(s, 0, 0, 1, a);
    expert_slots_failed(s, a[0]);
    expert_slots_verify(s);
    assert_false(has(s, 0, 0));
    assert_int_equal(want(s, 0, 0, 2, b), 2); /* again, elsewhere: the first slot is still held */
    assert_int_not_equal(b[0], a[0]);
    expert_slots_done(s, a, 2);
    expert_slots_verify(s);
    assert_int_equal(s->n_empty, 1);
    slots_free(s);
}

/* Weak layers go first, whatever they are worth otherwise. */
static void test_weak_layers(void **state)
{
    (void)state;
    for (int rule = 0; rule < 2; rule++) {
        struct expert_shape shape = { 2, 8, 4, 1, 1, { rule ? 8 : EXPERT_LRU } };
        struct expert_slots *s = slots_new(&shape);
        use(s, 1, 1, 2);
        for (int i = 0; i < 5; i++)
            use(s, 0, 1, 2);
        use(s, 1, 3, 4);
        assert_true(has(s, 1, 1) && has(s, 1, 2) && !has(s, 0, 1) && !has(s, 0, 2));
        slots_free(s);
    }
    struct expert_shape shape = { .n_layer = 4, .n_expert = 64, .n_slot = 16 };
    assert_int_equal(expert_weak_layers(&shape, 3), 3);
    assert_int_equal(expert_weak_layers(&shape, 9), 4);
    shape.n_slot = 17;
    assert_int_equal(expert_weak_layers(&shape, 3), 0);
}

/* A sweep over experts 0 .. n-1 of a layer, of which expert i was used recent[i] times of late. */
static int sweep(struct expert_slots *s, int layer, const int32_t *recent, int n, int32_t *slot)
{
    int32_t expert[64] = { 0 };
    uint64_t missing[1];
    for (int i = 0; i < n; i++)
        expert[i] = i;
    int n_missing = expert_slots_sweep(s, layer, expert, recent, n, slot, missing);
    for (int i = 0; i < n; i++) {
        assert_int_equal(*missing >> i & 1, slot[i] < 0 || s->slot[slot[i]].state != EXPERT_READY);
        if (slot[i] < 0)
            continue;
        if (s->slot[slot[i]].state == EXPERT_READING)
            expert_slots_arrived(s, slot[i]);
        expert_slots_done(s, &slot[i], 1);
    }
    expert_slots_verify(s);
    return n_missing;
}

/* What a sweep reads stays only where nothing better is. */
static void test_sweeps(void **state)
{
    (void)state;
    static const int32_t none[8] = { 0 }, some[8] = { 0, 0, 0, 0, 0, 2, 0, 9 };
    for (int rule = 0; rule < 2; rule++) {
        struct expert_shape shape = { 2, 8, 4, 0, 1, { rule ? 32 : EXPERT_LRU } };
        struct expert_slots *s = slots_new(&shape);
        int32_t slot[8];
        use(s, 1, 1, 2);
        use(s, 1, 1, 2);
        assert_int_equal(sweep(s, 0, none, 8, slot), 8); /* two slots are empty, and then none */
        assert_true(slot[0] >= 0 && slot[1] >= 0 && slot[2] < 0 && slot[7] < 0);
        assert_int_equal(s->counts.passed, 6);
        assert_true(has(s, 1, 1) && has(s, 1, 2) && has(s, 0, 0) && has(s, 0, 1));
        assert_int_equal(sweep(s, 0, none, 8, slot), 6); /* those two again */
        assert_int_equal(s->counts.hits, 2 + 2);
        /* Two of late: they are worth more than the first two, 7 more than all else. */
        assert_int_equal(sweep(s, 0, some, 8, slot), 6);
        assert_true(has(s, 0, 5) && has(s, 0, 7));
        assert_true(has(s, 0, 0) + has(s, 0, 1) + has(s, 1, 1) + has(s, 1, 2) == 2);
        slots_free(s);
    }
}

static void test_preload(void **state)
{
    (void)state;
    struct expert_shape shape = { 2, 8, 3, 0, 1, { 32 } };
    struct expert_slots *s = slots_new(&shape);
    int first = expert_slots_preload(s, 1, 4);
    assert_true(first >= 0);
    assert_int_equal(expert_slots_preload(s, 1, 4), -1);
    expert_slots_arrived(s, first);
    assert_true(expert_slots_preload(s, 0, 4) >= 0 && expert_slots_preload(s, 0, 5) >= 0);
    assert_int_equal(expert_slots_preload(s, 0, 6), -1); /* full: nothing is given up for it */
    assert_int_equal(s->counts.lookups, 0);
    expert_slots_verify(s);
    slots_free(s);
}

/* Given back are empty slots, then the least valuable experts; never one that is used or read. */
static void test_resize(void **state)
{
    (void)state;
    struct expert_shape shape = { 2, 8, 6, 0, 4, { 32, 8, 128, EXPERT_LRU } };
    struct expert_slots *s = slots_new(&shape);
    int32_t held[2], reading[2];
    use(s, 0, 1, 2);
    use(s, 0, 1, 2);
    use(s, 1, 3, 4);
    assert_int_equal(expert_slots_resize(s, 5), 5); /* one of the two empty ones */
    assert_int_equal(s->counts.evictions, 0);
    assert_int_equal(expert_slots_resize(s, 3), 3);
    assert_true(has(s, 0, 1) && has(s, 0, 2) && !has(s, 1, 3) && has(s, 1, 4));
    expert_slots_verify(s);
    assert_int_equal(want(s, 0, 1, 2, held), 0);
    assert_int_equal(expert_slots_resize(s, 1), 2); /* the two that are used stay */
    expert_slots_verify(s);
    assert_int_equal(want(s, 0, 3, 4, reading), -1);
    assert_int_equal(expert_slots_resize(s, 6), 6); /* all again, empty */
    assert_int_equal(want(s, 0, 3, 4, reading), 2);
    assert_int_equal(expert_slots_resize(s, 3), 4);
    expert_slots_verify(s);
    expert_slots_failed(s, reading[0]);
    expert_slots_arrived(s, reading[1]);
    expert_slots_done(s, held, 2);
    expert_slots_done(s, reading, 2);
    assert_int_equal(expert_slots_resize(s, 3), 3); /* of which the failed one is none */
    assert_true(has(s, 0, 1) && has(s, 0, 2) && has(s, 0, 4));
    expert_slots_verify(s);
    uint64_t decided = s->decided;
    expert_slots_resize(s, 3);
    assert_true(s->decided != decided); /* also that is an event */
    slots_free(s);
}

#define N_USED 3
#define N_OPEN 4 /* steps at the same time */

struct open_step {
    int32_t slot[N_USED], key[N_USED];
    bool is_open;
};

/* Nothing that a step holds has been given to another expert. */
static void check_held(const struct expert_slots *s, const struct open_step *open)
{
    for (int i = 0; i < N_OPEN; i++)
        for (int j = 0; open[i].is_open && j < N_USED; j++) {
            const struct expert_slot *slot = &s->slot[open[i].slot[j]];
            assert_true(slot->pins > 0);
            assert_true(slot->key == open[i].key[j] || slot->key == -1);
        }
}

/* A random event; gives what was decided, as a number. */
static uint64_t event(struct expert_slots *s, struct open_step *open, struct route_stream *routes,
                      int t)
{
    struct rng *rng = &routes->rng;
    struct open_step *step = &open[rng_next(rng) % N_OPEN];
    int slot = (int)(rng_next(rng) % (uint64_t)s->n_slot), layer = t % 4;
    uint64_t missing = 0, what = 0;
    if (layer == 0)
        expert_slots_step(s, 1);
    if (rng_next(rng) % 32 == 0) {
        int n = N_USED + (int)(rng_next(rng) % (uint64_t)(s->n_slot - N_USED + 1));
        int before = s->n_open, now = expert_slots_resize(s, n);
        assert_true(now >= n && now <= MAX(before, n));
        expert_slots_verify(s);
    }
    if (s->slot[slot].state == EXPERT_READING) {
        bool fails = rng_unit(rng) < 0.1;
        (fails ? expert_slots_failed : expert_slots_arrived)(s, slot);
    }
    if (step->is_open) {
        expert_slots_done(s, step->slot, N_USED);
        step->is_open = false;
        return 1;
    }
    route_next(routes, t, layer, step->key);
    int n = expert_slots_want(s, layer, step->key, N_USED, step->slot, &missing);
    step->is_open = n >= 0;
    for (int i = 0; n >= 0 && i < N_USED; i++) {
        step->key[i] += layer * routes->n_expert;
        what = what * 64 + (uint64_t)step->slot[i];
    }
    return what + missing;
}

static uint64_t random_events(const struct expert_shape *shape, uint64_t seed)
{
    struct expert_slots *s = slots_new(shape);
    struct open_step open[N_OPEN] = { 0 };
    struct route_stream routes = { { seed, 0 }, shape->n_expert, N_USED, 0.5 };
    uint64_t all = 0;
    for (int t = 0; t < 3000; t++) {
        all = all * 0x100000001b3 + event(s, open, &routes, t);
        check_held(s, open);
        if (t % 7 == 0)
            expert_slots_verify(s);
    }
    assert_true(s->counts.hits > 0 && s->counts.misses > 0 && s->counts.joins > 0);
    assert_true(s->counts.evictions > 0 && s->counts.evictions <= s->counts.misses);
    slots_free(s);
    return all;
}

static void test_random_events(void **state)
{
    (void)state;
    static const int n_slot[] = { N_USED, 9, 20, 48 };
    for (size_t i = 0; i < COUNT_OF(n_slot); i++)
        for (int weak = 0; weak < 2; weak++) {
            struct expert_shape shape = { 4, 24, n_slot[i], weak, 1, { EXPERT_LRU } };
            if (i > 0)
                expert_rules_auto(&shape);
            uint64_t seed = i * 2 + (uint64_t)weak;
            uint64_t decided = random_events(&shape, seed);
            assert_true(decided == random_events(&shape, seed));
            assert_true(decided != random_events(&shape, seed + 100));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lru_by_hand),
        cmocka_unit_test(test_frequency_by_hand),
        cmocka_unit_test(test_history_of_absent),
        cmocka_unit_test(test_pins_and_reads),
        cmocka_unit_test(test_failed_read),
        cmocka_unit_test(test_weak_layers),
        cmocka_unit_test(test_sweeps),
        cmocka_unit_test(test_preload),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_random_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
