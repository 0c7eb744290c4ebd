/* deepseek4_hyper.c - the hyperparameters of a DeepSeek-V4, from GGUF metadata or config.json.
 *
 * One table with both names and a sane range for each value, because sizes are multiplied later.
 * What the files state but this program does not compute (other scoring functions, several KV
 * heads, biases) is checked against the one value it does compute, and refused otherwise. */
#include "deepseek4_names.h"


#define INT(field, gguf, config, required, absent, min, max) \
    { gguf, config, META_INT, offsetof(struct dsv4_hyper, field), required, absent, min, max }
#define FLT(field, gguf, config, required, absent, min, max) \
    { gguf, config, META_FLOAT, offsetof(struct dsv4_hyper, field), required, absent, min, max }

const struct dsv4_key dsv4_keys[] = {
    INT(n_layer, "deepseek4.block_count", "num_hidden_layers", true, 0, 1, DSV4_MAX_LAYER),
    INT(n_embd, "deepseek4.embedding_length", "hidden_size", true, 0, 1, 1 << 20),
    INT(n_vocab, "deepseek4.vocab_size", "vocab_size", true, 0, 1, 1 << 24),
    INT(n_head, "deepseek4.attention.head_count", "num_attention_heads", true, 0, 1, 4096),
    INT(head_dim, "deepseek4.attention.key_length", "head_dim", true, 0, 2, 1 << 14),
    INT(n_rope, "deepseek4.rope.dimension_count", "qk_rope_head_dim", true, 0, 2, 1 << 14),
    INT(q_lora, "deepseek4.attention.q_lora_rank", "q_lora_rank", true, 0, 1, 1 << 20),
    INT(o_lora, "deepseek4.attention.output_lora_rank", "o_lora_rank", true, 0, 1, 1 << 20),
    INT(n_group, "deepseek4.attention.output_group_count", "o_groups", true, 0, 1, 4096),
    INT(window, "deepseek4.attention.sliding_window", "sliding_window", true, 0, 1, 1 << 20),
    INT(n_expert, "deepseek4.expert_count", "n_routed_experts", true, 0, 1, 8192),
    INT(n_used, "deepseek4.expert_used_count", "num_experts_per_tok", true, 0, 1, 64),
    INT(n_shared, "deepseek4.expert_shared_count", "n_shared_experts", true, 0, 1, 64),
    INT(n_ff, "deepseek4.expert_feed_forward_length", "moe_intermediate_size", true, 0, 1, 1 << 20),
    INT(n_hash_layer, "deepseek4.hash_layer_count", "num_hash_layers", true, 0, 0, DSV4_MAX_LAYER),
    INT(n_hc, "deepseek4.hyper_connection.count", "hc_mult", true, 0, 1, 16),
    INT(hc_iters, "deepseek4.hyper_connection.sinkhorn_iterations", "hc_sinkhorn_iters", true, 0, 1,
        1000),
    INT(index_heads, "deepseek4.attention.indexer.head_count", "index_n_heads", true, 0, 1, 4096),
    INT(index_dim, "deepseek4.attention.indexer.key_length", "index_head_dim", true, 0, 2, 1 << 14),
    INT(index_top_k, "deepseek4.attention.indexer.top_k", "index_topk", true, 0, 1, 1 << 20),
    INT(n_nextn, "deepseek4.nextn_predict_layers", "num_nextn_predict_layers", false, 0, 0, 16),
    INT(context, "deepseek4.context_length", "max_position_embeddings", false, 1 << 20, 1, 1 << 30),
    INT(yarn_context, "deepseek4.rope.scaling.original_context_length",
        "rope_scaling.original_max_position_embeddings", false, 65536, 1, 1 << 30),
    FLT(rope_base, "deepseek4.rope.freq_base", "rope_theta", true, 0, 1, 1e12),
    FLT(compress_rope_base, "deepseek4.attention.compress_rope_freq_base", "compress_rope_theta",
        true, 0, 1, 1e12),
    FLT(yarn_factor, "deepseek4.rope.scaling.factor", "rope_scaling.factor", false, 16, 1, 1e6),
    FLT(yarn_beta_fast, "deepseek4.rope.scaling.yarn_beta_fast", "rope_scaling.beta_fast", false,
        32, 1e-3, 1e6),
    FLT(yarn_beta_slow, "deepseek4.rope.scaling.yarn_beta_slow", "rope_scaling.beta_slow", false, 1,
        1e-3, 1e6),
    FLT(rms_eps, "deepseek4.attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 0, 1e-30, 1),
    FLT(hc_eps, "deepseek4.hyper_connection.epsilon", "hc_eps", true, 0, 1e-30, 1),
    FLT(route_scale, "deepseek4.expert_weights_scale", "routed_scaling_factor", true, 0, 1e-6, 1e6),
    /* GGUF has one limit per layer: see read_clamp(). */
    FLT(swiglu_limit, NULL, "swiglu_limit", true, 0, 0, 1e6),
    { "deepseek4.expert_weights_norm", "norm_topk_prob", META_BOOL,
      offsetof(struct dsv4_hyper, norm_topk), false, 1, 0, 1 },
    INT(bos, "tokenizer.ggml.bos_token_id", "bos_token_id", false, -1, -1, 1 << 24),
    INT(eos, "tokenizer.ggml.eos_token_id", "eos_token_id", false, -1, -1, 1 << 24),
    INT(pad, "tokenizer.ggml.padding_token_id", "pad_token_id", false, -1, -1, 1 << 24),
    INT(dspark_block, "deepseek4.dspark.block_size", "dspark_block_size", false, 0, 0, 1024),
    INT(dspark_noise, "deepseek4.dspark.noise_token_id", "dspark_noise_token_id", false, 0, 0,
        1 << 24),
    INT(dspark_rank, "deepseek4.dspark.markov_rank", "dspark_markov_rank", false, 0, 0, 1 << 20),
};
const int dsv4_n_keys = COUNT_OF(dsv4_keys);

static bool is_given(const struct meta *m, const char *key)
{
    const struct meta_kv *kv = key ? meta_find(m, key) : NULL;
    return kv && kv->type != META_NONE;
}

static int read_key(struct dsv4_hyper *h, const struct dsv4_key *k, const struct meta *m,
                    const char *name, struct err *e)
{
    char *field = (char *)h + k->offset;
    double value = k->absent;
    bool given = is_given(m, name);
    if (!given && k->required)
        return err_set(e, ERR_FORMAT, "%s: key %s is missing", meta_file(m), name);
    if (given && k->type == META_FLOAT) {
        TRY(meta_float(m, name, &value, e));
    } else if (given) {
        int64_t i;
        TRY(meta_int(m, name, &i, e));
        value = (double)i;
    }
    if (given && !(value >= k->min && value <= k->max))
        return err_set(e, ERR_FORMAT, "%s: key %s is %g, expected %g to %g", meta_file(m), name,
                       value, k->min, k->max);
    if (k->type == META_FLOAT)
        *(float *)(void *)field = (float)value;
    else if (k->type == META_BOOL)
        *(bool *)(void *)field = value != 0;
    else
        *(int *)(void *)field = (int)value;
    return 0;
}

/* A single number or an array of them, at most max; *n how many. */
static int read_ints(const struct meta *m, const char *key, int *out, int max, int *n,
                     struct err *e)
{
    const struct meta_kv *kv = meta_find(m, key);
    *n = 0;
    if (!kv)
        return 0;
    if (kv->type != META_INT)
        return err_set(e, ERR_FORMAT, "%s: key %s holds no integers", meta_file(m), key);
    for (; *n < kv->n && *n < max; ++*n) {
        int64_t i = kv->v.i[*n];
        if (i < 0 || i > INT32_MAX)
            return err_set(e, ERR_FORMAT, "%s: key %s[%d] is %lld, expected 0 to %d", meta_file(m),
                           key, *n, (long long)i, INT32_MAX);
        out[*n] = (int)i;
    }
    return 0;
}

static int read_ratios(struct dsv4_hyper *h, const struct meta *m, const char *key, struct err *e)
{
    int n;
    TRY(read_ints(m, key, h->ratio, h->n_layer, &n, e));
    if (n < h->n_layer)
        return err_set(e, ERR_FORMAT, "%s: key %s has %d entries, expected one per layer, %d",
                       meta_file(m), key, n, h->n_layer);
    for (int l = 0; l < n; l++) {
        if (h->ratio[l] != 0 && (h->ratio[l] < DSV4_INDEX_RATIO || h->ratio[l] > 65536))
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: key %s[%d] is %d, expected 0, or %d to 65536", meta_file(m), key, l,
                           h->ratio[l], DSV4_INDEX_RATIO);
    }
    return 0;
}

/* GGUF states the clamp per layer and, optionally, again for the shared experts; the model has
 * one. A single number is taken too. */
static int read_clamp(struct dsv4_hyper *h, const struct meta *m, const char *key, bool first,
                      struct err *e)
{
    const struct meta_kv *kv = meta_find(m, key);
    if (!kv && !first)
        return 0;
    if (!kv || (kv->type != META_FLOAT && kv->type != META_INT) || kv->n < 1)
        return err_set(e, ERR_FORMAT, "%s: key %s is missing or holds no numbers", meta_file(m),
                       key);
    for (int64_t i = 0; i < kv->n; i++) {
        double x = kv->type == META_FLOAT ? kv->v.f[i] : (double)kv->v.i[i];
        if (first && i == 0)
            h->swiglu_limit = (float)x;
        if (!(x >= 0 && x <= 1e6) || (float)x != h->swiglu_limit)
            return err_set(e, ERR_UNSUPPORTED, "%s: key %s[%lld] is %g, expected %g everywhere",
                           meta_file(m), key, (long long)i, x, (double)h->swiglu_limit);
    }
    return 0;
}

/* A value that must be this one where it is stated. */
static int only_int(const struct meta *m, const char *key, int64_t only, struct err *e)
{
    int64_t found;
    if (!is_given(m, key))
        return 0;
    TRY(meta_int(m, key, &found, e));
    if (found != only)
        return err_set(e, ERR_UNSUPPORTED, "%s: key %s is %lld, this program computes only %lld",
                       meta_file(m), key, (long long)found, (long long)only);
    return 0;
}

static int only_str(const struct meta *m, const char *key, const char *only, struct err *e)
{
    const char *found = meta_str(m, key);
    if (!is_given(m, key))
        return 0;
    if (!found || strcmp(found, only) != 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: key %s is %s, this program computes only \"%s\"",
                       meta_file(m), key, found ? found : "not a string", only);
    return 0;
}

static int check_gguf(const struct dsv4_hyper *h, const struct meta *m, struct err *e)
{
    TRY(only_str(m, "general.architecture", "deepseek4", e));
    TRY(only_int(m, "deepseek4.attention.head_count_kv", 1, e));
    TRY(only_int(m, "deepseek4.attention.value_length", h->head_dim, e));
    TRY(only_int(m, "deepseek4.leading_dense_block_count", 0, e));
    TRY(only_int(m, "deepseek4.expert_gating_func", 4, e)); /* square root of softplus */
    TRY(only_str(m, "deepseek4.rope.scaling.type", "yarn", e));
    static const char *const groups[] = { "deepseek4.expert_group_count",
                                          "deepseek4.expert_group_used_count" };
    for (size_t i = 0; i < COUNT_OF(groups); i++) {
        int64_t n;
        TRY(meta_int_or(m, groups[i], 0, &n, e));
        if (n != 0 && n != 1)
            TRY(only_int(m, groups[i], 0, e));
    }
    return 0;
}

static int check_config(const struct meta *m, struct err *e)
{
    TRY(only_str(m, "model_type", "deepseek_v4", e));
    TRY(only_int(m, "num_key_value_heads", 1, e));
    TRY(only_str(m, "scoring_func", "sqrtsoftplus", e));
    TRY(only_str(m, "topk_method", "noaux_tc", e));
    TRY(only_str(m, "hidden_act", "silu", e));
    TRY(only_str(m, "rope_scaling.type", "yarn", e));
    TRY(only_str(m, "rope_scaling.rope_type", "yarn", e));
    TRY(only_int(m, "attention_bias", 0, e));
    TRY(only_int(m, "tie_word_embeddings", 0, e));
    TRY(only_int(m, "n_group", 1, e));
    return only_int(m, "topk_group", 1, e);
}

static int check_sizes(const struct dsv4_hyper *h, const struct meta *m, struct err *e)
{
    const char *file = meta_file(m);
    if (h->n_rope > h->head_dim || h->n_rope % 2 != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: %d rotary dimensions, expected an even part of a head's %d", file,
                       h->n_rope, h->head_dim);
    if (h->n_rope > h->index_dim)
        return err_set(e, ERR_FORMAT, "%s: %d rotary dimensions, expected at most the indexer's %d",
                       file, h->n_rope, h->index_dim);
    if (h->n_head % h->n_group != 0)
        return err_set(e, ERR_FORMAT, "%s: %d heads, expected a multiple of the %d output groups",
                       file, h->n_head, h->n_group);
    if (h->n_used > h->n_expert)
        return err_set(e, ERR_FORMAT, "%s: %d experts per token, expected at most the %d there are",
                       file, h->n_used, h->n_expert);
    if (h->n_hash_layer > h->n_layer)
        return err_set(e, ERR_FORMAT, "%s: %d hash layers, expected at most the %d layers", file,
                       h->n_hash_layer, h->n_layer);
    return 0;
}

static int read_cache(struct dsv4_hyper *h, const struct meta *m, const char *key, struct err *e)
{
    const char *word = meta_str(m, key);
    h->cache_simulation = DSV4_CACHE_VENDOR;
    if (!is_given(m, key) || (word && strcmp(word, "vendor") == 0))
        return 0;
    if (!word || strcmp(word, "none") != 0)
        return err_set(e, ERR_FORMAT, "%s: key %s is %s, expected \"vendor\" or \"none\"",
                       meta_file(m), key, word ? word : "not a string");
    h->cache_simulation = DSV4_CACHE_NONE;
    return 0;
}

/* GGUF files of other writers may leave the size to the list of tokens. */
static int read_vocab(struct dsv4_hyper *h, const struct dsv4_key *k, const struct meta *m,
                      struct err *e)
{
    const struct meta_kv *tokens = meta_find(m, "tokenizer.ggml.tokens");
    if (meta_find(m, k->gguf) || !tokens || !tokens->is_array || tokens->n > 1 << 24)
        return read_key(h, k, m, k->gguf, e);
    h->n_vocab = (int)tokens->n;
    return 0;
}

int dsv4_hyper_read(struct dsv4_hyper *h, const struct meta *m, enum weights_kind kind,
                    struct err *e)
{
    bool gguf = kind == WEIGHTS_GGUF;
    *h = (struct dsv4_hyper){ 0 };
    /* Before the sizes: another architecture has other keys, and "missing" would mislead. */
    if (gguf)
        TRY(only_str(m, "general.architecture", "deepseek4", e));
    else
        TRY(check_config(m, e));
    for (int i = 0; i < dsv4_n_keys; i++) {
        const struct dsv4_key *k = &dsv4_keys[i];
        if (gguf && k->offset == offsetof(struct dsv4_hyper, n_vocab))
            TRY(read_vocab(h, k, m, e));
        else if (!gguf || k->gguf)
            TRY(read_key(h, k, m, gguf ? k->gguf : k->config, e));
    }
    TRY(read_ratios(h, m, gguf ? "deepseek4.attention.compress_ratios" : "compress_ratios", e));
    TRY(read_ints(m, gguf ? "deepseek4.dspark.target_layer_ids" : "dspark_target_layer_ids",
                  h->dspark_target, (int)COUNT_OF(h->dspark_target), &h->n_dspark_target, e));
    TRY(read_cache(h, m, gguf ? "dwarfstar.cache_simulation" : "cache_simulation", e));
    if (gguf) {
        TRY(check_gguf(h, m, e));
        TRY(read_clamp(h, m, "deepseek4.swiglu_clamp_exp", true, e));
        TRY(read_clamp(h, m, "deepseek4.swiglu_clamp_shexp", false, e));
    }
    return check_sizes(h, m, e);
}
