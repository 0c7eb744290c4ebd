/* cmd_calibrate.c - `dstar calibrate`: which inputs matter to a model, from texts it reads. */
#include <stdio.h>

#include "commands.h"
#include "engine_opts.h"
#include "interrupt.h"
#include "measure.h"
#include "term.h"

struct calibrate_opts {
    struct engine_opts model;
    const char *out, *hessian, *profile;
    struct opt_texts corpus, merge;
    struct opt_ints own;
    double temperature;
    uint64_t seed, limit;
    int answer, piece, save_every;
    bool resume, no_sums, strict;
};

#define AT(field) offsetof(struct calibrate_opts, field)

static const struct opt options[] = {
    { "out", 'o', OPT_TEXT, "FILE", AT(out), 0, 0, NULL, "importance matrix to write" },
    { "corpus", 0, OPT_TEXTS, "FILE", AT(corpus), 0, 0, NULL,
      "texts: .jsonl with text or messages on each line, else plain text; may be repeated" },
    { "continue", 0, OPT_INT, "N", AT(answer), 0, 1 << 24, "0",
      "let the model go on for at most N tokens after each text, and see these, too; a last "
      "message of the assistant is then left for it to say" },
    { "temp", 0, OPT_REAL, "X", AT(temperature), 0, 100, "0",
      "how these are drawn; 0: always the likeliest" },
    { "seed", 's', OPT_COUNT, "N", AT(seed), 0, 0, "0", "of the random numbers" },
    { "hessian", 0, OPT_TEXT, "FILE", AT(hessian), 0, 0, NULL,
      "also how the experts' inputs go together, for error feedback; every eighth text is kept "
      "apart to judge by" },
    { "hessian-experts", 0, OPT_INTS, "L,L", AT(own), 0, 1 << 16, NULL,
      "layers in which it also has sums for each expert alone; of V4-Flash 45 GB of memory each" },
    { "expert-profile", 0, OPT_TEXT, "FILE", AT(profile), 0, 0, NULL,
      "also how popular each expert was" },
    { "no-sums", 0, OPT_FLAG, NULL, AT(no_sums), 0, 0, NULL,
      "write sums of squares alone, half the size; quantize then knows no means" },
    { "piece", 0, OPT_INT, "N", AT(piece), 1, 1 << 24, "2048",
      "cut plain texts into pieces of N tokens" },
    { "limit", 0, OPT_COUNT, "N", AT(limit), 0, 0, "0",
      "begin no text once N tokens are computed; 0: take all" },
    { "strict", 0, OPT_FLAG, NULL, AT(strict), 0, 0, NULL,
      "fail when more than one expert in a hundred saw fewer than 256 tokens" },
    { "save-every", 0, OPT_INT, "N", AT(save_every), 1, 1 << 24, "64",
      "keep what is done in FILE.state after every N texts" },
    { "resume", 0, OPT_FLAG, NULL, AT(resume), 0, 0, NULL, "go on from FILE.state" },
    { "merge", 0, OPT_TEXTS, "FILE", AT(merge), 0, 0, NULL,
      "no model: add up importance matrices; two at least" },
};

static bool show(void *user, double share, int64_t n_token)
{
    (void)n_token;
    progress_show(user, share, 1);
    return interrupt_seen();
}

static int finish(int code, const struct err *e)
{
    if (code == 0)
        return EXIT_DONE;
    term_error("%s", e->text);
    return code == ERR_CANCELLED && interrupt_seen() ? EXIT_INTERRUPTED : EXIT_ERROR;
}

static int calibrate(const struct calibrate_opts *o)
{
    struct progress progress;
    struct calibrate_options job = {
        .corpus = o->corpus.text,
        .n_corpus = o->corpus.n,
        .out = o->out,
        .hessian = o->hessian,
        .profile = o->profile,
        .own_layer = o->own.value,
        .n_own_layer = o->own.n,
        .answer = o->answer,
        .temperature = o->temperature,
        .seed = o->seed,
        .piece = o->piece,
        .limit = (int64_t)o->limit,
        .save_every = o->save_every,
        .resume = o->resume,
        .sums = !o->no_sums,
        .strict = o->strict,
        .threads = o->model.threads,
        .progress = show,
        .user = &progress,
    };
    struct err e = { 0 };
    struct buf report;
    dstar_engine *engine;
    int status = engine_start(&engine, &o->model);
    if (status)
        return status;
    buf_init(&report, (size_t)1 << 24);
    progress_begin(&progress, "calibrating", "", 0);
    int code = calibrate_run(engine, &job, &report, &e);
    progress_end(&progress);
    printf("%s", report.data ? report.data : "");
    buf_release(&report);
    dstar_close(engine);
    return finish(code, &e);
}

int cmd_calibrate(const struct command *command, int n, char **arg)
{
    struct calibrate_opts o = { 0 };
    struct opt_group group[2] = { { "calibration", options, COUNT_OF(options), &o },
                                  engine_group(&o.model) };
    struct words words;
    struct err e = { 0 };
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    bool merge = o.merge.n > 0;
    /* `--merge A B -o C`: words are further files */
    for (int i = 0; merge && i < words.n && o.merge.n < OPT_MOST; i++)
        o.merge.text[o.merge.n++] = words.word[i];
    if (!o.out || (words.n && !merge) || merge == (o.corpus.n > 0))
        return opts_wrong(command, "expected -o FILE and --corpus FILE or --merge FILE FILE");
    if (merge && o.merge.n < 2)
        return opts_wrong(command, "--merge: found one file, expected at least two");
    if (o.own.n > 0 && !o.hessian)
        return opts_wrong(command, "--hessian-experts goes with --hessian");
    interrupt_catch(NULL);
    if (merge)
        return finish(calibrate_merge(o.merge.text, o.merge.n, o.out, &e), &e);
    return calibrate(&o);
}
