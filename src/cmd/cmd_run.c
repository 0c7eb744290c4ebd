/* cmd_run.c - `dstar run`: one prompt, one answer.
 *
 * What is the answer goes to stdout, all else to stderr, so that the answer can be piped. */
#include <stdio.h>
#include <stdlib.h>

#include "answer_show.h"
#include "commands.h"
#include "dialogue.h"
#include "file.h"
#include "host.h"
#include "measure.h"

#define MAX_PROMPT_BYTES ((size_t)1 << 28)

struct run_opts {
    const char *file, *routes;
    bool raw, json;
};

#define AT(field) offsetof(struct run_opts, field)

static const struct opt options[] = {
    { "file", 'f', OPT_TEXT, "FILE", AT(file), 0, 0, NULL,
      "read the (rest of the) prompt from FILE; -: standard input" },
    { "raw", 0, OPT_FLAG, NULL, AT(raw), 0, 0, NULL,
      "the prompt is text to be continued, not a message" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL,
      "print one JSON object at the end instead of the text as it comes" },
    { "routes", 0, OPT_TEXT, "TRACE", AT(routes), 0, 0, NULL,
      "for measuring: use the experts that a file of dstar trace names; the answer is noise" },
};

/* Words of the command line, then the file; standard input if there is neither. */
static int read_prompt(struct buf *out, const struct run_opts *o, const struct words *words)
{
    struct err e = { 0 };
    const char *file = o->file ? o->file : words->n ? NULL : "-";
    for (int i = 0; i < words->n; i++) {
        buf_puts(out, i ? " " : "");
        buf_puts(out, words->word[i]);
    }
    if (file && words->n)
        buf_puts(out, "\n\n");
    if (file && strcmp(file, "-") == 0 && host_is_terminal(0))
        term_remark("(reading the prompt from the terminal; end it with Ctrl-D)");
    if (file && file_read_all(out, file, &e) < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    while (!o->raw && out->len > 0 && out->data[out->len - 1] == '\n')
        out->data[--out->len] = 0;
    if (out->len > 0 || o->raw)
        return 0;
    term_error("run: prompt: found nothing, expected a text (see: dstar help run)");
    return EXIT_USAGE;
}

/* The session's tokens, or the one that begins every text, and then the prompt. */
static int set_raw(struct dialogue *d, const struct buf *prompt, struct dstar_error *error)
{
    int n;
    struct dstar_tokens all = { 0 }, added = { 0 };
    int32_t begin = dstar_token_find(d->engine, "<｜begin▁of▁sentence｜>");
    const int32_t *past = dstar_session_tokens(d->session, &n, NULL);
    int code = dstar_tokenise(d->engine, prompt->data ? prompt->data : "", prompt->len,
                              d->opts.special, &added, error);
    bool marked = n > 0 || begin < 0 || (added.n > 0 && added.id[0] == begin);
    if (code >= 0)
        code = dstar_tokens_add(&all, marked ? past : &begin, marked ? n : 1, error);
    if (code >= 0)
        code = dstar_tokens_add(&all, added.id, added.n, error);
    if (code >= 0)
        code = dstar_session_set(d->session, all.id, all.n, error);
    dstar_tokens_release(&all);
    dstar_tokens_release(&added);
    return code;
}

static int answer_raw(struct dialogue *d, const struct buf *prompt, struct answer *a,
                      struct ask *q, struct dstar_error *error)
{
    q->engine = d->engine;
    q->session = d->session;
    q->max_tokens = d->opts.max_tokens;
    q->special = d->opts.special;
    q->quiet = d->opts.quiet;
    dstar_chat_init(&q->chat);
    q->chat.stop = d->opts.stop.text;
    q->chat.n_stop = d->opts.stop.n;
    int code = set_raw(d, prompt, error);
    return code < 0 ? code : answer_get(a, q, error);
}

static int answer_chat(struct dialogue *d, const struct buf *prompt, struct answer *a,
                       struct ask *q, struct dstar_error *error)
{
    struct err e = { 0 };
    if (talk_say(&d->talk, prompt->data, prompt->len, &e) < 0)
        return fault_of(error, &e);
    if (talk_open_call(&d->talk)) {
        term_error("run: kept; the next prompt is the result of the call %s",
                   talk_open_call(&d->talk));
        return 0;
    }
    return dialogue_answer(d, a, q->show, q->show_user, error);
}

static int answer(struct dialogue *d, const struct run_opts *o, const struct buf *prompt)
{
    struct dstar_error error;
    struct answer a;
    struct answer_show show;
    struct ask q = { .show = o->json ? NULL : answer_show_event, .show_user = &show };
    answer_show_init(&show, d->opts.quiet, o->raw);
    answer_init(&a);
    int code = (o->raw ? answer_raw : answer_chat)(d, prompt, &a, &q, &error);
    answer_show_end(&show);
    if (code >= 0 && o->json)
        answer_print_json(&a, d->engine, d->sampling_opts.seed);
    if (code >= 0)
        dialogue_figures(d, &a);
    if (code >= 0 && d->opts.session)
        code = dialogue_save(d, d->opts.session, &error);
    int status = code < 0 ? fault_print(&error) : a.interrupted ? EXIT_INTERRUPTED : EXIT_DONE;
    answer_release(&a);
    return status;
}

static int answer_routed(struct dialogue *d, const struct run_opts *o, const struct buf *prompt)
{
    struct imposed *imposed = NULL;
    struct err e = { 0 };
    if (o->routes && impose_begin(&imposed, d->engine, o->routes, &e) < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    int status = answer(d, o, prompt);
    impose_end(imposed);
    return status;
}

int cmd_run(const struct command *command, int n, char **arg)
{
    struct run_opts o = { 0 };
    struct dialogue d;
    struct opt_group group[4] = { { "prompt and output", options, COUNT_OF(options), &o } };
    struct words words;
    struct buf prompt;
    dialogue_groups(&d, group + 1);
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    d.opts.quiet |= o.json && !d.opts.stats;
    buf_init(&prompt, MAX_PROMPT_BYTES);
    status = read_prompt(&prompt, &o, &words);
    if (status == 0)
        status = dialogue_open(&d);
    if (status == 0)
        status = answer_routed(&d, &o, &prompt);
    dialogue_close(&d);
    buf_release(&prompt);
    return status;
}
