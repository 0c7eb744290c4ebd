/* impose.c - routes from a file in place of the router's choice.
 *
 * A random model uses its experts evenly; text does not. The hook that shows routes runs before
 * the experts do, so it may put others there. Weights stay: they decide no time. */
#include "measure.h"

#include <stdlib.h>

#include "engine.h"

struct imposed {
    struct engine *engine;
    struct routes routes;
    int n_hash; /* first layers, that are routed by the token */
};

static void impose(void *user, int layer, const struct route *route, const struct rows *r)
{
    const struct imposed *m = user;
    const struct routes *t = &m->routes;
    if (layer < m->n_hash || layer >= t->n_layer) /* the draft block */
        return;
    for (int i = 0; i < r->n; i++) {
        size_t tok = (size_t)(r->host[i].pos % t->n_tok);
        const uint16_t *from = t->id + (tok * (size_t)t->n_layer + (size_t)layer) *
                                           (size_t)t->n_used;
        for (int j = 0; j < t->n_used; j++)
            tensor_i32(&route->id, i)[j] = from[j];
    }
}

static int check(const struct imposed *m, const char *path, struct err *e)
{
    const struct model_info *info = model_info(m->engine->model);
    const struct routes *t = &m->routes;
    if (t->n_tok < 1 || t->n_used != info->n_used || t->n_layer < info->n_layer)
        return err_set(e, ERR_MISMATCH, "%s: has %d tokens, %d layers, %d experts used; expected 1 "
                       "or more, %d or more, %d", path, t->n_tok, t->n_layer, t->n_used,
                       info->n_layer, info->n_used);
    return 0;
}

int impose_begin(struct imposed **out, dstar_engine *engine, const char *path, struct err *e)
{
    struct engine *en = engine_of(engine);
    *out = NULL;
    if (!en->model || !en->scratch)
        return err_set(e, ERR_ARGUMENT, "%s: only a part of the model is open", en->path);
    if (strcmp(en->dev->name, "cpu") != 0 && strcmp(en->dev->name, "ref") != 0)
        return err_set(e, ERR_UNSUPPORTED, "device %s: its routes cannot be set, expected cpu or "
                       "ref", en->dev->name);
    CHECK(!en->dev->on_route);
    struct imposed *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_NO_MEMORY, "out of memory for routes");
    m->engine = en;
    m->n_hash = model_n_hash(en->model);
    int code = routes_read(&m->routes, path, model_info(en->model)->n_expert, e);
    if (code == 0)
        code = check(m, path, e);
    if (code < 0) {
        routes_release(&m->routes);
        free(m);
        return code;
    }
    en->dev->on_route_user = m;
    en->dev->on_route = impose;
    *out = m;
    return 0;
}

void impose_end(struct imposed *m)
{
    if (!m)
        return;
    m->engine->dev->on_route = NULL;
    m->engine->dev->on_route_user = NULL;
    routes_release(&m->routes);
    free(m);
}
