/* api_session.c - sessions, sampling and evaluation: wrappers that translate errors. */
#include "api_impl.h"

#include "evaluate.h"
#include "session_file.h"

#include <math.h>
#include <stdlib.h>

int dstar_session_new(dstar_session **session, dstar_engine *engine, struct dstar_error *error)
{
    struct err e = { 0 };
    struct engine *en = &engine->e;
    dstar_session *s = NULL;
    int code = 0;
    *session = NULL;
    if (!en->pool_mem.host)
        code = err_set(&e, ERR_ARGUMENT, "%s: only a part of the model is open", en->path);
    else if (en->n_session >= en->budget.n_session)
        code = err_set(&e, ERR_LIMIT, "the engine was opened for %d sessions",
                       en->budget.n_session);
    else if (!(s = calloc(1, sizeof *s)))
        code = err_set(&e, ERR_NO_MEMORY, "out of memory for a session");
    else
        code = session_open(&s->s, en, &e);
    if (code < 0)
        free(s);
    else
        *session = s;
    return api_result(error, &e, code);
}

struct session *session_of(dstar_session *handle)
{
    return &handle->s;
}

void dstar_session_free(dstar_session *session)
{
    if (!session)
        return;
    session_close(&session->s);
    free(session);
}

int dstar_session_set(dstar_session *session, const int32_t *id, int n, struct dstar_error *error)
{
    struct err e = { 0 };
    return api_result(error, &e, session_set(&session->s, id, n, &e));
}

int dstar_session_append(dstar_session *session, const int32_t *id, int n,
                         struct dstar_error *error)
{
    struct err e = { 0 };
    return api_result(error, &e, session_append(&session->s, id, n, &e));
}

int dstar_session_truncate(dstar_session *session, int n, struct dstar_error *error)
{
    struct err e = { 0 };
    struct session *s = &session->s;
    int code = n < 0 || n > s->n_all
                   ? err_set(&e, ERR_ARGUMENT, "truncate to %d of %d tokens", n, s->n_all)
                   : session_set(s, s->kv.token, n, &e);
    return api_result(error, &e, code);
}

int dstar_session_step(dstar_session *session, struct dstar_error *error)
{
    struct err e = { 0 };
    return api_result(error, &e, session_step(&session->s, &e));
}

const int32_t *dstar_session_tokens(const dstar_session *session, int *n, int *n_computed)
{
    if (n)
        *n = session->s.n_all;
    if (n_computed)
        *n_computed = session->s.kv.n_tok;
    return session->s.kv.token;
}

void dstar_cancel(dstar_session *session)
{
    atomic_store(&session->s.cancelled, 1);
}

void dstar_uncancel(dstar_session *session)
{
    atomic_store(&session->s.cancelled, 0);
}

const float *dstar_logits(const dstar_session *session)
{
    struct session *s = session_of((dstar_session *)(uintptr_t)session);
    return session_ready(s) && session_bring(s, NULL) == 0 ? s->logits : NULL;
}

/* ---- logits and sampling ------------------------------------------------------------------ */

/* The logarithm of the sum of exponentials. */
static double log_sum(const float *logits, int n)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        max = fmax(max, logits[i]);
    for (int i = 0; i < n; i++)
        sum += exp(logits[i] - max);
    return max + log(sum);
}

int dstar_top(const float *logits, int n_vocab, struct dstar_candidate *out, int n)
{
    int have = 0;
    double norm = log_sum(logits, n_vocab);
    for (int32_t id = 0; id < n_vocab; id++) {
        if (have == n && !(n > 0 && logits[id] > out[n - 1].logprob))
            continue;
        int at = have < n ? have++ : n - 1;
        for (; at > 0 && logits[id] > out[at - 1].logprob; at--)
            out[at] = out[at - 1];
        out[at] = (struct dstar_candidate){ id, logits[id] };
    }
    for (int i = 0; i < have; i++)
        out[i].logprob = (float)(out[i].logprob - norm);
    return have;
}

float dstar_logprob(const float *logits, int n_vocab, int32_t id)
{
    return (float)(logits[id] - log_sum(logits, n_vocab));
}

void dstar_sampling_init(struct dstar_sampling *sampling)
{
    *sampling = (struct dstar_sampling){ .repeat_penalty = 1, .temperature = 1, .top_p = 1 };
}

int dstar_session_sampling(dstar_session *session, const struct dstar_sampling *sampling,
                           struct dstar_error *error)
{
    struct err e = { 0 };
    return api_result(error, &e, session_sampling(&session->s, sampling, &e));
}

int dstar_sample(dstar_session *session, int32_t *id, struct dstar_error *error)
{
    struct err e = { 0 };
    return api_result(error, &e, session_sample(&session->s, id, &e));
}

int dstar_next(dstar_session *session, int32_t *id, struct dstar_error *error)
{
    struct err e = { 0 };
    return api_result(error, &e, session_next(&session->s, id, &e));
}

/* ---- files, notes, numbers ---------------------------------------------------------------- */

int dstar_session_save(dstar_session *session, const char *path, struct dstar_error *error)
{
    struct err e = { 0 };
    return api_result(error, &e, session_save(&session->s, path, &e));
}

int dstar_session_load(dstar_session *session, const char *path, struct dstar_error *error)
{
    struct err e = { 0 };
    return api_result(error, &e, session_load(&session->s, path, &e));
}

int dstar_session_set_note(dstar_session *session, const void *note, size_t len,
                           struct dstar_error *error)
{
    struct err e = { 0 };
    struct buf copy;
    buf_init(&copy, session->s.note.max);
    buf_add(&copy, note, len);
    if (copy.failed) {
        buf_release(&copy);
        return api_result(error, &e,
                          len > copy.max
                              ? err_set(&e, ERR_LIMIT, "a note of %zu bytes, expected at most %zu",
                                        len, copy.max)
                              : err_set(&e, ERR_NO_MEMORY, "out of memory for a note"));
    }
    buf_release(&session->s.note);
    session->s.note = copy;
    return 0;
}

const void *dstar_session_note(const dstar_session *session, size_t *len)
{
    *len = session->s.note.len;
    return session->s.note.data;
}

void dstar_session_stats(const dstar_session *session, struct dstar_stats *stats)
{
    const struct session *s = &session->s;
    struct kv_use use = kv_use_of(&s->kv);
    *stats = (struct dstar_stats){
        .n_tok = s->n_all,
        .n_computed = s->kv.n_tok,
        .n_reused = s->n_reused,
        .n_prefill = s->n_prefill,
        .n_decode = s->n_decode,
        .prefill_s = s->prefill_s,
        .decode_s = s->decode_s,
        .first_token_s = s->first_token_s,
        .cache_bytes = use.blocks,
        .state_bytes = use.state,
        .mark_bytes = use.marks,
    };
}

int dstar_eval(dstar_engine *engine, const struct dstar_text_eval *eval,
               struct dstar_error *error)
{
    struct err e = { 0 };
    return api_result(error, &e, evaluate(&engine->e, eval, &e));
}
