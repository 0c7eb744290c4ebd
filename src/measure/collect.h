/* collect.h - sums over the inputs of every product of a running model.
 *
 * For each matrix: squares and values of every input column, in float64, and how many rows were
 * seen; of routed experts for each expert. Optionally sums of x x^T for what the experts of a layer
 * see, and for each of them. None of it depends on how tokens were cut into steps, on threads, or
 * on the order in which experts come into memory. */
#ifndef DS_COLLECT_H
#define DS_COLLECT_H

#include "buf.h"
#include "dwarfstar.h"
#include "error.h"

/* An expert below this leans on its layer's average when a model is quantised. */
#define COLLECT_FEW_TOKENS 256

struct collector;

/* Which products are wanted, beside the sums. */
struct collect_want {
    bool products;
    const int *own; /* layers in which each expert has its own, too */
    int n_own, threads; /* 0: all */
};

/* One at a time for an engine, from here to the end, which comes before the engine is closed.
 * ERR_NO_MEMORY: a device that is apart has no room left for the sums. */
int collect_begin(struct collector **c, dstar_engine *engine, const struct collect_want *want,
                  struct err *e);
void collect_end(struct collector *c); /* NULL is fine */

/* A text ends, or the next begins; held: its products are kept apart, to judge by. Tells if an
 * input was no number: then the matrix is named. */
int collect_document(struct collector *c, bool held, struct err *e);

/* Sums that a device has kept come to the host: to be called before what follows. Tells if one is
 * no number: then the matrix is named. */
int collect_fetch(struct collector *c, struct err *e);

/* What the files say of where it came from. */
struct collect_source {
    const char *const *dataset;
    int n_dataset;
    int64_t n_document, n_token;
};

/* Between documents. The public GGUF format of importance matrices (imatrix.h) with NAME.in_sum
 * beside NAME.in_sum2 if `sums`; hessian.h; expert_profile.h. Complete or absent. */
int collect_write_imatrix(const struct collector *c, const char *path, bool sums,
                          const struct collect_source *from, struct err *e);
int collect_write_products(const struct collector *c, const char *path, struct err *e);
int collect_write_profile(const struct collector *c, const char *path, struct err *e);

/* Everything, bit for bit, for going on later; note: the caller's own. ERR_MISMATCH on reading: of
 * another model or another collection. */
struct collect_note {
    uint64_t task; /* names what is being done: texts and options */
    int64_t n_document, n_token, value[4];
};

int collect_save(const struct collector *c, const char *path, const struct collect_note *note,
                 struct err *e);
int collect_load(struct collector *c, const char *path, struct collect_note *note, struct err *e);

/* How many tokens each expert saw. Returns how many experts saw fewer than COLLECT_FEW_TOKENS; a
 * table for people is appended to `out`. */
int collect_coverage(const struct collector *c, struct buf *out, int *n_expert);

#endif
