/* ref_moe.c - which experts a row goes to, and what they make of it. */
#include "ref.h"

#include <math.h>

/* softplus without losing small values: log(1 + e^x). */
static double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

/* The n_used largest of score + bias, falling; of equal sums the lower id. */
static void choose(int32_t *id, const double *score, const struct router *router)
{
    for (int j = 0; j < router->n_used; j++) {
        int best = -1;
        double best_sum = 0;
        for (int e = 0; e < router->n_expert; e++) {
            double sum = score[e] + (router->bias ? router->bias[e] : 0);
            bool taken = false;
            for (int i = 0; i < j; i++)
                taken |= id[i] == e;
            if (!taken && (best < 0 || sum > best_sum)) {
                best = e;
                best_sum = sum;
            }
        }
        id[j] = best;
    }
}

void ref_route(struct dev *d, struct route *out, const struct tensor *logits,
               const struct router *router, const struct rows *r)
{
    size_t mark = arena_mark(&d->scratch);
    double *score = dev_alloc(d, (size_t)router->n_expert * sizeof *score);
    for (int i = 0; i < r->n && score; i++) {
        int32_t *id = tensor_i32(&out->id, i);
        for (int e = 0; e < router->n_expert; e++)
            score[e] = sqrt(softplus(tensor_f32(logits, i)[e]));
        if (router->by_token)
            memcpy(id, router->by_token + (size_t)r->host[i].token * router->n_used,
                   (size_t)router->n_used * sizeof *id);
        else
            choose(id, score, router);
        double sum = 0;
        for (int j = 0; j < router->n_used; j++)
            sum += score[id[j]];
        for (int j = 0; j < router->n_used; j++)
            tensor_f32(&out->weight, i)[j] = (float)(score[id[j]] / sum * router->scale);
    }
    arena_rewind(&d->scratch, mark);
}

/* One row through one expert; the routing weight goes in before the last product. pair: what a
 * watch wants to know of it. */
static void expert_row(struct dev *d, struct tensor *out, const struct expert *e,
                       const struct tensor *x, float weight, float clamp, struct dev_pairs *pair)
{
    size_t mark = arena_mark(&d->scratch);
    struct tensor gate = dev_tensor(d, DT_F32, e->gate.rows, 1);
    struct tensor up = dev_tensor(d, DT_F32, e->up.rows, 1);
    ref_matmul(d, &gate, &e->gate, x);
    ref_matmul(d, &up, &e->up, x);
    float *g = gate.data, *u = up.data;
    for (int j = 0; j < gate.cols && g && u; j++)
        g[j] = weight * ref_swiglu_one(g[j], u[j], clamp);
    pair->mid = &gate;
    if (d->watch && g && u)
        d->watch->expert(d->watch->user, pair);
    ref_matmul(d, out, &e->down, &gate);
    arena_rewind(&d->scratch, mark);
}

void ref_experts(struct dev *d, struct tensor *part, const struct expert_set *some,
                 const struct route *route, const struct tensor *x, float clamp)
{
    int n_used = route->id.cols;
    struct dev_pairs pair = { .layer = d->layer, .n = 1, .n_used = n_used, .x = x };
    if (dev_planning(d)) {
        expert_row(d, part, &some->e[0], x, 1, clamp, &pair);
        return;
    }
    for (int n = 0; n < some->n; n++)
        for (int i = 0; i < x->rows * n_used; i++) {
            int row = i / n_used, slot = i % n_used;
            if (tensor_i32(&route->id, row)[slot] != some->e[n].id)
                continue;
            struct tensor in = tensor_rows(x, row, 1), out = tensor_rows(part, i, 1);
            pair.expert = some->e[n].id;
            pair.pair = &i;
            expert_row(d, &out, &some->e[n], &in, tensor_f32(&route->weight, row)[slot], clamp,
                       &pair);
        }
}

/* The slot that comes after (last_id, last_slot) in order of (id, slot). */
static int next_slot(const int32_t *id, int n, int last_id, int last_slot)
{
    int next = -1;
    for (int j = 0; j < n; j++) {
        bool after = id[j] > last_id || (id[j] == last_id && j > last_slot);
        if (after && (next < 0 || id[j] < id[next]))
            next = j;
    }
    return next;
}

void ref_sum_experts(struct dev *d, struct tensor *out, const struct tensor *part,
                     const struct route *route)
{
    if (dev_planning(d))
        return;
    int n_used = route->id.cols;
    for (int i = 0; i < out->rows; i++) {
        const int32_t *id = tensor_i32(&route->id, i);
        float *sum = tensor_f32(out, i);
        memset(sum, 0, (size_t)out->cols * sizeof *sum);
        for (int n = 0, last = -1, slot = -1; n < n_used; n++, last = id[slot]) {
            slot = next_slot(id, n_used, last, slot);
            const float *p = tensor_f32(part, i * n_used + slot);
            for (int k = 0; k < out->cols; k++)
                sum[k] += p[k];
        }
    }
}
