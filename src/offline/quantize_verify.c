/* quantize_verify.c - the finished file against its source, number by number. */
#include "quantize_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Of a unit, then of a tensor. */
struct difference {
    double square, of, weighted, weighted_of; /* of: the same sums of the source alone */
    double output[2]; /* the same of outputs, for a sample of rows */
    double largest;
    int64_t n_other_id;
};

struct verify {
    struct quantize q; /* first: units get a pointer to it */
    struct weights *made;
    struct file_in *in;
    const struct weight **tensor; /* [n_tensor] */
    struct difference *unit;      /* [n_unit] */
};

static void add_row(struct difference *d, const float *x, const float *y, const float *imp, int n)
{
    for (int j = 0; j < n; j++) {
        double a = (double)x[j], r = a - (double)y[j], w = imp ? (double)imp[j] : 1;
        d->square += r * r;
        d->of += a * a;
        d->weighted += w * r * r;
        d->weighted_of += w * a * a;
        d->largest = fmax(d->largest, fabs(r));
    }
}

static int compare_ids(struct quantize_worker *w, const struct quantize_unit *u,
                       struct difference *d, struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    size_t n = quantize_unit_bytes(w->q, u);
    uint8_t *made = malloc(n);
    if (!made)
        return err_set(e, ERR_NO_MEMORY, "out of memory for tensor %s", t->name);
    memcpy(made, w->dst, n);
    bool fed;
    int code = quantize_encode(w, u, &fed, e);
    for (size_t i = 0; i < n; i += 4)
        d->n_other_id += memcmp(made + i, w->dst + i, 4) != 0;
    free(made);
    return code;
}

static int compare_unit(struct quantize_worker *w, int i, struct err *e)
{
    struct verify *v = (struct verify *)w->q;
    const struct quantize_unit *u = &v->q.unit[i];
    const struct quantize_tensor *t = &v->q.tensor[u->tensor];
    const struct weight *made = v->tensor[u->tensor];
    int cols = (int)t->dim[0];
    size_t row_bytes = dtype_bytes(t->type, (size_t)cols);
    uint64_t hash;
    const float *imp = NULL;
    TRY(quantize_read(w, u, &hash, e));
    TRY(file_in_read_at(&v->in[made->file], made->offset + (int64_t)quantize_unit_at(w->q, u),
                        w->dst, quantize_unit_bytes(w->q, u), e));
    if (t->type == DT_I32)
        return compare_ids(w, u, &v->unit[i], e);
    TRY(quantize_importance(w, u, &imp, e));
    for (int64_t r = 0; r < u->n_row; r++) {
        TRY(quantize_row(w, r, w->num, e));
        quant_decode(t->type, w->dst + (size_t)r * row_bytes, NULL, w->weight, cols);
        for (int j = 0; j < cols; j++) {
            if (!isfinite(w->weight[j]))
                return err_set(e, ERR_FORMAT, "%s: tensor %s, row %lld is not of numbers",
                               v->q.o->out, t->name, (long long)(u->row + r));
        }
        add_row(&v->unit[i], w->num, w->weight, imp, cols);
    }
    return t->inputs < 0 ? 0 : quantize_output_error(w, u, imp, v->unit[i].output, e);
}

/* ---- opening ---- */

static int find_made(struct verify *v, int i, struct err *e)
{
    const struct quantize_tensor *t = &v->q.tensor[i];
    const struct weight *w = weights_find(v->made, t->name);
    if (!w)
        return err_set(e, ERR_MISMATCH, "%s: tensor %s is missing", v->q.o->out, t->name);
    if (memcmp(w->dim, t->dim, sizeof w->dim) != 0)
        return err_set(e, ERR_MISMATCH, "%s: tensor %s has another shape than in the source",
                       v->q.o->out, t->name);
    if (w->type != t->type)
        return err_set(e, ERR_MISMATCH, "%s: tensor %s is %s, the recipe says %s", v->q.o->out,
                       t->name, dtype_name((int)w->type), dtype_name((int)t->type));
    v->tensor[i] = w;
    return 0;
}

static int open_made(struct verify *v, struct err *e)
{
    TRY(weights_open(&v->made, v->q.o->out, e));
    int n = weights_n_file(v->made);
    v->in = calloc((size_t)n, sizeof *v->in);
    v->tensor = calloc((size_t)v->q.n_tensor, sizeof *v->tensor);
    v->unit = calloc((size_t)v->q.n_unit, sizeof *v->unit);
    if (!v->in || !v->tensor || !v->unit)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d units", v->q.n_unit);
    for (int i = 0; i < n; i++)
        TRY(file_in_open(&v->in[i], weights_file(v->made, i), e));
    for (int i = 0; i < v->q.n_tensor; i++)
        TRY(find_made(v, i, e));
    if (weights_count(v->made) != v->q.n_tensor)
        return err_set(e, ERR_MISMATCH, "%s: has %d tensors, the recipe says %d", v->q.o->out,
                       weights_count(v->made), v->q.n_tensor);
    return 0;
}

/* ---- the table ---- */

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_size);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* Is a tensor's error more than three typical deviations above its kind's median? */
static void mark_outliers(const struct quantize *q, const double *error, bool *mark)
{
    double *x = malloc((size_t)q->n_tensor * sizeof *x);
    for (int i = 0; x && i < q->n_tensor; i++) {
        int n = 0;
        for (int k = 0; k < q->n_tensor; k++) {
            if (q->tensor[k].role == q->tensor[i].role && q->tensor[k].type == q->tensor[i].type)
                x[n++] = error[k];
        }
        double middle = median(x, n);
        for (int k = 0; k < n; k++)
            x[k] = fabs(x[k] - middle);
        /* below 1e-5 nothing is rounded but last bits */
        mark[i] = n > 3 && error[i] > MAX(middle * 1.02 + 3 * 1.4826 * median(x, n), 1e-5);
    }
    free(x);
}

static double share(double of, double all)
{
    return all > 0 ? of / all : 0;
}

static void print_tensor(const struct quantize *q, int i, const struct difference *d, bool mark,
                         struct buf *out)
{
    const struct quantize_tensor *t = &q->tensor[i];
    buf_printf(out, "%-44s %-8s %12.6g %12.6g %12.6g", t->name, dtype_name((int)t->type),
               share(d->square, d->of), share(d->weighted, d->weighted_of), d->largest);
    if (t->inputs >= 0)
        buf_printf(out, " %12.6g", share(d->output[0], d->output[1]));
    else if (q->hessian)
        buf_printf(out, " %12s", "-");
    buf_puts(out, mark ? "  far from its kind\n" : "\n");
}

static int print(const struct verify *v, struct buf *out, struct err *e)
{
    const struct quantize *q = &v->q;
    int64_t n_id = 0;
    struct difference *sum = calloc((size_t)q->n_tensor, sizeof *sum);
    double *error = calloc((size_t)q->n_tensor, sizeof *error);
    bool *mark = calloc((size_t)q->n_tensor, sizeof *mark);
    bool have = sum && error && mark;
    for (int i = 0; have && i < q->n_unit; i++) {
        struct difference *s = &sum[q->unit[i].tensor];
        const struct difference *u = &v->unit[i];
        s->square += u->square;
        s->of += u->of;
        s->weighted += u->weighted;
        s->weighted_of += u->weighted_of;
        for (int k = 0; k < 2; k++)
            s->output[k] += u->output[k];
        s->largest = fmax(s->largest, u->largest);
        n_id += u->n_other_id;
    }
    for (int i = 0; have && i < q->n_tensor; i++)
        error[i] = share(sum[i].square, sum[i].of);
    if (have)
        mark_outliers(q, error, mark);
    buf_printf(out, "%-44s %-8s %12s %12s %12s%s\n", "tensor", "type", "error", "weighted",
               "largest", q->hessian ? "       output" : "");
    for (int i = 0; have && i < q->n_tensor; i++)
        print_tensor(q, i, &sum[i], mark[i], out);
    free(sum);
    free(error);
    free(mark);
    if (!have || out->failed)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a table");
    if (n_id > 0)
        return err_set(e, ERR_FORMAT, "%s: %lld numbers of experts differ from the source",
                       q->o->out, (long long)n_id);
    return 0;
}

static int verify(struct verify *v, const struct quantize_options *o, struct buf *out,
                  struct err *e)
{
    struct quantize *q = &v->q;
    TRY(quantize_open(q, o, e));
    TRY(quantize_plan(q, e));
    TRY(quantize_check_importance(q, e));
    TRY(open_made(v, e));
    TRY(quantize_open_workers(q, e));
    TRY(quantize_each_undone(q, "verifying", compare_unit, false, e));
    return print(v, out, e);
}

int quantize_verify(const struct quantize_options *o, struct buf *out, struct err *e)
{
    struct verify v = { 0 };
    CHECK(o->src && o->out && o->recipe);
    int code = verify(&v, o, out, e);
    for (int i = 0; v.in && i < weights_n_file(v.made); i++)
        file_in_close(&v.in[i]);
    free(v.in);
    free(v.tensor);
    free(v.unit);
    weights_close(v.made);
    quantize_close(&v.q);
    return code;
}
