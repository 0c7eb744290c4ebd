/* cmd_import.c - `dstar import`: a checkpoint folder becomes one GGUF file. */
#include "commands.h"
#include "host.h"
#include "interrupt.h"
#include "log.h"
#include "offline.h"
#include "term.h"

struct import_opts {
    const char *out;
    int dense, profile;
    bool no_mtp, quiet;
};

#define AT(field) offsetof(struct import_opts, field)

static const struct opt options[] = {
    { "out", 'o', OPT_TEXT, "FILE", AT(out), 0, 0, NULL, "the file to write" },
    { "dense", 0, OPT_WORD, "bf16|q8_0", AT(dense), 0, 0, "bf16",
      "attention, shared experts and head: exactly (BF16), or smaller (Q8_0)" },
    { "no-mtp", 0, OPT_FLAG, NULL, AT(no_mtp), 0, 0, NULL, "leave the draft block out" },
    { "profile", 0, OPT_WORD, "preview|0731", AT(profile), 0, 0, NULL,
      "release whose words for the strength of thinking the model knows" },
    { "quiet", 'q', OPT_FLAG, NULL, AT(quiet), 0, 0, NULL, "say nothing but errors" },
};

static void remark(void *user, int level, const char *text)
{
    (void)user;
    term_error("%s%s", level == LOG_WARN ? "warning: " : "", text);
}

static bool show(void *user, int64_t done_bytes, int64_t total_bytes)
{
    progress_show(user, (double)done_bytes / 1e6, (double)total_bytes / 1e6);
    return interrupt_seen();
}

int cmd_import(const struct command *command, int n, char **arg)
{
    static const char *const profile[] = { "preview", "0731" };
    struct import_opts o = { .profile = -1 };
    struct opt_group group[1] = { { "import", options, COUNT_OF(options), &o } };
    struct words words;
    struct progress progress;
    struct err e = { 0 };
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n != 1 || !o.out)
        return opts_wrong(command, "expected one FOLDER and -o FILE");
    struct log log = { remark, NULL };
    struct import_options import = {
        .dir = words.word[0],
        .out = o.out,
        .dense = o.dense ? IMPORT_DENSE_Q8_0 : IMPORT_DENSE_EXACT,
        .no_mtp = o.no_mtp,
        .profile = o.profile < 0 ? NULL : profile[o.profile],
        .log = o.quiet ? NULL : &log,
        .progress = show,
        .user = &progress,
    };
    interrupt_catch(NULL);
    progress_begin(&progress, "writing", "MB", 0);
    int code = import_run(&import, &e);
    progress_end(&progress);
    if (code == ERR_CANCELLED && interrupt_seen())
        return EXIT_INTERRUPTED;
    if (code < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    return EXIT_DONE;
}
