/* kv_pool.c - one array of blocks and a list of those unused.
 *
 * Blocks are first handed out in the order of the array; later the one given back last is reused
 * first, because its pages are already paid for. Rejected: one heap allocation per block: a step
 * must not allocate, and could fail for want of memory in the middle of a prompt. */
#include "kv_pool.h"

#include "arena.h"

static size_t layer_rows_bytes(const struct kv_shape *s, int ratio, int n_tok)
{
    return ratio ? (size_t)(n_tok / ratio) * s->row_bytes : 0;
}

static size_t layer_index_bytes(const struct kv_shape *s, int ratio, int n_tok)
{
    return ratio == KV_OVERLAP_RATIO ? (size_t)(n_tok / ratio) * s->index_row_bytes : 0;
}

size_t kv_rows_bytes(const struct kv_shape *s, const int *ratio, int n_layer, int n_tok)
{
    CHECK(n_tok >= 0 && n_tok <= s->block_tok);
    size_t n = 0;
    for (int l = 0; l < n_layer; l++)
        n += layer_rows_bytes(s, ratio[l], n_tok) + layer_index_bytes(s, ratio[l], n_tok);
    return n;
}

/* Places everything; with an arena that only counts, computes the size. */
static void place(struct kv_pool *p, struct arena *a, int **ratio)
{
    size_t n = (size_t)p->n_layer;
    p->ratio = *ratio = arena_alloc(a, n * sizeof **ratio);
    p->row_at = arena_alloc(a, n * sizeof *p->row_at);
    p->index_at = arena_alloc(a, n * sizeof *p->index_at);
    p->block = arena_alloc(a, (size_t)p->n_block * sizeof *p->block);
}

static struct kv_pool sized(const struct kv_shape *s, const int *ratio, int n_layer, int n_block)
{
    struct kv_pool p = { .shape = *s, .n_layer = n_layer, .n_block = n_block };
    p.block_bytes = round_up(kv_rows_bytes(s, ratio, n_layer, s->block_tok), ARENA_ALIGN);
    return p;
}

void kv_pool_plan(struct kv_pool *p, const struct kv_shape *s, const int *ratio, int n_layer)
{
    *p = sized(s, ratio, n_layer, 0);
    p->ratio = ratio;
}

struct kv_bytes kv_pool_bytes(const struct kv_shape *s, const int *ratio, int n_layer, int n_block)
{
    struct kv_pool p = sized(s, ratio, n_layer, n_block);
    struct arena count;
    int *copy;
    arena_init(&count, NULL, 0);
    place(&p, &count, &copy);
    return (struct kv_bytes){ count.peak, (size_t)n_block * p.block_bytes };
}

void kv_pool_init(struct kv_pool *p, const struct kv_shape *s, const int *ratio, int n_layer,
                  struct kv_mem mem, int n_block)
{
    struct arena a;
    int *copy;
    size_t at = 0;
    *p = sized(s, ratio, n_layer, n_block);
    arena_init(&a, mem.host, kv_pool_bytes(s, ratio, n_layer, n_block).host);
    place(p, &a, &copy);
    CHECK(!a.overflow);
    for (int l = 0; l < n_layer; l++) {
        CHECK(ratio[l] >= 0 && (ratio[l] == 0 || s->block_tok % ratio[l] == 0));
        copy[l] = ratio[l];
        p->row_at[l] = at;
        at += layer_rows_bytes(s, ratio[l], s->block_tok);
        p->index_at[l] = at;
        at += layer_index_bytes(s, ratio[l], s->block_tok);
    }
    CHECK(at <= p->block_bytes);
    for (int i = 0; i < n_block; i++) {
        uint8_t *data = (uint8_t *)mem.data + (size_t)i * p->block_bytes;
        p->block[i] = (struct kv_block){ .mem = data };
    }
    for (int i = n_block - 1; i >= 0; i--) {
        p->block[i].next = p->unused;
        p->unused = &p->block[i];
    }
}

struct kv_block *kv_block_take(struct kv_pool *p)
{
    struct kv_block *b = p->unused;
    if (!b)
        return NULL;
    CHECK(b->refs == 0);
    p->unused = b->next;
    p->n_used++;
    *b = (struct kv_block){ .refs = 1, .mem = b->mem };
    return b;
}

void kv_block_share(struct kv_block *b)
{
    CHECK(b->refs > 0);
    b->refs++;
}

void kv_block_drop(struct kv_pool *p, struct kv_block *b)
{
    CHECK(b->refs > 0);
    if (--b->refs > 0)
        return;
    b->next = p->unused;
    p->unused = b;
    p->n_used--;
}
