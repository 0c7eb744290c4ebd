/* cmd_quantize.c - `dstar quantize`: a model in fewer bits, by a recipe. */
#include <stdio.h>

#include "commands.h"
#include "file.h"
#include "host.h"
#include "interrupt.h"
#include "log.h"
#include "offline.h"
#include "term.h"

struct quantize_opts {
    const char *out, *recipe, *imatrix, *hessian, *sensitivity;
    uint64_t upgrade_bytes;
    int search, shape, threads;
    bool dry_run, verify, restart, quiet;
};

#define AT(field) offsetof(struct quantize_opts, field)

static const struct opt options[] = {
    { "out", 'o', OPT_TEXT, "FILE", AT(out), 0, 0, NULL, "the file to write" },
    { "recipe", 'r', OPT_TEXT, "NAME", AT(recipe), 0, 0, "q2",
      "q2, q2-q4attn, q4, lossless, or a file of rules" },
    { "imatrix", 0, OPT_TEXT, "FILE", AT(imatrix), 0, 0, NULL,
      "importance matrix: which inputs matter" },
    { "hessian", 0, OPT_TEXT, "FILE", AT(hessian), 0, 0, NULL,
      "how inputs go together: later columns answer for errors of earlier ones" },
    { "upgrade-budget", 0, OPT_BYTES, "SIZE", AT(upgrade_bytes), 0, 0, "0",
      "bytes to spend on routed experts in MXFP4 in the layers that need it most" },
    { "sensitivity", 0, OPT_TEXT, "FILE", AT(sensitivity), 0, 0, NULL,
      "which these are: lines of LAYER KL, as tools/sensitivity measures them" },
    { "search", 0, OPT_WORD, "fast|exact", AT(search), 0, 0, NULL,
      "for all tensors; exact: IQ2_XXS blocks that cannot be better, five times slower" },
    { "threads", 't', OPT_INT, "N", AT(threads), 0, 4096, "0", "threads; 0: all processors" },
    { "dry-run", 'n', OPT_FLAG, NULL, AT(dry_run), 0, 0, NULL, "print sizes, write nothing" },
    { "shape", 0, OPT_WORD, "flash|pro", AT(shape), 0, 0, NULL,
      "with --dry-run: this model instead of MODEL" },
    { "verify", 0, OPT_FLAG, NULL, AT(verify), 0, 0, NULL,
      "print the error of every tensor of FILE; write it first unless it is there" },
    { "restart", 0, OPT_FLAG, NULL, AT(restart), 0, 0, NULL,
      "forget what an interrupted call has finished" },
    { "quiet", 'q', OPT_FLAG, NULL, AT(quiet), 0, 0, NULL, "say nothing but errors" },
};

static void remark(void *user, int level, const char *text)
{
    (void)user;
    term_error("%s%s", level == LOG_WARN ? "warning: " : "", text);
}

/* One progress line for each phase. */
struct phase {
    struct progress progress;
    const char *what;
};

static bool show(void *user, const char *what, double share)
{
    struct phase *p = user;
    if (p->what != what) {
        if (p->what)
            progress_end(&p->progress);
        progress_begin(&p->progress, what, "", share);
        p->what = what;
    }
    progress_show(&p->progress, share, 1);
    return interrupt_seen();
}

/* Run one of the three; what it has to say goes to standard output. */
static int work(const struct quantize_opts *o, const struct quantize_options *q, struct err *e)
{
    struct buf text;
    int code = 0;
    buf_init(&text, (size_t)1 << 26);
    if (o->dry_run)
        code = quantize_plan_text(q, &text, e);
    else if (!o->verify || !file_exists(q->out))
        code = quantize_run(q, e);
    if (code == 0 && o->verify)
        code = quantize_verify(q, &text, e);
    struct phase *p = q->user;
    if (p->what)
        progress_end(&p->progress);
    printf("%s", code == 0 && text.data ? text.data : "");
    buf_release(&text);
    return code;
}

int cmd_quantize(const struct command *command, int n, char **arg)
{
    static const char *const shape[] = { "flash", "pro" };
    struct quantize_opts o = { .shape = -1, .search = -1 };
    struct opt_group group[1] = { { "quantize", options, COUNT_OF(options), &o } };
    struct words words;
    struct phase phase = { .what = NULL };
    struct err e = { 0 };
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (o.shape >= 0 && (!o.dry_run || words.n || o.imatrix || o.hessian))
        return opts_wrong(command, "--shape goes with --dry-run, without MODEL, --imatrix and "
                                   "--hessian");
    if ((o.upgrade_bytes > 0) != (o.sensitivity != NULL))
        return opts_wrong(command, "--upgrade-budget and --sensitivity go together");
    if (o.dry_run && o.verify)
        return opts_wrong(command, "--dry-run writes nothing to --verify");
    if (words.n != (o.shape < 0) || (!o.out && !o.dry_run))
        return opts_wrong(command, "expected one MODEL and -o FILE");
    struct log log = { remark, NULL };
    struct quantize_options q = {
        .src = words.n ? words.word[0] : NULL,
        .out = o.out,
        .shape = o.shape < 0 ? NULL : shape[o.shape],
        .recipe = o.recipe,
        .imatrix = o.imatrix,
        .hessian = o.hessian,
        .sensitivity = o.sensitivity,
        .upgrade_bytes = (int64_t)MIN(o.upgrade_bytes, INT64_MAX),
        .exact = o.search == 1,
        .restart = o.restart,
        .n_thread = o.threads,
        .log = o.quiet ? NULL : &log,
        .progress = show,
        .user = &phase,
    };
    interrupt_catch(NULL);
    int code = work(&o, &q, &e);
    if (code == ERR_CANCELLED && interrupt_seen()) {
        if (!o.quiet)
            term_error("%s", e.text);
        return EXIT_INTERRUPTED;
    }
    if (code < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    return EXIT_DONE;
}
