/* batch.h - the rows of one step, of one or many conversations. */
#ifndef DS_BATCH_H
#define DS_BATCH_H

#include "model.h"

struct session;

/* What one conversation computes in the step: its next n waiting tokens. */
struct batch_part {
    struct session *session;
    int first, n; /* rows */
};

struct batch {
    struct row *row, *next; /* [max_rows]; next: the same with the token that follows */
    int n_row, max_rows;
    struct batch_part *part; /* [max_parts] */
    struct kv_view **kv;     /* [max_parts] */
    struct draw *draw;       /* [max_parts] */
    int n_part, max_parts;
    bool with_mtp;           /* the draft block runs too */
    struct model_out out;    /* of the last step, until the next; in memory of the device */
};

int batch_open(struct batch *b, int max_rows, int max_parts, struct err *e);
void batch_close(struct batch *b);
void batch_clear(struct batch *b);

/* Put the next waiting tokens of s, at most max of them, into the batch; all_logits: every row's
 * logits are wanted, else only those of the last token that waits. Returns how many were put: none
 * when the batch is full or nothing waits. */
int batch_add(struct batch *b, struct session *s, int max, bool all_logits);

#endif
