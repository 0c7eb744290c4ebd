/* expert_policy.h - which expert is worth keeping: a score for every (layer, expert), resident or
 * not, and the choice among ways of scoring while the program runs. */
#ifndef DS_EXPERT_POLICY_H
#define DS_EXPERT_POLICY_H

#include "expert_heap.h"

#define EXPERT_MOST_RULES 8
#define EXPERT_LRU 0 /* as a half-life: the last use alone decides; no counts */
#define EXPERT_MOST_HALF_LIFE 4096

/* A rule is a half-life in tokens: the score of an expert is the count of its uses, in which a use
 * weighs half as much after so many tokens. One rule: it is used always. Several: each has a shadow
 * cache, and the one that missed least of late rules; the first rules at the beginning. */
struct expert_shape {
    int n_layer, n_expert; /* of a layer */
    int n_slot;            /* experts in memory, of all layers together */
    int n_weak;            /* layers 0 .. n_weak-1 are given up before any other */
    int n_rule;
    int half_life[EXPERT_MOST_RULES];
};

/* The rules of `auto`, into shape. */
void expert_rules_auto(struct expert_shape *shape);

/* How many of n_hash hash-routed first layers should be weak: all in a cache of a sixteenth of the
 * experts or less, none above. Their experts follow from the token alone and come back seldom, so
 * they push better ones out of a small cache; docs/streaming.md has the measurement. */
int expert_weak_layers(const struct expert_shape *shape, int n_hash);

struct expert_policy {
    struct expert_shape shape;
    int n_key;
    double *score[EXPERT_MOST_RULES];  /* [n_key]; -1: weak. Multiples of the weights */
    uint64_t *last;                    /* [n_key] when used last, in uses */
    double weight[EXPERT_MOST_RULES];  /* of a use now */
    double growth[EXPERT_MOST_RULES];  /* of the weight, per token: 2^(1/half-life) */
    struct expert_heap shadow[EXPERT_MOST_RULES]; /* keys alone */
    uint64_t n_use;
    uint64_t n_miss[EXPERT_MOST_RULES];  /* of the shadows, since the last choice */
    uint64_t recent[EXPERT_MOST_RULES];  /* of the last few hundred tokens, older ones fading */
    uint64_t ruled_tok[EXPERT_MOST_RULES];
    int rule;                            /* index of the one that rules */
    int n_tok, n_switch;
};

/* All memory is of the arena; with an arena that only counts, it is counted and nothing more. */
void expert_policy_init(struct expert_policy *p, const struct expert_shape *shape, struct arena *a);

/* n_tok tokens begin. True: scores, or the rule, have changed for keys at rest: heaps that borrow
 * expert_policy_score() must take it again and be ordered. */
bool expert_policy_step(struct expert_policy *p, int n_tok);

/* A layer uses n different experts, at most n_slot. Their scores change and nobody else's. */
void expert_policy_route(struct expert_policy *p, int layer, const int32_t *expert, int n);

/* The last tokens of a long text have used n different experts of a layer, expert[i] so often as
 * count[i] says: scores change, the shadows keep what they have. What is read once and in order
 * tells nothing about a cache, but its end tells what the answer begins with. */
void expert_policy_feed(struct expert_policy *p, int layer, const int32_t *expert,
                        const int32_t *count, int n);

/* The cache, and the shadows with it, has room for n experts from now on: at most what the shape
 * had at first. Shadows that are too full give up what they value least. */
void expert_policy_resize(struct expert_policy *p, int n);

/* Contract: expert_slots_recall(). Scores of keys at rest change. */
void expert_policy_recall(struct expert_policy *p, const uint32_t *count);

/* Index of the rule with the longest half-life. */
int expert_policy_longest(const struct expert_policy *p);

const double *expert_policy_score(const struct expert_policy *p);

#endif
