/* group.cu - pairs sorted by expert, in order: each warp counts its share of the pairs, sums over
 * warps and experts say where each warp's part of each list begins, then each warp writes its
 * parts. One block; the same lists whatever the number of warps. */
#include "group_impl.h"

#define MAX_WARPS 32
#define COUNTS 10240 /* of warps times experts */

struct counts {
    int16_t place[MAX_EXPERT]; /* of expert id in the set, or -1 */
    int n[COUNTS];             /* [warp][n_set] pairs; then where they go */
};

/* Of pair i in the set; -1: of none, or no pair. */
__device__ __forceinline__ int pair_place(const struct counts *c, const struct grouping *g, int i)
{
    if (i >= g->n_pair)
        return -1;
    int id = g->route[(size_t)(i / g->n_used) * g->route_pitch + i % g->n_used];
    return id >= 0 && id < MAX_EXPERT ? c->place[id] : -1;
}

/* A warp's share, 32 pairs at a time in order: those of one expert find each other, the first of
 * them counts them all. With `pair` they are written to their places. */
__device__ __forceinline__ void go_through(struct counts *c, const struct grouping *g, int *pair)
{
    int warps = (int)(blockDim.x / WARP), warp = (int)(threadIdx.x / WARP);
    int share = (g->n_pair + warps * WARP - 1) / (warps * WARP) * WARP;
    int *n = c->n + warp * g->n_set, next = pair_place(c, g, warp * share + LANE);
    for (int i = warp * share + LANE; i - LANE < (warp + 1) * share; i += WARP) {
        int e = next;
        next = pair_place(c, g, i + WARP);
        uint32_t same = __match_any_sync(ALL_LANES, e);
        int before = __popc(same & ((1u << LANE) - 1)), at = e >= 0 ? n[e] : 0;
        __syncwarp();
        if (e >= 0 && before == 0)
            n[e] = at + __popc(same);
        __syncwarp();
        if (e >= 0 && pair)
            pair[at + before] = i;
    }
}

/* Numbers of a warp's lanes before this one, and of all. */
__device__ __forceinline__ int before_lane(int x, int *all)
{
    int sum = warp_scan(x);
    *all = __shfl_sync(ALL_LANES, sum, WARP - 1);
    return sum - x;
}

/* The first warp goes through the set: lists, their beginnings, their tiles. */
__device__ __forceinline__ void begin_lists(struct counts *c, const struct grouping *g)
{
    int warps = (int)(blockDim.x / WARP), n_active = 0, n_pair = 0, n_tile = 0;
    for (int e0 = 0; e0 < g->n_set; e0 += WARP) {
        int e = e0 + LANE, n = 0, all[3];
        for (int w = 0; w < warps && e < g->n_set; w++)
            n += c->n[w * g->n_set + e];
        int tiles = (n + GROUP_TILE - 1) / GROUP_TILE;
        int a = n_active + before_lane(n > 0, &all[0]), from = n_pair + before_lane(n, &all[1]);
        int t = n_tile + before_lane(tiles, &all[2]);
        if (n > 0) {
            g->active[a] = e;
            g->first[a] = from;
        }
        for (int i = 0; i < tiles; i++)
            g->tile[t + i] = { a, i * GROUP_TILE };
        for (int w = 0; w < warps && e < g->n_set; w++) {
            int own = c->n[w * g->n_set + e];
            c->n[w * g->n_set + e] = from;
            from += own;
        }
        n_active += all[0];
        n_pair += all[1];
        n_tile += all[2];
    }
    if (LANE == 0) {
        g->first[n_active] = n_pair;
        *g->groups = { n_active, g->active, g->first, g->pair, n_tile, g->tile };
    }
}

__global__ void __launch_bounds__(MAX_WARPS * WARP) group_kernel(struct grouping g)
{
    SHARED(struct counts, c);
    int t = (int)threadIdx.x, threads = (int)blockDim.x;
    for (int e = t; e < MAX_EXPERT; e += threads)
        c.place[e] = -1;
    for (int i = t; i < threads / WARP * g.n_set; i += threads)
        c.n[i] = 0;
    __syncthreads();
    for (int e = t; e < g.n_set; e += threads)
        c.place[g.id ? g.id[e] : g.first_id + e] = (int16_t)e;
    __syncthreads();
    go_through(&c, &g, NULL);
    __syncthreads();
    if (t < WARP)
        begin_lists(&c, &g);
    __syncthreads();
    go_through(&c, &g, g.pair);
}

void cuda_group(struct dev *d, const struct grouping *g)
{
    int warps = MIN(MIN(MAX_WARPS, COUNTS / g->n_set), (g->n_pair + 4 * WARP - 1) / (4 * WARP));
    LAUNCH(d, group_kernel, 1, (unsigned)(warps * WARP), 0, *g);
}
