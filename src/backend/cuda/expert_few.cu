/* expert_few.cu - routed experts of a few rows, without grouping: six pairs of a row meet an expert
 * twice so rarely that what a pair shares with another is left to the cache. */
#include "half_impl.h"
#include "packed_impl.h"
#include "pairs_impl.h"

/* Grid: blocks of a pair, pairs. */
template <int type> __global__ void __launch_bounds__(FEW_THREADS, 3)
pairs_kernel(const __grid_constant__ struct cu_pairs p)
{
    struct cu_few f;
    if (!p.knows_route)
        wait_for_last();
    if (!pair_product(&p, (int)blockIdx.y, &f)) {
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
    if (has_halves(type))
        return cuda_halves_fit(d, type, k);
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
    p->tables = c->tables;
    p->knows_route = c->n_launch > c->routed;
    if (has_halves(p->f.type)) {
        cuda_halves(d, p);
        return;
    }
    p->f.plan = few_plan(&p->f, 1);
    size_t shared = (size_t)p->f.plan.total;
    int each = MIN(3, (int)(c->multi_shared / (shared + STATIC_SHARED)));
    p->f.n_block = MIN(p->f.plan.n_tile, MAX(1, c->n_multi * MAX(1, each) / p->n_pair));
    switch (p->f.type) {
    case DT_Q8_0: launch_pairs<DT_Q8_0>(d, p, shared); return;
    case DT_MXFP4: launch_pairs<DT_MXFP4>(d, p, shared); return;
    case DT_FP4: launch_pairs<DT_FP4>(d, p, shared); return;
    default: launch_pairs<DT_Q4_K>(d, p, shared);
    }
}
