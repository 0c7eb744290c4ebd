/* layer_bench.c - what a layer costs, op by op, and what its products cost alone.
 *
 * The device calls a hook after every op; the time since the last call is the op's. A device that
 * is apart has only queued it then: there the time is between marks in its queue, and now and then
 * the queue is held up, so that the host is ahead and its time is not measured. A step is run and
 * taken back again and again. Then it runs as it does for a conversation, with nothing between ops,
 * and then only the products do, in the order of the layers, so that their weights come from memory
 * as before: the difference is what surrounds them. */
#include "measure.h"

#include <stdlib.h>

#include "clock.h"
#include "deepseek4.h"
#include "engine.h"
#include "quant_random.h"
#include "rng.h"
#include "session.h"

/* One layer's ops, as they ran. */
struct seen {
    int n_op;
    struct op_call call[LAYER_MOST_OP];
    double s[LAYER_MOST_OP][LAYER_MOST_REPEAT], alone_s[LAYER_MOST_OP][LAYER_MOST_REPEAT];
    bool chained[LAYER_MOST_OP]; /* was run alone in this repetition */
};

/* An op in a step: the times it began and ended. */
struct span {
    int layer, op, from, to;
};

struct meter {
    struct engine *engine;
    struct session *session;
    struct kv_view *view;   /* of the session's cache */
    struct layer_bench *b;
    struct seen *seen;      /* [n_layer + 1] */
    int32_t *route;         /* [n_layer][n_tok][n_used] */
    double *round_s;        /* [n_layer + 1] of this repetition */
    struct row *row;
    struct span *span;      /* of this step */
    double *time;           /* of a host's device; of one that is apart: marks */
    int n_span, n_time;
    int round;              /* -1: before the first that counts */
    bool apart, processor_time;
};

/* A device that is apart idles for so long before so many ops. */
#define STALL_OPS 16
#define STALL_S 4e-4

/* With one thread, neighbours on the machine disturb processor time least. */
static double now_s(const struct meter *m)
{
    return m->processor_time ? clock_processor_s() : clock_now_s();
}

static int layer_at(const struct meter *m, int layer)
{
    return layer < 0 ? m->engine->model->s.n_layer : layer;
}

/* Number of a time: now, or when the device will have done all that is queued. */
static int note_time(struct meter *m)
{
    if (m->apart)
        dev_mark(m->engine->dev, m->n_time);
    else
        m->time[m->n_time] = now_s(m);
    return m->n_time++;
}

static double between(const struct meter *m, int from, int to)
{
    return m->apart ? dev_between(m->engine->dev, from, to) : m->time[to] - m->time[from];
}

/* The next op's beginning. */
static int begin_op(struct meter *m, int end)
{
    if (m->apart && m->n_span % STALL_OPS != 0)
        return end;
    if (m->apart)
        dev_stall(m->engine->dev, STALL_S);
    return note_time(m);
}

static void note_op(void *user, int layer, const struct op_call *call)
{
    struct meter *m = user;
    struct span *span = &m->span[m->n_span++];
    struct seen *s = &m->seen[layer_at(m, layer)];
    CHECK(s->n_op < LAYER_MOST_OP);
    s->call[s->n_op] = *call;
    span->layer = layer_at(m, layer);
    span->op = s->n_op++;
    span->to = note_time(m);
    span[1].from = begin_op(m, span->to);
}

/* After the step. */
static void take_times(struct meter *m)
{
    for (int i = 0; i < m->n_span; i++) {
        const struct span *p = &m->span[i];
        double spent = between(m, p->from, p->to);
        if (m->round >= 0)
            m->seen[p->layer].s[p->op][m->round] = spent;
        m->round_s[p->layer] += spent;
    }
}

static void note_route(void *user, int layer, const struct route *route, const struct rows *r)
{
    struct meter *m = user;
    size_t n = (size_t)route->id.rows * (size_t)route->id.cols;
    (void)r;
    if (layer < m->engine->model->s.n_layer)
        memcpy(m->route + (size_t)layer * n, route->id.data, n * sizeof *m->route);
}

/* ---- the whole step ------------------------------------------------------------------------ */

static int begin_step(struct meter *m, struct rows *r, struct err *e)
{
    *r = (struct rows){ .n = m->b->n_tok, .host = m->row, .n_seq = 1, .kv = &m->view };
    TRY(kv_reserve(&m->session->kv, r->n, e));
    dev_begin(m->engine->dev);
    return 0;
}

/* Taken back. */
static int end_step(struct meter *m, struct err *e)
{
    int code = dev_wait(m->engine->dev, e);
    kv_abort(&m->session->kv);
    return code;
}

static int run_step(struct meter *m, struct err *e)
{
    struct rows r;
    struct model_out out;
    for (int l = 0; l <= m->engine->model->s.n_layer; l++) {
        m->seen[l].n_op = 0;
        m->round_s[l] = 0;
    }
    TRY(begin_step(m, &r, e));
    m->n_span = m->n_time = 0;
    m->span[0].from = begin_op(m, 0);
    model_forward(m->engine->model, &r, NULL, &out);
    TRY(end_step(m, e));
    take_times(m);
    return 0;
}

/* As engine_step() runs it: a device that records steps has one when this returns. */
static int run_whole(struct meter *m, struct err *e)
{
    struct rows r;
    struct model_out out;
    double begun = now_s(m);
    TRY(begin_step(m, &r, e));
    engine_forward(m->engine, &r, NULL, &out);
    TRY(end_step(m, e));
    if (m->round >= 0)
        m->b->step_s[m->round] = now_s(m) - begun;
    return 0;
}

static int run_wholes(struct meter *m, struct err *e)
{
    m->engine->dev->on_op = NULL;
    m->engine->dev->on_route = NULL;
    for (m->round = -2; m->round < m->b->repeat; m->round++) /* the second one is recorded */
        TRY(run_whole(m, e));
    return 0;
}

/* ---- products alone ------------------------------------------------------------------------ */

static struct tensor random_input(struct dev *d, int cols, int rows)
{
    struct tensor x = dev_tensor(d, DT_F32, cols, rows);
    struct quant_random q = { .type = DT_F32, .key = 1, .shift = -7 };
    if (x.data)
        dev_random(d, &q, 0, (size_t)rows * (size_t)cols, x.data);
    return x;
}

/* The step's routes, any weights. */
static struct route known_route(struct meter *m, int layer, int n_used)
{
    struct dev *d = m->engine->dev;
    size_t n = (size_t)m->b->n_tok * (size_t)n_used;
    struct quant_random q = { .type = DT_F32, .key = 2, .around_one = true };
    struct route route = { dev_tensor(d, DT_I32, n_used, m->b->n_tok),
                           dev_tensor(d, DT_F32, n_used, m->b->n_tok) };
    if (route.weight.data) {
        dev_random(d, &q, 0, n, route.weight.data);
        dev_copy(d, route.id.data, m->route + (size_t)layer * n, n * sizeof *m->route);
    }
    return route;
}

static void run_product(struct dev *d, const struct op_call *c, const struct tensor *x)
{
    struct tensor out = dev_tensor(d, DT_F32, c->w->rows, x->rows);
    if (c->n_group > 1)
        op_matmul_grouped(d, &out, c->w, x, c->n_group);
    else if (strcmp(c->name, "matmul") == 0)
        op_matmul(d, &out, c->w, x);
    else
        op_matmul_exact(d, &out, c->w, x);
}

/* Is it a product, or the product in it? */
static bool is_product(const struct op_call *c)
{
    return strncmp(c->name, "matmul", 6) == 0 || strcmp(c->name, "experts") == 0;
}

/* The same product, of this layer and others: what a device that is apart does back to back, so
 * that launches overlap as they do in a step and no weights come from a cache. */
#define CHAIN_MOST 64
#define CHAIN_STALL_S 2e-3 /* while it is queued */

struct chain {
    int n, layer[CHAIN_MOST], op[CHAIN_MOST];
    struct route route[CHAIN_MOST]; /* of experts */
};

static bool is_same(const struct op_call *a, const struct op_call *b)
{
    if (strcmp(a->name, b->name) != 0 || !a->w != !b->w || a->n_group != b->n_group)
        return false;
    return !a->w || (a->w->type == b->w->type && a->w->rows == b->w->rows &&
                     a->w->cols == b->w->cols);
}

static int rows_at(const struct meter *m, int layer)
{
    return layer == m->engine->model->s.n_layer ? 1 : m->b->n_tok;
}

/* From this op on. */
static void chain_of(struct meter *m, struct chain *c, int layer, int op)
{
    const struct op_call *first = &m->seen[layer].call[op];
    c->n = 0;
    for (int l = layer; l <= m->engine->model->s.n_layer; l++)
        for (int i = l == layer ? op : 0; i < m->seen[l].n_op && c->n < CHAIN_MOST; i++) {
            if (c->n > 0 && (!m->apart || rows_at(m, l) != rows_at(m, layer) ||
                             !is_same(&m->seen[l].call[i], first)))
                continue;
            c->layer[c->n] = l;
            c->op[c->n] = i;
            if (!first->w)
                c->route[c->n] = known_route(m, l, m->engine->model->layer[l].route.n_used);
            c->n++;
        }
}

static void run_call(struct meter *m, const struct chain *c, int i, const struct tensor *x)
{
    struct dev *d = m->engine->dev;
    const struct op_call *call = &m->seen[c->layer[i]].call[c->op[i]];
    size_t mark = arena_mark(&d->scratch);
    if (call->w) {
        run_product(d, call, x);
    } else {
        const struct dsv4_layer *w = &m->engine->model->layer[c->layer[i]];
        struct tensor part = dev_tensor(d, DT_F32, x->cols, x->rows * w->route.n_used);
        op_experts(d, &part, &w->experts, &c->route[i], x, w->clamp);
    }
    arena_rewind(&d->scratch, mark);
}

/* Each of a chain took its share. */
static void note_alone(struct meter *m, const struct chain *c, double spent)
{
    for (int i = 0; i < c->n; i++) {
        struct seen *s = &m->seen[c->layer[i]];
        s->chained[c->op[i]] = true;
        if (m->round >= 0)
            s->alone_s[c->op[i]][m->round] = spent / c->n;
    }
}

static int run_chain(struct meter *m, int layer, int op, struct err *e)
{
    struct dev *d = m->engine->dev;
    const struct op_call *call = &m->seen[layer].call[op];
    int cols = call->w ? call->w->cols * call->n_group : m->engine->model->s.n_embd;
    struct chain c;
    m->n_span = m->n_time = 0;
    dev_begin(d);
    chain_of(m, &c, layer, op);
    struct tensor x = random_input(d, cols, rows_at(m, layer));
    if (m->apart)
        dev_stall(d, CHAIN_STALL_S);
    int begin = note_time(m);
    for (int i = 0; i < c.n; i++)
        run_call(m, &c, i, &x);
    int end = note_time(m);
    TRY(dev_wait(d, e));
    note_alone(m, &c, between(m, begin, end));
    return 0;
}

static int run_layer_products(struct meter *m, int layer, struct err *e)
{
    const struct seen *s = &m->seen[layer];
    for (int i = 0; i < s->n_op; i++)
        if (is_product(&s->call[i]) && !s->chained[i])
            TRY(run_chain(m, layer, i, e));
    return 0;
}

static int run_products(struct meter *m, struct err *e)
{
    int n_layer = m->engine->model->s.n_layer;
    for (m->round = -1; m->round < m->b->repeat; m->round++) {
        for (int l = 0; l <= n_layer; l++)
            memset(m->seen[l].chained, 0, sizeof m->seen[l].chained);
        for (int l = 0; l <= n_layer; l++)
            TRY(run_layer_products(m, l, e));
    }
    return 0;
}

/* ---- sums ---------------------------------------------------------------------------------- */

static int kind_of(const struct engine *engine, int layer)
{
    const struct dsv4_hyper *s = &engine->model->s;
    if (layer == s->n_layer)
        return LAYER_HEAD;
    return s->ratio[layer] == 0                ? LAYER_WINDOW
           : s->ratio[layer] == DSV4_INDEX_RATIO ? LAYER_SPARSE
                                                 : LAYER_HEAVY;
}

struct layer_counts measure_layer_counts(dstar_engine *engine)
{
    const struct engine *en = engine_of(engine);
    struct layer_counts c = { .n_embd = en->model->s.n_embd };
    for (int l = 0; l <= en->model->s.n_layer; l++)
        c.n[kind_of(en, l)]++;
    return c;
}

static double matrix_bytes(const struct tensor *w)
{
    return (double)w->pitch * w->rows + (w->scale ? (double)w->scale_pitch * w->rows : 0);
}

/* Of the experts that rows of the step use. */
static double experts_bytes(const struct meter *m, int layer)
{
    const struct dsv4_layer *w = &m->engine->model->layer[layer];
    int n = m->b->n_tok * w->route.n_used;
    const int32_t *id = m->route + (size_t)layer * (size_t)n;
    double bytes = 0;
    for (int e = 0; e < w->experts.n; e++) {
        const struct expert *x = &w->experts.e[e];
        bool used = false;
        for (int i = 0; i < n && !used; i++)
            used = id[i] == x->id;
        if (used)
            bytes += matrix_bytes(&x->gate) + matrix_bytes(&x->up) + matrix_bytes(&x->down);
    }
    return bytes;
}

/* Cached rows that the last row of the step looks at. */
static double cache_bytes(const struct meter *m, int layer)
{
    const struct dsv4_hyper *h = &m->engine->model->s;
    const struct kv_shape *s = m->session->kv.view.shape;
    int ratio = h->ratio[layer], end = m->b->at + m->b->n_tok;
    double bytes = (double)MIN(end, s->window) * (double)s->row_bytes;
    int n = ratio ? end / ratio : 0;
    if (ratio == DSV4_INDEX_RATIO)
        return bytes + (double)n * (double)s->index_row_bytes +
               (double)MIN(n, h->index_top_k) * (double)s->row_bytes;
    return bytes + (double)n * (double)s->row_bytes;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *all, int n)
{
    double v[LAYER_MOST_REPEAT];
    memcpy(v, all, (size_t)n * sizeof *v);
    qsort(v, (size_t)n, sizeof *v, ascending);
    return (v[(n - 1) / 2] + v[n / 2]) / 2;
}

static void add_layer(const struct meter *m, int layer, struct layer_times *t)
{
    const struct seen *s = &m->seen[layer];
    t->n_op = s->n_op;
    for (int i = 0; i < s->n_op; i++) {
        struct layer_op *op = &t->op[i];
        const struct op_call *c = &s->call[i];
        bool experts = strcmp(c->name, "experts") == 0;
        double bytes = c->w && strcmp(c->name, "embed") != 0 ? matrix_bytes(c->w)
                       : experts                              ? experts_bytes(m, layer)
                                                              : 0;
        op->name = c->name;
        op->type = c->w ? dtype_name((int)c->w->type) : NULL;
        op->cols = c->w ? c->w->cols : 0;
        op->rows = c->w ? c->w->rows : 0;
        op->bytes += bytes;
        double in_layer = median(s->s[i], m->b->repeat);
        double alone = is_product(c) ? median(s->alone_s[i], m->b->repeat) : 0;
        op->in_layer_s += in_layer;
        op->alone_s += alone;
        t->bytes += bytes;
        t->alone_s += is_product(c) ? alone : in_layer;
    }
    if (layer < m->engine->model->s.n_layer)
        t->cache_bytes += cache_bytes(m, layer);
    t->n_layer++;
}

/* Sums over the layers of a kind to those of one. */
static void divide(struct layer_times *t)
{
    double n = MAX(t->n_layer, 1);
    for (int k = 0; k < LAYER_MOST_REPEAT; k++)
        t->s[k] /= n;
    for (int i = 0; i < t->n_op; i++) {
        t->op[i].bytes /= n;
        t->op[i].in_layer_s /= n;
        t->op[i].alone_s /= n;
    }
    t->bytes /= n;
    t->cache_bytes /= n;
    t->alone_s /= n;
}

/* ---- everything ---------------------------------------------------------------------------- */

static int run_all(struct meter *m, struct err *e)
{
    int n_layer = m->engine->model->s.n_layer;
    struct layer_bench *b = m->b;
    for (m->round = -1; m->round < b->repeat; m->round++) {
        m->engine->dev->on_route = m->round < 0 ? note_route : NULL; /* which may wait */
        TRY(run_step(m, e));
        for (int l = 0; l <= n_layer && m->round >= 0; l++)
            b->kind[kind_of(m->engine, l)].s[m->round] += m->round_s[l];
    }
    TRY(run_wholes(m, e));
    TRY(run_products(m, e));
    for (int l = 0; l <= n_layer; l++)
        add_layer(m, l, &b->kind[kind_of(m->engine, l)]);
    for (int k = 0; k < N_LAYER_KIND; k++)
        divide(&b->kind[k]);
    return 0;
}

static void plan_rows(struct meter *m)
{
    uint64_t n_vocab = (uint64_t)m->engine->model->s.n_vocab;
    for (int i = 0; i < m->b->n_tok; i++) {
        int pos = m->b->at + i;
        m->row[i] = (struct row){ (int32_t)(rng_at(7, (uint64_t)pos) % n_vocab), pos, 0,
                                  i == m->b->n_tok - 1 };
    }
}

static int take_memory(struct meter *m, struct err *e)
{
    const struct dsv4_hyper *s = &m->engine->model->s;
    size_t n = (size_t)s->n_layer + 1, n_tok = (size_t)m->b->n_tok;
    m->seen = calloc(n, sizeof *m->seen);
    m->round_s = calloc(n, sizeof *m->round_s);
    m->route = calloc(n * n_tok * (size_t)s->n_used, sizeof *m->route);
    m->row = calloc(n_tok, sizeof *m->row);
    m->span = calloc(n * LAYER_MOST_OP + 1, sizeof *m->span);
    m->time = calloc(2 * n * LAYER_MOST_OP + 1, sizeof *m->time);
    if (!m->seen || !m->round_s || !m->route || !m->row || !m->span || !m->time)
        return err_set(e, ERR_NO_MEMORY, "out of memory for measuring %d rows", m->b->n_tok);
    return 0;
}

int measure_layers(struct layer_bench *b, dstar_session *session, struct err *e)
{
    struct session *s = session_of(session);
    struct dev *d = s->engine->dev;
    struct meter m = { .engine = s->engine, .session = s, .b = b };
    m.view = &s->kv.view;
    m.apart = dev_is_apart(d);
    m.processor_time = dev_n_thread(d) == 1;
    CHECK(b->repeat >= 1 && b->repeat <= LAYER_MOST_REPEAT && !d->on_op && !d->on_route);
    if (b->n_tok < 1 || b->n_tok > s->engine->budget.max_rows || b->at < 0)
        return err_set(e, ERR_LIMIT, "%d rows at %d: expected 1 to %d rows", b->n_tok, b->at,
                       s->engine->budget.max_rows);
    if (s->engine->model->store)
        return err_set(e, ERR_UNSUPPORTED, "%s: its experts are read while it runs; expected a "
                       "model that memory holds, such as a few of its layers", s->engine->path);
    memset(b->kind, 0, sizeof b->kind);
    int code = take_memory(&m, e);
    if (code == 0)
        code = measure_fill_cache(session, b->at, 1, e);
    if (code == 0) {
        plan_rows(&m);
        d->on_op = note_op;
        d->on_op_user = &m;
        d->on_route_user = &m;
        code = run_all(&m, e);
        d->on_op = NULL;
        d->on_op_user = NULL;
        d->on_route = NULL;
        d->on_route_user = NULL;
    }
    free(m.seen);
    free(m.round_s);
    free(m.route);
    free(m.row);
    free(m.span);
    free(m.time);
    return code;
}
