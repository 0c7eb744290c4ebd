/* ops.h - the vocabulary models are written in.
 *
 * Every op queues work on device d and returns nothing: a failure is remembered in d and mutes
 * what follows. Shapes are [rows, cols]; n is r->n. Activations are float32, outputs are scratch
 * tensors made by dev_tensor(). An output may be the same tensor as an input only where said.
 * The scalar C in ops/ref/ is the definition. Row i of a result depends on row i of the inputs
 * alone, and not on how many rows there are.
 * Sections: docs/model.md. */
#ifndef DS_OPS_H
#define DS_OPS_H

#include "op_args.h"

/* ---- plain ------------------------------------------------------------------------------- */

/* streams [n, n_stream * n_embd] := n_stream copies of the token's row of table. */
void op_embed(struct dev *d, struct tensor *streams, const struct tensor *table,
              const struct rows *r);

/* out [n_logits, cols] := the rows of x whose logits are wanted, in order. */
void op_gather(struct dev *d, struct tensor *out, const struct tensor *x, const struct rows *r);

/* out := x / rms(x) * weight; weight [cols]; out may be x. */
void op_norm(struct dev *d, struct tensor *out, const struct tensor *x, const float *weight,
             float eps);

/* Every head of x [n, n_head * dim] to unit root mean square, in place. */
void op_norm_heads(struct dev *d, struct tensor *x, int n_head, float eps);

/* out [n, w.rows] := x [n, w.cols] times w transposed. */
void op_matmul(struct dev *d, struct tensor *out, const struct tensor *w, const struct tensor *x);

/* The same with activations never rounded: routers, compressors, index weights, the gates. */
void op_matmul_exact(struct dev *d, struct tensor *out, const struct tensor *w,
                     const struct tensor *x);

/* Several products of one x. */
void op_products(struct dev *d, struct matmul *p, int n, const struct tensor *x);

/* The first of them, and others that cost no launch beside it: how many are done. */
int op_first_products(struct dev *d, struct matmul *p, int n, const struct tensor *x);

/* Block-diagonal: group g of x (w.cols wide) times rows g*R.. of w (R = w.rows / n_group). */
void op_matmul_grouped(struct dev *d, struct tensor *out, const struct tensor *w,
                       const struct tensor *x, int n_group);

/* out := silu(min(gate, clamp)) * clamp(up, -clamp, clamp); out may be gate or up. */
void op_swiglu(struct dev *d, struct tensor *out, const struct tensor *gate,
               const struct tensor *up, float clamp);

/* out := swiglu of the products of x with gate and with up. */
void op_gated(struct dev *d, struct tensor *out, const struct tensor *gate,
              const struct tensor *up, const struct tensor *x, float clamp);

/* out := out + x. */
void op_add(struct dev *d, struct tensor *out, const struct tensor *x);

/* Rotate the end of every head of x [n, n_head * dim] to the row's position, or back. */
void op_rope(struct dev *d, struct tensor *x, int n_head, const struct rope *rope, bool inverse,
             const struct rows *r);

/* ---- hyper-connections ------------------------------------------------------------------- */

/* gates [n, m] := pre, post and the doubly stochastic C[j][k] of the streams; x [n, n_embd] :=
 * the streams mixed by pre. */
void op_hc_mix(struct dev *d, struct tensor *x, struct tensor *gates, const struct tensor *streams,
               const struct hc *hc);

/* The same, x normed as by op_norm. */
void op_hc_mix_norm(struct dev *d, struct tensor *x, struct tensor *gates,
                    const struct tensor *streams, const struct hc *hc, const float *weight,
                    float eps);

/* streams[k] := post[k] * y + sum over j of C[j][k] * streams[j]. */
void op_hc_spread(struct dev *d, struct tensor *streams, const struct tensor *y,
                  const struct tensor *gates, const struct hc *hc);

/* From one sublayer to the next: the streams take what t->hc's gave, by gates, as by
 * op_sum_experts_add and op_hc_spread; then they are mixed for the next, as by op_hc_mix_norm. */
void op_hc_turn(struct dev *d, struct tensor *x, struct tensor *gates, struct tensor *streams,
                const struct hc_turn *t);

/* x := the streams collapsed for the head. */
void op_hc_head(struct dev *d, struct tensor *x, const struct tensor *streams, const struct hc *hc);

/* ---- cache and attention, of layer l ----------------------------------------------------- */

/* kv [n, head_dim], normed and rotated, into the rings. */
void op_kv_store(struct dev *d, const struct tensor *kv, const struct rows *r, int l);

/* Pool a, s [n, width] (s without position bias) and append the rows that become complete:
 * softmax per channel, norm, rotation to the first position, Hadamard (index rows when packed).
 * The frontiers then hold what later blocks need. */
void op_compress(struct dev *d, const struct tensor *a, const struct tensor *s,
                 const struct compressor *c, const struct rope *rope, const struct rows *r, int l);

/* All of that for a layer's new rows at once: q's heads normed and rotated; kv normed, rotated and
 * stored; what is pooled; index queries. q and index_q are changed, kv is used up. */
void op_prepare(struct dev *d, struct fresh *f, const struct rows *r, int l);

/* q [n, n_head * dim] in place: rotation, and when the cache is packed Hadamard and FP4. */
void op_index_query(struct dev *d, struct tensor *q, const struct indexer *ix,
                    const struct rope *rope, const struct rows *r);

/* picked I32 [n, top_k] := the visible compressed rows with the largest scores
 * sum over h of weight[h] * scale * max(0, q[h] . row), ascending, then -1; of equal scores the
 * lower row wins. weight [n, n_head]. */
void op_pick(struct dev *d, struct tensor *picked, const struct tensor *q,
             const struct tensor *weight, const struct indexer *ix, const struct rows *r, int l);

/* out [n, n_head * head_dim]: softmax over the window, the compressed rows and the sink; keys are
 * the values. picked is NULL unless at->picked. */
void op_attend(struct dev *d, struct tensor *out, const struct tensor *q,
               const struct tensor *picked, const struct attention *at, const struct rows *r,
               int l);

/* ---- experts ----------------------------------------------------------------------------- */

/* Scores sqrt(softplus(logits)) [n, n_expert] to experts and weights: of equal sums the lower
 * id wins; weights are normalised scores times scale, in order of falling score + bias (hash: of
 * the table). */
void op_route(struct dev *d, struct route *out, const struct tensor *logits,
              const struct router *router, const struct rows *r);

/* The step's next op_experts() are for these and n rows: what lies far may come. */
void op_experts_ahead(struct dev *d, const struct expert_set *some, int n);

/* part [n * n_used, n_embd]: row i * n_used + j := expert id[i][j] of x[i], weighted, for the
 * experts in `some`; other rows stay as they are. */
void op_experts(struct dev *d, struct tensor *part, const struct expert_set *some,
                const struct route *route, const struct tensor *x, float clamp);

/* out [n, n_embd] := sum of a row's parts in ascending expert id. */
void op_sum_experts(struct dev *d, struct tensor *out, const struct tensor *part,
                    const struct route *route);

/* The same, plus x. */
void op_sum_experts_add(struct dev *d, struct tensor *out, const struct tensor *part,
                        const struct route *route, const struct tensor *x);

#endif
