/* cmd_eval_kl.c - `dstar eval kl`: how far a model is from what another has said. */
#include "commands.h"
#include "engine_opts.h"
#include "interrupt.h"
#include "kl_report.h"
#include "term.h"

struct kl_opts {
    struct engine_opts model;
    const char *reference, *label;
    int nth, chunk;
    bool json;
};

#define AT(field) offsetof(struct kl_opts, field)

static const struct opt options[] = {
    { "reference", 0, OPT_TEXT, "FILE", AT(reference), 0, 0, NULL,
      "what to compare with: a file of dstar eval reference" },
    { "label", 0, OPT_TEXT, "TEXT", AT(label), 0, 0, NULL,
      "name in tables and plots; else the model's file name" },
    { "nth", 0, OPT_INT, "N", AT(nth), 1, 1 << 24, "1", "only every Nth text" },
    { "chunk", 0, OPT_INT, "N", AT(chunk), 0, 1 << 24, "0",
      "tokens computed at once, which changes nothing but memory and time; 0: as many as fit" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL,
      "print one JSON object, with every text, for dstar eval compare" },
};

static bool show(void *user, int64_t done, int64_t total)
{
    progress_show(user, (double)done, (double)total);
    return interrupt_seen();
}

/* Negative: an error; else the exit status. */
static int measure(dstar_engine *engine, const struct kl_opts *o, struct err *e)
{
    struct reference *r;
    struct divergence d;
    struct progress progress;
    struct divergence_plan plan = { o->chunk, o->nth, show, &progress };
    TRY(reference_open(&r, o->reference, e));
    progress_begin(&progress, "evaluating", "tokens", 0);
    int code = divergence_measure(&d, engine, r, &plan, e);
    progress_end(&progress);
    struct kl_report report = { dstar_engine_info(engine), o->label, o->model.exact, &d, r };
    int status = EXIT_DONE;
    if (code == 0 && o->json)
        status = kl_report_json(&report);
    else if (code == 0)
        kl_report_tables(&report);
    if (code == 0)
        divergence_release(&d);
    reference_close(r);
    return code < 0 ? code : status;
}

int cmd_eval_kl(const struct command *command, int n, char **arg)
{
    struct kl_opts o = { 0 };
    struct err e = { 0 };
    dstar_engine *engine = NULL;
    struct opt_group group[2] = { { "evaluation", options, COUNT_OF(options), &o },
                                  engine_group(&o.model) };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n || !o.reference)
        return opts_wrong(command, "expected --reference FILE, and nothing else");
    interrupt_catch(NULL);
    status = engine_start(&engine, &o.model);
    if (status == 0)
        status = measure(engine, &o, &e);
    if (e.code < 0 && e.code != ERR_CANCELLED)
        term_error("%s", e.text);
    dstar_close(engine);
    return e.code == ERR_CANCELLED ? EXIT_INTERRUPTED : e.code < 0 ? EXIT_ERROR : status;
}
