/* cmd_tokenize.c - `dstar tokenize` and `dstar detokenize`: text to ids and back.
 *
 * Nothing but the vocabulary is opened. --jsonl keeps one process for many texts: each line is
 * answered before the next one is read. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "engine_opts.h"
#include "file.h"
#include "host.h"
#include "ids_json.h"
#include "term.h"

#define MAX_TEXT_BYTES ((size_t)1 << 30)

struct token_opts {
    struct engine_opts model;
    const char *file;
    bool special, jsonl, show;
};

#define AT(field) offsetof(struct token_opts, field)

static const struct opt to_ids[] = {
    { "file", 'f', OPT_TEXT, "FILE", AT(file), 0, 0, NULL, "read the text from FILE" },
    { "special", 0, OPT_FLAG, NULL, AT(special), 0, 0, NULL,
      "markers such as <think> become control tokens" },
    { "show", 0, OPT_FLAG, NULL, AT(show), 0, 0, NULL,
      "one token a line: its id and its text in quotes, odd bytes as \\xNN" },
    { "jsonl", 0, OPT_FLAG, NULL, AT(jsonl), 0, 0, NULL,
      "each line in is a JSON string, or an object with messages, tools and thinking that is read "
      "as a dialogue; each line out is a JSON array of its ids" },
};

static const struct opt to_text[] = {
    { "file", 'f', OPT_TEXT, "FILE", AT(file), 0, 0, NULL, "read the ids from FILE" },
    { "special", 0, OPT_FLAG, NULL, AT(special), 0, 0, NULL,
      "control tokens are written as their markers; otherwise they are left out" },
    { "jsonl", 0, OPT_FLAG, NULL, AT(jsonl), 0, 0, NULL,
      "each line in is a JSON array of ids, each line out a JSON string" },
};

struct job {
    const struct token_opts *o;
    const dstar_engine *engine;
    bool back; /* ids to text */
};

/* The words joined by spaces, or the file, or standard input. */
static int read_input(const struct job *j, const struct words *words, struct buf *in)
{
    struct err e = { 0 };
    for (int i = 0; i < words->n; i++) {
        buf_puts(in, i ? " " : "");
        buf_puts(in, words->word[i]);
    }
    if (words->n == 0 && file_read_all(in, j->o->file ? j->o->file : "-", &e) < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    buf_puts(in, "");
    return 0;
}

static int print_ids(const struct job *j, const struct buf *in, struct dstar_error *error)
{
    struct dstar_tokens tokens = { 0 };
    int code = dstar_tokenise(j->engine, in->data, in->len, j->o->special, &tokens, error);
    for (int i = 0; code >= 0 && i < tokens.n; i++) {
        if (j->o->show)
            ids_show(j->engine, tokens.id[i]);
        else
            printf(i ? " %d" : "%d", tokens.id[i]);
    }
    if (code >= 0 && !j->o->show)
        printf("\n");
    dstar_tokens_release(&tokens);
    return code;
}

static int print_text(const struct job *j, const struct buf *in, struct dstar_error *error)
{
    struct dstar_tokens tokens = { 0 };
    char *text = NULL;
    size_t len;
    struct err e = { 0 };
    int code = ids_parse(&tokens, in->data, in->len, "ids", &e);
    if (code < 0)
        fault_of(error, &e);
    else
        code = ids_check(j->engine, &tokens, "ids", error);
    if (code >= 0)
        code = dstar_detokenise(j->engine, tokens.id, tokens.n, j->o->special, &text, &len, error);
    if (code >= 0) {
        fwrite(text, 1, len, stdout);
        if (host_is_terminal(1))
            printf("\n");
    }
    dstar_free(text);
    dstar_tokens_release(&tokens);
    return code;
}

static int print_lines(const struct job *j, struct dstar_error *error)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int code = 0;
    FILE *in = !j->o->file || strcmp(j->o->file, "-") == 0 ? stdin : fopen(j->o->file, "r");
    if (!in)
        return fault_set(error, DSTAR_IO, "%s: cannot open: %s", j->o->file, strerror(errno));
    for (int n = 1; code >= 0 && (len = getline(&line, &cap, in)) >= 0; n++) {
        struct ids_line l = { j->engine, line, (size_t)len, n, j->o->special };
        code = j->back ? ids_line_to_text(&l, error) : ids_line_to_ids(&l, error);
        fflush(stdout);
    }
    if (in != stdin)
        fclose(in);
    free(line);
    return code;
}

static int run(struct job *j, struct opt_group *group, const struct command *command, int n,
               char **arg)
{
    struct words words;
    struct dstar_error error;
    struct buf in;
    dstar_engine *engine = NULL;
    int status = opts_parse(command, group, 2, &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n && (j->o->jsonl || j->o->file))
        return opts_wrong(command, "found '%s', expected no words with --%s", words.word[0],
                          j->o->jsonl ? "jsonl" : "file");
    buf_init(&in, MAX_TEXT_BYTES);
    status = engine_start(&engine, &j->o->model);
    j->engine = engine;
    if (status == 0 && !j->o->jsonl)
        status = read_input(j, &words, &in);
    if (status == 0) {
        int code = j->o->jsonl ? print_lines(j, &error)
                   : j->back   ? print_text(j, &in, &error)
                               : print_ids(j, &in, &error);
        if (code < 0)
            status = fault_print(&error);
    }
    dstar_close(engine);
    buf_release(&in);
    return status;
}

int cmd_tokenize(const struct command *command, int n, char **arg)
{
    struct token_opts o = { 0 };
    struct opt_group group[2] = { { "tokens", to_ids, COUNT_OF(to_ids), &o },
                                  tokens_group(&o.model) };
    return run(&(struct job){ .o = &o }, group, command, n, arg);
}

int cmd_detokenize(const struct command *command, int n, char **arg)
{
    struct token_opts o = { 0 };
    struct opt_group group[2] = { { "tokens", to_text, COUNT_OF(to_text), &o },
                                  tokens_group(&o.model) };
    return run(&(struct job){ .o = &o, .back = true }, group, command, n, arg);
}
