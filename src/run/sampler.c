/* sampler.c - filters and one draw.
 *
 * Only as much is looked at as is needed. The best logit of every 64 tokens says which of them can
 * matter, and a heap gives those in falling order until a filter says enough. Sums are in double
 * and in a fixed order, so that a seed gives the same text again; where the draw is from all,
 * what was summed up to every 64th says where it falls. A device that keeps the logits does the
 * same in the same order (draw.h). Rejected: a chain of filter objects, which must all be read to
 * know what happens. */
#include "sampler.h"

#include "arena.h"

#include <math.h>

#define BLOCK DRAW_BLOCK
#define LANES 8   /* maxima at a time, for compilers */
#define NUCLEUS 64 /* candidates among which top_p is tried first */

size_t sampler_mask_bytes(int n_vocab)
{
    return ((size_t)n_vocab + 63) / 64 * sizeof(uint64_t);
}

static void take_work(struct arena *a, struct sampler_work *w, size_t n_vocab)
{
    size_t n_block = (n_vocab + BLOCK - 1) / BLOCK;
    w->logit = arena_alloc(a, n_block * BLOCK * sizeof *w->logit);
    w->block = arena_alloc(a, n_block * sizeof *w->block);
    w->upto = arena_alloc(a, (size_t)draw_groups((int)n_vocab) * sizeof *w->upto);
    w->pair = arena_alloc(a, n_vocab * sizeof *w->pair);
    w->count = arena_alloc(a, n_vocab * sizeof *w->count);
}

size_t sampler_work_bytes(int n_vocab)
{
    struct sampler_work w;
    struct arena a;
    arena_init(&a, NULL, 0);
    take_work(&a, &w, (size_t)n_vocab);
    return a.peak;
}

void sampler_work_init(struct sampler_work *w, int n_vocab, void *mem)
{
    struct arena a;
    arena_init(&a, mem, sampler_work_bytes(n_vocab));
    take_work(&a, w, (size_t)n_vocab);
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

static bool is_damaged(const float *x)
{
    int n = 0;
    for (int i = 0; i < BLOCK; i++)
        n |= !(x[i] < INFINITY);
    return n != 0;
}

static int say_damaged(const float *x, int id, struct err *e)
{
    while (x[id] < INFINITY)
        id++;
    return err_set(e, ERR_FORMAT, "the model's logit of token %d is %f: its output is damaged", id,
                   x[id]);
}

/* Logits of what may be drawn, the rest as -INFINITY; or an error. */
static int collect(struct sampler *s, const float *logits, struct err *e)
{
    for (int first = 0; first < s->n_vocab; first += BLOCK) {
        float *x = s->work->logit + first;
        int n = MIN(BLOCK, s->n_vocab - first);
        memcpy(x, logits + first, (size_t)n * sizeof *x);
        for (int i = n; i < BLOCK; i++)
            x[i] = -INFINITY;
        if (is_damaged(x))
            return say_damaged(logits, first, e);
        uint64_t allowed = s->allowed[first / BLOCK];
        for (int i = 0; i < BLOCK && ~allowed; i++)
            x[i] = allowed >> i & 1 ? x[i] : -INFINITY;
    }
    return 0;
}

static bool penalises(const struct dstar_sampling *p)
{
    return p->repeat_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0;
}

static void penalise(struct sampler *s, const int32_t *past, int n_past)
{
    const struct dstar_sampling *p = &s->p;
    int32_t *count = s->work->count;
    int first = p->penalty_last_n < 0 ? 0 : MAX(0, n_past - p->penalty_last_n);
    if (!penalises(p))
        return;
    for (int i = first; i < n_past; i++)
        count[past[i]]++;
    for (int i = first; i < n_past; i++) {
        float *x = &s->work->logit[past[i]];
        int seen = count[past[i]];
        count[past[i]] = 0;
        if (!seen || *x == -INFINITY)
            continue;
        *x = *x < 0 ? *x * p->repeat_penalty : *x / p->repeat_penalty;
        *x -= p->frequency_penalty * (float)seen + p->presence_penalty;
    }
}

static float most_of(const float *x)
{
    float most[LANES];
    memcpy(most, x, sizeof most);
    for (int i = LANES; i < BLOCK; i += LANES)
        for (int k = 0; k < LANES; k++)
            most[k] = x[i + k] > most[k] ? x[i + k] : most[k];
    for (int k = 1; k < LANES; k++)
        most[0] = most[k] > most[0] ? most[k] : most[0];
    return most[0];
}

static int n_block(const struct sampler *s)
{
    return (s->n_vocab + BLOCK - 1) / BLOCK;
}

/* The best of every block; the best of all is returned. */
static float survey(struct sampler *s)
{
    float best = -INFINITY;
    for (int b = 0; b < n_block(s); b++) {
        float most = most_of(s->work->logit + (size_t)b * BLOCK);
        s->work->block[b].most = most;
        best = most > best ? most : best;
    }
    return best;
}

static bool is_better(struct draw_pair a, struct draw_pair b)
{
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

static void sift_down(struct draw_pair *pair, int n, int i)
{
    struct draw_pair moved = pair[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_better(pair[child + 1], pair[child]))
            child++;
        if (!is_better(pair[child], moved))
            break;
        pair[i] = pair[child];
    }
    pair[i] = moved;
}

static void make_heap(struct draw_pair *pair, int n)
{
    for (int i = n / 2 - 1; i >= 0; i--)
        sift_down(pair, n, i);
}

/* The best of a heap of n moves to its end. */
static struct draw_pair pop_best(struct draw_pair *pair, int n)
{
    struct draw_pair best = pair[0];
    pair[0] = pair[n - 1];
    pair[n - 1] = best;
    sift_down(pair, n - 1, 0);
    return best;
}

/* A logit that at least k candidates reach: the kth of the blocks' best. */
static float reached_by(struct sampler *s, int k)
{
    struct draw_pair *pair = s->work->pair, kth = { -INFINITY, 0 };
    int n = n_block(s);
    if (k > n)
        return -INFINITY;
    for (int b = 0; b < n; b++)
        pair[b] = (struct draw_pair){ s->work->block[b].most, b };
    make_heap(pair, n);
    for (int i = 0; i < k; i++)
        kth = pop_best(pair, n - i);
    return kth.logit;
}

/* The candidates with at least this logit, in the order of ids; their number. */
static int gather(struct sampler *s, float least)
{
    int n = 0;
    for (int b = 0; b < n_block(s); b++) {
        if (s->work->block[b].most < least)
            continue;
        for (int id = b * BLOCK; id < (b + 1) * BLOCK; id++) {
            float x = s->work->logit[id];
            if (x >= least && x != -INFINITY)
                s->work->pair[n++] = (struct draw_pair){ x, id };
        }
    }
    return n;
}

/* Two at a time, in every instruction set's own vectors: a library's exp would be most of the time
 * that sampling takes, and not the same everywhere. */
typedef double pair_of __attribute__((vector_size(16)));
typedef uint64_t bits_of __attribute__((vector_size(16)));

/* 2^x for x <= 0, within 1e-14 of it; nothing below -1000. The power's integer part is added to an
 * exponent, after a sum in which it lies in the lowest bits; the rest is Taylor's series. */
static inline pair_of exp2_of(pair_of x)
{
    const double low = 0x1.8p52;
    pair_of shifted = x + low, z = (x - (shifted - low)) * 0x1.62e42fefa39efp-1;
    pair_of z2 = z * z, z4 = z2 * z2;
    pair_of high = 1. / 40320 + z * (1. / 362880) + z2 * (1. / 3628800 + z * (1. / 39916800));
    pair_of mid = 1. / 24 + z * (1. / 120) + z2 * (1. / 720 + z * (1. / 5040));
    pair_of sum = 1 + z + z2 * (1. / 2 + z * (1. / 6)) + z4 * (mid + z4 * high);
    bits_of power = ((bits_of)shifted << 52) + (UINT64_C(1023) << 52);
    return (pair_of)((bits_of)(sum * (pair_of)power) & (bits_of)(x >= -1000));
}

/* Of powers of two for the temperature's of e. */
static double steepness(const struct sampler *s)
{
    return 0x1.71547652b82fep0 / s->p.temperature;
}

static double weight(const struct sampler *s, float logit, double best)
{
    double x = (logit - best) * steepness(s);
    return exp2_of((pair_of){ x, x })[0];
}

static double sum_block(const float *x, double best, double steep)
{
    pair_of sum[2] = { 0 };
    for (int i = 0; i < BLOCK; i += 4) {
        sum[0] += exp2_of(((pair_of){ x[i], x[i + 1] } - best) * steep);
        sum[1] += exp2_of(((pair_of){ x[i + 2], x[i + 3] } - best) * steep);
    }
    sum[0] += sum[1];
    return sum[0][0] + sum[0][1];
}

/* The sum of all weights, of those up to the end of every group, and in a group up to the end of
 * every block. */
static double sum_all(struct sampler *s, double best)
{
    double sum = 0, part = 0, steep = steepness(s);
    for (int b = 0; b < n_block(s); b++) {
        part += sum_block(s->work->logit + (size_t)b * BLOCK, best, steep);
        s->work->block[b].upto = part;
        if (b % DRAW_GROUP < DRAW_GROUP - 1 && b < n_block(s) - 1)
            continue;
        sum += part;
        s->work->upto[b / DRAW_GROUP] = sum;
        part = 0;
    }
    return sum;
}

/* Of a heap of n, the best that reach `enough`, at most k; they come to its end. `reached` is what
 * they sum up to. */
static int take_best(const struct sampler *s, struct draw_pair *pair, int n, int k,
                     double enough, double *reached)
{
    int m = 0;
    double best = pair[0].logit;
    for (*reached = 0; m < MIN(k, n) && (m == 0 || *reached < enough); m++)
        *reached += weight(s, pop_best(pair, n - m).logit, best);
    return m;
}

/* How many of the blocks' best tell what is gathered first. */
static int gathered_by(const struct dstar_sampling *p)
{
    return p->top_k > 0 ? p->top_k : NUCLEUS;
}

/* Of the n best at *pair keep those that top_k and top_p do, worst first; their number, or 0: top_p
 * keeps more than those. sum: of all weights, for top_p alone; these_are_all: there are no more. */
static int keep_best(const struct sampler *s, struct draw_pair **pair, int n, float best,
                     double sum, bool these_are_all)
{
    const struct dstar_sampling *p = &s->p;
    struct draw_pair *all = *pair;
    int k = p->top_k > 0 ? p->top_k : INT32_MAX;
    double reached, enough = p->top_k > 0 ? INFINITY : p->top_p * sum;
    make_heap(all, n);
    int m = take_best(s, all, n, k, enough, &reached);
    if (p->top_k == 0 && m == n && reached < enough && !these_are_all)
        return 0;
    if (p->top_k > 0 && p->top_p < 1) {
        enough = p->top_p * reached;
        reached = 0;
        for (k = m, m = 0; m < k && (m == 0 || reached < enough); m++)
            reached += weight(s, all[n - 1 - m].logit, best);
    }
    *pair = all + n - m;
    return m;
}

/* The same of all. */
static int keep_best_of_all(struct sampler *s, struct draw_pair **pair, float best)
{
    double sum = s->p.top_k > 0 ? 0 : sum_all(s, best);
    int n = gather(s, reached_by(s, gathered_by(&s->p)));
    int m = keep_best(s, pair, n, best, sum, false);
    return m > 0 ? m : keep_best(s, pair, gather(s, -INFINITY), best, sum, true);
}

static double below_best(const struct dstar_sampling *p)
{
    return p->temperature * (log(p->min_p) - 1e-3);
}

/* A logit a little below the least that min_p can leave. */
static float least_of(const struct sampler *s, double best)
{
    return (float)(best + below_best(&s->p) - fabs(best) * 1e-6);
}

static int keep_min_p(const struct sampler *s, struct draw_pair *pair, int n, float best)
{
    int m = 0;
    for (int i = 0; i < n; i++)
        if (weight(s, pair[i].logit, best) >= s->p.min_p)
            pair[m++] = pair[i];
    return m;
}

static int32_t draw(struct sampler *s, const struct draw_pair *pair, int n, float best)
{
    double sum = 0, reached = 0;
    for (int i = 0; i < n; i++)
        sum += weight(s, pair[i].logit, best);
    double at = rng_unit(&s->rng) * sum;
    for (int i = 0; i < n; i++) {
        reached += weight(s, pair[i].logit, best);
        if (at < reached)
            return pair[i].id;
    }
    return pair[n - 1].id;
}

static int32_t draw_of_all(struct sampler *s, float best)
{
    const float *x = s->work->logit;
    const struct sampler_work *w = s->work;
    double at = sum_all(s, best) * rng_unit(&s->rng), before = 0;
    int g = 0, last = draw_groups(s->n_vocab) - 1;
    for (; g < last && !(at < w->upto[g]); g++)
        before = w->upto[g];
    double reached = before;
    int b = g * DRAW_GROUP;
    last = MIN(b + DRAW_GROUP, n_block(s)) - 1;
    for (; b < last && !(at < before + w->block[b].upto); b++)
        reached = before + w->block[b].upto;
    for (int id = b * BLOCK; id < (b + 1) * BLOCK; id++) {
        reached += weight(s, x[id], best);
        if (at < reached)
            return id;
    }
    for (int id = (b + 1) * BLOCK - 1;; id--) /* at is the sum, by rounding */
        if (x[id] != -INFINITY)
            return id;
}

/* The lowest id of the best. */
static int32_t best_id(const struct sampler *s, float best)
{
    int id = 0;
    while (s->work->block[id / BLOCK].most < best)
        id += BLOCK;
    while (s->work->logit[id] < best)
        id++;
    return id;
}

static bool is_top_k(const struct sampler *s)
{
    int n = 0;
    for (int id = 0; id < s->n_vocab && s->p.top_k > 0 && n <= s->p.top_k; id++)
        n += s->work->logit[id] != -INFINITY;
    return s->p.top_k > 0 && s->p.top_k < n;
}

static int32_t draw_kept(struct sampler *s, struct draw_pair *pair, int n, float best)
{
    if (s->p.min_p > 0)
        n = keep_min_p(s, pair, n, best);
    return draw(s, pair, n, best);
}

int sampler_pick(struct sampler *s, const float *logits, const int32_t *past, int n_past,
                 int32_t *id, struct err *e)
{
    struct draw_pair *pair = s->work->pair;
    TRY(collect(s, logits, e));
    penalise(s, past, n_past);
    float best = survey(s);
    if (best == -INFINITY)
        return err_set(e, ERR_ARGUMENT, "sampling: no token may be drawn, all are banned");
    if (s->p.temperature == 0) {
        *id = best_id(s, best);
        return 0;
    }
    bool filtered = is_top_k(s) || s->p.top_p < 1;
    if (!filtered && s->p.min_p == 0) {
        *id = draw_of_all(s, best);
        return 0;
    }
    int n = filtered ? keep_best_of_all(s, &pair, best) : gather(s, least_of(s, best));
    *id = draw_kept(s, pair, n, best);
    return 0;
}

/* ---- on a device ----------------------------------------------------------------------------- */

void sampler_ask(const struct sampler *s, struct draw *d)
{
    const struct dstar_sampling *p = &s->p;
    struct rng r = s->rng;
    d->unit = rng_unit(&r);
    d->steep = p->temperature > 0 ? steepness(s) : 0;
    d->kth = p->top_k > 0 || p->top_p < 1 ? gathered_by(p) : 0;
    d->below = p->min_p > 0 ? below_best(p) : 0;
    d->with_sum = false;
    d->kind = DRAW_NOTHING;
    if (penalises(p) || p->top_k > DRAW_MOST)
        return;
    if (p->temperature == 0)
        d->kind = DRAW_BEST;
    else
        d->kind = d->kth || p->min_p > 0 ? DRAW_LIST : DRAW_ONE;
    d->with_sum = d->kind == DRAW_ONE || (d->kind == DRAW_LIST && d->kth && p->top_k == 0);
}

/* Those gathered for top_k are too many where it keeps all that may be drawn. */
static bool take_of_list(struct sampler *s, const struct drawn *out, int32_t *id)
{
    const struct dstar_sampling *p = &s->p;
    struct draw_pair *pair = s->work->pair;
    bool filtered = (p->top_k > 0 && p->top_k < out->n_open) || p->top_p < 1;
    int n = out->n;
    if (n > DRAW_MOST || (!filtered && p->top_k > 0))
        return false;
    memcpy(pair, out->pair, (size_t)n * sizeof *pair);
    if (filtered)
        n = keep_best(s, &pair, n, out->best, out->sum, n == out->n_open);
    if (n > 0)
        *id = draw_kept(s, pair, n, out->best);
    return n > 0;
}

bool sampler_take(struct sampler *s, const struct draw *d, int32_t *id)
{
    const struct drawn *out = d->out;
    struct rng r = s->rng;
    if (d->kind == DRAW_NOTHING || out->n_open <= 0)
        return false;
    if (d->kind == DRAW_LIST)
        return take_of_list(s, out, id);
    if (d->kind == DRAW_ONE && rng_unit(&r) != d->unit)
        return false;
    if (d->kind == DRAW_ONE)
        s->rng = r;
    *id = out->id;
    return out->id >= 0;
}
