/* cmd_eval.c - `dstar eval logits` and `dstar eval nll`: what the model thinks of a given text.
 *
 * Both go through dstar_eval(), the path on which prompts are computed; nothing is sampled. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "engine_opts.h"
#include "file.h"
#include "ids_json.h"
#include "interrupt.h"
#include "term.h"

#define MAX_TEXT_BYTES ((size_t)1 << 30)

struct eval_opts {
    struct engine_opts model;
    const char *tokens, *out, *text;
    int chunk;
    bool mtp, special;
};

#define AT(field) offsetof(struct eval_opts, field)
#define CHUNK                                                                                      \
    { "chunk", 0, OPT_INT, "N", AT(chunk), 0, 1 << 24, "0",                                        \
      "tokens computed at once, which changes nothing but memory and time; 0: as many as fit" }

static const struct opt logits_options[] = {
    { "tokens", 0, OPT_TEXT, "FILE", AT(tokens), 0, 0, NULL,
      "JSON array of token ids; -: standard input" },
    { "out", 'o', OPT_TEXT, "FILE", AT(out), 0, 0, NULL,
      "file to write: little-endian float32, one row of the vocabulary's size for each token" },
    CHUNK,
    { "mtp", 0, OPT_FLAG, NULL, AT(mtp), 0, 0, NULL,
      "the logits of the draft block instead: for each token, given the next one as well" },
};

static const struct opt nll_options[] = {
    { "text", 'f', OPT_TEXT, "FILE", AT(text), 0, 0, NULL,
      "text, of which the beginning is marked; -: standard input" },
    { "tokens", 0, OPT_TEXT, "FILE", AT(tokens), 0, 0, NULL, "or a JSON array of token ids" },
    { "special", 0, OPT_FLAG, NULL, AT(special), 0, 0, NULL,
      "markers such as <think> in the text become control tokens" },
    CHUNK,
};

struct eval_run {
    const struct eval_opts *o;
    dstar_engine *engine;
    struct dstar_tokens tokens;
    struct progress progress;
    struct file_out out; /* of logits */
    struct err err;
    double sum; /* of nll */
};

/* Common to both rows: 0 to go on. */
static int show(struct eval_run *r, int pos)
{
    progress_show(&r->progress, pos + 1, r->tokens.n);
    return interrupt_seen();
}

static int logits_row(void *user, int pos, const float *logits, const float *mtp)
{
    struct eval_run *r = user;
    size_t bytes = (size_t)dstar_engine_info(r->engine)->n_vocab * sizeof(float);
    const float *row = r->o->mtp ? mtp : logits;
    if (file_out_write(&r->out, row, bytes, &r->err) < 0)
        return 1;
    return show(r, pos);
}

static int nll_row(void *user, int pos, const float *logits, const float *mtp)
{
    struct eval_run *r = user;
    (void)mtp;
    if (pos + 1 < r->tokens.n)
        r->sum -= dstar_logprob(logits, dstar_engine_info(r->engine)->n_vocab,
                                r->tokens.id[pos + 1]);
    return show(r, pos);
}

static int evaluate(struct eval_run *r, dstar_row_fn *on_row)
{
    struct dstar_error error;
    struct dstar_text_eval e = { r->tokens.id, r->tokens.n, r->o->chunk, r->o->mtp, on_row, r };
    progress_begin(&r->progress, "evaluating", "tokens", 0);
    int code = dstar_eval(r->engine, &e, &error);
    progress_end(&r->progress);
    if (r->err.code < 0)
        term_error("%s", r->err.text);
    return code >= 0 ? 0 : r->err.code < 0 ? EXIT_ERROR : fault_print(&error);
}

static int run_logits(struct eval_run *r)
{
    int status = EXIT_ERROR;
    if (ids_read(&r->tokens, r->o->tokens, &r->err) < 0 ||
        file_out_open(&r->out, r->o->out, &r->err) < 0)
        term_error("%s", r->err.text);
    else
        status = evaluate(r, logits_row);
    if (status == 0 && file_out_commit(&r->out, &r->err) < 0) {
        term_error("%s", r->err.text);
        status = EXIT_ERROR;
    }
    file_out_abort(&r->out);
    return status;
}

/* Ids from a file, or the tokens of a text behind the token that begins every text. */
static int read_text(struct eval_run *r)
{
    const struct eval_opts *o = r->o;
    struct dstar_error error;
    struct buf text;
    if (o->tokens)
        return ids_read(&r->tokens, o->tokens, &r->err);
    buf_init(&text, MAX_TEXT_BYTES);
    int code = file_read_all(&text, o->text, &r->err);
    int32_t begin = dstar_token_find(r->engine, "<｜begin▁of▁sentence｜>");
    if (code >= 0 && begin >= 0)
        code = dstar_tokens_add(&r->tokens, &begin, 1, &error);
    if (code >= 0)
        code = dstar_tokenise(r->engine, text.data ? text.data : "", text.len, o->special,
                              &r->tokens, &error);
    buf_release(&text);
    if (code < 0)
        err_set(&r->err, ERR_FORMAT, "%s", error.text);
    return code;
}

static int run_nll(struct eval_run *r)
{
    if (read_text(r) < 0) {
        term_error("%s", r->err.text);
        return EXIT_ERROR;
    }
    if (r->tokens.n < 2) {
        term_error("%s: found %d tokens, expected at least 2",
                   r->o->tokens ? r->o->tokens : r->o->text, r->tokens.n);
        return EXIT_ERROR;
    }
    int status = evaluate(r, nll_row);
    double mean = r->sum / (r->tokens.n - 1);
    if (status == 0) {
        printf("%.6f\n", mean);
        term_remark("nats a token, over %d tokens; perplexity %.4g", r->tokens.n - 1, exp(mean));
    }
    return status;
}

static int start(struct eval_run *r, const struct eval_opts *o, int (*run)(struct eval_run *))
{
    *r = (struct eval_run){ .o = o };
    interrupt_catch(NULL);
    int status = engine_start(&r->engine, &o->model);
    if (status == 0)
        status = run(r);
    dstar_tokens_release(&r->tokens);
    dstar_close(r->engine);
    return status;
}

int cmd_eval_logits(const struct command *command, int n, char **arg)
{
    struct eval_opts o = { 0 };
    struct eval_run r;
    struct opt_group group[2] = { { "evaluation", logits_options, COUNT_OF(logits_options), &o },
                                  engine_group(&o.model) };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n || !o.tokens || !o.out)
        return opts_wrong(command, "expected --tokens FILE and --out FILE, and nothing else");
    o.model.mtp = o.mtp;
    return start(&r, &o, run_logits);
}

int cmd_eval_nll(const struct command *command, int n, char **arg)
{
    struct eval_opts o = { 0 };
    struct eval_run r;
    struct opt_group group[2] = { { "evaluation", nll_options, COUNT_OF(nll_options), &o },
                                  engine_group(&o.model) };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n || !o.tokens == !o.text)
        return opts_wrong(command, "expected --text FILE or --tokens FILE, and nothing else");
    return start(&r, &o, run_nll);
}
