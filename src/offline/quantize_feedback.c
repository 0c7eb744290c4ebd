/* quantize_feedback.c - error feedback for whole matrices: one correlation of the inputs for all
 * matrices that read them, each with its own importances.
 *
 * How far the correlation is to be trusted depends on the number of tokens, and on more: they are
 * no independent draws. So everything off the diagonal is shrunk by a share, and the share is tried
 * out: a probe of random errors is fed through the factor of what was learned and judged by tokens
 * that were held out, which is within a percent of what coding weights gives and a thousandth of
 * its work. Then each unit codes a sample of rows in both ways, and the same tokens decide.
 *
 * Each row keeps the weights that the diagonal method gives it, and is searched for as much larger
 * as that method found it to become smaller: quantize_gain.c. Scaled afterwards instead, it would
 * answer for errors that it no longer has.
 * Rejected: a share from the number of tokens alone (tokens of a text resemble each other); the
 * share that brings the matrix nearest to the held-out one, as errors of small eigenvalues count
 * for little there and most here. */
#include "quantize_impl.h"

#include "cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PROBE_SEED = 1, INPUTS_NAME_MAX = DSV4_NAME_MAX + 24 };

/* ---- which inputs ---- */

/* Gate and up have the same. slice -1: of the layer, else of one expert alone. */
static int find_entry(const struct quantize *q, const struct quantize_tensor *t, int64_t slice,
                      char name[INPUTS_NAME_MAX])
{
    char same[DSV4_NAME_MAX];
    snprintf(same, sizeof same, "%s", t->name);
    if (t->role == DSV4_UP_EXPS)
        dsv4_gguf_name(same, DSV4_GATE_EXPS, t->block);
    char *end = strstr(same, ".weight");
    if (end)
        *end = 0;
    if (slice < 0)
        snprintf(name, INPUTS_NAME_MAX, "%s", same);
    else
        snprintf(name, INPUTS_NAME_MAX, "%s.%lld", same, (long long)slice);
    return q->hessian && t->n_dim > 1 ? hessian_find(q->hessian, name) : -1;
}

static int check_entry(const struct quantize *q, const struct quantize_tensor *t, int entry,
                       struct err *e)
{
    const char *name = hessian_name(q->hessian, entry);
    if (hessian_size(q->hessian, entry) != t->dim[0])
        return err_set(e, ERR_MISMATCH, "%s: tensor %s.hessian is of %d columns, expected the %lld "
                       "of tensor %s", hessian_path(q->hessian), name,
                       hessian_size(q->hessian, entry), (long long)t->dim[0], t->name);
    if (hessian_tokens(q->hessian, entry, HESSIAN_LEARN) == 0)
        return err_set(e, ERR_MISMATCH, "%s: tensor %s.hessian is of no token",
                       hessian_path(q->hessian), name);
    return 0;
}

int quantize_find_inputs(const struct quantize *q, struct quantize_tensor *t, struct err *e)
{
    char name[INPUTS_NAME_MAX];
    bool searched = quantize_searches(t) && quant_has_feedback(t->type);
    bool must = searched && t->rule->action == RECIPE_TYPE && t->rule->ldlq == RECIPE_LDLQ_ON;
    t->inputs = find_entry(q, t, -1, name);
    t->feedback = searched && t->inputs >= 0 && t->rule->ldlq != RECIPE_LDLQ_OFF;
    if (must && t->inputs < 0)
        return err_set(e, q->hessian ? ERR_MISMATCH : ERR_ARGUMENT,
                       "recipe %s, line %d: tensor %s wants error feedback, and %s%s is not there",
                       q->recipe.name, t->rule->line, t->name, q->hessian ? name : "a Hessian file",
                       q->hessian ? ".hessian" : "");
    return t->inputs < 0 ? 0 : check_entry(q, t, t->inputs, e);
}

/* Experts see the same numbers in the same places; the numbers between their two products mean
 * something else in each, and what goes together in one says nothing about another. */
static bool is_shared(const struct quantize_tensor *t)
{
    return t->dim[2] == 1 || t->role != DSV4_DOWN_EXPS || t->rule->ldlq == RECIPE_LDLQ_ON;
}

int quantize_divide_inputs(struct quantize *q, struct err *e)
{
    char name[INPUTS_NAME_MAX];
    q->unit_inputs = calloc((size_t)q->n_unit, sizeof *q->unit_inputs);
    q->unit_feeds = calloc((size_t)q->n_unit, sizeof *q->unit_feeds);
    if (!q->unit_inputs || !q->unit_feeds)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d units", q->n_unit);
    for (int i = 0; i < q->n_unit; i++) {
        const struct quantize_tensor *t = &q->tensor[q->unit[i].tensor];
        int own = t->inputs < 0 || t->dim[2] == 1 ? -1 : find_entry(q, t, q->unit[i].slice, name);
        /* what an expert saw too little of says nothing */
        if (own >= 0 && hessian_tokens(q->hessian, own, HESSIAN_LEARN) < t->dim[0])
            own = -1;
        q->unit_inputs[i] = own >= 0 ? own : t->inputs;
        q->unit_feeds[i] = t->feedback && (own >= 0 || is_shared(t));
        if (own >= 0)
            TRY(check_entry(q, t, own, e));
    }
    return 0;
}

/* ---- correlations ---- */

void quantize_drop_inputs(struct quantize *q)
{
    struct quantize_inputs *in = &q->inputs;
    free(in->root);
    free(in->learn);
    free(in->held);
    free(in->mem);
    *in = (struct quantize_inputs){ .entry = -1 };
}

static float *take(size_t n)
{
    return aligned_alloc(64, round_up(n * sizeof(float), 64));
}

/* A part's correlation in tiles, in units of the roots, which the first part sets. */
static int read_part(struct quantize *q, enum hessian_part part, float *to, struct err *e)
{
    struct quantize_inputs *in = &q->inputs;
    float *row = take((size_t)in->n), *by = take((size_t)in->n);
    int code = row && by ? 0 : err_set(e, ERR_NO_MEMORY, "out of memory for %d columns", in->n);
    for (int i = 0; i < in->n && code == 0; i++) {
        code = hessian_row(q->hessian, in->entry, part, i, row, e);
        if (code < 0)
            break;
        if (part == HESSIAN_LEARN)
            in->root[i] = sqrtf(row[i]);
        by[i] = in->root[i] > 0 ? 1 / in->root[i] : 0;
        for (int j = 0; j <= i; j++) {
            float x = row[j] * by[i] * by[j];
            to[quant_factor_at(in->n, i, j)] = to[quant_factor_at(in->n, j, i)] = x;
        }
    }
    free(row);
    free(by);
    return code;
}

/* The factor of what was learned, all but the diagonal less by a share. */
static bool make_factor(struct quantize *q, float shrink)
{
    struct quantize_inputs *in = &q->inputs;
    size_t n = (size_t)in->n;
    for (size_t i = 0; i < n * n; i++)
        in->mem[i] = (1 - shrink) * in->learn[i];
    for (int i = 0; i < in->n; i++)
        in->mem[quant_factor_at(in->n, i, i)] = 1;
    return quant_factor_make(&in->factor, in->mem, in->n, cpu_isa_detect(), q->pool);
}

/* The share of the loss over the held-out tokens that the factor should leave. */
static double probe(struct quantize *q)
{
    struct quantize_inputs *in = &q->inputs;
    struct quant_feedback *b = &q->worker[0].feedback;
    double sum = 0;
    for (int i = 0; i < in->n; i++)
        sum += (double)in->held[quant_factor_at(in->n, i, i)];
    quant_feedback_probe(b, &in->factor, PROBE_SEED);
    return quant_feedback_loss(b, in->held) / (sum * (QUANT_FEEDBACK_ROWS / 3.0));
}

/* From much to little, as long as it helps. */
static void choose_shrink(struct quantize *q, struct quantize_told *told)
{
    static const float shares[] = { .85f, .6f, .35f, .15f, .05f };
    struct quantize_inputs *in = &q->inputs;
    *told = (struct quantize_told){ .left = 1 };
    for (size_t i = 0; i < COUNT_OF(shares); i++) {
        double left = make_factor(q, shares[i]) ? probe(q) : INFINITY;
        if (!(left < (double)told->left)) {
            in->useful = told->shrink > 0;
            in->made = make_factor(q, in->useful ? told->shrink : shares[0]);
            return;
        }
        *told = (struct quantize_told){ shares[i], (float)left };
    }
    in->made = in->useful = true;
}

/* Without held-out tokens: about what is best for independent ones. */
static void guess_shrink(struct quantize *q, struct quantize_told *told)
{
    struct quantize_inputs *in = &q->inputs;
    double per = (double)hessian_tokens(q->hessian, in->entry, HESSIAN_LEARN) / in->n;
    told->left = -1;
    told->shrink = (float)(1 / (1 + sqrt(per)));
    in->made = in->useful = make_factor(q, told->shrink);
}

static int no_memory(const struct quantize *q, struct err *e)
{
    return err_set(e, ERR_NO_MEMORY, "out of memory for inputs %s of %d columns",
                   hessian_name(q->hessian, q->inputs.entry), q->inputs.n);
}

int quantize_load_inputs(struct quantize *q, int entry, bool factor, struct err *e)
{
    struct quantize_inputs *in = &q->inputs;
    quantize_drop_inputs(q);
    if (entry < 0)
        return 0;
    in->entry = entry;
    in->n = hessian_size(q->hessian, entry);
    in->judged = hessian_tokens(q->hessian, entry, HESSIAN_HELD) > 0;
    size_t n = (size_t)in->n;
    in->root = take(n);
    in->learn = take(n * n);
    if (!in->root || !in->learn)
        return no_memory(q, e);
    TRY(read_part(q, HESSIAN_LEARN, in->learn, e));
    if (in->judged && !(in->held = take(n * n)))
        return no_memory(q, e);
    if (in->judged)
        TRY(read_part(q, HESSIAN_HELD, in->held, e));
    for (int i = 0; i < q->n_thread; i++)
        quant_feedback_init(&q->worker[i].feedback, q->worker[i].feedback_mem, in->n,
                            cpu_isa_detect());
    if (!factor)
        return 0;
    if (!(in->mem = take(quant_factor_floats(in->n))))
        return no_memory(q, e);
    if (in->judged)
        choose_shrink(q, &q->told[entry]);
    else
        guess_shrink(q, &q->told[entry]);
    free(in->learn);
    in->learn = NULL;
    return 0;
}

/* ---- units ---- */

int quantize_open_feedback(struct quantize *q, struct quantize_worker *w, struct err *e)
{
    size_t n = q->most.inputs;
    if (n == 0)
        return 0;
    w->feedback_mem = take(quant_feedback_floats((int)round_up(n, 256)));
    w->rows = take(QUANT_FEEDBACK_ROWS * n);
    w->root = take(n);
    w->row_root = take(QUANT_FEEDBACK_ROWS * n);
    w->sample = malloc(QUANT_FEEDBACK_ROWS * q->most.sample);
    if (!w->feedback_mem || !w->rows || !w->root || !w->row_root || !w->sample)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d threads", q->n_thread);
    return 0;
}

void quantize_close_feedback(struct quantize_worker *w)
{
    free(w->feedback_mem);
    free(w->rows);
    free(w->root);
    free(w->row_root);
    free(w->sample);
}

/* Square roots of the importances, or, where there are none, of the inputs' own mean squares. */
static void set_root(struct quantize_worker *w, const struct quantize_unit *u,
                     const float *importance)
{
    const struct quantize_inputs *in = &w->q->inputs;
    bool own = w->q->tensor[u->tensor].weights == RECIPE_IMATRIX && importance;
    double sum = 0;
    for (int j = 0; j < in->n; j++) {
        w->root[j] = own ? sqrtf(importance[j]) : in->root[j];
        sum += (double)w->root[j];
    }
    float least = sum > 0 ? (float)(sum / in->n) * .01f : 1;
    for (int j = 0; j < in->n; j++)
        w->root[j] = MAX(w->root[j], least);
}

/* Rows spread evenly over the unit, or all; the first `of` of a run from `from` if of > 0. */
static int read_rows(struct quantize_worker *w, const struct quantize_unit *u, int64_t from, int of,
                     struct quant_rows *rows, struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    rows->n_row = of ? of : (int)MIN(u->n_row, QUANT_FEEDBACK_ROWS);
    rows->type = t->type;
    rows->root = w->root;
    rows->x = w->rows;
    for (int i = 0; i < rows->n_row; i++) {
        int64_t at = of ? from + i : i * u->n_row / rows->n_row;
        TRY(quantize_row(w, at, w->rows + (size_t)i * (size_t)t->dim[0], e));
    }
    return 0;
}

/* Each row by the weights that the diagonal method gives it. */
static void emphasise(struct quantize_worker *w, const struct quantize_tensor *t,
                      struct quant_rows *rows)
{
    int n = (int)t->dim[0];
    for (int i = 0; i < rows->n_row; i++) {
        float *to = w->row_root + (size_t)i * (size_t)n;
        for (int j = 0; j < n; j++)
            w->weight[j] = w->root[j] * w->root[j];
        quant_emphasise(rows->x + (size_t)i * (size_t)n, w->weight, t->rule->power, to, n);
        float most = 0;
        for (int j = 0; j < n; j++)
            most = MAX(most, to[j]);
        for (int j = 0; j < n; j++)
            to[j] = most > 0 ? sqrtf(MAX(to[j], most * 1e-8f)) : 1;
    }
    rows->root = w->row_root;
    rows->root_step = (size_t)n;
}

/* How much the rows would lose of their size, by the diagonal method; packs them so. */
static void find_factors(struct quantize_worker *w, const struct quantize_tensor *t,
                         const float *importance, struct quant_rows *rows)
{
    size_t n = (size_t)t->dim[0], row_bytes = dtype_bytes(t->type, n);
    if (!t->rule->gain)
        return;
    for (int i = 0; i < rows->n_row; i++) {
        const float *x = rows->x + (size_t)i * n;
        uint8_t *row = (uint8_t *)rows->dst + (size_t)i * row_bytes;
        quant_emphasise(x, importance, t->rule->power, w->weight, (int)n);
        quant_search_row(w->search[t->rule->effort], t->type, x, w->weight, row, (int)n);
        w->factor[i] = (float)quantize_gain(w, t, x, importance, row);
    }
    rows->factor = w->factor;
}

int quantize_wants_feedback(struct quantize_worker *w, const struct quantize_unit *u,
                            const float *importance, bool *wants, struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    const struct quantize_inputs *in = &w->q->inputs;
    struct quant_rows rows = { .dst = w->sample };
    *wants = false;
    if (!w->q->unit_feeds[u - w->q->unit])
        return 0;
    bool must = t->rule->ldlq == RECIPE_LDLQ_ON;
    if (must && !in->made)
        return err_set(e, ERR_FORMAT, "%s: tensor %s.hessian is not positive definite",
                       hessian_path(w->q->hessian), hessian_name(w->q->hessian, in->entry));
    *wants = must;
    if (must || !in->useful || !in->judged)
        return 0;
    set_root(w, u, importance);
    TRY(read_rows(w, u, 0, 0, &rows, e));
    for (int i = 0; i < rows.n_row; i++)
        quantize_search_row(w, t, w->rows + (size_t)i * (size_t)t->dim[0], importance,
                            w->sample + (size_t)i * dtype_bytes(t->type, (size_t)t->dim[0]));
    quant_feedback_compare(&w->feedback, &rows);
    double without = quant_feedback_loss(&w->feedback, in->held);
    struct quant_rows emphasised = rows;
    emphasise(w, t, &emphasised);
    find_factors(w, t, importance, &emphasised);
    quant_feedback_rows(&w->feedback, w->search[t->rule->effort], &in->factor, &emphasised);
    quant_feedback_compare(&w->feedback, &rows);
    *wants = quant_feedback_loss(&w->feedback, in->held) < without;
    return 0;
}

int quantize_encode_feedback(struct quantize_worker *w, const struct quantize_unit *u,
                             const float *importance, struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    size_t row_bytes = dtype_bytes(t->type, (size_t)t->dim[0]);
    set_root(w, u, importance);
    for (int64_t at = 0; at < u->n_row; at += QUANT_FEEDBACK_ROWS) {
        struct quant_rows rows = { .dst = w->dst + (size_t)at * row_bytes };
        TRY(read_rows(w, u, at, (int)MIN(QUANT_FEEDBACK_ROWS, u->n_row - at), &rows, e));
        emphasise(w, t, &rows);
        find_factors(w, t, importance, &rows);
        quant_feedback_rows(&w->feedback, w->search[t->rule->effort], &w->q->inputs.factor, &rows);
    }
    return 0;
}

int quantize_output_error(struct quantize_worker *w, const struct quantize_unit *u,
                          const float *importance, double error[2], struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    const struct quantize_inputs *in = &w->q->inputs;
    const float *h = in->held ? in->held : in->learn;
    size_t row_bytes = dtype_bytes(t->type, (size_t)t->dim[0]);
    struct quant_rows rows = { .dst = w->sample };
    set_root(w, u, importance);
    TRY(read_rows(w, u, 0, 0, &rows, e));
    memset(w->sample, 0, (size_t)rows.n_row * row_bytes); /* zeros of every type */
    quant_feedback_compare(&w->feedback, &rows);
    error[1] = quant_feedback_loss(&w->feedback, h);
    for (int i = 0; i < rows.n_row; i++)
        memcpy(w->sample + (size_t)i * row_bytes,
               w->dst + (size_t)(i * u->n_row / rows.n_row) * row_bytes, row_bytes);
    quant_feedback_compare(&w->feedback, &rows);
    error[0] = quant_feedback_loss(&w->feedback, h);
    return 0;
}

/* ---- what was chosen ---- */

void quantize_put_fed(struct quantize *q)
{
    struct gguf_writer *out = &q->im.out;
    int n = 0;
    char hash[20];
    int32_t *part = calloc((size_t)q->n_tensor, sizeof *part);
    for (int i = 0; part && i < q->n_tensor; i++) {
        if (q->tensor[i].feedback)
            part[n++] = q->tensor[i].n_part;
    }
    out->kv.failed |= !part;
    if (n > 0) {
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)hessian_hash(q->hessian));
        gguf_put_str(out, "dwarfstar.quantize.hessian_hash", hash);
        gguf_put_strs(out, "dwarfstar.quantize.feedback.tensors", n);
        for (int i = 0; i < q->n_tensor; i++) {
            if (q->tensor[i].feedback)
                gguf_put_item(out, q->tensor[i].name, strlen(q->tensor[i].name));
        }
        gguf_put_i32s(out, "dwarfstar.quantize.feedback.parts", part, n);
        memset(part, 0, (size_t)n * sizeof *part); /* known at the end */
        gguf_put_i32s(out, "dwarfstar.quantize.feedback.chosen", part, n);
        q->fed_at = gguf_i32s_at(out, n);
    }
    free(part);
}

/* What was found about the inputs of the tensor's units, on average. */
static struct quantize_told mean_told(const struct quantize *q, int tensor, int *n_useless)
{
    struct quantize_told mean = { 0 };
    int n = 0;
    *n_useless = 0;
    for (int i = 0; i < q->n_unit; i++) {
        if (q->unit[i].tensor != tensor)
            continue;
        const struct quantize_told *x = &q->told[q->unit_inputs[i]];
        *n_useless += x->shrink == 0 && x->left > 0;
        if (x->shrink > 0) {
            mean.shrink += x->shrink;
            mean.left += x->left;
            n++;
        }
    }
    mean.shrink /= (float)MAX(n, 1);
    mean.left /= (float)MAX(n, 1);
    return mean;
}

static void remark(const struct quantize *q, int tensor, int n_fed)
{
    int n_useless;
    const struct quantize_tensor *t = &q->tensor[tensor];
    struct quantize_told told = mean_told(q, tensor, &n_useless);
    char text[120] = "";
    if (told.shrink > 0 && told.left >= 0)
        snprintf(text, sizeof text, "; correlation less by %.0f %%, told to leave %.0f %% of the "
                 "loss", 100 * (double)told.shrink, 100 * (double)told.left);
    else if (told.left < 0)
        snprintf(text, sizeof text, "; no held-out tokens to judge by");
    else if (n_useless)
        snprintf(text, sizeof text, "; the correlation is of no use for other tokens");
    log_put(q->o->log, LOG_INFO, "%s: error feedback in %d of %d parts%s", t->name, n_fed,
            t->n_part, text);
}

int quantize_write_fed(struct quantize *q, struct err *e)
{
    int n = 0, code = 0;
    int32_t *chosen = calloc((size_t)q->n_tensor + 1, sizeof *chosen);
    if (!chosen)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", q->n_tensor);
    for (int i = 0; i < q->n_tensor; i++) {
        if (!q->tensor[i].feedback)
            continue;
        for (int k = 0; k < q->n_unit; k++)
            chosen[n] += q->unit[k].tensor == i && q->fed[k];
        remark(q, i, chosen[n++]);
    }
    if (n > 0)
        code = gguf_write_i32s(&q->im.out, q->fed_at, chosen, n, e);
    free(chosen);
    return code;
}
