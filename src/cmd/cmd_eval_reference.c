/* cmd_eval_reference.c - `dstar eval reference`: keep what a model says about texts. */
#include <stdio.h>

#include "commands.h"
#include "engine_opts.h"
#include "eval_text.h"
#include "interrupt.h"
#include "term.h"

struct reference_opts {
    struct engine_opts model;
    struct eval_text_opts text;
    const char *out;
    int streams, chunk;
};

#define AT(field) offsetof(struct reference_opts, field)

static const struct opt options[] = {
    { "text", 'f', OPT_TEXTS, "FILE", AT(text.file), 0, 0, NULL,
      "texts: *.jsonl, an object with text or messages a line, or plain; may be repeated" },
    { "out", 'o', OPT_TEXT, "FILE", AT(out), 0, 0, NULL, "the file to write" },
    { "whole", 0, OPT_FLAG, NULL, AT(text.whole), 0, 0, NULL,
      "all tokens of dialogues count, not only those of answers" },
    { "limit", 0, OPT_INT, "N", AT(text.limit), 0, 1 << 24, "0",
      "only the first N lines of each *.jsonl; 0: all" },
    { "piece", 0, OPT_INT, "N", AT(text.piece), 2, 1 << 20, "2048",
      "tokens of a text at most; longer texts are cut into several" },
    { "streams", 0, OPT_INT, "N", AT(streams), 0, 1 << 24, "64",
      "keep every Nth token's state behind each layer; 0: none" },
    { "chunk", 0, OPT_INT, "N", AT(chunk), 0, 1 << 24, "0",
      "tokens computed at once, which changes nothing but memory and time; 0: as many as fit" },
};

static bool show(void *user, int64_t done, int64_t total)
{
    progress_show(user, (double)done, (double)total);
    return interrupt_seen();
}

static int write(dstar_engine *engine, const struct reference_opts *o,
                 const struct eval_texts *texts)
{
    struct progress progress;
    struct err e = { 0 };
    struct reference_plan plan = { texts->doc, texts->n, texts->hash, o->streams, o->chunk, show,
                                   &progress };
    progress_begin(&progress, "evaluating", "tokens", 0);
    int code = reference_write(engine, o->out, &plan, &e);
    progress_end(&progress);
    if (code == ERR_CANCELLED)
        return EXIT_INTERRUPTED;
    if (code < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    int64_t n_tok = 0, n_row = 0;
    for (int i = 0; i < texts->n; i++) {
        n_tok += texts->doc[i].n_tok;
        n_row += text_doc_rows(&texts->doc[i]);
    }
    term_remark("%d texts, %lld tokens, of which %lld count", texts->n, (long long)n_tok,
                (long long)n_row);
    return EXIT_DONE;
}

int cmd_eval_reference(const struct command *command, int n, char **arg)
{
    struct reference_opts o = { 0 };
    struct eval_texts texts = { 0 };
    struct dstar_error error;
    dstar_engine *engine = NULL;
    struct opt_group group[2] = { { "evaluation", options, COUNT_OF(options), &o },
                                  engine_group(&o.model) };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n || o.text.file.n == 0 || !o.out)
        return opts_wrong(command, "expected --text FILE and --out FILE, and nothing else");
    interrupt_catch(NULL);
    status = engine_start(&engine, &o.model);
    if (status == 0 && eval_texts_read(&texts, engine, &o.text, &error) < 0)
        status = fault_print(&error);
    if (status == 0)
        status = write(engine, &o, &texts);
    eval_texts_release(&texts);
    dstar_close(engine);
    return status;
}
