/* kv_seq.c - rings, frontiers, blocks and marks of one conversation.
 *
 * Rings and frontiers keep a few rows more than the next token needs (kv_shape.slack), so that a
 * short way back only moves a counter: `floor` is how far. Further back a mark is restored and the
 * tokens after it are computed again. A step of more rows than the slack overwrites what standing
 * before it needs, so that is copied first; a failed step then never costs the past.
 * Rejected: a mark per block (a copy is as large as thousands of tokens' rows), and none at all
 * (every regenerated answer would cost the whole prompt). */
#include "kv_seq.h"

#include "arena.h"

enum copy { COPY_COUNT, COPY_SAVE, COPY_RESTORE };

static bool overlaps(int ratio)
{
    return ratio == KV_OVERLAP_RATIO;
}

/* ---- memory ------------------------------------------------------------------------------ */

static struct kv_front front_plan(const struct kv_shape *s, int ratio, int dim)
{
    return (struct kv_front){
        .cap = ratio * (overlaps(ratio) ? 2 : 1) + s->slack,
        .width = dim * (overlaps(ratio) ? 2 : 1),
    };
}

void kv_layer_plan(struct kv_layer *l, const struct kv_shape *s, int ratio)
{
    *l = (struct kv_layer){ .ratio = ratio };
    if (ratio)
        l->main = front_plan(s, ratio, s->head_dim);
    if (overlaps(ratio))
        l->index = front_plan(s, ratio, s->index_dim);
}

static void front_place(struct kv_front *f, struct arena *a)
{
    size_t bytes = (size_t)f->cap * (size_t)f->width * sizeof(float);
    f->a = arena_alloc(a, bytes);
    f->s = arena_alloc(a, bytes);
}

static size_t front_bytes(const struct kv_front *f)
{
    return (size_t)f->cap * (size_t)f->width * sizeof(float) * 2;
}

/* Of one slot: as many rows as standing anywhere within the slack can need. */
static size_t max_copy_bytes(const struct kv_pool *p)
{
    size_t n = 0;
    for (int l = 0; l < p->n_layer; l++) {
        struct kv_layer layer;
        kv_layer_plan(&layer, &p->shape, p->ratio[l]);
        n += (size_t)(p->shape.window - 1 + p->shape.slack) * p->shape.row_bytes;
        n += front_bytes(&layer.main) + front_bytes(&layer.index);
    }
    return n;
}

/* Where things are placed. */
struct places {
    struct arena host, data;
};

static void layer_place(struct kv_seq *s, int l, struct places *a, struct kv_layer *out)
{
    const struct kv_shape *shape = &s->pool->shape;
    size_t pointers = (size_t)s->max_block * sizeof(uint8_t *);
    kv_layer_plan(out, shape, s->pool->ratio[l]);
    out->ring = arena_alloc(&a->data, (size_t)shape->ring_cap * shape->row_bytes);
    if (out->ratio) {
        front_place(&out->main, &a->data);
        out->block = arena_alloc(&a->host, pointers);
    }
    if (overlaps(out->ratio)) {
        front_place(&out->index, &a->data);
        out->index_block = arena_alloc(&a->host, pointers);
    }
}

/* Places everything; with arenas that only count, computes the sizes. */
static void place(struct kv_seq *s, struct places *a)
{
    int n_layer = s->pool->n_layer;
    size_t copy = max_copy_bytes(s->pool);
    s->token = arena_alloc(&a->host, (size_t)s->max_tok * sizeof *s->token);
    s->block = arena_alloc(&a->host, (size_t)s->max_block * sizeof *s->block);
    s->view.layer = arena_alloc(&a->host, (size_t)n_layer * sizeof *s->view.layer);
    s->mark = arena_alloc(&a->host, (size_t)s->max_mark * sizeof *s->mark);
    s->undo.copy = arena_alloc(&a->data, copy);
    for (int l = 0; l < n_layer; l++) {
        struct kv_layer layer;
        layer_place(s, l, a, &layer);
        if (s->view.layer)
            s->view.layer[l] = layer;
    }
    for (int i = 0; i < s->max_mark; i++) {
        uint8_t *slot = arena_alloc(&a->data, copy);
        if (s->mark)
            s->mark[i].copy = slot;
    }
}

static struct kv_seq sized(struct kv_pool *p, int max_tok, int max_mark)
{
    int block_tok = p->shape.block_tok;
    return (struct kv_seq){
        .pool = p,
        .view = { .shape = &p->shape, .n_layer = p->n_layer },
        .max_tok = max_tok,
        .max_mark = max_mark,
        .max_block = max_tok / block_tok + (max_tok % block_tok != 0),
    };
}

struct kv_bytes kv_seq_bytes(const struct kv_pool *p, int max_tok, int max_mark)
{
    struct kv_pool pool = *p;
    struct kv_seq s = sized(&pool, max_tok, max_mark);
    struct places count;
    arena_init(&count.host, NULL, 0);
    arena_init(&count.data, NULL, 0);
    place(&s, &count);
    return (struct kv_bytes){ count.host.peak, count.data.peak };
}

void kv_seq_init(struct kv_seq *s, struct kv_pool *p, struct kv_mem mem, int max_tok, int max_mark)
{
    const struct kv_shape *shape = &p->shape;
    struct kv_bytes bytes = kv_seq_bytes(p, max_tok, max_mark);
    struct places a;
    CHECK(shape->slack >= 0 && shape->ring_cap >= shape->window + shape->slack);
    CHECK(max_tok > 0 && max_mark >= 0);
    *s = sized(p, max_tok, max_mark);
    arena_init(&a.host, mem.host, bytes.host);
    arena_init(&a.data, mem.data, bytes.data);
    place(s, &a);
    CHECK(!a.host.overflow && !a.data.overflow);
}

static void drop_blocks(struct kv_seq *s, int n_keep)
{
    while (s->n_block > n_keep)
        kv_block_drop(s->pool, s->block[--s->n_block]);
}

void kv_seq_release(struct kv_seq *s)
{
    drop_blocks(s, 0);
    s->n_tok = s->n_mark = s->floor = s->n_reserved = 0;
}

struct kv_use kv_use_of(const struct kv_seq *s)
{
    struct kv_use u = { .blocks = (size_t)s->n_block * s->pool->block_bytes };
    struct kv_bytes state = kv_seq_bytes(s->pool, s->max_tok, 0);
    u.state = state.host + state.data;
    for (int i = 0; i < s->n_mark; i++)
        u.marks += s->mark[i].bytes;
    return u;
}

/* ---- copies of rings and frontiers -------------------------------------------------------- */

/* What is copied: so that the conversation can stand at floor..top. */
struct copier {
    enum copy dir;
    uint8_t *copy;
    size_t at;
    int floor, top;
    struct dev *dev; /* NULL: pieces are copied at once; else by the list */
    struct dev_piece list[DEV_PIECES];
    int n;
};

static void copy_listed(struct copier *c)
{
    if (c->n > 0)
        dev_move(c->dev, c->list, c->n);
    c->n = 0;
}

static void list_piece(struct copier *c, void *to, const void *from, size_t n)
{
    struct dev_piece *last = c->n > 0 ? &c->list[c->n - 1] : NULL;
    if (last && (uint8_t *)last->to + last->bytes == to &&
        (const uint8_t *)last->from + last->bytes == from) {
        last->bytes += n;
        return;
    }
    if (c->n == DEV_PIECES)
        copy_listed(c);
    c->list[c->n++] = (struct dev_piece){ to, from, n };
}

static void copy_piece(struct copier *c, void *live, size_t n)
{
    size_t at = c->at;
    c->at += n;
    if (c->dir == COPY_COUNT)
        return;
    uint8_t *copy = c->copy + at;
    void *to = c->dir == COPY_SAVE ? (void *)copy : live;
    const void *from = c->dir == COPY_SAVE ? live : copy;
    if (c->dev)
        list_piece(c, to, from, n);
    else
        memcpy(to, from, n);
}

/* A query at the floor sees the window before it. */
static void copy_ring(struct copier *c, const struct kv_shape *shape, const struct kv_layer *l)
{
    for (int pos = MAX(0, c->floor - (shape->window - 1)); pos < c->top; pos++)
        copy_piece(c, kv_ring_row(shape, l, pos), shape->row_bytes);
}

/* The block that the floor lies in is not yet pooled and, when overlapping, looks at the one
 * before it. */
static void copy_front(struct copier *c, const struct kv_front *f, int ratio)
{
    size_t bytes = (size_t)f->width * sizeof(float);
    int first = c->floor - c->floor % ratio - (overlaps(ratio) ? ratio : 0);
    for (int pos = MAX(0, first); pos < c->top; pos++) {
        size_t slot = (size_t)(pos % f->cap) * (size_t)f->width;
        copy_piece(c, f->a + slot, bytes);
        copy_piece(c, f->s + slot, bytes);
    }
}

static size_t copy_all(const struct kv_seq *s, enum copy dir, uint8_t *copy, int floor, int top)
{
    struct copier c;
    c.dir = dir;
    c.copy = copy;
    c.at = 0;
    c.floor = floor;
    c.top = top;
    c.dev = s->pool->dev;
    c.n = 0;
    for (int l = 0; l < s->view.n_layer; l++) {
        const struct kv_layer *layer = &s->view.layer[l];
        copy_ring(&c, s->view.shape, layer);
        if (layer->ratio)
            copy_front(&c, &layer->main, layer->ratio);
        if (overlaps(layer->ratio))
            copy_front(&c, &layer->index, layer->ratio);
    }
    copy_listed(&c);
    return c.at;
}

size_t kv_copy_bytes_of(const struct kv_seq *s, int floor, int top)
{
    CHECK(floor >= 0 && floor <= top && top - floor <= s->view.shape->slack);
    return copy_all(s, COPY_COUNT, NULL, floor, top);
}

void kv_copy_save(const struct kv_seq *s, struct kv_mark *m, int floor)
{
    CHECK(floor >= s->floor && floor <= s->n_tok);
    m->pos = m->top = s->n_tok;
    m->floor = floor;
    m->bytes = copy_all(s, COPY_SAVE, m->copy, floor, s->n_tok);
}

void kv_copy_restore(struct kv_seq *s, const struct kv_mark *m)
{
    copy_all(s, COPY_RESTORE, m->copy, m->floor, m->top);
    s->floor = m->floor;
}

/* ---- steps -------------------------------------------------------------------------------- */

int kv_max_rows(const struct kv_seq *s)
{
    return s->view.shape->ring_cap - (s->view.shape->window - 1);
}

/* Let every layer see block number i. */
static void show_block(struct kv_seq *s, int i)
{
    const struct kv_pool *p = s->pool;
    for (int l = 0; l < p->n_layer; l++) {
        if (p->ratio[l])
            s->view.layer[l].block[i] = s->block[i]->mem + p->row_at[l];
        if (overlaps(p->ratio[l]))
            s->view.layer[l].index_block[i] = s->block[i]->mem + p->index_at[l];
    }
}

/* The block being filled may be shared with a conversation that went another way. */
static int own_last_block(struct kv_seq *s, struct err *e)
{
    int last = s->n_block - 1;
    if (last < 0 || s->n_tok % s->pool->shape.block_tok == 0 || s->block[last]->refs == 1)
        return 0;
    struct kv_block *own = kv_block_take(s->pool);
    if (!own)
        return err_set(e, ERR_NO_MEMORY, "cache: all %d blocks of %d tokens are used",
                       s->pool->n_block, s->pool->shape.block_tok);
    if (s->pool->dev)
        dev_move(s->pool->dev, &(struct dev_piece){ own->mem, s->block[last]->mem,
                                                    s->pool->block_bytes }, 1);
    else
        memcpy(own->mem, s->block[last]->mem, s->pool->block_bytes);
    kv_block_drop(s->pool, s->block[last]);
    s->block[last] = own;
    show_block(s, last);
    return 0;
}

/* Hold the blocks of n_tok tokens, or as many as before. */
static int take_blocks(struct kv_seq *s, int n_tok, struct err *e)
{
    int block_tok = s->pool->shape.block_tok, n_before = s->n_block;
    while ((int64_t)s->n_block * block_tok < n_tok) {
        struct kv_block *b = kv_block_take(s->pool);
        if (!b) {
            drop_blocks(s, n_before);
            return err_set(e, ERR_NO_MEMORY, "cache: all %d blocks of %d tokens are used",
                           s->pool->n_block, block_tok);
        }
        s->block[s->n_block++] = b;
        show_block(s, s->n_block - 1);
    }
    return 0;
}

int kv_seq_refill(struct kv_seq *s, int n_tok, struct err *e)
{
    CHECK(n_tok >= 0 && n_tok <= s->max_tok);
    kv_seq_release(s);
    return take_blocks(s, n_tok, e);
}

int kv_reserve(struct kv_seq *s, int n, struct err *e)
{
    CHECK(n >= 1 && n <= kv_max_rows(s) && s->n_reserved == 0);
    if (n > s->max_tok - s->n_tok)
        return err_set(e, ERR_LIMIT, "%d tokens and %d more are more than the context of %d",
                       s->n_tok, n, s->max_tok);
    TRY(own_last_block(s, e));
    TRY(take_blocks(s, s->n_tok + n, e));
    if (n > s->view.shape->slack)
        kv_copy_save(s, &s->undo, s->n_tok);
    s->n_reserved = n;
    return 0;
}

static void drop_unused_blocks(struct kv_seq *s)
{
    int block_tok = s->pool->shape.block_tok;
    drop_blocks(s, s->n_tok / block_tok + (s->n_tok % block_tok != 0));
}

void kv_commit(struct kv_seq *s)
{
    CHECK(s->n_reserved > 0);
    s->n_tok += s->n_reserved;
    s->floor = MAX(s->floor, s->n_tok - s->view.shape->slack);
    s->n_reserved = 0;
}

void kv_abort(struct kv_seq *s)
{
    CHECK(s->n_reserved > 0);
    if (s->n_reserved > s->view.shape->slack)
        kv_copy_restore(s, &s->undo);
    else
        s->floor = MAX(s->floor, s->n_tok + s->n_reserved - s->view.shape->slack);
    s->n_reserved = 0;
    drop_unused_blocks(s);
}

/* ---- marks -------------------------------------------------------------------------------- */

/* Its slot stays with the array, behind those in use. */
static void drop_mark(struct kv_seq *s, int i)
{
    struct kv_mark gone = s->mark[i];
    s->n_mark--;
    for (; i < s->n_mark; i++)
        s->mark[i] = s->mark[i + 1];
    s->mark[s->n_mark] = gone;
}

/* What going back would cost more without mark i, in proportion to how far back it lies: dropping
 * the least leaves marks dense at the end and ever wider apart before. */
static double mark_worth(const struct kv_seq *s, int i)
{
    int before = i > 0 ? s->mark[i - 1].pos : 0;
    int after = i + 1 < s->n_mark ? s->mark[i + 1].pos : s->n_tok;
    double worth = (double)(after - before) / (s->n_tok - s->mark[i].pos + 1);
    return s->mark[i].chosen ? 4 * worth : worth;
}

static void drop_least_mark(struct kv_seq *s)
{
    int least = 0;
    for (int i = 1; i < s->n_mark; i++)
        if (mark_worth(s, i) < mark_worth(s, least))
            least = i;
    drop_mark(s, least);
}

void kv_mark(struct kv_seq *s, int back, bool chosen)
{
    CHECK(s->n_reserved == 0 && back >= 0);
    if (s->n_tok == 0 || s->max_mark == 0)
        return;
    int floor = MAX(s->floor, s->n_tok - back);
    if (s->n_mark > 0 && s->mark[s->n_mark - 1].pos == s->n_tok) {
        struct kv_mark *same = &s->mark[s->n_mark - 1];
        same->chosen |= chosen;
        if (same->floor <= floor)
            return;
        chosen = same->chosen;
        drop_mark(s, s->n_mark - 1);
    }
    if (s->n_mark == s->max_mark)
        drop_least_mark(s);
    struct kv_mark *m = &s->mark[s->n_mark++];
    kv_copy_save(s, m, floor);
    m->chosen = chosen;
}

/* The mark from which the fewest tokens up to p are to be computed again; -1: none. */
static int best_mark(const struct kv_seq *s, int p)
{
    int best = -1, stand = 0;
    for (int i = 0; i < s->n_mark; i++) {
        const struct kv_mark *m = &s->mark[i];
        if (m->floor <= p && MIN(m->pos, p) > stand) {
            best = i;
            stand = MIN(m->pos, p);
        }
    }
    return best;
}

/* Marks speak of tokens that are no more. */
static void cut_marks(struct kv_seq *s, int p)
{
    for (int i = s->n_mark - 1; i >= 0; i--) {
        if (s->mark[i].floor > p)
            drop_mark(s, i);
        else
            s->mark[i].pos = MIN(s->mark[i].pos, p);
    }
    while (s->n_mark > 1 && s->mark[s->n_mark - 2].pos == s->mark[s->n_mark - 1].pos)
        drop_mark(s, s->n_mark - 1);
}

int kv_truncate(struct kv_seq *s, int p)
{
    CHECK(p >= 0 && p <= s->n_tok && s->n_reserved == 0);
    if (p >= s->floor) {
        s->n_tok = p;
    } else {
        int best = best_mark(s, p);
        s->n_tok = best < 0 ? 0 : MIN(s->mark[best].pos, p);
        s->floor = 0;
        if (best >= 0)
            kv_copy_restore(s, &s->mark[best]);
    }
    cut_marks(s, s->n_tok);
    drop_unused_blocks(s);
    return s->n_tok;
}
