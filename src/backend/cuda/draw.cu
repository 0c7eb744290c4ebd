/* draw.cu - a token from logits that stay where they are: in the arithmetic of run/sampler.c, bit
 * for bit. Of every row groups of 2048 tokens are looked through side by side, for the best, then
 * for sums of weights; one warp finds the token by those, or a block lists the best. */
#include "device_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
#include "draw.h"
}

#include <math.h>

#define ROWS 16 /* of a launch: they travel with it */
#define SURVEY_THREADS 256
#define WEIGH_THREADS (4 * DRAW_GROUP)
#define LIST_THREADS 1024
#define CLOSED 0x007fffffu /* the key of -infinity: what may not be drawn */

static_assert(DRAW_GROUP == WARP && DRAW_BLOCK == 2 * WARP, "a lane for a block, for two tokens");

struct cu_draws {
    struct draw row[ROWS];
    int n_vocab, n_group;
};

/* Larger numbers have larger keys, both zeros the same. */
__device__ __forceinline__ uint32_t key_of(float x)
{
    uint32_t u = __float_as_uint(x + 0.f);
    return u >> 31 ? ~u : u | 0x80000000u;
}

__device__ __forceinline__ float of_key(uint32_t key)
{
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

/* Of a token that is there. */
__device__ __forceinline__ bool is_allowed(const struct draw *d, int id)
{
    return d->allowed[id / 64] >> id % 64 & 1;
}

__device__ __forceinline__ uint32_t key_at(const struct draw *d, int id, int n_vocab)
{
    return id < n_vocab && is_allowed(d, id) ? key_of(d->kept[id]) : CLOSED;
}

/* exp2_of() in sampler.c. */
__device__ __forceinline__ double exp2_of(double x)
{
    const double low = 0x1.8p52;
    double shifted = x + low, z = (x - (shifted - low)) * 0x1.62e42fefa39efp-1;
    double z2 = z * z, z4 = z2 * z2;
    double high = 1. / 40320 + z * (1. / 362880) + z2 * (1. / 3628800 + z * (1. / 39916800));
    double mid = 1. / 24 + z * (1. / 120) + z2 * (1. / 720 + z * (1. / 5040));
    double sum = 1 + z + z2 * (1. / 2 + z * (1. / 6)) + z4 * (mid + z4 * high);
    uint64_t power = ((uint64_t)__double_as_longlong(shifted) << 52) + ((uint64_t)1023 << 52);
    return x >= -1000 ? sum * __longlong_as_double((long long)power) : 0;
}

__device__ __forceinline__ double weight_at(const struct draw *d, int id, int n_vocab, double best)
{
    if (id >= n_vocab || !is_allowed(d, id))
        return 0;
    return exp2_of((d->kept[id] - best) * d->steep);
}

/* ---- the best -------------------------------------------------------------------------------- */

struct survey {
    uint32_t most[DRAW_GROUP];
    int n_open[SURVEY_THREADS / WARP];
};

/* A warp's blocks of the group: their best; how many tokens may be drawn. */
__device__ __forceinline__ int survey_blocks(const struct draw *d, int n_vocab, uint32_t *most)
{
    const int n = DRAW_GROUP / (SURVEY_THREADS / WARP);
    int first = ((int)blockIdx.x * DRAW_GROUP + WARP_ID * n) * DRAW_BLOCK + LANE, n_open = 0;
    float x[2 * n];
    bool damaged = false;
#pragma unroll
    for (int i = 0; i < 2 * n; i++)
        x[i] = first + i * WARP < n_vocab ? d->logits[first + i * WARP] : -INFINITY;
#pragma unroll
    for (int i = 0; i < 2 * n; i++) {
        int id = first + i * WARP;
        uint32_t key = CLOSED;
        damaged |= !(x[i] < INFINITY);
        if (id < n_vocab) {
            d->kept[id] = x[i];
            key = is_allowed(d, id) ? key_of(x[i]) : CLOSED;
        }
        n_open += key > CLOSED;
        key = __reduce_max_sync(ALL_LANES, key);
        if (LANE == 0)
            most[i / 2] = i % 2 ? max(key, most[i / 2]) : key;
    }
    n_open = (int)__reduce_add_sync(ALL_LANES, (unsigned)n_open);
    return __ballot_sync(ALL_LANES, damaged) ? -1 : n_open;
}

/* Grid: groups, rows. */
__global__ void __launch_bounds__(SURVEY_THREADS)
survey_kernel(const __grid_constant__ struct cu_draws all)
{
    SHARED(struct survey, s);
    const struct draw *d = &all.row[blockIdx.y];
    struct draw_group *to = d->group + blockIdx.x;
    wait_for_last();
    int n = survey_blocks(d, all.n_vocab, s.most + WARP_ID * (DRAW_GROUP / N_WARP));
    if (LANE == 0)
        s.n_open[WARP_ID] = n;
    __syncthreads();
    if (WARP_ID != 0)
        return;
    uint32_t most = s.most[LANE];
    n = LANE < N_WARP ? s.n_open[LANE] : 0;
    bool damaged = __ballot_sync(ALL_LANES, n < 0) != 0;
    n = (int)__reduce_add_sync(ALL_LANES, (unsigned)n);
    to->most[LANE] = most;
    most = __reduce_max_sync(ALL_LANES, most);
    if (LANE == 0) {
        to->best = most;
        to->n_open = damaged ? -1 : n;
    }
}

/* What the groups of a row found, for every lane of a warp. */
struct whole {
    uint32_t best;
    int n_open;
};

__device__ __forceinline__ struct whole whole_of(const struct draw *d, int n_group)
{
    struct whole w = { 0, 0 };
    bool damaged = false;
    for (int g = LANE; g < n_group; g += WARP) {
        int n = d->group[g].n_open;
        w.best = max(w.best, d->group[g].best);
        w.n_open += n;
        damaged |= n < 0;
    }
    w.best = __reduce_max_sync(ALL_LANES, w.best);
    w.n_open = (int)__reduce_add_sync(ALL_LANES, (unsigned)w.n_open);
    if (__ballot_sync(ALL_LANES, damaged))
        w.n_open = -1;
    return w;
}

/* ---- sums of weights ------------------------------------------------------------------------- */

/* The sums of x, with `from` before the first lane's, up to every lane: one after another. */
__device__ __forceinline__ double sums_upto(double x, double from)
{
    double mine = 0;
#pragma unroll
    for (int i = 0; i < WARP; i++) {
        from += __shfl_sync(ALL_LANES, x, i);
        mine = LANE == i ? from : mine;
    }
    return mine;
}

struct sums {
    double of[DRAW_GROUP];
};

/* Grid: groups, rows. Four threads for a block of tokens, as sum_block() has four sums. */
__global__ void __launch_bounds__(WEIGH_THREADS)
weigh_kernel(const __grid_constant__ struct cu_draws all)
{
    SHARED(struct sums, sums);
    const struct draw *d = &all.row[blockIdx.y];
    wait_for_last();
    if (!d->with_sum)
        return;
    int b = (int)threadIdx.x / 4;
    int first = ((int)blockIdx.x * DRAW_GROUP + b) * DRAW_BLOCK + (int)threadIdx.x % 4;
    float x[DRAW_BLOCK / 4];
#pragma unroll
    for (int i = 0; i < DRAW_BLOCK / 4; i++)
        x[i] = first + 4 * i < all.n_vocab ? d->kept[first + 4 * i] : -INFINITY;
    uint64_t allowed = first < all.n_vocab ? d->allowed[first / 64] : 0;
    double best = of_key(whole_of(d, all.n_group).best), sum = 0;
#pragma unroll
    for (int i = 0; i < DRAW_BLOCK / 4; i++) {
        double weight = exp2_of((x[i] - best) * d->steep);
        sum += allowed >> (first + 4 * i) % 64 & 1 ? weight : 0;
    }
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    if (threadIdx.x % 4 == 0)
        sums.of[b] = sum;
    __syncthreads();
    if (WARP_ID == 0)
        d->group[blockIdx.x].upto[LANE] = sums_upto(sums.of[LANE], 0);
}

__device__ __forceinline__ double group_sum(const struct draw *d, int g, int n_group)
{
    return g < n_group ? d->group[g].upto[DRAW_GROUP - 1] : 0;
}

__device__ __forceinline__ double sum_of_all(const struct draw *d, int n_group)
{
    double sum = 0;
    for (int g = 0; g < n_group; g += WARP)
        sum = __shfl_sync(ALL_LANES, sums_upto(group_sum(d, g + LANE, n_group), sum), WARP - 1);
    return sum;
}

/* ---- one token ------------------------------------------------------------------------------- */

/* The first lane that says so, or -1. */
__device__ __forceinline__ int first_lane(bool yes)
{
    return __ffs((int)__ballot_sync(ALL_LANES, yes)) - 1;
}

/* The first lane whose sum is beyond `at`, or -1; *before: what comes before it, or all of them. */
__device__ __forceinline__ int lane_beyond(double upto, double at, double *before)
{
    int lane = first_lane(at < upto);
    double last = __shfl_sync(ALL_LANES, upto, lane < 0 ? WARP - 1 : max(lane - 1, 0));
    *before = lane == 0 ? *before : last;
    return lane;
}

/* The token of a block where the sum of weights passes `at`; by rounding that may be none: the last
 * that has any weight to give. */
__device__ int token_beyond(const struct draw *d, int first, int n_vocab, double best, double at,
                            double before)
{
    for (int i = 0; i < DRAW_BLOCK; i += WARP) {
        double upto = sums_upto(weight_at(d, first + i + LANE, n_vocab, best), before);
        int lane = lane_beyond(upto, at, &before);
        if (lane >= 0)
            return first + i + lane;
    }
    for (int i = DRAW_BLOCK - WARP; i >= 0; i -= WARP) {
        uint32_t key = key_at(d, first + i + LANE, n_vocab);
        unsigned open = __ballot_sync(ALL_LANES, key > CLOSED);
        if (open)
            return first + i + WARP - 1 - __clz((int)open);
    }
    return -1;
}

__device__ int draw_one(const struct draw *d, int n_vocab, int n_group, double best)
{
    double at = sum_of_all(d, n_group) * d->unit, before = 0;
    int g = 0, lane = -1;
    for (; g < n_group && lane < 0; g += WARP)
        lane = lane_beyond(sums_upto(group_sum(d, g + LANE, n_group), before), at, &before);
    if (lane < 0)
        return -1;
    g += lane - WARP;
    int b = lane_beyond(before + d->group[g].upto[LANE], at, &before);
    return token_beyond(d, (g * DRAW_GROUP + b) * DRAW_BLOCK, n_vocab, best, at, before);
}

/* The lowest id. */
__device__ int best_one(const struct draw *d, int n_vocab, int n_group, uint32_t best)
{
    int g = 0, lane = -1, first;
    for (; g < n_group && lane < 0; g += WARP)
        lane = first_lane(g + LANE < n_group && d->group[min(g + LANE, n_group - 1)].best == best);
    g += lane - WARP;
    first = (g * DRAW_GROUP + first_lane(d->group[g].most[LANE] == best)) * DRAW_BLOCK;
    lane = first_lane(key_at(d, first + LANE, n_vocab) == best);
    return lane >= 0 ? first + lane
                     : first + WARP + first_lane(key_at(d, first + WARP + LANE, n_vocab) == best);
}

/* Grid: 1, rows. A warp for a row. */
__global__ void __launch_bounds__(WARP) choose_kernel(const __grid_constant__ struct cu_draws all)
{
    const struct draw *d = &all.row[blockIdx.y];
    wait_for_last();
    if (d->kind != DRAW_BEST && d->kind != DRAW_ONE)
        return;
    struct whole w = whole_of(d, all.n_group);
    int id = -1;
    if (w.n_open > 0 && d->kind == DRAW_BEST)
        id = best_one(d, all.n_vocab, all.n_group, w.best);
    else if (w.n_open > 0)
        id = draw_one(d, all.n_vocab, all.n_group, of_key(w.best));
    if (LANE == 0) {
        d->out->id = id;
        d->out->n_open = w.n_open;
    }
}

/* ---- the best ones --------------------------------------------------------------------------- */

__device__ __forceinline__ uint32_t most_of(const struct draw *d, int block)
{
    return d->group[block / DRAW_GROUP].most[block % DRAW_GROUP];
}

/* The kth largest of the blocks' best, bit by bit; 0 if there are fewer blocks. */
__device__ uint32_t kth_most(const struct draw *d, int n_block, int k)
{
    uint32_t least = 0;
    for (uint32_t bit = 0x80000000u; bit; bit /= 2) {
        int n = 0;
        for (int first = 0; first < n_block; first += LIST_THREADS) {
            int b = first + (int)threadIdx.x;
            n += __syncthreads_count(b < n_block && most_of(d, b) >= (least | bit));
        }
        least |= n >= k ? bit : 0;
    }
    return least;
}

/* Tokens of a block whose keys reach `least`, in ascending order: to `to`, unless that is NULL;
 * their number. */
__device__ __forceinline__ int list_block(const struct draw *d, int first, int n_vocab,
                                          uint32_t least, struct draw_pair *to)
{
    int n = 0;
    for (int id = first + LANE; id < first + DRAW_BLOCK; id += WARP) {
        uint32_t key = key_at(d, id, n_vocab);
        unsigned there = __ballot_sync(ALL_LANES, key >= least);
        if (to && key >= least)
            to[n + __popc(there & ((1u << LANE) - 1))] = { d->kept[id], id };
        n += __popc(there);
    }
    return n;
}

/* The same of the groups of this warp. */
__device__ int list_groups(const struct draw *d, const struct cu_draws *all, uint32_t least,
                           struct draw_pair *to)
{
    int each = (all->n_group + N_WARP - 1) / N_WARP, n = 0;
    for (int g = WARP_ID * each; g < min((WARP_ID + 1) * each, all->n_group); g++) {
        unsigned left = __ballot_sync(ALL_LANES, d->group[g].most[LANE] >= least);
        for (; left; left &= left - 1) {
            int first = (g * DRAW_GROUP + __ffs((int)left) - 1) * DRAW_BLOCK;
            n += list_block(d, first, all->n_vocab, least, to ? to + n : NULL);
        }
    }
    return n;
}

struct counts {
    int of[WARP];
};

/* Grid: 1, rows. */
__global__ void __launch_bounds__(LIST_THREADS)
list_kernel(const __grid_constant__ struct cu_draws all)
{
    SHARED(struct counts, count);
    const struct draw *d = &all.row[blockIdx.y];
    wait_for_last();
    if (d->kind != DRAW_LIST)
        return;
    struct whole w = whole_of(d, all.n_group);
    double best = of_key(w.best);
    uint32_t least = d->kth ? kth_most(d, (all.n_vocab + DRAW_BLOCK - 1) / DRAW_BLOCK, d->kth)
                            : key_of((float)(best + d->below - fabs(best) * 1e-6));
    least = max(least, CLOSED + 1);
    int n = list_groups(d, &all, least, NULL);
    if (LANE == 0)
        count.of[WARP_ID] = n;
    __syncthreads();
    int upto = warp_scan(count.of[LANE]), before = __shfl_sync(ALL_LANES, upto, WARP_ID) - n;
    n = __shfl_sync(ALL_LANES, upto, WARP - 1);
    if (n <= DRAW_MOST)
        list_groups(d, &all, least, d->out->pair + before);
    double sum = d->with_sum && WARP_ID == 0 ? sum_of_all(d, all.n_group) : 0;
    if (threadIdx.x == 0) {
        d->out->n = n;
        d->out->n_open = w.n_open;
        d->out->best = (float)best;
        d->out->sum = sum;
    }
}

/* ---- launches -------------------------------------------------------------------------------- */

static void draw_rows(struct dev *d, const struct draw *draw, int n, int n_vocab)
{
    struct cu_draws all;
    bool weighs = false, chooses = false, lists = false;
    memcpy(all.row, draw, (size_t)n * sizeof *draw);
    all.n_vocab = n_vocab;
    all.n_group = draw_groups(n_vocab);
    for (int i = 0; i < n; i++) {
        weighs |= draw[i].with_sum;
        chooses |= draw[i].kind == DRAW_BEST || draw[i].kind == DRAW_ONE;
        lists |= draw[i].kind == DRAW_LIST;
    }
    dim3 groups((unsigned)all.n_group, (unsigned)n), rows(1, (unsigned)n);
    LAUNCH_EARLY(d, survey_kernel, groups, SURVEY_THREADS, 0, all);
    if (weighs)
        LAUNCH_EARLY(d, weigh_kernel, groups, WEIGH_THREADS, 0, all);
    if (chooses)
        LAUNCH_EARLY(d, choose_kernel, rows, WARP, 0, all);
    if (lists)
        LAUNCH_EARLY(d, list_kernel, rows, LIST_THREADS, 0, all);
}

void cuda_draw(struct dev *d, const struct draw *draw, int n, int n_vocab)
{
    for (int first = 0; first < n && cuda_runs(d); first += ROWS)
        draw_rows(d, draw + first, MIN(ROWS, n - first), n_vocab);
}
