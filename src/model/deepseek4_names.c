/* deepseek4_names.c - the table of DeepSeek-V4's tensors, and names made from it and taken apart.
 *
 * The vendor's names are those of the released safetensors, the GGUF ones those of llama.cpp's
 * converter. The draft block has "mtp.0." names as in the separate draft files in circulation,
 * with its two projections unfused: fused along the input they would share quantised blocks.
 * Derivation of shapes: docs/model.md. */
#include "deepseek4_names.h"

#include <stdio.h>
#include <stdlib.h>

/* Shapes: D2(fastest, slowest) as in GGUF. */
#define D1(a) DSV4_D_##a, DSV4_D_NONE
#define D2(a, b) DSV4_D_##a, DSV4_D_##b
#define ROW(role, where, when, part, form, dims, gguf, official)                              \
    [DSV4_##role] = { DSV4_##role, DSV4_##where, DSV4_##when, DSV4_PART_##part, DSV4_##form, \
                      { dims },    gguf,         official }

const struct dsv4_name dsv4_names[DSV4_N_ROLE] = {
    ROW(TOKEN_EMBD, ONCE, ALWAYS, EMBEDDING, BF16, D2(EMBD, VOCAB),
        "token_embd.weight", "embed.weight"),
    ROW(OUTPUT, ONCE, ALWAYS, HEAD, DENSE, D2(EMBD, VOCAB), "output.weight", "head.weight"),
    ROW(OUTPUT_NORM, ONCE, ALWAYS, NORM, EXACT, D1(EMBD), "output_norm.weight", "norm.weight"),
    ROW(HC_HEAD_FN, ONCE, ALWAYS, HYPER, EXACT, D2(HC_EMBD, HC),
        "output_hc_fn.weight", "hc_head_fn"),
    ROW(HC_HEAD_BASE, ONCE, ALWAYS, HYPER, EXACT, D1(HC), "output_hc_base.weight", "hc_head_base"),
    ROW(HC_HEAD_SCALE, ONCE, ALWAYS, HYPER, EXACT, D1(1),
        "output_hc_scale.weight", "hc_head_scale"),
    ROW(ATTN_NORM, BLOCK, ALWAYS, NORM, EXACT, D1(EMBD), "attn_norm.weight", "attn_norm.weight"),
    ROW(FFN_NORM, BLOCK, ALWAYS, NORM, EXACT, D1(EMBD), "ffn_norm.weight", "ffn_norm.weight"),
    ROW(HC_ATTN_FN, BLOCK, ALWAYS, HYPER, EXACT, D2(HC_EMBD, HC_MIX),
        "hc_attn_fn.weight", "hc_attn_fn"),
    ROW(HC_ATTN_BASE, BLOCK, ALWAYS, HYPER, EXACT, D1(HC_MIX),
        "hc_attn_base.weight", "hc_attn_base"),
    ROW(HC_ATTN_SCALE, BLOCK, ALWAYS, HYPER, EXACT, D1(3), "hc_attn_scale.weight", "hc_attn_scale"),
    ROW(HC_FFN_FN, BLOCK, ALWAYS, HYPER, EXACT, D2(HC_EMBD, HC_MIX),
        "hc_ffn_fn.weight", "hc_ffn_fn"),
    ROW(HC_FFN_BASE, BLOCK, ALWAYS, HYPER, EXACT, D1(HC_MIX), "hc_ffn_base.weight", "hc_ffn_base"),
    ROW(HC_FFN_SCALE, BLOCK, ALWAYS, HYPER, EXACT, D1(3), "hc_ffn_scale.weight", "hc_ffn_scale"),
    ROW(Q_A, BLOCK, ALWAYS, ATTENTION, DENSE, D2(EMBD, Q_LORA),
        "attn_q_a.weight", "attn.wq_a.weight"),
    ROW(Q_A_NORM, BLOCK, ALWAYS, NORM, EXACT, D1(Q_LORA),
        "attn_q_a_norm.weight", "attn.q_norm.weight"),
    ROW(Q_B, BLOCK, ALWAYS, ATTENTION, DENSE, D2(Q_LORA, Q), "attn_q_b.weight", "attn.wq_b.weight"),
    ROW(KV, BLOCK, ALWAYS, ATTENTION, DENSE, D2(EMBD, HEAD), "attn_kv.weight", "attn.wkv.weight"),
    ROW(KV_NORM, BLOCK, ALWAYS, NORM, EXACT, D1(HEAD),
        "attn_kv_a_norm.weight", "attn.kv_norm.weight"),
    ROW(SINKS, BLOCK, ALWAYS, ATTENTION, EXACT, D1(HEADS), "attn_sinks.weight", "attn.attn_sink"),
    ROW(O_A, BLOCK, ALWAYS, ATTENTION, DENSE, D2(O_IN, O_LORA),
        "attn_output_a.weight", "attn.wo_a.weight"),
    ROW(O_B, BLOCK, ALWAYS, ATTENTION, DENSE, D2(O_LORA, EMBD),
        "attn_output_b.weight", "attn.wo_b.weight"),
    ROW(ROUTER, BLOCK, ALWAYS, ROUTER, BF16, D2(EMBD, EXPERTS),
        "ffn_gate_inp.weight", "ffn.gate.weight"),
    ROW(GATE_EXPS, BLOCK, ALWAYS, ROUTED, EXPERTS, D2(EMBD, FF),
        "ffn_gate_exps.weight", "ffn.experts.*.w1.weight"),
    ROW(UP_EXPS, BLOCK, ALWAYS, ROUTED, EXPERTS, D2(EMBD, FF),
        "ffn_up_exps.weight", "ffn.experts.*.w3.weight"),
    ROW(DOWN_EXPS, BLOCK, ALWAYS, ROUTED, EXPERTS, D2(FF, EMBD),
        "ffn_down_exps.weight", "ffn.experts.*.w2.weight"),
    ROW(GATE_SHEXP, BLOCK, ALWAYS, SHARED, DENSE, D2(EMBD, FF_SHARED),
        "ffn_gate_shexp.weight", "ffn.shared_experts.w1.weight"),
    ROW(UP_SHEXP, BLOCK, ALWAYS, SHARED, DENSE, D2(EMBD, FF_SHARED),
        "ffn_up_shexp.weight", "ffn.shared_experts.w3.weight"),
    ROW(DOWN_SHEXP, BLOCK, ALWAYS, SHARED, DENSE, D2(FF_SHARED, EMBD),
        "ffn_down_shexp.weight", "ffn.shared_experts.w2.weight"),
    ROW(ROUTER_BIAS, BLOCK, SCORED, ROUTER, EXACT, D1(EXPERTS),
        "exp_probs_b.bias", "ffn.gate.bias"),
    ROW(TID2EID, BLOCK, HASHED, HASH, IDS, D2(USED, VOCAB),
        "ffn_gate_tid2eid.weight", "ffn.gate.tid2eid"),
    ROW(COMP_KV, BLOCK, COMPRESSED, COMPRESSOR, BF16, D2(EMBD, COMP),
        "attn_compressor_kv.weight", "attn.compressor.wkv.weight"),
    ROW(COMP_GATE, BLOCK, COMPRESSED, COMPRESSOR, BF16, D2(EMBD, COMP),
        "attn_compressor_gate.weight", "attn.compressor.wgate.weight"),
    ROW(COMP_APE, BLOCK, COMPRESSED, COMPRESSOR, EXACT, D2(COMP, RATIO),
        "attn_compressor_ape.weight", "attn.compressor.ape"),
    ROW(COMP_NORM, BLOCK, COMPRESSED, NORM, EXACT, D1(HEAD),
        "attn_compressor_norm.weight", "attn.compressor.norm.weight"),
    ROW(INDEX_Q_B, BLOCK, INDEXED, COMPRESSOR, DENSE, D2(Q_LORA, INDEX_Q),
        "indexer.attn_q_b.weight", "attn.indexer.wq_b.weight"),
    ROW(INDEX_PROJ, BLOCK, INDEXED, COMPRESSOR, BF16, D2(EMBD, INDEX_HEADS),
        "indexer.proj.weight", "attn.indexer.weights_proj.weight"),
    ROW(INDEX_COMP_KV, BLOCK, INDEXED, COMPRESSOR, BF16, D2(EMBD, INDEX_COMP),
        "indexer_compressor_kv.weight", "attn.indexer.compressor.wkv.weight"),
    ROW(INDEX_COMP_GATE, BLOCK, INDEXED, COMPRESSOR, BF16, D2(EMBD, INDEX_COMP),
        "indexer_compressor_gate.weight", "attn.indexer.compressor.wgate.weight"),
    ROW(INDEX_COMP_APE, BLOCK, INDEXED, COMPRESSOR, EXACT, D2(INDEX_COMP, RATIO),
        "indexer_compressor_ape.weight", "attn.indexer.compressor.ape"),
    ROW(INDEX_COMP_NORM, BLOCK, INDEXED, NORM, EXACT, D1(INDEX_HEAD),
        "indexer_compressor_norm.weight", "attn.indexer.compressor.norm.weight"),
    ROW(MTP_E_PROJ, IN_MTP, ALWAYS, DRAFT, BF16, D2(EMBD, EMBD), "e_proj.weight", "e_proj.weight"),
    ROW(MTP_H_PROJ, IN_MTP, ALWAYS, DRAFT, BF16, D2(EMBD, EMBD), "h_proj.weight", "h_proj.weight"),
    ROW(MTP_ENORM, IN_MTP, ALWAYS, DRAFT, EXACT, D1(EMBD), "enorm.weight", "enorm.weight"),
    ROW(MTP_HNORM, IN_MTP, ALWAYS, DRAFT, EXACT, D1(EMBD), "hnorm.weight", "hnorm.weight"),
    ROW(MTP_NORM, IN_MTP, ALWAYS, DRAFT, EXACT, D1(EMBD), "norm.weight", "norm.weight"),
    ROW(MTP_HC_HEAD_FN, IN_MTP, ALWAYS, DRAFT, EXACT, D2(HC_EMBD, HC),
        "hc_head_fn.weight", "hc_head_fn"),
    ROW(MTP_HC_HEAD_BASE, IN_MTP, ALWAYS, DRAFT, EXACT, D1(HC),
        "hc_head_base.weight", "hc_head_base"),
    ROW(MTP_HC_HEAD_SCALE, IN_MTP, ALWAYS, DRAFT, EXACT, D1(1),
        "hc_head_scale.weight", "hc_head_scale"),
    ROW(DSPARK_MAIN_PROJ, IN_DSPARK, ALWAYS, DRAFT, DENSE, D2(SPARK_IN, EMBD),
        "main_proj.weight", "main_proj.weight"),
    ROW(DSPARK_MAIN_NORM, IN_DSPARK, ALWAYS, DRAFT, EXACT, D1(EMBD),
        "main_norm.weight", "main_norm.weight"),
    ROW(DSPARK_MARKOV_W1, IN_DSPARK, ALWAYS, DRAFT, BF16, D2(SPARK_RANK, VOCAB),
        "markov_head.markov_w1.weight", "markov_head.markov_w1.weight"),
    ROW(DSPARK_MARKOV_W2, IN_DSPARK, ALWAYS, DRAFT, BF16, D2(SPARK_RANK, VOCAB),
        "markov_head.markov_w2.weight", "markov_head.markov_w2.weight"),
    ROW(DSPARK_CONFIDENCE, IN_DSPARK, ALWAYS, DRAFT, BF16, D2(SPARK_CONF, 1),
        "confidence_head.proj.weight", "confidence_head.proj.weight"),
};

const char *dsv4_part_name(enum dsv4_part part)
{
    static const char *const names[DSV4_N_PART] = {
        [DSV4_PART_EMBEDDING] = "embedding",   [DSV4_PART_HEAD] = "head",
        [DSV4_PART_ATTENTION] = "attention",   [DSV4_PART_COMPRESSOR] = "compressor and indexer",
        [DSV4_PART_ROUTER] = "router",         [DSV4_PART_HASH] = "hash tables",
        [DSV4_PART_HYPER] = "hyper-connections", [DSV4_PART_SHARED] = "shared experts",
        [DSV4_PART_ROUTED] = "routed experts", [DSV4_PART_NORM] = "norms",
        [DSV4_PART_DRAFT] = "draft blocks",    [DSV4_PART_OTHER] = "other",
    };
    return names[part];
}

/* block as in the header's DSV4_MTP(); "" without one. */
static int prefix(char out[DSV4_NAME_MAX], const char *layers, enum dsv4_role role, int block)
{
    CHECK(role < DSV4_N_ROLE && (dsv4_names[role].where == DSV4_ONCE) == (block < 0));
    out[0] = 0;
    if (block >= DSV4_MTP(0))
        return snprintf(out, DSV4_NAME_MAX, "mtp.%d.", block - DSV4_MTP(0));
    if (block >= 0)
        return snprintf(out, DSV4_NAME_MAX, "%s.%d.", layers, block);
    return 0;
}

const char *dsv4_gguf_name(char out[DSV4_NAME_MAX], enum dsv4_role role, int block)
{
    int n = prefix(out, "blk", role, block);
    snprintf(out + n, DSV4_NAME_MAX - (size_t)n, "%s", dsv4_names[role].gguf);
    return out;
}

const char *dsv4_official_name(char out[DSV4_NAME_MAX], enum dsv4_role role, int block, int expert)
{
    int n = prefix(out, "layers", role, block);
    const char *name = dsv4_names[role].official, *star = strchr(name, '*');
    if (star)
        snprintf(out + n, DSV4_NAME_MAX - (size_t)n, "%.*s%d%s", (int)(star - name), name, expert,
                 star + 1);
    else
        snprintf(out + n, DSV4_NAME_MAX - (size_t)n, "%s", name);
    return out;
}

/* "PREFIX.7.rest": 7, and *rest after the second dot; -1 when it does not look like that. */
static int numbered(const char *name, const char *prefix, const char **rest)
{
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) != 0 || name[n] != '.' || name[n + 1] < '0' || name[n + 1] > '9')
        return -1;
    char *end;
    long value = strtol(name + n + 1, &end, 10);
    if (*end != '.' || value >= DSV4_MAX_LAYER * 64)
        return -1;
    *rest = end + 1;
    return (int)value;
}

/* Does `name` (scale: with ".scale" for ".weight") match a pattern with one '*'? */
static bool matches(const char *name, const char *pattern, bool scale, int *expert)
{
    for (; *pattern && (!scale || strcmp(pattern, "weight") != 0); pattern++) {
        if (*pattern != '*') {
            if (*name++ != *pattern)
                return false;
            continue;
        }
        char *end;
        long value = *name >= '0' && *name <= '9' ? strtol(name, &end, 10) : -1;
        if (value < 0 || value > INT32_MAX)
            return false;
        *expert = (int)value;
        name = end;
    }
    return scale ? *pattern && strcmp(name, "scale") == 0 : *name == 0;
}

struct dsv4_place dsv4_place_of(const char *name)
{
    struct dsv4_place p = { DSV4_N_ROLE, DSV4_PART_OTHER, -1, -1, false };
    const char *rest = name;
    int mtp = numbered(name, "mtp", &rest), layer = numbered(name, "blk", &rest);
    bool gguf = layer >= 0;
    if (layer < 0)
        layer = numbered(name, "layers", &rest);
    if (mtp >= 0 && mtp < DSV4_MAX_LAYER)
        p.block = DSV4_MTP(mtp);
    else if (layer < DSV4_MAX_LAYER)
        p.block = layer;
    size_t n = strlen(rest);
    p.is_scale = !gguf && n > 6 && strcmp(rest + n - 6, ".scale") == 0;
    for (int role = 0; role < DSV4_N_ROLE; role++) {
        const struct dsv4_name *t = &dsv4_names[role];
        int expert = -1;
        if ((t->where == DSV4_ONCE) != (p.block < 0) ||
            (p.block < DSV4_MTP(0) && (t->where == DSV4_IN_MTP || t->where == DSV4_IN_DSPARK)))
            continue;
        if (!(!p.is_scale && strcmp(rest, t->gguf) == 0) &&
            !(!gguf && matches(rest, t->official, p.is_scale, &expert)))
            continue;
        p.role = (enum dsv4_role)role;
        p.part = p.block >= DSV4_MTP(0) ? DSV4_PART_DRAFT : t->part;
        p.expert = expert;
        return p;
    }
    return p;
}

bool dsv4_has(enum dsv4_role role, int ratio, bool hashed)
{
    const struct dsv4_name *t = &dsv4_names[role];
    if (t->where != DSV4_BLOCK)
        return false;
    switch (t->when) {
    case DSV4_ALWAYS: return true;
    case DSV4_COMPRESSED: return ratio > 0;
    case DSV4_INDEXED: return ratio == DSV4_INDEX_RATIO;
    case DSV4_HASHED: return hashed;
    case DSV4_SCORED: return !hashed;
    }
    return false;
}

int64_t dsv4_size(const struct dsv4_hyper *h, enum dsv4_dim dim, int ratio)
{
    /* Overlapping blocks pool two sets of channels. */
    int sets = ratio == DSV4_INDEX_RATIO ? 2 : 1;
    switch (dim) {
    case DSV4_D_NONE: return 0;
    case DSV4_D_1: return 1;
    case DSV4_D_3: return 3;
    case DSV4_D_EMBD: return h->n_embd;
    case DSV4_D_VOCAB: return h->n_vocab;
    case DSV4_D_HC: return h->n_hc;
    case DSV4_D_HC_EMBD: return (int64_t)h->n_hc * h->n_embd;
    case DSV4_D_HC_MIX: return (int64_t)h->n_hc * (2 + h->n_hc);
    case DSV4_D_HEADS: return h->n_head;
    case DSV4_D_HEAD: return h->head_dim;
    case DSV4_D_Q: return (int64_t)h->n_head * h->head_dim;
    case DSV4_D_Q_LORA: return h->q_lora;
    case DSV4_D_O_IN: return (int64_t)h->n_head / h->n_group * h->head_dim;
    case DSV4_D_O_LORA: return (int64_t)h->n_group * h->o_lora;
    case DSV4_D_COMP: return (int64_t)sets * h->head_dim;
    case DSV4_D_RATIO: return ratio;
    case DSV4_D_INDEX_HEADS: return h->index_heads;
    case DSV4_D_INDEX_HEAD: return h->index_dim;
    case DSV4_D_INDEX_Q: return (int64_t)h->index_heads * h->index_dim;
    case DSV4_D_INDEX_COMP: return (int64_t)sets * h->index_dim;
    case DSV4_D_EXPERTS: return h->n_expert;
    case DSV4_D_USED: return h->n_used;
    case DSV4_D_FF: return h->n_ff;
    case DSV4_D_FF_SHARED: return (int64_t)h->n_shared * h->n_ff;
    case DSV4_D_SPARK_IN: return (int64_t)h->n_dspark_target * h->n_embd;
    case DSV4_D_SPARK_RANK: return h->dspark_rank;
    case DSV4_D_SPARK_CONF: return (int64_t)h->n_embd + h->dspark_rank;
    }
    return 0;
}

int dsv4_shape_of(const struct dsv4_hyper *h, enum dsv4_role role, int ratio, bool stacked,
                  int64_t dim[4])
{
    const struct dsv4_name *t = &dsv4_names[role];
    int n = 0;
    for (int i = 0; i < 4; i++)
        dim[i] = 1;
    for (; n < 2 && t->dim[n] != DSV4_D_NONE; n++)
        dim[n] = dsv4_size(h, t->dim[n], ratio);
    if (stacked && t->form == DSV4_EXPERTS)
        dim[n++] = h->n_expert;
    return n;
}
