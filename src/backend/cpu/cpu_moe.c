/* cpu_moe.c - routed experts: rows are grouped by expert, so that every weight is read once.
 *
 * A pair is one row's use of one expert. Threads take (expert, slab of rows) in two rounds: gate
 * and up of all pairs with the routing weight applied, then down. */
#include "cpu_ops_impl.h"

#include <math.h>

#define MAX_EXPERT 1024
#define MAX_SLAB 64

/* ---- routing ------------------------------------------------------------------------------- */

struct routing {
    struct route *out;
    const struct tensor *logits;
    const struct router *router;
    const struct rows *r;
    double *score; /* per worker [n_expert] */
};

/* softplus without losing small values. */
static double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

/* The n_used largest of score + bias, falling; of equal sums the lower id. */
static void choose(int32_t *id, const double *score, const struct router *router)
{
    double best[64];
    int n = 0;
    CHECK(router->n_used <= (int)COUNT_OF(best));
    for (int e = 0; e < router->n_expert; e++) {
        double sum = score[e] + (router->bias ? (double)router->bias[e] : 0);
        if (isnan(sum))
            sum = -INFINITY;
        if (n == router->n_used && !(sum > best[n - 1]))
            continue;
        int at = n < router->n_used ? n++ : n - 1;
        for (; at > 0 && sum > best[at - 1]; at--) {
            best[at] = best[at - 1];
            id[at] = id[at - 1];
        }
        best[at] = sum;
        id[at] = e;
    }
}

static void route_task(void *ctx, int i, int worker)
{
    const struct routing *p = ctx;
    const struct router *router = p->router;
    double *score = p->score + (size_t)worker * (size_t)router->n_expert, sum = 0;
    int32_t *id = tensor_i32(&p->out->id, i);
    for (int e = 0; e < router->n_expert; e++)
        score[e] = sqrt(softplus((double)tensor_f32(p->logits, i)[e]));
    if (router->by_token)
        memcpy(id, router->by_token + (size_t)p->r->host[i].token * (size_t)router->n_used,
               (size_t)router->n_used * sizeof *id);
    else
        choose(id, score, router);
    for (int j = 0; j < router->n_used; j++)
        sum += score[id[j]];
    for (int j = 0; j < router->n_used; j++)
        tensor_f32(&p->out->weight, i)[j] = (float)(score[id[j]] / sum * (double)router->scale);
}

void cpu_route(struct dev *d, struct route *out, const struct tensor *logits,
               const struct router *router, const struct rows *r)
{
    struct pool *pool = cpu_of(d)->pool;
    size_t mark = arena_mark(&d->scratch), n = (size_t)router->n_expert;
    struct routing p = { .out = out, .logits = logits, .router = router, .r = r };
    p.score = dev_alloc(d, (size_t)pool_size(pool) * n * sizeof *p.score);
    if (!dev_planning(d) && d->err.code == ERR_NONE)
        pool_run(pool, route_task, &p, r->n);
    arena_rewind(&d->scratch, mark);
}

/* ---- experts ------------------------------------------------------------------------------- */

struct experts {
    const struct cpu *c;
    const struct expert_set *some;
    const struct route *route;
    const struct tensor *x;
    struct tensor *part;
    float clamp;
    int n_pair, n_mid, n_active, slab_rows, n_slab;
    int *pair;                       /* [n_pair], grouped by expert; pair = row * n_used + slot */
    int active[MAX_EXPERT];          /* experts of the set that have pairs */
    int first[MAX_EXPERT + 1];       /* [n_active + 1] into pair */
    bool used[N_ACT];                /* forms of x that gate and up want */
    uint8_t *packed[N_ACT];          /* x in those forms, [rows] of act_bytes */
    float *mid;                      /* [n_pair][n_mid]: what goes into down, in order of pair */
    uint8_t *mid_packed;             /* the same in the form that down wants */
    size_t mid_bytes;
    const void **in;                 /* [n_pair] */
    float **to;                      /* [n_pair] */
    float *up, *decoded;             /* per worker [BAND_X][MAX_SLAB], as slab.decoded */
    size_t n_decoded;
};

static enum act_form form_of(const struct experts *p, const struct tensor *w)
{
    return cpu_product_kernel(p->c, w->type, false).form;
}

static int find_expert(const struct expert_set *some, int id)
{
    int lo = 0, hi = some->n;
    while (lo < hi) {
        int at = (lo + hi) / 2;
        if (some->e[at].id < id)
            lo = at + 1;
        else
            hi = at;
    }
    return lo < some->n && some->e[lo].id == id ? lo : -1;
}

/* Pairs grouped by expert, in their order: a counting sort. */
static void group_pairs(struct experts *p)
{
    int n_used = p->route->id.cols, n_all = p->x->rows * n_used, at[MAX_EXPERT + 1] = { 0 };
    CHECK(p->some->n <= MAX_EXPERT);
    for (int i = 0; i < n_all; i++) {
        int e = find_expert(p->some, tensor_i32(&p->route->id, i / n_used)[i % n_used]);
        if (e >= 0)
            at[e]++;
    }
    for (int e = 0, sum = 0; e < p->some->n; e++) {
        int count = at[e];
        at[e] = sum;
        if (count) {
            p->active[p->n_active] = e;
            p->first[p->n_active++] = sum;
        }
        sum += count;
        p->n_pair = sum;
    }
    p->first[p->n_active] = p->n_pair;
    for (int i = 0; i < n_all; i++) {
        int e = find_expert(p->some, tensor_i32(&p->route->id, i / n_used)[i % n_used]);
        if (e >= 0)
            p->pair[at[e]++] = i;
    }
    for (int a = 0; a < p->n_active; a++) {
        p->used[form_of(p, &p->some->e[p->active[a]].gate)] = true;
        p->used[form_of(p, &p->some->e[p->active[a]].up)] = true;
    }
}

static void pack_x_task(void *ctx, int i, int worker)
{
    const struct experts *p = ctx;
    (void)worker;
    for (int form = ACT_F32 + 1; form < N_ACT; form++)
        if (p->used[form])
            p->c->k.pack[form](tensor_f32(p->x, i),
                               p->packed[form] + (size_t)i * act_bytes((enum act_form)form,
                                                                       p->x->cols),
                               p->x->cols);
}

static const void *input(const struct experts *p, enum act_form form, int pair)
{
    int i = pair / p->route->id.cols;
    if (form == ACT_F32)
        return tensor_f32(p->x, i);
    return p->packed[form] + (size_t)i * act_bytes(form, p->x->cols);
}

/* Rows r .. r+n-1 of w times the inputs of n_x pairs from `from` on, to out[i][at ..]. */
static void half_product(const struct experts *p, const struct tensor *w, struct slab *s,
                         const int *pair)
{
    const void *x[BAND_X];
    s->w = w;
    s->kernel = cpu_product_kernel(p->c, w->type, false);
    s->k = &p->c->k;
    s->x = x;
    for (int i = 0; i < s->n_x; i++)
        x[i] = input(p, s->kernel.form, pair[i]);
    cpu_slab(s);
}

/* Up to BAND_X pairs of one expert through rows r .. r+n-1 of gate and up. */
static void gate_up(const struct experts *p, const struct expert *e, int from, int n_x,
                    struct slab s, int worker)
{
    float *out[BAND_X], *up_out[BAND_X];
    float *up = p->up + (size_t)worker * BAND_X * MAX_SLAB;
    const int *pair = p->pair + from;
    int n_used = p->route->id.cols;
    for (int i = 0; i < n_x; i++) {
        out[i] = p->mid + (size_t)(from + i) * (size_t)p->n_mid;
        up_out[i] = up + (size_t)i * MAX_SLAB;
    }
    s.n_x = n_x;
    s.out = out;
    s.at = s.first;
    half_product(p, &e->gate, &s, pair);
    s.out = up_out;
    s.at = 0;
    half_product(p, &e->up, &s, pair);
    for (int i = 0; i < n_x; i++) {
        float weight = tensor_f32(&p->route->weight, pair[i] / n_used)[pair[i] % n_used];
        float *mid = out[i] + s.first;
        p->c->k.swiglu(mid, mid, up_out[i], s.n, p->clamp, weight);
    }
}

static struct slab slab_of(const struct experts *p, int task, int rows, int worker)
{
    int first = task % p->n_slab * p->slab_rows;
    return (struct slab){
        .k = &p->c->k,
        .decoded = p->decoded + (size_t)worker * p->n_decoded,
        .first = first,
        .n = MIN(p->slab_rows, rows - first),
        .at = first,
    };
}

static void gate_up_task(void *ctx, int task, int worker)
{
    const struct experts *p = ctx;
    int a = task / p->n_slab;
    const struct expert *e = &p->some->e[p->active[a]];
    for (int from = p->first[a]; from < p->first[a + 1]; from += BAND_X)
        gate_up(p, e, from, MIN(BAND_X, p->first[a + 1] - from),
                slab_of(p, task, e->gate.rows, worker), worker);
}

/* Activations of down, pair by pair; active experts may want different forms. */
static void pack_mid_task(void *ctx, int a, int worker)
{
    const struct experts *p = ctx;
    (void)worker;
    enum act_form form = form_of(p, &p->some->e[p->active[a]].down);
    for (int i = p->first[a]; i < p->first[a + 1]; i++) {
        const float *mid = p->mid + (size_t)i * (size_t)p->n_mid;
        p->in[i] = mid;
        p->to[i] = tensor_f32(p->part, p->pair[i]);
        if (form == ACT_F32)
            continue;
        uint8_t *packed = p->mid_packed + (size_t)i * p->mid_bytes;
        p->c->k.pack[form](mid, packed, p->n_mid);
        p->in[i] = packed;
    }
}

static void down_task(void *ctx, int task, int worker)
{
    const struct experts *p = ctx;
    int a = task / p->n_slab;
    const struct expert *e = &p->some->e[p->active[a]];
    struct slab s = slab_of(p, task, e->down.rows, worker);
    s.w = &e->down;
    s.kernel = cpu_product_kernel(p->c, e->down.type, false);
    s.x = p->in + p->first[a];
    s.out = p->to + p->first[a];
    s.n_x = p->first[a + 1] - p->first[a];
    cpu_slab(&s);
}

static void cut(struct experts *p, const struct tensor *w)
{
    int n_x = MIN(p->x->rows, 2); /* one, or a few for each expert */
    p->slab_rows = MIN(MAX_SLAB, cpu_slab_rows(p->c, w, w->rows, n_x));
    p->n_slab = (w->rows + p->slab_rows - 1) / p->slab_rows;
}

/* Sizes follow from shapes alone, so that planning sees the same ones. */
static void take_workspace(struct dev *d, struct experts *p)
{
    size_t n = (size_t)p->x->rows, n_thread = (size_t)pool_size(p->c->pool);
    size_t n_all = n * (size_t)p->route->id.cols;
    p->mid_bytes = MAX(act_bytes(ACT_Q32, p->n_mid), act_bytes(ACT_Q256, p->n_mid));
    p->pair = dev_alloc(d, n_all * sizeof *p->pair);
    for (int form = ACT_F32 + 1; form < N_ACT; form++)
        p->packed[form] = dev_alloc(d, n * act_bytes((enum act_form)form, p->x->cols));
    p->mid = dev_alloc(d, n_all * (size_t)p->n_mid * sizeof *p->mid);
    p->mid_packed = dev_alloc(d, n_all * p->mid_bytes);
    p->in = dev_alloc(d, n_all * sizeof *p->in);
    p->to = dev_alloc(d, n_all * sizeof *p->to);
    p->up = dev_alloc(d, n_thread * BAND_X * MAX_SLAB * sizeof *p->up);
    p->n_decoded = TILE_W * (size_t)(MAX(p->x->cols, p->n_mid) + APART);
    p->decoded = dev_alloc(d, n_thread * p->n_decoded * sizeof *p->decoded);
}

static void show_pairs(const struct dev_watch *watch, int layer, const struct experts *p)
{
    for (int a = 0; a < p->n_active; a++) {
        struct tensor mid = { p->mid + (size_t)p->first[a] * (size_t)p->n_mid, DT_F32, p->n_mid,
                              p->first[a + 1] - p->first[a], (size_t)p->n_mid * sizeof *p->mid,
                              NULL, 0 };
        struct dev_pairs pairs = { layer, p->some->e[p->active[a]].id, mid.rows,
                                   p->route->id.cols, p->pair + p->first[a], p->x, &mid };
        watch->expert(watch->user, &pairs);
    }
}

static void run_experts(struct dev *d, struct experts *p)
{
    struct pool *pool = p->c->pool;
    group_pairs(p);
    if (p->n_active == 0)
        return;
    pool_run(pool, pack_x_task, p, p->x->rows);
    cut(p, &p->some->e[0].gate);
    pool_run(pool, gate_up_task, p, p->n_active * p->n_slab);
    if (d->watch)
        show_pairs(d->watch, d->layer, p);
    pool_run(pool, pack_mid_task, p, p->n_active);
    cut(p, &p->some->e[0].down);
    pool_run(pool, down_task, p, p->n_active * p->n_slab);
}

void cpu_experts(struct dev *d, struct tensor *part, const struct expert_set *some,
                 const struct route *route, const struct tensor *x, float clamp)
{
    if (some->n == 0)
        return;
    size_t mark = arena_mark(&d->scratch);
    struct experts p;
    memset(&p, 0, sizeof p);
    p.c = cpu_of(d);
    p.some = some;
    p.route = route;
    p.x = x;
    p.part = part;
    p.clamp = clamp;
    p.n_mid = some->e[0].gate.rows;
    take_workspace(d, &p);
    if (!dev_planning(d) && d->err.code == ERR_NONE)
        run_experts(d, &p);
    arena_rewind(&d->scratch, mark);
}

/* ---- sum_experts --------------------------------------------------------------------------- */

struct sums {
    struct tensor *out;
    const struct tensor *part;
    const struct route *route;
};

/* Slots of a row in ascending expert id, equal ids in the order of slots. */
static void order_slots(int *slot, const int32_t *id, int n)
{
    for (int j = 0; j < n; j++) {
        int at = j;
        for (; at > 0 && id[slot[at - 1]] > id[j]; at--)
            slot[at] = slot[at - 1];
        slot[at] = j;
    }
}

static void sum_task(void *ctx, int i, int worker)
{
    const struct sums *p = ctx;
    (void)worker;
    int n_used = p->route->id.cols, slot[64];
    CHECK(n_used <= (int)COUNT_OF(slot));
    order_slots(slot, tensor_i32(&p->route->id, i), n_used);
    float *sum = tensor_f32(p->out, i);
    memset(sum, 0, (size_t)p->out->cols * sizeof *sum);
    for (int j = 0; j < n_used; j++) {
        const float *part = tensor_f32(p->part, i * n_used + slot[j]);
        for (int k = 0; k < p->out->cols; k++)
            sum[k] += part[k];
    }
}

void cpu_sum_experts(struct dev *d, struct tensor *out, const struct tensor *part,
                     const struct route *route)
{
    struct sums p = { .out = out, .part = part, .route = route };
    if (!dev_planning(d))
        pool_run(cpu_of(d)->pool, sum_task, &p, out->rows);
}
