/* opts.h - options of a command as tables: parsed, checked and explained from one description.
 *
 * A command is a row of the table in main.c; its options are one or more groups, each an array of
 * struct opt and the struct that receives the values. Reading the environment is done here, too,
 * and nowhere else. */
#ifndef DS_OPTS_H
#define DS_OPTS_H

#include "base.h"

enum opt_type {
    OPT_FLAG,  /* bool: true when given */
    OPT_INT,   /* int within least..most */
    OPT_COUNT, /* uint64_t, at most INT64_MAX */
    OPT_REAL,  /* double within least..most */
    OPT_BYTES, /* uint64_t: a number, with K, M, G or T for powers of 1024 */
    OPT_MEMORY, /* the same, or with GB and the like; "30%" of the machine's memory; "auto": 0 */
    OPT_TEXT,  /* const char * */
    OPT_WORD,  /* int: index of the word in `arg`, such as "none|low|high" */
    OPT_TEXTS, /* struct opt_texts: may be repeated */
    OPT_INTS   /* struct opt_ints: "512,2048" each within least..most */
};

#define OPT_MOST 64

struct opt_texts {
    const char *text[OPT_MOST];
    int n;
};

struct opt_ints {
    int value[OPT_MOST];
    int n;
};

struct opt {
    const char *name;   /* without the dashes */
    char letter;        /* of the short form, or 0 */
    enum opt_type type;
    const char *arg;    /* what help calls the value; words of an OPT_WORD; NULL for a flag */
    size_t at;          /* offset of the value in the group's struct */
    double least, most; /* of numbers */
    const char *preset; /* value when not given, as the user would write it; NULL: left alone */
    const char *help;   /* one line */
};

struct opt_group {
    const char *title;
    const struct opt *opt;
    int n;
    void *into;
};

struct command {
    const char *name;     /* one word, or two such as "eval nll" */
    const char *args;     /* of the usage line, after the options */
    const char *brief;    /* one line, no full stop */
    const char *about;    /* paragraphs */
    const char *examples; /* lines, each a command */
    int (*run)(const struct command *command, int n, char **arg); /* gives the exit status */
};

struct words {
    char **word; /* arguments that are no options, in order */
    int n;
};

/* Exit status of the program. */
enum { EXIT_DONE = 0, EXIT_ERROR = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* Fill the groups' structs from n arguments (reordered: words first). Returns -1 to go on;
 * otherwise the program ends with this status: --help was answered, or the mistake named. */
int opts_parse(const struct command *command, const struct opt_group *group, int n_group,
               struct words *words, int n, char **arg);

/* Say what is wrong with the words or files a command was given, in one line; EXIT_USAGE. */
int opts_wrong(const struct command *command, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Print what `dstar help COMMAND` prints. */
void opts_help(const struct command *command, const struct opt_group *group, int n_group);

/* A text in lines as wide as the terminal, new lines kept. */
void opts_print_wrapped(const char *text);

/* Environment, NULL when unset or empty: NO_COLOR, TERM, DSTAR_MODEL, HOME, XDG_STATE_HOME. */
const char *opts_env(const char *name);

#endif
