/* true_shapes.h - models with the real directories and no data: every tensor of DeepSeek-V4-Flash
 * or -Pro under its real name, type and shape, the bytes a hole in a sparse file.
 *
 * A few MB on disk stand for 160 or 865 GB, so that opening, counting and planning can be tested
 * at true size. Types as in the released safetensors; a GGUF as import would write it. */
#ifndef DS_TRUE_SHAPES_H
#define DS_TRUE_SHAPES_H

#include "unit/scratch_dir.h"

#include "deepseek4_names.h"
#include "rng.h"
#include "unit/gguf_bytes.h"

static inline void true_hyper(struct dsv4_hyper *h, bool pro)
{
    *h = (struct dsv4_hyper){
        .n_layer = pro ? 61 : 43, .n_embd = pro ? 7168 : 4096, .n_vocab = 129280,
        .n_head = pro ? 128 : 64, .head_dim = 512, .n_rope = 64, .q_lora = pro ? 1536 : 1024,
        .o_lora = 1024, .n_group = pro ? 16 : 8, .window = 128, .n_expert = pro ? 384 : 256,
        .n_used = 6, .n_shared = 1, .n_ff = pro ? 3072 : 2048, .n_hash_layer = 3, .n_hc = 4,
        .hc_iters = 20, .index_heads = 64, .index_dim = 128, .index_top_k = pro ? 1024 : 512,
        .n_nextn = 1, .context = 1048576, .yarn_context = 65536, .rope_base = 10000,
        .compress_rope_base = 160000, .yarn_factor = 16, .yarn_beta_fast = 32, .yarn_beta_slow = 1,
        .rms_eps = 1e-6f, .hc_eps = 1e-6f, .route_scale = pro ? 2.5f : 1.5f, .swiglu_limit = 10,
        .norm_topk = true, .eos = 1, .pad = 1,
    };
    for (int l = 0; l < h->n_layer; l++)
        h->ratio[l] = l < 2 ? (pro ? 128 : 0) : l % 2 ? 128 : 4;
}

static inline void true_config(const struct dsv4_hyper *h, struct buf *out)
{
    buf_puts(out, "{\"architectures\":[\"DeepseekV4ForCausalLM\"],\"model_type\":\"deepseek_v4\"");
    for (int i = 0; i < dsv4_n_keys; i++) {
        const struct dsv4_key *k = &dsv4_keys[i];
        const char *field = (const char *)h + k->offset;
        if (!k->config || strchr(k->config, '.') || strncmp(k->config, "dspark", 6) == 0)
            continue;
        buf_printf(out, ",\"%s\":", k->config);
        if (k->type == META_FLOAT)
            buf_printf(out, "%.9g", (double)*(const float *)(const void *)field);
        else if (k->type == META_BOOL)
            buf_puts(out, *(const bool *)(const void *)field ? "true" : "false");
        else
            buf_printf(out, "%d", *(const int *)(const void *)field);
    }
    buf_puts(out,
             ",\"num_key_value_heads\":1,\"scoring_func\":\"sqrtsoftplus\",\"rope_scaling\":{"
             "\"type\":\"yarn\",\"factor\":16,\"original_max_position_embeddings\":65536,"
             "\"beta_fast\":32,\"beta_slow\":1},\"expert_dtype\":\"fp4\",\"compress_ratios\":[");
    for (int l = 0; l < h->n_layer; l++)
        buf_printf(out, "%d,", h->ratio[l]);
    buf_puts(out, "0]}");
}

/* The type in the released files. */
static inline enum dtype true_type(enum dsv4_role role)
{
    const struct dsv4_name *t = &dsv4_names[role];
    switch (role) {
    case DSV4_OUTPUT: return DT_BF16;
    case DSV4_MTP_E_PROJ:
    case DSV4_MTP_H_PROJ: return DT_F8_E4M3;
    case DSV4_MTP_ENORM:
    case DSV4_MTP_HNORM:
    case DSV4_MTP_NORM: return DT_BF16;
    default: break;
    }
    if (t->part == DSV4_PART_NORM || t->form == DSV4_BF16)
        return DT_BF16;
    return t->form == DSV4_EXACT     ? DT_F32
           : t->form == DSV4_DENSE   ? DT_F8_E4M3
           : t->form == DSV4_EXPERTS ? DT_FP4
                                     : DT_I64;
}

/* One shard: a header growing in a buffer, its data a length. */
struct true_shard {
    struct buf head, *index;
    char file[64];
    int64_t at;
    bool filled; /* with bytes that are finite numbers in every type, for small models */
};

static inline void true_entry(struct true_shard *s, const char *name, const char *dtype,
                              int n_dim, const int64_t *dim, int64_t bytes)
{
    buf_printf(&s->head, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[", s->head.len ? ',' : '{', name,
               dtype);
    for (int i = n_dim - 1; i >= 0; i--)
        buf_printf(&s->head, "%lld%s", (long long)dim[i], i ? "," : "");
    buf_printf(&s->head, "],\"data_offsets\":[%lld,%lld]}", (long long)s->at,
               (long long)(s->at + bytes));
    s->at += bytes;
    buf_printf(s->index, "%c\n    \"%s\": \"%s\"",
               s->index->data[s->index->len - 1] == '{' ? ' ' : ',', name, s->file);
}

static inline void true_tensor(struct true_shard *s, const struct dsv4_hyper *h,
                               enum dsv4_role role, int block, int expert, int ratio)
{
    char name[DSV4_NAME_MAX];
    int64_t dim[4];
    int n = dsv4_shape_of(h, role, ratio, false, dim);
    enum dtype type = true_type(role);
    dsv4_official_name(name, role, block, expert);
    int64_t bytes = (int64_t)dtype_bytes(type, (size_t)(dim[0] * dim[1]));
    int64_t scale[2] = { (dim[0] + 127) / 128, (dim[1] + 127) / 128 };
    if (type == DT_FP4) {
        scale[0] = dim[0] / 32;
        scale[1] = dim[1];
        dim[0] /= 2;
    }
    true_entry(s, name, type == DT_FP4 ? "I8" : dtype_name((int)type), n, dim, bytes);
    if (type != DT_FP4 && type != DT_F8_E4M3)
        return;
    memcpy(name + strlen(name) - strlen(".weight"), ".scale", sizeof ".scale");
    true_entry(s, name, "F8_E8M0", 2, scale, scale[0] * scale[1]);
}

static inline void true_block(struct true_shard *s, const struct dsv4_hyper *h, int block)
{
    bool mtp = block >= DSV4_MTP(0);
    int ratio = mtp ? 0 : h->ratio[block];
    for (int role = 0; role < DSV4_N_ROLE; role++) {
        const struct dsv4_name *t = &dsv4_names[role];
        if (!dsv4_has((enum dsv4_role)role, ratio, block < h->n_hash_layer) &&
            !(mtp && t->where == DSV4_IN_MTP))
            continue;
        int n = t->form == DSV4_EXPERTS ? h->n_expert : 1;
        for (int e = 0; e < n; e++)
            true_tensor(s, h, (enum dsv4_role)role, block, e, ratio);
    }
}

/* Write the header, leave the data a hole. */
static inline void true_shard_end(struct true_shard *s, const struct scratch *dir)
{
    struct buf all;
    buf_init(&all, (size_t)1 << 28);
    buf_putc(&s->head, '}');
    put_le(&all, s->head.len, 8);
    buf_add(&all, s->head.data, s->head.len);
    CHECK(!all.failed);
    scratch_put(dir, s->file, all.data, all.len);
    CHECK(truncate(scratch_file(dir, s->file), (off_t)all.len + s->at) == 0);
    FILE *f = s->filled ? fopen(scratch_file(dir, s->file), "r+b") : NULL;
    if (f) {
        struct rng rng = { (uint64_t)s->at, 0 };
        CHECK(fseek(f, (long)all.len, SEEK_SET) == 0);
        for (int64_t i = 0; i < s->at; i++)
            CHECK(fputc(0x20 + (int)(rng_next(&rng) % 64), f) != EOF);
        CHECK(fclose(f) == 0);
    }
    buf_release(&all);
    buf_release(&s->head);
    s->at = 0;
}

/* A checkpoint folder: one shard per block, one for the rest, as the released ones roughly are. */
static inline void true_checkpoint_of(const struct scratch *dir, const struct dsv4_hyper *h,
                                      bool filled)
{
    struct buf index, config;
    buf_init(&index, (size_t)1 << 28);
    buf_puts(&index, "{\n  \"metadata\": {},\n  \"weight_map\": {");
    struct true_shard s = { .index = &index, .filled = filled };
    int n_shard = h->n_layer + 2;
    for (int i = 0; i < n_shard; i++) {
        buf_init(&s.head, (size_t)1 << 28);
        snprintf(s.file, sizeof s.file, "model-%05d-of-%05d.safetensors", i + 1, n_shard);
        if (i == 0) {
            for (int role = 0; dsv4_names[role].where == DSV4_ONCE; role++)
                true_tensor(&s, h, (enum dsv4_role)role, -1, 0, 0);
        } else {
            true_block(&s, h, i <= h->n_layer ? i - 1 : DSV4_MTP(0));
        }
        true_shard_end(&s, dir);
    }
    buf_puts(&index, "\n  }\n}\n");
    scratch_put(dir, "model.safetensors.index.json", index.data, index.len);
    buf_release(&index);
    buf_init(&config, 1 << 20);
    true_config(h, &config);
    scratch_put(dir, "config.json", config.data, config.len);
    buf_release(&config);
}

static inline void true_checkpoint(const struct scratch *dir, bool pro)
{
    struct dsv4_hyper h;
    true_hyper(&h, pro);
    true_checkpoint_of(dir, &h, false);
}

/* ---- GGUF ---- */

/* As import writes it. */
static inline enum dtype true_gguf_type(enum dsv4_role role)
{
    static const enum dtype types[] = { [DSV4_EXACT] = DT_F32, [DSV4_BF16] = DT_BF16,
                                        [DSV4_DENSE] = DT_BF16, [DSV4_EXPERTS] = DT_MXFP4,
                                        [DSV4_IDS] = DT_I32 };
    return types[dsv4_names[role].form];
}

/* The mix of the 2-bit files in circulation for ds4: IQ2_XXS and Q2_K experts, Q8_0 matrices, F16
 * for what mixes or selects. */
static inline enum dtype true_2bit_type(enum dsv4_role role)
{
    switch (role) {
    case DSV4_GATE_EXPS:
    case DSV4_UP_EXPS: return DT_IQ2_XXS;
    case DSV4_DOWN_EXPS: return DT_Q2_K;
    case DSV4_INDEX_Q_B:
    case DSV4_HC_HEAD_FN:
    case DSV4_HC_ATTN_FN:
    case DSV4_HC_FFN_FN:
    case DSV4_COMP_APE:
    case DSV4_INDEX_COMP_APE: return DT_F16;
    default: break;
    }
    enum dsv4_form form = dsv4_names[role].form;
    return form == DSV4_DENSE ? DT_Q8_0 : form == DSV4_BF16 ? DT_F16 : true_gguf_type(role);
}

struct true_gguf {
    const struct dsv4_hyper *h;
    enum dtype (*type)(enum dsv4_role role);
    struct buf infos;
    uint64_t n, at;
};

static inline void true_info(struct true_gguf *g, enum dsv4_role role, int block, int ratio)
{
    char name[DSV4_NAME_MAX];
    int64_t dim[4];
    int n = dsv4_shape_of(g->h, role, ratio, true, dim);
    enum dtype type = g->type(role);
    put_str(&g->infos, dsv4_gguf_name(name, role, block));
    put_le(&g->infos, (uint64_t)n, 4);
    for (int i = 0; i < n; i++)
        put_le(&g->infos, (uint64_t)dim[i], 8);
    put_le(&g->infos, (uint64_t)type, 4);
    put_le(&g->infos, g->at, 8);
    g->at += round_up(dtype_bytes(type, (size_t)(dim[0] * dim[1] * dim[2])), 32);
    g->n++;
}

static inline void true_infos(struct true_gguf *g, bool mtp)
{
    for (int role = 0; dsv4_names[role].where == DSV4_ONCE; role++)
        true_info(g, (enum dsv4_role)role, -1, 0);
    for (int l = 0; l < g->h->n_layer + mtp; l++) {
        bool draft = l == g->h->n_layer;
        int ratio = draft ? 0 : g->h->ratio[l];
        for (int role = 0; role < DSV4_N_ROLE; role++) {
            if (dsv4_has((enum dsv4_role)role, ratio, l < g->h->n_hash_layer) ||
                (draft && dsv4_names[role].where == DSV4_IN_MTP))
                true_info(g, (enum dsv4_role)role, draft ? DSV4_MTP(0) : l, ratio);
        }
    }
}

/* The keys of struct dsv4_hyper; returns how many. */
static inline uint64_t true_keys(const struct dsv4_hyper *h, struct buf *b)
{
    uint64_t n = 4;
    put_kv_str(b, "general.architecture", "deepseek4");
    put_kv_str(b, "deepseek4.rope.scaling.type", "yarn");
    for (int i = 0; i < dsv4_n_keys; i++) {
        const struct dsv4_key *k = &dsv4_keys[i];
        const char *field = (const char *)h + k->offset;
        if (!k->gguf || strstr(k->gguf, ".dspark.") || strstr(k->gguf, "tokenizer."))
            continue;
        put_str(b, k->gguf);
        put_le(b, k->type == META_BOOL ? 7 : k->type == META_FLOAT ? 6 : 4, 4);
        buf_add(b, field, k->type == META_BOOL ? 1 : 4);
        n++;
    }
    put_str(b, "deepseek4.attention.compress_ratios");
    put_le(b, 9, 4);
    put_le(b, 5, 4);
    put_le(b, (uint64_t)h->n_layer, 8);
    for (int l = 0; l < h->n_layer; l++)
        put_le(b, (uint64_t)h->ratio[l], 4);
    put_str(b, "deepseek4.swiglu_clamp_exp");
    put_le(b, 9, 4);
    put_le(b, 6, 4);
    put_le(b, (uint64_t)h->n_layer, 8);
    for (int l = 0; l < h->n_layer; l++)
        buf_add(b, &h->swiglu_limit, 4);
    return n;
}

static inline void true_gguf(const struct scratch *dir, const char *file, bool pro, bool mtp,
                             enum dtype (*type)(enum dsv4_role role))
{
    struct dsv4_hyper h;
    struct buf all, keys;
    true_hyper(&h, pro);
    h.n_nextn = mtp;
    struct true_gguf g = { .h = &h, .type = type };
    buf_init(&g.infos, (size_t)1 << 26);
    buf_init(&keys, 1 << 20);
    true_infos(&g, mtp);
    put_head(&all, g.n, true_keys(&h, &keys));
    buf_add(&all, keys.data, keys.len);
    buf_add(&all, g.infos.data, g.infos.len);
    put_data(&all, 32, 0);
    CHECK(!all.failed && !g.infos.failed && !keys.failed);
    scratch_put(dir, file, all.data, all.len);
    CHECK(truncate(scratch_file(dir, file), (off_t)(all.len + g.at)) == 0);
    buf_release(&all);
    buf_release(&keys);
    buf_release(&g.infos);
}

#endif
