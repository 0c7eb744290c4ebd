/* answer.h - have the model answer once, and keep what it said and how long it took. */
#ifndef DS_ANSWER_H
#define DS_ANSWER_H

#include <jansson.h>

#include "buf.h"
#include "dwarfstar.h"
#include "measure.h"

struct ask {
    dstar_engine *engine;
    dstar_session *session;
    struct dstar_chat chat; /* messages NULL: go on with the session's tokens as they are */
    int max_tokens;         /* 0: as many as the context holds */
    bool special;           /* without messages: control tokens are written out */
    bool quiet;             /* no progress line */
    dstar_event_fn *show;   /* sees every event as it comes; chat.on_event is not used */
    void *show_user;
};

struct answer {
    struct buf content, reasoning;
    json_t *calls, *remarks; /* as in an assistant message; strings */
    int finish;              /* enum dstar_finish */
    bool interrupted;        /* by Ctrl-C: what there is of the answer is kept */
    bool full;               /* the context ended it */
    int n_prompt, n_kept;    /* tokens of the prompt; of these kept from before */
    int n_answer;
    struct dstar_stats took; /* of this answer alone: n_prefill and so on */
    struct flow flow;        /* the same of experts that were read */
    struct buf token_s;      /* of doubles: seconds of each token but the first */
};

void answer_init(struct answer *a);
void answer_release(struct answer *a);

/* Prepare the session, compute the prompt, draw until the end. 0 also when interrupted. Errors as
 * the library gives them; then the answer holds what there was. */
int answer_get(struct answer *a, const struct ask *q, struct dstar_error *error);

/* Add one event; answer_get() does it. */
void answer_keep(struct answer *a, const struct dstar_event *ev);

/* "stop", "length", "tool_calls" or "interrupted". */
const char *answer_finish(const struct answer *a);

/* One line of figures for people; two when experts were read when needed. */
void answer_figures(const struct answer *a, struct buf *out);

/* Below which a share (0.95) of the tokens' times lie, in seconds; 0: there are none. */
double answer_token_s(const struct answer *a, double share);

/* Everything as one JSON object on stdout. */
void answer_print_json(const struct answer *a, dstar_engine *engine, uint64_t seed);

/* What reading experts cost, as a line of JSON on stderr. */
void answer_print_flow(const struct answer *a, dstar_engine *engine);

#endif
