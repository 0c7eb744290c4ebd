/* cpu_ops_impl.h - the drivers: an op's tasks, given to the threads. Which thread takes which task
 * does not show in the result. */
#ifndef DS_CPU_OPS_IMPL_H
#define DS_CPU_OPS_IMPL_H

#include "cpu_impl.h"

/* Floats between unpacked rows: multiples of 4 KB from each other, they would fight for the same
 * few lines of the first cache. */
#define APART 256

/* Rows first .. first+n-1 of w times n_x activations x (rows of pitch bytes in the kernel's form)
 * to out[i][at ...]. decoded: TILE_W * (w.cols + APART) floats of this worker, for rows to be
 * unpacked. */
struct slab {
    const struct tensor *w;
    struct product_kernel kernel;
    const struct cpu_kernels *k;
    const void *const *x; /* [n_x] */
    float *const *out;    /* [n_x] */
    float *decoded;
    int first, n, n_x, at;
};
void cpu_slab(const struct slab *s);
/* How many of `rows` weight rows make a slab for n_x activation rows. */
int cpu_slab_rows(const struct cpu *c, const struct tensor *w, int rows, int n_x);

void cpu_embed(struct dev *, struct tensor *, const struct tensor *, const struct rows *);
void cpu_norm(struct dev *, struct tensor *, const struct tensor *, const float *, float);
void cpu_norm_heads(struct dev *, struct tensor *, int, float);
void cpu_matmul(struct dev *, struct tensor *, const struct tensor *, const struct tensor *);
void cpu_matmul_exact(struct dev *, struct tensor *, const struct tensor *,
                      const struct tensor *);
void cpu_matmul_grouped(struct dev *, struct tensor *, const struct tensor *,
                        const struct tensor *, int);
void cpu_swiglu(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                float);
void cpu_add(struct dev *, struct tensor *, const struct tensor *);
void cpu_rope(struct dev *, struct tensor *, int, const struct rope *, bool, const struct rows *);

void cpu_hc_mix(struct dev *, struct tensor *, struct tensor *, const struct tensor *,
                const struct hc *);
void cpu_hc_spread(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                   const struct hc *);
void cpu_hc_head(struct dev *, struct tensor *, const struct tensor *, const struct hc *);

void cpu_kv_store(struct dev *, const struct tensor *, const struct rows *, int);
void cpu_compress(struct dev *, const struct tensor *, const struct tensor *,
                  const struct compressor *, const struct rope *, const struct rows *, int);
void cpu_index_query(struct dev *, struct tensor *, const struct indexer *, const struct rope *,
                     const struct rows *);
void cpu_pick(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
              const struct indexer *, const struct rows *, int);
void cpu_attend(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                const struct attention *, const struct rows *, int);

void cpu_route(struct dev *, struct route *, const struct tensor *, const struct router *,
               const struct rows *);
void cpu_experts(struct dev *, struct tensor *, const struct expert_set *, const struct route *,
                 const struct tensor *, float);
void cpu_sum_experts(struct dev *, struct tensor *, const struct tensor *, const struct route *);

/* Cosine and sine of a position: [2 * n_pair]. */
void cpu_rope_table(float *cs, const struct rope *rope, int pos);
/* Rotate (back: sign -1) the end of one head. */
void cpu_rotate(float *head, int dim, const float *cs, int n_pair, float sign);
/* out := x / rms(x) * weight (NULL: ones); out may be x. */
void cpu_norm_row(const struct cpu_kernels *k, float *out, const float *x, const float *weight,
                  int n, float eps);

#endif
