/* import_keys.c - the metadata of the new file: names and types as llama.cpp's converter writes
 * them, and two keys of this program's own under "dwarfstar.". */
#include "import_impl.h"

#include "tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

static void put_hyper(struct import *im)
{
    struct gguf_writer *w = &im->out;
    for (int i = 0; i < dsv4_n_keys; i++) {
        const struct dsv4_key *k = &dsv4_keys[i];
        const char *field = (const char *)&im->h + k->offset;
        if (!k->gguf || strstr(k->gguf, ".dspark."))
            continue;
        if (k->type == META_FLOAT)
            gguf_put_f32(w, k->gguf, *(const float *)(const void *)field);
        else if (k->type == META_BOOL)
            gguf_put_bool(w, k->gguf, *(const bool *)(const void *)field);
        else if (*(const int *)(const void *)field >= 0)
            gguf_put_u32(w, k->gguf, (uint32_t) * (const int *)(const void *)field);
    }
}

static int put_ratios(struct import *im, struct err *e)
{
    const struct meta_kv *ratios =
        im->files ? meta_find(weights_meta(im->files), "compress_ratios") : NULL;
    /* With the vendor's further entries for draft blocks. */
    int n = ratios ? (int)MIN(ratios->n, DSV4_MAX_LAYER) : im->h.n_layer;
    int32_t ratio[DSV4_MAX_LAYER];
    for (int i = 0; i < n; i++) {
        int64_t x = ratios ? ratios->v.i[i] : im->h.ratio[i];
        if (x < 0 || x > INT32_MAX)
            return err_set(e, ERR_FORMAT, "%s: key compress_ratios[%d] is %lld",
                           meta_file(weights_meta(im->files)), i, (long long)x);
        ratio[i] = (int32_t)x;
    }
    gguf_put_i32s(&im->out, "deepseek4.attention.compress_ratios", ratio, n);
    return 0;
}

/* What the model cannot vary, but readers want to be told. */
static int put_fixed(struct import *im, struct err *e)
{
    struct gguf_writer *w = &im->out;
    float clamp[DSV4_MAX_LAYER];
    gguf_put_u32(w, "deepseek4.attention.head_count_kv", 1);
    gguf_put_u32(w, "deepseek4.attention.value_length", (uint32_t)im->h.head_dim);
    gguf_put_u32(w, "deepseek4.expert_gating_func", 4); /* square root of softplus */
    gguf_put_u32(w, "deepseek4.leading_dense_block_count", 0);
    gguf_put_str(w, "deepseek4.rope.scaling.type", "yarn");
    for (int l = 0; l < im->h.n_layer; l++)
        clamp[l] = im->h.swiglu_limit;
    gguf_put_f32s(w, "deepseek4.swiglu_clamp_exp", clamp, im->h.n_layer);
    gguf_put_f32s(w, "deepseek4.swiglu_clamp_shexp", clamp, im->h.n_layer);
    return put_ratios(im, e);
}

static int put_own(struct import *im, struct err *e)
{
    const char *profile = im->o->profile;
    if (!profile && im->files)
        profile = meta_str(weights_meta(im->files), "effort_profile");
    gguf_put_str(&im->out, "dwarfstar.cache_simulation",
                 im->h.cache_simulation == DSV4_CACHE_NONE ? "none" : "vendor");
    if (!profile)
        return 0;
    if (strcmp(profile, "preview") != 0 && strcmp(profile, "0731") != 0)
        return err_set(e, ERR_ARGUMENT,
                       "effort profile is \"%s\", expected \"preview\" or \"0731\"", profile);
    gguf_put_str(&im->out, "dwarfstar.effort_profile", profile);
    return 0;
}

/* The folder's own name, as far as there is one. */
static void put_name(struct import *im)
{
    char name[256];
    const char *dir = im->o->dir;
    size_t end = strlen(dir);
    while (end > 0 && dir[end - 1] == '/')
        end--;
    size_t from = end;
    while (from > 0 && dir[from - 1] != '/')
        from--;
    if (end == from || dir[from] == '.' || end - from >= sizeof name)
        return;
    memcpy(name, dir + from, end - from);
    name[end - from] = 0;
    gguf_put_str(&im->out, "general.name", name);
}

static int put_tokens(struct import *im, const struct tokenizer *t, struct err *e)
{
    struct gguf_writer *w = &im->out;
    struct buf text;
    int n = tokenizer_n_vocab(t), n_vocab = im->h.n_vocab;
    int32_t *type = malloc((size_t)n_vocab * sizeof *type);
    if (!type)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d tokens", n_vocab);
    buf_init(&text, 1 << 20);
    gguf_put_strs(w, "tokenizer.ggml.tokens", n_vocab);
    for (int id = 0; id < n_vocab; id++) {
        type[id] = id < n ? (int32_t)tokenizer_type(t, id) : TOKEN_UNUSED;
        buf_clear(&text);
        if (id < n)
            tokenizer_spelling(t, id, &text);
        else /* the embedding has rows for tokens that do not exist */
            buf_printf(&text, "[PAD%d]", id);
        gguf_put_item(w, text.data, text.len);
    }
    gguf_put_i32s(w, "tokenizer.ggml.token_type", type, n_vocab);
    gguf_put_strs(w, "tokenizer.ggml.merges", tokenizer_n_merge(t));
    for (int i = 0; i < tokenizer_n_merge(t); i++) {
        int left, right;
        tokenizer_merge(t, i, &left, &right);
        buf_clear(&text);
        tokenizer_spelling(t, left, &text);
        buf_putc(&text, ' ');
        tokenizer_spelling(t, right, &text);
        gguf_put_item(w, text.data, text.len);
    }
    int code = text.failed ? err_set(e, ERR_NO_MEMORY, "out of memory for tokens") : 0;
    buf_release(&text);
    free(type);
    return code;
}

static int put_text(struct import *im, const struct tokenizer *t, const char *path, struct err *e)
{
    if (tokenizer_n_vocab(t) > im->h.n_vocab)
        return err_set(e, ERR_MISMATCH, "%s: has %d tokens, expected at most vocab_size %d", path,
                       tokenizer_n_vocab(t), im->h.n_vocab);
    if (!tokenizer_pre(t))
        return err_set(e, ERR_UNSUPPORTED, "%s: splits text by rules that GGUF has no name for",
                       path);
    TRY(put_tokens(im, t, e));
    gguf_put_str(&im->out, "tokenizer.ggml.model", "gpt2");
    gguf_put_str(&im->out, "tokenizer.ggml.pre", tokenizer_pre(t));
    gguf_put_bool(&im->out, "tokenizer.ggml.add_bos_token", false);
    gguf_put_bool(&im->out, "tokenizer.ggml.add_eos_token", false);
    return 0;
}

static int put_tokenizer(struct import *im, struct err *e)
{
    const char *path = weights_tokenizer_path(im->files);
    struct tokenizer *t;
    if (!path) {
        log_put(im->o->log, LOG_WARN, "%s: no tokenizer.json, the file will have no tokenizer",
                im->o->dir);
        return 0;
    }
    TRY(tokenizer_open_json(&t, path, im->o->log, e));
    int code = put_text(im, t, path, e);
    tokenizer_close(t);
    return code;
}

int import_keys(struct import *im, struct err *e)
{
    gguf_put_str(&im->out, "general.architecture", "deepseek4");
    put_name(im);
    put_hyper(im);
    TRY(put_fixed(im, e));
    TRY(put_own(im, e));
    return put_tokenizer(im, e);
}

int import_keys_made(struct import *im, const char *name, const struct tokenizer *text,
                     const char *text_path, struct err *e)
{
    gguf_put_str(&im->out, "general.architecture", "deepseek4");
    gguf_put_str(&im->out, "general.name", name);
    put_hyper(im);
    TRY(put_fixed(im, e));
    TRY(put_own(im, e));
    return text ? put_text(im, text, text_path, e) : 0;
}
