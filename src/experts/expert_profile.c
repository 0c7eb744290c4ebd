/* expert_profile.c - the text of a popularity profile, and scores from and to it.
 *
 * Text, because it is small, is looked at when something is slow, and outlives layouts of structs.
 * It is a hint: one that does not fit is refused, and nothing is lost but the first tokens. */
#include "expert_profile.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define VERSION_LINE "dstar-experts 1"

void expert_profile_write(const struct expert_profile *p, struct buf *out)
{
    CHECK(p->model[0] && strspn(p->model, "0123456789abcdefghijklmnopqrstuvwxyz"
                                          "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(p->model));
    buf_printf(out, VERSION_LINE "\nmodel %s\nshape %d %d\n", p->model, p->n_layer, p->n_expert);
    for (int k = 0; k < p->n_layer * p->n_expert; k++)
        if (p->count[k] > 0)
            buf_printf(out, "%d %d %u\n", k / p->n_expert, k % p->n_expert, p->count[k]);
}

/* What is left to read; lines are counted for messages. */
struct lines {
    const char *at, *end, *name;
    int number;
};

/* The next line, without its end; false when there is none. Every line ends with '\n'. */
static bool next_line(struct lines *in, const char **line, size_t *len)
{
    const char *stop = in->at < in->end ? memchr(in->at, '\n', (size_t)(in->end - in->at)) : NULL;
    *line = in->at;
    *len = (size_t)((stop ? stop : in->end) - in->at);
    in->number++;
    if (stop)
        in->at = stop + 1;
    return stop != NULL;
}

static int header_line(struct lines *in, enum err_code wrong, const char *expected, struct err *e)
{
    const char *line;
    size_t len;
    bool there = next_line(in, &line, &len);
    if (there && len == strlen(expected) && memcmp(line, expected, len) == 0)
        return 0;
    return err_set(e, there ? wrong : ERR_FORMAT, "%s: line %d: found \"%.*s\", expected \"%s\"",
                   in->name, in->number, (int)MIN(len, 80), line, expected);
}

/* Three decimal numbers with single spaces between, nothing else. */
static bool three_numbers(const char *s, size_t len, uint32_t out[3])
{
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t n = 0;
        if (i > 0 && (at == len || s[at++] != ' '))
            return false;
        size_t begin = at;
        for (; at < len && isdigit((unsigned char)s[at]) && n <= UINT32_MAX; at++)
            n = n * 10 + (uint64_t)(s[at] - '0');
        if (at == begin || n > UINT32_MAX)
            return false;
        out[i] = (uint32_t)n;
    }
    return at == len;
}

static int read_counts(struct expert_profile *p, struct lines *in, struct err *e)
{
    const char *line;
    size_t len;
    int64_t before = -1;
    while (next_line(in, &line, &len)) {
        uint32_t v[3];
        bool fits = three_numbers(line, len, v) && v[0] < (uint32_t)p->n_layer &&
                    v[1] < (uint32_t)p->n_expert;
        int64_t key = fits ? (int64_t)v[0] * p->n_expert + v[1] : -1;
        if (key <= before)
            return err_set(e, ERR_FORMAT, "%s: line %d: found \"%.*s\", expected layer, expert and "
                           "count, ascending", in->name, in->number, (int)MIN(len, 80), line);
        p->count[key] = v[2];
        before = key;
    }
    return in->at == in->end ? 0 : err_set(e, ERR_FORMAT, "%s: line %d: is cut off", in->name,
                                           in->number);
}

int expert_profile_read(struct expert_profile *p, const char *text, size_t len, const char *name,
                        struct err *e)
{
    size_t n_bytes = (size_t)p->n_layer * (size_t)p->n_expert * sizeof *p->count;
    struct lines in = { text, text + len, name, 0 };
    char model[EXPERT_MODEL_MAX + 16], shape[48];
    snprintf(model, sizeof model, "model %s", p->model);
    snprintf(shape, sizeof shape, "shape %d %d", p->n_layer, p->n_expert);
    memset(p->count, 0, n_bytes);
    TRY(header_line(&in, ERR_FORMAT, VERSION_LINE, e));
    TRY(header_line(&in, ERR_MISMATCH, model, e));
    TRY(header_line(&in, ERR_MISMATCH, shape, e));
    int code = read_counts(p, &in, e);
    if (code < 0)
        memset(p->count, 0, n_bytes);
    return code;
}

void expert_profile_take(struct expert_profile *p, const struct expert_policy *policy)
{
    const struct expert_shape *s = &policy->shape;
    int longest = expert_policy_longest(policy);
    CHECK(p->n_layer == s->n_layer && p->n_expert == s->n_expert);
    CHECK(s->half_life[longest] != EXPERT_LRU);
    for (int k = 0; k < policy->n_key; k++) {
        double uses = policy->score[longest][k] / policy->weight[longest];
        p->count[k] = uses > 0 ? (uint32_t)MIN(uses * 1000 + 0.5, 4e9) : 0;
    }
}

void expert_profile_give(const struct expert_profile *p, struct expert_policy *policy, double uses)
{
    const struct expert_shape *s = &policy->shape;
    uint32_t most = 1;
    CHECK(p->n_layer == s->n_layer && p->n_expert == s->n_expert && policy->n_use == 0);
    for (int k = 0; k < policy->n_key; k++)
        most = MAX(most, p->count[k]);
    for (int i = 0; i < s->n_rule; i++)
        for (int k = s->n_weak * s->n_expert; k < policy->n_key; k++)
            policy->score[i][k] += uses * policy->weight[i] * p->count[k] / most;
}

/* Some layers may have seen fewer. */
static int count_tokens(const struct expert_profile *p, const uint32_t *uses, int n_used)
{
    uint64_t most = 0;
    for (int l = 0; l < p->n_layer; l++) {
        uint64_t sum = 0;
        for (int i = 0; i < p->n_expert; i++)
            sum += uses[l * p->n_expert + i];
        most = MAX(most, sum);
    }
    return (int)MIN((most + (uint64_t)n_used - 1) / (uint64_t)n_used, INT32_MAX);
}

/* tidy: heap - when the model is closed */
int expert_profile_add(struct expert_profile *p, const uint32_t *uses, int n_used, struct err *e)
{
    struct expert_shape shape = { p->n_layer, p->n_expert, .n_slot = 1 };
    struct expert_policy policy;
    struct arena a;
    int n_tok = count_tokens(p, uses, n_used);
    if (n_tok == 0)
        return 0;
    expert_rules_auto(&shape);
    arena_init(&a, NULL, 0);
    expert_policy_init(&policy, &shape, &a);
    size_t size = round_up(a.peak, ARENA_ALIGN);
    void *tables = aligned_alloc(ARENA_ALIGN, size);
    if (!tables)
        return err_set(e, ERR_NO_MEMORY, "out of memory for popular experts");
    arena_init(&a, tables, size);
    expert_policy_init(&policy, &shape, &a);
    expert_profile_give(p, &policy, 1);
    expert_policy_step(&policy, n_tok);
    for (int k = 0; k < policy.n_key; k++) {
        int32_t expert = k % p->n_expert, count = (int32_t)MIN(uses[k], INT32_MAX);
        expert_policy_feed(&policy, k / p->n_expert, &expert, &count, count > 0);
    }
    expert_profile_take(p, &policy);
    free(tables);
    return 1;
}
