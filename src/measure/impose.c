/* impose.c - routes from a file in place of the router's choice.
 *
 * A random model uses its experts evenly; text does not. All of the file's routes are put where
 * the device can read them: a step needs the host no more than with routes of its own. Weights
 * stay: they decide no time. */
#include "measure.h"

#include <stdlib.h>

#include "engine.h"

struct imposed {
    struct engine *engine;
    struct routes routes;
    struct dev_routes there;
    void *copy; /* in the device's memory; NULL: it reads the host's */
};

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

/* To where the device reads them. */
static int show(struct imposed *m, struct err *e)
{
    struct dev *d = m->engine->dev;
    const struct routes *t = &m->routes;
    size_t n = (size_t)t->n_tok * (size_t)t->n_layer * (size_t)t->n_used * sizeof *t->id;
    m->there = (struct dev_routes){ t->id, t->n_tok, t->n_layer, t->n_used,
                                    model_n_hash(m->engine->model) };
    if (!dev_is_apart(d))
        return 0;
    TRY(dev_memory_take(d, &m->copy, n, e));
    m->there.id = m->copy;
    dev_begin(d);
    dev_copy(d, m->copy, t->id, n);
    return dev_wait(d, e);
}

int impose_begin(struct imposed **out, dstar_engine *engine, const char *path, struct err *e)
{
    struct engine *en = engine_of(engine);
    *out = NULL;
    if (!en->model || !en->scratch)
        return err_set(e, ERR_ARGUMENT, "%s: only a part of the model is open", en->path);
    CHECK(!en->dev->routes);
    struct imposed *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_NO_MEMORY, "out of memory for routes");
    m->engine = en;
    int code = routes_read(&m->routes, path, model_info(en->model)->n_expert, e);
    if (code == 0)
        code = check(m, path, e);
    if (code == 0)
        code = show(m, e);
    if (code < 0) {
        impose_end(m);
        return code;
    }
    en->dev->routes = &m->there;
    *out = m;
    return 0;
}

void impose_end(struct imposed *m)
{
    if (!m)
        return;
    m->engine->dev->routes = NULL;
    if (m->copy)
        dev_memory_give_back(m->engine->dev, m->copy);
    routes_release(&m->routes);
    free(m);
}
