/* cmd_inspect.c - `dstar inspect`: what a model file holds, and what running it would take.
 *
 * The first half is read from the file's directory, the second is the plan that opening the model
 * would follow; neither touches a weight. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "engine_opts.h"
#include "offline.h"
#include "term.h"

#define MAX_TEXT_BYTES ((size_t)1 << 28)

struct inspect_opts {
    struct engine_opts model;
    bool json, tensors;
};

#define AT(field) offsetof(struct inspect_opts, field)

static const struct opt options[] = {
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL, "print one JSON object" },
    { "tensors", 0, OPT_FLAG, NULL, AT(tensors), 0, 0, NULL, "list every tensor" },
};

static void plan_text(const struct dstar_info *info, struct buf *out)
{
    const struct dstar_plan *p = &info->plan;
    const struct {
        const char *what;
        double bytes;
        const char *note;
    } row[] = {
        { p->experts ? "weights in files" : "weights mapped", (double)p->mapped,
          p->experts ? "not mapped: more than there is memory for"
                     : "the system may drop and reread them" },
        { "weights read", (double)p->held, "all but routed experts" },
        { "routed experts", (double)p->experts, "in memory; others are read when needed" },
        { "weights converted", (double)p->converted, "copied into memory at the start" },
        { "step", (double)p->scratch, "temporary" },
        { "session", (double)p->session, "" },
        { "cache", (double)p->cache, "at full length; taken as it grows" },
        { "memory needed", (double)p->total, "all but the mapped weights" },
        { "memory available", (double)p->available, "" },
    };
    char bytes[16];
    buf_printf(out, "\nmemory for a conversation of %d tokens (%s), on %s\n", info->ctx,
               info->ctx_why, info->device);
    for (size_t i = 0; i < COUNT_OF(row); i++)
        if (row[i].bytes > 0)
            buf_printf(out, "  %-18s %10s  %s\n", row[i].what, term_bytes(bytes, row[i].bytes),
                       row[i].note);
    buf_printf(out, "  %-18s %10s\n", "a token of context", term_bytes(bytes, p->cache_per_token));
    if (p->total > p->available)
        buf_printf(out, "  This is more than there is: see --ctx.\n");
}

static json_t *plan_json(const struct dstar_info *info)
{
    const struct dstar_plan *p = &info->plan;
    return json_pack(
        "{s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "ctx", info->ctx,
        "ctx_why",
        info->ctx_why, "device", info->device, "mapped_bytes", (json_int_t)p->mapped,
        "converted_bytes", (json_int_t)p->converted, "scratch_bytes", (json_int_t)p->scratch,
        "session_bytes", (json_int_t)p->session, "cache_bytes", (json_int_t)p->cache,
        "held_bytes", (json_int_t)p->held, "expert_bytes", (json_int_t)p->experts,
        "total_bytes", (json_int_t)p->total, "available_bytes", (json_int_t)p->available,
        "cache_bytes_per_token", p->cache_per_token);
}

/* Put `value` (taken over) into the object that `out` holds. */
static void add_member(struct buf *out, const char *name, json_t *value)
{
    json_t *root = json_loadb(out->data, out->len, 0, NULL);
    CHECK(root);
    json_object_set_new(root, name, value);
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    buf_clear(out);
    buf_puts(out, text ? text : "");
    free(text);
    json_decref(root);
}

static void add_tensors(const struct inspect *x, bool json, struct buf *out)
{
    struct buf list;
    if (!json) {
        inspect_tensors_text(x, out);
        return;
    }
    buf_init(&list, MAX_TEXT_BYTES);
    inspect_tensors_json(x, &list);
    add_member(out, "tensors", json_loadb(list.data ? list.data : "", list.len, 0, NULL));
    buf_release(&list);
}

/* The plan needs an architecture that runs here; of others the rest is still worth showing. */
static int add_plan(const struct inspect_opts *o, struct buf *out)
{
    dstar_engine *engine;
    int status = engine_start(&engine, &o->model);
    if (status != 0)
        return status;
    if (o->json)
        add_member(out, "memory", plan_json(dstar_engine_info(engine)));
    else
        plan_text(dstar_engine_info(engine), out);
    dstar_close(engine);
    return 0;
}

static int inspect(const struct inspect_opts *o, const char *model, struct buf *out)
{
    struct inspect x;
    struct err e = { 0 };
    if (inspect_open(&x, model, &e) < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    (o->json ? inspect_json : inspect_text)(&x, out);
    bool runs = x.has_hyper;
    if (o->tensors)
        add_tensors(&x, o->json, out);
    inspect_close(&x);
    return runs ? add_plan(o, out) : EXIT_DONE;
}

int cmd_inspect(const struct command *command, int n, char **arg)
{
    struct inspect_opts o = { 0 };
    struct opt_group group[2] = { { "output", options, COUNT_OF(options), &o },
                                  engine_group(&o.model) };
    struct words words;
    struct buf out;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n > 1 || (words.n && o.model.model))
        return opts_wrong(command, "found more than one model, expected one");
    if (words.n)
        o.model.model = words.word[0];
    o.model.part = DSTAR_PLAN;
    char *model = engine_model(&o.model);
    if (!model)
        return EXIT_ERROR;
    buf_init(&out, MAX_TEXT_BYTES);
    status = inspect(&o, model, &out);
    printf("%s%s", out.data ? out.data : "", o.json && out.len ? "\n" : "");
    buf_release(&out);
    free(model);
    return status;
}
