/* cpu_hc.c - hyper-connections: one product for all rows, then row by row.
 *
 * The few numbers of a row's gates are computed in double as in the definition; only the product
 * and the sums over streams are long enough to matter. */
#include "cpu_ops_impl.h"

#include <math.h>

#define MAX_STREAM 8
#define CHUNK 256

struct mix {
    const struct cpu_kernels *k;
    const struct hc *hc;
    const struct tensor *m; /* [n, rows of fn]: before the division by rms */
    const struct tensor *streams, *y;
    struct tensor *x, *gates;
};

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Rows (step n, stride 1) or columns (step 1, stride n) of c to sum 1. */
static void divide(double *c, int n, int step, int stride, double eps)
{
    for (int i = 0; i < n; i++) {
        double sum = eps, *v = c + i * step;
        for (int j = 0; j < n; j++)
            sum += v[j * stride];
        for (int j = 0; j < n; j++)
            v[j * stride] /= sum;
    }
}

static void softmax_row(double *c, int n, double eps)
{
    double max = c[0], sum = 0;
    for (int k = 1; k < n; k++)
        max = fmax(max, c[k]);
    for (int k = 0; k < n; k++)
        sum += c[k] = exp(c[k] - max);
    for (int k = 0; k < n; k++)
        c[k] = c[k] / sum + eps;
}

static void sinkhorn(double *c, int n, int n_iter, double eps)
{
    for (int j = 0; j < n; j++)
        softmax_row(c + j * n, n, eps);
    divide(c, n, 1, n, eps);
    for (int i = 1; i < n_iter; i++) {
        divide(c, n, n, 1, eps);
        divide(c, n, 1, n, eps);
    }
}

/* 1 / rms of all streams of row i. */
static double inverse_rms(const struct mix *p, int i)
{
    int n = p->streams->cols;
    double square = p->k->sum_squares(tensor_f32(p->streams, i), n);
    return 1 / sqrt(square / n + (double)p->hc->norm_eps);
}

/* x := the streams of row i weighted by w. */
static void mix_streams(const struct mix *p, int i, const float *w)
{
    int n_embd = p->x->cols;
    float *x = tensor_f32(p->x, i);
    memset(x, 0, (size_t)n_embd * sizeof *x);
    struct blend b = {
        .out = x,
        .p = w,
        .row = tensor_f32(p->streams, i),
        .row_pitch = (size_t)n_embd,
        .n_out = 1,
        .n_row = p->hc->n_stream,
        .dim = n_embd,
    };
    p->k->blend(&b);
}

static void mix_task(void *ctx, int i, int worker)
{
    const struct mix *p = ctx;
    const struct hc *hc = p->hc;
    (void)worker;
    int n = hc->n_stream;
    const float *m = tensor_f32(p->m, i);
    float *gates = tensor_f32(p->gates, i);
    double scale = inverse_rms(p, i), c[MAX_STREAM * MAX_STREAM];
    for (int j = 0; j < n; j++) {
        double pre = m[j] * scale, post = m[n + j] * scale;
        gates[j] = (float)(sigmoid(pre * hc->scale[0] + hc->base[j]) + (double)hc->eps);
        gates[n + j] = (float)(2 * sigmoid(post * hc->scale[1] + hc->base[n + j]));
    }
    for (int j = 0; j < n * n; j++)
        c[j] = m[2 * n + j] * scale * hc->scale[2] + hc->base[2 * n + j];
    sinkhorn(c, n, hc->n_iter, (double)hc->eps);
    for (int j = 0; j < n * n; j++)
        gates[2 * n + j] = (float)c[j];
    mix_streams(p, i, gates);
}

static void head_task(void *ctx, int i, int worker)
{
    const struct mix *p = ctx;
    (void)worker;
    const float *m = tensor_f32(p->m, i);
    double scale = inverse_rms(p, i);
    float w[MAX_STREAM];
    for (int k = 0; k < p->hc->n_stream; k++)
        w[k] = (float)(sigmoid(m[k] * scale * p->hc->scale[0] + p->hc->base[k]) +
                       (double)p->hc->eps);
    mix_streams(p, i, w);
}

static void mix(struct dev *d, struct mix *p, pool_fn *fn)
{
    CHECK(p->hc->n_stream <= MAX_STREAM);
    size_t mark = arena_mark(&d->scratch);
    struct tensor m = dev_tensor(d, DT_F32, p->hc->fn.rows, p->x->rows);
    cpu_matmul_exact(d, &m, &p->hc->fn, p->streams);
    p->m = &m;
    p->k = &cpu_of(d)->k;
    if (!dev_planning(d) && d->err.code == ERR_NONE)
        pool_run(cpu_of(d)->pool, fn, p, p->x->rows);
    arena_rewind(&d->scratch, mark);
}

void cpu_hc_mix(struct dev *d, struct tensor *x, struct tensor *gates,
                const struct tensor *streams, const struct hc *hc)
{
    struct mix p = { .hc = hc, .streams = streams, .x = x, .gates = gates };
    mix(d, &p, mix_task);
}

void cpu_hc_head(struct dev *d, struct tensor *x, const struct tensor *streams,
                 const struct hc *hc)
{
    struct mix p = { .hc = hc, .streams = streams, .x = x };
    mix(d, &p, head_task);
}

/* Columns e .. e+len-1 of row i: all old values are read before the first is written. */
static void spread_chunk(const struct mix *p, int i, int e, int len)
{
    int n_embd = p->y->cols, n = p->x->cols / n_embd;
    const float *gates = tensor_f32(p->gates, i);
    float *streams = tensor_f32(p->x, i) + e;
    float old[(MAX_STREAM + 1) * CHUNK], w[MAX_STREAM * (MAX_STREAM + 1)];
    memcpy(old, tensor_f32(p->y, i) + e, (size_t)len * sizeof *old);
    for (int k = 0; k < n; k++) {
        float *stream = streams + (size_t)k * (size_t)n_embd;
        memcpy(old + (k + 1) * CHUNK, stream, (size_t)len * sizeof *old);
        memset(stream, 0, (size_t)len * sizeof *stream);
        w[k * (n + 1)] = gates[n + k];
        for (int j = 0; j < n; j++)
            w[k * (n + 1) + j + 1] = gates[2 * n + j * n + k];
    }
    struct blend b = {
        .out = streams,
        .p = w,
        .row = old,
        .out_pitch = (size_t)n_embd,
        .p_pitch = (size_t)n + 1,
        .row_pitch = CHUNK,
        .n_out = n,
        .n_row = n + 1,
        .dim = len,
    };
    p->k->blend(&b);
}

static void spread_task(void *ctx, int i, int worker)
{
    const struct mix *p = ctx;
    (void)worker;
    for (int e = 0; e < p->y->cols; e += CHUNK)
        spread_chunk(p, i, e, MIN(CHUNK, p->y->cols - e));
}

void cpu_hc_spread(struct dev *d, struct tensor *streams, const struct tensor *y,
                   const struct tensor *gates, const struct hc *hc)
{
    if (dev_planning(d))
        return;
    CHECK(hc->n_stream <= MAX_STREAM);
    struct tensor g = *gates;
    struct mix p = { .k = &cpu_of(d)->k, .hc = hc, .x = streams, .y = y, .gates = &g };
    pool_run(cpu_of(d)->pool, spread_task, &p, y->rows);
}
