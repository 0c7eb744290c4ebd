/* reference.h - what one model says about texts, kept in a file that others are compared with.
 *
 * A GGUF file: its directory is checked as a model's is. Keys begin with "reference."; tensors,
 * fastest dimension first, row: a token whose prediction counts:
 *
 *   text.tokens      I32 [n_tok]              all texts, one behind the other
 *   text.scored      I8  [n_tok]              enum text_score; not 0: a row
 *   row.logprob      F16 [n_vocab, n_row]     natural logarithms of probabilities
 *   row.route        I32 [n_layer * n_used, n_row]
 *   row.best         I32 [n_row]              the likeliest token, before rounding to F16
 *   row.nll          F32 [n_row]              of the token that follows, before rounding
 *   row.check        I32 [2, n_row]           fingerprint of the row's bytes
 *   stream.value     F32 [n_layer * width, n_sample]  of rows 0, every, 2 every, ...
 *   stream.check     I32 [2, n_sample]
 *
 * The logarithm of a likely token is small and therefore precise in F16; one at -8 is off by 0.002
 * at most. Readers divide by the sum of the probabilities, so that what rounding leaves of a
 * divergence is of second order: about 1e-7. */
#ifndef DS_REFERENCE_H
#define DS_REFERENCE_H

#include "observe.h"

struct reference_plan {
    const struct text_doc *doc;
    int n_doc;
    uint64_t text_hash; /* of the texts as they were before they became tokens */
    int every;          /* rows from one whose streams are kept to the next; 0: none */
    int chunk;          /* tokens computed at once; 0: as many as fit */
    bool (*progress)(void *user, int64_t done, int64_t total); /* tokens; true: stop */
    void *user;
};

/* Compute all texts and write the file. ERR_ARGUMENT: nothing in them counts. ERR_CANCELLED. */
int reference_write(dstar_engine *engine, const char *path, const struct reference_plan *plan,
                    struct err *e);

struct reference;

struct reference_info {
    const char *path, *model, *device; /* of the model that wrote it */
    int n_doc, every;
    int64_t n_tok, n_row;
    uint64_t text_hash;
    struct observe_shape shape;
};

/* Maps the file. Everything but the values is checked: sizes, counts, tokens (by a fingerprint),
 * and that every token is in the vocabulary. */
int reference_open(struct reference **r, const char *path, struct err *e);
void reference_close(struct reference *r); /* NULL is fine */

const struct reference_info *reference_info(const struct reference *r);
const struct text_doc *reference_doc(const struct reference *r, int i);
int64_t reference_first_row(const struct reference *r, int doc);

/* Has the model the same vocabulary and shape? ERR_MISMATCH says what differs. */
int reference_fits(const struct reference *r, dstar_engine *engine,
                   const struct observe_shape *shape, struct err *e);

struct reference_row {
    const uint16_t *logprob; /* [n_vocab] F16 */
    const int32_t *route;    /* [n_layer][n_used] */
    const float *streams;    /* [n_layer][width], or NULL: none kept */
    int best;
    double nll;
};

/* ERR_FORMAT: the row's bytes are not as they were written. */
int reference_row(const struct reference *r, int64_t row, struct reference_row *out, struct err *e);

#endif
