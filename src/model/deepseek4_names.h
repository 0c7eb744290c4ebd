/* deepseek4_names.h - what the tensors and hyperparameters of a DeepSeek-V4 are called.
 *
 * One table of tensors (deepseek4_names.c) and one of hyperparameters (deepseek4_hyper.c), each
 * with the vendor's name (safetensors, config.json) beside the GGUF name (architecture string
 * "deepseek4"), so that loading, importing and inspecting cannot disagree. Shapes are stated in
 * the same words: every size a tensor may have follows from struct dsv4_hyper. */
#ifndef DS_DEEPSEEK4_NAMES_H
#define DS_DEEPSEEK4_NAMES_H

#include "weights.h"

enum {
    DSV4_MAX_LAYER = 256,
    DSV4_NAME_MAX = 96, /* a tensor's name with its zero */
    DSV4_INDEX_RATIO = 4, /* layers of this ratio overlap their blocks and pick them by index */
};

/* Every kind of tensor. What each is for: docs/model.md. */
enum dsv4_role {
    /* once */
    DSV4_TOKEN_EMBD, DSV4_OUTPUT, DSV4_OUTPUT_NORM, DSV4_HC_HEAD_FN, DSV4_HC_HEAD_BASE,
    DSV4_HC_HEAD_SCALE,
    /* in every layer, and in draft blocks */
    DSV4_ATTN_NORM, DSV4_FFN_NORM, DSV4_HC_ATTN_FN, DSV4_HC_ATTN_BASE, DSV4_HC_ATTN_SCALE,
    DSV4_HC_FFN_FN, DSV4_HC_FFN_BASE, DSV4_HC_FFN_SCALE, DSV4_Q_A, DSV4_Q_A_NORM, DSV4_Q_B,
    DSV4_KV, DSV4_KV_NORM, DSV4_SINKS, DSV4_O_A, DSV4_O_B, DSV4_ROUTER, DSV4_GATE_EXPS,
    DSV4_UP_EXPS, DSV4_DOWN_EXPS, DSV4_GATE_SHEXP, DSV4_UP_SHEXP, DSV4_DOWN_SHEXP,
    /* in some layers */
    DSV4_ROUTER_BIAS, DSV4_TID2EID, DSV4_COMP_KV, DSV4_COMP_GATE, DSV4_COMP_APE, DSV4_COMP_NORM,
    DSV4_INDEX_Q_B, DSV4_INDEX_PROJ, DSV4_INDEX_COMP_KV, DSV4_INDEX_COMP_GATE,
    DSV4_INDEX_COMP_APE, DSV4_INDEX_COMP_NORM,
    /* in the next-token draft block, "mtp.0" */
    DSV4_MTP_E_PROJ, DSV4_MTP_H_PROJ, DSV4_MTP_ENORM, DSV4_MTP_HNORM, DSV4_MTP_NORM,
    DSV4_MTP_HC_HEAD_FN, DSV4_MTP_HC_HEAD_BASE, DSV4_MTP_HC_HEAD_SCALE,
    /* in the first or last of three DSpark draft blocks, which also have the four above */
    DSV4_DSPARK_MAIN_PROJ, DSV4_DSPARK_MAIN_NORM, DSV4_DSPARK_MARKOV_W1, DSV4_DSPARK_MARKOV_W2,
    DSV4_DSPARK_CONFIDENCE,
    DSV4_N_ROLE
};

enum dsv4_where {
    DSV4_ONCE,    /* no prefix */
    DSV4_BLOCK,   /* layers and draft blocks */
    DSV4_IN_MTP,  /* only "mtp.0" of a checkpoint with a next-token draft block */
    DSV4_IN_DSPARK, /* only in DSpark blocks; one of them has it */
};

/* Which blocks have it. A draft block counts as ratio 0 and is routed by score. */
enum dsv4_when {
    DSV4_ALWAYS,
    DSV4_COMPRESSED, /* ratio > 0 */
    DSV4_INDEXED,    /* ratio == DSV4_INDEX_RATIO */
    DSV4_HASHED,     /* layers below n_hash_layer: experts by token id */
    DSV4_SCORED,     /* all others: experts by router score and bias */
};

/* For sums in a table of the model's parts. */
enum dsv4_part {
    DSV4_PART_EMBEDDING, DSV4_PART_HEAD, DSV4_PART_ATTENTION, DSV4_PART_COMPRESSOR,
    DSV4_PART_ROUTER, DSV4_PART_HASH, DSV4_PART_HYPER, DSV4_PART_SHARED, DSV4_PART_ROUTED,
    DSV4_PART_NORM, DSV4_PART_DRAFT, DSV4_PART_OTHER, DSV4_N_PART
};

const char *dsv4_part_name(enum dsv4_part part); /* "routed experts" */

/* How precisely it has to be kept. */
enum dsv4_form {
    DSV4_EXACT,   /* float32 in GGUF files written here */
    DSV4_BF16,    /* bfloat16, never fewer bits: selects or mixes */
    DSV4_DENSE,   /* a matrix that every token reads; Q8_0 is harmless */
    DSV4_EXPERTS, /* routed experts: the vendor's FP4, MXFP4 or fewer bits */
    DSV4_IDS,     /* expert numbers; I32 in GGUF, I64 in checkpoints */
};

/* A size in words of the hyperparameters; see dsv4_size(). */
enum dsv4_dim {
    DSV4_D_NONE, DSV4_D_1, DSV4_D_3, DSV4_D_EMBD, DSV4_D_VOCAB, DSV4_D_HC, DSV4_D_HC_EMBD,
    DSV4_D_HC_MIX, DSV4_D_HEADS, DSV4_D_HEAD, DSV4_D_Q, DSV4_D_Q_LORA, DSV4_D_O_IN, DSV4_D_O_LORA,
    DSV4_D_COMP, DSV4_D_RATIO, DSV4_D_INDEX_HEADS, DSV4_D_INDEX_HEAD, DSV4_D_INDEX_Q,
    DSV4_D_INDEX_COMP, DSV4_D_EXPERTS, DSV4_D_USED, DSV4_D_FF, DSV4_D_FF_SHARED,
    DSV4_D_SPARK_IN, DSV4_D_SPARK_RANK, DSV4_D_SPARK_CONF
};

struct dsv4_name {
    enum dsv4_role role; /* its index in dsv4_names */
    enum dsv4_where where;
    enum dsv4_when when;
    enum dsv4_part part;
    enum dsv4_form form;
    enum dsv4_dim dim[2]; /* fastest first; GGUF's routed experts have the third, DSV4_D_EXPERTS */
    const char *gguf;     /* after "blk.N." or "mtp.N." unless DSV4_ONCE: "attn_q_a.weight" */
    const char *official; /* after "layers.N." or "mtp.N."; '*' is an expert's number:
                             "ffn.experts.*.w1.weight" */
};

extern const struct dsv4_name dsv4_names[DSV4_N_ROLE];

/* A "block" below is a layer, DSV4_MTP(i), or -1 with DSV4_ONCE. */
#define DSV4_MTP(i) (DSV4_MAX_LAYER + (i))

/* "blk.3.attn_q_a.weight", "mtp.0.enorm.weight", "output.weight". Returns out. */
const char *dsv4_gguf_name(char out[DSV4_NAME_MAX], enum dsv4_role role, int block);

/* "layers.3.ffn.experts.7.w1.weight". expert is ignored for all but routed experts. */
const char *dsv4_official_name(char out[DSV4_NAME_MAX], enum dsv4_role role, int block, int expert);

/* A name of either kind taken apart. role is DSV4_N_ROLE when it is none of ours. */
struct dsv4_place {
    enum dsv4_role role;
    enum dsv4_part part; /* as in the table, but DSV4_PART_DRAFT in draft blocks */
    int block, expert;   /* as above; -1: none */
    bool is_scale;       /* the vendor's "….scale" beside "….weight" */
};

struct dsv4_place dsv4_place_of(const char *name);

enum { DSV4_CACHE_VENDOR, DSV4_CACHE_NONE };

/* The hyperparameters, in the words of the vendor's config.json where those are short. */
struct dsv4_hyper {
    int n_layer, n_embd, n_vocab, n_head, head_dim, n_rope; /* n_rope: last dims of a head */
    int q_lora, o_lora, n_group, window;                    /* n_group: of the output projection */
    int n_expert, n_used, n_shared, n_ff, n_hash_layer;
    int n_hc, hc_iters, index_heads, index_dim, index_top_k;
    int n_nextn; /* as stated; DSpark checkpoints state 1 and have no such block: ask the tensors */
    int context, yarn_context;
    float rope_base, compress_rope_base, yarn_factor, yarn_beta_fast, yarn_beta_slow;
    float rms_eps, hc_eps, route_scale, swiglu_limit; /* limit 0: none */
    bool norm_topk;       /* divide the chosen weights by their sum */
    int cache_simulation; /* DSV4_CACHE_VENDOR unless the file says otherwise */
    int bos, eos, pad;    /* -1: not stated */
    int dspark_block, dspark_noise, dspark_rank; /* 0: no DSpark block stated */
    int n_dspark_target, dspark_target[8];       /* layers whose output it reads, from 0 */
    int ratio[DSV4_MAX_LAYER]; /* 0 window only, DSV4_INDEX_RATIO, or larger: one row per so many */
};

/* One line of the table of hyperparameters. */
struct dsv4_key {
    const char *gguf, *config; /* "deepseek4.block_count", "num_hidden_layers"; NULL: not stated */
    enum meta_type type;       /* META_INT, META_FLOAT or META_BOOL */
    size_t offset;             /* in struct dsv4_hyper */
    bool required;
    double absent, min, max;
};

extern const struct dsv4_key dsv4_keys[];
extern const int dsv4_n_keys;

/* Read and check all of them. ERR_UNSUPPORTED when the file states something this program would
 * compute wrongly (another scoring function, several KV heads, expert groups, biases). */
int dsv4_hyper_read(struct dsv4_hyper *h, const struct meta *m, enum weights_kind kind,
                    struct err *e);

/* Does a block of this compression ratio (hashed: below n_hash_layer) have this tensor? Not for
 * draft blocks' own tensors. */
bool dsv4_has(enum dsv4_role role, int ratio, bool hashed);

/* A size in numbers. ratio: of the layer, where the size depends on it. */
int64_t dsv4_size(const struct dsv4_hyper *h, enum dsv4_dim dim, int ratio);

/* The shape of a role's tensor in dim[4] (unused are 1), stacked: routed experts as in GGUF.
 * Returns the number of dimensions. */
int dsv4_shape_of(const struct dsv4_hyper *h, enum dsv4_role role, int ratio, bool stacked,
                  int64_t dim[4]);

#endif
