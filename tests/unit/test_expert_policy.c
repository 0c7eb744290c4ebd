/* test_expert_policy.c - scores, shadow caches and the choice among them, and profiles. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "expert_policy.h"
#include "expert_profile.h"

static void policy_new(struct expert_policy *p, const struct expert_shape *shape)
{
    struct arena a;
    arena_init(&a, NULL, 0);
    expert_policy_init(p, shape, &a);
    arena_init(&a, aligned_alloc(ARENA_ALIGN, round_up(a.peak, ARENA_ALIGN)), a.peak);
    expert_policy_init(p, shape, &a);
}

static void policy_free(struct expert_policy *p)
{
    free(p->last); /* the first piece of the arena */
}

/* Scores are sums of 2^(-age / half-life), also after weights were scaled many times. */
static void test_decay(void **state)
{
    (void)state;
    struct expert_policy p;
    struct expert_shape shape = { 1, 4, 4, 0, 2, { 1, 24 } };
    static const int used_at[] = { 0, 700, 720, 721, 1490 };
    policy_new(&p, &shape);
    for (size_t i = 0; i < COUNT_OF(used_at); i++) {
        int32_t expert = 2;
        expert_policy_step(&p, used_at[i] - (i ? used_at[i - 1] : 0));
        expert_policy_route(&p, 0, &expert, 1);
    }
    expert_policy_step(&p, 10);
    for (int rule = 0; rule < 2; rule++) {
        double sum = 0;
        for (size_t i = 0; i < COUNT_OF(used_at); i++)
            sum += exp2(-(1500.0 - used_at[i]) / shape.half_life[rule]);
        double got = p.score[rule][2] / p.weight[rule];
        assert_true(fabs(got - sum) < 1e-12 * sum + 1e-300);
        assert_true(p.weight[rule] < 0x1p257);
    }
    policy_free(&p);
}

/* Popular: two experts every fourth token, and between them more others than a cache of 4 holds;
 * counts keep the two. Otherwise: favourites that change every 8 tokens, where counts mislead. */
static void use_two(int32_t two[2], int t, bool popular)
{
    two[0] = popular ? (t % 4 ? 4 + 2 * t % 28 : 0) : (t / 8 * 4 + t % 4) % 32;
    two[1] = popular ? two[0] + 1 : (t / 8 * 4 + (t + 1) % 4) % 32;
}

/* The rule that rules is the one whose shadow missed less; it changes both ways, each time at a
 * choice and only then. */
static void test_choice_follows_shadows(void **state)
{
    (void)state;
    struct expert_policy p;
    struct expert_shape shape = { 1, 32, 4, 0, 2, { EXPERT_LRU, 64 } };
    policy_new(&p, &shape);
    int rule = p.rule, n_change = 0;
    for (int t = 0; t < 3000; t++) {
        int32_t two[2];
        use_two(two, t, t / 1000 % 2 == 0);
        bool changed = expert_policy_step(&p, 1);
        assert_true(changed || p.rule == rule);
        if (p.rule != rule) {
            assert_int_equal(p.n_tok, 0);
            assert_true(p.recent[p.rule] * 100 < p.recent[rule] * 99);
            n_change++;
        }
        rule = p.rule;
        expert_policy_route(&p, 0, two, 2);
        if (t % 1000 == 999)
            assert_true(p.recent[rule] * 99 <= p.recent[1 - rule] * 100);
    }
    assert_int_equal(n_change, p.n_switch);
    assert_true(n_change >= 2);
    assert_int_equal(p.ruled_tok[0] + p.ruled_tok[1], 3000);
    policy_free(&p);
}

#define N_KEY 12

static void test_profile_text(void **state)
{
    (void)state;
    uint32_t count[N_KEY] = { 0, 7, 0, 0, 4000000000u, 0, 0, 0, 0, 1, 0, 2 }, back[N_KEY];
    struct expert_profile p = { "5f0cA", 3, 4, count }, q = { "5f0cA", 3, 4, back };
    struct buf text;
    struct err e = { 0 };
    buf_init(&text, 1000);
    expert_profile_write(&p, &text);
    assert_string_equal(text.data, "dstar-experts 1\nmodel 5f0cA\nshape 3 4\n0 1 7\n"
                        "1 0 4000000000\n2 1 1\n2 3 2\n");
    memset(back, 0xff, sizeof back);
    assert_int_equal(expert_profile_read(&q, text.data, text.len, "profile", &e), 0);
    assert_memory_equal(back, count, sizeof count);
    for (size_t cut = 0; cut < text.len; cut++) { /* whole lines are a profile, too */
        struct err why = { 0 };
        int code = expert_profile_read(&q, text.data, cut, "profile", &why);
        assert_int_equal(code == 0, cut >= 38 && text.data[cut - 1] == '\n');
    }
    buf_release(&text);
}

static void test_profile_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int code;
    } c[] = {
        { "dstar-experts 2\nmodel a\nshape 3 4\n", ERR_FORMAT },
        { "dstar-experts 1\nmodel b\nshape 3 4\n", ERR_MISMATCH },
        { "dstar-experts 1\nmodel a\nshape 4 4\n", ERR_MISMATCH },
        { "dstar-experts 1\nmodel a\nshape 3 4\n3 0 1\n", ERR_FORMAT },
        { "dstar-experts 1\nmodel a\nshape 3 4\n0 4 1\n", ERR_FORMAT },
        { "dstar-experts 1\nmodel a\nshape 3 4\n0 1 4294967296\n", ERR_FORMAT },
        { "dstar-experts 1\nmodel a\nshape 3 4\n0 1 99999999999999999999\n", ERR_FORMAT },
        { "dstar-experts 1\nmodel a\nshape 3 4\n0 1 1\n0 1 1\n", ERR_FORMAT },
        { "dstar-experts 1\nmodel a\nshape 3 4\n0 2 1\n0 1 1\n", ERR_FORMAT },
        { "dstar-experts 1\nmodel a\nshape 3 4\n0 1 -1\n", ERR_FORMAT },
        { "dstar-experts 1\nmodel a\nshape 3 4\n0 1\n", ERR_FORMAT },
        { "dstar-experts 1\nmodel a\nshape 3 4\n0 1 1 \n", ERR_FORMAT },
        { "dstar-experts 1\nmodel a\nshape 3 4\n\n", ERR_FORMAT },
    };
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        uint32_t count[N_KEY];
        struct expert_profile p = { "a", 3, 4, count };
        struct err e = { 0 };
        assert_int_equal(expert_profile_read(&p, c[i].text, strlen(c[i].text), "p", &e), c[i].code);
        assert_non_null(strstr(e.text, "p: line "));
        for (int k = 0; k < N_KEY; k++)
            assert_int_equal(count[k], 0);
    }
}

static void test_profile_of_policy(void **state)
{
    (void)state;
    uint32_t count[N_KEY];
    struct expert_profile profile = { "a", 3, 4, count };
    struct expert_shape shape = { 3, 4, 4, 1, 2, { EXPERT_LRU, 10 } };
    struct expert_policy p;
    int32_t expert[2] = { 0, 3 };
    policy_new(&p, &shape);
    expert_policy_route(&p, 0, expert, 2); /* weak: not worth remembering */
    expert_policy_route(&p, 1, expert, 2);
    expert_policy_step(&p, 10);
    expert_policy_route(&p, 2, expert, 1);
    expert_profile_take(&profile, &p);
    static const uint32_t expected[N_KEY] = { 0, 0, 0, 0, 500, 0, 0, 500, 1000, 0, 0, 0 };
    assert_memory_equal(count, expected, sizeof expected);
    policy_free(&p);
    policy_new(&p, &shape);
    expert_profile_give(&profile, &p, 0.5);
    assert_true(p.score[1][8] == 0.5 && p.score[1][4] == 0.25 && p.score[1][0] == -1);
    assert_true(p.score[0][8] == 0); /* the last use knows no counts */
    policy_free(&p);
}

/* Where uses were counted: what was read fades by the longest half-life, 128 tokens. */
static void test_profile_of_counts(void **state)
{
    (void)state;
    uint32_t count[N_KEY] = { 0, 0, 0, 0, 400, 0, 0, 0, 200, 400, 0, 0 }, before[N_KEY];
    static const uint32_t none[N_KEY];
    static const uint32_t uses[N_KEY] = { 1, 0, 0, 0, 0, 0, 500, 11, 2, 0, 0, 0 }; /* 256 tokens */
    static const uint32_t want[N_KEY] = { 1000, 0, 0, 0, 250, 0, 500000, 11000, 2125, 250, 0, 0 };
    static const uint32_t many[N_KEY] = { 5000000 };
    struct expert_profile p = { "a", 3, 4, count };
    struct err e = { 0 };
    memcpy(before, count, sizeof before);
    assert_int_equal(expert_profile_add(&p, none, 2, &e), 0);
    assert_memory_equal(count, before, sizeof before);
    assert_int_equal(expert_profile_add(&p, uses, 2, &e), 1);
    assert_memory_equal(count, want, sizeof want);
    assert_int_equal(expert_profile_add(&p, many, 2, &e), 1);
    assert_true(count[0] == 4000000000u && count[6] == 0); /* the most that a profile says */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decay),
        cmocka_unit_test(test_choice_follows_shadows),
        cmocka_unit_test(test_profile_text),
        cmocka_unit_test(test_profile_refused),
        cmocka_unit_test(test_profile_of_policy),
        cmocka_unit_test(test_profile_of_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
