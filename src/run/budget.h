/* budget.h - everything large, planned before any of it is taken. */
#ifndef DS_BUDGET_H
#define DS_BUDGET_H

#include "kv_pool.h"
#include "model.h"

/* What is wanted. */
struct budget_ask {
    int ctx;             /* 0: as many tokens as fit */
    int n_session, max_rows;
    size_t memory_bytes; /* all that the process may take; 0: what the machine has free */
    size_t machine;      /* all that there is; 0: unknown */
    size_t taken;        /* by the process already, what is converted included */
    size_t mapped;       /* bytes of the model's files */
    size_t experts_least, experts_most; /* memory of a store; 0: experts cannot be streamed */
    int max_mark, slack;
};

struct budget {
    int ctx, max_rows, n_session, max_mark;
    int n_block;             /* of the pool */
    struct kv_shape shape;
    bool draws;              /* the device does, and a session's logits lie there too */
    size_t mapped, converted, scratch, session, cache; /* session: of one */
    bool is_streaming;       /* experts are read when needed, all other weights are in memory */
    size_t held, experts;    /* streaming: those weights; memory for experts */
    size_t for_ctx;          /* streaming: more than what one short conversation takes */
    size_t total;            /* anonymous: converted, scratch, sessions, cache, held, experts */
    size_t taken;            /* by the process before, beside what was converted */
    size_t least;            /* streaming: the least that `taken` and `total` could be */
    size_t available;        /* what could be had, or the limit */
    double cache_per_tok;
    char ctx_why[160];
};

/* Bytes of a session apart from its blocks: state, marks, logits, token mask. */
struct kv_bytes budget_session_bytes(const struct budget *b, const struct model *m, int ctx);

/* A step of n rows up to position ctx, the last n_logits of which want logits. */
struct budget_step {
    int n, n_logits, ctx;
    bool with_mtp; /* the draft block runs too */
};

/* Scratch it takes at most, found by running the model on the device without memory. */
int budget_scratch(size_t *bytes, const struct budget *b, struct model *m, struct dev *d,
                   const struct budget_step *step, struct err *e);

/* Plans for ask. A model that does not fit is streamed, if it can be; what was asked for may then
 * be less than `least`, and the plan is the least. ERR_NO_MEMORY: it does not fit, for its context
 * or its machine, e names all sizes, and *b is filled nevertheless. ERR_LIMIT: ctx beyond what the
 * network was made for. */
int budget_plan(struct budget *b, const struct budget_ask *ask, struct model *m, struct dev *d,
                struct err *e);

#endif
