/* deepseek4.h - the network as the layer code sees it: every weight under the name of the
 * mathematics (docs/model.md). Read this beside deepseek4_layer.c. */
#ifndef DS_DEEPSEEK4_H
#define DS_DEEPSEEK4_H

#include "deepseek4_names.h"
#include "model.h"
#include "send.h"
#include "slab.h"

/* Weights are [out, in]; vectors are float32. */
struct dsv4_layer {
    int ratio;                         /* 0: window only; 4: blocks picked; else all blocks */
    const struct rope *rope;
    struct hc hc_attn, hc_ffn;
    const float *attn_norm, *ffn_norm; /* [n_embd] */

    struct tensor q_a, q_b; /* [q_lora, n_embd] [n_head * head_dim, q_lora] */
    struct tensor kv;       /* [head_dim, n_embd] */
    const float *q_norm, *kv_norm;   /* [q_lora] [head_dim] */
    struct attention at;
    struct tensor o_a, o_b; /* [n_group * o_lora, a group of heads] [n_embd, n_group * o_lora] */

    struct compressor comp;          /* ratio > 0 */
    struct tensor comp_kv, comp_gate;
    struct compressor index_comp;    /* ratio 4 */
    struct tensor index_comp_kv, index_comp_gate, index_q, index_proj;

    struct router route;
    struct tensor router;            /* [n_expert, n_embd] */
    struct tensor sh_gate, sh_up, sh_down;
    struct expert_set experts;
    float clamp;
};

/* The draft block: predicts the token after next. */
struct dsv4_mtp {
    struct dsv4_layer layer;
    struct tensor e_proj, h_proj;        /* [n_embd, n_embd] */
    const float *enorm, *hnorm, *norm;   /* [n_embd] */
    struct hc head;
};

struct dsv4_copy; /* memory taken at open */

struct model {
    struct dsv4_hyper s;
    struct model_info info;
    struct indexer indexer;
    struct rope rope_main, rope_compress;
    struct tensor embd, output;          /* [n_vocab, n_embd] */
    const float *output_norm;
    struct hc head;
    struct dsv4_layer *layer;            /* [n_layer] */
    struct dsv4_mtp *mtp;                /* NULL: none */
    struct dev *dev;
    struct expert_store *store;          /* NULL: experts are mapped */
    struct expert_map map;               /* where their bytes are; the draft block is last */
    const struct weights *files;
    struct slab held;                    /* all other weights, if they are not mapped */
    struct dsv4_copy *copies;
    struct send_list sends;              /* matrices that a device has room for, not yet there */
    int kv_ratio[DSV4_MAX_LAYER + 1];
};

/* Rows of a step between two sublayers. */
struct dsv4_flow {
    struct tensor streams; /* [n, n_hc * n_embd] */
    struct tensor x;       /* [n, n_embd] what of them the next sublayer sees */
    struct tensor gates;   /* and how they take what it gives */
};

/* Streams on their way into layer `first`. */
struct dsv4_flow dsv4_flow_into(const struct model *m, const struct dsv4_layer *first,
                                const struct tensor *streams);

/* Through layer w, whose cache is number l, and on the way into `next`, or out: NULL. */
void dsv4_layer_forward(const struct model *m, const struct dsv4_layer *w, int l,
                        const struct dsv4_layer *next, struct dsv4_flow *f, const struct rows *r);

/* logits [n_logits, n_vocab] of the streams. */
struct tensor dsv4_head(const struct model *m, const struct tensor *streams, const struct hc *hc,
                        const float *norm, const struct rows *r);

/* The draft block's logits from the backbone's last streams and the tokens that follow them. */
struct tensor dsv4_mtp_forward(const struct model *m, const struct tensor *streams,
                               const struct rows *next);

#endif
