/* calibrate.c - text after text through the model, each in a conversation of its own.
 *
 * A conversation of its own takes nothing from a cache: every token is computed, and seen, once.
 * What is done is saved between texts; the sums of a text under way are lost with a crash, and the
 * same sums come when it is done again. */
#include "calibrate.h"

#include "calibrate_texts.h"
#include "clock.h"
#include "collect.h"
#include "hash.h"

#include <stdio.h>
#include <stdlib.h>

enum { ANSWERED, CUT }; /* in the note's values: tokens, texts */

struct calibration {
    const struct calibrate_options *o;
    dstar_engine *engine;
    struct calibrate_texts texts;
    struct collector *collector;
    struct collect_note note;
    char *state;         /* path */
    double bytes_done, begin_s;
    int64_t n_before;    /* tokens of earlier calls */
    bool stop;
};

/* What must be the same for going on. */
static uint64_t task_of(const struct calibration *c)
{
    const struct calibrate_options *o = c->o;
    uint64_t temperature;
    memcpy(&temperature, &o->temperature, sizeof temperature);
    uint64_t v[] = { c->texts.hash, (uint64_t)o->answer, o->answer ? temperature : 0,
                     o->answer ? o->seed : 0, (uint64_t)o->piece, (uint64_t)o->limit,
                     (uint64_t)dstar_engine_info(c->engine)->ctx };
    return hash_of(v, sizeof v, 0);
}

/* part: of the text under way that is done. */
static void show(struct calibration *c, double part, int64_t n_tok)
{
    double len = (double)c->texts.text[c->note.n_document].len;
    double share = (c->bytes_done + part * len) / c->texts.bytes;
    if (c->o->limit > 0)
        share = MAX(share, (double)(c->note.n_token + n_tok) / (double)c->o->limit);
    if (c->o->progress && c->o->progress(c->o->user, MIN(share, 1), c->note.n_token + n_tok))
        c->stop = true;
}

/* ---- one text ----------------------------------------------------------------------------- */

/* Compute the text; then draw and compute until the turn ends. */
static int speak(struct calibration *c, dstar_session *s, const struct dstar_tokens *t, int n,
                 struct dstar_error *error)
{
    int ctx = dstar_engine_info(c->engine)->ctx;
    int left, more = 1;
    double expected = n + c->o->answer;
    int32_t id;
    TRY(dstar_session_set(s, t->id, n, error));
    while ((left = dstar_session_step(s, error)) > 0)
        show(c, (n - left) / expected, n - left);
    for (int i = 0; left == 0 && more > 0 && i < MIN(c->o->answer, ctx - n); i++) {
        more = dstar_next(s, &id, error);
        c->note.value[ANSWERED] += more > 0;
        show(c, (n + i) / expected, n + i);
    }
    while (left >= 0 && more > 0 && (left = dstar_session_step(s, error)) > 0)
        ;
    return MIN(left, more);
}

static int compute(struct calibration *c, const struct dstar_tokens *t, struct err *e)
{
    struct dstar_sampling sampling;
    struct dstar_stats stats;
    struct dstar_error error;
    dstar_session *s = NULL;
    int n = MIN(t->n, dstar_engine_info(c->engine)->ctx);
    c->note.value[CUT] += n < t->n;
    dstar_sampling_init(&sampling);
    sampling.temperature = (float)c->o->temperature;
    sampling.seed = c->o->seed + (uint64_t)c->note.n_document;
    int code = dstar_session_new(&s, c->engine, &error);
    if (code == 0)
        code = dstar_session_sampling(s, &sampling, &error);
    if (code == 0)
        code = speak(c, s, t, n, &error);
    if (code >= 0) {
        dstar_session_stats(s, &stats);
        c->note.n_token += stats.n_computed;
    }
    dstar_session_free(s);
    return code < 0 ? texts_fault(e, &error) : 0;
}

static int one_text(struct calibration *c, struct dstar_tokens *t, struct err *e)
{
    int i = (int)c->note.n_document;
    TRY(collect_document(c->collector, i % CALIBRATE_HELD == CALIBRATE_HELD - 1, e));
    TRY(texts_tokens(&c->texts, i, c->o->answer > 0, t, e));
    TRY(compute(c, t, e));
    show(c, 1, 0);
    TRY(collect_document(c->collector, false, e));
    c->bytes_done += (double)c->texts.text[i].len;
    c->note.n_document++;
    return 0;
}

static bool enough(const struct calibration *c)
{
    return c->note.n_document == c->texts.n || (c->o->limit > 0 && c->note.n_token >= c->o->limit);
}

static int all_texts(struct calibration *c, struct err *e)
{
    struct dstar_tokens t = { 0 };
    int code = 0;
    while (code == 0 && !enough(c)) {
        code = one_text(c, &t, e);
        bool save = code == 0 && (c->stop || c->note.n_document % c->o->save_every == 0);
        if (save || (code == 0 && enough(c)))
            code = collect_fetch(c->collector, e);
        if (code == 0 && save && !enough(c))
            code = collect_save(c->collector, c->state, &c->note, e);
        if (code == 0 && c->stop && !enough(c))
            code = err_set(e, ERR_CANCELLED, "stopped after %lld of %d texts; the same call with "
                           "--resume goes on", (long long)c->note.n_document, c->texts.n);
    }
    dstar_tokens_release(&t);
    return code;
}

/* ---- around them -------------------------------------------------------------------------- */

static int open_all(struct calibration *c, struct err *e)
{
    const struct calibrate_options *o = c->o;
    size_t len = strlen(o->out) + 8;
    if (o->piece < 1 || o->save_every < 1)
        return err_set(e, ERR_ARGUMENT, "pieces of %d tokens, saved every %d texts: expected at "
                       "least 1", o->piece, o->save_every);
    c->state = malloc(len);
    if (!c->state)
        return err_set(e, ERR_NO_MEMORY, "out of memory");
    snprintf(c->state, len, "%s.state", o->out);
    if (!o->resume && file_exists(c->state))
        return err_set(e, ERR_ARGUMENT, "%s: an unfinished calibration is there: go on with "
                       "--resume, or remove it", c->state);
    TRY(texts_open(&c->texts, c->engine, o->corpus, o->n_corpus, o->piece, e));
    struct collect_want want = { o->hessian != NULL, o->own_layer, o->n_own_layer, o->threads };
    TRY(collect_begin(&c->collector, c->engine, &want, e));
    c->note.task = task_of(c);
    if (o->resume && file_exists(c->state))
        TRY(collect_load(c->collector, c->state, &c->note, e));
    if (c->note.n_document > c->texts.n)
        return err_set(e, ERR_FORMAT, "%s: %lld texts are done, expected at most %d", c->state,
                       (long long)c->note.n_document, c->texts.n);
    for (int i = 0; i < c->note.n_document; i++)
        c->bytes_done += (double)c->texts.text[i].len;
    c->n_before = c->note.n_token;
    return 0;
}

static int check_coverage(struct calibration *c, struct buf *report, struct err *e)
{
    int n_expert, n_few = collect_coverage(c->collector, report, &n_expert);
    double share = (double)n_few / n_expert;
    buf_printf(report, "%d of %d experts (%.1f %%) saw fewer than %d tokens\n", n_few, n_expert,
               100 * share, COLLECT_FEW_TOKENS);
    if (!c->o->strict || share <= CALIBRATE_MOST_FEW)
        return 0;
    TRY(collect_save(c->collector, c->state, &c->note, e));
    return err_set(e, ERR_LIMIT, "%d of %d experts saw fewer than %d tokens, expected at most "
                   "%.0f %%; nothing is written, but --resume without --strict writes it",
                   n_few, n_expert, COLLECT_FEW_TOKENS, 100 * CALIBRATE_MOST_FEW);
}

static int write_all(struct calibration *c, struct err *e)
{
    const struct calibrate_options *o = c->o;
    struct collect_source from = { o->corpus, o->n_corpus, c->note.n_document, c->note.n_token };
    if (o->profile)
        TRY(collect_write_profile(c->collector, o->profile, e));
    if (o->hessian)
        TRY(collect_write_products(c->collector, o->hessian, e));
    TRY(collect_write_imatrix(c->collector, o->out, o->sums, &from, e));
    if (file_exists(c->state) && remove(c->state) != 0)
        return err_errno(e, "%s: cannot be removed", c->state);
    return 0;
}

static void put_figures(const struct calibration *c, struct buf *report)
{
    double s = clock_now_s() - c->begin_s;
    int64_t n = c->note.n_token - c->n_before;
    buf_printf(report, "%lld texts, %lld tokens, %lld of them the model's own",
               (long long)c->note.n_document, (long long)c->note.n_token,
               (long long)c->note.value[ANSWERED]);
    if (c->note.value[CUT] > 0)
        buf_printf(report, "; %lld texts were cut to the context of %d tokens",
                   (long long)c->note.value[CUT], dstar_engine_info(c->engine)->ctx);
    buf_printf(report, "\n%.1f s, %.0f tokens/s\n", s, s > 0 ? (double)n / s : 0);
}

int calibrate_run(dstar_engine *engine, const struct calibrate_options *o, struct buf *report,
                  struct err *e)
{
    struct calibration c = { .o = o, .engine = engine, .begin_s = clock_now_s() };
    int code = open_all(&c, e);
    if (code == 0)
        code = all_texts(&c, e);
    if (code == 0)
        code = check_coverage(&c, report, e);
    if (code == 0)
        code = write_all(&c, e);
    if (code == 0)
        put_figures(&c, report);
    collect_end(c.collector);
    texts_close(&c.texts);
    free(c.state);
    return code;
}
