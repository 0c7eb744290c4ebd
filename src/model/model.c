/* model.c - what run asks of a model: its shape, its cache's shape, its identity. */
#include "deepseek4.h"

#include "hash.h"
#include "kv_row.h"

const struct model_info *model_info(const struct model *m)
{
    return &m->info;
}

static struct expert_layer experts_of(const struct dsv4_layer *w)
{
    return (struct expert_layer){ w->experts, w->route.by_token, w->route.n_used };
}

void model_experts(const struct model *m, struct expert_layer *out)
{
    for (int l = 0; l < m->s.n_layer; l++)
        out[l] = experts_of(&m->layer[l]);
    if (m->mtp)
        out[m->s.n_layer] = experts_of(&m->mtp->layer);
}

const struct expert_map *model_expert_map(const struct model *m)
{
    return &m->map;
}

const struct expert_set *model_expert_set(const struct model *m, int layer)
{
    return layer < m->s.n_layer ? &m->layer[layer].experts : &m->mtp->layer.experts;
}

int model_n_hash(const struct model *m)
{
    return m->s.n_hash_layer;
}

void model_use_store(struct model *m, struct expert_store *s)
{
    m->store = s;
}

static int gcd(int a, int b)
{
    return b ? gcd(b, a % b) : a;
}

/* A multiple of every ratio, and of 512 when the ratios allow it. */
static int block_tok(const struct model *m)
{
    int n = 1;
    for (int l = 0; l < m->s.n_layer; l++)
        if (m->s.ratio[l])
            n = n / gcd(n, m->s.ratio[l]) * m->s.ratio[l];
    return (int)round_up(512, (size_t)n);
}

void model_kv_shape(const struct model *m, int max_rows, int slack, struct kv_shape *s)
{
    const struct dsv4_hyper *h = &m->s;
    bool packed = m->info.simulate;
    *s = (struct kv_shape){
        .packed = packed,
        .head_dim = h->head_dim,
        .rope_dim = h->n_rope,
        .index_dim = h->index_dim,
        .row_bytes = packed ? kv_row_bytes(h->head_dim, h->n_rope)
                            : (size_t)h->head_dim * sizeof(float),
        .index_row_bytes = packed ? kv_index_row_bytes(h->index_dim)
                                  : (size_t)h->index_dim * sizeof(float),
        .window = h->window,
        .ring_cap = h->window - 1 + max_rows + slack,
        .slack = slack,
        .block_tok = block_tok(m),
    };
}

enum { SAMPLE_BYTES = 64 };

static void hash_weight(struct hash *h, const struct weight *w)
{
    size_t n = MIN(w->bytes, (size_t)SAMPLE_BYTES);
    hash_add(h, w->name, strlen(w->name) + 1);
    hash_add(h, w->dim, sizeof w->dim);
    hash_add(h, &w->type, sizeof w->type);
    if (w->counted) {
        hash_add(h, &w->random.key, sizeof w->random.key);
        hash_add(h, &w->random.shift, sizeof w->random.shift);
        return;
    }
    for (int part = 0; part < 3; part++) /* its start, middle and end */
        hash_add(h, w->data + (w->bytes - n) / 2 * (size_t)part, n);
}

/* Four sums with different seeds over everything that makes this network this one. */
void model_identity(const struct model *m, uint8_t id[32])
{
    for (int i = 0; i < 4; i++) {
        struct hash h;
        hash_init(&h, (uint64_t)i);
        hash_add(&h, &m->s, sizeof m->s);
        for (int t = 0; t < weights_count(m->files); t++)
            hash_weight(&h, weights_at(m->files, t));
        uint64_t sum = hash_value(&h);
        for (int b = 0; b < 8; b++)
            id[8 * i + b] = (uint8_t)(sum >> 8 * b);
    }
}
