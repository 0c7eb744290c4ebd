/* eval_ask.h - a model that is examined: one session, greedy answers. */
#ifndef DS_EVAL_ASK_H
#define DS_EVAL_ASK_H

#include "answer.h"
#include "engine_opts.h"

struct examinee {
    dstar_engine *engine;
    dstar_session *session;
};

/* Open the model of the options with a session that always takes the likeliest token. Returns 0,
 * or the exit status after the error was printed. Closed in either case by examinee_close(). */
int examinee_open(struct examinee *x, struct engine_opts *o);
void examinee_close(struct examinee *x);

/* The prompt of entry number `entry` of "expect" of a dialogue as skill_set_read() gives it, and
 * the model's answer, into an answer that was initialised. A token is never shorter than a byte,
 * so an answer may have a few more tokens than the expected one has bytes. */
int examinee_ask(struct examinee *x, const json_t *dialogue, int entry, struct answer *a,
                 struct dstar_error *error);

/* The same for one message of a user, with an answer of at most max_tokens. */
int examinee_ask_text(struct examinee *x, const char *text, int max_tokens, struct answer *a,
                      struct dstar_error *error);

/* The tokens of the last answer, a->n_answer of them; they follow those of its prompt. Until the
 * next call on the session. */
const int32_t *examinee_written(const struct examinee *x, const struct answer *a);

/* What a command prints when it ends with code: "interrupted", or the error. The exit status. */
int examinee_fault(int code, const struct dstar_error *error);

#endif
