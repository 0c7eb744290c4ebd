/* cpu_kv.c - what a step leaves in the cache: window rows, compressed rows, frontiers; and the
 * index queries, which are treated like index rows.
 *
 * A block's row needs all inputs of the block and, when overlapping, of the block before; threads
 * take the rows at which a block becomes complete. The frontiers are written after all of them. */
#include "cpu_ops_impl.h"

#include "kv_row.h"

#include <math.h>

#define MAX_PAIR 256

struct store {
    const struct cpu *c;
    const struct tensor *kv;
    const struct rows *r;
    int l;
};

static void store_task(void *ctx, int i, int worker)
{
    const struct store *p = ctx;
    (void)worker;
    const struct kv_view *view = p->r->kv[p->r->host[i].seq];
    const struct kv_shape *s = view->shape;
    uint8_t *slot = kv_ring_row(s, &view->layer[p->l], p->r->host[i].pos);
    if (s->packed)
        kv_row_pack(tensor_f32(p->kv, i), s->head_dim, s->rope_dim, slot);
    else
        memcpy(slot, tensor_f32(p->kv, i), (size_t)s->head_dim * sizeof(float));
}

void cpu_kv_store(struct dev *d, const struct tensor *kv, const struct rows *r, int l)
{
    struct store p = { .c = cpu_of(d), .kv = kv, .r = r, .l = l };
    if (!dev_planning(d))
        pool_run(p.c->pool, store_task, &p, r->n);
}

/* ---- compress ------------------------------------------------------------------------------ */

struct compress {
    const struct cpu *c;
    const struct tensor *a, *s;
    const struct compressor *comp;
    const struct rope *rope;
    const struct rows *r;
    int l;
    int *start;  /* [n]: first row of the conversation that row i belongs to */
    int *end;    /* [n]: one past its last */
    float *work; /* per worker: 4 * dim */
};

static struct kv_front *front_of(const struct compress *p, int i)
{
    struct kv_layer *layer = &p->r->kv[p->r->host[i].seq]->layer[p->l];
    return p->comp->index ? &layer->index : &layer->main;
}

/* Values and scores of the token `back` places before row i's, dim channels from k on; scores of
 * this step lack their position bias and are completed in buf. */
static const float *token_input(const struct compress *p, int i, int back, int k, float *buf,
                                const float **value)
{
    const struct compressor *c = p->comp;
    int t = p->r->host[i].pos - back;
    if (i - back < p->start[i]) {
        const struct kv_front *f = front_of(p, i);
        size_t at = (size_t)(t % f->cap) * (size_t)c->width + (size_t)k;
        *value = f->a + at;
        return f->s + at;
    }
    const float *s = tensor_f32(p->s, i - back) + k;
    const float *ape = c->ape + (size_t)(t % c->ratio) * (size_t)c->width + k;
    for (int j = 0; j < c->dim; j++)
        buf[j] = s[j] + ape[j];
    *value = tensor_f32(p->a, i - back) + k;
    return buf;
}

/* z := the pooled row of the block that row i completes. */
static void pool_block(const struct compress *p, int i, float *z, float *max, float *sum,
                       float *buf)
{
    const struct compressor *c = p->comp;
    bool overlap = c->width == 2 * c->dim;
    int n = MIN(c->ratio * (overlap ? 2 : 1), p->r->host[i].pos + 1);
    const float *value;
    for (int j = 0; j < c->dim; j++) {
        max[j] = -INFINITY;
        sum[j] = z[j] = 0;
    }
    for (int back = n - 1; back >= 0; back--) {
        const float *s = token_input(p, i, back, overlap && back < c->ratio ? c->dim : 0, buf,
                                     &value);
        for (int j = 0; j < c->dim; j++)
            max[j] = s[j] > max[j] ? s[j] : max[j];
    }
    for (int back = n - 1; back >= 0; back--) {
        const float *s = token_input(p, i, back, overlap && back < c->ratio ? c->dim : 0, buf,
                                     &value);
        for (int j = 0; j < c->dim; j++) {
            float w = expf(s[j] - max[j]);
            sum[j] += w;
            z[j] += w * value[j];
        }
    }
    for (int j = 0; j < c->dim; j++)
        z[j] /= sum[j];
}

static void append_row(const struct compress *p, int i, float *z)
{
    const struct row *row = &p->r->host[i];
    const struct kv_view *view = p->r->kv[row->seq];
    const struct kv_shape *s = view->shape;
    const struct kv_layer *layer = &view->layer[p->l];
    int b = row->pos / p->comp->ratio, dim = p->comp->dim;
    uint8_t *to = p->comp->index ? kv_index_row(s, layer, b) : kv_block_row(s, layer, b);
    if (!s->packed) {
        memcpy(to, z, (size_t)dim * sizeof *z);
    } else if (p->comp->index) {
        p->c->k.hadamard(z, dim);
        kv_index_row_pack(z, dim, to);
    } else {
        kv_row_pack(z, s->head_dim, s->rope_dim, to);
    }
}

static void block_task(void *ctx, int i, int worker)
{
    const struct compress *p = ctx;
    const struct compressor *c = p->comp;
    int pos = p->r->host[i].pos, dim = c->dim;
    float *z = p->work + (size_t)worker * 4 * (size_t)dim, cs[2 * MAX_PAIR];
    if ((pos + 1) % c->ratio != 0)
        return;
    pool_block(p, i, z, z + dim, z + 2 * dim, z + 3 * dim);
    cpu_norm_row(&p->c->k, z, z, c->norm, dim, c->eps);
    cpu_rope_table(cs, p->rope, pos + 1 - c->ratio);
    cpu_rotate(z, dim, cs, p->rope->n_pair, 1);
    append_row(p, i, z);
}

static void keep_task(void *ctx, int i, int worker)
{
    const struct compress *p = ctx;
    const struct kv_front *f = front_of(p, i);
    (void)worker;
    if (p->end[i] - i > f->cap)
        return;
    int t = p->r->host[i].pos, width = p->comp->width;
    size_t at = (size_t)(t % f->cap) * (size_t)width;
    const float *s = tensor_f32(p->s, i);
    const float *ape = p->comp->ape + (size_t)(t % p->comp->ratio) * (size_t)width;
    memcpy(f->a + at, tensor_f32(p->a, i), (size_t)width * sizeof(float));
    for (int k = 0; k < width; k++)
        f->s[at + (size_t)k] = s[k] + ape[k];
}

static void find_spans(struct compress *p)
{
    const struct row *row = p->r->host;
    int n = p->r->n;
    for (int i = 0; i < n; i++)
        p->start[i] = i && row[i].seq == row[i - 1].seq ? p->start[i - 1] : i;
    for (int i = n - 1; i >= 0; i--)
        p->end[i] = i + 1 < n && row[i].seq == row[i + 1].seq ? p->end[i + 1] : i + 1;
}

void cpu_compress(struct dev *d, const struct tensor *a, const struct tensor *s,
                  const struct compressor *comp, const struct rope *rope, const struct rows *r,
                  int l)
{
    const struct cpu *c = cpu_of(d);
    size_t n = (size_t)r->n, mark = arena_mark(&d->scratch);
    struct compress p = { .c = c, .a = a, .s = s, .comp = comp, .rope = rope, .r = r, .l = l };
    CHECK(rope->n_pair <= MAX_PAIR);
    p.start = dev_alloc(d, n * sizeof *p.start);
    p.end = dev_alloc(d, n * sizeof *p.end);
    p.work = dev_alloc(d, (size_t)pool_size(c->pool) * 4 * (size_t)comp->dim * sizeof *p.work);
    if (!dev_planning(d) && d->err.code == ERR_NONE) {
        find_spans(&p);
        pool_run(c->pool, block_task, &p, r->n);
        pool_run(c->pool, keep_task, &p, r->n);
    }
    arena_rewind(&d->scratch, mark);
}

/* ---- index queries ------------------------------------------------------------------------- */

struct query {
    const struct cpu_kernels *k;
    struct tensor *q;
    const struct indexer *ix;
    const struct rope *rope;
    const struct rows *r;
};

static void query_task(void *ctx, int i, int worker)
{
    const struct query *p = ctx;
    (void)worker;
    float cs[2 * MAX_PAIR];
    int dim = p->ix->dim;
    cpu_rope_table(cs, p->rope, p->r->host[i].pos);
    for (int h = 0; h < p->ix->n_head; h++) {
        float *x = tensor_f32(p->q, i) + (size_t)h * (size_t)dim;
        cpu_rotate(x, dim, cs, p->rope->n_pair, 1);
        if (p->r->kv[p->r->host[i].seq]->shape->packed) {
            p->k->hadamard(x, dim);
            p->k->fp4_simulate(x, dim);
        }
    }
}

void cpu_index_query(struct dev *d, struct tensor *q, const struct indexer *ix,
                     const struct rope *rope, const struct rows *r)
{
    struct query p = { .k = &cpu_of(d)->k, .q = q, .ix = ix, .rope = rope, .r = r };
    if (!dev_planning(d))
        pool_run(cpu_of(d)->pool, query_task, &p, r->n);
}
