/* kv_disk.c - writing, checking and reading session files.
 *
 * The head tells all sizes, so a file that is too short, too long or absurd is refused before
 * anything is read into memory. Reading is done twice, once only to check: a damaged file must not
 * cost the conversation it was to replace, and there is no room for both.
 * The checksum is the 64-bit hash of base: what is feared are bad disks and cut copies, not
 * forgery, since whoever can write the file can also write the model. Rejected for that reason:
 * BLAKE2b, which would make the core depend on another library. Rejected also: mapping the file,
 * because a disk error would then be a signal in the middle of a copy. */
#include "kv_disk.h"

#include "hash.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "session files hold rows and floats as in memory, little-endian"
#endif

#define MAGIC "DSTARKV"
#define VERSION 1
#define CHECK_BYTES ((int64_t)sizeof(uint64_t))
#define BOUNCE_BYTES 65536

_Static_assert(sizeof(struct kv_disk_head) == 8 + 8 + 32 + 10 * 4 + 16, "head has no gaps");
_Static_assert(sizeof(struct kv_disk_mark) == 16, "mark has no gaps");

static int n_blocks(const struct kv_seq *s, int n_tok)
{
    int block_tok = s->pool->shape.block_tok;
    return n_tok / block_tok + (n_tok % block_tok != 0);
}

/* Tokens of block i of n_tok in all. */
static int tok_in_block(const struct kv_seq *s, int i, int n_tok)
{
    return MIN(s->pool->shape.block_tok, n_tok - i * s->pool->shape.block_tok);
}

static int64_t rows_bytes(const struct kv_seq *s, int n_tok)
{
    const struct kv_pool *p = s->pool;
    return (int64_t)kv_rows_bytes(&p->shape, p->ratio, p->n_layer, n_tok);
}

static struct kv_disk_head head_of(const struct kv_seq *s, const struct kv_disk_model *model)
{
    const struct kv_shape *k = &s->pool->shape;
    struct kv_disk_head h = {
        .magic = MAGIC,
        .version = VERSION,
        .packed = k->packed,
        .head_dim = k->head_dim,
        .rope_dim = k->rope_dim,
        .index_dim = k->index_dim,
        .window = k->window,
        .slack = k->slack,
        .block_tok = k->block_tok,
        .n_layer = s->pool->n_layer,
        .n_tok = s->n_tok,
    };
    memcpy(h.identity, model->identity, sizeof h.identity);
    return h;
}

/* Size of the file that head and marks describe; they have been checked. */
static int64_t file_bytes_of(const struct kv_seq *s, const struct kv_disk_head *h,
                             const struct kv_disk_mark *mark)
{
    int64_t n = (int64_t)sizeof *h + 4 * (int64_t)h->n_layer + CHECK_BYTES;
    n += (int64_t)sizeof *mark * (1 + h->n_mark);
    n += 4 * (int64_t)h->n_tok + CHECK_BYTES + (int64_t)h->extra_bytes + CHECK_BYTES;
    for (int i = 0; i < n_blocks(s, h->n_tok); i++)
        n += rows_bytes(s, tok_in_block(s, i, h->n_tok)) + CHECK_BYTES;
    for (int i = 0; i < 1 + h->n_mark; i++)
        n += (int64_t)kv_copy_bytes_of(s, mark[i].floor, mark[i].top) + CHECK_BYTES;
    return n;
}

/* ---- writing ------------------------------------------------------------------------------ */

struct writer {
    struct file_out file;
    struct hash hash;
    int code; /* sticky */
    struct err *e;
};

static void put(struct writer *w, const void *data, size_t n)
{
    if (w->code == 0)
        w->code = file_out_write(&w->file, data, n, w->e);
    hash_add(&w->hash, data, n);
}

static void part_begin(struct writer *w)
{
    hash_init(&w->hash, (uint64_t)w->file.size);
}

static void part_end(struct writer *w)
{
    uint64_t check = hash_value(&w->hash);
    if (w->code == 0)
        w->code = file_out_write(&w->file, &check, sizeof check, w->e);
}

static void put_part(struct writer *w, const void *data, size_t n)
{
    part_begin(w);
    put(w, data, n);
    part_end(w);
}

/* What ops wrote, by way of the stack if the host cannot see it. */
static void put_data(struct writer *w, const struct kv_pool *p, const uint8_t *data, size_t n)
{
    uint8_t bounce[BOUNCE_BYTES];
    if (!p->dev)
        put(w, data, n);
    for (size_t at = 0, some; p->dev && at < n && w->code == 0; at += some) {
        some = MIN(n - at, sizeof bounce);
        w->code = dev_copy_now(p->dev, bounce, data + at, some, w->e);
        put(w, bounce, some);
    }
}

static void put_copy(struct writer *w, const struct kv_pool *p, const struct kv_mark *m)
{
    part_begin(w);
    put_data(w, p, m->copy, m->bytes);
    part_end(w);
}

static void put_block(struct writer *w, const struct kv_seq *s, int i)
{
    const struct kv_pool *p = s->pool;
    int n_tok = tok_in_block(s, i, s->n_tok);
    part_begin(w);
    if (n_tok == p->shape.block_tok) {
        put_data(w, p, s->block[i]->mem, (size_t)rows_bytes(s, n_tok));
    } else {
        for (int l = 0; l < p->n_layer; l++) {
            size_t n = p->ratio[l] ? (size_t)(n_tok / p->ratio[l]) : 0;
            put_data(w, p, s->block[i]->mem + p->row_at[l], n * p->shape.row_bytes);
            if (p->ratio[l] == KV_OVERLAP_RATIO)
                put_data(w, p, s->block[i]->mem + p->index_at[l], n * p->shape.index_row_bytes);
        }
    }
    part_end(w);
}

static struct kv_disk_mark mark_of(const struct kv_mark *m)
{
    return (struct kv_disk_mark){ m->pos, m->floor, m->top, m->chosen };
}

static int check_space(const char *path, int64_t need, struct err *e)
{
    int64_t have = file_space_free(path);
    if (have >= 0 && have < need)
        return err_set(e, ERR_NO_MEMORY, "%s: needs %lld bytes on the disk, %lld are free", path,
                       (long long)need, (long long)have);
    return 0;
}

static void put_all(struct writer *w, struct kv_seq *s, const struct kv_disk_head *h,
                    const struct kv_disk_mark *mark, const void *extra)
{
    int first = s->n_mark - h->n_mark; /* the newest, if there are too many */
    part_begin(w);
    put(w, h, sizeof *h);
    put(w, s->pool->ratio, 4 * (size_t)h->n_layer);
    put(w, mark, sizeof *mark * (size_t)(1 + h->n_mark));
    part_end(w);
    put_part(w, s->token, 4 * (size_t)s->n_tok);
    put_part(w, extra, (size_t)h->extra_bytes);
    for (int i = 0; i < n_blocks(s, s->n_tok) && w->code == 0; i++)
        put_block(w, s, i);
    put_copy(w, s->pool, &s->undo);
    for (int i = first; i < s->n_mark && w->code == 0; i++)
        put_copy(w, s->pool, &s->mark[i]);
}

int kv_disk_save(struct kv_seq *s, const char *path, const struct kv_disk_model *model,
                 const void *extra, size_t extra_bytes, struct err *e)
{
    struct kv_disk_head h = head_of(s, model);
    struct kv_disk_mark mark[1 + KV_DISK_MAX_MARK];
    struct writer w = { .e = e };
    CHECK(s->n_reserved == 0);
    h.n_mark = MIN(s->n_mark, KV_DISK_MAX_MARK);
    h.extra_bytes = extra_bytes;
    kv_copy_save(s, &s->undo, s->floor);
    mark[0] = mark_of(&s->undo);
    for (int i = 0; i < h.n_mark; i++)
        mark[1 + i] = mark_of(&s->mark[s->n_mark - h.n_mark + i]);
    h.file_bytes = (uint64_t)file_bytes_of(s, &h, mark);
    TRY(check_space(path, (int64_t)h.file_bytes, e));
    TRY(file_out_open(&w.file, path, e));
    put_all(&w, s, &h, mark, extra);
    if (w.code == 0) {
        CHECK(w.file.size == (int64_t)h.file_bytes);
        w.code = file_out_commit(&w.file, e);
    }
    file_out_abort(&w.file);
    return w.code;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* One part being read: where, and what its checksum is so far. */
struct part {
    const struct file_in *file;
    int64_t at;
    struct hash hash;
    struct dev *dev; /* that has the memory of ops; NULL: it is the host's */
    struct err *e;
};

static void read_begin(struct part *p)
{
    hash_init(&p->hash, (uint64_t)p->at);
}

static int take(struct part *p, void *dst, size_t n)
{
    TRY(file_in_read_at(p->file, p->at, dst, n, p->e));
    hash_add(&p->hash, dst, n);
    p->at += (int64_t)n;
    return 0;
}

/* Into memory of ops. dst NULL: only for the checksum. */
static int take_data(struct part *p, uint8_t *dst, size_t n)
{
    uint8_t bounce[BOUNCE_BYTES];
    if (dst && !p->dev)
        return take(p, dst, n);
    for (size_t at = 0, some; at < n; at += some) {
        some = MIN(n - at, sizeof bounce);
        TRY(take(p, bounce, some));
        if (dst)
            TRY(dev_copy_now(p->dev, dst + at, bounce, some, p->e));
    }
    return 0;
}

static int read_end(struct part *p, const char *what)
{
    uint64_t found, expected = hash_value(&p->hash);
    TRY(file_in_read_at(p->file, p->at, &found, sizeof found, p->e));
    if (found != expected)
        return err_set(p->e, ERR_FORMAT,
                       "%s: damaged: the checksum of %s, at byte %lld, is %016llx, expected "
                       "%016llx", p->file->path, what, (long long)p->at,
                       (unsigned long long)found, (unsigned long long)expected);
    p->at += CHECK_BYTES;
    return 0;
}

static int take_copy(struct part *p, uint8_t *dst, size_t n, const char *what)
{
    read_begin(p);
    TRY(take_data(p, dst, n));
    return read_end(p, what);
}

/* Block i of n_tok tokens into s, or only for the checksum. */
static int take_block(struct part *p, const struct kv_seq *s, int i, int n_tok, bool keep)
{
    const struct kv_pool *pool = s->pool;
    uint8_t *mem = keep ? s->block[i]->mem : NULL;
    n_tok = tok_in_block(s, i, n_tok);
    read_begin(p);
    if (n_tok == pool->shape.block_tok) {
        TRY(take_data(p, mem, (size_t)rows_bytes(s, n_tok)));
        return read_end(p, "a block of rows");
    }
    for (int l = 0; l < pool->n_layer; l++) {
        size_t n = pool->ratio[l] ? (size_t)(n_tok / pool->ratio[l]) : 0;
        TRY(take_data(p, keep ? mem + pool->row_at[l] : NULL, n * pool->shape.row_bytes));
        if (pool->ratio[l] == KV_OVERLAP_RATIO)
            TRY(take_data(p, keep ? mem + pool->index_at[l] : NULL,
                          n * pool->shape.index_row_bytes));
    }
    return read_end(p, "the last block of rows");
}

static int check_field(const struct kv_disk *d, const char *name, int64_t found, int64_t expected,
                       struct err *e)
{
    if (found == expected)
        return 0;
    return err_set(e, ERR_MISMATCH, "%s: does not fit this model: %s is %lld, expected %lld",
                   d->file.path, name, (long long)found, (long long)expected);
}

static int check_kind(const struct kv_disk *d, const uint8_t identity[32], struct err *e)
{
    const struct kv_disk_head *h = &d->head;
    if (memcmp(h->magic, MAGIC, sizeof h->magic) != 0)
        return err_set(e, ERR_FORMAT, "%s: is not a session file", d->file.path);
    if (h->version != VERSION)
        return err_set(e, ERR_UNSUPPORTED, "%s: session file of version %u, expected %d",
                       d->file.path, h->version, VERSION);
    if (memcmp(h->identity, identity, sizeof h->identity) != 0)
        return err_set(e, ERR_MISMATCH,
                       "%s: is a session of another model: identity %02x%02x%02x%02x..., expected "
                       "%02x%02x%02x%02x...", d->file.path, h->identity[0], h->identity[1],
                       h->identity[2], h->identity[3], identity[0], identity[1], identity[2],
                       identity[3]);
    return 0;
}

static int check_head(const struct kv_disk *d, const struct kv_seq *s, struct err *e)
{
    const struct kv_disk_head *h = &d->head;
    const struct kv_shape *k = &s->pool->shape;
    int n_free = s->pool->n_block - s->pool->n_used + s->n_block;
    TRY(check_field(d, "packed", h->packed, k->packed, e));
    TRY(check_field(d, "head_dim", h->head_dim, k->head_dim, e));
    TRY(check_field(d, "rope_dim", h->rope_dim, k->rope_dim, e));
    TRY(check_field(d, "index_dim", h->index_dim, k->index_dim, e));
    TRY(check_field(d, "window", h->window, k->window, e));
    TRY(check_field(d, "slack", h->slack, k->slack, e));
    TRY(check_field(d, "block_tok", h->block_tok, k->block_tok, e));
    TRY(check_field(d, "n_layer", h->n_layer, s->pool->n_layer, e));
    if (h->n_tok < 0 || h->n_mark < 0 || h->n_mark > KV_DISK_MAX_MARK)
        return err_set(e, ERR_FORMAT, "%s: %d tokens and %d marks, expected 0 to %d marks",
                       d->file.path, h->n_tok, h->n_mark, KV_DISK_MAX_MARK);
    if (h->n_tok > s->max_tok)
        return err_set(e, ERR_LIMIT, "%s: holds %d tokens, the context has %d", d->file.path,
                       h->n_tok, s->max_tok);
    if (n_blocks(s, h->n_tok) > n_free)
        return err_set(e, ERR_NO_MEMORY, "%s: needs %d blocks of the cache, %d are left",
                       d->file.path, n_blocks(s, h->n_tok), n_free);
    if (h->extra_bytes > (uint64_t)d->file.size)
        return err_set(e, ERR_FORMAT, "%s: %llu bytes of extra data in a file of %lld",
                       d->file.path, (unsigned long long)h->extra_bytes,
                       (long long)d->file.size);
    return 0;
}

static int check_marks(const struct kv_disk *d, const struct kv_seq *s, struct err *e)
{
    for (int i = 0; i < 1 + d->head.n_mark; i++) {
        const struct kv_disk_mark *m = &d->mark[i];
        bool ordered = i < 2 || m->pos > d->mark[i - 1].pos;
        bool now = i > 0 || (m->pos == d->head.n_tok && m->top == m->pos);
        if (m->floor < 0 || m->floor > m->pos || m->pos > m->top || m->pos > d->head.n_tok ||
            (int64_t)m->top - m->floor > s->pool->shape.slack || !ordered || !now)
            return err_set(e, ERR_FORMAT, "%s: mark %d has positions %d, %d, %d after %d tokens",
                           d->file.path, i - 1, m->floor, m->pos, m->top, d->head.n_tok);
    }
    return 0;
}

static int read_head(struct kv_disk *d, struct part *p, const struct kv_seq *s,
                     const uint8_t identity[32], struct err *e)
{
    if (d->file.size < (int64_t)sizeof d->head)
        return err_set(e, ERR_FORMAT, "%s: %lld bytes are too few for a session file",
                       d->file.path, (long long)d->file.size);
    read_begin(p);
    TRY(take(p, &d->head, sizeof d->head));
    TRY(check_kind(d, identity, e));
    TRY(check_head(d, s, e));
    for (int l = 0; l < d->head.n_layer; l++) {
        int32_t ratio;
        TRY(take(p, &ratio, sizeof ratio));
        TRY(check_field(d, "a layer's ratio", ratio, s->pool->ratio[l], e));
    }
    TRY(take(p, d->mark, sizeof *d->mark * (size_t)(1 + d->head.n_mark)));
    TRY(read_end(p, "the head"));
    TRY(check_marks(d, s, e));
    int64_t expected = file_bytes_of(s, &d->head, d->mark);
    if (d->file.size != expected || d->head.file_bytes != (uint64_t)expected)
        return err_set(e, ERR_FORMAT, "%s: damaged: has %lld bytes, expected %lld", d->file.path,
                       (long long)d->file.size, (long long)expected);
    return 0;
}

static int read_extra(const struct kv_disk *d, struct part *p, struct buf *extra, struct err *e)
{
    size_t left = (size_t)d->head.extra_bytes;
    uint8_t some[4096];
    read_begin(p);
    while (left > 0 && !extra->failed) {
        size_t n = MIN(left, sizeof some);
        TRY(take(p, some, n));
        buf_add(extra, some, n);
        left -= n;
    }
    if (extra->failed)
        return err_set(e, ERR_LIMIT, "%s: %llu bytes of extra data, expected at most %zu",
                       d->file.path, (unsigned long long)d->head.extra_bytes, extra->max);
    return read_end(p, "the extra data");
}

static int check_tokens(const struct kv_disk *d, struct part *p, int n_vocab, struct err *e)
{
    int32_t some[1024];
    read_begin(p);
    for (int i = 0; i < d->head.n_tok;) {
        int n = MIN(d->head.n_tok - i, (int)COUNT_OF(some));
        TRY(take(p, some, sizeof *some * (size_t)n));
        for (int j = 0; j < n; j++, i++)
            if (some[j] < 0 || some[j] >= n_vocab)
                return err_set(e, ERR_FORMAT, "%s: token %d is %d, expected 0 to %d",
                               d->file.path, i, some[j], n_vocab - 1);
    }
    return read_end(p, "the tokens");
}

static int check_rows(const struct kv_disk *d, struct part *p, const struct kv_seq *s)
{
    for (int i = 0; i < n_blocks(s, d->head.n_tok); i++)
        TRY(take_block(p, s, i, d->head.n_tok, false));
    for (int i = 0; i < 1 + d->head.n_mark; i++)
        TRY(take_copy(p, NULL, kv_copy_bytes_of(s, d->mark[i].floor, d->mark[i].top),
                      i ? "a mark" : "the state"));
    return 0;
}

int kv_disk_open(struct kv_disk *d, const char *path, const struct kv_seq *s,
                 const struct kv_disk_model *model, struct buf *extra, struct err *e)
{
    *d = (struct kv_disk){ 0 };
    CHECK(s->n_reserved == 0);
    TRY(file_in_open(&d->file, path, e));
    struct part p = { .file = &d->file, .e = e };
    int code = read_head(d, &p, s, model->identity, e);
    d->token_at = p.at;
    if (code == 0)
        code = check_tokens(d, &p, model->n_vocab, e);
    if (code == 0)
        code = read_extra(d, &p, extra, e);
    d->block_at = p.at;
    if (code == 0)
        code = check_rows(d, &p, s);
    if (code < 0)
        kv_disk_close(d);
    return code;
}

void kv_disk_close(struct kv_disk *d)
{
    file_in_close(&d->file);
}

/* ---- loading ------------------------------------------------------------------------------ */

static int take_mark(struct part *p, const struct kv_seq *s, const struct kv_disk_mark *from,
                     struct kv_mark *to)
{
    to->pos = from->pos;
    to->floor = from->floor;
    to->top = from->top;
    to->chosen = from->chosen != 0;
    to->bytes = kv_copy_bytes_of(s, from->floor, from->top);
    return take_copy(p, to->copy, to->bytes, "a mark");
}

static int load_all(struct kv_disk *d, struct part *p, struct kv_seq *s)
{
    p->at = d->token_at;
    read_begin(p);
    TRY(take(p, s->token, sizeof *s->token * (size_t)d->head.n_tok));
    TRY(read_end(p, "the tokens"));
    p->at = d->block_at;
    for (int i = 0; i < n_blocks(s, d->head.n_tok); i++)
        TRY(take_block(p, s, i, d->head.n_tok, true));
    TRY(take_mark(p, s, &d->mark[0], &s->undo));
    kv_copy_restore(s, &s->undo);
    for (int i = 1; i < 1 + d->head.n_mark; i++) {
        if (i + s->max_mark < 1 + d->head.n_mark) {
            size_t bytes = kv_copy_bytes_of(s, d->mark[i].floor, d->mark[i].top);
            p->at += (int64_t)bytes + CHECK_BYTES;
            continue;
        }
        TRY(take_mark(p, s, &d->mark[i], &s->mark[s->n_mark]));
        s->n_mark++;
    }
    s->n_tok = d->head.n_tok;
    return 0;
}

int kv_disk_load(struct kv_disk *d, struct kv_seq *s, struct err *e)
{
    struct part p = { .file = &d->file, .dev = s->pool->dev, .e = e };
    CHECK(s->n_reserved == 0);
    TRY(kv_seq_refill(s, d->head.n_tok, e));
    int code = load_all(d, &p, s);
    if (code < 0)
        kv_seq_release(s);
    return code;
}
