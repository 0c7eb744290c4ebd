/* ref_compress.c - rows that stand for blocks of tokens, and choosing among them.
 *
 * A compressor pools the `ratio` tokens of a block channel by channel, weighted by a softmax over
 * their gate scores. When overlapping, a row also pools the block before: the first half of the
 * channels looks back, the second half looks at its own block. What later blocks need of a step's
 * inputs stays in the frontier, so that a prompt may be cut into steps anywhere. */
#include "ref.h"

#include "kv_row.h"

#include <math.h>

void ref_index_load(const struct kv_shape *s, const uint8_t *row, float *x)
{
    if (s->packed)
        kv_index_row_unpack(row, s->index_dim, x);
    else
        memcpy(x, row, (size_t)s->index_dim * sizeof *x);
}

/* One conversation's part of a step: rows i0 .. i0+n-1 of the tensors, positions from pos0. */
struct span {
    const struct compressor *c;
    const struct tensor *a, *s;
    int i0, n, pos0;
    const struct kv_shape *shape;
    struct kv_layer *layer;
    struct kv_front *front;
};

static void span_begin(struct span *sp, const struct rows *r, int i0, int l)
{
    struct kv_view *view = r->kv[r->host[i0].seq];
    sp->i0 = i0;
    sp->n = 1;
    sp->pos0 = r->host[i0].pos;
    sp->shape = view->shape;
    sp->layer = &view->layer[l];
    sp->front = sp->c->index ? &sp->layer->index : &sp->layer->main;
    while (i0 + sp->n < r->n && r->host[i0 + sp->n].seq == r->host[i0].seq)
        sp->n++;
    CHECK(sp->front->width == sp->c->width);
}

/* Channel k of a token's value and of its gate score, position bias added. */
struct input {
    float a, s;
};

static struct input input_at(const struct span *sp, int t, int k)
{
    int width = sp->c->width;
    if (t < sp->pos0) {
        size_t at = (size_t)(t % sp->front->cap) * width + k;
        return (struct input){ sp->front->a[at], sp->front->s[at] };
    }
    int i = sp->i0 + t - sp->pos0;
    float bias = sp->c->ape[(size_t)(t % sp->c->ratio) * width + k];
    return (struct input){ tensor_f32(sp->a, i)[k], tensor_f32(sp->s, i)[k] + bias };
}

/* Channel k of the row whose block ends at `last`: the mean of the values weighted by a softmax of
 * the scores. Overlapping, the block itself speaks through the second half of the channels. */
static float pool_channel(const struct span *sp, int last, int k)
{
    int dim = sp->c->dim, ratio = sp->c->ratio;
    bool overlap = sp->c->width == 2 * dim;
    int own = overlap ? last + 1 - ratio : 0, first = MAX(last + 1 - (overlap ? 2 : 1) * ratio, 0);
    double max = -INFINITY, sum = 0, value = 0;
    for (int t = first; t <= last; t++)
        max = fmax(max, input_at(sp, t, overlap && t >= own ? dim + k : k).s);
    for (int t = first; t <= last; t++) {
        struct input in = input_at(sp, t, overlap && t >= own ? dim + k : k);
        double w = exp(in.s - max);
        sum += w;
        value += w * in.a;
    }
    return (float)(value / sum);
}

static void append_row(const struct span *sp, int b, float *z)
{
    const struct kv_shape *s = sp->shape;
    bool index = sp->c->index;
    uint8_t *row = index ? kv_index_row(s, sp->layer, b) : kv_block_row(s, sp->layer, b);
    if (!s->packed) {
        memcpy(row, z, (size_t)sp->c->dim * sizeof *z);
    } else if (index) {
        hadamard(z, sp->c->dim);
        kv_index_row_pack(z, sp->c->dim, row);
    } else {
        kv_row_pack(z, s->head_dim, s->rope_dim, row);
    }
}

static void keep_frontier(const struct span *sp)
{
    struct kv_front *f = sp->front;
    for (int t = sp->pos0 + MAX(0, sp->n - f->cap); t < sp->pos0 + sp->n; t++)
        for (int k = 0; k < f->width; k++) {
            struct input in = input_at(sp, t, k);
            f->a[(size_t)(t % f->cap) * f->width + k] = in.a;
            f->s[(size_t)(t % f->cap) * f->width + k] = in.s;
        }
}

static void compress_span(const struct span *sp, const struct rope *rope, float *z)
{
    const struct compressor *c = sp->c;
    for (int t = sp->pos0; t < sp->pos0 + sp->n; t++) {
        if ((t + 1) % c->ratio != 0)
            continue;
        for (int k = 0; k < c->dim; k++)
            z[k] = pool_channel(sp, t, k);
        ref_norm_row(z, z, c->norm, c->dim, c->eps);
        ref_rotate(z, c->dim, rope, t + 1 - c->ratio, false);
        append_row(sp, t / c->ratio, z);
    }
    keep_frontier(sp); /* last: it overwrites what pooling reads */
}

void ref_compress(struct dev *d, const struct tensor *a, const struct tensor *s,
                  const struct compressor *c, const struct rope *rope, const struct rows *r, int l)
{
    size_t mark = arena_mark(&d->scratch);
    float *z = dev_alloc(d, (size_t)c->dim * sizeof *z);
    struct span sp = { .c = c, .a = a, .s = s };
    for (int i = 0; i < r->n && z; i += sp.n) {
        span_begin(&sp, r, i, l);
        compress_span(&sp, rope, z);
    }
    arena_rewind(&d->scratch, mark);
}

void ref_index_query(struct dev *d, struct tensor *q, const struct indexer *ix,
                     const struct rope *rope, const struct rows *r)
{
    if (dev_planning(d))
        return;
    for (int i = 0; i < r->n; i++)
        for (int h = 0; h < ix->n_head; h++) {
            float *v = tensor_f32(q, i) + (size_t)h * ix->dim;
            ref_rotate(v, ix->dim, rope, r->host[i].pos, false);
            if (r->kv[r->host[i].seq]->shape->packed) {
                hadamard(v, ix->dim);
                fp4_simulate(v, ix->dim);
            }
        }
}

/* Let x rise from the end of a heap whose least is first. */
static void heap_add(float *heap, int len, float x)
{
    int i = len;
    for (; i > 0 && heap[(i - 1) / 2] > x; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = x;
}

/* Put x in place of the least. */
static void heap_replace(float *heap, int len, float x)
{
    int i = 0;
    for (int child = 1; child < len; child = 2 * i + 1) {
        if (child + 1 < len && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= x)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = x;
}

/* The k-th largest of n scores (1 <= k <= n), by a heap of the k largest so far. */
static float kth_largest(const float *score, int n, float *heap, int k)
{
    for (int b = 0; b < k; b++)
        heap_add(heap, b, score[b]);
    for (int b = k; b < n; b++)
        if (score[b] > heap[0])
            heap_replace(heap, k, score[b]);
    return heap[0];
}

/* The top_k best of n scores in ascending order, then -1; of equal scores the lower index. */
static void select_top(int32_t *picked, const float *score, int n, float *heap, int top_k)
{
    int k = MIN(n, top_k), to = 0, n_equal = k;
    float least = k ? kth_largest(score, n, heap, k) : 0;
    for (int b = 0; b < n; b++)
        n_equal -= score[b] > least;
    for (int b = 0; b < n && to < k; b++)
        if (score[b] > least || (score[b] == least && n_equal-- > 0))
            picked[to++] = b;
    while (to < top_k)
        picked[to++] = -1;
}

/* One query with its head weights, and the rows it chooses from. */
struct asker {
    const float *q, *weight;
    const struct indexer *ix;
    const struct kv_shape *shape;
    const struct kv_layer *layer;
};

static float score_row(const struct asker *a, int b, float *row)
{
    const struct indexer *ix = a->ix;
    double sum = 0;
    ref_index_load(a->shape, kv_index_row(a->shape, a->layer, b), row);
    for (int h = 0; h < ix->n_head; h++) {
        double dot = 0;
        for (int k = 0; k < ix->dim; k++)
            dot += (double)a->q[(size_t)h * ix->dim + k] * row[k];
        sum += (double)(a->weight[h] * ix->scale) * fmax(dot, 0);
    }
    return isnan(sum) ? -INFINITY : (float)sum; /* a row must be taken, whatever the scores */
}

void ref_pick(struct dev *d, struct tensor *picked, const struct tensor *q,
              const struct tensor *weight, const struct indexer *ix, const struct rows *r, int l)
{
    for (int i = 0; i < r->n; i++) {
        size_t mark = arena_mark(&d->scratch);
        const struct kv_view *view = r->kv[r->host[i].seq];
        const struct asker a = { tensor_f32(q, i), tensor_f32(weight, i), ix, view->shape,
                                 &view->layer[l] };
        int n = (r->host[i].pos + 1) / a.layer->ratio;
        float *score = dev_alloc(d, (size_t)n * sizeof *score);
        float *heap = dev_alloc(d, (size_t)ix->top_k * sizeof *heap);
        float *row = dev_alloc(d, (size_t)ix->dim * sizeof *row);
        if (score && heap && row) {
            /* When everything is taken the scores do not matter. */
            for (int b = 0; b < n; b++)
                score[b] = n > ix->top_k ? score_row(&a, b, row) : 0;
            select_top(tensor_i32(picked, i), score, n, heap, ix->top_k);
        }
        arena_rewind(&d->scratch, mark);
    }
}
