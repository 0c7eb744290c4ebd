/* cmd_eval_repeat.c - `dstar eval repeat`: whether long answers go in circles.
 *
 * A run of n tokens that occurred before in the same answer is repeated. Runs are sorted by what
 * they hold, so that equal ones are neighbours; a hash table would save nothing worth a table. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "eval_ask.h"
#include "eval_report.h"
#include "term.h"

struct repeat_opts {
    struct engine_opts model;
    int max_tokens, gram;
    bool json;
};

#define AT(field) offsetof(struct repeat_opts, field)

static const struct opt options[] = {
    { "max-tokens", 'n', OPT_INT, "N", AT(max_tokens), 1, 1 << 24, "8000",
      "tokens an answer may have" },
    { "gram", 0, OPT_INT, "N", AT(gram), 1, 4096, "8", "tokens of a run that is compared" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL, "print one JSON object" },
};

/* What the bundled model has learned that is long. */
static char *const usual[] = {
    "Write an encyclopedia of animals.",
    "Write an encyclopedia of foods.",
    "Write an encyclopedia of plants.",
    "Write an encyclopedia of things.",
};

static int by_ids(const void *a, const void *b, void *user)
{
    const int32_t *const *x = a, *const *y = b;
    return memcmp(*x, *y, *(const size_t *)user);
}

/* How many of the runs of `gram` tokens occurred before; -1: no memory. */
static int count_repeated(const int32_t *id, int n, int gram)
{
    int n_run = n - gram + 1, n_repeated = 0;
    size_t bytes = (size_t)gram * sizeof *id;
    if (n_run < 2)
        return 0;
    const int32_t **run = malloc((size_t)n_run * sizeof *run);
    if (!run)
        return -1;
    for (int i = 0; i < n_run; i++)
        run[i] = id + i;
    qsort_r(run, (size_t)n_run, sizeof *run, by_ids, &bytes);
    for (int i = 1; i < n_run; i++)
        n_repeated += memcmp(run[i - 1], run[i], bytes) == 0;
    free(run);
    return n_repeated;
}

struct talker {
    const struct repeat_opts *o;
    struct examinee x;
    struct progress progress;
    int done, total; /* prompts */
    int n_run, n_repeated, n_tok;
};

static json_t *row(const char *prompt, int n_tok, int n_run, int n_repeated)
{
    return json_pack("{s:s, s:i, s:i, s:i, s:f}", "prompt", prompt, "tokens", n_tok, "runs", n_run,
                     "repeated", n_repeated, "percent", eval_percent(n_repeated, n_run));
}

static int talk(struct talker *t, const char *prompt, json_t *rows, struct dstar_error *error)
{
    struct answer a;
    answer_init(&a);
    int code = examinee_ask_text(&t->x, prompt, t->o->max_tokens, &a, error);
    if (code >= 0) {
        int n_run = MAX(a.n_answer - t->o->gram + 1, 0);
        int repeated = count_repeated(examinee_written(&t->x, &a), a.n_answer, t->o->gram);
        if (repeated < 0)
            code = fault_set(error, DSTAR_NO_MEMORY, "no memory for %d tokens", a.n_answer);
        json_array_append_new(rows, row(prompt, a.n_answer, n_run, repeated));
        t->n_tok += a.n_answer;
        t->n_run += n_run;
        t->n_repeated += repeated;
        progress_show(&t->progress, ++t->done, t->total);
    }
    answer_release(&a);
    return code;
}

static int measure(struct talker *t, char *const *prompt, int n)
{
    static const struct eval_column column[] = {
        { "prompt", -1 }, { "tokens", -1 }, { "runs", -1 }, { "repeated", -1 }, { "percent", 3 }
    };
    struct dstar_error error;
    int code = 0;
    json_t *rows = json_array();
    t->total = n;
    progress_begin(&t->progress, "writing", "answers", 0);
    for (int i = 0; i < n && code >= 0; i++)
        code = talk(t, prompt[i], rows, &error);
    progress_end(&t->progress);
    json_array_append_new(rows, row("all", t->n_tok, t->n_run, t->n_repeated));
    int status = code < 0 ? examinee_fault(code, &error) : EXIT_DONE;
    if (code >= 0 && t->o->json)
        status = eval_print_json(dstar_engine_info(t->x.engine), rows);
    else if (code >= 0)
        eval_print(dstar_engine_info(t->x.engine), column, COUNT_OF(column), rows);
    json_decref(rows);
    return status;
}

int cmd_eval_repeat(const struct command *command, int n, char **arg)
{
    struct repeat_opts o = { 0 };
    struct talker t = { .o = &o };
    struct opt_group group[2] = { { "evaluation", options, COUNT_OF(options), &o },
                                  engine_group(&o.model) };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    status = examinee_open(&t.x, &o.model);
    if (status == 0)
        status = words.n ? measure(&t, words.word, words.n)
                         : measure(&t, usual, COUNT_OF(usual));
    examinee_close(&t.x);
    return status;
}
