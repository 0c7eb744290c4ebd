/* cpu_plain.c - ops that treat every row by itself: one task per row. */
#include "cpu_ops_impl.h"

#include <math.h>

#define MAX_PAIR 256

/* What any of these ops needs; each task function reads its own. */
struct plain {
    const struct cpu_kernels *k;
    struct tensor *out;
    const struct tensor *x, *y;
    const struct rows *r;
    const struct rope *rope;
    const float *weight;
    float eps, clamp;
    int n_head;
    bool inverse;
};

static void run(struct dev *d, pool_fn *fn, struct plain *p, int n)
{
    if (dev_planning(d))
        return;
    p->k = &cpu_of(d)->k;
    pool_run(cpu_of(d)->pool, fn, p, n);
}

void cpu_norm_row(const struct cpu_kernels *k, float *out, const float *x, const float *weight,
                  int n, float eps)
{
    double scale = 1 / sqrt(k->sum_squares(x, n) / n + (double)eps);
    k->scale_row(out, x, weight, (float)scale, n);
}

/* ---- embed, norm, norm_heads --------------------------------------------------------------- */

static void embed_task(void *ctx, int i, int worker)
{
    const struct plain *p = ctx;
    (void)worker;
    int token = p->r->host[i].token, n = p->x->cols;
    float *x = tensor_f32(p->out, i);
    p->k->decode(p->x->type, tensor_row(p->x, token), tensor_scale(p->x, token), x, n);
    for (int k = 1; k < p->out->cols / n; k++)
        memcpy(x + (size_t)k * (size_t)n, x, (size_t)n * sizeof *x);
}

void cpu_embed(struct dev *d, struct tensor *streams, const struct tensor *table,
               const struct rows *r)
{
    for (int i = 0; i < r->n && !dev_planning(d); i++)
        if (r->host[i].token < 0 || r->host[i].token >= table->rows) {
            dev_fail(d, ERR_ARGUMENT, "token %d is outside the vocabulary of %d",
                     (int)r->host[i].token, table->rows);
            return;
        }
    struct plain p = { .out = streams, .x = table, .r = r };
    run(d, embed_task, &p, r->n);
}

static void norm_task(void *ctx, int i, int worker)
{
    const struct plain *p = ctx;
    (void)worker;
    cpu_norm_row(p->k, tensor_f32(p->out, i), tensor_f32(p->x, i), p->weight, p->x->cols, p->eps);
}

void cpu_norm(struct dev *d, struct tensor *out, const struct tensor *x, const float *weight,
              float eps)
{
    struct plain p = { .out = out, .x = x, .weight = weight, .eps = eps };
    run(d, norm_task, &p, x->rows);
}

static void norm_heads_task(void *ctx, int i, int worker)
{
    const struct plain *p = ctx;
    (void)worker;
    int dim = p->out->cols / p->n_head;
    for (int h = 0; h < p->n_head; h++) {
        float *x = tensor_f32(p->out, i) + (size_t)h * (size_t)dim;
        cpu_norm_row(p->k, x, x, NULL, dim, p->eps);
    }
}

void cpu_norm_heads(struct dev *d, struct tensor *x, int n_head, float eps)
{
    struct plain p = { .out = x, .n_head = n_head, .eps = eps };
    run(d, norm_heads_task, &p, x->rows);
}

/* ---- swiglu, add --------------------------------------------------------------------------- */

static void swiglu_task(void *ctx, int i, int worker)
{
    const struct plain *p = ctx;
    (void)worker;
    p->k->swiglu(tensor_f32(p->out, i), tensor_f32(p->x, i), tensor_f32(p->y, i), p->out->cols,
                 p->clamp, 1);
}

void cpu_swiglu(struct dev *d, struct tensor *out, const struct tensor *gate,
                const struct tensor *up, float clamp)
{
    struct plain p = { .out = out, .x = gate, .y = up, .clamp = clamp };
    run(d, swiglu_task, &p, out->rows);
}

static void add_task(void *ctx, int i, int worker)
{
    const struct plain *p = ctx;
    (void)worker;
    float *out = tensor_f32(p->out, i);
    const float *x = tensor_f32(p->x, i);
    for (int j = 0; j < p->out->cols; j++)
        out[j] += x[j];
}

void cpu_add(struct dev *d, struct tensor *out, const struct tensor *x)
{
    struct plain p = { .out = out, .x = x };
    run(d, add_task, &p, out->rows);
}

/* ---- rope ---------------------------------------------------------------------------------- */

void cpu_rope_table(float *cs, const struct rope *rope, int pos)
{
    CHECK(rope->n_pair <= MAX_PAIR);
    for (int i = 0; i < rope->n_pair; i++) {
        float angle = (float)pos * rope->freq[i]; /* rounded to float32: the vendor's definition */
        cs[2 * i] = (float)cos((double)angle);
        cs[2 * i + 1] = (float)sin((double)angle);
    }
}

void cpu_rotate(float *head, int dim, const float *cs, int n_pair, float sign)
{
    float *x = head + dim - 2 * n_pair;
    for (int i = 0; i < 2 * n_pair; i += 2) {
        float c = cs[i], s = sign * cs[i + 1], a = x[i], b = x[i + 1];
        x[i] = a * c - b * s;
        x[i + 1] = a * s + b * c;
    }
}

static void rope_task(void *ctx, int i, int worker)
{
    const struct plain *p = ctx;
    (void)worker;
    float cs[2 * MAX_PAIR];
    int dim = p->out->cols / p->n_head;
    cpu_rope_table(cs, p->rope, p->r->host[i].pos);
    for (int h = 0; h < p->n_head; h++)
        cpu_rotate(tensor_f32(p->out, i) + (size_t)h * (size_t)dim, dim, cs, p->rope->n_pair,
                   p->inverse ? -1 : 1);
}

void cpu_rope(struct dev *d, struct tensor *x, int n_head, const struct rope *rope, bool inverse,
              const struct rows *r)
{
    struct plain p = { .out = x, .n_head = n_head, .rope = rope, .inverse = inverse, .r = r };
    run(d, rope_task, &p, r->n);
}
