/* cmd_eval_draft.c - `dstar eval draft`: how often the draft block says what the model then writes.
 *
 * The model answers greedily; then prompt and answer are computed once more with the draft block.
 * At each token the block sees the next one as well and guesses the one after it. Guesses whose two
 * tokens both belong to the answer count: these are what speculative decoding would accept. */
#include <stdio.h>

#include "commands.h"
#include "eval_ask.h"
#include "eval_report.h"
#include "interrupt.h"
#include "skill_set.h"
#include "term.h"

struct draft_opts {
    struct engine_opts model;
    struct skill_sets sets;
    int limit;
    bool json;
};

#define AT(field) offsetof(struct draft_opts, field)

static const struct opt options[] = {
    { "set", 0, OPT_TEXTS, "FILE", AT(sets.path), 0, 0, NULL,
      "dialogues whose prompts are answered, one JSON object a line; more may follow" },
    { "limit", 0, OPT_INT, "N", AT(limit), 0, 1 << 24, "0",
      "only the first N dialogues of each set; 0: all" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL, "print one JSON object" },
};

struct trial {
    const struct draft_opts *o;
    struct examinee x;
    struct progress progress;
    struct dstar_tokens text; /* prompt and answer */
    int n_prompt;
    int n_guess, n_right; /* of a set */
    int done;
};

static int on_row(void *user, int pos, const float *logits, const float *mtp)
{
    struct trial *t = user;
    struct dstar_candidate best;
    (void)logits;
    if (pos + 1 >= t->n_prompt && pos + 2 < t->text.n) {
        dstar_top(mtp, dstar_engine_info(t->x.engine)->n_vocab, &best, 1);
        t->n_guess++;
        t->n_right += best.id == t->text.id[pos + 2];
    }
    return interrupt_seen();
}

static int try_entry(struct trial *t, const json_t *dialogue, int entry, struct dstar_error *error)
{
    struct answer a;
    answer_init(&a);
    int code = examinee_ask(&t->x, dialogue, entry, &a, error);
    t->text.n = 0;
    t->n_prompt = a.n_prompt;
    if (code >= 0)
        code = dstar_tokens_add(&t->text, examinee_written(&t->x, &a) - a.n_prompt,
                                a.n_prompt + a.n_answer, error);
    answer_release(&a);
    if (code >= 0) /* makes room in the cache */
        code = dstar_session_set(t->x.session, t->text.id, 0, error);
    if (code < 0)
        return code;
    struct dstar_text_eval e = { t->text.id, t->text.n, 0, 1, on_row, t };
    return dstar_eval(t->x.engine, &e, error);
}

static int try_set(struct trial *t, int s, struct dstar_error *error)
{
    const json_t *set = t->o->sets.set[s];
    for (size_t d = 0; d < json_array_size(set); d++) {
        const json_t *dialogue = json_array_get(set, d);
        int n = (int)json_array_size(json_object_get(dialogue, "expect"));
        for (int i = 0; i < n; i++)
            TRY(try_entry(t, dialogue, i, error));
        progress_show(&t->progress, ++t->done, t->o->sets.n_dialogue);
    }
    return 0;
}

static json_t *row(const char *name, int n, int right)
{
    return json_pack("{s:s, s:i, s:i, s:f}", "set", name, "guesses", n, "right", right, "percent",
                     eval_percent(right, n));
}

static int measure(struct trial *t)
{
    static const struct eval_column column[] = {
        { "set", -1 }, { "guesses", -1 }, { "right", -1 }, { "percent", 2 }
    };
    struct dstar_error error;
    int code = 0, n = 0, right = 0;
    json_t *rows = json_array();
    progress_begin(&t->progress, "drafting", "dialogues", 0);
    for (int s = 0; s < t->o->sets.path.n && code >= 0; s++) {
        char name[64];
        skill_set_name(name, sizeof name, t->o->sets.path.text[s]);
        t->n_guess = t->n_right = 0;
        code = try_set(t, s, &error);
        json_array_append_new(rows, row(name, t->n_guess, t->n_right));
        n += t->n_guess;
        right += t->n_right;
    }
    progress_end(&t->progress);
    json_array_append_new(rows, row("all", n, right));
    int status = code < 0 ? examinee_fault(code, &error) : EXIT_DONE;
    if (code >= 0 && t->o->json)
        status = eval_print_json(dstar_engine_info(t->x.engine), rows);
    else if (code >= 0)
        eval_print(dstar_engine_info(t->x.engine), column, COUNT_OF(column), rows);
    json_decref(rows);
    return status;
}

int cmd_eval_draft(const struct command *command, int n, char **arg)
{
    struct draft_opts o = { 0 };
    struct trial t = { .o = &o };
    struct dstar_error error;
    struct opt_group group[2] = { { "evaluation", options, COUNT_OF(options), &o },
                                  engine_group(&o.model) };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n + o.sets.path.n == 0)
        return opts_wrong(command, "expected --set FILE");
    o.model.mtp = true;
    int code = skill_sets_read(&o.sets, &words, o.limit, &error);
    status = code < 0 ? fault_print(&error) : examinee_open(&t.x, &o.model);
    if (status == 0 && !dstar_engine_info(t.x.engine)->has_mtp) {
        term_error("%s: found no draft block, expected one", dstar_engine_info(t.x.engine)->path);
        status = EXIT_ERROR;
    }
    if (status == 0)
        status = measure(&t);
    dstar_tokens_release(&t.text);
    examinee_close(&t.x);
    skill_sets_release(&o.sets);
    return status;
}
