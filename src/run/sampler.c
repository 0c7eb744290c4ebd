/* sampler.c - filters and one draw.
 *
 * Only as much is sorted as the filters need: a heap gives the candidates in falling order until
 * one of them says enough. Sums are in double and in a fixed order, so that a seed gives the same
 * text again. Rejected: a chain of filter objects, which must all be read to know what happens. */
#include "sampler.h"

#include <math.h>

size_t sampler_mask_bytes(int n_vocab)
{
    return ((size_t)n_vocab + 63) / 64 * sizeof(uint64_t);
}

void sampler_init(struct sampler *s, int n_vocab, uint64_t *mask, struct sampler_work *work)
{
    *s = (struct sampler){ .n_vocab = n_vocab, .allowed = mask, .work = work };
}

static int check_number(const char *name, double x, double least, double most, struct err *e)
{
    if (x >= least && x <= most)
        return 0;
    return err_set(e, ERR_ARGUMENT, "sampling: %s is %g, expected %g to %g", name, x, least, most);
}

static int check_ids(const char *name, const int32_t *id, int n, int n_vocab, struct err *e)
{
    for (int i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= n_vocab)
            return err_set(e, ERR_ARGUMENT, "sampling: %s holds token %d, expected 0 to %d", name,
                           id[i], n_vocab - 1);
    return 0;
}

static int check(const struct sampler *s, const struct dstar_sampling *p, struct err *e)
{
    TRY(check_number("temperature", p->temperature, 0, 1000, e));
    TRY(check_number("top_k", p->top_k, 0, INT32_MAX, e));
    TRY(check_number("top_p", p->top_p, 0, 1, e));
    TRY(check_number("min_p", p->min_p, 0, 1, e));
    TRY(check_number("penalty_last_n", p->penalty_last_n, -1, INT32_MAX, e));
    TRY(check_number("repeat_penalty", p->repeat_penalty, 0.001, 1000, e));
    TRY(check_number("frequency_penalty", p->frequency_penalty, -1000, 1000, e));
    TRY(check_number("presence_penalty", p->presence_penalty, -1000, 1000, e));
    TRY(check_ids("banned", p->banned, p->n_banned, s->n_vocab, e));
    TRY(check_ids("allowed", p->allowed, p->n_allowed, s->n_vocab, e));
    TRY(check_ids("stop", p->stop, p->n_stop, s->n_vocab, e));
    if (p->n_stop > SAMPLER_MAX_STOP)
        return err_set(e, ERR_LIMIT, "sampling: %d stop tokens, expected at most %d", p->n_stop,
                       SAMPLER_MAX_STOP);
    return 0;
}

int sampler_set(struct sampler *s, const struct dstar_sampling *p, const uint64_t *base,
                struct err *e)
{
    TRY(check(s, p, e));
    memcpy(s->allowed, base, sampler_mask_bytes(s->n_vocab));
    for (int i = 0; i < p->n_allowed; i++)
        sampler_mask_set(s->allowed, p->allowed[i], true);
    for (int i = 0; i < p->n_banned; i++)
        sampler_mask_set(s->allowed, p->banned[i], false);
    s->n_stop = MAX(0, p->n_stop);
    for (int i = 0; i < s->n_stop; i++)
        s->stop[i] = p->stop[i];
    s->p = *p;
    s->p.banned = s->p.allowed = s->p.stop = NULL;
    s->rng = (struct rng){ .seed = p->seed };
    return 0;
}

bool sampler_is_stop(const struct sampler *s, int32_t id)
{
    for (int i = 0; i < s->n_stop; i++)
        if (s->stop[i] == id)
            return true;
    return false;
}

/* The candidates; their number, or an error. */
static int collect(struct sampler *s, const float *logits, struct err *e)
{
    struct sampler_pair *pair = s->work->pair;
    int n = 0;
    for (int32_t id = 0; id < s->n_vocab; id++) {
        if (isnan(logits[id]) || logits[id] == INFINITY)
            return err_set(e, ERR_FORMAT, "the model's logit of token %d is %f: its output is "
                           "damaged", id, logits[id]);
        if (sampler_mask_has(s->allowed, id) && logits[id] != -INFINITY)
            pair[n++] = (struct sampler_pair){ logits[id], id };
    }
    if (n == 0)
        return err_set(e, ERR_ARGUMENT, "sampling: no token may be drawn, all are banned");
    return n;
}

static void penalise(struct sampler *s, int n, const int32_t *past, int n_past)
{
    const struct dstar_sampling *p = &s->p;
    int32_t *count = s->work->count;
    int first = p->penalty_last_n < 0 ? 0 : MAX(0, n_past - p->penalty_last_n);
    if (p->repeat_penalty == 1 && p->frequency_penalty == 0 && p->presence_penalty == 0)
        return;
    for (int i = first; i < n_past; i++)
        count[past[i]]++;
    for (int i = 0; i < n; i++) {
        float *x = &s->work->pair[i].logit;
        int seen = count[s->work->pair[i].id];
        if (!seen)
            continue;
        *x = *x < 0 ? *x * p->repeat_penalty : *x / p->repeat_penalty;
        *x -= p->frequency_penalty * (float)seen + p->presence_penalty;
    }
    for (int i = first; i < n_past; i++)
        count[past[i]] = 0;
}

static bool is_better(struct sampler_pair a, struct sampler_pair b)
{
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

static void sift_down(struct sampler_pair *pair, int n, int i)
{
    struct sampler_pair moved = pair[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_better(pair[child + 1], pair[child]))
            child++;
        if (!is_better(pair[child], moved))
            break;
        pair[i] = pair[child];
    }
    pair[i] = moved;
}

static void make_heap(struct sampler_pair *pair, int n)
{
    for (int i = n / 2 - 1; i >= 0; i--)
        sift_down(pair, n, i);
}

/* The best of a heap of n moves to its end. */
static struct sampler_pair pop_best(struct sampler_pair *pair, int n)
{
    struct sampler_pair best = pair[0];
    pair[0] = pair[n - 1];
    pair[n - 1] = best;
    sift_down(pair, n - 1, 0);
    return best;
}

static struct sampler_pair best_of(const struct sampler_pair *pair, int n)
{
    struct sampler_pair best = pair[0];
    for (int i = 1; i < n; i++)
        if (is_better(pair[i], best))
            best = pair[i];
    return best;
}

static double weight(struct sampler_pair x, double best, double temperature)
{
    return exp(((double)x.logit - best) / temperature);
}

static double sum_of(const struct sampler_pair *pair, int n, double best, double temperature)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += weight(pair[i], best, temperature);
    return sum;
}

/* Keep the best by top_k and top_p; they come to stand at *pair, and their number is returned. */
static int keep_best(const struct dstar_sampling *p, struct sampler_pair **pair, int n)
{
    int k = p->top_k > 0 ? MIN(p->top_k, n) : n, m = 0;
    struct sampler_pair *all = *pair;
    double best = best_of(all, n).logit, reached = 0, enough = INFINITY;
    if (p->top_k == 0)
        enough = p->top_p * sum_of(all, n, best, p->temperature);
    make_heap(all, n);
    while (m < k && (m == 0 || reached < enough)) {
        reached += weight(pop_best(all, n - m), best, p->temperature);
        m++;
    }
    if (p->top_k > 0 && p->top_p < 1) {
        enough = p->top_p * reached;
        reached = 0;
        for (k = m, m = 0; m < k && (m == 0 || reached < enough); m++)
            reached += weight(all[n - 1 - m], best, p->temperature);
    }
    *pair = all + n - m;
    return m;
}

static int keep_min_p(const struct dstar_sampling *p, struct sampler_pair *pair, int n)
{
    double best = best_of(pair, n).logit;
    int m = 0;
    for (int i = 0; i < n; i++)
        if (weight(pair[i], best, p->temperature) >= p->min_p)
            pair[m++] = pair[i];
    return m;
}

static int32_t draw(struct sampler *s, const struct sampler_pair *pair, int n)
{
    double best = best_of(pair, n).logit, reached = 0;
    double at = rng_unit(&s->rng) * sum_of(pair, n, best, s->p.temperature);
    for (int i = 0; i < n; i++) {
        reached += weight(pair[i], best, s->p.temperature);
        if (at < reached)
            return pair[i].id;
    }
    return pair[n - 1].id;
}

int sampler_pick(struct sampler *s, const float *logits, const int32_t *past, int n_past,
                 int32_t *id, struct err *e)
{
    struct sampler_pair *pair = s->work->pair;
    int n = collect(s, logits, e);
    if (n < 0)
        return n;
    penalise(s, n, past, n_past);
    if (s->p.temperature == 0) {
        *id = best_of(pair, n).id;
        return 0;
    }
    if ((s->p.top_k > 0 && s->p.top_k < n) || s->p.top_p < 1)
        n = keep_best(&s->p, &pair, n);
    if (s->p.min_p > 0)
        n = keep_min_p(&s->p, pair, n);
    *id = draw(s, pair, n);
    return 0;
}
