/* bench_model.c - open what is to be measured. */
#include "bench_model.h"

#include <stdlib.h>

#include "interrupt.h"
#include "term.h"

#define AT(field) offsetof(struct bench_model, field)

static const struct opt options[] = {
    { "synth", 0, OPT_WORD, "flash|pro|small", AT(shape), 0, 0, NULL,
      "instead of a file a random model of this shape, made in memory (dstar help synth)" },
    { "routes", 0, OPT_TEXT, "TRACE", AT(routes), 0, 0, NULL,
      "use the experts that a file of dstar trace names, not those the model would" },
};

void bench_model_groups(struct opt_group group[BENCH_MODEL_GROUPS], struct bench_model *m)
{
    *m = (struct bench_model){ .shape = -1, .memory = { .fd = -1 } };
    group[0] = (struct opt_group){ "what is measured", options, COUNT_OF(options), m };
    group[1] = synth_rest_group(&m->synth);
    group[2] = engine_group(&m->opts);
}

static bool show(void *user, const char *what, double share)
{
    (void)what;
    progress_show(user, share, 1);
    return interrupt_seen();
}

static int make(struct bench_model *m)
{
    struct synth_options s;
    struct progress progress;
    struct err e = { 0 };
    m->synth.shape = m->shape;
    char *text = synth_fill_options(&s, &m->synth);
    if (!text)
        return EXIT_ERROR;
    s.n_thread = m->opts.threads;
    s.counted = strncmp(m->opts.device, "cuda", 4) == 0; /* made there */
    if (strcmp(m->opts.device, "auto") == 0)
        m->opts.device = "cpu"; /* where it is made */
    s.progress = show;
    s.user = &progress;
    progress_begin(&progress, "making a model", "", 0);
    int code = synth_memory(&s, &m->memory, &e);
    progress_end(&progress);
    free(text);
    if (code < 0)
        term_error("%s", e.text);
    m->opts.model = m->memory.path;
    return code < 0 ? EXIT_ERROR : 0;
}

int bench_model_open(struct bench_model *m)
{
    struct err e = { 0 };
    if (m->shape >= 0) {
        int status = make(m);
        if (status != 0)
            return status;
    }
    m->opts.quiet = true;
    int status = engine_start(&m->engine, &m->opts);
    if (status != 0 || !m->routes)
        return status;
    if (impose_begin(&m->imposed, m->engine, m->routes, &e) == 0)
        return 0;
    term_error("%s", e.text);
    return EXIT_ERROR;
}

void bench_model_close(struct bench_model *m)
{
    impose_end(m->imposed);
    dstar_close(m->engine);
    file_memory_close(&m->memory);
}
