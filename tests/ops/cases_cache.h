/* cases_cache.h - ops that read or write conversations' caches. */
#ifndef CASES_CACHE_H
#define CASES_CACHE_H

#include "kv_row.h"
#include "ops/cases_plain.h"

#define N_SEQ 2
#define BLOCKS 6

/* Two conversations with one layer each; all memory is one state. */
struct cache {
    struct kv_shape shape;
    struct kv_layer layer[N_SEQ];
    struct kv_view view[N_SEQ], *views[N_SEQ];
    uint8_t *block[N_SEQ][BLOCKS], *index_block[N_SEQ][BLOCKS];
    uint8_t *mem;
    size_t bytes;
};

struct cache_in {
    struct cache cache;
    struct tensor x, s; /* kv, values and scores, queries */
    struct tensor weight, picked;
    struct compressor comp;
    struct indexer ix;
    struct fresh fresh;
    struct attention at;
    struct rope rope;
    struct rows r;
};

static uint8_t *cut(uint8_t **at, size_t n)
{
    uint8_t *p = *at;
    *at += round_up(n, 8);
    return p;
}

static void lay_out(struct cache *c, uint8_t *mem, int width, int index_width)
{
    const struct kv_shape *s = &c->shape;
    uint8_t *at = mem;
    for (int q = 0; q < N_SEQ; q++) {
        struct kv_layer *l = &c->layer[q];
        size_t per = (size_t)(l->ratio ? s->block_tok / l->ratio : 0);
        int cap = (l->ratio == 4 ? 2 : 1) * l->ratio - 1 + s->slack;
        l->ring = cut(&at, (size_t)s->ring_cap * s->row_bytes);
        l->main = (struct kv_front){ .cap = cap, .width = width };
        l->main.a = (float *)cut(&at, (size_t)(MAX(cap, 0) * width) * 4);
        l->main.s = (float *)cut(&at, (size_t)(MAX(cap, 0) * width) * 4);
        l->index = (struct kv_front){ .cap = cap, .width = index_width };
        l->index.a = (float *)cut(&at, (size_t)(MAX(cap, 0) * index_width) * 4);
        l->index.s = (float *)cut(&at, (size_t)(MAX(cap, 0) * index_width) * 4);
        l->block = c->block[q];
        l->index_block = c->index_block[q];
        for (int b = 0; b < BLOCKS; b++) {
            c->block[q][b] = cut(&at, per * s->row_bytes);
            c->index_block[q][b] = cut(&at, per * s->index_row_bytes);
        }
        c->view[q] = (struct kv_view){ s, 1, l };
        c->views[q] = &c->view[q];
    }
    c->bytes = (size_t)(at - mem);
    c->mem = mem;
}

static struct kv_shape shape_of(int head_dim, bool packed, int index_dim)
{
    int rope_dim = 16;
    return (struct kv_shape){
        .packed = packed,
        .head_dim = head_dim,
        .rope_dim = rope_dim,
        .index_dim = index_dim,
        .row_bytes = packed ? kv_row_bytes(head_dim, rope_dim) : (size_t)head_dim * 4,
        .index_row_bytes = packed ? kv_index_row_bytes(index_dim) : (size_t)index_dim * 4,
        .window = 20,
        .ring_cap = 20 + 70,
        .slack = 5,
        .block_tok = 256,
    };
}

static void build_shape(struct cache *c, const struct kv_shape *s, int ratio, int width,
                        int index_width)
{
    c->shape = *s;
    for (int q = 0; q < N_SEQ; q++)
        c->layer[q].ratio = ratio;
    lay_out(c, NULL, width, index_width);
    lay_out(c, take(c->bytes), width, index_width);
}

static void build_cache(struct cache *c, bool packed, int ratio, int width, int index_width)
{
    struct kv_shape s = shape_of(80, packed, 64);
    build_shape(c, &s, ratio, width, index_width);
}

static void pack_row(const struct kv_shape *s, bool index, const float *x, uint8_t *row)
{
    if (!s->packed)
        memcpy(row, x, index ? s->index_row_bytes : s->row_bytes);
    else if (index)
        kv_index_row_pack(x, s->index_dim, row);
    else
        kv_row_pack(x, s->head_dim, s->rope_dim, row);
}

/* Random rows everywhere; whole: small whole numbers in index rows, so that scores are exact. */
static void fill_cache(struct cache *c, bool whole)
{
    const struct kv_shape *s = &c->shape;
    float x[512];
    for (int q = 0; q < N_SEQ; q++) {
        struct kv_layer *l = &c->layer[q];
        for (int i = 0; i < s->ring_cap; i++) {
            for (int j = 0; j < s->head_dim; j++)
                x[j] = noise();
            pack_row(s, false, x, l->ring + (size_t)i * s->row_bytes);
        }
        for (int i = 0; l->ratio && i < BLOCKS * s->block_tok / l->ratio; i++) {
            for (int j = 0; j < s->head_dim; j++)
                x[j] = noise();
            pack_row(s, false, x, kv_block_row(s, l, i));
            for (int j = 0; j < s->index_dim; j++)
                x[j] = whole ? (float)(roll(3) - 1) : noise();
            pack_row(s, true, x, kv_index_row(s, l, i));
        }
        for (int i = 0; i < l->main.cap * l->main.width; i++) {
            l->main.a[i] = noise();
            l->main.s[i] = noise();
        }
        for (int i = 0; i < l->index.cap * l->index.width; i++) {
            l->index.a[i] = noise();
            l->index.s[i] = noise();
        }
    }
}

/* n rows, the first part of one conversation, the rest of the other. */
static void two_spans(struct cache_in *p, int n, int most)
{
    struct row *row = take((size_t)n * sizeof *row);
    int cut_at = roll(n + 1), pos[N_SEQ];
    for (int q = 0; q < N_SEQ; q++)
        pos[q] = roll(3) == 0 ? 0 : roll(most - n + 1);
    for (int i = 0; i < n; i++) {
        int seq = i >= cut_at;
        row[i] = (struct row){ .pos = pos[seq]++, .seq = seq };
    }
    p->r = (struct rows){ .n = n, .host = row, .n_seq = N_SEQ, .kv = p->cache.views };
}

/* The last n of one conversation. */
static void last_rows(struct cache_in *p, int n, int most)
{
    struct row *row = take((size_t)n * sizeof *row);
    for (int i = 0; i < n; i++)
        row[i] = (struct row){ .pos = most - n + i, .seq = N_SEQ - 1 };
    p->r = (struct rows){ .n = n, .host = row, .n_seq = N_SEQ, .kv = p->cache.views };
}

static struct op_case cache_case(struct cache_in *p, const char *name)
{
    struct op_case c = { .in = p, .n = p->r.n, .state = p->cache.mem,
                         .state_bytes = p->cache.bytes };
    snprintf(c.name, sizeof c.name, "%s, %s, ratio %d, %d rows from %d", name,
             p->cache.shape.packed ? "packed" : "float32", p->cache.layer[0].ratio, p->r.n,
             (int)p->r.host[0].pos);
    set_tol(&c, TOL_F32);
    return c;
}

/* ---- kv_store ------------------------------------------------------------------------------- */

static void call_kv_store(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct cache_in *p = in;
    struct tensor x = tensor_rows(&p->x, first, n);
    struct rows r = rows_from(&p->r, first, n);
    (void)out;
    op_kv_store(d, &x, &r, 0);
}

static int read_bytes(const struct op_case *c, float *x)
{
    for (size_t i = 0; x && i < c->state_bytes; i++)
        x[i] = c->state[i];
    return (int)c->state_bytes;
}

static void test_kv_store(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_row_count; n++)
        for (int fill = 0; fill < N_FILL; fill++)
            for (int packed = 0; packed < 2; packed++) {
                struct cache_in p = { 0 };
                build_cache(&p.cache, packed, 4, 8, 8);
                fill_cache(&p.cache, false);
                two_spans(&p, row_counts[n], 1000);
                p.x = random_tensor(p.cache.shape.head_dim, p.r.n, (enum fill)fill);
                struct op_case c = cache_case(&p, "kv_store");
                c.call = call_kv_store;
                c.read_state = read_bytes;
                set_tol(&c, TOL_BITS);
                check_case(&c);
            }
}

/* ---- compress ------------------------------------------------------------------------------- */

static void call_compress(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct cache_in *p = in;
    struct tensor a = tensor_rows(&p->x, first, n), s = tensor_rows(&p->s, first, n);
    struct rows r = rows_from(&p->r, first, n);
    (void)out;
    op_compress(d, &a, &s, &p->comp, &p->rope, &r, 0);
}

/* All compressed rows and frontiers as numbers. */
static int read_compressed(const struct cache *cache, bool index, float *x)
{
    const struct kv_shape *s = &cache->shape;
    int n_row = BLOCKS * s->block_tok / cache->layer[0].ratio, to = 0;
    int dim = index ? s->index_dim : s->head_dim;
    for (int q = 0; q < N_SEQ; q++) {
        const struct kv_layer *l = &cache->layer[q];
        const struct kv_front *f = index ? &l->index : &l->main;
        for (int i = 0; i < n_row; i++, to += dim) {
            if (!x)
                continue;
            const uint8_t *row = index ? kv_index_row(s, l, i) : kv_block_row(s, l, i);
            if (!s->packed)
                memcpy(x + to, row, (size_t)dim * 4);
            else if (index)
                kv_index_row_unpack(row, dim, x + to);
            else
                kv_row_unpack(row, dim, s->rope_dim, x + to);
        }
        for (int i = 0; i < f->cap * f->width; i++, to += 2)
            if (x) {
                x[to] = f->a[i];
                x[to + 1] = f->s[i];
            }
    }
    return to;
}

static int read_cache(const struct op_case *c, float *x)
{
    const struct cache_in *p = c->in;
    return read_compressed(&p->cache, p->comp.index, x);
}

static void compress_case(int n, enum fill fill, bool packed, bool index, int ratio)
{
    struct cache_in p = { 0 };
    int dim = index ? 64 : 80, width = ratio == 4 ? 2 * dim : dim;
    build_cache(&p.cache, packed, ratio, index ? 8 : width, index ? width : 8);
    fill_cache(&p.cache, false);
    two_spans(&p, n, BLOCKS * p.cache.shape.block_tok);
    p.comp = (struct compressor){ random_floats(ratio * width, 0), random_floats(dim, 1), ratio,
                                  dim, width, 1e-6f, index };
    p.rope = random_rope(8);
    p.x = random_tensor(width, n, fill);
    p.s = random_tensor(width, n, fill == FILL_INFINITE ? FILL_RANDOM : fill);
    struct op_case c = cache_case(&p, index ? "compress for the index" : "compress");
    c.call = call_compress;
    c.read_state = read_cache;
    set_tol(&c, packed ? TOL_PACKED : TOL_F32);
    check_case(&c);
}

static void test_compress(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_row_count; n++)
        for (int fill = 0; fill < N_FILL; fill++)
            for (int packed = 0; packed < 2; packed++) {
                compress_case(row_counts[n], (enum fill)fill, packed, false, 4);
                compress_case(row_counts[n], (enum fill)fill, packed, true, 4);
                compress_case(row_counts[n], (enum fill)fill, packed, false, 128);
            }
}

/* ---- index_query ---------------------------------------------------------------------------- */

static void call_index_query(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct cache_in *p = in;
    struct rows r = rows_from(&p->r, first, n);
    op_index_query(d, out, &p->ix, &p->rope, &r);
}

/* Rotation is the same code everywhere; what follows must have the same bits. */
static void same_as_plain(const struct op_case *c)
{
    struct result plain = run_case(c, TABLE_PLAIN, 1, 0, c->n);
    struct result avx2 = run_case(c, TABLE_AVX2, 1, 0, c->n);
    same_result(c, TABLE_AVX2, "another instruction set", &plain, &avx2);
    free_result(c, &plain);
    free_result(c, &avx2);
}

static void index_query_case(int n, enum fill fill, bool packed)
{
    int dim = 32 << roll(3);
    struct cache_in p = { .ix = { .n_head = 5, .dim = dim } };
    build_cache(&p.cache, packed, 4, 8, 8);
    two_spans(&p, n, 1500);
    p.rope = random_rope(16);
    p.x = random_tensor(5 * dim, n, fill);
    struct op_case c = cache_case(&p, "index_query");
    c.call = call_index_query;
    c.n_out = 1;
    c.shape[0] = (struct out_shape){ DT_F32, 5 * dim, 1 };
    c.start[0] = &p.x;
    set_tol(&c, packed ? TOL_PACKED : TOL_F32);
    if (table_exists(TABLE_AVX2))
        same_as_plain(&c);
    check_case(&c);
}

static void test_index_query(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_row_count; n++)
        for (int fill = 0; fill < N_FILL; fill++)
            for (int packed = 0; packed < 2; packed++)
                index_query_case(row_counts[n], (enum fill)fill, packed);
}

/* ---- prepare -------------------------------------------------------------------------------- */

static void call_prepare(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct cache_in *p = in;
    struct rows r = rows_from(&p->r, first, n);
    struct fresh f = p->fresh;
    f.q = out[0];
    f.index_q = out[1];
    f.kv = out[2];
    for (int i = 0; i < f.n_comp; i++) {
        f.comp[i].a = tensor_rows(&f.comp[i].a, first, n);
        f.comp[i].s = tensor_rows(&f.comp[i].s, first, n);
    }
    op_prepare(d, &f, &r, 0);
    for (int i = 0; i < n && !dev_planning(d); i++) /* used up */
        dev_copy(d, tensor_row(&out[2], i), tensor_row(&p->weight, first + i),
                 (size_t)out[2].cols * sizeof(float));
}

/* Rings, compressed rows and frontiers as numbers. */
static int read_all(const struct op_case *c, float *x)
{
    const struct cache *cache = &((const struct cache_in *)c->in)->cache;
    const struct kv_shape *s = &cache->shape;
    int n = 0;
    for (int q = 0; q < N_SEQ; q++)
        for (int i = 0; i < s->ring_cap; i++, n += s->head_dim) {
            const uint8_t *row = cache->layer[q].ring + (size_t)i * s->row_bytes;
            if (x && s->packed)
                kv_row_unpack(row, s->head_dim, s->rope_dim, x + n);
            else if (x)
                memcpy(x + n, row, (size_t)s->head_dim * 4);
        }
    for (int index = 0; index < 2 && cache->layer[0].ratio; index++)
        n += read_compressed(cache, index, x ? x + n : NULL);
    return n;
}

static void prepare_case(int n, enum fill fill, bool packed, int ratio)
{
    struct cache_in p = { .ix = { .n_head = 5, .dim = 64 } };
    int dim = 80, width[2] = { ratio == 4 ? 2 * dim : dim, 128 }, n_head = 1 + roll(30);
    struct compressor comp[2];
    build_cache(&p.cache, packed, ratio, width[0], width[1]);
    fill_cache(&p.cache, false);
    two_spans(&p, n, BLOCKS * p.cache.shape.block_tok);
    p.rope = random_rope(8);
    p.fresh = (struct fresh){ .n_head = n_head, .kv_norm = random_floats(dim, 1), .eps = 1e-6f,
                              .rope = &p.rope, .n_comp = ratio == 4 ? 2 : ratio ? 1 : 0,
                              .ix = ratio == 4 ? &p.ix : NULL };
    for (int i = 0; i < p.fresh.n_comp; i++) {
        comp[i] = (struct compressor){ random_floats(ratio * width[i], 0), random_floats(dim, 1),
                                       ratio, i ? 64 : dim, width[i], 1e-6f, i == 1 };
        p.fresh.comp[i] = (struct compressing){ &comp[i], random_tensor(width[i], n, fill),
                                                random_tensor(width[i], n, FILL_RANDOM) };
    }
    p.x = random_tensor(n_head * dim, n, fill);
    p.s = random_tensor(5 * 64, n, fill);
    p.weight = random_tensor(dim, n, fill);
    struct op_case c = cache_case(&p, "prepare");
    c.call = call_prepare;
    c.n_out = 3;
    c.shape[0] = (struct out_shape){ DT_F32, n_head * dim, 1 };
    c.shape[1] = (struct out_shape){ DT_F32, 5 * 64, 1 };
    c.shape[2] = (struct out_shape){ DT_F32, dim, 1 };
    c.start[0] = &p.x;
    c.start[1] = &p.s;
    c.start[2] = &p.weight;
    c.read_state = read_all;
    set_tol(&c, packed ? TOL_PACKED : TOL_F32);
    check_case(&c);
}

static void test_prepare(void **state)
{
    (void)state;
    static const int ratios[] = { 0, 4, 128 };
    for (size_t n = 0; n < n_row_count; n++)
        for (int fill = 0; fill < N_FILL; fill++)
            for (int k = 0; k < 6; k++)
                prepare_case(row_counts[n], (enum fill)fill, k % 2, ratios[k / 2]);
}

/* ---- pick ----------------------------------------------------------------------------------- */

static void call_pick(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct cache_in *p = in;
    struct tensor q = tensor_rows(&p->x, first, n), weight = tensor_rows(&p->weight, first, n);
    struct rows r = rows_from(&p->r, first, n);
    op_pick(d, out, &q, &weight, &p->ix, &r, 0);
}

/* Score of row b for query i; *size: the sum of the parts' sizes. */
static double index_score(const struct cache_in *p, int i, int b, double *size)
{
    const struct kv_shape *s = &p->cache.shape;
    const uint8_t *row = kv_index_row(s, &p->cache.layer[p->r.host[i].seq], b);
    float key[128];
    int dim = s->index_dim;
    double sum = 0;
    *size = 0;
    if (s->packed)
        kv_index_row_unpack(row, dim, key);
    else
        memcpy(key, row, (size_t)dim * sizeof *key);
    for (int h = 0; h < p->ix.n_head; h++) {
        double dot = 0, w = (double)(tensor_f32(&p->weight, i)[h] * p->ix.scale);
        for (int k = 0; k < dim; k++)
            dot += (double)tensor_f32(&p->x, i)[h * dim + k] * (double)key[k];
        sum += w * fmax(dot, 0);
        *size += fabs(w * dot);
    }
    return sum;
}

/* The right number, ascending, and nothing left out that is better than what was taken. */
static void check_picked(const struct op_case *c, enum table table, const struct tensor *out,
                         const struct tensor *want)
{
    const struct cache_in *p = c->in;
    (void)want;
    for (int i = 0; i < c->n; i++) {
        const int32_t *id = tensor_i32(out, i);
        int n = (p->r.host[i].pos + 1) / 4, k = MIN(n, p->ix.top_k);
        double worst = INFINITY, best = -INFINITY, slack = 0;
        for (int j = 0; j < p->ix.top_k; j++)
            if (j < k ? id[j] >= n || id[j] <= (j ? id[j - 1] : -1) : id[j] != -1)
                fail_msg("%s, %s: row %d, place %d: %d", c->name, table_name[table], i, j,
                         (int)id[j]);
        for (int b = 0, j = 0; b < n; b++) {
            double size, score = index_score(p, i, b, &size);
            slack = fmax(slack, size * TOL_TIE);
            if (j < k && id[j] == b) {
                worst = fmin(worst, score);
                j++;
            } else {
                best = fmax(best, score);
            }
        }
        if (best > worst + slack)
            fail_msg("%s, %s: row %d left out a score of %g and took %g", c->name,
                     table_name[table], i, best, worst);
    }
}

static void check_picks(struct cache_in *p, bool whole, bool infinite)
{
    int n = p->r.n;
    fill_cache(&p->cache, whole);
    p->ix.scale = whole ? .5f : .37f;
    p->x = random_tensor(p->ix.n_head * p->ix.dim, n, FILL_RANDOM);
    p->weight = random_tensor(p->ix.n_head, n, FILL_RANDOM);
    for (int i = 0; i < n && whole; i++) {
        for (int k = 0; k < p->x.cols; k++)
            tensor_f32(&p->x, i)[k] = (float)((roll(3) - 1) * (i % 2 ? 1 + roll(1000) : 1));
        for (int h = 0; h < p->ix.n_head; h++)
            tensor_f32(&p->weight, i)[h] = (float)(roll(5) - 2);
    }
    if (infinite) /* times zero: scores that are no numbers */
        tensor_f32(&p->weight, n / 2)[0] = INFINITY;
    struct op_case c = cache_case(p, whole ? "pick among ties" : "pick");
    c.call = call_pick;
    c.n_out = 1;
    c.shape[0] = (struct out_shape){ DT_I32, p->ix.top_k, 1 };
    if (!whole)
        c.check = check_picked;
    check_case(&c);
}

static void pick_case(int n, bool packed, bool whole, bool infinite)
{
    struct cache_in p = { .ix = { 3 + roll(40), 32 << roll(3), 1 + roll(200), 0 } };
    struct kv_shape s = shape_of(80, packed, p.ix.dim);
    build_shape(&p.cache, &s, 4, 8, 8);
    two_spans(&p, n, BLOCKS * s.block_tok);
    check_picks(&p, whole, infinite);
}

/* So many visible rows that a GPU's blocks share them; the last may have less than is picked. */
static void far_pick_case(int n, bool packed, bool whole)
{
    int back = roll(2) ? roll(9000) : 15000 + roll(1000);
    struct cache_in p = { .ix = { 3 + roll(5), 32 << roll(3), 500 + roll(1500), 0 } };
    struct kv_shape s = shape_of(32, packed, p.ix.dim);
    s.block_tok = 16384;
    build_shape(&p.cache, &s, 4, 8, 8);
    last_rows(&p, n, BLOCKS * s.block_tok - back);
    check_picks(&p, whole, false);
}

static void test_pick(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_row_count; n++)
        for (int k = 0; k < 8; k++)
            pick_case(row_counts[n], k % 2, k / 2 % 2, k == 7);
    for (int k = 0; k < 5; k++)
        far_pick_case(k == 4 ? FEW_ROWS + 1 : 1 + k % 2, k > 0, k % 3 == 0 || k == 4);
}

/* ---- attend --------------------------------------------------------------------------------- */

static void call_attend(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct cache_in *p = in;
    struct tensor q = tensor_rows(&p->x, first, n), picked = p->picked;
    struct rows r = rows_from(&p->r, first, n);
    if (p->at.picked)
        picked = tensor_rows(&p->picked, first, n);
    op_attend(d, out, &q, p->at.picked ? &picked : NULL, &p->at, &r, 0);
}

static struct tensor random_picks(const struct cache_in *p, int top_k)
{
    struct tensor t = int_tensor(top_k, p->r.n);
    for (int i = 0; i < p->r.n; i++) {
        int n = (p->r.host[i].pos + 1) / p->cache.layer[0].ratio, to = 0;
        for (int b = 0; b < n && to < top_k; b++) /* a random ascending choice of the right size */
            if (n - b <= top_k - to || roll(n) < top_k)
                tensor_i32(&t, i)[to++] = b;
        while (to < top_k)
            tensor_i32(&t, i)[to++] = -1;
    }
    return t;
}

static void set_largest(struct tensor *x, float most)
{
    for (int i = 0; i < x->rows; i++)
        for (int k = 0; k < x->cols; k++)
            tensor_f32(x, i)[k] = fminf(most, fmaxf(-most, tensor_f32(x, i)[k]));
}

static void attend_case(int n, enum fill fill, bool packed, int ratio, int head_dim)
{
    struct cache_in p = { 0 };
    int n_head = 1 + roll(head_dim > 80 ? 20 : 80);
    struct kv_shape s = shape_of(head_dim, packed, 64);
    build_shape(&p.cache, &s, ratio, 8, 8);
    fill_cache(&p.cache, false);
    two_spans(&p, n, ratio ? BLOCKS * p.cache.shape.block_tok : 5000);
    p.rope = random_rope(8);
    p.at = (struct attention){ n_head, .2f, random_floats(n_head, 0), ratio == 4 && roll(3),
                               roll(2) ? &p.rope : NULL };
    if (p.at.picked)
        p.picked = random_picks(&p, 37);
    p.x = random_tensor(n_head * p.cache.shape.head_dim, n, fill);
    if (fill == FILL_EXTREME) /* scores in the thousands have no exponentials in float32 */
        set_largest(&p.x, 30);
    struct op_case c = cache_case(&p, "attend");
    c.call = call_attend;
    c.few_differ = true;
    c.n_out = 1;
    c.shape[0] = (struct out_shape){ DT_F32, p.x.cols, 1 };
    check_case(&c);
}

static void test_attend(void **state)
{
    (void)state;
    static const int ratios[] = { 0, 4, 128 };
    for (size_t n = 0; n < n_row_count; n++)
        for (int fill = 0; fill < N_FILL; fill++)
            for (int k = 0; k < 6; k++)
                attend_case(row_counts[n], (enum fill)fill, k % 2, ratios[k / 2], 80);
    for (int k = 0; k < 6; k++)
        attend_case(k % 2 ? 2 : 16, FILL_RANDOM, true, ratios[k / 2], 512);
}

#endif
