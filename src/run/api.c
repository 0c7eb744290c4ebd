/* api.c - the engine's part of dwarfstar.h, and errors. */
#define _GNU_SOURCE
#include "api_impl.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert((int)DSTAR_NO_MEMORY == (int)ERR_NO_MEMORY && (int)DSTAR_IO == (int)ERR_IO &&
                   (int)DSTAR_FORMAT == (int)ERR_FORMAT &&
                   (int)DSTAR_UNSUPPORTED == (int)ERR_UNSUPPORTED &&
                   (int)DSTAR_ARGUMENT == (int)ERR_ARGUMENT &&
                   (int)DSTAR_LIMIT == (int)ERR_LIMIT &&
                   (int)DSTAR_MISMATCH == (int)ERR_MISMATCH &&
                   (int)DSTAR_CANCELLED == (int)ERR_CANCELLED,
               "codes are passed through");
_Static_assert((int)DSTAR_LOG_DEBUG == (int)LOG_DEBUG && (int)DSTAR_LOG_INFO == (int)LOG_INFO &&
                   (int)DSTAR_LOG_WARN == (int)LOG_WARN, "levels are passed through");

const char *dstar_version(void)
{
    return DSTAR_VERSION;
}

void dstar_free(void *memory)
{
    free(memory);
}

int api_result(struct dstar_error *to, const struct err *e, int code)
{
    if (code < 0 && to) {
        to->code = code;
        snprintf(to->text, sizeof to->text, "%s", e->text);
    }
    return code;
}

void dstar_options_init(struct dstar_options *options)
{
    *options = (struct dstar_options){ .sessions = 1, .cache_simulation = -1 };
}

/* ---- opening ------------------------------------------------------------------------------ */

static const char *name_of(const struct engine *e)
{
    const char *name = e->files ? meta_str(weights_meta(e->files), "general.name") : NULL;
    const char *slash = strrchr(e->path, '/');
    if (name && *name)
        return name;
    return slash && slash[1] ? slash + 1 : e->path;
}

static void fill_plan(struct dstar_plan *p, const struct budget *b)
{
    *p = (struct dstar_plan){
        .mapped = b->mapped,
        .converted = b->converted,
        .scratch = b->scratch,
        .session = b->session,
        .cache = b->cache,
        .experts = b->experts,
        .held = b->held,
        .total = b->total,
        .available = b->available,
        .cache_per_token = b->cache_per_tok,
    };
}

static void fill_model(struct dstar_info *i, const struct engine *e)
{
    const struct model_info *m = model_info(e->model);
    i->n_layer = m->n_layer;
    i->n_embd = m->n_embd;
    i->n_expert = m->n_expert;
    i->n_used = m->n_used;
    i->has_mtp = m->has_mtp;
    i->cache_simulation = m->simulate;
    i->ctx_trained = (int)MIN(m->ctx_trained, INT_MAX);
    i->ctx = e->budget.ctx;
    i->ctx_why = e->budget.ctx_why;
    i->max_rows = e->budget.max_rows;
    memcpy(i->identity, e->identity.identity, sizeof i->identity);
    fill_plan(&i->plan, &e->budget);
}

static int fill_info(struct dstar_engine *d, struct err *err)
{
    const struct engine *e = &d->e;
    d->name = strdup(name_of(e));
    if (e->dev && asprintf(&d->device, "%s: %s", e->dev->name, dev_describe(e->dev)) < 0)
        d->device = NULL;
    if (!d->name || (e->dev && !d->device))
        return err_set(err, ERR_NO_MEMORY, "%s: out of memory", e->path);
    d->info = (struct dstar_info){
        .name = d->name,
        .path = e->path,
        .format = e->files && weights_kind(e->files) == WEIGHTS_GGUF ? "GGUF" : "checkpoint",
        .device = d->device ? d->device : "",
        .n_vocab = e->rules.n_vocab,
        .profile = e->rules.profile == CHAT_0731 ? DSTAR_PROFILE_0731 : DSTAR_PROFILE_PREVIEW,
        .ctx_why = "",
        .load_s = e->load_s,
    };
    if (e->model)
        fill_model(&d->info, e);
    return 0;
}

int dstar_open(dstar_engine **engine, const struct dstar_options *options,
               struct dstar_error *error)
{
    struct err e = { 0 };
    dstar_engine *d = calloc(1, sizeof *d);
    *engine = NULL;
    if (!d)
        return api_result(error, &e, err_set(&e, ERR_NO_MEMORY, "out of memory"));
    int code = engine_open(&d->e, options, &e);
    if (code == 0)
        code = fill_info(d, &e);
    if (code < 0)
        dstar_close(d);
    else
        *engine = d;
    return api_result(error, &e, code);
}

void dstar_close(dstar_engine *engine)
{
    if (!engine)
        return;
    engine_close(&engine->e);
    free(engine->name);
    free(engine->device);
    free(engine);
}

struct engine *engine_of(dstar_engine *handle)
{
    return &handle->e;
}

const struct dstar_info *dstar_engine_info(const dstar_engine *engine)
{
    return &engine->info;
}
