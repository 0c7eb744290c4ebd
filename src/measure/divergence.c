/* divergence.c - a model computes the texts of a reference, and each row is compared at once.
 *
 * Of all rows only their divergences are kept, for the quantiles. */
#include "divergence.h"

#include <math.h>
#include <stdlib.h>

#include "half.h"

int divergence_of_row(struct divergence_row *out, const uint16_t *logprob, const float *logits,
                      int n, int next, struct err *e)
{
    double sum_p = 0, sum_q = 0, cross = 0;
    int best = 0;
    for (int i = 1; i < n; i++) {
        if (logits[i] > logits[best])
            best = i;
    }
    for (int i = 0; i < n; i++)
        sum_q += exp((double)logits[i] - logits[best]);
    double whole = logits[best] + log(sum_q);
    if (!isfinite(whole))
        return err_set(e, ERR_FORMAT, "the logits are not finite");
    for (int i = 0; i < n; i++) {
        double log_p = f16_to_f32(logprob[i]), p = exp(log_p);
        sum_p += p;
        cross += p * (log_p - (logits[i] - whole));
    }
    if (!isfinite(cross) || !(sum_p > 0))
        return err_set(e, ERR_FORMAT, "the reference is not finite");
    *out = (struct divergence_row){ cross / sum_p - log(sum_p), whole - logits[next], best };
    return 0;
}

double divergence_quantile(const float *sorted, int64_t n, double share)
{
    int64_t at = (int64_t)ceil(share * (double)n) - 1;
    return n > 0 ? sorted[MIN(MAX(at, 0), n - 1)] : 0;
}

/* One measurement under way. */
struct gauge {
    struct divergence *d;
    const struct reference *ref;
    const struct divergence_plan *plan;
    const struct observe_shape *shape;
    struct divergence_text *text; /* being computed */
    int64_t tokens_before, tokens_all, n_row;
    float *kl;                    /* [rows of all texts computed] */
};

static void compare_routes(struct gauge *g, const uint16_t *route, const int32_t *expected)
{
    int n = g->shape->n_used;
    for (int l = 0; l < g->shape->n_layer; l++, route += n, expected += n) {
        struct divergence_layer *layer = &g->d->layer[l];
        int same = 0;
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < n; j++)
                same += route[i] == expected[j];
        }
        layer->n_row++;
        layer->n_same_expert += same;
        layer->n_same_set += same == n;
    }
}

static void compare_streams(struct gauge *g, const float *x, const float *expected)
{
    int width = g->shape->width;
    for (int l = 0; l < g->shape->n_layer; l++, x += width, expected += width) {
        struct divergence_layer *layer = &g->d->layer[l];
        for (int i = 0; i < width; i++) {
            double r = (double)x[i] - expected[i];
            layer->error += r * r;
            layer->size += (double)expected[i] * expected[i];
        }
    }
}

static int on_row(void *user, const struct observed *o, struct err *e)
{
    struct gauge *g = user;
    struct reference_row ref;
    struct divergence_row row;
    int64_t number = reference_first_row(g->ref, g->text->doc) + o->row;
    TRY(reference_row(g->ref, number, &ref, e));
    if (divergence_of_row(&row, ref.logprob, o->logits, g->shape->n_vocab, o->next, e) < 0)
        return err_prefix(e, "%s, after token %d: ", reference_doc(g->ref, g->text->doc)->name,
                          o->pos);
    double change = exp(-row.nll) - exp(-ref.nll);
    g->text->n_row++;
    g->text->n_same_best += row.best == ref.best;
    g->text->kl += row.kl;
    g->text->n_answer += o->answer;
    g->text->kl_answer += o->answer ? row.kl : 0;
    g->text->nll += row.nll;
    g->text->nll_ref += ref.nll;
    g->d->change += change * change;
    g->kl[g->n_row++] = (float)row.kl;
    compare_routes(g, o->route, ref.route);
    if (o->streams && ref.streams)
        compare_streams(g, o->streams, ref.streams);
    if (g->plan->progress && g->plan->progress(g->plan->user, g->tokens_before + o->pos,
                                               g->tokens_all))
        return err_set(e, ERR_CANCELLED, "interrupted");
    return 0;
}

static int take(struct gauge *g, struct err *e)
{
    const struct reference_info *info = reference_info(g->ref);
    struct divergence *d = g->d;
    int64_t rows = 0;
    for (int i = 0; i < info->n_doc; i += g->plan->nth) {
        rows += text_doc_rows(reference_doc(g->ref, i));
        g->tokens_all += reference_doc(g->ref, i)->n_tok;
    }
    if (rows == 0)
        return err_set(e, ERR_ARGUMENT, "%s: every text of %d has no prediction that counts",
                       info->path, g->plan->nth);
    d->n_layer = g->shape->n_layer;
    d->n_used = g->shape->n_used;
    d->text = calloc((size_t)info->n_doc, sizeof *d->text);
    d->layer = calloc((size_t)d->n_layer, sizeof *d->layer);
    g->kl = calloc((size_t)rows, sizeof *g->kl);
    if (!d->text || !d->layer || !g->kl)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %lld rows", (long long)rows);
    for (int l = 0; l < d->n_layer; l++)
        d->layer[l].learned = g->shape->learned[l] != 0;
    return 0;
}

void divergence_add(struct divergence_text *sum, const struct divergence_text *t)
{
    sum->n_row += t->n_row;
    sum->n_same_best += t->n_same_best;
    sum->n_answer += t->n_answer;
    sum->kl += t->kl;
    sum->kl_answer += t->kl_answer;
    sum->nll += t->nll;
    sum->nll_ref += t->nll_ref;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void sum_up(struct gauge *g)
{
    struct divergence *d = g->d;
    for (int i = 0; i < d->n_text; i++)
        divergence_add(&d->all, &d->text[i]);
    qsort(g->kl, (size_t)g->n_row, sizeof *g->kl, by_value);
    d->kl_50 = divergence_quantile(g->kl, g->n_row, 0.5);
    d->kl_99 = divergence_quantile(g->kl, g->n_row, 0.99);
    d->kl_999 = divergence_quantile(g->kl, g->n_row, 0.999);
    d->kl_max = divergence_quantile(g->kl, g->n_row, 1);
}

static int run(struct gauge *g, struct observer *o, struct err *e)
{
    const struct reference_info *info = reference_info(g->ref);
    for (int i = 0; i < info->n_doc; i += g->plan->nth) {
        g->text = &g->d->text[g->d->n_text++];
        g->text->doc = i;
        struct observation what = { reference_doc(g->ref, i), g->plan->chunk, info->every,
                                    reference_first_row(g->ref, i), on_row, g };
        TRY(observe(o, &what, e));
        g->tokens_before += what.doc->n_tok;
    }
    sum_up(g);
    return 0;
}

int divergence_measure(struct divergence *d, dstar_engine *engine, const struct reference *r,
                       const struct divergence_plan *plan, struct err *e)
{
    struct gauge g = { .d = d, .ref = r, .plan = plan };
    struct observer *o;
    *d = (struct divergence){ 0 };
    CHECK(plan->nth > 0);
    TRY(observer_begin(&o, engine, e));
    g.shape = observer_shape(o);
    int code = reference_fits(r, engine, g.shape, e);
    if (code == 0)
        code = take(&g, e);
    if (code == 0)
        code = run(&g, o, e);
    observer_end(o);
    free(g.kl);
    if (code < 0)
        divergence_release(d);
    return code;
}

void divergence_release(struct divergence *d)
{
    free(d->text);
    free(d->layer);
    *d = (struct divergence){ 0 };
}
