/* ref_hc.c - hyper-connections: several residual streams, mixed before and after a sublayer.
 *
 * From all streams of a token, m = fn * v / rms(v). pre says how much of each stream enters the
 * sublayer, post how much of its result returns to each, and C, made doubly stochastic by
 * Sinkhorn's iterations, how the streams mix meanwhile (row j: from, column k: to). */
#include "ref.h"

#include <math.h>

#define MAX_STREAM 8

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* m[i] = (row i of fn times v) / rms(v). */
static void project(double *m, const struct hc *hc, const float *v, float *row)
{
    int n = hc->fn.cols;
    double square = 0;
    for (int j = 0; j < n; j++)
        square += (double)v[j] * v[j];
    double scale = 1 / sqrt(square / n + hc->norm_eps);
    for (int i = 0; i < hc->fn.rows; i++) {
        tensor_decode(&hc->fn, i, row);
        double sum = 0;
        for (int j = 0; j < n; j++)
            sum += (double)row[j] * v[j];
        m[i] = sum * scale;
    }
}

static void divide_columns(double *c, int n, double eps)
{
    for (int k = 0; k < n; k++) {
        double sum = eps;
        for (int j = 0; j < n; j++)
            sum += c[j * n + k];
        for (int j = 0; j < n; j++)
            c[j * n + k] /= sum;
    }
}

static void divide_rows(double *c, int n, double eps)
{
    for (int j = 0; j < n; j++) {
        double sum = eps;
        for (int k = 0; k < n; k++)
            sum += c[j * n + k];
        for (int k = 0; k < n; k++)
            c[j * n + k] /= sum;
    }
}

/* Softmax of every row, then alternately columns and rows to sum 1; a column step is last. */
static void sinkhorn(double *c, int n, int n_iter, double eps)
{
    for (int j = 0; j < n; j++) {
        double max = c[j * n], sum = 0;
        for (int k = 1; k < n; k++)
            max = fmax(max, c[j * n + k]);
        for (int k = 0; k < n; k++)
            sum += c[j * n + k] = exp(c[j * n + k] - max);
        for (int k = 0; k < n; k++)
            c[j * n + k] = c[j * n + k] / sum + eps;
    }
    divide_columns(c, n, eps);
    for (int i = 1; i < n_iter; i++) {
        divide_rows(c, n, eps);
        divide_columns(c, n, eps);
    }
}

static void mix_row(float *x, float *gates, const float *v, const struct hc *hc, float *row)
{
    int n = hc->n_stream, n_embd = hc->fn.cols / n;
    double m[2 * MAX_STREAM + MAX_STREAM * MAX_STREAM], c[MAX_STREAM * MAX_STREAM];
    project(m, hc, v, row);
    for (int j = 0; j < n; j++) {
        gates[j] = (float)(sigmoid(m[j] * hc->scale[0] + hc->base[j]) + hc->eps);
        gates[n + j] = (float)(2 * sigmoid(m[n + j] * hc->scale[1] + hc->base[n + j]));
    }
    for (int i = 0; i < n * n; i++)
        c[i] = m[2 * n + i] * hc->scale[2] + hc->base[2 * n + i];
    sinkhorn(c, n, hc->n_iter, hc->eps);
    for (int i = 0; i < n * n; i++)
        gates[2 * n + i] = (float)c[i];
    for (int j = 0; j < n_embd; j++) {
        double sum = 0;
        for (int k = 0; k < n; k++)
            sum += (double)gates[k] * v[(size_t)k * n_embd + j];
        x[j] = (float)sum;
    }
}

void ref_hc_mix(struct dev *d, struct tensor *x, struct tensor *gates, const struct tensor *streams,
                const struct hc *hc)
{
    CHECK(hc->n_stream <= MAX_STREAM);
    size_t mark = arena_mark(&d->scratch);
    float *row = dev_alloc(d, (size_t)hc->fn.cols * sizeof *row);
    for (int i = 0; i < x->rows && row; i++)
        mix_row(tensor_f32(x, i), tensor_f32(gates, i), tensor_f32(streams, i), hc, row);
    arena_rewind(&d->scratch, mark);
}

/* Element e of every stream, after the sublayer gave y. */
static void spread_one(float *v, int n_embd, int n, double y, const float *gates)
{
    const float *post = gates + n, *c = gates + 2 * n;
    double old[MAX_STREAM];
    for (int j = 0; j < n; j++)
        old[j] = v[(size_t)j * n_embd];
    for (int k = 0; k < n; k++) {
        double sum = post[k] * y;
        for (int j = 0; j < n; j++)
            sum += c[j * n + k] * old[j];
        v[(size_t)k * n_embd] = (float)sum;
    }
}

void ref_hc_spread(struct dev *d, struct tensor *streams, const struct tensor *y,
                   const struct tensor *gates, const struct hc *hc)
{
    if (dev_planning(d))
        return;
    for (int i = 0; i < y->rows; i++)
        for (int e = 0; e < y->cols; e++)
            spread_one(tensor_f32(streams, i) + e, y->cols, hc->n_stream, tensor_f32(y, i)[e],
                       tensor_f32(gates, i));
}

void ref_hc_head(struct dev *d, struct tensor *x, const struct tensor *streams, const struct hc *hc)
{
    CHECK(hc->n_stream <= MAX_STREAM);
    size_t mark = arena_mark(&d->scratch);
    int n = hc->n_stream, n_embd = x->cols;
    float *row = dev_alloc(d, (size_t)hc->fn.cols * sizeof *row);
    for (int i = 0; i < x->rows && row; i++) {
        const float *v = tensor_f32(streams, i);
        double m[MAX_STREAM];
        project(m, hc, v, row);
        for (int k = 0; k < n; k++)
            m[k] = sigmoid(m[k] * hc->scale[0] + hc->base[k]) + hc->eps;
        for (int e = 0; e < n_embd; e++) {
            double sum = 0;
            for (int k = 0; k < n; k++)
                sum += m[k] * v[(size_t)k * n_embd + e];
            tensor_f32(x, i)[e] = (float)sum;
        }
    }
    arena_rewind(&d->scratch, mark);
}
