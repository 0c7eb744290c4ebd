/* cuda_ops_impl.h - the ops on a GPU: each queues kernels and returns. */
#ifndef DS_CUDA_OPS_IMPL_H
#define DS_CUDA_OPS_IMPL_H

#include "ops_table.h"

void cuda_ops_fill(struct ops *ops);

void cuda_begin(struct dev *);
int cuda_wait(struct dev *, struct err *);
void cuda_copy(struct dev *, void *, const void *, size_t);
struct tensor cuda_look(struct dev *, const struct tensor *);
void cuda_sum(struct dev *, const struct dev_sums *, const struct tensor *);
bool cuda_replay(struct dev *, const struct rows *, const struct rows *, struct tensor *);
bool cuda_results(struct dev *, struct tensor *);
void cuda_draw(struct dev *, const struct draw *, int, int);
void cuda_move(struct dev *, const struct dev_piece *, int);

void cuda_embed(struct dev *, struct tensor *, const struct tensor *, const struct rows *);
void cuda_gather(struct dev *, struct tensor *, const struct tensor *, const struct rows *);
void cuda_norm(struct dev *, struct tensor *, const struct tensor *, const float *, float);
void cuda_norm_heads(struct dev *, struct tensor *, int, float);
void cuda_matmul(struct dev *, struct tensor *, const struct tensor *, const struct tensor *);
void cuda_matmul_exact(struct dev *, struct tensor *, const struct tensor *,
                       const struct tensor *);
void cuda_products(struct dev *, struct matmul *, int, const struct tensor *);
void cuda_matmul_grouped(struct dev *, struct tensor *, const struct tensor *,
                         const struct tensor *, int);
void cuda_swiglu(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                 float);
void cuda_add(struct dev *, struct tensor *, const struct tensor *);
void cuda_rope(struct dev *, struct tensor *, int, const struct rope *, bool, const struct rows *);

void cuda_hc_mix(struct dev *, struct tensor *, struct tensor *, const struct tensor *,
                 const struct hc *);
void cuda_hc_mix_norm(struct dev *, struct tensor *, struct tensor *, const struct tensor *,
                      const struct hc *, const float *, float);
void cuda_hc_spread(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                    const struct hc *);
bool cuda_hc_turn(struct dev *, struct tensor *, struct tensor *, struct tensor *,
                  const struct hc_turn *);
void cuda_hc_head(struct dev *, struct tensor *, const struct tensor *, const struct hc *);

void cuda_kv_store(struct dev *, const struct tensor *, const struct rows *, int);
void cuda_compress(struct dev *, const struct tensor *, const struct tensor *,
                   const struct compressor *, const struct rope *, const struct rows *, int);
void cuda_prepare(struct dev *, const struct fresh *, const struct rows *, int);
void cuda_index_query(struct dev *, struct tensor *, const struct indexer *, const struct rope *,
                      const struct rows *);
void cuda_pick(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
               const struct indexer *, const struct rows *, int);
void cuda_attend(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                 const struct attention *, const struct rows *, int);

int cuda_lanes(struct dev *, int, size_t, void **, struct err *);
int cuda_send_lane(struct dev *, int, void *, size_t, struct err *);
void cuda_lanes_close(struct dev *);

void cuda_mark(struct dev *, int);
double cuda_between(struct dev *, int, int);
void cuda_stall(struct dev *, double);
void cuda_marks_free(struct dev *);

void cuda_random(struct dev *, const struct quant_random *, size_t, size_t, void *);

void cuda_route(struct dev *, struct route *, const struct tensor *, const struct router *,
                const struct rows *);
void cuda_experts(struct dev *, struct tensor *, const struct expert_set *, const struct route *,
                  const struct tensor *, float);
void cuda_experts_ahead(struct dev *, const struct expert_set *, int);
int cuda_take_ahead(struct dev *, size_t, int, struct err *);
int cuda_take_slots(struct dev *, struct expert_set *, int, size_t, struct err *);
void cuda_sum_experts(struct dev *, struct tensor *, const struct tensor *, const struct route *);
void cuda_sum_experts_add(struct dev *, struct tensor *, const struct tensor *,
                          const struct route *, const struct tensor *);

#endif
