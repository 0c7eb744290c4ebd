/* opts.c - read options by their tables, strictly: a number is a whole word, a value is never
 * guessed, and of a misspelt name the nearest right one is said. Not getopt: it knows no types, no
 * ranges, and nothing from which help could be written. */
#include "opts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "opts_value.h"
#include "suggest.h"
#include "term.h"

const char *opts_env(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

int opts_wrong(const struct command *command, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    term_error("%s: %s (see: dstar help %s)", command->name, text, command->name);
    return EXIT_USAGE;
}

static int wrong_value(const struct command *c, const struct opt *o, const char *text)
{
    char expected[96];
    opts_expected(o, expected, sizeof expected);
    return opts_wrong(c, "--%s: found '%s', expected %s", o->name, text, expected);
}

struct parse {
    const struct command *command;
    const struct opt_group *group;
    int n_group;
    const char *const *end; /* of the arguments */
};

/* The option with this name (len bytes) or letter, and the struct it belongs to. */
static const struct opt *find(const struct parse *p, const char *name, size_t len, char **into)
{
    for (int g = 0; g < p->n_group; g++)
        for (int i = 0; i < p->group[g].n; i++) {
            const struct opt *o = &p->group[g].opt[i];
            *into = p->group[g].into;
            if (strlen(o->name) == len && strncmp(o->name, name, len) == 0)
                return o;
            if (len == 1 && o->letter == *name)
                return o;
        }
    return NULL;
}

static int unknown(const struct parse *p, const char *typed, size_t len)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)len, typed);
    struct suggest s;
    suggest_init(&s, name);
    suggest_offer(&s, "help");
    for (int g = 0; g < p->n_group; g++)
        for (int i = 0; i < p->group[g].n; i++)
            suggest_offer(&s, p->group[g].opt[i].name);
    if (s.best)
        return opts_wrong(p->command, "unknown option --%s, did you mean --%s?", name, s.best);
    return opts_wrong(p->command, "unknown option %s%s", len == 1 ? "-" : "--", name);
}

/* One option at arg[0], its value there or in arg[1]. Moves *arg behind it; -1, or a status. */
static int one(const struct parse *p, char ***arg)
{
    const char *a = *(*arg)++;
    bool is_long = a[1] == '-';
    const char *name = a + 1 + is_long;
    size_t len = is_long ? strcspn(name, "=") : 1;
    const char *value = is_long ? (name[len] ? name + len + 1 : NULL)
                                : (name[1] ? name + 1 : NULL);
    if ((len == 4 && strncmp(name, "help", 4) == 0) || (!is_long && *name == 'h')) {
        opts_help(p->command, p->group, p->n_group);
        return EXIT_DONE;
    }
    char *into;
    const struct opt *o = is_long && len == 1 ? NULL : find(p, name, len, &into);
    if (!o)
        return unknown(p, name, len);
    if (o->type == OPT_FLAG && value)
        return opts_wrong(p->command, "--%s: found '%s', expected no value", o->name, value);
    if (o->type != OPT_FLAG && !value) {
        if ((const char *const *)*arg == p->end)
            return opts_wrong(p->command, "--%s: found nothing, expected %s", o->name, o->arg);
        value = *(*arg)++;
    }
    return opts_store(o, into, value) ? -1 : wrong_value(p->command, o, value);
}

int opts_parse(const struct command *command, const struct opt_group *group, int n_group,
               struct words *words, int n, char **arg)
{
    struct parse p = { command, group, n_group, (const char *const *)arg + n };
    for (int g = 0; g < n_group; g++)
        for (int i = 0; i < group[g].n; i++) {
            const struct opt *o = &group[g].opt[i];
            CHECK(!o->preset || opts_store(o, group[g].into, o->preset));
        }
    char **end = arg + n;
    *words = (struct words){ .word = arg };
    while (arg < end) {
        if (strcmp(*arg, "--") == 0) {
            for (arg++; arg < end;)
                words->word[words->n++] = *arg++;
            break;
        }
        if (**arg != '-' || !(*arg)[1]) {
            words->word[words->n++] = *arg++;
            continue;
        }
        int status = one(&p, &arg);
        if (status >= 0)
            return status;
    }
    return -1;
}
