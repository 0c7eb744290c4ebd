/* gemv.cu - products with few rows of activations, several in a launch. The time is that of reading
 * the weights, so they are read once for up to eight rows. Also the ops themselves. */
#include "numbers_impl.h"
#include "packed_impl.h"
#include "widen_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 128
#define ROWS (THREADS / WARP) /* of weights, for a block */

/* ---- packed weights, activations as they are ----------------------------------------------- */

/* sum plus n of 32 elements of w times those of x. */
__device__ __forceinline__ float add_widened(const float *w, const float *x, int n, float sum)
{
#pragma unroll
    for (int e = 0; e < UNIT; e++)
        sum = e < n ? fmaf(w[e], x[e], sum) : sum;
    return sum;
}

__global__ void __launch_bounds__(THREADS) few_exact_kernel(struct cu_product p)
{
    wait_for_last();
    int r = (int)(blockIdx.x * ROWS + threadIdx.x / WARP);
    struct cu_job job = job_at(&p, (int)blockIdx.z);
    if (r >= p.rows)
        return;
    struct cu_src src = job_row(&p, &job, r);
    for (int i0 = 0; i0 < job.n; i0 += FEW_MAX) {
        float sum[FEW_MAX] = { 0 };
        for (int u = LANE; u * UNIT < p.k; u += WARP) {
            float w[UNIT];
            widen(p.type, &src, u, p.k, w);
#pragma unroll
            for (int i = 0; i < FEW_MAX; i++) {
                int row = i0 + i < job.n ? i0 + i : job.n - 1;
                const float *x = (const float *)job_in(&p, &job, row) + (size_t)u * UNIT;
                sum[i] = i0 + i < job.n ? add_widened(w, x, p.k - u * UNIT, sum[i]) : 0;
            }
        }
#pragma unroll
        for (int i = 0; i < FEW_MAX; i++) {
            float all = i0 + i < job.n ? warp_sum(sum[i]) : 0;
            if (LANE == 0 && i0 + i < job.n)
                job_out(&p, &job, i0 + i)[r] = all;
        }
    }
}

void cuda_product_few_exact(struct dev *d, const struct cu_product *p, int n_job)
{
    dim3 grid(blocks_for((size_t)p->rows, ROWS), 1, (unsigned)n_job);
    LAUNCH_EARLY(d, few_exact_kernel, grid, THREADS, 0, *p);
}

/* ---- several products in one launch -------------------------------------------------------- */

#define MAX_LIST 16
#define STATIC_SHARED 4096 /* no kernel here declares more */
#define BLOCK_SHARED 1536  /* what a block with one row takes besides what it asks for */

struct few_list {
    int n;
    struct cu_few job[MAX_LIST];
    const struct cu_tables *tables;
};

/* Which types a list has: a kernel has the code of those alone, for a launch runs through code that
 * it must fetch first. */
enum { WITH_Q8_0 = 1, WITH_F16 = 2, WITH_REST = 4 };

static inline int with_type(int type)
{
    return type == DT_Q8_0 ? WITH_Q8_0 : type == DT_F16 ? WITH_F16 : WITH_REST;
}

template <int n_x>
__device__ __forceinline__ void rare_job(const struct few_list *l, const struct cu_few *f,
                                         int block)
{
    switch (f->type) {
    case DT_F32: few_numbers<DT_F32, n_x>(f, block); return;
    case DT_BF16: few_numbers<DT_BF16, n_x>(f, block); return;
    case DT_F8_E4M3: few_numbers<DT_F8_E4M3, n_x>(f, block); return;
    case DT_MXFP4: few_packed<DT_MXFP4, n_x>(f, block, l->tables); return;
    case DT_FP4: few_packed<DT_FP4, n_x>(f, block, l->tables); return;
    case DT_Q2_K: few_packed<DT_Q2_K, n_x>(f, block, l->tables); return;
    case DT_Q4_K: few_packed<DT_Q4_K, n_x>(f, block, l->tables); return;
    default: few_packed<DT_IQ2_XXS, n_x>(f, block, l->tables);
    }
}

template <int n_x, int with>
__global__ void __launch_bounds__(FEW_THREADS, n_x == 1 && !(with & WITH_REST) ? 3 : 2)
list_kernel(const __grid_constant__ few_list l)
{
    int j = 0, block = (int)blockIdx.x;
    while (block >= l.job[j].n_block)
        block -= l.job[j++].n_block;
    const struct cu_few *f = &l.job[j];
    if (with == WITH_Q8_0 || (with & WITH_Q8_0 && f->type == DT_Q8_0))
        few_packed<DT_Q8_0, n_x>(f, block, l.tables);
    else if (with == WITH_F16 || (with & WITH_F16 && f->type == DT_F16))
        few_numbers<DT_F16, n_x>(f, block);
    else if (with & WITH_REST)
        rare_job<n_x>(&l, f, block);
}

template <int n_x, int with>
static void launch_as(struct dev *d, const struct few_list *l, int n_block, size_t shared)
{
    (void)cudaFuncSetAttribute((list_kernel<n_x, with>),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)(cuda_of(d)->shared_max - STATIC_SHARED));
    LAUNCH_EARLY(d, (list_kernel<n_x, with>), (unsigned)n_block, FEW_THREADS, shared, *l);
}

template <int n_x>
static void launch_list(struct dev *d, const struct few_list *l, int n_block, size_t shared)
{
    int with = 0;
    for (int j = 0; j < l->n; j++)
        with |= with_type(l->job[j].type);
    switch (with) {
    case WITH_Q8_0: launch_as<n_x, WITH_Q8_0>(d, l, n_block, shared); return;
    case WITH_F16: launch_as<n_x, WITH_F16>(d, l, n_block, shared); return;
    case WITH_Q8_0 | WITH_F16: launch_as<n_x, WITH_Q8_0 | WITH_F16>(d, l, n_block, shared); return;
    default: launch_as<n_x, WITH_Q8_0 | WITH_F16 | WITH_REST>(d, l, n_block, shared);
    }
}

static size_t job_shared(const struct cu_few *f, int n)
{
    return is_number(f->type) ? 0 : (size_t)few_plan(f, n).total;
}

static size_t job_bytes(const struct cu_few *f)
{
    return f->row_bytes * (size_t)f->rows * (f->up.data ? 2 : 1);
}

/* Rows of packed weights are shared out among the blocks that the GPU holds at a time, by bytes. */
static int job_blocks(const struct cuda *c, const struct cu_few *f, size_t shared, size_t bytes)
{
    if (is_number(f->type))
        return number_blocks(f);
    size_t each = c->multi_shared / (shared + BLOCK_SHARED);
    size_t all = (size_t)c->n_multi * MAX(1, MIN(each, 2)), mine = job_bytes(f);
    size_t share = MAX(1, (all * mine + bytes - 1) / bytes);
    return (int)MIN(share, (size_t)f->plan.n_tile);
}

/* All jobs have the same activation rows, n of which fit into shared memory together. */
static void run_rows(struct dev *d, struct few_list *l, int n)
{
    size_t shared = 0, bytes = 0;
    int n_block = 0;
    for (int j = 0; j < l->n; j++) {
        struct cu_few *f = &l->job[j];
        f->n = n;
        f->plan = few_plan(f, n);
        shared = MAX(shared, job_shared(f, n));
        bytes += job_bytes(f);
    }
    for (int j = 0; j < l->n; j++)
        n_block += l->job[j].n_block = job_blocks(cuda_of(d), &l->job[j], shared, bytes);
    l->tables = cuda_of(d)->tables;
    if (n == 1)
        launch_list<1>(d, l, n_block, shared);
    else if (n <= 4)
        launch_list<4>(d, l, n_block, shared);
    else
        launch_list<8>(d, l, n_block, shared);
}

static void run_list(struct dev *d, struct few_list *l)
{
    int n = l->job[0].n, fit = n;
    for (int j = 0; j < l->n; j++)
        while (fit > 1 && job_shared(&l->job[j], fit) > cuda_of(d)->shared_max - STATIC_SHARED)
            fit--;
    for (int i = 0; i < n; i += fit) {
        run_rows(d, l, MIN(fit, n - i));
        for (int j = 0; j < l->n; j++) {
            l->job[j].x += (size_t)fit * l->job[j].x_pitch;
            if (l->job[j].rounded)
                l->job[j].rounded += (size_t)fit * n_record(l->job[j].k);
            l->job[j].out += (size_t)fit * l->job[j].out_pitch;
        }
    }
    l->n = 0;
}

/* What several rows become before their products, for each size of block that they ask for. */
struct few_rounded {
    struct cu_record *by_32, *by_256;
};

static struct cu_record *round_once(struct dev *d, const struct cu_product *p, int n_group,
                                    struct few_rounded *r)
{
    int block = act_block(p->type);
    struct cu_record **to = block == 32 ? &r->by_32 : &r->by_256;
    if (!block || p->n == 1 || *to)
        return block ? *to : NULL;
    size_t bytes = (size_t)n_record(p->k) * sizeof(struct cu_record);
    *to = (struct cu_record *)dev_alloc(d, bytes * (size_t)(p->n * n_group));
    struct cu_pack pack = { p->x, p->x_pitch, (uint8_t *)*to, p->k, block, p->n, bytes };
    if (cuda_runs(d))
        cuda_pack_few(d, &pack, n_group);
    return *to;
}

/* Every group is a product of its own. */
static void add_groups(struct dev *d, struct few_list *l, const struct cu_product *p, int n_group,
                       const struct cu_record *rounded)
{
    for (int g = 0; cuda_runs(d) && g < n_group; g++) {
        if (l->n == MAX_LIST)
            run_list(d, l);
        struct cu_few *f = &l->job[l->n++];
        f->type = p->type;
        f->k = p->k;
        f->rows = p->rows;
        f->n = p->n;
        f->row_bytes = dtype_bytes(p->type, (size_t)p->k);
        f->w = p->w;
        f->row0 = g * p->rows;
        f->x = p->x + (size_t)g * p->x_job;
        f->x_pitch = p->x_pitch;
        f->rounded = rounded ? rounded + (size_t)(g * p->n) * n_record(p->k) : NULL;
        f->out = p->out + (size_t)g * p->out_job;
        f->out_pitch = p->out_pitch;
    }
}

/* ---- ops ----------------------------------------------------------------------------------- */

/* Groups lie side by side in a row. */
static bool pack_groups(struct dev *d, struct cu_product *p, const struct tensor *x)
{
    uint8_t *to = (uint8_t *)dev_alloc(d, many_bytes(x->cols) * (size_t)x->rows);
    if (!cuda_runs(d))
        return false;
    struct cu_pack pack = { p->x, x->pitch, to, x->cols, 0, x->rows, many_bytes(x->cols) };
    cuda_pack_many(d, &pack);
    p->x = to;
    p->x_pitch = many_bytes(x->cols);
    p->x_job = many_bytes(p->k);
    return true;
}

static struct cu_product product_of(const struct dev *d, const struct tensor *out,
                                    const struct tensor *w, const struct tensor *x, int n_group)
{
    struct cu_product p;
    memset(&p, 0, sizeof p);
    p.type = w->type;
    p.k = w->cols;
    p.rows = w->rows / n_group;
    p.n = x->rows;
    p.tables = cuda_of(d)->tables;
    p.w = weights_of(w);
    p.x = (const uint8_t *)x->data;
    p.x_pitch = x->pitch;
    p.x_job = (size_t)p.k * sizeof(float);
    p.out = (float *)out->data;
    p.out_pitch = out->pitch / sizeof(float);
    p.out_job = (size_t)p.rows;
    return p;
}

/* Those of many rows that share activations. */
struct many_list {
    int n;
    struct cu_product p[MAX_LIST];
};

static void run_many(struct dev *d, struct many_list *l)
{
    if (l->n)
        cuda_products_f16(d, l->p, l->n);
    l->n = 0;
}

struct lists {
    struct few_list few;
    struct many_list many;
    struct few_rounded rounded;
};

/* To a list if that can compute it, else at once. */
static void product(struct dev *d, struct lists *l, struct cu_product *p, const struct tensor *x,
                    int n_group, bool exact)
{
    bool few = p->n <= FEW_MAX, rounds = !exact && !cuda_of(d)->exact && act_block(p->type);
    if (few && (rounds || is_number(p->type))) {
        add_groups(d, &l->few, p, n_group,
                   rounds ? round_once(d, p, n_group, &l->rounded) : NULL);
        return;
    }
    if (!few && n_group == 1 && cuda_takes_f16(p)) {
        if (l->many.n == MAX_LIST)
            run_many(d, &l->many);
        l->many.p[l->many.n++] = *p;
        return;
    }
    size_t mark = arena_mark(&d->scratch);
    if (rounds && pack_groups(d, p, x)) {
        cuda_product_many(d, p, n_group);
    } else if (!rounds && cuda_runs(d)) {
        (few ? cuda_product_few_exact : cuda_product_many_exact)(d, p, n_group);
    }
    arena_rewind(&d->scratch, mark);
}

/* Gate and up row by row in turns, as of an expert with weight 1. */
static bool takes_gated(const struct dev *d, const struct matmul *m, int n_row)
{
    return n_row <= FEW_MAX && m->w->type == m->up->type && act_block(m->w->type) &&
           !cuda_of(d)->exact;
}

/* The product that was listed last is the gate's. */
static void add_up(struct few_list *l, const struct matmul *m)
{
    struct cu_few *f = &l->job[l->n - 1];
    f->up = weights_of(m->up);
    f->clamp = m->clamp;
    f->weight = 1;
}

static void products(struct dev *d, const struct matmul *p, int n, const struct tensor *x,
                     int n_group)
{
    struct lists l;
    memset(&l, 0, sizeof l);
    size_t mark = arena_mark(&d->scratch);
    for (int i = 0; i < n; i++) {
        struct cu_product c = product_of(d, &p[i].out, p[i].w, x, n_group);
        product(d, &l, &c, x, n_group, p[i].exact);
        if (p[i].up && cuda_runs(d))
            add_up(&l.few, &p[i]);
    }
    if (l.few.n)
        run_list(d, &l.few);
    run_many(d, &l.many);
    arena_rewind(&d->scratch, mark);
}

/* Gates with their ups where a launch takes both, else apart. The same scratch either way. */
void cuda_products(struct dev *d, struct matmul *p, int n, const struct tensor *x)
{
    struct matmul all[2 * MAX_LIST];
    size_t mark = arena_mark(&d->scratch);
    int n_all = 0;
    CHECK(n <= MAX_LIST);
    for (int i = 0; i < n; i++) {
        struct matmul *gate = &all[n_all++];
        *gate = p[i];
        if (!p[i].up)
            continue;
        struct tensor beside = dev_tensor(d, DT_F32, p[i].up->rows, x->rows);
        if (!takes_gated(d, gate, x->rows)) {
            gate->up = NULL;
            all[n_all++] = { beside, p[i].up, false, NULL, 0 };
        }
    }
    products(d, all, n_all, x, 1);
    for (int i = 0, j = 0; i < n; i++, j++)
        if (p[i].up && !all[j].up) {
            cuda_swiglu(d, &p[i].out, &p[i].out, &all[j + 1].out, p[i].clamp);
            j++;
        }
    arena_rewind(&d->scratch, mark);
}

void cuda_matmul(struct dev *d, struct tensor *out, const struct tensor *w, const struct tensor *x)
{
    struct matmul p = { *out, w, false, NULL, 0 };
    products(d, &p, 1, x, 1);
}

void cuda_matmul_exact(struct dev *d, struct tensor *out, const struct tensor *w,
                       const struct tensor *x)
{
    struct matmul p = { *out, w, true, NULL, 0 };
    products(d, &p, 1, x, 1);
}

void cuda_matmul_grouped(struct dev *d, struct tensor *out, const struct tensor *w,
                         const struct tensor *x, int n_group)
{
    struct matmul p = { *out, w, false, NULL, 0 };
    products(d, &p, 1, x, n_group);
}
