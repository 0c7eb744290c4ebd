/* product_impl.h - what a product is to kernels: jobs, each some rows of weights times some rows of
 * activations. A plain product is one job, a grouped one has a job for every group, routed experts
 * have one for every expert that is used, with lists of its rows. */
#ifndef DS_PRODUCT_IMPL_H
#define DS_PRODUCT_IMPL_H

#include "rounded_impl.h"

struct cu_weights {
    const uint8_t *data, *scale;
    size_t pitch, scale_pitch;
};

/* Those of place e, with `first` one matrix of the first of many experts. */
__device__ __forceinline__ struct cu_weights weights_in(const struct tensor *first, int e)
{
    const struct tensor *t =
        (const struct tensor *)((const char *)first + (size_t)e * sizeof(struct expert));
    return { (const uint8_t *)t->data, t->scale, t->pitch, t->scale_pitch };
}

#define GROUP_TILE 128 /* activation rows that many-row kernels take together */

struct cu_tile {
    int job, first; /* activation rows of a job from this one on */
};

/* Pairs (row * n_used + slot) grouped by expert, in device memory; written there, so that the host
 * need not know them. */
struct cu_groups {
    int n_active;      /* experts with pairs */
    const int *active; /* [n_active] index into the set, ascending */
    const int *first;  /* [n_active + 1] into pair */
    const int *pair;   /* ascending within an expert */
    int n_tile;
    const struct cu_tile *tile;
};

struct cu_product {
    enum dtype type;
    int k, rows;                    /* of one job's weights */
    int n;                          /* activation rows of a job; with groups: at most so many */
    const struct cu_tables *tables;
    struct cu_weights w;            /* job j begins at row j * rows */
    const struct cu_groups *groups; /* experts; NULL: none */
    int n_tile;                     /* of them, at most */
    const struct tensor *each; /* a matrix of the set's first expert, in a list of them; NULL: all
                                  lie expert_pitch bytes apart from w on */
    size_t expert_pitch, expert_scale_pitch;
    int in_div, out_pairs; /* experts: input row pair / in_div, 0: place in the list; output row */
    const uint8_t *x;      /* activations: float32, or packed */
    size_t x_pitch, x_job; /* bytes from row to row, from job to job */
    float *out;
    size_t out_pitch, out_job; /* floats */
};

/* A job as its blocks of threads see it. */
struct cu_job {
    struct cu_weights w;
    int row0;    /* of the weights */
    int from, n; /* place in the list of pairs; activation rows */
};

__device__ __forceinline__ struct cu_job job_at(const struct cu_product *p, int z)
{
    struct cu_job j = { p->w, z * p->rows, 0, p->n };
    if (!p->groups)
        return j;
    j.n = 0;
    if (z >= p->groups->n_active)
        return j;
    int e = p->groups->active[z];
    if (p->each)
        j.w = weights_in(p->each, e);
    j.w.data += (size_t)e * p->expert_pitch;
    j.w.scale += (size_t)e * p->expert_scale_pitch;
    j.row0 = 0;
    j.from = p->groups->first[z];
    j.n = p->groups->first[z + 1] - j.from;
    return j;
}

/* A tile of GROUP_TILE activation rows by the grid's second and third dimension; false: none. */
__device__ __forceinline__ bool tile_at(const struct cu_product *p, int tile, struct cu_job *job,
                                        int *first)
{
    struct cu_tile t = { (int)blockIdx.z, tile * GROUP_TILE };
    if (p->groups && tile >= p->groups->n_tile)
        return false;
    if (p->groups)
        t = p->groups->tile[tile];
    *job = job_at(p, t.job);
    *first = t.first;
    return t.first < job->n;
}

static inline unsigned tiles_of(const struct cu_product *p)
{
    return p->groups ? (unsigned)p->n_tile : blocks_for((size_t)p->n, GROUP_TILE);
}

__device__ __forceinline__ const uint8_t *job_in(const struct cu_product *p,
                                                 const struct cu_job *j, int i)
{
    if (!p->groups)
        return p->x + blockIdx.z * p->x_job + (size_t)i * p->x_pitch;
    int row = p->in_div ? p->groups->pair[j->from + i] / p->in_div : j->from + i;
    return p->x + (size_t)row * p->x_pitch;
}

__device__ __forceinline__ float *job_out(const struct cu_product *p, const struct cu_job *j, int i)
{
    if (!p->groups)
        return p->out + blockIdx.z * p->out_job + (size_t)i * p->out_pitch;
    int row = p->out_pairs ? p->groups->pair[j->from + i] : j->from + i;
    return p->out + (size_t)row * p->out_pitch;
}

__device__ __forceinline__ struct cu_src job_row(const struct cu_product *p,
                                                 const struct cu_job *j, int r)
{
    size_t row = (size_t)(j->row0 + r), tile = p->type == DT_F8_E4M3 ? row / 128 : row;
    return { j->w.data + row * j->w.pitch, j->w.scale + tile * j->w.scale_pitch, p->tables };
}

/* gemv.cu: up to FEW_MAX rows at a time; gemm.cu, gemm_exact.cu: many. n_job blocks deep. */
void cuda_product_many(struct dev *d, const struct cu_product *p, int n_job);
void cuda_product_few_exact(struct dev *d, const struct cu_product *p, int n_job);
void cuda_product_many_exact(struct dev *d, const struct cu_product *p, int n_job);

/* gemm_f16.cu: n products of one x with many rows, each of a kind that it takes. */
bool cuda_takes_f16(const struct cu_product *p);
void cuda_products_f16(struct dev *d, const struct cu_product *p, int n);

static inline struct cu_weights weights_of(const struct tensor *w)
{
    return { (const uint8_t *)w->data, w->scale, w->pitch, w->scale_pitch };
}

#endif
