/* kv_fake.h - a cache filled without a model: every row says which tokens it came from.
 *
 * What the ops write for position t is here a function of the layer, the kind of row and the tokens
 * 0..t, so that a stale or misplaced row is seen at once. */
#ifndef TESTS_KV_FAKE_H
#define TESTS_KV_FAKE_H

#include "kv_seq.h"
#include "pages.h"
#include "rng.h"

#include <stdlib.h>

struct fake {
    struct kv_shape shape;
    struct kv_pool pool;
    struct kv_seq seq;
    struct kv_mem pool_mem, seq_mem;
    struct kv_bytes pool_bytes, seq_bytes;
};

static inline void fake_map(struct kv_mem *mem, struct kv_bytes n)
{
    CHECK(pages_map(&mem->host, n.host, NULL) == 0 && pages_map(&mem->data, n.data, NULL) == 0);
}

static inline void fake_unmap(struct kv_mem mem, struct kv_bytes n)
{
    pages_unmap(mem.host, n.host);
    pages_unmap(mem.data, n.data);
}

static const int fake_ratio[] = { 0, 4, 128, 4, 32 };
#define FAKE_N_LAYER ((int)COUNT_OF(fake_ratio))

static struct kv_shape fake_shape(void)
{
    return (struct kv_shape){
        .head_dim = 4,
        .rope_dim = 2,
        .index_dim = 2,
        .row_bytes = 16,
        .index_row_bytes = 8,
        .window = 16,
        .ring_cap = 15 + 200,
        .slack = 6,
        .block_tok = 512,
    };
}

static void fake_seq_open(struct fake *f, int max_tok, int max_mark)
{
    f->seq_bytes = kv_seq_bytes(&f->pool, max_tok, max_mark);
    fake_map(&f->seq_mem, f->seq_bytes);
    memset(f->seq_mem.host, 0x5a, f->seq_bytes.host); /* nothing may rely on zeros */
    memset(f->seq_mem.data, 0x5a, f->seq_bytes.data);
    kv_seq_init(&f->seq, &f->pool, f->seq_mem, max_tok, max_mark);
}

static inline void fake_open(struct fake *f, int max_tok, int max_mark, int n_block)
{
    f->shape = fake_shape();
    f->pool_bytes = kv_pool_bytes(&f->shape, fake_ratio, FAKE_N_LAYER, n_block);
    fake_map(&f->pool_mem, f->pool_bytes);
    kv_pool_init(&f->pool, &f->shape, fake_ratio, FAKE_N_LAYER, f->pool_mem, n_block);
    fake_seq_open(f, max_tok, max_mark);
}

static inline void fake_close(struct fake *f)
{
    kv_seq_release(&f->seq);
    CHECK(f->pool.n_used == 0);
    fake_unmap(f->seq_mem, f->seq_bytes);
    fake_unmap(f->pool_mem, f->pool_bytes);
}

/* What the past up to and with token t is called. */
static inline uint64_t *fake_history(const int32_t *token, int n)
{
    uint64_t *h = malloc((size_t)(n + 1) * sizeof *h), sum = 1;
    CHECK(h);
    for (int t = 0; t < n; t++)
        h[t] = sum = rng_at(sum, (uint64_t)token[t]);
    return h;
}

enum fake_kind { FAKE_RING, FAKE_MAIN_A, FAKE_MAIN_S, FAKE_INDEX_A, FAKE_INDEX_S, FAKE_ROW,
                 FAKE_INDEX_ROW };

static inline void fake_bytes(uint8_t *out, size_t n, uint64_t past, int layer, enum fake_kind kind)
{
    uint64_t seed = past + (uint64_t)layer * 16 + kind;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(rng_at(seed, i / 8) >> i % 8 * 8);
}

/* One piece of the cache is written, or compared: then false when it differs. */
static inline bool fake_piece(bool write, void *live, size_t n, uint64_t past, int layer,
                              enum fake_kind kind)
{
    uint8_t want[256];
    CHECK(n <= sizeof want);
    fake_bytes(want, n, past, layer, kind);
    if (write)
        memcpy(live, want, n);
    return memcmp(live, want, n) == 0;
}

static inline bool fake_front(bool write, const struct kv_front *f, int pos, uint64_t past,
                              int layer, enum fake_kind kind)
{
    size_t n = (size_t)f->width * sizeof(float), at = (size_t)(pos % f->cap) * (size_t)f->width;
    return fake_piece(write, f->a + at, n, past, layer, kind) &&
           fake_piece(write, f->s + at, n, past, layer, kind + 1);
}

/* What a step writes, in the first n_layer layers: rings, frontiers, rows that become complete. */
static inline void fake_write(struct kv_seq *s, int n, int n_layer)
{
    uint64_t *past = fake_history(s->token, s->n_tok + n);
    for (int l = 0; l < n_layer; l++) {
        struct kv_layer *k = &s->view.layer[l];
        for (int t = s->n_tok; t < s->n_tok + n; t++) {
            fake_piece(true, kv_ring_row(s->view.shape, k, t), s->view.shape->row_bytes, past[t],
                       l, FAKE_RING);
            if (!k->ratio)
                continue;
            fake_front(true, &k->main, t, past[t], l, FAKE_MAIN_A);
            if (k->ratio == 4)
                fake_front(true, &k->index, t, past[t], l, FAKE_INDEX_A);
            if ((t + 1) % k->ratio)
                continue;
            fake_piece(true, kv_block_row(s->view.shape, k, t / k->ratio),
                       s->view.shape->row_bytes, past[t], l, FAKE_ROW);
            if (k->ratio == 4)
                fake_piece(true, kv_index_row(s->view.shape, k, t / k->ratio),
                           s->view.shape->index_row_bytes, past[t], l, FAKE_INDEX_ROW);
        }
    }
    free(past);
}

static inline bool fake_layer_ok(const struct kv_seq *s, int l, const uint64_t *past)
{
    const struct kv_shape *k = s->view.shape;
    const struct kv_layer *layer = &s->view.layer[l];
    int p = s->n_tok;
    bool ok = true;
    for (int t = MAX(0, p - (k->window - 1)); t < p; t++)
        ok &= fake_piece(false, kv_ring_row(k, layer, t), k->row_bytes, past[t], l, FAKE_RING);
    if (!layer->ratio)
        return ok;
    int first = p / layer->ratio * layer->ratio - (layer->ratio == 4 ? 4 : 0);
    for (int t = MAX(0, first); t < p; t++) {
        ok &= fake_front(false, &layer->main, t, past[t], l, FAKE_MAIN_A);
        if (layer->ratio == 4)
            ok &= fake_front(false, &layer->index, t, past[t], l, FAKE_INDEX_A);
    }
    for (int b = 0; b < p / layer->ratio; b++) {
        uint64_t h = past[(b + 1) * layer->ratio - 1];
        ok &= fake_piece(false, kv_block_row(k, layer, b), k->row_bytes, h, l, FAKE_ROW);
        if (layer->ratio == 4)
            ok &= fake_piece(false, kv_index_row(k, layer, b), k->index_row_bytes, h, l,
                             FAKE_INDEX_ROW);
    }
    return ok;
}

/* True if all that the next step may read is right. */
static inline bool fake_ok(const struct kv_seq *s)
{
    uint64_t *past = fake_history(s->token, s->n_tok);
    bool ok = true;
    for (int l = 0; l < s->view.n_layer; l++)
        ok &= fake_layer_ok(s, l, past);
    free(past);
    return ok;
}

/* Compute the n tokens behind the past, in steps of at most `chunk`. */
static inline void fake_compute(struct kv_seq *s, int n, int chunk)
{
    while (n > 0) {
        int some = MIN(n, chunk);
        CHECK(kv_reserve(s, some, NULL) == 0);
        fake_write(s, some, s->view.n_layer);
        kv_commit(s);
        n -= some;
    }
}

/* n tokens from a counter behind the past, then computed. */
static inline void fake_append(struct kv_seq *s, int n, int chunk, uint64_t seed)
{
    for (int i = 0; i < n; i++)
        s->token[s->n_tok + i] = (int32_t)(rng_at(seed, (uint64_t)i) % 50);
    fake_compute(s, n, chunk);
}

#endif
