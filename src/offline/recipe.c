/* recipe.c - rules of a recipe, and the recipes that come with the program.
 *
 * Rejected: rules by kind of tensor instead of by name. Names are what inspect shows and what other
 * tools' files are discussed in. */
#include "recipe.h"

#include "file.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_RULE = 4096, MAX_TEXT_BYTES = 1 << 20 };

/* ---- built in ---- */

/* All but the routed experts, as in the files in circulation; see docs/quantisation.md. */
#define SMALL_PARTS                            \
    "*norm.weight                      F32\n"  \
    "*_base.weight                     F32\n"  \
    "*_scale.weight                    F32\n"  \
    "blk.*.attn_sinks.weight           F32\n"  \
    "blk.*.exp_probs_b.bias            F32\n"  \
    "blk.*.ffn_gate_tid2eid.weight     keep\n" \
    "*                                 F16\n"
#define ATTENTION(type)                           \
    "blk.*.indexer.*                   F16\n"     \
    "blk.*.attn_q_a.weight             " type "\n" \
    "blk.*.attn_q_b.weight             " type "\n" \
    "blk.*.attn_kv.weight              " type "\n" \
    "blk.*.attn_output_a.weight        " type "\n" \
    "blk.*.attn_output_b.weight        " type "\n"
#define SHARED_AND_HEAD                        \
    "blk.*_shexp.weight                Q8_0\n" \
    "output.weight                     Q8_0\n"
#define EXPERTS_2BIT                              \
    "mtp.*                             drop\n"    \
    "blk.*.ffn_gate_exps.weight        IQ2_XXS\n" \
    "blk.*.ffn_up_exps.weight          IQ2_XXS\n" \
    "blk.*.ffn_down_exps.weight        Q2_K\n"

static const struct {
    const char *name, *about, *text;
} built_in[] = {
    { "q2", "experts IQ2_XXS and Q2_K, other matrices Q8_0: the 81 GiB mix",
      EXPERTS_2BIT ATTENTION("Q8_0") SHARED_AND_HEAD SMALL_PARTS },
    { "q2-q4attn", "the same with attention in Q4_K",
      EXPERTS_2BIT ATTENTION("Q4_K") SHARED_AND_HEAD SMALL_PARTS },
    { "q4", "experts Q4_K, other matrices Q8_0",
      "mtp.*                             drop\n"
      "blk.*_exps.weight                 Q4_K\n" ATTENTION("Q8_0") SHARED_AND_HEAD SMALL_PARTS },
    { "lossless", "every number as it is: experts MXFP4, FP8 as BF16",
      "*                                 keep\n" },
};

const char *recipe_name(int i)
{
    return i < (int)COUNT_OF(built_in) ? built_in[i].name : NULL;
}

const char *recipe_about(int i)
{
    return i < (int)COUNT_OF(built_in) ? built_in[i].about : NULL;
}

const char *recipe_text(int i)
{
    return i < (int)COUNT_OF(built_in) ? built_in[i].text : NULL;
}

/* ---- parsing ---- */

struct place {
    const struct recipe *r;
    int line;
    struct err *e;
};

static int wrong(const struct place *p, const char *what, const char *found, const char *expected)
{
    return err_set(p->e, ERR_ARGUMENT, "recipe %s, line %d: %s is %.80s, expected %s", p->r->name,
                   p->line, what, found, expected);
}

static int read_type(const struct place *p, const char *word, struct recipe_rule *rule)
{
    static const enum dtype types[] = { DT_IQ2_XXS, DT_Q2_K, DT_Q4_K, DT_Q8_0,
                                        DT_MXFP4,   DT_F16,  DT_BF16, DT_F32 };
    rule->action = strcmp(word, "keep") == 0   ? RECIPE_KEEP
                   : strcmp(word, "drop") == 0 ? RECIPE_DROP
                                               : RECIPE_TYPE;
    if (rule->action != RECIPE_TYPE)
        return 0;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        if (strcmp(word, dtype_name((int)types[i])) == 0) {
            rule->type = types[i];
            return 0;
        }
    }
    return wrong(p, "type", word, "IQ2_XXS, Q2_K, Q4_K, Q8_0, MXFP4, F16, BF16, F32, keep or drop");
}

/* "37-42" or "5". */
static int read_layers(const struct place *p, const char *word, struct recipe_rule *rule)
{
    char *end;
    long first = strtol(word, &end, 10), last = first;
    bool good = *word >= '0' && *word <= '9';
    if (good && *end == '-' && end[1] >= '0' && end[1] <= '9')
        last = strtol(end + 1, &end, 10);
    if (!good || *end || first > last || last > INT_MAX - 1)
        return wrong(p, "layers", word, "A-B with A <= B");
    rule->first = (int)first;
    rule->last = (int)last;
    return 0;
}

static int read_power(const struct place *p, const char *word, struct recipe_rule *rule)
{
    char *end;
    double x = strtod(word, &end);
    if (*end || !*word || !(x >= 0 && x <= 1) || x * 4 != rint(x * 4))
        return wrong(p, "power", word, "0, 0.25, 0.5, 0.75 or 1");
    rule->power = (float)x;
    return 0;
}

/* Which of "a|b|c" the word is, from 0; -1: none. */
static int choice(const char *word, const char *const *names, int n)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(word, names[i]) == 0)
            return i;
    }
    return -1;
}

static int read_option(const struct place *p, char *word, struct recipe_rule *rule)
{
    static const char *const weights[] = { "best", "imatrix", "columns", "none" };
    static const char *const search[] = { "fast", "exact" };
    static const char *const ldlq[] = { "auto", "on", "off" };
    static const char *const on[] = { "on", "off" };
    static const char option_names[] = "layers=, weights=, power=, search=, ldlq=, gain= or mean=";
    char *value = strchr(word, '=');
    if (!value)
        return wrong(p, "option", word, option_names);
    *value++ = 0;
    if (strcmp(word, "layers") == 0)
        return read_layers(p, value, rule);
    if (strcmp(word, "power") == 0)
        return read_power(p, value, rule);
    if (strcmp(word, "weights") == 0) {
        int i = choice(value, weights, (int)COUNT_OF(weights));
        if (i < 1)
            return wrong(p, "weights", value, "imatrix, columns or none");
        rule->weights = (enum recipe_weights)i;
        return 0;
    }
    if (strcmp(word, "search") == 0) {
        int i = choice(value, search, (int)COUNT_OF(search));
        if (i < 0)
            return wrong(p, "search", value, "fast or exact");
        rule->effort = i ? QUANT_EXACT : QUANT_FAST;
        return 0;
    }
    if (strcmp(word, "ldlq") == 0) {
        int i = choice(value, ldlq, (int)COUNT_OF(ldlq));
        if (i < 0)
            return wrong(p, "ldlq", value, "auto, on or off");
        rule->ldlq = (enum recipe_ldlq)i;
        return 0;
    }
    if (strcmp(word, "gain") == 0 || strcmp(word, "mean") == 0) {
        int i = choice(value, on, (int)COUNT_OF(on));
        if (i < 0)
            return wrong(p, word, value, "on or off");
        *(*word == 'g' ? &rule->gain : &rule->mean) = i == 0;
        return 0;
    }
    return wrong(p, "option", word, option_names);
}

/* The next word of a line, ended by a zero; NULL: none. *at moves on. */
static char *next_word(char **at)
{
    char *word = *at + strspn(*at, " \t\r");
    if (!*word || *word == '#')
        return NULL;
    char *end = word + strcspn(word, " \t\r");
    *at = end;
    if (*end) {
        *end = 0;
        *at = end + 1;
    }
    return word;
}

static int read_rule(struct recipe *r, char *line, const struct place *p)
{
    char *pattern = next_word(&line), *type;
    if (!pattern)
        return 0;
    if (!(type = next_word(&line)))
        return wrong(p, "type", "missing", "one after the pattern");
    if (r->n_rule == MAX_RULE)
        return err_set(p->e, ERR_LIMIT, "recipe %s: has more than %d rules", r->name, MAX_RULE);
    struct recipe_rule *rule = &r->rule[r->n_rule];
    *rule = (struct recipe_rule){ .pattern = pattern, .last = INT_MAX, .gain = true,
                                  .mean = true, .line = p->line };
    TRY(read_type(p, type, rule));
    for (char *word; (word = next_word(&line));)
        TRY(read_option(p, word, rule));
    r->n_rule++;
    return 0;
}

static int read_rules(struct recipe *r, struct err *e)
{
    struct place p = { r, 0, e };
    char *line = r->words;
    while (line) {
        char *end = strchr(line, '\n');
        if (end)
            *end = 0;
        p.line++;
        TRY(read_rule(r, line, &p));
        line = end ? end + 1 : NULL;
    }
    return r->n_rule > 0 ? 0 : err_set(e, ERR_ARGUMENT, "recipe %s: has no rules", r->name);
}

static char *copy_text(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = malloc(n);
    if (copy)
        memcpy(copy, s, n);
    return copy;
}

int recipe_parse(struct recipe *r, const char *name, const char *text, struct err *e)
{
    int n_line = 1, code;
    for (const char *c = text; *c; c++)
        n_line += *c == '\n';
    *r = (struct recipe){ .name = copy_text(name), .text = copy_text(text),
                          .words = copy_text(text) };
    r->rule = calloc((size_t)MIN(n_line, MAX_RULE), sizeof *r->rule);
    if (!r->name || !r->text || !r->words || !r->rule)
        code = err_set(e, ERR_NO_MEMORY, "recipe %s: out of memory", name);
    else
        code = read_rules(r, e);
    if (code < 0)
        recipe_close(r);
    return code;
}

int recipe_open(struct recipe *r, const char *which, struct err *e)
{
    struct buf text;
    *r = (struct recipe){ 0 };
    for (size_t i = 0; i < COUNT_OF(built_in); i++) {
        if (strcmp(which, built_in[i].name) == 0)
            return recipe_parse(r, which, built_in[i].text, e);
    }
    if (!strchr(which, '/') && !strchr(which, '.') && !file_exists(which))
        return err_set(e, ERR_ARGUMENT,
                       "recipe %.80s: neither a file nor q2, q2-q4attn, q4 or lossless", which);
    buf_init(&text, MAX_TEXT_BYTES);
    int code = file_read_all(&text, which, e);
    if (code == 0 && text.data && memchr(text.data, 0, text.len))
        code = err_set(e, ERR_FORMAT, "recipe %s: is not a text", which);
    if (code == 0)
        code = recipe_parse(r, which, text.data ? text.data : "", e);
    buf_release(&text);
    return code;
}

void recipe_close(struct recipe *r)
{
    free(r->name);
    free(r->text);
    free(r->words);
    free(r->rule);
    *r = (struct recipe){ 0 };
}

/* ---- finding ---- */

/* '*' stands for any characters; going back to the last one is enough. */
static bool matches(const char *name, const char *pattern)
{
    const char *star = NULL, *resume = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = ++pattern;
            resume = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star;
            name = ++resume;
        } else {
            return false;
        }
    }
    return pattern[strspn(pattern, "*")] == 0;
}

const struct recipe_rule *recipe_find(const struct recipe *r, const char *tensor, int layer)
{
    for (int i = 0; i < r->n_rule; i++) {
        const struct recipe_rule *rule = &r->rule[i];
        bool any = rule->first == 0 && rule->last == INT_MAX;
        bool here = layer >= rule->first && layer <= rule->last;
        if ((any || here) && matches(tensor, rule->pattern))
            return rule;
    }
    return NULL;
}
