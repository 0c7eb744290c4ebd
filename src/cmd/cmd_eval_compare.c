/* cmd_eval_compare.c - `dstar eval compare`: results of dstar eval kl side by side.
 *
 * All are about the same texts, so that differences can be judged text by text. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "dot_plot.h"
#include "eval_report.h"
#include "fault.h"
#include "file.h"
#include "measure.h"
#include "term.h"

struct compare_opts {
    struct opt_texts skills;
    const char *svg, *title;
    int draws;
    uint64_t seed;
    bool json, answers;
};

#define AT(field) offsetof(struct compare_opts, field)

static const struct opt options[] = {
    { "answers", 0, OPT_FLAG, NULL, AT(answers), 0, 0, NULL,
      "only what the models say in their turns of dialogues" },
    { "skills", 0, OPT_TEXTS, "FILE", AT(skills), 0, 0, NULL,
      "results of dstar eval skills --json of one of the models; may be repeated" },
    { "svg", 0, OPT_TEXT, "FILE", AT(svg), 0, 0, NULL, "also draw a picture" },
    { "title", 0, OPT_TEXT, "TEXT", AT(title), 0, 0, "Divergence from the reference", "of it" },
    { "draws", 0, OPT_INT, "N", AT(draws), 40, 1 << 24, "10000",
      "how often texts are drawn again for the intervals" },
    { "seed", 's', OPT_COUNT, "N", AT(seed), 0, 0, "1", "of the random numbers" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL, "print one JSON object" },
};

/* One result. */
struct result {
    const char *path, *label, *model;
    json_t *root;
    double *kl;             /* [n] sums of the texts' rows */
    struct paired paired;   /* a: the first result, b: this */
};

struct comparison {
    const struct compare_opts *o;
    struct result result[OPT_MOST];
    int n_result, n; /* n: texts */
    double *rows;    /* [n] */
    json_t *skills;  /* path of a model: its results */
    struct dstar_error *error;
};

static int not_a_result(const struct comparison *c, const char *path, const char *what)
{
    return fault_set(c->error, DSTAR_FORMAT, "%s: found no %s, expected what dstar eval kl --json "
                     "prints", path, what);
}

static int read_json(const struct comparison *c, const char *path, json_t **root)
{
    json_error_t why;
    *root = json_load_file(path, 0, &why);
    if (*root)
        return 0;
    return fault_set(c->error, DSTAR_FORMAT, "%s: line %d: %s", path, why.line, why.text);
}

/* The sums of each text; those of the first result say which rows there are. */
static int read_texts(struct comparison *c, struct result *r)
{
    const char *kl = c->o->answers ? "answer_kl" : "kl";
    const char *rows = c->o->answers ? "answer_rows" : "rows";
    const json_t *texts = json_object_get(r->root, "texts");
    const json_t *hash = json_object_get(json_object_get(r->root, "reference"), "text_hash");
    const json_t *first = json_object_get(json_object_get(c->result[0].root, "reference"),
                                          "text_hash");
    int n = (int)json_array_size(texts);
    if (n == 0 || !json_is_string(hash))
        return not_a_result(c, r->path, "texts");
    if (!json_equal(hash, first) || (c->rows && n != c->n))
        return fault_set(c->error, DSTAR_MISMATCH, "%s: is about other texts than %s", r->path,
                         c->result[0].path);
    bool is_first = !c->rows;
    if (is_first)
        c->rows = calloc((size_t)n, sizeof *c->rows);
    r->kl = calloc((size_t)n, sizeof *r->kl);
    if (!c->rows || !r->kl)
        return fault_set(c->error, DSTAR_NO_MEMORY, "%s: out of memory", r->path);
    c->n = n;
    for (int i = 0; i < n; i++) {
        const json_t *text = json_array_get(texts, (size_t)i);
        const json_t *value = json_object_get(text, kl), *count = json_object_get(text, rows);
        if (!json_is_number(value) || !json_is_integer(count))
            return not_a_result(c, r->path, kl);
        r->kl[i] = json_number_value(value);
        if (is_first)
            c->rows[i] = json_number_value(count);
        else if (c->rows[i] != json_number_value(count))
            return fault_set(c->error, DSTAR_MISMATCH, "%s: text %d has other rows than in %s",
                             r->path, i, c->result[0].path);
    }
    return 0;
}

static int add_result(struct comparison *c, const char *path)
{
    struct result *r = &c->result[c->n_result];
    struct err e = { 0 };
    r->path = path;
    TRY(read_json(c, path, &r->root));
    c->n_result++;
    r->label = json_string_value(json_object_get(r->root, "label"));
    r->model = json_string_value(json_object_get(json_object_get(r->root, "model"), "path"));
    if (!r->label || !r->model)
        return not_a_result(c, path, "label or model");
    TRY(read_texts(c, r));
    struct paired_sums sums = { c->result[0].kl, r->kl, c->rows, c->n };
    return bootstrap_paired(&r->paired, &sums, c->o->draws, c->o->seed, &e) < 0
               ? fault_of(c->error, &e) : 0;
}

static int add_skills(struct comparison *c, const char *path)
{
    json_t *root;
    TRY(read_json(c, path, &root));
    const char *model = json_string_value(json_object_get(json_object_get(root, "model"), "path"));
    const json_t *results = json_object_get(root, "results");
    int code = 0;
    if (!model || json_array_size(results) == 0)
        code = fault_set(c->error, DSTAR_FORMAT, "%s: found no results, expected what dstar eval "
                         "skills --json prints", path);
    else
        json_object_set_new(c->skills, model, json_deep_copy(results));
    json_decref(root);
    return code;
}

/* ---- printing ---- */

static json_t *interval(const struct interval *i)
{
    return json_pack("{s:f, s:f, s:f}", "value", i->value, "low", i->low, "high", i->high);
}

static json_t *between(const struct interval *i, const char *format)
{
    char low[32], high[32];
    snprintf(low, sizeof low, format, i->low);
    snprintf(high, sizeof high, format, i->high);
    return json_sprintf("%s to %s", low, high);
}

static json_t *number(double x, const char *format)
{
    char text[32];
    snprintf(text, sizeof text, format, x);
    return json_string(text);
}

/* Percent right of all dialogues; "" when not measured. */
static json_t *skill(const struct comparison *c, const struct result *r)
{
    const json_t *rows = json_object_get(c->skills, r->model);
    const json_t *all = json_array_get(rows, json_array_size(rows) - 1);
    const json_t *percent = json_object_get(all, "percent");
    return json_is_number(percent) ? number(json_number_value(percent), "%.1f") : json_string("");
}

static json_t *row(const struct comparison *c, const struct result *r)
{
    const json_t *s = json_object_get(r->root, "summary");
    double top = json_number_value(json_object_get(s, "same_top_percent"));
    double ratio = json_number_value(json_object_get(s, "perplexity_ratio"));
    double experts = json_number_value(json_object_get(s, "same_expert_percent"));
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:f, s:o}", "model", r->label,
                     "KL", number(r->paired.b.value, "%.4g"), "95 %",
                     between(&r->paired.b, "%.3g"), "difference",
                     number(r->paired.difference.value, "%+.3g"), "95 % of it",
                     between(&r->paired.difference, "%+.3g"), "ratio",
                     number(r->paired.ratio.value, "%.3g"), "95 % of that",
                     between(&r->paired.ratio, "%.3g"), "same top", top, "perplexity", ratio,
                     "experts", experts, "skills", skill(c, r));
}

static void print_table(const struct comparison *c)
{
    static const struct eval_column column[] = {
        { "model", -1 },       { "KL", -1 },    { "95 %", -1 },         { "difference", -1 },
        { "95 % of it", -1 },  { "ratio", -1 }, { "95 % of that", -1 }, { "same top", 2 },
        { "perplexity", 4 },   { "experts", 2 }, { "skills", -1 },
    };
    json_t *rows = json_array();
    for (int i = 0; i < c->n_result; i++)
        json_array_append_new(rows, row(c, &c->result[i]));
    eval_print_rows(column, COUNT_OF(column), rows);
    json_decref(rows);
}

static int print_json(const struct comparison *c)
{
    json_t *rows = json_array();
    for (int i = 0; i < c->n_result; i++) {
        const struct result *r = &c->result[i];
        json_t *x = json_pack("{s:s, s:s, s:o, s:o, s:o, s:O}", "label", r->label, "model",
                              r->model, "kl", interval(&r->paired.b), "difference",
                              interval(&r->paired.difference), "ratio", interval(&r->paired.ratio),
                              "summary", json_object_get(r->root, "summary"));
        json_t *skills = json_object_get(c->skills, r->model);
        if (skills)
            json_object_set(x, "skills", skills);
        json_array_append_new(rows, x);
    }
    return eval_put_json(json_pack("{s:s, s:i, s:I, s:b, s:o}", "version", dstar_version(), "draws",
                                   c->o->draws, "seed", (json_int_t)c->o->seed, "answers",
                                   c->o->answers, "results", rows));
}

static int draw(const struct comparison *c)
{
    struct dot dot[OPT_MOST];
    struct file_out out = { 0 };
    struct err e = { 0 };
    struct buf svg;
    buf_init(&svg, (size_t)1 << 24);
    for (int i = 0; i < c->n_result; i++) {
        const struct interval *x = &c->result[i].paired.b;
        dot[i] = (struct dot){ c->result[i].label, x->value, x->low, x->high };
    }
    dot_plot(&svg, c->o->title, "KL divergence from the reference in nats, with 95 % intervals",
             dot, c->n_result);
    int code = file_out_open(&out, c->o->svg, &e);
    if (code == 0 && svg.failed)
        code = err_set(&e, ERR_NO_MEMORY, "%s: out of memory", c->o->svg);
    if (code == 0)
        code = file_out_write(&out, svg.data, svg.len, &e);
    if (code == 0)
        code = file_out_commit(&out, &e);
    file_out_abort(&out);
    buf_release(&svg);
    return code < 0 ? fault_of(c->error, &e) : 0;
}

static int compare(struct comparison *c, const struct words *files)
{
    for (int i = 0; i < files->n; i++)
        TRY(add_result(c, files->word[i]));
    for (int i = 0; i < c->o->skills.n; i++)
        TRY(add_skills(c, c->o->skills.text[i]));
    return c->o->svg ? draw(c) : 0;
}

int cmd_eval_compare(const struct command *command, int n, char **arg)
{
    struct compare_opts o = { 0 };
    struct dstar_error error;
    struct comparison c = { .o = &o, .error = &error };
    struct opt_group group[1] = { { "comparison", options, COUNT_OF(options), &o } };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n == 0 || words.n > OPT_MOST)
        return opts_wrong(command, "expected 1 to %d files of dstar eval kl --json", OPT_MOST);
    c.skills = json_object();
    status = EXIT_DONE;
    if (compare(&c, &words) < 0)
        status = fault_print(&error);
    else if (o.json)
        status = print_json(&c);
    else
        print_table(&c);
    for (int i = 0; i < c.n_result; i++) {
        json_decref(c.result[i].root);
        free(c.result[i].kl);
    }
    free(c.rows);
    json_decref(c.skills);
    return status;
}
