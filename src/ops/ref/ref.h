/* ref.h - the scalar table: the definition of every op. */
#ifndef DS_REF_H
#define DS_REF_H

#include "ops_table.h"

extern const struct ops ref_ops;

/* embed gather norm norm_heads matmul matmul_grouped swiglu add rope */
void ref_embed(struct dev *, struct tensor *, const struct tensor *, const struct rows *);
void ref_gather(struct dev *, struct tensor *, const struct tensor *, const struct rows *);
void ref_norm(struct dev *, struct tensor *, const struct tensor *, const float *, float);
void ref_norm_heads(struct dev *, struct tensor *, int, float);
void ref_matmul(struct dev *, struct tensor *, const struct tensor *, const struct tensor *);
void ref_matmul_grouped(struct dev *, struct tensor *, const struct tensor *,
                        const struct tensor *, int);
void ref_swiglu(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                float);
void ref_add(struct dev *, struct tensor *, const struct tensor *);
void ref_rope(struct dev *, struct tensor *, int, const struct rope *, bool, const struct rows *);

void ref_hc_mix(struct dev *, struct tensor *, struct tensor *, const struct tensor *,
                const struct hc *);
void ref_hc_spread(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                   const struct hc *);
void ref_hc_head(struct dev *, struct tensor *, const struct tensor *, const struct hc *);

void ref_kv_store(struct dev *, const struct tensor *, const struct rows *, int);
void ref_compress(struct dev *, const struct tensor *, const struct tensor *,
                  const struct compressor *, const struct rope *, const struct rows *, int);
void ref_index_query(struct dev *, struct tensor *, const struct indexer *, const struct rope *,
                     const struct rows *);
void ref_pick(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
              const struct indexer *, const struct rows *, int);
void ref_attend(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                const struct attention *, const struct rows *, int);

void ref_route(struct dev *, struct route *, const struct tensor *, const struct router *,
               const struct rows *);
void ref_experts(struct dev *, struct tensor *, const struct expert_set *, const struct route *,
                 const struct tensor *, float);
void ref_sum_experts(struct dev *, struct tensor *, const struct tensor *, const struct route *);

/* One head's last 2 * n_pair elements, rotated to position pos (inverse: back). */
void ref_rotate(float *head, int dim, const struct rope *rope, int pos, bool inverse);

/* x / rms(x) * weight (weight NULL: ones); out may be x. */
void ref_norm_row(float *out, const float *x, const float *weight, int n, float eps);

/* silu(min(gate, clamp)) * clamp(up). */
float ref_swiglu_one(float gate, float up, float clamp);

/* A cached row or index row as float32, whatever the format. */
void ref_kv_load(const struct kv_shape *s, const uint8_t *row, float *x);
void ref_index_load(const struct kv_shape *s, const uint8_t *row, float *x);

#endif
