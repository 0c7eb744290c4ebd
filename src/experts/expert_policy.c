/* expert_policy.c - decayed counts with several half-lives, and shadow caches that compare them.
 *
 * Instead of every count shrinking, the weight of a new use grows; that leaves scores at rest
 * alone. Before the weight leaves the range of a double, everything is scaled by a power of two.
 * Only additions, products and comparisons decide, none of the mathematical library, so that the
 * same routes give the same decisions on every machine.
 *
 * Which half-life is best changes with the text, hence shadow caches: each rule replays the routes
 * in a cache of its own that holds names instead of weights. Rejected: one rule for all (loses a
 * tenth of the bytes on some text), and a bandit without shadows (must suffer to learn). */
#include "expert_policy.h"

#define CHOICE_TOK 64          /* a choice every so many tokens */
#define WEIGHT_MOST 0x1p256

void expert_rules_auto(struct expert_shape *shape)
{
    static const int half_life[] = { 32, 8, 128, EXPERT_LRU };
    shape->n_rule = COUNT_OF(half_life);
    memcpy(shape->half_life, half_life, sizeof half_life);
}

int expert_weak_layers(const struct expert_shape *shape, int n_hash)
{
    bool small = (int64_t)shape->n_slot * 16 <= (int64_t)shape->n_layer * shape->n_expert;
    return small ? MIN(n_hash, shape->n_layer) : 0;
}

/* 2^(1/n) by halving an interval. */
static double root_of_two(int n)
{
    double low = 1, high = 2;
    for (int i = 0; i < 60; i++) {
        double x = (low + high) / 2, power = 1;
        for (int j = 0; j < n && power <= 2; j++)
            power *= x;
        *(power <= 2 ? &low : &high) = x;
    }
    return low;
}

static void rule_init(struct expert_policy *p, int i, struct arena *a)
{
    const struct expert_shape *s = &p->shape;
    CHECK(s->half_life[i] >= 0 && s->half_life[i] <= EXPERT_MOST_HALF_LIFE);
    p->weight[i] = s->half_life[i] == EXPERT_LRU ? 0 : 1;
    p->growth[i] = s->half_life[i] == EXPERT_LRU ? 0 : root_of_two(s->half_life[i]);
    p->score[i] = arena_alloc(a, (size_t)p->n_key * sizeof *p->score[i]);
    for (int k = 0; p->score[i] && k < p->n_key; k++)
        p->score[i][k] = k / s->n_expert < s->n_weak ? -1 : 0;
    if (s->n_rule > 1)
        expert_heap_init(&p->shadow[i], a, s->n_slot, p->n_key);
    p->shadow[i].score = p->score[i];
    p->shadow[i].last = p->last;
}

void expert_policy_init(struct expert_policy *p, const struct expert_shape *shape, struct arena *a)
{
    CHECK(shape->n_layer > 0 && shape->n_expert > 0 && shape->n_slot > 0);
    CHECK(shape->n_expert <= INT32_MAX / shape->n_layer);
    CHECK(shape->n_rule > 0 && shape->n_rule <= EXPERT_MOST_RULES);
    *p = (struct expert_policy){ .shape = *shape, .n_key = shape->n_layer * shape->n_expert };
    p->last = arena_alloc(a, (size_t)p->n_key * sizeof *p->last);
    if (p->last)
        memset(p->last, 0, (size_t)p->n_key * sizeof *p->last);
    for (int i = 0; i < shape->n_rule; i++)
        rule_init(p, i, a);
}

/* What is known fades by a quarter at each choice. A rule must be better by a hundredth, or nothing
 * would be gained but the cost of changing over. */
static bool choose(struct expert_policy *p)
{
    int best = p->rule;
    for (int i = 0; i < p->shape.n_rule; i++) {
        p->recent[i] = p->recent[i] - p->recent[i] / 4 + p->n_miss[i];
        p->n_miss[i] = 0;
    }
    for (int i = 0; i < p->shape.n_rule; i++)
        if (p->recent[i] < p->recent[best])
            best = i;
    if (p->recent[best] * 100 >= p->recent[p->rule] * 99)
        return false;
    p->rule = best;
    p->n_switch++;
    return true;
}

static void scale(struct expert_policy *p, int i)
{
    p->weight[i] /= WEIGHT_MOST;
    for (int k = 0; k < p->n_key; k++)
        if (p->score[i][k] > 0)
            p->score[i][k] /= WEIGHT_MOST;
    expert_heap_order(&p->shadow[i]); /* what is too small for a double is now equal */
}

bool expert_policy_step(struct expert_policy *p, int n_tok)
{
    bool changed = false;
    CHECK(n_tok >= 0);
    for (int t = 0; t < n_tok; t++) {
        for (int i = 0; i < p->shape.n_rule; i++) {
            p->weight[i] *= p->growth[i];
            if (p->weight[i] < WEIGHT_MOST)
                continue;
            scale(p, i);
            changed |= i == p->rule;
        }
        if (++p->n_tok == CHOICE_TOK) {
            p->n_tok = 0;
            changed |= choose(p);
        }
        p->ruled_tok[p->rule]++;
    }
    return changed;
}

void expert_policy_route(struct expert_policy *p, int layer, const int32_t *expert, int n)
{
    int first = layer * p->shape.n_expert;
    int n_shadow = p->shape.n_rule > 1 ? p->shape.n_rule : 0;
    CHECK(layer >= 0 && layer < p->shape.n_layer && n <= p->shape.n_slot);
    for (int i = 0; i < n_shadow; i++)
        for (int j = 0; j < n; j++)
            p->n_miss[i] += !expert_heap_remove(&p->shadow[i], first + expert[j]);
    for (int j = 0; j < n; j++) {
        CHECK(expert[j] >= 0 && expert[j] < p->shape.n_expert);
        p->last[first + expert[j]] = ++p->n_use;
        for (int i = 0; i < p->shape.n_rule && layer >= p->shape.n_weak; i++)
            p->score[i][first + expert[j]] += p->weight[i];
    }
    for (int i = 0; i < n_shadow; i++) {
        while (p->shadow[i].n + n > p->shape.n_slot)
            expert_heap_pop(&p->shadow[i]);
        for (int j = 0; j < n; j++)
            expert_heap_add(&p->shadow[i], first + expert[j]);
    }
}

void expert_policy_feed(struct expert_policy *p, int layer, const int32_t *expert,
                        const int32_t *count, int n)
{
    int first = layer * p->shape.n_expert, n_shadow = p->shape.n_rule > 1 ? p->shape.n_rule : 0;
    CHECK(layer >= 0 && layer < p->shape.n_layer);
    for (int j = 0; j < n; j++) {
        int key = first + expert[j];
        bool held[EXPERT_MOST_RULES] = { false };
        CHECK(expert[j] >= 0 && expert[j] < p->shape.n_expert);
        for (int i = 0; i < n_shadow; i++)
            held[i] = expert_heap_remove(&p->shadow[i], key);
        p->last[key] = ++p->n_use;
        for (int i = 0; i < p->shape.n_rule && layer >= p->shape.n_weak; i++)
            p->score[i][key] += p->weight[i] * count[j];
        for (int i = 0; i < n_shadow; i++)
            if (held[i])
                expert_heap_add(&p->shadow[i], key);
    }
}

void expert_policy_resize(struct expert_policy *p, int n)
{
    p->shape.n_slot = n;
    for (int i = 0; p->shape.n_rule > 1 && i < p->shape.n_rule; i++)
        while (p->shadow[i].n > n)
            expert_heap_pop(&p->shadow[i]);
}

int expert_policy_longest(const struct expert_policy *p)
{
    int longest = 0;
    for (int i = 1; i < p->shape.n_rule; i++)
        if (p->shape.half_life[i] > p->shape.half_life[longest])
            longest = i;
    return longest;
}

/* Of uses that come evenly a rule counts as many as its half-life is long. */
void expert_policy_recall(struct expert_policy *p, const uint32_t *count)
{
    double longest = MAX(p->shape.half_life[expert_policy_longest(p)], 1);
    for (int i = 0; i < p->shape.n_rule; i++) {
        double use = p->weight[i] * p->shape.half_life[i] / longest / 1000;
        for (int k = p->shape.n_weak * p->shape.n_expert; k < p->n_key; k++)
            p->score[i][k] = MAX(p->score[i][k], use * count[k]);
        expert_heap_order(&p->shadow[i]);
    }
}

const double *expert_policy_score(const struct expert_policy *p)
{
    return p->score[p->rule];
}
