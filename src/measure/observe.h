/* observe.h - what a running model decides and computes at chosen tokens of a text. */
#ifndef DS_OBSERVE_H
#define DS_OBSERVE_H

#include "dwarfstar.h"
#include "error.h"

/* One text or dialogue. */
struct text_doc {
    const char *name, *set; /* set: what it belongs to; a file's name */
    const int32_t *id;      /* [n_tok] */
    int n_tok;
    const uint8_t *scored;  /* [n_tok] enum text_score of the prediction after each token; of the
                               last it never counts: nothing follows */
};

enum text_score { TEXT_NOT, TEXT_COUNTS, TEXT_ANSWER /* counts, and is the model's turn */ };

int text_doc_rows(const struct text_doc *d); /* how many count */

struct observer; /* one at a time for an engine */

/* A row of the text that counts. Valid during the call. */
struct observed {
    int row;                 /* number among the rows of the text that count, from 0 */
    int pos, next;           /* token, and the id that follows it */
    bool answer;             /* TEXT_ANSWER */
    const float *logits;     /* [n_vocab] */
    const uint16_t *route;   /* [n_layer][n_used] experts */
    const float *streams;    /* [n_layer][width] behind each layer, or NULL: was not asked for */
};

/* Negative ends the observation with the error that was set. */
typedef int observe_fn(void *user, const struct observed *o, struct err *e);

struct observe_shape {
    int n_layer, n_used, n_vocab;
    int width;              /* numbers in all streams of a token */
    const uint8_t *learned; /* [n_layer] 1: its router depends on more than the token */
};

/* ERR_UNSUPPORTED: the device does not show what it computes. */
int observer_begin(struct observer **o, dstar_engine *engine, struct err *e);
void observer_end(struct observer *o); /* NULL is fine */
const struct observe_shape *observer_shape(const struct observer *o);

/* Compute the text, `chunk` tokens at once (0: as many as fit); of rows r that count, streams are
 * shown when (first_row + r) is a multiple of `every` (0: never). */
struct observation {
    const struct text_doc *doc;
    int chunk, every;
    int64_t first_row;
    observe_fn *on_row;
    void *user;
};
int observe(struct observer *o, const struct observation *what, struct err *e);

#endif
