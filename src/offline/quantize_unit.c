/* quantize_unit.c - one unit: read it, find what its columns weigh, encode it.
 *
 * Sources are read, not mapped, for the reasons import_convert.c gives. */
#include "quantize_impl.h"

#include "hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* As if every expert had seen so many tokens of the average expert: few tokens say little. */
#define PRIOR_TOKENS 256.0

/* A column hardly ever used is not free. */
#define LEAST_SHARE 1e-4f

int quantize_read(struct quantize_worker *w, const struct quantize_unit *u, uint64_t *hash,
                  struct err *e)
{
    const struct quantize *q = w->q;
    struct quantize_source s = w->source = quantize_source_of(q, u);
    size_t n = (size_t)u->n_row * s.row_bytes, n_scale = 0;
    CHECK(n <= q->most.src);
    TRY(file_in_read_at(&q->im.in[s.w->file], s.w->offset + s.row * (int64_t)s.row_bytes, w->src,
                        n, e));
    if (s.scales) {
        n_scale = (size_t)(s.n_scale_row * s.scales->dim[0]);
        CHECK(n_scale <= q->most.scale);
        TRY(file_in_read_at(&q->im.in[s.scales->file],
                            s.scales->offset + s.scale_row * s.scales->dim[0], w->scale, n_scale,
                            e));
    }
    *hash = hash_of(w->scale, n_scale, hash_of(w->src, n, 0));
    return 0;
}

/* Row i of the unit as it was read. */
static struct quant_run run_of(const struct quantize_worker *w, int64_t i)
{
    const struct quantize_source *s = &w->source;
    int64_t tile = s->w->type == DT_FP4 ? 1 : 128;
    const uint8_t *scale = NULL;
    if (s->scales)
        scale = w->scale + ((s->row + i) / tile - s->scale_row) * s->scales->dim[0];
    return (struct quant_run){ s->w->type, w->src + (size_t)i * s->row_bytes, scale };
}

static int64_t first_bad(const float *x, int64_t n, float limit)
{
    for (int64_t i = 0; i < n; i++) {
        if (!(fabsf(x[i]) < limit))
            return i;
    }
    return -1;
}

static int bad_number(const struct quantize_worker *w, int64_t row, int64_t col, const char *what,
                      struct err *e)
{
    const struct weight *t = w->source.w;
    return err_set(e, ERR_FORMAT, "%s: tensor %s, row %lld, element %lld %s",
                   weights_file(w->q->im.files, t->file), t->name,
                   (long long)(w->source.row + row), (long long)col, what);
}

int quantize_row(struct quantize_worker *w, int64_t i, float *num, struct err *e)
{
    int64_t cols = w->source.w->dim[0];
    struct quant_run run = run_of(w, i);
    quant_decode(run.type, run.data, run.scale, num, (int)cols);
    int64_t bad = first_bad(num, cols, INFINITY);
    return bad < 0 ? 0 : bad_number(w, i, bad, "is infinite or not a number", e);
}

/* ---- importance ---- */

/* The average expert, in w->sum: each counts by its tokens, or, where these are not known, the
 * ones that saw any alike. *n: tokens or experts in all. */
static int average(struct quantize_worker *w, const struct quantize_tensor *t, double *n,
                   struct err *e)
{
    const struct imatrix *m = w->q->imatrix;
    memset(w->sum, 0, (size_t)t->dim[0] * sizeof *w->sum);
    *n = 0;
    for (int64_t x = 0; x < t->dim[2]; x++) {
        double n_token, total = 0;
        TRY(imatrix_read(m, t->entry, x, t->dim[0], w->weight, &n_token, e));
        for (int64_t j = 0; n_token < 0 && j < t->dim[0]; j++)
            total += (double)w->weight[j];
        double share = n_token < 0 ? (double)(total > 0) : n_token;
        for (int64_t j = 0; j < t->dim[0]; j++)
            w->sum[j] += share * (double)w->weight[j];
        *n += share;
    }
    for (int64_t j = 0; *n > 0 && j < t->dim[0]; j++)
        w->sum[j] /= *n;
    return 0;
}

static int from_imatrix(struct quantize_worker *w, const struct quantize_unit *u, struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    const struct imatrix *m = w->q->imatrix;
    float *imp = w->importance;
    double n_token, n, total = 0;
    if (t->dim[2] > 1)
        TRY(average(w, t, &n, e));
    TRY(imatrix_read(m, t->entry, u->slice, t->dim[0], imp, &n_token, e));
    for (int64_t j = 0; j < t->dim[0]; j++)
        total += (double)imp[j];
    for (int64_t j = 0; t->dim[2] > 1 && j < t->dim[0]; j++) {
        if (n_token >= 0)
            imp[j] = (float)((n_token * (double)imp[j] + PRIOR_TOKENS * w->sum[j]) /
                             (n_token + PRIOR_TOKENS));
        else if (!(total > 0))
            imp[j] = (float)w->sum[j];
    }
    return 0;
}

/* Mixed with the average expert's in the same shares as the mean squares. */
int quantize_mean(struct quantize_worker *w, const struct quantize_unit *u, struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    const struct imatrix *m = w->q->imatrix;
    float *mean = w->means.mean;
    double n_token, n = 0, prior = t->dim[2] > 1 ? PRIOR_TOKENS : 0;
    memset(w->sum, 0, (size_t)t->dim[0] * sizeof *w->sum);
    for (int64_t x = 0; x < t->dim[2]; x++) {
        TRY(imatrix_read(m, t->entry, x, t->dim[0], mean, &n_token, e));
        TRY(imatrix_read_values(m, t->entry, x, t->dim[0], mean, e));
        for (int64_t j = 0; j < t->dim[0]; j++)
            w->sum[j] += n_token * (double)mean[j];
        n += n_token;
    }
    TRY(imatrix_read(m, t->entry, u->slice, t->dim[0], mean, &n_token, e));
    TRY(imatrix_read_values(m, t->entry, u->slice, t->dim[0], mean, e));
    for (int64_t j = 0; j < t->dim[0]; j++) {
        double sum = n_token * (double)mean[j] + prior * w->sum[j] / MAX(n, 1);
        mean[j] = (float)(sum / MAX(n_token + prior, 1));
    }
    return 0;
}

/* Mean squares of the unit's own numbers. */
static int from_columns(struct quantize_worker *w, const struct quantize_unit *u, struct err *e)
{
    int64_t cols = w->q->tensor[u->tensor].dim[0];
    memset(w->sum, 0, (size_t)cols * sizeof *w->sum);
    for (int64_t i = 0; i < u->n_row; i++) {
        TRY(quantize_row(w, i, w->num, e));
        for (int64_t j = 0; j < cols; j++)
            w->sum[j] += (double)w->num[j] * (double)w->num[j];
    }
    for (int64_t j = 0; j < cols; j++)
        w->importance[j] = (float)(w->sum[j] / (double)u->n_row);
    return 0;
}

int quantize_check_importance(struct quantize *q, struct err *e)
{
    int n_few = 0, n_vector = 0;
    float *mean = malloc(q->most.cols * sizeof *mean);
    int code = mean ? 0 : err_set(e, ERR_NO_MEMORY, "out of memory for an importance");
    for (int i = 0; i < q->n_tensor && code == 0; i++) {
        const struct quantize_tensor *t = &q->tensor[i];
        for (int64_t x = 0; t->entry >= 0 && x < t->dim[2] && code == 0; x++) {
            double n_token = 0;
            code = imatrix_read(q->imatrix, t->entry, x, t->dim[0], mean, &n_token, e);
            if (code == 0 && imatrix_has_values(q->imatrix, t->entry))
                code = imatrix_read_values(q->imatrix, t->entry, x, t->dim[0], mean, e);
            n_few += n_token >= 0 && n_token < PRIOR_TOKENS;
            n_vector++;
        }
    }
    free(mean);
    if (code == 0 && n_few > 0)
        log_put(q->o->log, LOG_INFO, "%d of %d importances are of fewer than %.0f tokens and lean "
                "on their layer's average", n_few, n_vector, PRIOR_TOKENS);
    return code;
}

int quantize_importance(struct quantize_worker *w, const struct quantize_unit *u,
                        const float **importance, struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    int64_t cols = t->dim[0];
    double total = 0;
    *importance = NULL;
    if (t->weights == RECIPE_NONE)
        return 0;
    TRY(t->weights == RECIPE_IMATRIX ? from_imatrix(w, u, e) : from_columns(w, u, e));
    for (int64_t j = 0; j < cols; j++)
        total += (double)w->importance[j];
    if (t->weights == RECIPE_IMATRIX && !(total > 0))
        return err_set(e, ERR_MISMATCH, "%s: entry %s has no token for any input",
                       imatrix_path(w->q->imatrix), t->name);
    float least = (float)(total / (double)cols) * LEAST_SHARE;
    for (int64_t j = 0; j < cols; j++)
        w->importance[j] = MAX(w->importance[j], least);
    *importance = total > 0 ? w->importance : NULL;
    return 0;
}

/* ---- encoding ---- */

void quantize_search_row(struct quantize_worker *w, const struct quantize_tensor *t, const float *x,
                         const float *importance, uint8_t *dst)
{
    int cols = (int)t->dim[0];
    quant_emphasise(x, importance, t->rule->power, w->weight, cols);
    quant_search_row(w->search[t->rule->effort], t->type, x, w->weight, dst, cols);
    quantize_correct(w, t, x, importance, dst);
}

static int encode_searched(struct quantize_worker *w, const struct quantize_unit *u, bool *fed,
                           struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    size_t row_bytes = dtype_bytes(t->type, (size_t)t->dim[0]);
    const float *importance;
    TRY(quantize_importance(w, u, &importance, e));
    TRY(quantize_prepare(w, u, importance, e));
    TRY(quantize_wants_feedback(w, u, importance, fed, e));
    if (*fed)
        TRY(quantize_encode_feedback(w, u, importance, e));
    for (int64_t i = 0; i < u->n_row && !*fed; i++) {
        TRY(quantize_row(w, i, w->num, e));
        quantize_search_row(w, t, w->num, importance, w->dst + (size_t)i * row_bytes);
    }
    return 0;
}

static int encode_ids(struct quantize_worker *w, const struct quantize_unit *u, struct err *e)
{
    int64_t cols = w->source.w->dim[0];
    for (int64_t i = 0; i < u->n_row * cols; i++) {
        int64_t id = 0;
        int32_t id32;
        if (w->source.w->type == DT_I64) {
            memcpy(&id, w->src + 8 * i, 8);
        } else {
            memcpy(&id32, w->src + 4 * i, 4);
            id = id32;
        }
        if (id < 0 || id >= w->q->im.h.n_expert)
            return bad_number(w, i / cols, i % cols, "is no expert's number", e);
        id32 = (int32_t)id;
        memcpy(w->dst + 4 * i, &id32, 4);
    }
    return 0;
}

/* Why a row could not be recoded. */
static int not_recoded(struct quantize_worker *w, enum dtype type, int64_t i, struct err *e)
{
    char what[64];
    TRY(quantize_row(w, i, w->num, e));
    int64_t bad = first_bad(w->num, w->source.w->dim[0], type == DT_BF16 ? 3.3961775e38f : 65520);
    snprintf(what, sizeof what, "is too large for %s", dtype_name((int)type));
    return bad_number(w, i, MAX(bad, 0), what, e);
}

/* The same type: the same bytes, if they are numbers. */
static int copy(struct quantize_worker *w, const struct quantize_unit *u, struct err *e)
{
    for (int64_t i = 0; i < u->n_row; i++)
        TRY(quantize_row(w, i, w->num, e));
    memcpy(w->dst, w->src, (size_t)u->n_row * w->source.row_bytes);
    return 0;
}

int quantize_encode(struct quantize_worker *w, const struct quantize_unit *u, bool *fed,
                    struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    int cols = (int)t->dim[0];
    *fed = false;
    if (t->type == DT_I32)
        return encode_ids(w, u, e);
    if (t->from == t->type)
        return copy(w, u, e);
    if (quantize_searches(t))
        return encode_searched(w, u, fed, e);
    size_t row_bytes = dtype_bytes(t->type, (size_t)cols);
    for (int64_t i = 0; i < u->n_row; i++) {
        struct quant_run run = run_of(w, i);
        if (!quant_recode(w->search[0], &run, t->type, w->dst + (size_t)i * row_bytes, w->num,
                          cols))
            return not_recoded(w, t->type, i, e);
    }
    return 0;
}
