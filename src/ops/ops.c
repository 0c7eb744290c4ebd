/* ops.c - the one door to every op: check the shapes, stop after a failure, call the table. */
#include "ops_table.h"

static bool muted(struct dev *d)
{
    dev_check_stop(d);
    return d->err.code != ERR_NONE;
}

/* For whoever measures: the op has run. w: the matrix it read, NULL: none, or experts. */
static void done(struct dev *d, const char *op, const struct tensor *w, int n_group)
{
    if (d->on_op && !dev_planning(d))
        d->on_op(d->on_op_user, d->layer, &(struct op_call){ op, w, n_group });
}

static void check_f32(const struct tensor *t, int rows, int cols)
{
    CHECK(t->type == DT_F32 && t->rows == rows && t->cols == cols);
}

static void check_rows(const struct tensor *t, const struct rows *r)
{
    CHECK(t->type == DT_F32 && t->rows == r->n);
}

/* x is about to be multiplied with w. */
static void show(struct dev *d, const struct tensor *w, const struct tensor *x)
{
    if (!d->watch || dev_planning(d))
        return;
    if (d->watch->sums) {
        d->ops->sum(d, d->watch->sums(d->watch->user, w), x);
        return;
    }
    struct tensor seen = dev_look(d, x);
    if (!muted(d))
        d->watch->input(d->watch->user, w, &seen);
}

void op_embed(struct dev *d, struct tensor *streams, const struct tensor *table,
              const struct rows *r)
{
    if (muted(d))
        return;
    check_rows(streams, r);
    CHECK(streams->cols % table->cols == 0);
    d->ops->embed(d, streams, table, r);
    done(d, "embed", table, 1);
}

void op_gather(struct dev *d, struct tensor *out, const struct tensor *x, const struct rows *r)
{
    if (muted(d))
        return;
    check_rows(x, r);
    CHECK(out->cols == x->cols && out->rows <= x->rows);
    d->ops->gather(d, out, x, r);
    done(d, "gather", NULL, 1);
}

void op_norm(struct dev *d, struct tensor *out, const struct tensor *x, const float *weight,
             float eps)
{
    if (muted(d))
        return;
    check_f32(out, x->rows, x->cols);
    d->ops->norm(d, out, x, weight, eps);
    done(d, "norm", NULL, 1);
}

void op_norm_heads(struct dev *d, struct tensor *x, int n_head, float eps)
{
    if (muted(d))
        return;
    CHECK(x->type == DT_F32 && x->cols % n_head == 0);
    d->ops->norm_heads(d, x, n_head, eps);
    done(d, "norm_heads", NULL, 1);
}

void op_matmul(struct dev *d, struct tensor *out, const struct tensor *w, const struct tensor *x)
{
    if (muted(d))
        return;
    check_f32(out, x->rows, w->rows);
    CHECK(x->type == DT_F32 && x->cols == w->cols);
    show(d, w, x);
    d->ops->matmul(d, out, w, x);
    done(d, "matmul", w, 1);
}

void op_matmul_exact(struct dev *d, struct tensor *out, const struct tensor *w,
                     const struct tensor *x)
{
    if (muted(d))
        return;
    check_f32(out, x->rows, w->rows);
    CHECK(x->type == DT_F32 && x->cols == w->cols);
    show(d, w, x);
    d->ops->matmul_exact(d, out, w, x);
    done(d, "matmul_exact", w, 1);
}

/* Whoever looks sees every product by itself. */
static bool one_by_one(const struct dev *d)
{
    return d->on_op || d->watch;
}

static void one_product(struct dev *d, struct matmul *p, const struct tensor *x)
{
    if (p->up)
        op_gated(d, &p->out, p->w, p->up, x, p->clamp);
    else
        (p->exact ? op_matmul_exact : op_matmul)(d, &p->out, p->w, x);
}

void op_products(struct dev *d, struct matmul *p, int n, const struct tensor *x)
{
    if (!d->ops->products || one_by_one(d)) {
        for (int i = 0; i < n; i++)
            one_product(d, &p[i], x);
        return;
    }
    if (muted(d))
        return;
    for (int i = 0; i < n; i++) {
        check_f32(&p[i].out, x->rows, p[i].w->rows);
        CHECK(x->type == DT_F32 && x->cols == p[i].w->cols);
        CHECK(!p[i].up || (p[i].up->cols == x->cols && p[i].up->rows == p[i].w->rows));
    }
    d->ops->products(d, p, n, x);
}

int op_first_products(struct dev *d, struct matmul *p, int n, const struct tensor *x)
{
    int now = d->ops->products && !one_by_one(d) ? n : 1;
    op_products(d, p, now, x);
    return now;
}

void op_matmul_grouped(struct dev *d, struct tensor *out, const struct tensor *w,
                       const struct tensor *x, int n_group)
{
    if (muted(d))
        return;
    check_f32(out, x->rows, w->rows);
    CHECK(x->type == DT_F32 && x->cols == w->cols * n_group && w->rows % n_group == 0);
    if (d->watch) { /* every group is a row of its own */
        struct tensor group = { x->data, DT_F32, w->cols, x->rows * n_group,
                                (size_t)w->cols * sizeof(float), NULL, 0 };
        CHECK(x->pitch == group.pitch * (size_t)n_group);
        show(d, w, &group);
    }
    d->ops->matmul_grouped(d, out, w, x, n_group);
    done(d, "matmul_grouped", w, n_group);
}

void op_swiglu(struct dev *d, struct tensor *out, const struct tensor *gate,
               const struct tensor *up, float clamp)
{
    if (muted(d))
        return;
    check_f32(out, gate->rows, gate->cols);
    check_f32(up, gate->rows, gate->cols);
    d->ops->swiglu(d, out, gate, up, clamp);
    done(d, "swiglu", NULL, 1);
}

void op_gated(struct dev *d, struct tensor *out, const struct tensor *gate,
              const struct tensor *up, const struct tensor *x, float clamp)
{
    struct matmul p = { .out = *out, .w = gate, .up = up, .clamp = clamp };
    if (d->ops->products && !one_by_one(d)) {
        op_products(d, &p, 1, x);
        return;
    }
    size_t mark = arena_mark(&d->scratch);
    struct tensor beside = dev_tensor(d, DT_F32, up->rows, x->rows);
    op_matmul(d, out, gate, x);
    op_matmul(d, &beside, up, x);
    op_swiglu(d, out, out, &beside, clamp);
    arena_rewind(&d->scratch, mark);
}

void op_add(struct dev *d, struct tensor *out, const struct tensor *x)
{
    if (muted(d))
        return;
    check_f32(out, x->rows, x->cols);
    d->ops->add(d, out, x);
    done(d, "add", NULL, 1);
}

void op_rope(struct dev *d, struct tensor *x, int n_head, const struct rope *rope, bool inverse,
             const struct rows *r)
{
    if (muted(d))
        return;
    check_rows(x, r);
    CHECK(x->cols % n_head == 0 && x->cols / n_head >= 2 * rope->n_pair);
    d->ops->rope(d, x, n_head, rope, inverse, r);
    done(d, "rope", NULL, 1);
}

static void check_mix(const struct tensor *x, const struct tensor *gates,
                      const struct tensor *streams, const struct hc *hc)
{
    check_f32(streams, x->rows, x->cols * hc->n_stream);
    check_f32(gates, x->rows, 2 * hc->n_stream + hc->n_stream * hc->n_stream);
    CHECK(hc->fn.rows == gates->cols && hc->fn.cols == streams->cols);
}

void op_hc_mix(struct dev *d, struct tensor *x, struct tensor *gates, const struct tensor *streams,
               const struct hc *hc)
{
    if (muted(d))
        return;
    check_mix(x, gates, streams, hc);
    d->ops->hc_mix(d, x, gates, streams, hc);
    done(d, "hc_mix", &hc->fn, 1);
}

void op_hc_mix_norm(struct dev *d, struct tensor *x, struct tensor *gates,
                    const struct tensor *streams, const struct hc *hc, const float *weight,
                    float eps)
{
    if (!d->ops->hc_mix_norm) {
        op_hc_mix(d, x, gates, streams, hc);
        op_norm(d, x, x, weight, eps);
        return;
    }
    if (muted(d))
        return;
    check_mix(x, gates, streams, hc);
    d->ops->hc_mix_norm(d, x, gates, streams, hc, weight, eps);
    done(d, "hc_mix_norm", &hc->fn, 1);
}

void op_hc_spread(struct dev *d, struct tensor *streams, const struct tensor *y,
                  const struct tensor *gates, const struct hc *hc)
{
    if (muted(d))
        return;
    check_f32(streams, y->rows, y->cols * hc->n_stream);
    check_f32(gates, y->rows, 2 * hc->n_stream + hc->n_stream * hc->n_stream);
    d->ops->hc_spread(d, streams, y, gates, hc);
    done(d, "hc_spread", NULL, 1);
}

/* sum: room for what experts gave. */
static void turn_in_turn(struct dev *d, struct tensor *x, struct tensor *gates,
                         struct tensor *streams, const struct hc_turn *t, struct tensor *sum)
{
    dev_op_fn *on_op = d->on_op;
    d->on_op = NULL; /* it is one op */
    if (t->part.rows > 0)
        op_sum_experts_add(d, sum, &t->part, &t->route, &t->y);
    op_hc_spread(d, streams, sum, gates, t->hc);
    if (t->next)
        op_hc_mix_norm(d, x, gates, streams, t->next, t->weight, t->eps);
    d->on_op = on_op;
}

static bool turn_at_once(struct dev *d, struct tensor *x, struct tensor *gates,
                         struct tensor *streams, const struct hc_turn *t)
{
    if (!d->ops->hc_turn || muted(d))
        return false;
    check_f32(&t->y, x->rows, x->cols);
    check_mix(x, gates, streams, t->next ? t->next : t->hc);
    if (t->part.rows > 0)
        check_f32(&t->part, x->rows * t->route.id.cols, x->cols);
    return d->ops->hc_turn(d, x, gates, streams, t);
}

/* The same scratch either way. */
void op_hc_turn(struct dev *d, struct tensor *x, struct tensor *gates, struct tensor *streams,
                const struct hc_turn *t)
{
    size_t mark = arena_mark(&d->scratch);
    struct tensor sum = t->y;
    if (t->part.rows > 0)
        sum = dev_tensor(d, DT_F32, t->y.cols, t->y.rows);
    if (!turn_at_once(d, x, gates, streams, t))
        turn_in_turn(d, x, gates, streams, t, &sum);
    arena_rewind(&d->scratch, mark);
    if (!muted(d))
        done(d, "hc_turn", t->next ? &t->next->fn : NULL, 1);
}

void op_hc_head(struct dev *d, struct tensor *x, const struct tensor *streams, const struct hc *hc)
{
    if (muted(d))
        return;
    check_f32(streams, x->rows, x->cols * hc->n_stream);
    CHECK(hc->fn.rows == hc->n_stream && hc->fn.cols == streams->cols);
    d->ops->hc_head(d, x, streams, hc);
    done(d, "hc_head", &hc->fn, 1);
}

void op_kv_store(struct dev *d, const struct tensor *kv, const struct rows *r, int l)
{
    if (muted(d))
        return;
    check_rows(kv, r);
    d->ops->kv_store(d, kv, r, l);
    done(d, "kv_store", NULL, 1);
}

void op_compress(struct dev *d, const struct tensor *a, const struct tensor *s,
                 const struct compressor *c, const struct rope *rope, const struct rows *r, int l)
{
    if (muted(d))
        return;
    check_f32(a, r->n, c->width);
    check_f32(s, r->n, c->width);
    CHECK(c->width == c->dim || c->width == 2 * c->dim);
    d->ops->compress(d, a, s, c, rope, r, l);
    done(d, "compress", NULL, 1);
}

void op_index_query(struct dev *d, struct tensor *q, const struct indexer *ix,
                    const struct rope *rope, const struct rows *r)
{
    if (muted(d))
        return;
    check_f32(q, r->n, ix->n_head * ix->dim);
    d->ops->index_query(d, q, ix, rope, r);
    done(d, "index_query", NULL, 1);
}

static void prepare_in_turn(struct dev *d, struct fresh *f, const struct rows *r, int l)
{
    op_norm_heads(d, &f->q, f->n_head, f->eps);
    op_rope(d, &f->q, f->n_head, f->rope, false, r);
    op_norm(d, &f->kv, &f->kv, f->kv_norm, f->eps);
    op_rope(d, &f->kv, 1, f->rope, false, r);
    op_kv_store(d, &f->kv, r, l);
    for (int i = 0; i < f->n_comp; i++)
        op_compress(d, &f->comp[i].a, &f->comp[i].s, f->comp[i].c, f->rope, r, l);
    if (f->ix)
        op_index_query(d, &f->index_q, f->ix, f->rope, r);
}

void op_prepare(struct dev *d, struct fresh *f, const struct rows *r, int l)
{
    if (!d->ops->prepare) {
        prepare_in_turn(d, f, r, l);
        return;
    }
    if (muted(d))
        return;
    check_rows(&f->q, r);
    check_rows(&f->kv, r);
    CHECK(f->q.cols == f->n_head * f->kv.cols);
    for (int i = 0; i < f->n_comp; i++) {
        check_f32(&f->comp[i].a, r->n, f->comp[i].c->width);
        check_f32(&f->comp[i].s, r->n, f->comp[i].c->width);
    }
    if (f->ix)
        check_f32(&f->index_q, r->n, f->ix->n_head * f->ix->dim);
    d->ops->prepare(d, f, r, l);
    done(d, "prepare", NULL, 1);
}

void op_pick(struct dev *d, struct tensor *picked, const struct tensor *q,
             const struct tensor *weight, const struct indexer *ix, const struct rows *r, int l)
{
    if (muted(d))
        return;
    check_f32(q, r->n, ix->n_head * ix->dim);
    check_f32(weight, r->n, ix->n_head);
    CHECK(picked->type == DT_I32 && picked->rows == r->n && picked->cols == ix->top_k);
    d->ops->pick(d, picked, q, weight, ix, r, l);
    done(d, "pick", NULL, 1);
}

void op_attend(struct dev *d, struct tensor *out, const struct tensor *q,
               const struct tensor *picked, const struct attention *at, const struct rows *r, int l)
{
    if (muted(d))
        return;
    check_rows(q, r);
    check_f32(out, r->n, q->cols);
    CHECK(q->cols % at->n_head == 0 && (picked != NULL) == at->picked);
    d->ops->attend(d, out, q, picked, at, r, l);
    if (at->back && !d->ops->attends_back)
        d->ops->rope(d, out, at->n_head, at->back, true, r);
    done(d, "attend", NULL, 1);
}

static void impose(struct dev *d, const struct route *out, const struct rows *r)
{
    for (int i = 0; i < r->n; i++) {
        const uint16_t *from = dev_routes_of(d, r->host[i].pos);
        for (int j = 0; from && j < out->id.cols; j++)
            tensor_i32(&out->id, i)[j] = from[j];
    }
}

void op_route(struct dev *d, struct route *out, const struct tensor *logits,
              const struct router *router, const struct rows *r)
{
    if (muted(d))
        return;
    check_f32(logits, r->n, router->n_expert);
    CHECK(out->id.type == DT_I32 && out->id.rows == r->n && out->id.cols == router->n_used);
    check_f32(&out->weight, r->n, router->n_used);
    d->ops->route(d, out, logits, router, r);
    if (d->routes && !dev_is_apart(d) && !dev_planning(d))
        impose(d, out, r);
    done(d, "route", NULL, 1);
    if (!d->on_route || muted(d) || dev_planning(d))
        return;
    struct route seen = { dev_look(d, &out->id), dev_look(d, &out->weight) };
    if (!muted(d))
        d->on_route(d->on_route_user, d->layer, &seen, r);
}

void op_experts_ahead(struct dev *d, const struct expert_set *some, int n)
{
    if (!muted(d) && d->ops->experts_ahead && some->far_bytes > 0)
        d->ops->experts_ahead(d, some, n);
}

void op_experts(struct dev *d, struct tensor *part, const struct expert_set *some,
                const struct route *route, const struct tensor *x, float clamp)
{
    if (muted(d))
        return;
    check_f32(part, x->rows * route->id.cols, x->cols);
    CHECK(route->id.rows == x->rows);
    d->ops->experts(d, part, some, route, x, clamp);
    done(d, "experts", NULL, 1);
}

void op_sum_experts(struct dev *d, struct tensor *out, const struct tensor *part,
                    const struct route *route)
{
    if (muted(d))
        return;
    check_f32(part, out->rows * route->id.cols, out->cols);
    d->ops->sum_experts(d, out, part, route);
    done(d, "sum_experts", NULL, 1);
}

void op_sum_experts_add(struct dev *d, struct tensor *out, const struct tensor *part,
                        const struct route *route, const struct tensor *x)
{
    if (!d->ops->sum_experts_add) {
        op_sum_experts(d, out, part, route);
        op_add(d, out, x);
        return;
    }
    if (muted(d))
        return;
    check_f32(part, out->rows * route->id.cols, out->cols);
    check_f32(x, out->rows, out->cols);
    d->ops->sum_experts_add(d, out, part, route, x);
    done(d, "sum_experts_add", NULL, 1);
}
