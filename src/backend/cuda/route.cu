/* route.cu - which experts a row goes to, and the sum of what they made of it. Scores are in
 * double, so that a choice between near equals falls as it does in the definition. */
#include "used_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#include <math.h>

#define THREADS 256
#define MAX_EXPERT 1024

struct scores {
    double score[MAX_EXPERT];
    uint64_t key[MAX_EXPERT]; /* falls as score with bias does; a taken one is 0 */
    float bias[MAX_EXPERT];
    int id[MAX_USED];
};

/* softplus without losing small values. */
__device__ __forceinline__ double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

/* Larger numbers have larger keys, both zeros the same. */
__device__ __forceinline__ uint64_t key_of(double x)
{
    uint64_t u = (uint64_t)__double_as_longlong(x + 0.0), top = (uint64_t)1 << 63;
    return u & top ? ~u : u | top;
}

/* The largest key among a lane's experts: every 32nd; of equal ones the lower's. */
__device__ __forceinline__ int best_of_lane(const struct scores *s, int n)
{
    int best = LANE;
    for (int e = LANE + WARP; e < n; e += WARP)
        best = s->key[e] > s->key[best] ? e : best;
    return best;
}

/* The n_used best by falling key, of equal ones the lower, to s->id. By a warp. */
__device__ __forceinline__ void take_best(struct scores *s, int n, int n_used)
{
    int best = best_of_lane(s, n);
    for (int slot = 0; slot < n_used; slot++) {
        uint64_t key = best < n ? s->key[best] : 0;
        uint32_t high = (uint32_t)(key >> 32), most = __reduce_max_sync(ALL_LANES, high);
        uint32_t low = high == most ? (uint32_t)key : 0;
        bool mine = __reduce_max_sync(ALL_LANES, low) == low && high == most && best < n;
        int id = (int)__reduce_min_sync(ALL_LANES, mine ? (uint32_t)best : 0xffffffff);
        if (LANE == 0)
            s->id[slot] = id;
        if (best == id) {
            s->key[id] = 0;
            best = best_of_lane(s, n);
        }
    }
}

/* Grid: rows. routes: of the first token for this layer (dev_routes_of()), or none. uses: of the
 * layer's experts, or NULL; nobody waits for what is added. */
__global__ void __launch_bounds__(THREADS) route_kernel(struct route out, struct cu_mat logits,
                                                        struct router router, struct cu_step step,
                                                        struct dev_routes routes, uint32_t *uses)
{
    SHARED(struct scores, s);
    int row = (int)blockIdx.x, n_used = router.n_used, t = (int)threadIdx.x;
    struct cu_row r = step.row[row];
    for (int e = t; e < router.n_expert; e += THREADS)
        s.bias[e] = router.bias ? router.bias[e] : 0;
    if (router.by_token && t < n_used)
        s.id[t] = router.by_token[(size_t)r.token * n_used + t];
    wait_for_last();
    for (int e = t; e < router.n_expert; e += THREADS) {
        double x = sqrt(softplus((double)logits.x[row * logits.pitch + e]));
        double key = x + (double)s.bias[e];
        s.score[e] = x;
        s.key[e] = key_of(isnan(key) ? -(double)INFINITY : key);
    }
    __syncthreads();
    if (!router.by_token && t < WARP)
        take_best(&s, router.n_expert, n_used);
    __syncthreads();
    if (t >= n_used)
        return;
    double sum = 0;
    for (int j = 0; j < n_used; j++)
        sum += s.score[s.id[j]];
    int id = s.id[t];
    if (routes.id)
        id = routes.id[(size_t)(r.pos % routes.n_tok) * routes.n_layer * n_used + t];
    ((int32_t *)((uint8_t *)out.id.data + row * out.id.pitch))[t] = id;
    ((float *)((uint8_t *)out.weight.data + row * out.weight.pitch))[t] =
        (float)(s.score[s.id[t]] / sum * (double)router.scale);
    if (uses)
        atomicAdd(&uses[id], 1u);
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
    uint32_t *uses = d->uses && r->n <= FEW_MAX ? d->uses + d->layer * router->n_expert : NULL;
    if (s)
        LAUNCH_EARLY(d, route_kernel, dim3((unsigned)r->n), THREADS, 0, *out, mat_of(logits),
                     *router, *s, routes, uses);
    cuda_of(d)->routed = cuda_of(d)->n_launch;
}

/* ---- sum_experts --------------------------------------------------------------------------- */

struct slots {
    int slot[MAX_USED];
};

/* A row's slots by ascending expert, equal ones in their order. Thread t places slot t. */
__device__ __forceinline__ void order_slots(struct slots *s, const int32_t *id, int n)
{
    int t = (int)threadIdx.x;
    if (t < n)
        s->slot[place_by_expert(id, n, t)] = t;
    __syncthreads();
}

/* more.x: what is added last, or NULL. Grid: columns, rows. */
__global__ void __launch_bounds__(THREADS) sum_kernel(struct cu_mat out, struct cu_mat part,
                                                      struct tensor ids, struct cu_mat more,
                                                      int cols)
{
    wait_for_last();
    SHARED(struct slots, s);
    size_t row = blockIdx.y, n = (size_t)ids.cols, c = (size_t)blockIdx.x * THREADS + threadIdx.x;
    order_slots(&s, (const int32_t *)((const uint8_t *)ids.data + row * ids.pitch), ids.cols);
    if (c >= (size_t)cols)
        return;
    float sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += part.x[(row * n + (size_t)s.slot[j]) * part.pitch + c];
    out.x[row * out.pitch + c] = more.x ? sum + more.x[row * more.pitch + c] : sum;
}

void cuda_sum_experts_add(struct dev *d, struct tensor *out, const struct tensor *part,
                          const struct route *route, const struct tensor *x)
{
    CHECK(route->id.cols <= MAX_USED);
    dim3 grid(blocks_for((size_t)out->cols, THREADS), (unsigned)out->rows);
    struct cu_mat more = {};
    if (x)
        more = mat_of(x);
    if (cuda_runs(d))
        LAUNCH_EARLY(d, sum_kernel, grid, THREADS, 0, mat_of(out), mat_of(part), route->id, more,
               out->cols);
}

void cuda_sum_experts(struct dev *d, struct tensor *out, const struct tensor *part,
                      const struct route *route)
{
    cuda_sum_experts_add(d, out, part, route, NULL);
}
