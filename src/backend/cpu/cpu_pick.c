/* cpu_pick.c - scoring the compressed rows of an index and taking the best.
 *
 * Scores of one row can fill megabytes, so rows pass in groups of a bounded total. The k-th
 * largest score is found digit by digit (a histogram of eleven bits at a time), which needs three
 * readings whatever k is; equal scores go to the lower row. */
#include "cpu_ops_impl.h"

#include "half.h"

#include <math.h>

#define CHUNK 256             /* rows of a task */
#define SCORES (4 << 20)      /* scores held at once, unless one row has more */

struct pick {
    const struct cpu *c;
    const struct tensor *q, *weight;
    struct tensor *picked;
    const struct indexer *ix;
    const struct rows *r;
    int l, first, n_row, most, n_chunk; /* rows first .. of this group, each with <= most scores */
    float *score;                       /* [n_row][most] */
    float *keys, *dots;                 /* per worker [2][KEY_TILE][dim], [n_head][KEY_TILE] */
};

static int n_visible(const struct pick *p, int i)
{
    const struct row *row = &p->r->host[i];
    return (row->pos + 1) / p->r->kv[row->seq]->layer[p->l].ratio;
}

static void load_key(const struct pick *p, const struct kv_view *kv, int b, float *key)
{
    const uint8_t *row = kv_index_row(kv->shape, &kv->layer[p->l], b);
    if (kv->shape->packed)
        p->c->k.index_unpack(row, p->ix->dim, key);
    else
        memcpy(key, row, (size_t)p->ix->dim * sizeof *key);
}

/* dots[h][j] := max(0, head h . key j). */
static void dot_heads(const struct pick *p, const float *q, float *keys, int n_key, float *dots)
{
    int dim = p->ix->dim, n_dot = p->ix->n_head * KEY_TILE;
    float *by_channel = keys + KEY_TILE * dim;
    p->c->k.transpose(by_channel, keys, n_key, dim);
    memset(dots, 0, (size_t)n_dot * sizeof *dots);
    struct blend b = {
        .out = dots,
        .p = q,
        .row = by_channel,
        .out_pitch = KEY_TILE,
        .p_pitch = (size_t)dim,
        .row_pitch = KEY_TILE,
        .n_out = p->ix->n_head,
        .n_row = dim,
        .dim = KEY_TILE,
    };
    p->c->k.blend(&b);
    for (int i = 0; i < n_dot; i++)
        dots[i] = dots[i] > 0 ? dots[i] : 0;
}

static void score_tile(const struct pick *p, int i, int b, int n_key, int worker, float *score)
{
    const struct kv_view *kv = p->r->kv[p->r->host[i].seq];
    size_t dim = (size_t)p->ix->dim, n_head = (size_t)p->ix->n_head;
    float *keys = p->keys + (size_t)worker * 2 * KEY_TILE * dim;
    float *dots = p->dots + (size_t)worker * (KEY_TILE + 1) * n_head;
    float *scaled = dots + KEY_TILE * n_head;
    for (int j = 0; j < n_key; j++)
        load_key(p, kv, b + j, keys + (size_t)j * dim);
    dot_heads(p, tensor_f32(p->q, i), keys, n_key, dots);
    for (size_t h = 0; h < n_head; h++)
        scaled[h] = tensor_f32(p->weight, i)[h] * p->ix->scale;
    memset(score, 0, (size_t)n_key * sizeof *score);
    struct blend sum = {
        .out = score,
        .p = scaled,
        .row = dots,
        .row_pitch = KEY_TILE,
        .n_out = 1,
        .n_row = p->ix->n_head,
        .dim = n_key,
    };
    p->c->k.blend(&sum);
}

static void score_task(void *ctx, int task, int worker)
{
    const struct pick *p = ctx;
    int row = task / p->n_chunk, i = p->first + row, n = n_visible(p, i);
    int first = task % p->n_chunk * CHUNK, last = MIN(n, first + CHUNK);
    if (n <= p->ix->top_k) /* everything is taken */
        return;
    float *score = p->score + (size_t)row * (size_t)p->most;
    for (int b = first; b < last; b += KEY_TILE)
        score_tile(p, i, b, MIN(KEY_TILE, last - b), worker, score + b);
}

/* Numbers that order as the scores do; NaN as minus infinity, both zeros the same. */
static uint32_t rank_of(float score)
{
    uint32_t u = f32_bits(isnan(score) ? -INFINITY : score + 0.f);
    return u >> 31 ? ~u : u | 0x80000000;
}

/* Rank of the k-th largest of n scores; *n_equal: how many of that rank belong to the k. */
static uint32_t kth_rank(const float *score, int n, int k, int *n_equal)
{
    static const int shift[] = { 21, 10, 0 }, bits[] = { 11, 11, 10 };
    uint32_t prefix = 0, mask = 0;
    for (int digit = 0; digit < 3; digit++) {
        int count[2048] = { 0 }, v = (1 << bits[digit]) - 1;
        for (int b = 0; b < n; b++) {
            uint32_t rank = rank_of(score[b]);
            if ((rank & mask) == prefix)
                count[rank >> shift[digit] & (uint32_t)v]++;
        }
        while (count[v] < k)
            k -= count[v--];
        prefix |= (uint32_t)v << shift[digit];
        mask |= ((1u << bits[digit]) - 1) << shift[digit];
    }
    *n_equal = k;
    return prefix;
}

static void select_task(void *ctx, int row, int worker)
{
    const struct pick *p = ctx;
    (void)worker;
    int i = p->first + row, n = n_visible(p, i), top_k = p->ix->top_k, to = 0;
    int32_t *picked = tensor_i32(p->picked, i);
    if (n <= top_k) {
        while (to < n) {
            picked[to] = to;
            to++;
        }
    } else {
        const float *score = p->score + (size_t)row * (size_t)p->most;
        int n_equal;
        uint32_t least = kth_rank(score, n, top_k, &n_equal);
        for (int b = 0; b < n; b++) {
            uint32_t rank = rank_of(score[b]);
            if (rank > least || (rank == least && n_equal-- > 0))
                picked[to++] = b;
        }
    }
    while (to < top_k)
        picked[to++] = -1;
}

void cpu_pick(struct dev *d, struct tensor *picked, const struct tensor *q,
              const struct tensor *weight, const struct indexer *ix, const struct rows *r, int l)
{
    const struct cpu *c = cpu_of(d);
    size_t n_thread = (size_t)pool_size(c->pool), mark = arena_mark(&d->scratch);
    struct pick p = {
        .c = c, .q = q, .weight = weight, .picked = picked, .ix = ix, .r = r, .l = l,
    };
    for (int i = 0; i < r->n; i++)
        p.most = MAX(p.most, n_visible(&p, i));
    if (p.most <= ix->top_k)
        p.most = 0;
    int group = p.most ? MAX(1, MIN(r->n, SCORES / p.most)) : r->n;
    p.n_chunk = (p.most + CHUNK - 1) / CHUNK;
    p.score = dev_alloc(d, (size_t)group * (size_t)p.most * sizeof(float));
    p.keys = dev_alloc(d, n_thread * 2 * KEY_TILE * (size_t)ix->dim * sizeof(float));
    p.dots = dev_alloc(d, n_thread * (KEY_TILE + 1) * (size_t)ix->n_head * sizeof(float));
    if (!dev_planning(d) && d->err.code == ERR_NONE)
        for (p.first = 0; p.first < r->n; p.first += group) {
            p.n_row = MIN(group, r->n - p.first);
            pool_run(c->pool, score_task, &p, p.n_row * p.n_chunk);
            pool_run(c->pool, select_task, &p, p.n_row);
        }
    arena_rewind(&d->scratch, mark);
}
