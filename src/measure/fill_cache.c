/* fill_cache.c - a long past that was never computed.
 *
 * How fast a step is depends on how much it looks at, not on what it sees there. So the rows of a
 * long context are drawn: legal codes, numbers of size one. Seconds instead of hours. */
#include "measure.h"

#include <stdlib.h>

#include "engine.h"
#include "quant_random.h"
#include "rng.h"
#include "session.h"

/* What the rows of one layer are drawn from; each kind counts from a place of its own. */
struct filler {
    const struct kv_shape *shape;
    uint64_t key;
    struct dev *dev; /* that the rows go to */
    uint8_t *drawn;  /* room for any piece on its way there */
    struct err *e;
};

static void draw(const struct filler *f, enum dtype type, int shift, uint64_t row, int n,
                 uint8_t *dst)
{
    struct quant_random q = { .type = type, .shift = shift };
    q.key = rng_at(f->key, row);
    quant_random(&q, 0, (size_t)n, dst);
}

/* As in kv_row.h: E4M3 of 2 to 30 times 1/16, BF16, both about one. */
static void fill_row(const struct filler *f, uint64_t row, uint8_t *dst)
{
    const struct kv_shape *s = f->shape;
    int nope = s->head_dim - s->rope_dim;
    if (!s->packed) {
        draw(f, DT_F32, -7, row, s->head_dim, dst);
        return;
    }
    memset(dst, 0, s->row_bytes);
    draw(f, DT_F8_E4M3, 0, row, nope, dst);
    draw(f, DT_BF16, -7, row, s->rope_dim, dst + nope);
    memset(dst + nope + 2 * s->rope_dim, 127 - 4, (size_t)(nope + 63) / 64);
}

static void fill_index_row(const struct filler *f, uint64_t row, uint8_t *dst)
{
    const struct kv_shape *s = f->shape;
    if (!s->packed) {
        draw(f, DT_F32, -7, row, s->index_dim, dst);
        return;
    }
    draw(f, DT_FP4, 0, row, s->index_dim / 32, dst);
    memset(dst + s->index_dim / 2, 127 - 1, (size_t)s->index_dim / 32);
}

static int fill_front(const struct filler *f, const struct kv_front *front)
{
    int n = front->cap * front->width;
    size_t bytes = (size_t)n * sizeof(float);
    if (!front->a)
        return 0;
    draw(f, DT_F32, -7, 0, n, f->drawn);
    TRY(dev_copy_now(f->dev, front->a, f->drawn, bytes, f->e));
    draw(f, DT_F32, -7, 1, n, f->drawn);
    return dev_copy_now(f->dev, front->s, f->drawn, bytes, f->e);
}

/* Rows first .. first+n-1, which lie together. */
static int fill_rows(const struct filler *f, bool index, int first, int n, uint8_t *to)
{
    size_t bytes = index ? f->shape->index_row_bytes : f->shape->row_bytes;
    for (int i = 0; i < n; i++)
        (index ? fill_index_row : fill_row)(f, (uint64_t)(first + i),
                                            f->drawn + (size_t)i * bytes);
    return dev_copy_now(f->dev, to, f->drawn, (size_t)n * bytes, f->e);
}

static int fill_layer(struct filler f, const struct kv_layer *l, int n_tok)
{
    uint64_t key = f.key;
    TRY(fill_rows(&f, false, 0, f.shape->ring_cap, l->ring));
    f.key = rng_at(key, 1);
    TRY(fill_front(&f, &l->main));
    f.key = rng_at(key, 2);
    TRY(fill_front(&f, &l->index));
    int per = l->ratio ? f.shape->block_tok / l->ratio : 0, n = l->ratio ? n_tok / l->ratio : 0;
    for (int b = 0; b < n; b += per) {
        f.key = rng_at(key, 3);
        TRY(fill_rows(&f, false, b, MIN(per, n - b), l->block[b / per]));
        f.key = rng_at(key, 4);
        if (l->index_block)
            TRY(fill_rows(&f, true, b, MIN(per, n - b), l->index_block[b / per]));
    }
    return 0;
}

/* Of the largest piece. */
static size_t piece_bytes(const struct kv_view *v)
{
    size_t row = MAX(v->shape->row_bytes, v->shape->index_row_bytes);
    size_t most = (size_t)MAX(v->shape->ring_cap, v->shape->block_tok) * row;
    for (int l = 0; l < v->n_layer; l++) {
        const struct kv_layer *k = &v->layer[l];
        most = MAX(most, (size_t)k->main.cap * (size_t)k->main.width * sizeof(float));
        most = MAX(most, (size_t)k->index.cap * (size_t)k->index.width * sizeof(float));
    }
    return most;
}

int measure_fill_cache(dstar_session *session, int n_tok, uint64_t seed, struct err *e)
{
    struct session *s = session_of(session);
    struct kv_seq *kv = &s->kv;
    if (n_tok < 0 || n_tok > kv->max_tok)
        return err_set(e, ERR_LIMIT, "%d tokens are more than the context of %d", n_tok,
                       kv->max_tok);
    uint8_t *drawn = malloc(piece_bytes(&kv->view));
    if (!drawn)
        return err_set(e, ERR_NO_MEMORY, "out of memory for drawing a cache");
    int code = kv_seq_refill(kv, n_tok, e);
    for (int l = 0; l < kv->view.n_layer && code == 0; l++) {
        struct filler f = { kv->view.shape, rng_at(seed, (uint64_t)l), s->engine->dev, drawn, e };
        code = fill_layer(f, &kv->view.layer[l], n_tok);
    }
    free(drawn);
    TRY(code);
    for (int i = 0; i < n_tok; i++)
        kv->token[i] = (int32_t)(rng_at(seed, (uint64_t)i) % (uint64_t)s->engine->rules.n_vocab);
    kv->n_tok = kv->floor = s->n_all = n_tok;
    s->has_logits = false;
    s->is_prompt = false;
    if (n_tok > 0)
        kv_mark(kv, 0, true);
    return 0;
}
