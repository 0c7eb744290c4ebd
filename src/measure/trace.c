/* trace.c - the routes of a model while it runs, and their file.
 *
 * A step computes all of its rows in one layer before the next, a file has all layers of one token
 * together: so each layer collects its own run of numbers, and writing interleaves them. */
#include "measure.h"

#include <stdlib.h>

#include "engine.h"
#include "file.h"

#define MAX_LAYER_BYTES ((size_t)1 << 30)

struct trace {
    struct engine *engine;
    int n_layer, n_used;
    struct buf *layer; /* [n_layer] of little-endian u16 [token][n_used] */
    struct buf step;   /* little-endian u32: tokens of each step; memory given back */
    int n_open;        /* places for experts at the last step */
};

static void put_u16(uint8_t *to, unsigned v)
{
    to[0] = (uint8_t)v;
    to[1] = (uint8_t)(v >> 8);
}

static void put_u32(uint8_t *to, uint32_t v)
{
    put_u16(to, v & 0xffff);
    put_u16(to + 2, v >> 16);
}

static void put_word(struct buf *to, uint32_t v)
{
    uint8_t bytes[4];
    put_u32(bytes, v);
    buf_add(to, bytes, sizeof bytes);
}

/* Places for experts, of all shelves together; 0: everything is mapped. */
static int count_places(const struct trace *t, int *n_open)
{
    const struct expert_store *store = t->engine->store;
    int n = 0;
    *n_open = 0;
    for (int i = 0; store && i < expert_store_n_shelf(store); i++) {
        const struct expert_slots *slots = expert_shelf_slots(expert_store_shelf(store, i));
        n += slots->n_slot;
        *n_open += slots->n_open;
    }
    return n;
}

static void keep_step(struct trace *t, int n_tok)
{
    int n_open, n_slot = count_places(t, &n_open);
    if (n_open != t->n_open) {
        put_word(&t->step, TRACE_ROOM | (uint32_t)n_open);
        put_word(&t->step, (uint32_t)n_slot);
    }
    t->n_open = n_open;
    put_word(&t->step, (uint32_t)n_tok);
}

static void keep(void *user, int layer, const struct route *route, const struct rows *r)
{
    struct trace *t = user;
    if (layer == t->n_layer) /* the draft block */
        return;
    CHECK(layer >= 0 && layer < t->n_layer && route->id.cols == t->n_used);
    if (layer == 0)
        keep_step(t, r->n);
    for (int i = 0; i < r->n; i++) {
        const int32_t *id = tensor_i32(&route->id, i);
        for (int j = 0; j < t->n_used; j++) {
            uint8_t bytes[2];
            put_u16(bytes, (unsigned)id[j]);
            buf_add(&t->layer[layer], bytes, sizeof bytes);
        }
    }
}

int trace_begin(struct trace **out, dstar_engine *engine, struct err *e)
{
    struct engine *en = engine_of(engine);
    *out = NULL;
    if (!en->model || !en->scratch)
        return err_set(e, ERR_ARGUMENT, "%s: only a part of the model is open", en->path);
    CHECK(!en->dev->on_route);
    struct trace *t = calloc(1, sizeof *t);
    const struct model_info *info = model_info(en->model);
    struct buf *layer = calloc((size_t)info->n_layer, sizeof *layer);
    if (!t || !layer) {
        free(t);
        free(layer);
        return err_set(e, ERR_NO_MEMORY, "out of memory for a trace");
    }
    *t = (struct trace){ .engine = en, .n_layer = info->n_layer, .n_used = info->n_used,
                         .layer = layer };
    t->n_open = count_places(t, &(int){ 0 });
    buf_init(&t->step, MAX_LAYER_BYTES);
    for (int l = 0; l < t->n_layer; l++)
        buf_init(&layer[l], MAX_LAYER_BYTES);
    en->dev->on_route_user = t;
    en->dev->on_route = keep;
    *out = t;
    return 0;
}

void trace_end(struct trace *t)
{
    if (!t)
        return;
    t->engine->dev->on_route = NULL;
    t->engine->dev->on_route_user = NULL;
    for (int l = 0; l < t->n_layer; l++)
        buf_release(&t->layer[l]);
    buf_release(&t->step);
    free(t->layer);
    free(t);
}

int trace_n_tok(const struct trace *t)
{
    return (int)(t->layer[t->n_layer - 1].len / (2 * (size_t)t->n_used));
}

/* Every layer has seen every token. */
static int check(const struct trace *t, struct err *e)
{
    if (t->step.failed)
        return err_set(e, ERR_NO_MEMORY, "out of memory for the trace of steps");
    for (int l = 0; l < t->n_layer; l++) {
        if (t->layer[l].failed)
            return err_set(e, ERR_NO_MEMORY, "out of memory for the trace of layer %d", l);
        if (t->layer[l].len != t->layer[0].len)
            return err_set(e, ERR_FORMAT, "trace: %zu bytes of layer %d, expected %zu as of layer "
                           "0: a step had failed", t->layer[l].len, l, t->layer[0].len);
    }
    return 0;
}

static int write_all(const struct trace *t, bool steps, struct file_out *f, struct err *e)
{
    uint8_t head[16] = { 0 };
    size_t n = 2 * (size_t)t->n_used;
    put_u32(head, (uint32_t)trace_n_tok(t));
    put_u32(head + 4, (uint32_t)t->n_layer);
    put_u32(head + 8, (uint32_t)t->n_used);
    put_u32(head + 12, steps ? (uint32_t)(t->step.len / 4) : 0);
    TRY(file_out_write(f, head, sizeof head, e));
    struct buf token;
    buf_init(&token, n * (size_t)t->n_layer + 1);
    int code = 0;
    for (size_t at = 0; code == 0 && at < t->layer[0].len; at += n) {
        buf_clear(&token);
        for (int l = 0; l < t->n_layer; l++)
            buf_add(&token, t->layer[l].data + at, n);
        code = token.failed ? err_set(e, ERR_NO_MEMORY, "out of memory for a trace")
                            : file_out_write(f, token.data, token.len, e);
    }
    buf_release(&token);
    if (code == 0 && steps)
        code = file_out_write(f, t->step.data, t->step.len, e);
    return code < 0 ? code : file_out_commit(f, e);
}

int trace_write(const struct trace *t, const char *path, bool steps, struct err *e)
{
    struct file_out f;
    TRY(check(t, e));
    TRY(file_out_open(&f, path, e));
    int code = write_all(t, steps, &f, e);
    file_out_abort(&f);
    return code;
}
