/* test_expert_split.c - which experts lie near: as many as there is room for, the most used ones of
 * all layers, else the same share of every layer, spread over its experts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "expert_split.h"

enum { N_LAYER = 5, N_EXPERT = 64, N_KEY = N_LAYER * N_EXPERT, BYTES = 3 * 1024 };

/* The first layer has none. Of an expert's parts one is not a multiple of the alignment. */
static int make(void **state)
{
    static struct expert_map map;
    struct err e = { 0 };
    assert_int_equal(expert_map_open(&map, N_LAYER, N_EXPERT, &e), 0);
    for (int l = 1; l < N_LAYER; l++) {
        struct expert_extent up = { 0, 1024, 0 }, down = { 0, 1024 - 100, 0 };
        expert_map_stack(&map, l, EXPERT_GATE, &up);
        expert_map_stack(&map, l, EXPERT_UP, &up);
        expert_map_stack(&map, l, EXPERT_DOWN, &down);
    }
    *state = &map;
    return 0;
}

static int drop(void **state)
{
    expert_map_close(*state);
    return 0;
}

static void check_sums(const struct expert_split *s, const struct expert_map *map, uint64_t room)
{
    uint64_t far = 0;
    int n = 0;
    for (int l = 0; l < N_LAYER; l++)
        far += expert_split_far(s, map, l);
    for (int k = 0; k < N_KEY; k++)
        n += s->near[k];
    assert_int_equal(s->n, N_KEY - N_EXPERT);
    assert_int_equal(s->bytes, (uint64_t)s->n * BYTES);
    assert_int_equal(n, s->n_near);
    assert_int_equal(s->near_bytes, (uint64_t)n * BYTES);
    assert_int_equal(far, s->bytes - s->near_bytes);
    uint64_t taken = s->near_bytes + s->ahead_bytes + s->slot_bytes;
    assert_true(taken <= room);
    if (!expert_split_all(s)) /* and not an expert less */
        assert_true(taken + BYTES > room);
    assert_int_equal(s->slot_bytes, s->n_slot * (N_LAYER - 1) * BYTES);
}

static void every_layer_has_its_share(void **state)
{
    const struct expert_map *map = *state;
    for (int share = 0; share <= 16; share++) {
        struct expert_split s;
        struct err e = { 0 };
        uint64_t room = (uint64_t)(N_KEY - N_EXPERT) * BYTES * (uint64_t)share / 16;
        assert_int_equal(expert_split_open(&s, map, NULL, room, UINT64_MAX, &e), 0);
        check_sums(&s, map, room);
        assert_int_equal(expert_split_all(&s), share == 16);
        int each = s.n_near / (N_LAYER - 1);
        for (int l = 1; l < N_LAYER; l++) {
            int half[2] = { 0 };
            for (int i = 0; i < N_EXPERT; i++)
                half[i / (N_EXPERT / 2)] += s.near[l * N_EXPERT + i];
            assert_in_range(half[0] + half[1], each, each + 1);
            assert_in_range(half[0] - half[1] + 4, 0, 8); /* spread */
        }
        /* if used alike, a token's expert is far as often as experts are */
        double far = (double)(s.bytes - s.near_bytes) / N_EXPERT;
        assert_true(s.far_bytes > .999 * far - 1 && s.far_bytes < 1.001 * far + 1);
        expert_split_close(&s);
    }
}

static void the_most_used_come_first(void **state)
{
    const struct expert_map *map = *state;
    static uint32_t count[N_KEY];
    struct expert_split s;
    struct err e = { 0 };
    uint64_t room = (uint64_t)N_EXPERT * 2 * BYTES;
    uint32_t least = UINT32_MAX, most = 0;
    for (int k = 0; k < N_KEY; k++)
        count[k] = (uint32_t)k * 2654435769u >> 8;
    assert_int_equal(expert_split_open(&s, map, count, room, UINT64_MAX, &e), 0);
    check_sums(&s, map, room);
    for (int k = N_EXPERT; k < N_KEY; k++) {
        least = s.near[k] && count[k] < least ? count[k] : least;
        most = !s.near[k] && count[k] > most ? count[k] : most;
    }
    assert_true(s.n_near > 0 && least > most);
    assert_true(s.far_bytes < .9 * (double)(s.bytes - s.near_bytes) / N_EXPERT);
    expert_split_close(&s);
}

/* For those used last: the more, the fewer of all there is room for. */
static void slots_take_what_is_wanting(void **state)
{
    const struct expert_map *map = *state;
    const uint64_t all = (uint64_t)(N_KEY - N_EXPERT) * BYTES;
    assert_int_equal(expert_split_each(map, 0), 0);
    assert_int_equal(expert_split_each(map, 1), BYTES);
    for (int share = 1; share < 16; share++) {
        struct expert_split s;
        struct err e = { 0 };
        uint64_t room = all * (uint64_t)share / 16;
        assert_int_equal(expert_split_open(&s, map, NULL, room, UINT64_MAX, &e), 0);
        check_sums(&s, map, room);
        double c = (double)(room - s.ahead_bytes) / (double)all;
        assert_true(s.n_slot <= N_EXPERT * c * (1 - c) && s.n_slot + 1 > N_EXPERT * c * (1 - c));
        uint64_t far = s.bytes - s.near_bytes, quarter = room / 4;
        /* room for a layer's far ones, but for those that came by itself and by whole slots; or a
         * quarter of all */
        uint64_t by_slots = far - s.ahead_bytes - N_LAYER * BYTES;
        assert_true(s.ahead_bytes * N_LAYER >= by_slots || s.ahead_bytes >= quarter);
        expert_split_close(&s);
        /* fewer, or none, where the far ones have less room */
        assert_int_equal(expert_split_open(&s, map, NULL, room, far - 1, &e), 0);
        check_sums(&s, map, room);
        assert_true(s.n_slot == 0 || s.bytes - s.near_bytes < far);
        expert_split_close(&s);
        assert_int_equal(expert_split_open(&s, map, NULL, room, all - room, &e), 0);
        assert_int_equal(s.n_slot, 0);
        expert_split_close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_has_its_share),
        cmocka_unit_test(the_most_used_come_first),
        cmocka_unit_test(slots_take_what_is_wanting),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
