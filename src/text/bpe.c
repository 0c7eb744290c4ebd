/* bpe.c - a heap of candidate pairs over a linked list of symbols, behind a small cache.
 *
 * The heap keeps long pieces (a megabyte of one letter) from taking quadratic time; entries that
 * no longer hold are recognised when they come up rather than removed. Most pieces of a text are
 * words seen before: a direct-mapped table of short pieces answers those, and a collision simply
 * replaces, which bounds it without any order of use. Rejected: looking the whole piece up in
 * the vocabulary first, which is not the same for every set of merges. */
#include "bpe_impl.h"

#include <stdlib.h>

#define NO_RANK UINT32_MAX
#define WORK_KEPT 65536 /* symbols; longer pieces give their memory back */

/* One cached piece fills one line of the processor's cache. */
#define CACHE_BYTES 32
#define CACHE_IDS 7
#define CACHE_SLOTS 32768

struct cached {
    uint64_t piece[CACHE_BYTES / 8]; /* zero-padded */
    int32_t id[CACHE_IDS];
    uint8_t len, n; /* len 0: empty */
};
_Static_assert(sizeof(struct cached) == 64, "fills a line");

struct pair {
    int32_t left, right; /* left -1: free */
    uint32_t rank;
};

/* A symbol starts where its first byte is; prev and next are such places, next == n at the end. */
struct symbol {
    int32_t id, prev, next;
    uint32_t rank; /* of this symbol with the next; NO_RANK: no merge, or the symbol is gone */
};

struct bpe {
    const struct vocab *vocab;
    struct pair *pair; /* open addressing */
    size_t n_pair;     /* slots, a power of two */
    struct cached *cache;
    struct symbol *symbol; /* [n_work] */
    uint64_t *heap;        /* [2 * n_work]: rank << 32 | place */
    size_t n_work;
};

static struct pair *pair_slot(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (size_t i = (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32);; i++) {
        struct pair *p = &b->pair[i & (b->n_pair - 1)];
        if (p->left < 0 || (p->left == left && p->right == right))
            return p;
    }
}

int bpe_new(struct bpe **out, const struct vocab *v, struct err *e)
{
    struct bpe *b = calloc(1, sizeof *b);
    int code = ERR_NO_MEMORY;
    *out = NULL;
    if (!b)
        return err_set(e, ERR_NO_MEMORY, "no memory for a tokenizer");
    b->vocab = v;
    for (b->n_pair = 64; b->n_pair / 2 < (size_t)v->n_merge; b->n_pair *= 2)
        ;
    b->pair = malloc(b->n_pair * sizeof *b->pair);
    b->cache = calloc(CACHE_SLOTS, sizeof *b->cache);
    if (!b->pair || !b->cache) {
        code = err_set(e, ERR_NO_MEMORY, "no memory for %d merges", v->n_merge);
        goto fail;
    }
    memset(b->pair, 0xFF, b->n_pair * sizeof *b->pair);
    for (int i = 0; i < v->n_merge; i++) {
        struct pair *p = pair_slot(b, v->merge[i].left, v->merge[i].right);
        if (p->left >= 0) {
            code = err_set(e, ERR_FORMAT, "merges %u and %d join the same tokens %d and %d",
                           p->rank, i, p->left, p->right);
            goto fail;
        }
        *p = (struct pair){ v->merge[i].left, v->merge[i].right, (uint32_t)i };
    }
    *out = b;
    return 0;
fail:
    bpe_free(b);
    return code;
}

void bpe_free(struct bpe *b)
{
    if (!b)
        return;
    free(b->pair);
    free(b->cache);
    free(b->symbol);
    free(b->heap);
    free(b);
}

static void sift_down(uint64_t *heap, size_t n, size_t at)
{
    uint64_t x = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= x)
            break;
        heap[at] = heap[child];
    }
    heap[at] = x;
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t x)
{
    size_t at = (*n)++;
    for (; at > 0 && heap[(at - 1) / 2] > x; at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = x;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0];
    heap[0] = heap[--*n];
    if (*n > 0)
        sift_down(heap, *n, 0);
    return top;
}

static int reserve_work(struct bpe *b, size_t n, struct err *e)
{
    if (n <= b->n_work)
        return 0;
    size_t cap = MAX(n, (size_t)256);
    free(b->symbol);
    free(b->heap);
    b->symbol = malloc(cap * sizeof *b->symbol);
    b->heap = malloc(2 * cap * sizeof *b->heap);
    b->n_work = b->symbol && b->heap ? cap : 0;
    if (b->n_work == 0)
        return err_set(e, ERR_NO_MEMORY, "no memory for a word of %zu bytes", n);
    return 0;
}

static void release_work(struct bpe *b)
{
    free(b->symbol);
    free(b->heap);
    b->symbol = NULL;
    b->heap = NULL;
    b->n_work = 0;
}

/* The rank of symbol `at` with its successor; a merge there becomes a candidate. */
static uint32_t rank_at(const struct bpe *b, int32_t at, int32_t n)
{
    const struct symbol *s = &b->symbol[at];
    if (s->next >= n)
        return NO_RANK;
    const struct pair *p = pair_slot(b, s->id, b->symbol[s->next].id);
    return p->left < 0 ? NO_RANK : p->rank;
}

static void consider(struct bpe *b, size_t *n_heap, int32_t at, int32_t n)
{
    b->symbol[at].rank = rank_at(b, at, n);
    if (b->symbol[at].rank != NO_RANK)
        heap_push(b->heap, n_heap, (uint64_t)b->symbol[at].rank << 32 | (uint32_t)at);
}

/* One byte per symbol; the heap of all pairs that can merge. Returns the heap's size. */
static size_t start_symbols(struct bpe *b, const char *piece, int32_t n)
{
    size_t n_heap = 0;
    for (int32_t i = 0; i < n; i++) {
        b->symbol[i].id = b->vocab->byte_id[(uint8_t)piece[i]];
        b->symbol[i].prev = i - 1;
        b->symbol[i].next = i + 1;
    }
    for (int32_t i = 0; i < n; i++) {
        uint32_t rank = b->symbol[i].rank = rank_at(b, i, n);
        if (rank != NO_RANK)
            b->heap[n_heap++] = (uint64_t)rank << 32 | (uint32_t)i;
    }
    for (size_t i = n_heap / 2; i-- > 0;)
        sift_down(b->heap, n_heap, i);
    return n_heap;
}

static void merge_all(struct bpe *b, const char *piece, int32_t n)
{
    size_t n_heap = start_symbols(b, piece, n);
    while (n_heap > 0) {
        uint64_t best = heap_pop(b->heap, &n_heap);
        int32_t at = (int32_t)(best & UINT32_MAX);
        struct symbol *s = &b->symbol[at];
        if (s->rank != best >> 32)
            continue; /* one of the two has merged with something else since */
        int32_t gone = s->next;
        s->id = b->vocab->merge[s->rank].result;
        s->next = b->symbol[gone].next;
        b->symbol[gone].rank = NO_RANK;
        if (s->next < n)
            b->symbol[s->next].prev = at;
        /* At most two candidates come for the one that went: n symbols never need more than 2n
         * places in the heap. */
        consider(b, &n_heap, at, n);
        if (s->prev >= 0)
            consider(b, &n_heap, s->prev, n);
    }
}

static int encode_uncached(struct bpe *b, const char *piece, size_t len, struct ids *out,
                           struct err *e)
{
    CHECK(len > 0 && len <= INT32_MAX);
    TRY(reserve_work(b, len, e));
    merge_all(b, piece, (int32_t)len);
    bool fits = true;
    for (int32_t i = 0; i < (int32_t)len && fits; i = b->symbol[i].next)
        fits = ids_add(out, b->symbol[i].id);
    if (b->n_work > WORK_KEPT)
        release_work(b);
    return fits ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for %d tokens", out->n);
}

int bpe_encode(struct bpe *b, const char *piece, size_t len, struct ids *out, struct err *e)
{
    if (len > CACHE_BYTES)
        return encode_uncached(b, piece, len, out, e);
    uint64_t key[CACHE_BYTES / 8] = { 0 };
    memcpy(key, piece, len);
    uint64_t h = len;
    for (size_t i = 0; i < COUNT_OF(key); i++)
        h = (h ^ key[i]) * UINT64_C(0x9E3779B97F4A7C15), h ^= h >> 29;
    struct cached *c = &b->cache[(h >> 32) & (CACHE_SLOTS - 1)];
    if (c->len != len || memcmp(c->piece, key, sizeof key) != 0) {
        int first = out->n;
        TRY(encode_uncached(b, piece, len, out, e));
        int n = out->n - first;
        if (n <= CACHE_IDS) {
            memcpy(c->piece, key, sizeof key);
            memcpy(c->id, out->id + first, (size_t)n * sizeof *c->id);
            c->len = (uint8_t)len;
            c->n = (uint8_t)n;
        }
        return 0;
    }
    for (int i = 0; i < c->n; i++)
        if (!ids_add(out, c->id[i]))
            return err_set(e, ERR_NO_MEMORY, "no memory for %d tokens", out->n);
    return 0;
}
