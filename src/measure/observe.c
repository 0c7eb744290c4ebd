/* observe.c - routes and streams are gathered while a text is computed, layer by layer, and handed
 * out with the logits, row by row.
 *
 * Only rows that count are kept, for one text at a time. */
#include "observe.h"

#include <stdlib.h>

#include "deepseek4.h"
#include "engine.h"

struct observer {
    struct engine *engine;
    dstar_engine *handle;
    struct observe_shape shape;
    uint8_t learned[DSV4_MAX_LAYER];

    /* of the text being computed */
    const struct observation *what;
    int *row;             /* [n_tok] number among those that count, -1 for others */
    uint16_t *route;      /* [rows][n_layer][n_used] */
    float *streams;       /* [sampled rows][n_layer][width] */
    struct err err;       /* of on_row */
};

int text_doc_rows(const struct text_doc *d)
{
    int n = 0;
    for (int i = 0; i + 1 < d->n_tok; i++)
        n += d->scored[i] != 0;
    return n;
}

const struct observe_shape *observer_shape(const struct observer *o)
{
    return &o->shape;
}

/* The place of a row's streams among those that are kept, -1: they are not. */
static int64_t sample_of(const struct observation *w, int row)
{
    int64_t n = w->first_row + row;
    if (w->every <= 0 || n % w->every)
        return -1;
    return n / w->every - (w->first_row + w->every - 1) / w->every;
}

static float *streams_of(const struct observer *o, int row)
{
    int64_t at = sample_of(o->what, row);
    size_t n = (size_t)o->shape.n_layer * (size_t)o->shape.width;
    return at < 0 ? NULL : o->streams + (size_t)at * n;
}

static uint16_t *route_of(const struct observer *o, int row)
{
    return o->route + (size_t)row * (size_t)(o->shape.n_layer * o->shape.n_used);
}

static void keep_route(void *user, int layer, const struct route *route, const struct rows *r)
{
    struct observer *o = user;
    for (int i = 0; o->what && layer < o->shape.n_layer && i < r->n; i++) {
        int row = o->row[r->host[i].pos];
        uint16_t *to = row < 0 ? NULL : route_of(o, row) + layer * o->shape.n_used;
        for (int j = 0; to && j < o->shape.n_used; j++)
            to[j] = (uint16_t)tensor_i32(&route->id, i)[j];
    }
}

static void keep_streams(void *user, int layer, const struct tensor *streams,
                         const struct rows *r)
{
    struct observer *o = user;
    size_t n = (size_t)o->shape.width;
    for (int i = 0; o->what && i < r->n; i++) {
        int row = o->row[r->host[i].pos];
        float *to = row < 0 ? NULL : streams_of(o, row);
        if (to)
            memcpy(to + (size_t)layer * n, tensor_f32(streams, i), n * sizeof *to);
    }
}

int observer_begin(struct observer **out, dstar_engine *engine, struct err *e)
{
    struct engine *en = engine_of(engine);
    *out = NULL;
    if (!en->model || !en->scratch)
        return err_set(e, ERR_ARGUMENT, "%s: only a part of the model is open", en->path);
    if (strcmp(en->dev->name, "cpu") != 0 && strcmp(en->dev->name, "ref") != 0)
        return err_set(e, ERR_UNSUPPORTED, "device %s: what it computes cannot be seen, expected "
                       "cpu or ref", en->dev->name);
    CHECK(!en->dev->on_route && !en->dev->on_layer);
    struct observer *o = calloc(1, sizeof *o);
    if (!o)
        return err_set(e, ERR_NO_MEMORY, "out of memory for an observation");
    const struct model_info *info = model_info(en->model);
    o->engine = en;
    o->handle = engine;
    o->shape = (struct observe_shape){ info->n_layer, info->n_used, info->n_vocab,
                                       en->model->s.n_hc * info->n_embd, o->learned };
    for (int l = 0; l < info->n_layer; l++)
        o->learned[l] = !en->model->layer[l].route.by_token;
    en->dev->on_route_user = en->dev->on_layer_user = o;
    en->dev->on_route = keep_route;
    en->dev->on_layer = keep_streams;
    *out = o;
    return 0;
}

void observer_end(struct observer *o)
{
    if (!o)
        return;
    o->engine->dev->on_route = NULL;
    o->engine->dev->on_layer = NULL;
    o->engine->dev->on_route_user = o->engine->dev->on_layer_user = NULL;
    free(o);
}

static int hand_out(void *user, int pos, const float *logits, const float *mtp)
{
    struct observer *o = user;
    int row = o->row[pos];
    (void)mtp;
    if (row < 0)
        return 0;
    const struct text_doc *doc = o->what->doc;
    struct observed seen = { row, pos, doc->id[pos + 1], doc->scored[pos] == TEXT_ANSWER, logits,
                             route_of(o, row), streams_of(o, row) };
    return o->what->on_row(o->what->user, &seen, &o->err) < 0;
}

/* Memory for one text. */
static int take(struct observer *o, const struct observation *w, struct err *e)
{
    size_t n_tok = (size_t)w->doc->n_tok, n_row = 0, n_sample = 0, route, streams, one, layers;
    o->row = calloc(n_tok, sizeof *o->row);
    for (size_t i = 0; o->row && i < n_tok; i++) {
        bool counts = i + 1 < n_tok && w->doc->scored[i];
        o->row[i] = counts ? (int)n_row : -1;
        if (counts)
            n_sample += sample_of(w, (int)n_row++) >= 0;
    }
    layers = (size_t)o->shape.n_layer;
    if (o->row && mul_size(layers * (size_t)o->shape.n_used * sizeof(uint16_t), n_row, &route) &&
        mul_size(layers, (size_t)o->shape.width * sizeof(float), &one) &&
        mul_size(one, n_sample, &streams)) {
        o->route = malloc(MAX(route, 1));
        o->streams = malloc(MAX(streams, 1));
    }
    if (o->row && o->route && o->streams)
        return 0;
    return err_set(e, ERR_NO_MEMORY, "%s: out of memory for what %zu tokens show", w->doc->name,
                   n_tok);
}

int observe(struct observer *o, const struct observation *what, struct err *e)
{
    struct dstar_error error;
    const struct text_doc *doc = what->doc;
    struct dstar_text_eval job = { doc->id, doc->n_tok, what->chunk, 0, hand_out, o };
    o->err = (struct err){ 0 };
    int code = take(o, what, e);
    if (code == 0) {
        o->what = what;
        code = dstar_eval(o->handle, &job, &error);
        o->what = NULL;
        if (o->err.code < 0)
            code = err_set(e, o->err.code, "%s", o->err.text);
        else if (code < 0)
            code = err_set(e, (enum err_code)error.code, "%s: %s", doc->name, error.text);
    }
    free(o->row);
    free(o->route);
    free(o->streams);
    o->row = NULL;
    o->route = NULL;
    o->streams = NULL;
    return code;
}
