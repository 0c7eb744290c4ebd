/* quantize_shape.c - the sizes of the two released models, for plans and random models without a
 * checkpoint, and of a small one. Those of the two are the vendor's config.json files'. */
#include "quantize_impl.h"

/* What all three have in common. */
static struct dsv4_hyper family(void)
{
    return (struct dsv4_hyper){
        .n_vocab = 129280,
        .n_rope = 64,
        .window = 128,
        .n_used = 6,
        .n_shared = 1,
        .n_hash_layer = 3,
        .n_hc = 4,
        .hc_iters = 20,
        .n_nextn = 1,
        .context = 1 << 20,
        .yarn_context = 65536,
        .rope_base = 10000,
        .compress_rope_base = 160000,
        .yarn_factor = 16,
        .yarn_beta_fast = 32,
        .yarn_beta_slow = 1,
        .rms_eps = 1e-6f,
        .hc_eps = 1e-6f,
        .swiglu_limit = 10,
        .norm_topk = true,
        .eos = 1,
        .pad = 1,
    };
}

/* Everything a token reads of an expert is whole pages in every type, as in the released models:
 * 512 x 1024 numbers are 33 pages of IQ2_XXS, 42 of Q2_K. */
static void small(struct dsv4_hyper *h)
{
    h->n_layer = 6;
    h->n_embd = 512;
    h->n_vocab = 4096;
    h->n_head = 8;
    h->head_dim = 128;
    h->q_lora = 256;
    h->o_lora = 128;
    h->n_group = 2;
    h->n_expert = 16;
    h->n_ff = 1024;
    h->index_heads = 8;
    h->index_dim = 64;
    h->index_top_k = 32;
    h->route_scale = 1.5f;
}

static void large(struct dsv4_hyper *h, bool pro)
{
    h->n_layer = pro ? 61 : 43;
    h->n_embd = pro ? 7168 : 4096;
    h->n_head = pro ? 128 : 64;
    h->head_dim = 512;
    h->q_lora = pro ? 1536 : 1024;
    h->o_lora = 1024;
    h->n_group = pro ? 16 : 8;
    h->n_expert = pro ? 384 : 256;
    h->n_ff = pro ? 3072 : 2048;
    h->index_heads = 64;
    h->index_dim = 128;
    h->index_top_k = pro ? 1024 : 512;
    h->route_scale = pro ? 2.5f : 1.5f;
}

int quantize_shape(struct dsv4_hyper *h, const char *name, struct err *e)
{
    bool pro = strcmp(name, "pro") == 0;
    *h = family();
    if (strcmp(name, "small") == 0)
        small(h);
    else if (pro || strcmp(name, "flash") == 0)
        large(h, pro);
    else
        return err_set(e, ERR_ARGUMENT, "shape is %.40s, expected flash, pro or small", name);
    /* Layers of few, then of many tokens a row in turns; the first two are the models' own. */
    for (int l = 0; l < DSV4_MAX_LAYER; l++)
        h->ratio[l] = l < 2 ? (pro ? 128 : 0) : l % 2 ? 128 : DSV4_INDEX_RATIO;
    return 0;
}
