/* stream.c - opening and closing what reads experts when needed.
 *
 * The model is opened twice: as it is mapped it can be planned for, and only the plan tells whether
 * it has to be streamed. Opening it costs milliseconds as long as no weight is touched.
 *
 * A file of popular experts is a hint: one of another model, or damaged, is said and left alone. */
#define _GNU_SOURCE
#include "stream.h"

#include "expert_expect.h"
#include "expert_probe.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_PROFILE_BYTES ((size_t)64 << 20)

int stream_list(struct engine *e, const struct dstar_options *o, struct expert_shelf_ask *ask,
                struct err *err)
{
    int n_layer = model_info(e->model)->n_kv_layer, n_file = weights_n_file(e->files);
    *ask = (struct expert_shelf_ask){ .map = model_expert_map(e->model), .log = e->log };
    if (!aio_path_named(&ask->io.path, o->ssd_io ? o->ssd_io : "auto"))
        return err_set(err, ERR_ARGUMENT, "options: ssd_io is \"%s\", expected auto, uring-direct, "
                       "uring-buffered, pool-direct or pool-buffered", o->ssd_io);
    if (!e->layers)
        e->layers = calloc((size_t)n_layer, sizeof *e->layers);
    if (!e->paths)
        e->paths = calloc((size_t)n_file, sizeof *e->paths);
    if (!e->layers || !e->paths)
        return err_set(err, ERR_NO_MEMORY, "%s: out of memory", e->path);
    model_experts(e->model, e->layers);
    for (int i = 0; i < n_file; i++)
        e->paths[i] = weights_file(e->files, i);
    ask->layer = e->layers;
    ask->io.file = e->paths;
    ask->io.n_file = n_file;
    ask->bytes = e->budget.experts;
    return 0;
}

/* ---- what was popular ------------------------------------------------------------------------ */

static int profile_open(struct expert_profile *p, const struct engine *e, struct err *err)
{
    const struct expert_map *map = model_expert_map(e->model);
    *p = (struct expert_profile){ .n_layer = map->n_layer, .n_expert = map->n_expert };
    for (int i = 0; i < 32; i++)
        snprintf(p->model + 2 * i, 3, "%02x", e->identity.identity[i]);
    p->count = calloc((size_t)map->n_layer * (size_t)map->n_expert, sizeof *p->count);
    return p->count ? 0 : err_set(err, ERR_NO_MEMORY, "out of memory for popular experts");
}

static int read_popular(const char *path, struct expert_profile *p, struct err *err)
{
    struct buf text;
    buf_init(&text, MAX_PROFILE_BYTES);
    int code = file_read_all(&text, path, err);
    if (code == 0)
        code = expert_profile_read(p, text.data ? text.data : "", text.len, path, err);
    buf_release(&text);
    return code;
}

int stream_popular(struct engine *e, const struct dstar_options *o, struct expert_profile *p,
                   struct err *err)
{
    struct err why = { 0 };
    if (!o->popular || !file_exists(o->popular))
        return 0;
    TRY(profile_open(p, e, err));
    if (read_popular(o->popular, p, &why) == 0)
        return 1;
    log_put(&e->log, LOG_WARN, "%s; it is not used", why.text);
    free(p->count);
    return 0;
}

static int take_popular(struct engine *e, const struct dstar_options *o,
                        const struct report *told, struct err *err)
{
    struct expert_profile p;
    int code = stream_popular(e, o, &p, err);
    if (code <= 0)
        return code;
    code = expert_store_popular(e->store, &p, told, err);
    free(p.count);
    return code;
}

int stream_keep(struct engine *e, const struct dstar_options *o, struct err *err)
{
    e->popular = o->popular ? strdup(o->popular) : NULL;
    return e->popular || !o->popular ? 0 : err_set(err, ERR_NO_MEMORY, "%s: out of memory",
                                                   o->popular);
}

/* What the device counted, on top of what was read; 0: nothing. */
static int take_counts(struct engine *e, struct expert_profile *p, struct err *err)
{
    size_t bytes = (size_t)p->n_layer * (size_t)p->n_expert * sizeof *p->count;
    uint32_t *uses = malloc(bytes);
    if (!uses)
        return err_set(err, ERR_NO_MEMORY, "%s: out of memory", e->popular);
    if (e->popular_count)
        memcpy(p->count, e->popular_count, bytes);
    int code = dev_copy_now(e->dev, uses, e->dev->uses, bytes, err);
    if (code == 0)
        code = expert_profile_add(p, uses, model_info(e->model)->n_used, err);
    free(uses);
    return code;
}

static int write_profile(const struct engine *e, const struct expert_profile *p, struct err *err)
{
    struct file_out f;
    struct buf text;
    buf_init(&text, MAX_PROFILE_BYTES);
    expert_profile_write(p, &text);
    int code = file_out_open(&f, e->popular, err);
    if (code == 0) {
        code = text.failed ? err_set(err, ERR_NO_MEMORY, "%s: out of memory", e->popular)
                           : file_out_write(&f, text.data, text.len, err);
        if (code == 0)
            code = file_out_commit(&f, err);
        file_out_abort(&f);
    }
    buf_release(&text);
    return code;
}

static int write_popular(struct engine *e, struct err *err)
{
    struct expert_profile p;
    TRY(profile_open(&p, e, err));
    int code = e->store ? expert_store_profile(e->store, &p) : take_counts(e, &p, err);
    if (code > 0)
        code = write_profile(e, &p, err);
    free(p.count);
    return code;
}

/* ---- what a conversation used ---------------------------------------------------------------- */

void stream_list_used(const struct engine *e, struct buf *out)
{
    struct expert_profile p;
    struct err why = { 0 };
    if (!e->store)
        return;
    if (profile_open(&p, e, &why) < 0) {
        out->failed = true;
        return;
    }
    if (expert_store_profile(e->store, &p))
        for (int k = 0; k < p.n_layer * p.n_expert; k++) {
            struct stream_used u = { (uint16_t)(k / p.n_expert), (uint16_t)(k % p.n_expert),
                                     p.count[k] };
            if (u.count > 0)
                buf_add(out, &u, sizeof u);
        }
    free(p.count);
}

static int is_cancelled(void *user, const char *what, double done)
{
    (void)what;
    (void)done;
    return atomic_load((atomic_int *)user);
}

void stream_restore(struct engine *e, const void *used, int n, atomic_int *cancelled)
{
    struct report told = { is_cancelled, cancelled };
    struct expert_profile p;
    struct err why = { 0 };
    if (!e->store || n == 0)
        return;
    int code = profile_open(&p, e, &why);
    if (code == 0) {
        for (int i = 0; i < n; i++) {
            struct stream_used u;
            memcpy(&u, (const char *)used + sizeof u * (size_t)i, sizeof u);
            p.count[u.layer * p.n_expert + u.expert] = u.count;
        }
        code = expert_store_restore(e->store, &p, &told, &why);
        free(p.count);
    }
    if (code < 0 && code != ERR_CANCELLED)
        log_put(&e->log, LOG_WARN, "%s: experts of a conversation are not read ahead", why.text);
}

/* ---- open and close -------------------------------------------------------------------------- */

/* Experts that there are, and bytes of those that a token uses. */
static int count_experts(const struct expert_shelf_ask *ask, double *used_bytes)
{
    const struct expert_map *map = ask->map;
    int n = 0;
    *used_bytes = 0;
    for (int l = 0; l < map->n_layer; l++) {
        double bytes = (double)expert_map_bytes(map, l * map->n_expert);
        n += bytes > 0 ? map->n_expert : 0;
        *used_bytes += bytes * ask->layer[l].n_used;
    }
    return n;
}

/* What the drive allows with so many experts in memory; nothing when it was not measured. */
static void tell_rate(const struct engine *e, double drive, double share, double used_bytes)
{
    double missed = used_bytes * (1 - expert_expect_hits(share, 1));
    bool is_slow = drive < EXPERT_PROBE_SLOW || e->budget.taken + e->budget.total >
                                                    e->budget.available;
    if (drive > 0 && missed > 0)
        log_put(&e->log, is_slow ? LOG_WARN : LOG_INFO, "%s: the drive gives %.2f GB of experts "
                "a second: about %.2g tokens a second at most are expected", e->path, drive / 1e9,
                drive / missed);
}

/* How experts come, once, and why no better way was taken. */
static void tell(const struct engine *e, const struct expert_shelf_ask *ask)
{
    const struct aio_info *io = NULL;
    struct expert_shelf_stats stats;
    double used_bytes, drive = 0;
    int n_slot = 0, n = count_experts(ask, &used_bytes);
    for (int i = 0; i < expert_store_n_shelf(e->store); i++) {
        const struct expert_shelf *shelf = expert_store_shelf(e->store, i);
        expert_shelf_stats(shelf, &stats);
        n_slot += expert_shelf_slots(shelf)->n_slot;
        drive = MAX(drive, stats.probe_bytes_per_s);
        io = expert_reads_io(expert_shelf_reads(shelf));
    }
    log_put(&e->log, LOG_INFO, "%s: %d of %d experts fit into %s; others are read when needed (%s)",
            e->path, n_slot, n, bytes_text((double)e->budget.experts).s, aio_path_name(io->path));
    if (*io->refused)
        log_put(&e->log, LOG_WARN, "%s: experts are read by %s; %s", e->path,
                aio_path_name(io->path), io->refused);
    if (!stats.locked)
        log_put(&e->log, LOG_INFO, "%s: memory for experts is not locked: %s of it may be", e->path,
                bytes_text((double)stats.lock_limit).s);
    tell_rate(e, drive, (double)n_slot / n, used_bytes);
}

/* A part of opening: 0 to 1 of it are from .. to of all. */
struct opening {
    const struct dstar_options *o;
    double from, to, last;
};

static int tell_opening(void *user, const char *what, double done)
{
    struct opening *p = user;
    p->last = MAX(p->last, p->from + (p->to - p->from) * done); /* shelves each begin anew */
    return p->o->progress ? p->o->progress(p->o->progress_user, what, p->last) : 0;
}

int stream_open(struct engine *e, const struct dstar_options *o, struct err *err)
{
    struct opening part = { o, .2, .5, .2 };
    const struct report told = { tell_opening, &part };
    struct model_options m = { .simulate = o->cache_simulation, .with_mtp = o->mtp, .hold = true,
                               .told = &told };
    struct expert_shelf_ask ask;
    model_close(e->model);
    e->model = NULL;
    weights_forget(e->files);
    TRY(model_open(&e->model, e->files, e->dev, &m, err));
    TRY(stream_list(e, o, &ask, err));
    part.from = .5;
    part.to = .9;
    ask.told = &told;
    TRY(expert_store_open(&e->store, &ask, err));
    part.from = .9;
    part.to = 1;
    model_use_store(e->model, e->store);
    weights_forget(e->files);
    tell(e, &ask);
    TRY(stream_keep(e, o, err));
    return take_popular(e, o, &told, err);
}

void stream_close(struct engine *e)
{
    struct err why = { 0 };
    if (e->popular && write_popular(e, &why) < 0)
        log_put(&e->log, LOG_WARN, "%s", why.text);
    expert_store_close(e->store);
    free(e->layers);
    free(e->paths);
    free(e->popular);
    free(e->popular_count);
}
