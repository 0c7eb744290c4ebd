/* cmd_synth.c - `dstar synth`: a model of any shape and recipe with random weights. */
#include <stdlib.h>

#include "commands.h"
#include "engine_opts.h"
#include "interrupt.h"
#include "log.h"
#include "offline.h"
#include "synth_opts.h"
#include "term.h"

struct synth_cmd {
    const char *out;
    struct synth_opts model;
    int format, threads;
    bool quiet;
};

#define AT(field) offsetof(struct synth_cmd, field)

static const struct opt options[] = {
    { "out", 'o', OPT_TEXT, "FILE", AT(out), 0, 0, NULL,
      "the file to write; with --format vendor, the folder" },
    { "format", 0, OPT_WORD, "gguf|vendor", AT(format), 0, 0, NULL,
      "vendor: a checkpoint folder in FP8, FP4 and BF16, whatever --quant says; else gguf" },
    { "threads", 't', OPT_INT, "N", AT(threads), 0, 4096, "0", "threads; 0: all processors" },
    { "quiet", 'q', OPT_FLAG, NULL, AT(quiet), 0, 0, NULL, "say nothing but errors" },
};

static void remark(void *user, int level, const char *text)
{
    (void)user;
    term_error("%s%s", level == LOG_WARN ? "warning: " : "", text);
}

static bool show(void *user, const char *what, double share)
{
    (void)what;
    progress_show(user, share, 1);
    return interrupt_seen();
}

int cmd_synth(const struct command *command, int n, char **arg)
{
    struct synth_cmd o = { 0 };
    struct opt_group group[2] = { { "synth", options, COUNT_OF(options), &o },
                                  synth_group(&o.model) };
    struct words words;
    struct progress progress;
    struct err e = { 0 };
    struct log log = { remark, NULL };
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n || !o.out)
        return opts_wrong(command, "expected -o FILE and options");
    struct synth_options s;
    char *text = synth_fill_options(&s, &o.model);
    if (!text)
        return EXIT_ERROR;
    s.out = o.out;
    s.n_thread = o.threads;
    s.format = o.format == 1 ? SYNTH_VENDOR : SYNTH_GGUF;
    if (s.format == SYNTH_VENDOR)
        s.recipe = "lossless";
    s.log = o.quiet ? NULL : &log;
    s.progress = show;
    s.user = &progress;
    interrupt_catch(NULL);
    progress_begin(&progress, "writing", "", 0);
    int code = synth_run(&s, &e);
    progress_end(&progress);
    free(text);
    if (code == ERR_CANCELLED && interrupt_seen())
        return EXIT_INTERRUPTED;
    if (code < 0)
        term_error("%s", e.text);
    return code < 0 ? EXIT_ERROR : EXIT_DONE;
}
