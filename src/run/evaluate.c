/* evaluate.c - a conversation of its own in which every row wants logits.
 *
 * Logits are wide, so such a step has room for fewer rows than an ordinary one; how many is asked
 * of the plan, not guessed. */
#include "evaluate.h"

#include "engine.h"
#include "session.h"

static int check_job(const struct engine *e, const struct dstar_text_eval *job, struct err *err)
{
    if (!e->model || !e->scratch)
        return err_set(err, ERR_ARGUMENT, "%s: only a part of the model is open", e->path);
    if (!job->on_row || job->n < 1)
        return err_set(err, ERR_ARGUMENT, "evaluation: %d tokens, expected at least 1 and on_row",
                       job->n);
    if (job->mtp && !model_info(e->model)->has_mtp)
        return err_set(err, ERR_ARGUMENT, "%s: no draft block is open", e->path);
    return 0;
}

/* The most rows with logits, at most `want`, that the scratch has room for. */
static int find_chunk(struct engine *e, const struct dstar_text_eval *job, int *chunk,
                      struct err *err)
{
    int n = MIN(MIN(job->n, e->budget.max_rows), job->chunk > 0 ? job->chunk : INT32_MAX);
    for (;; n = n / 2) {
        struct budget_step step = { n, n, job->n, job->mtp };
        size_t bytes;
        TRY(budget_scratch(&bytes, &e->budget, e->model, e->dev, &step, err));
        if (bytes <= e->budget.scratch || n == 1) {
            *chunk = n;
            return 0;
        }
    }
}

static int hand_out(struct engine *e, const struct dstar_text_eval *job, struct err *err)
{
    const struct batch *b = &e->batch;
    struct tensor logits = dev_look(e->dev, &b->out.logits), mtps = { 0 };
    if (job->mtp)
        mtps = dev_look(e->dev, &b->out.mtp_logits);
    TRY(dev_wait(e->dev, err));
    for (int i = 0; i < b->n_row; i++) {
        const float *mtp = job->mtp ? tensor_f32(&mtps, i) : NULL;
        if (job->on_row(job->user, b->row[i].pos, tensor_f32(&logits, i), mtp))
            return err_set(err, ERR_CANCELLED, "evaluation was ended after token %d",
                           b->row[i].pos);
    }
    return 0;
}

static int run(struct engine *e, struct session *s, const struct dstar_text_eval *job, int chunk,
               struct err *err)
{
    TRY(session_set(s, job->id, job->n, err));
    while (s->kv.n_tok < s->n_all) {
        batch_clear(&e->batch);
        e->batch.with_mtp = job->mtp;
        batch_add(&e->batch, s, chunk, true);
        TRY(engine_step(e, &e->batch, err));
        TRY(hand_out(e, job, err));
    }
    return 0;
}

int evaluate(struct engine *e, const struct dstar_text_eval *job, struct err *err)
{
    struct session s;
    int chunk;
    TRY(check_job(e, job, err));
    TRY(find_chunk(e, job, &chunk, err));
    TRY(session_open(&s, e, err));
    int code = run(e, &s, job, chunk, err);
    session_close(&s);
    return code;
}
