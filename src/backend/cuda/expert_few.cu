/* expert_few.cu - routed experts of a few rows, without grouping: six pairs of a row meet an expert
 * twice so rarely that what a pair shares with another is left to the cache. */
#include "packed_impl.h"
#include "pairs_impl.h"

#define STATIC_SHARED 1024

/* Place of an expert in the set, or -1. */
__device__ __forceinline__ int set_place(const struct cu_set *s, int id)
{
    if (!s->id)
        return id >= s->first_id && id < s->first_id + s->n ? id - s->first_id : -1;
    int lo = 0, hi = s->n;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (s->id[mid] < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n && s->id[lo] == id ? lo : -1;
}

__device__ __forceinline__ struct cu_weights set_weights(const struct cu_matrices *m, int e)
{
    if (m->each)
        return weights_in(m->each, e);
    struct cu_weights w = m->first;
    w.data += (size_t)e * m->pitch;
    w.scale += (size_t)e * m->scale_pitch;
    return w;
}

/* The product of one pair; no block of threads for experts that are not at hand. */
__device__ __forceinline__ void pair_product(const struct cu_pairs *p, int pair, struct cu_few *f)
{
    size_t row = (size_t)(pair / p->n_used), slot = (size_t)(pair % p->n_used);
    int e = set_place(&p->set, p->route[row * p->route_pitch + slot]);
    *f = p->f;
    f->n_block = 0;
    if (e < 0)
        return;
    f->n_block = p->f.n_block;
    f->w = set_weights(&p->w, e);
    if (p->up.first.data) {
        f->up = set_weights(&p->up, e);
        f->weight = p->weight[row * p->weight_pitch + slot];
    }
    f->x += (size_t)(pair / p->x_div) * f->x_pitch;
    if (f->rounded)
        f->rounded += (size_t)(pair / p->x_div) * n_record(f->k);
    f->out += (size_t)pair * f->out_pitch;
}

/* Grid: blocks of a pair, pairs. */
template <int type> __global__ void __launch_bounds__(FEW_THREADS, 3)
pairs_kernel(const __grid_constant__ struct cu_pairs p)
{
    struct cu_few f;
    if (!p.knows_route)
        wait_for_last();
    pair_product(&p, (int)blockIdx.y, &f);
    if (f.n_block == 0) {
        wait_for_last();
        return;
    }
    few_packed<type, 1>(&f, (int)blockIdx.x, p.tables);
}

template <int type>
static void launch_pairs(struct dev *d, const struct cu_pairs *p, size_t shared)
{
    (void)cudaFuncSetAttribute(pairs_kernel<type>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)(cuda_of(d)->shared_max - STATIC_SHARED));
    dim3 grid((unsigned)p->f.n_block, (unsigned)p->n_pair);
    LAUNCH_EARLY(d, pairs_kernel<type>, grid, FEW_THREADS, shared, *p);
}

bool cuda_pairs_fit(const struct dev *d, enum dtype type, int k)
{
    struct cu_few f;
    memset(&f, 0, sizeof f);
    f.type = type;
    f.k = k;
    f.row_bytes = dtype_bytes(type, (size_t)k);
    return act_block(type) &&
           (size_t)few_plan(&f, 1).total + STATIC_SHARED <= cuda_of(d)->shared_max;
}

void cuda_pairs(struct dev *d, struct cu_pairs *p, uint8_t *rounded)
{
    const struct cuda *c = cuda_of(d);
    size_t bytes = (size_t)n_record(p->f.k) * sizeof(struct cu_record);
    struct cu_pack pack = { p->f.x, p->f.x_pitch, rounded, p->f.k, act_block(p->f.type),
                            p->n_pair / p->x_div, bytes };
    p->f.rounded = NULL;
    if (p->n_pair > p->n_used) {
        cuda_pack_few(d, &pack, 1);
        p->f.rounded = (const struct cu_record *)(void *)rounded;
    }
    p->f.n = 1;
    p->f.row_bytes = dtype_bytes(p->f.type, (size_t)p->f.k);
    p->f.up = p->up.first;
    p->f.plan = few_plan(&p->f, 1);
    size_t shared = (size_t)p->f.plan.total;
    int each = MIN(3, (int)(c->multi_shared / (shared + STATIC_SHARED)));
    p->f.n_block = MIN(p->f.plan.n_tile, MAX(1, c->n_multi * MAX(1, each) / p->n_pair));
    p->tables = c->tables;
    p->knows_route = c->n_launch > c->routed;
    switch (p->f.type) {
    case DT_Q8_0: launch_pairs<DT_Q8_0>(d, p, shared); return;
    case DT_MXFP4: launch_pairs<DT_MXFP4>(d, p, shared); return;
    case DT_FP4: launch_pairs<DT_FP4>(d, p, shared); return;
    case DT_Q2_K: launch_pairs<DT_Q2_K>(d, p, shared); return;
    case DT_Q4_K: launch_pairs<DT_Q4_K>(d, p, shared); return;
    default: launch_pairs<DT_IQ2_XXS>(d, p, shared);
    }
}
