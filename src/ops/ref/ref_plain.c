/* ref_plain.c - what the plain ops mean. Sums are in double and in order. */
#include "ref.h"

#include <math.h>

void ref_embed(struct dev *d, struct tensor *streams, const struct tensor *table,
               const struct rows *r)
{
    if (dev_planning(d))
        return;
    int n = table->cols;
    for (int i = 0; i < r->n; i++) {
        int token = r->host[i].token;
        if (token < 0 || token >= table->rows) {
            dev_fail(d, ERR_ARGUMENT, "token %d is outside the vocabulary of %d", token,
                     table->rows);
            return;
        }
        float *x = tensor_f32(streams, i);
        tensor_decode(table, token, x);
        for (int k = 1; k < streams->cols / n; k++)
            memcpy(x + (size_t)k * n, x, (size_t)n * sizeof *x);
    }
}

void ref_gather(struct dev *d, struct tensor *out, const struct tensor *x, const struct rows *r)
{
    if (dev_planning(d))
        return;
    int to = 0;
    for (int i = 0; i < r->n; i++)
        if (r->host[i].logits)
            memcpy(tensor_row(out, to++), tensor_row(x, i), (size_t)x->cols * sizeof(float));
    CHECK(to == out->rows);
}

void ref_norm_row(float *out, const float *x, const float *weight, int n, float eps)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    double scale = 1 / sqrt(sum / n + eps);
    for (int i = 0; i < n; i++)
        out[i] = (float)(x[i] * scale * (weight ? weight[i] : 1));
}

void ref_norm(struct dev *d, struct tensor *out, const struct tensor *x, const float *weight,
              float eps)
{
    if (dev_planning(d))
        return;
    for (int i = 0; i < x->rows; i++)
        ref_norm_row(tensor_f32(out, i), tensor_f32(x, i), weight, x->cols, eps);
}

void ref_norm_heads(struct dev *d, struct tensor *x, int n_head, float eps)
{
    if (dev_planning(d))
        return;
    int dim = x->cols / n_head;
    for (int i = 0; i < x->rows; i++)
        for (int h = 0; h < n_head; h++) {
            float *v = tensor_f32(x, i) + (size_t)h * dim;
            ref_norm_row(v, v, NULL, dim, eps);
        }
}

/* Groups of rows of w times groups of columns of x; one group is an ordinary product. */
void ref_matmul_grouped(struct dev *d, struct tensor *out, const struct tensor *w,
                        const struct tensor *x, int n_group)
{
    size_t mark = arena_mark(&d->scratch);
    float *row = dev_alloc(d, (size_t)w->cols * sizeof *row);
    int per_group = w->rows / n_group;
    for (int o = 0; o < w->rows && row; o++) {
        tensor_decode(w, o, row);
        for (int i = 0; i < x->rows; i++) {
            const float *v = tensor_f32(x, i) + (size_t)(o / per_group) * w->cols;
            double sum = 0;
            for (int j = 0; j < w->cols; j++)
                sum += (double)row[j] * v[j];
            tensor_f32(out, i)[o] = (float)sum;
        }
    }
    arena_rewind(&d->scratch, mark);
}

void ref_matmul(struct dev *d, struct tensor *out, const struct tensor *w, const struct tensor *x)
{
    ref_matmul_grouped(d, out, w, x, 1);
}

float ref_swiglu_one(float gate, float up, float clamp)
{
    double a = gate > clamp ? clamp : gate;
    double b = up > clamp ? clamp : up < -clamp ? -clamp : up;
    return (float)(a / (1 + exp(-a)) * b);
}

void ref_swiglu(struct dev *d, struct tensor *out, const struct tensor *gate,
                const struct tensor *up, float clamp)
{
    if (dev_planning(d))
        return;
    for (int i = 0; i < out->rows; i++)
        for (int j = 0; j < out->cols; j++)
            tensor_f32(out, i)[j] =
                ref_swiglu_one(tensor_f32(gate, i)[j], tensor_f32(up, i)[j], clamp);
}

void ref_add(struct dev *d, struct tensor *out, const struct tensor *x)
{
    if (dev_planning(d))
        return;
    for (int i = 0; i < out->rows; i++)
        for (int j = 0; j < out->cols; j++)
            tensor_f32(out, i)[j] += tensor_f32(x, i)[j];
}

void ref_rotate(float *head, int dim, const struct rope *rope, int pos, bool inverse)
{
    float *x = head + dim - 2 * rope->n_pair;
    for (int i = 0; i < rope->n_pair; i++) {
        /* The vendor forms the angle as one float32 product; at a million tokens its rounding
         * is already 0.04 rad, so anything more exact would be something else. */
        float angle = (float)pos * rope->freq[i];
        double c = cos((double)angle), s = sin((double)angle);
        if (inverse)
            s = -s;
        double a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = (float)(a * c - b * s);
        x[2 * i + 1] = (float)(a * s + b * c);
    }
}

void ref_rope(struct dev *d, struct tensor *x, int n_head, const struct rope *rope, bool inverse,
              const struct rows *r)
{
    if (dev_planning(d))
        return;
    int dim = x->cols / n_head;
    for (int i = 0; i < x->rows; i++)
        for (int h = 0; h < n_head; h++)
            ref_rotate(tensor_f32(x, i) + (size_t)h * dim, dim, rope, r->host[i].pos, inverse);
}
