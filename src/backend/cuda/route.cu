/* route.cu - which experts a row goes to, and the sum of what they made of it. Scores are in
 * double, so that a choice between near equals falls as it does in the definition. */
#include "device_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#include <math.h>

#define THREADS 256
#define MAX_EXPERT 1024
#define MAX_USED 64

struct scores {
    double score[MAX_EXPERT], key[MAX_EXPERT]; /* key: with bias; a taken one is NaN */
    double best[THREADS / WARP];
    int best_id[THREADS / WARP], id[MAX_USED];
};

/* softplus without losing small values. */
__device__ __forceinline__ double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

/* Whether (x, i) comes before (y, j): the larger, of equals the lower. */
__device__ __forceinline__ bool before(double x, int i, double y, int j)
{
    return j < 0 || (i >= 0 && (x > y || (x == y && i < j)));
}

/* The best key that is left, to s->id[slot]. */
__device__ __forceinline__ void take_best(struct scores *s, int n, int slot)
{
    double best = 0;
    int id = -1, warp = (int)threadIdx.x / WARP;
    for (int e = (int)threadIdx.x; e < n; e += THREADS)
        if (!isnan(s->key[e]) && before(s->key[e], e, best, id)) {
            best = s->key[e];
            id = e;
        }
    for (int i = WARP / 2; i > 0; i /= 2) {
        double other = __shfl_xor_sync(ALL_LANES, best, i);
        int other_id = __shfl_xor_sync(ALL_LANES, id, i);
        if (before(other, other_id, best, id)) {
            best = other;
            id = other_id;
        }
    }
    if (LANE == 0) {
        s->best[warp] = best;
        s->best_id[warp] = id;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < THREADS / WARP; w++)
            if (before(s->best[w], s->best_id[w], best, id)) {
                best = s->best[w];
                id = s->best_id[w];
            }
        s->id[slot] = id;
        s->key[id] = NAN;
    }
    __syncthreads();
}

/* Grid: rows. routes: of the first token for this layer (dev_routes_of()), or none. */
__global__ void __launch_bounds__(THREADS) route_kernel(struct route out, struct cu_mat logits,
                                                        struct router router, struct cu_step step,
                                                        struct dev_routes routes)
{
    SHARED(struct scores, s);
    int row = (int)blockIdx.x, n_used = router.n_used, t = (int)threadIdx.x;
    for (int e = t; e < router.n_expert; e += THREADS) {
        double x = sqrt(softplus((double)logits.x[row * logits.pitch + e]));
        double key = x + (router.bias ? (double)router.bias[e] : 0);
        s.score[e] = x;
        s.key[e] = isnan(key) ? -(double)INFINITY : key;
    }
    __syncthreads();
    if (router.by_token && t < n_used)
        s.id[t] = router.by_token[(size_t)step.row[row].token * n_used + t];
    for (int j = 0; j < n_used && !router.by_token; j++)
        take_best(&s, router.n_expert, j);
    __syncthreads();
    if (t >= n_used)
        return;
    double sum = 0;
    for (int j = 0; j < n_used; j++)
        sum += s.score[s.id[j]];
    int id = s.id[t];
    if (routes.id)
        id = routes.id[(size_t)(step.row[row].pos % routes.n_tok) * routes.n_layer * n_used + t];
    ((int32_t *)((uint8_t *)out.id.data + row * out.id.pitch))[t] = id;
    ((float *)((uint8_t *)out.weight.data + row * out.weight.pitch))[t] =
        (float)(s.score[s.id[t]] / sum * (double)router.scale);
}

void cuda_route(struct dev *d, struct route *out, const struct tensor *logits,
                const struct router *router, const struct rows *r)
{
    CHECK(router->n_expert <= MAX_EXPERT && router->n_used <= MAX_USED);
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    struct dev_routes routes = {};
    if (d->routes)
        routes = *d->routes;
    routes.id = dev_routes_of(d, 0);
    if (s)
        LAUNCH(d, route_kernel, dim3((unsigned)r->n), THREADS, 0, *out, mat_of(logits), *router,
               *s, routes);
}

/* ---- sum_experts --------------------------------------------------------------------------- */

struct slots {
    int slot[MAX_USED];
};

/* A row's slots by ascending expert, equal ones in their order. Thread t places slot t. */
__device__ __forceinline__ void order_slots(struct slots *s, const int32_t *id, int n)
{
    int t = (int)threadIdx.x, at = 0;
    for (int j = 0; j < n && t < n; j++)
        at += id[j] < id[t] || (id[j] == id[t] && j < t);
    if (t < n)
        s->slot[at] = t;
    __syncthreads();
}

/* Grid: columns, rows. */
__global__ void __launch_bounds__(THREADS) sum_kernel(struct cu_mat out, struct cu_mat part,
                                                      struct tensor ids, int cols)
{
    SHARED(struct slots, s);
    size_t row = blockIdx.y, n = (size_t)ids.cols, c = (size_t)blockIdx.x * THREADS + threadIdx.x;
    order_slots(&s, (const int32_t *)((const uint8_t *)ids.data + row * ids.pitch), ids.cols);
    if (c >= (size_t)cols)
        return;
    float sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += part.x[(row * n + (size_t)s.slot[j]) * part.pitch + c];
    out.x[row * out.pitch + c] = sum;
}

void cuda_sum_experts(struct dev *d, struct tensor *out, const struct tensor *part,
                      const struct route *route)
{
    CHECK(route->id.cols <= MAX_USED);
    dim3 grid(blocks_for((size_t)out->cols, THREADS), (unsigned)out->rows);
    if (cuda_runs(d))
        LAUNCH(d, sum_kernel, grid, THREADS, 0, mat_of(out), mat_of(part), route->id, out->cols);
}
