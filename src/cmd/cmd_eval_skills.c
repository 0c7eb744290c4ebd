/* cmd_eval_skills.c - `dstar eval skills`: how many dialogues with known answers come out right.
 *
 * Right means the same content and the same tool calls as parsed; reasoning is free. The stricter
 * count, the whole completion to the byte, also holds the reasoning and the markup of calls to what
 * was expected. */
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "eval_ask.h"
#include "eval_report.h"
#include "skill_set.h"
#include "term.h"

struct skill_opts {
    struct engine_opts model;
    struct skill_sets sets;
    int limit;
    bool json, wrong;
};

#define AT(field) offsetof(struct skill_opts, field)

static const struct opt options[] = {
    { "set", 0, OPT_TEXTS, "FILE", AT(sets.path), 0, 0, NULL,
      "dialogues with expected answers, one JSON object a line; more may follow" },
    { "limit", 0, OPT_INT, "N", AT(limit), 0, 1 << 24, "0",
      "only the first N dialogues of each set; 0: all" },
    { "wrong", 0, OPT_FLAG, NULL, AT(wrong), 0, 0, NULL,
      "print each wrong answer to standard error, as a line of JSON" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL, "print one JSON object" },
};

struct tally {
    int n, right, exact;
    int64_t n_read, n_written;
    double read_s, written_s;
};

struct exam {
    const struct skill_opts *o;
    struct examinee x;
    struct progress progress;
    int done; /* dialogues */
};

/* Names and arguments; ids are the engine's own. */
static bool same_calls(const json_t *found, const json_t *expected)
{
    bool same = json_array_size(found) == json_array_size(expected);
    for (size_t i = 0; same && i < json_array_size(found); i++) {
        const json_t *f = json_object_get(json_array_get(found, i), "function");
        const json_t *e = json_object_get(json_array_get(expected, i), "function");
        const char *ft = json_string_value(json_object_get(f, "arguments"));
        const char *et = json_string_value(json_object_get(e, "arguments"));
        json_t *fa = ft ? json_loads(ft, 0, NULL) : NULL, *ea = et ? json_loads(et, 0, NULL) : NULL;
        same = fa && ea && json_equal(fa, ea) &&
               json_equal(json_object_get(f, "name"), json_object_get(e, "name"));
        json_decref(fa);
        json_decref(ea);
    }
    return same;
}

static bool same_text(const char *text, size_t len, const json_t *expected)
{
    return len == json_string_length(expected) &&
           memcmp(text, json_string_value(expected), len) == 0;
}

static void show_wrong(const json_t *dialogue, const json_t *expect, const char *text, size_t len)
{
    json_t *line = json_pack("{s:O, s:O, s:O, s:o*}", "id", json_object_get(dialogue, "id"),
                             "message", json_object_get(expect, "message"), "expected",
                             json_object_get(expect, "completion"), "found",
                             json_stringn(text, len));
    char *dump = json_dumps(line, JSON_ENSURE_ASCII);
    fprintf(stderr, "%s\n", dump ? dump : "");
    free(dump);
    json_decref(line);
}

/* One expected answer; right and exact become false if it is not so. */
static int ask(struct exam *e, const json_t *dialogue, int entry, struct tally *t, bool right[2],
               struct dstar_error *error)
{
    const json_t *expect = json_array_get(json_object_get(dialogue, "expect"), (size_t)entry);
    size_t at = (size_t)json_integer_value(json_object_get(expect, "message")), len;
    const json_t *message = json_array_get(json_object_get(dialogue, "messages"), at);
    struct answer a;
    char *text;
    answer_init(&a);
    int code = examinee_ask(&e->x, dialogue, entry, &a, error);
    if (code >= 0)
        code = dstar_detokenise(e->x.engine, examinee_written(&e->x, &a), a.n_answer, 1, &text,
                                &len, error);
    if (code >= 0) {
        bool good = a.finish != DSTAR_FINISH_LENGTH &&
                    same_text(a.content.data, a.content.len, json_object_get(expect, "answer")) &&
                    same_calls(a.calls, json_object_get(message, "tool_calls"));
        right[0] &= good;
        right[1] &= good && same_text(text, len, json_object_get(expect, "completion"));
        if (!good && e->o->wrong)
            show_wrong(dialogue, expect, text, len);
        t->n_read += a.took.n_prefill;
        t->n_written += a.took.n_decode;
        t->read_s += a.took.prefill_s;
        t->written_s += a.took.decode_s;
        dstar_free(text);
    }
    answer_release(&a);
    return code;
}

static int run_set(struct exam *e, int s, struct tally *t, struct dstar_error *error)
{
    const json_t *set = e->o->sets.set[s];
    for (size_t d = 0; d < json_array_size(set); d++) {
        const json_t *dialogue = json_array_get(set, d);
        int n = (int)json_array_size(json_object_get(dialogue, "expect"));
        bool right[2] = { true, true };
        for (int i = 0; i < n; i++) {
            struct dstar_error inner;
            int code = ask(e, dialogue, i, t, right, &inner);
            if (code < 0)
                return fault_set(error, code, "%s: line %lld: %s", e->o->sets.path.text[s],
                                 (long long)json_integer_value(json_object_get(dialogue, "line")),
                                 inner.text);
        }
        t->n++;
        t->right += right[0];
        t->exact += right[1];
        progress_show(&e->progress, ++e->done, e->o->sets.n_dialogue);
    }
    return 0;
}

static json_t *row(const char *name, const struct tally *t)
{
    return json_pack("{s:s, s:i, s:i, s:f, s:f, s:I, s:f, s:I, s:f}", "set", name, "dialogues",
                     t->n, "right", t->right, "percent", eval_percent(t->right, t->n),
                     "to the byte", eval_percent(t->exact, t->n), "read", (json_int_t)t->n_read,
                     "read/s", t->read_s > 0 ? (double)t->n_read / t->read_s : 0, "written",
                     (json_int_t)t->n_written, "written/s",
                     t->written_s > 0 ? (double)t->n_written / t->written_s : 0);
}

static void add(struct tally *sum, const struct tally *t)
{
    sum->n += t->n, sum->right += t->right, sum->exact += t->exact;
    sum->n_read += t->n_read, sum->read_s += t->read_s;
    sum->n_written += t->n_written, sum->written_s += t->written_s;
}

static int examine(struct exam *e)
{
    static const struct eval_column column[] = {
        { "set", -1 }, { "dialogues", -1 }, { "right", -1 }, { "percent", 1 }, { "to the byte", 1 },
        { "read", -1 }, { "read/s", 0 }, { "written", -1 }, { "written/s", 0 },
    };
    struct dstar_error error;
    struct tally sum = { 0 };
    json_t *rows = json_array();
    int code = 0;
    progress_begin(&e->progress, "asking", "dialogues", 0);
    for (int s = 0; s < e->o->sets.path.n && code >= 0; s++) {
        struct tally t = { 0 };
        char name[64];
        skill_set_name(name, sizeof name, e->o->sets.path.text[s]);
        code = run_set(e, s, &t, &error);
        json_array_append_new(rows, row(name, &t));
        add(&sum, &t);
    }
    progress_end(&e->progress);
    json_array_append_new(rows, row("all", &sum));
    int status = code < 0 ? examinee_fault(code, &error) : EXIT_DONE;
    if (code >= 0 && e->o->json)
        status = eval_print_json(dstar_engine_info(e->x.engine), rows);
    else if (code >= 0)
        eval_print(dstar_engine_info(e->x.engine), column, COUNT_OF(column), rows);
    json_decref(rows);
    return status;
}

int cmd_eval_skills(const struct command *command, int n, char **arg)
{
    struct skill_opts o = { 0 };
    struct exam e = { .o = &o };
    struct dstar_error error;
    struct opt_group group[2] = { { "evaluation", options, COUNT_OF(options), &o },
                                  engine_group(&o.model) };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n + o.sets.path.n == 0)
        return opts_wrong(command, "expected --set FILE");
    int code = skill_sets_read(&o.sets, &words, o.limit, &error);
    status = code < 0 ? fault_print(&error) : examinee_open(&e.x, &o.model);
    if (status == 0)
        status = examine(&e);
    examinee_close(&e.x);
    skill_sets_release(&o.sets);
    return status;
}
