/* calibrate.h - what inputs matter to a model: run it over texts and write down their sums. */
#ifndef DS_CALIBRATE_H
#define DS_CALIBRATE_H

#include "buf.h"
#include "dwarfstar.h"
#include "error.h"

/* One of texts in eight is held out of the sums of products. */
enum { CALIBRATE_HELD = 8 };

/* More experts than one in a hundred with few tokens are too many for `strict`. */
#define CALIBRATE_MOST_FEW 0.01

struct calibrate_options {
    /* NAME.jsonl has a text on each line: {"text": ...}, in which control strings are control
     * tokens, or {"messages": [...]} with tools, and thinking (true, or an effort word), rendered
     * as for the model; id is for the reader. Any other file is plain text. */
    const char *const *corpus;
    int n_corpus;
    const char *out;              /* importance matrix */
    const char *hessian, *profile; /* sums of products, popularity of experts; NULL: not wanted */
    const int *own_layer; /* layers for whose experts the products also have sums of their own */
    int n_own_layer;
    int answer;         /* after each text the model goes on for at most so many tokens; a last
                           message of the assistant is then left for it to say */
    double temperature; /* of that; 0: always the likeliest */
    uint64_t seed;
    int piece;          /* a plain text is cut into texts of so many tokens */
    int64_t limit;      /* begin no text once so many tokens are computed; 0: take all */
    int save_every;     /* texts, after which OUT.state is written */
    bool resume;        /* go on from OUT.state, if there is one */
    bool sums;          /* sums of values beside those of squares */
    bool strict;        /* too many experts with few tokens: fail, and keep OUT.state */
    int threads;        /* of the sums of products */
    bool (*progress)(void *user, double share, int64_t n_token); /* true: stop after this text */
    void *user;
};

/* Appends coverage and figures to `report`. ERR_CANCELLED: stopped, OUT.state is written. After
 * success OUT.state is gone. Texts longer than the context are cut, which the report tells. */
int calibrate_run(dstar_engine *engine, const struct calibrate_options *o, struct buf *report,
                  struct err *e);

/* Importance matrices in the GGUF format into one that is as of all their texts: sums and counts
 * are added. Each number is rounded once more, to float32. */
int calibrate_merge(const char *const *in, int n, const char *out, struct err *e);

#endif
