/* engine_opts.c - find the model, open it, tell the user what was chosen. */
#define _GNU_SOURCE
#include "engine_opts.h"

#include <stdlib.h>

#include "file.h"
#include "host.h"
#include "interrupt.h"
#include "term.h"

#define AT(field) offsetof(struct engine_opts, field)

static const struct opt options[] = {
    { "model", 'm', OPT_TEXT, "FILE", AT(model), 0, 0, NULL,
      "GGUF file or checkpoint folder; else $DSTAR_MODEL, else bundled" },
    { "verbose", 'v', OPT_FLAG, NULL, AT(verbose), 0, 0, NULL, "show all remarks of the library" },
    { "ctx", 'c', OPT_INT, "N", AT(ctx), 0, 1 << 24, "0",
      "tokens a conversation may have; 0: as memory allows" },
    { "threads", 't', OPT_INT, "N", AT(threads), 0, 4096, "0",
      "processors to use; 0: all that may be used" },
    { "memory", 0, OPT_MEMORY, "SIZE", AT(memory_bytes), 0, 0, "auto",
      "all the memory that may be taken, such as 8GB, or 30% of the machine's; a model that is "
      "larger reads experts when needed; auto: what is free" },
    { "gpu-memory", 0, OPT_BYTES, "SIZE", AT(gpu_memory_bytes), 0, 0, "0",
      "a GPU's memory that may be taken, such as 40G; experts beyond it stay in the host's, which "
      "--memory limits, and are read from there; 0: what is free" },
    { "ssd-io", 0, OPT_TEXT, "WAY", AT(ssd_io), 0, 0, "auto",
      "how experts are read: uring-direct, uring-buffered, pool-direct, pool-buffered; auto: the "
      "best there is" },
    { "popular", 0, OPT_TEXT, "FILE", AT(popular), 0, 0, NULL,
      "popular experts: those of FILE are read at the start, or lie in the GPU's memory, and FILE "
      "is written at the end; not used by a processor with the whole model in memory" },
    { "cache-simulation", 0, OPT_WORD, "none|vendor", AT(cache_simulation), 0, 0, NULL,
      "round cached rows as the vendor does, or not; else as the file says" },
    { "exact", 0, OPT_FLAG, NULL, AT(exact), 0, 0, NULL,
      "never round activations to 8 bits; slower" },
    { "profile", 0, OPT_WORD, "file|preview|0731", AT(profile), 0, 0, "file",
      "release whose words for thinking are used" },
    { "device", 0, OPT_TEXT, "DEVICE", AT(device), 0, 0, "auto",
      "what computes: cpu; cuda or cuda:N, an NVIDIA GPU; ref: the scalar definition, slow; auto: "
      "the first GPU if the model has 1 GB or more and fits, else the processor; -v says why" },
    { "cpu", 0, OPT_WORD, "scalar|avx2|avx512|amx|neon", AT(cpu), 0, 0, NULL,
      "strongest instruction set that may be used" },
};

struct opt_group engine_group(struct engine_opts *o)
{
    *o = (struct engine_opts){ .cpu = -1, .cache_simulation = -1 };
    return (struct opt_group){ "model", options, COUNT_OF(options), o };
}

struct opt_group tokens_group(struct engine_opts *o)
{
    struct opt_group g = engine_group(o);
    o->part = DSTAR_TOKENS;
    g.n = 2;
    return g;
}

char *engine_model(const struct engine_opts *o)
{
    const char *named = o->model ? o->model : opts_env("DSTAR_MODEL");
    if (named)
        return strdup(named);
    char *dir = host_program_dir(), *beside = NULL, *shared = NULL, *found = NULL;
    if (dir) {
        beside = path_join(dir, "pebble.gguf");
        shared = path_join(dir, "../share/dwarfstar/pebble.gguf");
    }
    if (beside && file_exists(beside))
        found = beside;
    else if (shared && file_exists(shared))
        found = shared;
    else
        term_error("no model: give one with -m FILE or DSTAR_MODEL; the bundled one is neither %s "
                   "nor %s", beside ? beside : "beside the program",
                   shared ? shared : "in ../share/dwarfstar");
    if (found != beside)
        free(beside);
    if (found != shared)
        free(shared);
    free(dir);
    return found;
}

static int opening(void *user, const char *what, double done)
{
    struct progress *p = user;
    p->what = what;
    progress_show(p, done, 1);
    return interrupt_seen();
}

/* user: not NULL when all remarks are wanted. */
static void remark(void *user, int level, const char *text)
{
    if (level == DSTAR_LOG_WARN || user)
        term_error("%s%s", level == DSTAR_LOG_WARN ? "warning: " : "", text);
}

static void greet(const dstar_engine *engine, const struct engine_opts *o)
{
    const struct dstar_info *info = dstar_engine_info(engine);
    if (o->part != DSTAR_ALL || o->quiet)
        return;
    term_remark("%s on %s; context %d tokens: %s", info->name, info->device, info->ctx,
                info->ctx_why);
    if (!o->model && !opts_env("DSTAR_MODEL"))
        term_remark("(the bundled model: small, knows formats, not facts; another one: -m FILE)");
}

int engine_start(dstar_engine **engine, const struct engine_opts *o)
{
    static const char *const cpu[] = { "scalar", "avx2", "avx512", "amx", "neon" };
    char *model = engine_model(o);
    if (!model)
        return EXIT_ERROR;
    struct dstar_options open;
    struct dstar_error error;
    struct progress p;
    progress_begin(&p, "opening", "", 0);
    dstar_options_init(&open);
    open.model = model;
    open.part = o->part;
    open.device = o->device;
    open.cpu = o->cpu < 0 ? NULL : cpu[o->cpu];
    open.threads = o->threads;
    open.exact = o->exact;
    open.ctx = o->ctx;
    open.max_rows = o->max_rows;
    open.memory_bytes = o->memory_bytes;
    open.gpu_memory_bytes = o->gpu_memory_bytes;
    open.cache_simulation = o->cache_simulation;
    open.mtp = o->mtp;
    open.profile = o->profile;
    open.ssd_io = o->ssd_io;
    open.popular = o->popular;
    open.log = remark;
    open.log_user = o->verbose ? "" : NULL;
    open.progress = opening;
    open.progress_user = &p;
    int code = dstar_open(engine, &open, &error);
    progress_end(&p);
    free(model);
    if (code < 0)
        return fault_print(&error);
    greet(*engine, o);
    return 0;
}
