/* cpu_attend.c - attention over the cache: threads take a query row and some of its heads.
 *
 * Keys are values, so a tile of cached rows is unpacked once and serves the scores and the sums
 * of all heads of the task. The softmax runs along: sums are rescaled when a tile brings a larger
 * score. Tiles begin at fixed places, window rows from the oldest, then compressed rows in
 * ascending order, so every head's arithmetic is the same however the work is divided.
 * For the scores a tile is transposed, so that both products add up along whole vectors: channel
 * after channel for all keys, then key after key for all channels.
 * Rejected: scores of all keys first; they would have to be unpacked twice. */
#include "cpu_ops_impl.h"

#include <math.h>

#define CHANNELS 128 /* of a transposed tile, to fit the first cache while all heads pass */

struct attend {
    const struct cpu *c;
    const struct tensor *q, *picked;
    struct tensor *out;
    const struct attention *at;
    const struct rows *r;
    int l, n_group, group;  /* heads of a row are cut into n_group groups */
    float *keys, *score;    /* per worker [2][KEY_TILE][head_dim], [TILE_X][KEY_TILE] */
};

/* The cached rows that one query sees. */
struct view {
    const struct kv_shape *shape;
    const struct kv_layer *layer;
    int pos, n_window, n_block;
    const int32_t *picked; /* NULL: blocks 0 .. n_block - 1 */
};

static struct view view_of(const struct attend *a, int i)
{
    const struct row *row = &a->r->host[i];
    const struct kv_view *kv = a->r->kv[row->seq];
    struct view v = { .shape = kv->shape, .layer = &kv->layer[a->l], .pos = row->pos };
    v.n_window = MIN(row->pos + 1, kv->shape->window);
    v.n_block = v.layer->ratio ? (row->pos + 1) / v.layer->ratio : 0;
    if (a->picked) {
        v.picked = tensor_i32(a->picked, i);
        v.n_block = MIN(v.n_block, a->picked->cols);
    }
    return v;
}

static const uint8_t *view_row(const struct view *v, int j)
{
    if (j < v->n_window)
        return kv_ring_row(v->shape, v->layer, v->pos - v->n_window + 1 + j);
    int b = j - v->n_window;
    return kv_block_row(v->shape, v->layer, v->picked ? v->picked[b] : b);
}

static void load_keys(const struct attend *a, const struct view *v, int first, int n, float *keys)
{
    const struct kv_shape *s = v->shape;
    for (int j = 0; j < n; j++) {
        float *key = keys + (size_t)j * (size_t)s->head_dim;
        if (s->packed)
            a->c->k.kv_unpack(view_row(v, first + j), s->head_dim, s->rope_dim, key);
        else
            memcpy(key, view_row(v, first + j), (size_t)s->head_dim * sizeof *key);
    }
}

/* Heads h0 .. h0+n-1 of one row, their sums in progress. */
struct heads {
    int n, dim;
    const float *q;
    float *out, *score;
    float max[TILE_X], den[TILE_X];
};

static void score_keys(const struct cpu_kernels *k, const struct heads *hs, const float *keys,
                       float *by_channel, int n_key)
{
    k->transpose(by_channel, keys, n_key, hs->dim);
    memset(hs->score, 0, (size_t)hs->n * KEY_TILE * sizeof *hs->score);
    for (int c = 0; c < hs->dim; c += CHANNELS) {
        struct blend b = {
            .out = hs->score,
            .p = hs->q + c,
            .row = by_channel + c * KEY_TILE,
            .out_pitch = KEY_TILE,
            .p_pitch = (size_t)hs->dim,
            .row_pitch = KEY_TILE,
            .n_out = hs->n,
            .n_row = MIN(CHANNELS, hs->dim - c),
            .dim = KEY_TILE,
        };
        k->blend(&b);
    }
}

/* Scores of head h to weights relative to the largest score so far. */
static void weigh_keys(const struct cpu_kernels *k, struct heads *hs, int h, int n_key, float scale)
{
    float *score = hs->score + (size_t)h * KEY_TILE, max = hs->max[h];
    k->scale_row(score, score, NULL, scale, n_key);
    for (int j = 0; j < n_key; j++)
        max = score[j] > max ? score[j] : max;
    if (max > hs->max[h]) {
        float shrink = hs->max[h];
        k->exp_sum(&shrink, 1, max);
        float *out = hs->out + (size_t)h * (size_t)hs->dim;
        k->scale_row(out, out, NULL, shrink, hs->dim);
        hs->den[h] *= shrink;
        hs->max[h] = max;
    }
    hs->den[h] += k->exp_sum(score, n_key, max);
}

/* The memory behind the tile of keys holds it transposed. */
static void add_keys(const struct cpu_kernels *k, struct heads *hs, float *keys, int n_key,
                     float scale)
{
    score_keys(k, hs, keys, keys + KEY_TILE * hs->dim, n_key);
    for (int h = 0; h < hs->n; h++)
        weigh_keys(k, hs, h, n_key, scale);
    struct blend b = {
        .out = hs->out,
        .p = hs->score,
        .row = keys,
        .out_pitch = (size_t)hs->dim,
        .p_pitch = KEY_TILE,
        .row_pitch = (size_t)hs->dim,
        .n_out = hs->n,
        .n_row = n_key,
        .dim = hs->dim,
    };
    k->blend(&b);
}

static void attend_task(void *ctx, int task, int worker)
{
    const struct attend *a = ctx;
    const struct cpu_kernels *k = &a->c->k;
    int i = task / a->n_group, h0 = task % a->n_group * a->group;
    struct view v = view_of(a, i);
    struct heads hs = { .n = MIN(a->group, a->at->n_head - h0), .dim = v.shape->head_dim };
    float *keys = a->keys + (size_t)worker * 2 * KEY_TILE * (size_t)hs.dim;
    hs.score = a->score + (size_t)worker * TILE_X * KEY_TILE;
    hs.q = tensor_f32(a->q, i) + (size_t)h0 * (size_t)hs.dim;
    hs.out = tensor_f32(a->out, i) + (size_t)h0 * (size_t)hs.dim;
    for (int h = 0; h < hs.n; h++) {
        hs.max[h] = a->at->sink[h0 + h];
        hs.den[h] = 1;
    }
    memset(hs.out, 0, (size_t)hs.n * (size_t)hs.dim * sizeof *hs.out);
    for (int j = 0; j < v.n_window + v.n_block; j += KEY_TILE) {
        int n = MIN(KEY_TILE, v.n_window + v.n_block - j);
        load_keys(a, &v, j, n, keys);
        add_keys(k, &hs, keys, n, a->at->scale);
    }
    for (int h = 0; h < hs.n; h++) {
        float *out = hs.out + (size_t)h * (size_t)hs.dim;
        k->scale_row(out, out, NULL, 1 / hs.den[h], hs.dim);
    }
}

/* Few rows: smaller groups, so that every thread has some; keys are then unpacked more often. */
static int heads_per_task(int n_head, int n_row, int n_thread)
{
    int wanted = (4 * n_thread + n_row - 1) / n_row;
    return MIN(MIN(TILE_X, n_head), MAX(4, (n_head + wanted - 1) / wanted));
}

void cpu_attend(struct dev *d, struct tensor *out, const struct tensor *q,
                const struct tensor *picked, const struct attention *at, const struct rows *r,
                int l)
{
    const struct cpu *c = cpu_of(d);
    size_t n_thread = (size_t)pool_size(c->pool), mark = arena_mark(&d->scratch);
    struct attend a = { .c = c, .q = q, .picked = picked, .out = out, .at = at, .r = r, .l = l };
    a.group = heads_per_task(at->n_head, r->n, (int)n_thread);
    a.n_group = (at->n_head + a.group - 1) / a.group;
    a.keys = dev_alloc(d, n_thread * 2 * KEY_TILE * (size_t)(q->cols / at->n_head) * sizeof(float));
    a.score = dev_alloc(d, n_thread * TILE_X * KEY_TILE * sizeof(float));
    if (!dev_planning(d) && d->err.code == ERR_NONE)
        pool_run(c->pool, attend_task, &a, r->n * a.n_group);
    arena_rewind(&d->scratch, mark);
}
