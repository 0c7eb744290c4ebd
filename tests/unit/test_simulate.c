/* test_simulate.c - routes from files, replays on caches of every size, and the bound that knows
 * the future: never beaten, and on small routes equal to what trying everything finds. */
#include "scratch_dir.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "route_stream.h"
#include "simulate.h"

static void routes_make(struct routes *r, int n_tok, int n_layer, struct route_stream *s)
{
    int32_t expert[8];
    *r = (struct routes){ .n_tok = n_tok, .n_layer = n_layer, .n_used = s->n_used };
    r->id = malloc((size_t)n_tok * (size_t)n_layer * (size_t)s->n_used * sizeof *r->id);
    uint16_t *to = r->id;
    for (int t = 0; t < n_tok; t++)
        for (int l = 0; l < n_layer; l++) {
            route_next(s, t, l, expert);
            for (int i = 0; i < s->n_used; i++)
                *to++ = (uint16_t)expert[i];
        }
}

static uint64_t misses_of(const struct routes *r, struct expert_shape *shape, int half_life)
{
    struct simulated out;
    struct err e = { 0 };
    shape->n_rule = 1;
    shape->half_life[0] = half_life;
    if (half_life < 0)
        expert_rules_auto(shape);
    assert_int_equal(simulate(&out, r, shape, &e), 0);
    assert_int_equal(out.hits + out.misses, out.lookups);
    assert_int_equal(out.lookups, r->n_tok * r->n_layer * r->n_used);
    return out.misses;
}

static uint64_t least_misses(const struct routes *r, const struct expert_shape *shape)
{
    struct simulated out;
    struct err e = { 0 };
    assert_int_equal(simulate_best(&out, r, shape, &e), 0);
    assert_int_equal(out.hits + out.misses, out.lookups);
    return out.misses;
}

/* Different experts of all layers: what even an endless cache must read. */
static uint64_t count_distinct(const struct routes *r, int n_expert)
{
    uint8_t *seen = calloc((size_t)(r->n_layer * n_expert), 1);
    uint64_t n = 0;
    for (int i = 0; i < r->n_tok * r->n_layer * r->n_used; i++) {
        uint8_t *at = &seen[i / r->n_used % r->n_layer * n_expert + r->id[i]];
        n += !*at;
        *at = 1;
    }
    free(seen);
    return n;
}

static void test_bounds(void **state)
{
    (void)state;
    static const int half_life[] = { EXPERT_LRU, 1, 8, 32, 128, EXPERT_MOST_HALF_LIFE, -1 };
    static const double stay[] = { 0, 0.3, 0.7, 1 };
    for (size_t k = 0; k < COUNT_OF(stay); k++) {
        struct route_stream s = { { 20 + k, 0 }, 40, 4, stay[k] };
        struct routes r;
        uint64_t lru_before = UINT64_MAX, best_before = UINT64_MAX;
        routes_make(&r, 400, 5, &s);
        for (int n_slot = 4; n_slot <= 204; n_slot += 20) {
            struct expert_shape shape = { 5, 40, n_slot, .n_weak = 0 };
            uint64_t best = least_misses(&r, &shape), lru = misses_of(&r, &shape, EXPERT_LRU);
            for (size_t i = 0; i < COUNT_OF(half_life); i++)
                for (shape.n_weak = 0; shape.n_weak < 3; shape.n_weak += 2)
                    assert_true(misses_of(&r, &shape, half_life[i]) >= best);
            assert_true(lru <= lru_before && best <= best_before); /* more slots never hurt them */
            assert_true(best >= count_distinct(&r, 40));
            lru_before = lru;
            best_before = best;
        }
        assert_int_equal(lru_before, count_distinct(&r, 40)); /* everything fits */
        assert_int_equal(best_before, lru_before);
        routes_release(&r);
    }
}

/* The least misses from token t on with a set of experts (bits) in memory, by trying all victims.
 * One layer, two experts of each token. */
static int try_all(const struct routes *r, int t, unsigned in_memory, int n_slot)
{
    if (t == r->n_tok)
        return 0;
    unsigned need = 1u << r->id[2 * t] | 1u << r->id[2 * t + 1];
    unsigned all = in_memory | need;
    int n_miss = __builtin_popcount(need & ~in_memory), least = 1 << 30;
    int n_out = MAX(__builtin_popcount(all) - n_slot, 0);
    for (unsigned out = 0; out < 64; out++)
        if ((out & (all & ~need)) == out && __builtin_popcount(out) == n_out)
            least = MIN(least, n_miss + try_all(r, t + 1, all & ~out, n_slot));
    return least;
}

static void test_bound_is_reached(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct route_stream s = { { seed, 0 }, 6, 2, 0.8 };
        struct routes r;
        routes_make(&r, 9, 1, &s);
        for (int n_slot = 2; n_slot < 6; n_slot++) {
            struct expert_shape shape = { 1, 6, n_slot, .n_weak = 0 };
            assert_int_equal(least_misses(&r, &shape), try_all(&r, 0, 0, n_slot));
        }
        routes_release(&r);
    }
}

/* Whatever the routes are like, choosing costs little against the best rule in hindsight. The most
 * here is 4.1 %, on routes without anything popular: the first rule kept the wrong ones. */
static void test_auto_near_best(void **state)
{
    (void)state;
    static const double stay[] = { 0, 0.3, 0.6, 0.9 };
    bool lru_won = false, counts_won = false;
    for (size_t k = 0; k < COUNT_OF(stay); k++) {
        struct route_stream s = { { 70 + k, 0 }, 64, 4, stay[k] };
        struct routes r;
        routes_make(&r, 1500, 6, &s);
        for (int n_slot = 38; n_slot <= 152; n_slot *= 2) {
            struct expert_shape shape = { 6, 64, n_slot, .n_weak = 0 }, rules;
            uint64_t best = UINT64_MAX, lru = misses_of(&r, &shape, EXPERT_LRU);
            expert_rules_auto(&rules);
            for (int i = 0; i < rules.n_rule; i++)
                best = MIN(best, misses_of(&r, &shape, rules.half_life[i]));
            lru_won |= lru * 100 < misses_of(&r, &shape, 128) * 95;
            counts_won |= best * 100 < lru * 95;
            assert_true(misses_of(&r, &shape, -1) * 100 <= best * 105);
        }
        routes_release(&r);
    }
    assert_true(lru_won && counts_won); /* the streams differ in what is good for them */
}

/* Text that goes round in a loop larger than the cache: the last use keeps nothing, counts some. */
static void test_loop(void **state)
{
    (void)state;
    uint16_t id[600];
    struct routes r = { .n_tok = 300, .n_layer = 1, .n_used = 2, .id = id };
    struct expert_shape shape = { 1, 20, 16, .n_weak = 0 };
    for (int i = 0; i < 600; i++)
        id[i] = (uint16_t)(i % 20);
    assert_int_equal(misses_of(&r, &shape, EXPERT_LRU), 600);
    assert_true(least_misses(&r, &shape) < 300);
}

/* Prompts among single tokens: an expert is looked up once for all tokens of a step. */
static void test_steps(void **state)
{
    (void)state;
    struct route_stream s = { { 77, 0 }, 40, 4, 0.4 };
    struct routes r;
    uint32_t step[82];
    routes_make(&r, 400, 5, &s);
    for (int i = 0; i < 82; i++)
        step[i] = i % 41 == 0 ? 160 : 1;
    r.step = step;
    r.n_step = 82;
    for (int n_slot = 8; n_slot <= 204; n_slot += 28) {
        struct expert_shape shape = { 5, 40, n_slot, .n_weak = 0 };
        struct simulated out, best;
        expert_rules_auto(&shape);
        assert_int_equal(simulate(&out, &r, &shape, NULL), 0);
        assert_int_equal(simulate_best(&best, &r, &shape, NULL), 0);
        assert_int_equal(out.lookups, best.lookups);
        assert_in_range(out.lookups, 80 * 5 * 4 + 2, 80 * 5 * 4 + 2 * 5 * 40);
        assert_true(out.misses >= best.misses && best.misses >= count_distinct(&r, 40));
        if (n_slot >= 200)
            assert_int_equal(out.misses, count_distinct(&r, 40));
    }
    r.step = NULL;
    routes_release(&r);
}

static void put(struct scratch *s, char path[128], const uint8_t *bytes, size_t n)
{
    struct file_out f;
    struct err e = { 0 };
    snprintf(path, 128, "%s/t.tr", s->path);
    assert_int_equal(file_out_open(&f, path, &e), 0);
    assert_int_equal(file_out_write(&f, bytes, n, &e), 0);
    assert_int_equal(file_out_commit(&f, &e), 0);
}

static void test_files(void **state)
{
    (void)state;
    /* 2 tokens, 1 layer, 2 used */
    static const uint8_t good[24] = { 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
                                      3, 0, 1, 1, 9, 0, 3, 0 };
    static const struct {
        int at, value, size;
        const char *says;
    } c[] = {
        { 0, 3, 24, "expected 3 tokens" },      { 0, 2, 23, "found 7 bytes" },
        { 0, 2, 15, "expected a header" },      { 4, 0, 24, "found 0 layers" },
        { 8, 65, 24, "65 experts used" },       { 12, 7, 24, "experts used, 7" },
        { 12, 1, 24, "and 1 words of steps" },
        { 3, 0xff, 24, "behind the header" },   { 19, 2, 24, "found expert 513" },
        { 22, 9, 24, "token 1, layer 0: found expert 9 twice" },
    };
    struct scratch dir;
    struct routes r;
    struct err e = { 0 };
    uint8_t bytes[24];
    char path[128];
    scratch_open(&dir);
    put(&dir, path, good, sizeof good);
    assert_int_equal(routes_read(&r, path, 300, &e), 0);
    assert_true(r.n_tok == 2 && r.n_layer == 1 && r.n_used == 2);
    assert_true(r.id[0] == 3 && r.id[1] == 257 && r.id[2] == 9 && r.id[3] == 3);
    routes_release(&r);
    assert_int_equal(routes_read(&r, path, 257, &e), ERR_FORMAT);
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct err why = { 0 };
        memcpy(bytes, good, sizeof good);
        bytes[c[i].at] = (uint8_t)c[i].value;
        put(&dir, path, bytes, (size_t)c[i].size);
        assert_int_equal(routes_read(&r, path, 300, &why), ERR_FORMAT);
        assert_non_null(strstr(why.text, c[i].says));
        assert_null(r.id);
    }
    scratch_close(&dir);
}

/* Steps of one token, and between them memory that was given back: 2 of 3 places are left. */
static void test_files_with_room(void **state)
{
    (void)state;
    static const uint8_t good[40] = { 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0,
                                      3, 0, 1, 1, 9, 0, 3, 0, 1, 0, 0, 0,
                                      2, 0, 0, 0x80, 3, 0, 0, 0, 1, 0, 0, 0 };
    static const struct {
        int at, value;
        const char *says;
    } c[] = {
        { 24, 0, "step 0: found 0 tokens" },   { 28, 0, "step 1: found 0 of 3 places" },
        { 28, 4, "step 1: found 4 of 3" },     { 35, 0x80, "of 2147483651 places" },
        { 31, 0, "found 7 tokens in 4 steps" }, { 39, 0x80, "step 1: found 2147483649 tokens" },
        { 36, 2, "found 3 tokens in 2 steps" },
    };
    struct scratch dir;
    struct routes r;
    struct err e = { 0 };
    uint8_t bytes[40];
    char path[128];
    scratch_open(&dir);
    put(&dir, path, good, sizeof good);
    assert_int_equal(routes_read(&r, path, 300, &e), 0);
    assert_true(r.n_step == 2 && r.step[0] == 1 && r.step[1] == 1 && r.n_room == 1);
    assert_true(r.room[0].step == 1 && r.room[0].n_open == 2 && r.room[0].n_slot == 3);
    routes_release(&r);
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct err why = { 0 };
        memcpy(bytes, good, sizeof good);
        bytes[c[i].at] = (uint8_t)c[i].value;
        put(&dir, path, bytes, sizeof bytes);
        assert_int_equal(routes_read(&r, path, 300, &why), ERR_FORMAT);
        if (!strstr(why.text, c[i].says))
            fail_msg("%s", why.text);
        assert_null(r.id);
    }
    scratch_close(&dir);
}

/* A third of the cache is gone for a third of the time: that costs, but less than for always, and
 * the bound is still one. */
static void test_room(void **state)
{
    (void)state;
    struct route_stream s = { { 78, 0 }, 40, 4, 0.4 };
    struct routes r;
    struct routes_room room[2] = { { 200, 60, 90 }, { 400, 90, 90 } };
    struct expert_shape all = { 5, 40, 90, .n_weak = 0 }, fewer = { 5, 40, 60, .n_weak = 0 };
    struct simulated out;
    uint32_t step[600];
    routes_make(&r, 600, 5, &s);
    for (int i = 0; i < 600; i++)
        step[i] = 1;
    expert_rules_auto(&all);
    expert_rules_auto(&fewer);
    uint64_t least = misses_of(&r, &all, -1), most = misses_of(&r, &fewer, -1);
    uint64_t bound = least_misses(&r, &all);
    r.step = step;
    r.n_step = 600;
    assert_int_equal(simulate(&out, &r, &all, NULL), 0);
    assert_true(out.misses == least); /* with steps, and nothing given back, the same */
    uint64_t decided = out.decided;
    r.room = room;
    r.n_room = 2;
    assert_int_equal(simulate(&out, &r, &all, NULL), 0);
    assert_true(out.misses > least && out.misses < most && out.decided != decided);
    assert_true(least_misses(&r, &all) > bound && least_misses(&r, &all) <= out.misses);
    r.step = NULL;
    r.room = NULL;
    routes_release(&r);
}

static void test_refused(void **state)
{
    (void)state;
    uint16_t id[4] = { 0, 1, 2, 3 };
    struct routes r = { .n_tok = 2, .n_layer = 1, .n_used = 2, .id = id };
    struct expert_shape few = { 1, 8, 1, 0, 1, { EXPERT_LRU } };
    struct expert_shape other = { 2, 8, 4, 0, 1, { EXPERT_LRU } };
    struct simulated out;
    struct err e = { 0 };
    assert_int_equal(simulate(&out, &r, &few, &e), ERR_ARGUMENT);
    assert_int_equal(simulate_best(&out, &r, &few, NULL), ERR_ARGUMENT);
    assert_int_equal(simulate(&out, &r, &other, NULL), ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_bound_is_reached),
        cmocka_unit_test(test_auto_near_best),
        cmocka_unit_test(test_loop),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_files_with_room),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
