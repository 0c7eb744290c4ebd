/* fit.c - the plan of an engine for many sizes of memory, the measured drive, and hit rates from
 * recorded routes.
 *
 * Rejected: a popularity list as forecast, since recency finds more. */
#include "fit.h"

#include "cpu.h"
#include "engine.h"
#include "expert_expect.h"
#include "expert_probe.h"
#include "measure.h"
#include "slab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define GB 1e9
#define MOST_MATRICES 4096

/* ---- the model ------------------------------------------------------------------------------ */

struct fitting {
    struct engine *e;
    struct fit *out;
    struct expert_layer *layer;
    struct expert_shelf_ask store;
    struct budget_ask budget;
};

static void count_experts(struct fitting *f)
{
    const struct expert_map *map = f->store.map;
    struct fit *out = f->out;
    for (int l = 0; l < map->n_layer; l++) {
        double layer = 0;
        for (int i = 0; i < map->n_expert; i++)
            layer += (double)expert_map_bytes(map, l * map->n_expert + i);
        out->experts += layer;
        out->n_expert += layer > 0 ? map->n_expert : 0;
        out->used_bytes += layer / map->n_expert * f->layer[l].n_used;
    }
    out->expert = out->n_expert > 0 ? out->experts / out->n_expert : 0;
}

/* What every token reads of the weights that are always in memory: no embedding but its own row. */
static int count_matrices(struct fitting *f, struct err *e)
{
    struct model_matrix *list = calloc(MOST_MATRICES, sizeof *list);
    if (!list)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a plan");
    int n = model_matrices(f->e->model, list, MOST_MATRICES);
    for (int i = 0; i < MIN(n, MOST_MATRICES); i++)
        f->out->read_bytes += (double)list[i].w->pitch * list[i].w->rows;
    free(list);
    return 0;
}

static int begin(struct fitting *f, const struct fit_ask *ask, struct err *e)
{
    const struct model_info *info = model_info(f->e->model);
    const struct budget *b = &f->e->budget;
    f->layer = calloc((size_t)info->n_kv_layer, sizeof *f->layer);
    if (!f->layer)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a plan");
    model_experts(f->e->model, f->layer);
    f->store = (struct expert_shelf_ask){ .layer = f->layer,
                                          .map = model_expert_map(f->e->model) };
    f->budget = (struct budget_ask){
        .ctx = ask->ctx, .n_session = b->n_session, .max_rows = b->max_rows,
        .taken = b->taken + b->converted, .mapped = b->mapped,
        .max_mark = ENGINE_MARKS, .slack = ENGINE_SLACK,
    };
    expert_store_sizes(&f->store, &f->budget.experts_least, &f->budget.experts_most);
    count_experts(f);
    f->out->fixed = (double)info->held_bytes;
    f->out->machine = (double)cpu_memory_available();
    if (f->budget.experts_least == 0 || f->out->experts <= 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: has no routed experts that could be read on their "
                       "own", f->e->path);
    return count_matrices(f, e);
}

/* ---- the drive ------------------------------------------------------------------------------ */

static int probe_reads(struct fitting *f, struct expert_reads *r, struct err *e)
{
    struct slab slab = { 0 };
    struct expert_probe probe;
    size_t place = expert_reads_place_bytes(r);
    TRY(slab_open(&slab, place * EXPERT_PROBE_PLACES, NULL, e));
    int code = expert_probe(&probe, r, slab.mem, EXPERT_PROBE_PLACES, 0, e);
    if (code == 0) {
        f->out->drive_bytes_per_s = probe.bytes_per_s;
        f->out->depth = probe.depth;
        snprintf(f->out->path, sizeof f->out->path, "%s",
                 aio_path_name(expert_reads_io(r)->path));
    }
    if (expert_reads_close(r) == 0)
        slab_close(&slab);
    return code;
}

static int probe_drive(struct fitting *f, struct err *e)
{
    struct weights *files = f->e->files;
    int n = weights_n_file(files);
    const char **file = calloc((size_t)n, sizeof *file);
    if (!file)
        return err_set(e, ERR_NO_MEMORY, "out of memory for names of files");
    for (int i = 0; i < n; i++)
        file[i] = weights_file(files, i);
    struct expert_reads_ask ask = { .map = f->store.map, .most_places = EXPERT_PROBE_PLACES,
                                    .io = { .file = file, .n_file = n, .one_thread = true } };
    struct expert_reads *r;
    int code = expert_reads_open(&r, &ask, e);
    free(file);
    return code < 0 ? code : probe_reads(f, r, e);
}

/* ---- budgets --------------------------------------------------------------------------------- */

static double drive_rate(const struct fit *out, double hits)
{
    double bytes = out->used_bytes * (1 - hits);
    return bytes > 0 ? out->drive_bytes_per_s / bytes : INFINITY;
}

static void fill_point(struct fit_point *p, const struct fit *out, const struct budget *b)
{
    p->streams = b->is_streaming;
    p->ctx = b->ctx;
    p->too_little = b->is_streaming && (double)b->least > p->memory;
    p->experts = b->is_streaming ? (double)b->experts : out->experts;
    p->share = MIN(1.0, p->experts / out->experts);
    p->hits = p->streams ? expert_expect_hits(p->share, 1) : 1;
    p->hits_low = p->streams ? expert_expect_hits(p->share, 0) : 1;
    p->hits_high = p->streams ? expert_expect_hits(p->share, 2) : 1;
    p->bytes_per_tok = out->used_bytes * (1 - p->hits);
    p->drive_tok_s = drive_rate(out, p->hits);
    double memory = out->memory_bytes_per_s / (out->read_bytes + out->used_bytes);
    p->tok_s = MIN(p->drive_tok_s, memory);
    p->tok_s_low = MIN(drive_rate(out, p->hits_low), memory);
    p->tok_s_high = MIN(drive_rate(out, p->hits_high), memory);
}

/* What does not fit is filled in as well: the plan is the least then. */
static int plan(struct fitting *f, struct budget *b, double memory, struct err *e)
{
    struct err full = { 0 };
    f->budget.memory_bytes = (size_t)memory;
    int code = budget_plan(b, &f->budget, f->e->model, f->e->dev, &full);
    if (code == ERR_NO_MEMORY && b->total > 0)
        return 0;
    return code < 0 ? err_set(e, full.code, "%s", full.text) : 0;
}

static int add_point(struct fitting *f, double memory, bool is_machine, struct err *e)
{
    struct fit *out = f->out;
    struct budget b;
    if (out->n == FIT_MOST)
        return 0;
    struct fit_point *p = &out->point[out->n];
    *p = (struct fit_point){ .memory = memory, .is_machine = is_machine };
    TRY(plan(f, &b, memory, e));
    fill_point(p, out, &b);
    out->n++;
    return 0;
}

/* The least, and what holds everything: with a budget of nothing, and of all there could be. */
static int find_ends(struct fitting *f, struct err *e)
{
    struct budget b;
    TRY(plan(f, &b, 1, e));
    f->out->least = (double)b.least;
    TRY(plan(f, &b, f->out->fixed + f->out->experts, e));
    double beside = (double)(b.total + b.taken) - (double)b.held - (double)b.experts;
    f->out->all = (double)f->budget.mapped + MAX(beside, 0);
    return 0;
}

static int by_memory(const void *a, const void *b)
{
    double x = ((const struct fit_point *)a)->memory, y = ((const struct fit_point *)b)->memory;
    return (x > y) - (x < y);
}

/* Sizes that people have, between both ends; or a quarter of a doubling from one to the next when
 * the model is smaller than any. */
static int add_usual(struct fitting *f, struct err *e)
{
    static const double usual[] = { 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256,
                                    384, 512, 768, 1024 };
    const struct fit *out = f->out;
    double least = out->least, all = out->all;
    TRY(add_point(f, least, false, e));
    for (size_t i = 0; i < COUNT_OF(usual); i++)
        if (usual[i] * GB > 1.02 * least && usual[i] * GB < 0.98 * all)
            TRY(add_point(f, usual[i] * GB, false, e));
    for (double m = MAX(least, 1e6) * 1.19; out->n < 3 || m < MIN(all, 3.6 * GB); m *= 1.19)
        if (m < 0.98 * all)
            TRY(add_point(f, m, false, e));
        else
            break;
    return add_point(f, all, false, e);
}

static int add_points(struct fitting *f, const struct fit_ask *ask, struct err *e)
{
    for (int i = 0; i < ask->n_memory; i++)
        TRY(add_point(f, ask->memory[i], false, e));
    if (ask->n_memory == 0)
        TRY(add_usual(f, e));
    if (f->out->machine > 0)
        TRY(add_point(f, f->out->machine, true, e));
    qsort(f->out->point, (size_t)f->out->n, sizeof f->out->point[0], by_memory);
    return 0;
}

int fit(struct fit *out, dstar_engine *engine, const struct fit_ask *ask, struct err *e)
{
    *out = (struct fit){ .drive_bytes_per_s = ask->drive_bytes_per_s };
    struct fitting f = { .e = engine_of(engine), .out = out };
    int code = begin(&f, ask, e);
    if (code == 0 && ask->drive_bytes_per_s <= 0)
        code = probe_drive(&f, e);
    if (code == 0)
        code = measure_reading(&out->memory_bytes_per_s, ask->n_thread, e);
    if (code == 0)
        code = find_ends(&f, e);
    if (code == 0)
        code = add_points(&f, ask, e);
    free(f.layer);
    return code;
}
