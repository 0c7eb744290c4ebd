/* kl_report.c - a divergence as JSON, and tables made of the same rows. */
#include "kl_report.h"

#include <math.h>
#include <stdio.h>

#include "eval_report.h"

static json_t *text_row(const char *set, const struct divergence_text *t)
{
    double n = (double)MAX(t->n_row, 1);
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "set", set, "rows",
                     (json_int_t)t->n_row, "KL", t->kl / n, "in answers",
                     t->n_answer ? t->kl_answer / (double)t->n_answer : 0, "same top",
                     eval_percent((double)t->n_same_best, n), "perplexity", exp(t->nll / n),
                     "of reference", exp(t->nll_ref / n), "ratio", exp((t->nll - t->nll_ref) / n));
}

/* A row for each set, in the order of the texts, and one for all. */
static json_t *set_rows(const struct divergence *d, const struct reference *r)
{
    json_t *rows = json_array();
    for (int i = 0; i < d->n_text;) {
        struct divergence_text sum = { 0 };
        const char *set = reference_doc(r, d->text[i].doc)->set;
        while (i < d->n_text && strcmp(reference_doc(r, d->text[i].doc)->set, set) == 0)
            divergence_add(&sum, &d->text[i++]);
        json_array_append_new(rows, text_row(set, &sum));
    }
    json_array_append_new(rows, text_row("all", &d->all));
    return rows;
}

static json_t *layer_rows(const struct divergence *d)
{
    json_t *rows = json_array();
    for (int l = 0; l < d->n_layer; l++) {
        const struct divergence_layer *x = &d->layer[l];
        json_t *row = json_pack("{s:o, s:s, s:f, s:f, s:f}", "layer", json_sprintf("%d", l),
                                "router", x->learned ? "learned" : "hash", "same set",
                                eval_percent((double)x->n_same_set, (double)x->n_row),
                                "same experts",
                                eval_percent((double)x->n_same_expert,
                                             (double)x->n_row * d->n_used),
                                "error", x->size > 0 ? sqrt(x->error / x->size) : 0);
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *text_rows(const struct divergence *d, const struct reference *r)
{
    json_t *rows = json_array();
    for (int i = 0; i < d->n_text; i++) {
        const struct divergence_text *t = &d->text[i];
        const struct text_doc *doc = reference_doc(r, t->doc);
        json_t *row = json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:I}", "name", doc->name,
                                "set", doc->set, "rows", (json_int_t)t->n_row, "answer_rows",
                                (json_int_t)t->n_answer, "kl", t->kl, "answer_kl", t->kl_answer,
                                "nll", t->nll, "nll_reference", t->nll_ref, "same_best",
                                (json_int_t)t->n_same_best);
        json_array_append_new(rows, row);
    }
    return rows;
}

/* Over layers whose router may differ. */
static void sum_routes(const struct divergence *d, double *same_set, double *same_expert)
{
    double n = 0, sets = 0, experts = 0;
    for (int l = 0; l < d->n_layer; l++) {
        const struct divergence_layer *x = &d->layer[l];
        if (x->learned) {
            n += (double)x->n_row;
            sets += (double)x->n_same_set;
            experts += (double)x->n_same_expert;
        }
    }
    *same_set = eval_percent(sets, n);
    *same_expert = eval_percent(experts, n * d->n_used);
}

static json_t *summary(const struct divergence *d)
{
    double n = (double)d->all.n_row, same_set, same_expert;
    sum_routes(d, &same_set, &same_expert);
    double n_answer = (double)d->all.n_answer;
    return json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
                     "rows", (json_int_t)d->all.n_row, "answer_rows", (json_int_t)d->all.n_answer,
                     "kl_mean", d->all.kl / n, "kl_answers",
                     n_answer > 0 ? d->all.kl_answer / n_answer : 0, "kl_median", d->kl_50,
                     "kl_99", d->kl_99, "kl_999", d->kl_999, "kl_max", d->kl_max,
                     "same_top_percent", eval_percent((double)d->all.n_same_best, n), "perplexity",
                     exp(d->all.nll / n), "perplexity_reference", exp(d->all.nll_ref / n),
                     "perplexity_ratio", exp((d->all.nll - d->all.nll_ref) / n),
                     "probability_change_rms", sqrt(d->change / n), "same_set_percent", same_set,
                     "same_expert_percent", same_expert);
}

static json_t *reference_json(const struct reference *r)
{
    const struct reference_info *info = reference_info(r);
    return json_pack("{s:s, s:s, s:i, s:I, s:I, s:o}", "model", info->model, "device",
                     info->device, "texts", info->n_doc, "tokens", (json_int_t)info->n_tok, "rows",
                     (json_int_t)info->n_row, "text_hash",
                     json_sprintf("%016llx", (unsigned long long)info->text_hash));
}

int kl_report_json(const struct kl_report *k)
{
    const struct divergence *d = k->divergence;
    const struct reference *r = k->reference;
    json_t *root = eval_head(k->model);
    const char *path = k->model->path, *slash = strrchr(path, '/');
    json_object_set_new(root, "label",
                        json_string(k->label ? k->label : slash ? slash + 1 : path));
    json_object_set_new(root, "exact", json_boolean(k->exact));
    json_object_set_new(root, "reference", reference_json(r));
    json_object_set_new(root, "summary", summary(d));
    json_object_set_new(root, "results", set_rows(d, r));
    json_object_set_new(root, "layers", layer_rows(d));
    json_object_set_new(root, "texts", text_rows(d, r));
    return eval_put_json(root);
}

void kl_report_tables(const struct kl_report *k)
{
    static const struct eval_column set[] = {
        { "set", -1 },      { "rows", -1 },      { "KL", 6 },           { "in answers", 6 },
        { "same top", 2 },  { "perplexity", 4 }, { "of reference", 4 }, { "ratio", 4 },
    };
    static const struct eval_column layer[] = {
        { "layer", -1 }, { "router", -1 }, { "same set", 2 }, { "same experts", 2 }, { "error", 5 },
    };
    const struct divergence *d = k->divergence;
    const struct reference *r = k->reference;
    double same_set, same_expert;
    json_t *rows = set_rows(d, r), *layers = layer_rows(d);
    sum_routes(d, &same_set, &same_expert);
    eval_print(k->model, set, COUNT_OF(set), rows);
    printf("\nKL in nats: median %.3g, 99 %% %.4g, 99.9 %% %.4g, largest %.4g\n"
           "learned routers: %.2f %% of sets the same, %.2f %% of experts\n\n",
           d->kl_50, d->kl_99, d->kl_999, d->kl_max, same_set, same_expert);
    eval_print_rows(layer, COUNT_OF(layer), layers);
    json_decref(rows);
    json_decref(layers);
}
