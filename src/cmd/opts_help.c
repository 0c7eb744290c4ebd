/* opts_help.c - the text of `dstar help COMMAND`, written from the tables. */
#include <stdio.h>

#include "opts.h"
#include "term.h"

#define WIDEST 100

/* Words of `text` between columns `indent` and `width`; the cursor stands at `column`. */
static void wrap(const char *text, int column, int indent, int width)
{
    while (*text) {
        size_t n = strcspn(text, " \n");
        if (column > indent && column + 1 + (int)n > width) {
            printf("\n");
            column = 0;
        }
        if (column < indent)
            column += printf("%*s", indent - column, "");
        else if (column > indent && n)
            column += printf(" ");
        column += printf("%.*s", (int)n, text);
        text += n;
        if (*text == '\n') {
            printf("\n");
            column = 0;
        }
        text += *text != 0;
    }
    printf("\n");
}

static int width_now(void)
{
    int columns = term_width(TERM_OUT);
    return columns ? MIN(columns - 1, WIDEST) : WIDEST;
}

void opts_print_wrapped(const char *text)
{
    wrap(text, 0, 0, width_now());
}

/* "  -c, --ctx N" into `out`; returns its length. */
static int heading(const struct opt *o, char *out, size_t cap)
{
    char letter[5] = "    ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    return snprintf(out, cap, "  %s--%s%s%s", letter, o->name, o->arg ? " " : "",
                    o->arg ? o->arg : "");
}

static void print_option(const struct opt *o, int indent, int width)
{
    char head[128], help[512];
    int column = heading(o, head, sizeof head);
    snprintf(help, sizeof help, o->preset ? "%s (default %s)" : "%s", o->help, o->preset);
    printf("%s", head);
    if (column + 2 > indent) {
        printf("\n");
        column = 0;
    }
    wrap(help, column, indent, width);
}

static void print_lines(const char *lines)
{
    while (*lines) {
        size_t n = strcspn(lines, "\n");
        printf("  %.*s\n", (int)n, lines);
        lines += n + (lines[n] == '\n');
    }
}

void opts_help(const struct command *c, const struct opt_group *group, int n_group)
{
    int width = width_now();
    const char *bold = term_style(TERM_OUT, TERM_BOLD), *plain = term_style(TERM_OUT, TERM_PLAIN);
    const int indent = 26;
    printf("%sdstar %s%s - %s\n\nusage: dstar %s [OPTION]... %s\n\n", bold, c->name, plain,
           c->brief, c->name, c->args);
    opts_print_wrapped(c->about);
    for (int g = 0; g < n_group; g++) {
        printf("\n%s%s:%s\n", bold, group[g].title, plain);
        for (int i = 0; i < group[g].n; i++)
            print_option(&group[g].opt[i], indent, width);
    }
    wrap("this text", printf("  -h, --help"), indent, width);
    printf("\n%sexamples:%s\n", bold, plain);
    print_lines(c->examples);
}
