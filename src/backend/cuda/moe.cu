/* moe.cu - routed experts. Their pairs are grouped on the device (group.cu), so that the host need
 * not wait for the route; then gate and up with the routing weight, and down, are products with a
 * job for every expert that is used. */
#include "gated_impl.h"
#include "group_impl.h"
#include "pairs_impl.h"
#include "round_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 256

/* ---- the gate ------------------------------------------------------------------------------ */

struct cu_gate {
    float *gate, *up; /* [n_pair][n_mid] in the order of lists */
    int n_mid;
    const struct cu_groups *groups;
    struct cu_gating gating;
};

/* gate := weight * silu(gate) * up. Grid: elements, places in the lists. */
__global__ void __launch_bounds__(THREADS) gate_kernel(struct cu_gate g)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x, row = blockIdx.y;
    if (i >= (size_t)g.n_mid || (int)row >= g.groups->first[g.groups->n_active])
        return;
    float *at = g.gate + row * g.n_mid + i;
    *at = silu_times(*at, g.up[row * g.n_mid + i], g.gating.clamp) *
          pair_weight(&g.gating, g.groups->pair[row]);
}

/* ---- the op -------------------------------------------------------------------------------- */

enum { GATE, UP, DOWN, N_MATRIX };

struct experts {
    const struct tensor *x;
    struct tensor *part;
    const struct route *route;
    const struct expert_set *some;
    float clamp;
    int n_pair, n_mid;
    const struct expert *each; /* [set] on the device; NULL: they lie at equal distances */
    struct grouping g;
    float *gate, *up;
    uint8_t *packed;                     /* x, or what goes into down */
};

static const struct tensor *matrix(const struct expert *e, int which)
{
    return which == GATE ? &e->gate : which == UP ? &e->up : &e->down;
}

/* From one expert to the next. */
static size_t distance(const struct expert_set *some, int which)
{
    return some->n < 2 ? 0 : (size_t)((uintptr_t)matrix(&some->e[1], which)->data -
                                      (uintptr_t)matrix(&some->e[0], which)->data);
}

static size_t scale_distance(const struct expert_set *some, int which)
{
    return some->n < 2 ? 0 : (size_t)((uintptr_t)matrix(&some->e[1], which)->scale -
                                      (uintptr_t)matrix(&some->e[0], which)->scale);
}

static bool is_regular(const struct expert_set *some, int which)
{
    const struct tensor *t = matrix(&some->e[0], which);
    size_t by = distance(some, which), scale_by = scale_distance(some, which);
    for (int i = 0; i < some->n; i++) {
        const struct tensor *w = matrix(&some->e[i], which);
        CHECK(w->type == t->type && w->cols == t->cols && w->rows == t->rows);
        if (some->e[i].id != some->e[0].id + i ||
            (uintptr_t)w->data != (uintptr_t)t->data + (size_t)i * by ||
            (uintptr_t)w->scale != (uintptr_t)t->scale + (size_t)i * scale_by)
            return false;
    }
    return true;
}

/* What the device must be told of the set: nothing where it is regular, or known there. */
static void show_set(struct dev *d, struct experts *p)
{
    size_t n = (size_t)p->some->n;
    const struct expert *e = p->some->e;
    p->g.first_id = e[0].id;
    p->each = p->some->there ? cuda_ahead(d, p->some) : NULL;
    if (p->each || (is_regular(p->some, GATE) && is_regular(p->some, UP) &&
                    is_regular(p->some, DOWN)))
        return;
    size_t bytes = n * (sizeof *e + sizeof(int));
    struct expert *list = (struct expert *)cuda_stage(d, bytes);
    if (!list)
        return;
    int *id = (int *)(void *)(list + n);
    for (size_t i = 0; i < n; i++) {
        list[i] = e[i];
        id[i] = e[i].id;
    }
    p->each = (const struct expert *)cuda_send(d, list, bytes);
    p->g.id = (const int *)(const void *)(p->each + n);
}

/* Of a row, for products of many or of few rows, and of any type. */
static size_t rounded_bytes(int k)
{
    return MAX(many_bytes(k), (size_t)n_record(k) * sizeof(struct cu_record));
}

/* Sizes follow from shapes alone, so that planning sees the same ones. */
static void take_workspace(struct dev *d, struct experts *p)
{
    size_t n = (size_t)p->n_pair, n_set = (size_t)p->some->n;
    size_t x_bytes = rounded_bytes(p->x->cols) * (size_t)p->x->rows;
    p->g.groups = (struct cu_groups *)dev_alloc(d, sizeof *p->g.groups);
    p->g.active = (int *)dev_alloc(d, n_set * sizeof(int));
    p->g.first = (int *)dev_alloc(d, (n_set + 1) * sizeof(int));
    p->g.pair = (int *)dev_alloc(d, n * sizeof(int));
    p->g.tile = (struct cu_tile *)dev_alloc(d, group_tiles(&p->g) * sizeof *p->g.tile);
    p->gate = (float *)dev_alloc(d, n * (size_t)p->n_mid * sizeof(float));
    p->up = (float *)dev_alloc(d, n * (size_t)p->n_mid * sizeof(float));
    p->packed = (uint8_t *)dev_alloc(d, MAX(x_bytes, n * rounded_bytes(p->n_mid)));
}

/* One of the three matrices for every used expert: rows of x to places in the lists, or those to
 * pairs. */
static struct cu_product product_of(struct dev *d, const struct experts *p, int which)
{
    const struct tensor *w = matrix(&p->some->e[0], which);
    struct cu_product c;
    bool down = which == DOWN;
    memset(&c, 0, sizeof c);
    c.type = w->type;
    c.k = w->cols;
    c.rows = w->rows;
    c.n = p->n_pair;
    c.tables = cuda_of(d)->tables;
    c.w = weights_of(w);
    c.groups = p->g.groups;
    c.n_tile = (int)group_tiles(&p->g);
    c.each = p->each ? matrix(p->each, which) : NULL;
    c.expert_pitch = p->each ? 0 : distance(p->some, which);
    c.expert_scale_pitch = p->each ? 0 : scale_distance(p->some, which);
    c.in_div = down ? 0 : p->g.n_used;
    c.out_pairs = down;
    c.x = (const uint8_t *)(down ? (void *)p->gate : p->x->data);
    c.x_pitch = down ? (size_t)p->n_mid * sizeof(float) : p->x->pitch;
    c.out = down ? (float *)p->part->data : which == GATE ? p->gate : p->up;
    c.out_pitch = down ? p->part->pitch / sizeof(float) : (size_t)p->n_mid;
    return c;
}

static bool rounds(const struct dev *d, const struct experts *p, int which)
{
    return !cuda_of(d)->exact && act_block(matrix(&p->some->e[0], which)->type);
}

static void pack(struct dev *d, const struct experts *p, struct cu_product *c, int n)
{
    struct cu_pack pack = { c->x, c->x_pitch, p->packed, c->k, 0, n, many_bytes(c->k) };
    cuda_pack_many(d, &pack);
    c->x = p->packed;
    c->x_pitch = pack.to_pitch;
}

static void product(struct dev *d, const struct experts *p, int which)
{
    struct cu_product c = product_of(d, p, which);
    if (rounds(d, p, which)) {
        pack(d, p, &c, which == DOWN ? p->n_pair : p->x->rows);
        cuda_product_many(d, &c, 1);
    } else if (p->x->rows > FEW_MAX) {
        cuda_product_many_exact(d, &c, 1);
    } else {
        cuda_product_few_exact(d, &c, MIN(p->n_pair, p->some->n));
    }
}

static struct cu_gating gating(const struct experts *p)
{
    return { (const float *)p->route->weight.data, p->route->weight.pitch / sizeof(float),
             p->g.n_used, p->clamp };
}

/* Gate and up in one launch, whose results are packed as down wants them; nobody may be shown them.
 * Else false. */
static bool run_gated(struct dev *d, const struct experts *p)
{
    const struct tensor *gate = &p->some->e[0].gate, *up = &p->some->e[0].up;
    if (d->watch || gate->type != up->type || p->n_mid % 2 || !rounds(d, p, GATE) ||
        !rounds(d, p, DOWN))
        return false;
    struct cu_product c[N_MATRIX];
    for (int i = 0; i < N_MATRIX; i++)
        c[i] = product_of(d, p, i);
    struct cu_gating g = gating(p);
    pack(d, p, &c[GATE], p->x->rows);
    cuda_gated_many(d, &c[GATE], &c[UP], &g);
    c[DOWN].x_pitch = many_bytes(p->n_mid);
    cuda_product_many(d, &c[DOWN], 1);
    return true;
}

static struct cu_matrices matrices(const struct experts *p, int which)
{
    struct cu_matrices m = { weights_of(matrix(&p->some->e[0], which)),
                             distance(p->some, which), scale_distance(p->some, which),
                             p->each ? matrix(p->each, which) : NULL };
    return m;
}

/* Few rows, and nobody to be shown the pairs: gate and up in one launch, down in another. */
static bool pairs_serve(struct dev *d, const struct experts *p)
{
    const struct tensor *gate = &p->some->e[0].gate, *down = &p->some->e[0].down;
    return p->x->rows <= FEW_MAX && !d->watch && !cuda_of(d)->exact &&
           gate->type == p->some->e[0].up.type && cuda_pairs_fit(d, gate->type, gate->cols) &&
           cuda_pairs_fit(d, down->type, down->cols);
}

static void run_pairs(struct dev *d, const struct experts *p)
{
    struct cu_pairs c;
    cuda_bring(d, p->some, p->route);
    memset(&c, 0, sizeof c);
    c.set = { p->g.n_set, p->g.first_id, p->g.id };
    c.route = p->g.route;
    c.route_pitch = p->g.route_pitch;
    c.weight = (const float *)p->route->weight.data;
    c.weight_pitch = p->route->weight.pitch / sizeof(float);
    c.n_used = p->g.n_used;
    c.n_pair = p->n_pair;
    for (int down = 0; down < 2; down++) {
        const struct tensor *w = matrix(&p->some->e[0], down ? DOWN : GATE);
        c.f.type = w->type;
        c.f.k = w->cols;
        c.f.rows = w->rows;
        c.f.clamp = p->clamp;
        c.f.x = (const uint8_t *)(down ? (void *)p->gate : p->x->data);
        c.f.x_pitch = down ? (size_t)p->n_mid * sizeof(float) : p->x->pitch;
        c.f.out = down ? (float *)p->part->data : p->gate;
        c.f.out_pitch = down ? p->part->pitch / sizeof(float) : (size_t)p->n_mid;
        c.x_div = down ? 1 : p->g.n_used;
        c.w = matrices(p, down ? DOWN : GATE);
        c.up = down ? cu_matrices() : matrices(p, UP);
        cuda_pairs(d, &c, p->packed);
    }
}

/* The host's copies of the lists, expert by expert. */
static void show_pairs(struct dev *d, const struct experts *p)
{
    struct cu_groups g;
    struct tensor list = { p->g.pair, DT_I32, p->n_pair, 1, (size_t)p->n_pair * 4, NULL, 0 };
    struct tensor mid = { p->gate, DT_F32, p->n_mid, p->n_pair, (size_t)p->n_mid * 4, NULL, 0 };
    int first[MAX_EXPERT + 1], active[MAX_EXPERT];
    cuda_copy(d, &g, p->g.groups, sizeof g);
    cuda_copy(d, first, p->g.first, (size_t)(p->some->n + 1) * sizeof(int));
    cuda_copy(d, active, p->g.active, (size_t)p->some->n * sizeof(int));
    struct tensor pair = cuda_look(d, &list), seen = cuda_look(d, &mid);
    struct tensor x = cuda_look(d, p->x);
    for (int a = 0; d->err.code == ERR_NONE && a < g.n_active; a++) {
        struct tensor part = tensor_rows(&seen, first[a], first[a + 1] - first[a]);
        struct dev_pairs pairs = { d->layer, p->some->e[active[a]].id, part.rows, p->g.n_used,
                                   (const int *)pair.data + first[a], &x, &part };
        d->watch->expert(d->watch->user, &pairs);
    }
}

static void sum_pairs(struct dev *d, const struct experts *p)
{
    struct tensor mid = { p->gate, DT_F32, p->n_mid, p->n_pair, (size_t)p->n_mid * 4, NULL, 0 };
    const struct dev_sums *to = d->watch->expert_sums(d->watch->user, d->layer);
    if (!to)
        return;
    cuda_sum_lists(d, &to[0], p->x, &p->g, p->g.n_used);
    cuda_sum_lists(d, &to[1], &mid, &p->g, 0);
}

static void run_experts(struct dev *d, struct experts *p)
{
    show_set(d, p);
    if (d->err.code != ERR_NONE)
        return;
    if (pairs_serve(d, p)) {
        run_pairs(d, p);
        return;
    }
    cuda_group(d, &p->g);
    if (run_gated(d, p))
        return;
    product(d, p, GATE);
    product(d, p, UP);
    struct cu_gate g = { p->gate, p->up, p->n_mid, p->g.groups, gating(p) };
    dim3 grid(blocks_for((size_t)p->n_mid, THREADS), (unsigned)p->n_pair);
    LAUNCH(d, gate_kernel, grid, THREADS, 0, g);
    if (d->watch)
        (d->watch->sums ? sum_pairs : show_pairs)(d, p);
    product(d, p, DOWN);
}

void cuda_experts(struct dev *d, struct tensor *part, const struct expert_set *some,
                  const struct route *route, const struct tensor *x, float clamp)
{
    struct experts p;
    if (some->n == 0)
        return;
    CHECK(some->n <= MAX_EXPERT && some->e[some->n - 1].id < MAX_EXPERT);
    size_t mark = arena_mark(&d->scratch);
    memset(&p, 0, sizeof p);
    p.x = x;
    p.part = part;
    p.route = route;
    p.some = some;
    p.clamp = clamp;
    p.n_pair = x->rows * route->id.cols;
    p.n_mid = some->e[0].gate.rows;
    p.g.n_set = some->n;
    p.g.n_used = route->id.cols;
    p.g.n_pair = p.n_pair;
    p.g.route = (const int32_t *)route->id.data;
    p.g.route_pitch = route->id.pitch / sizeof(int32_t);
    take_workspace(d, &p);
    if (cuda_runs(d))
        run_experts(d, &p);
    arena_rewind(&d->scratch, mark);
}
