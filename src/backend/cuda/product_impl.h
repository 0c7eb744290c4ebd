/* product_impl.h - what a product is to kernels: jobs, each some rows of weights times some rows of
 * activations. A plain product is one job, a grouped one has a job for every group, routed experts
 * have one for every expert that is used, with lists of its rows. */
#ifndef DS_PRODUCT_IMPL_H
#define DS_PRODUCT_IMPL_H

#include "device_impl.h"

struct cu_weights {
    const uint8_t *data, *scale;
    size_t pitch, scale_pitch;
};

/* Pairs (row * n_used + slot) grouped by expert, in device memory; written there, so that the host
 * need not know them. */
struct cu_groups {
    int n_active;      /* experts with pairs */
    const int *active; /* [n_active] index into the set, ascending */
    const int *first;  /* [n_active + 1] into pair */
    const int *pair;   /* ascending within an expert */
};

struct cu_product {
    enum dtype type;
    int k, rows;                    /* of one job's weights */
    int n;                          /* activation rows of a job; with groups: at most so many */
    const struct cu_tables *tables;
    struct cu_weights w;            /* job j begins at row j * rows */
    const struct cu_groups *groups; /* experts; NULL: none */
    const struct cu_weights *expert; /* [set]; NULL: they lie expert_pitch bytes apart from w on */
    size_t expert_pitch, expert_scale_pitch;
    int in_div, out_pairs; /* experts: input row pair / in_div, 0: place in the list; output row */
    const uint8_t *x;      /* activations: float32, or packed */
    size_t x_pitch, x_job; /* bytes from row to row, from job to job */
    float *out;
    size_t out_pitch, out_job; /* floats */
};

/* Activations rounded to eight bits, rows of `bytes`: | i8 q x k | f32 d x k / block | i16 sum of
 * 16 q x k / 16 |, x = d q. A block with a NaN or an infinity has d = NaN. The same rounding as on
 * the CPU, bit for bit. */
struct cu_act {
    const uint8_t *row;
    int k, block;
};

__device__ __forceinline__ const float *act_d(const struct cu_act *a)
{
    return (const float *)(a->row + a->k);
}

__device__ __forceinline__ const int16_t *act_sums(const struct cu_act *a)
{
    return (const int16_t *)(a->row + a->k + a->k / a->block * 4);
}

/* Elements that share a step: 0 for types whose activations are not rounded. */
static inline int act_block(enum dtype type)
{
    switch (type) {
    case DT_Q8_0:
    case DT_MXFP4:
    case DT_FP4: return 32;
    case DT_Q2_K:
    case DT_Q4_K:
    case DT_IQ2_XXS: return 256;
    default: return 0;
    }
}

static inline size_t act_bytes(int block, int k)
{
    return round_up((size_t)k + (size_t)(k / block * 4 + k / 16 * 2), 64);
}

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
    if (p->expert)
        j.w = p->expert[e];
    j.w.data += (size_t)e * p->expert_pitch;
    j.w.scale += (size_t)e * p->expert_scale_pitch;
    j.row0 = 0;
    j.from = p->groups->first[z];
    j.n = p->groups->first[z + 1] - j.from;
    return j;
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

/* gemv.cu: up to FEW_MAX rows at a time; gemm.cu: many. n_job blocks deep. */
void cuda_product_few(struct dev *d, const struct cu_product *p, int n_job);
void cuda_product_many(struct dev *d, const struct cu_product *p, int n_job);
void cuda_product_few_exact(struct dev *d, const struct cu_product *p, int n_job);
void cuda_product_many_exact(struct dev *d, const struct cu_product *p, int n_job);

/* pack.cu: n rows of k floats, `pitch` bytes apart, to packed rows; k a multiple of block. */
struct cu_pack {
    const uint8_t *from;
    size_t pitch;
    uint8_t *to;
    int k, block, n;
};
void cuda_pack(struct dev *d, const struct cu_pack *p);

static inline struct cu_weights weights_of(const struct tensor *w)
{
    return { (const uint8_t *)w->data, w->scale, w->pitch, w->scale_pitch };
}

#endif
