/* quantize.h - a model in fewer bits: checkpoint folder or GGUF in, one GGUF out.
 *
 * The recipe says which tensor becomes which type (recipe.h). The file is the same, byte for byte,
 * with any number of threads and however often it was interrupted: what is finished is noted in
 * OUT.journal.part, and a later call with the same inputs goes on from there. */
#ifndef DS_QUANTIZE_H
#define DS_QUANTIZE_H

#include "buf.h"
#include "error.h"
#include "log.h"

struct quantize_options {
    const char *src, *out; /* checkpoint folder or .gguf file; the file to write */
    const char *shape;     /* instead of src, for a plan: "flash" or "pro" */
    const char *recipe;    /* a built-in name or a file */
    const char *imatrix;   /* importance matrix, NULL: none */
    const char *hessian;   /* how inputs go together (hessian.h), for error feedback; NULL: none */
    const char *sensitivity; /* what each layer wins at full precision (quantize_upgrade.c) */
    int64_t upgrade_bytes; /* that may be spent on it; with sensitivity */
    bool exact;            /* QUANT_EXACT for every tensor */
    bool restart;          /* forget an earlier try */
    int n_thread;          /* 0: all processors this process may use */
    const struct log *log; /* remarks; may be NULL */
    /* What is being done and how far it is, from 0 to 1, on the caller's thread; true stops with
     * ERR_CANCELLED, to be continued. May be NULL. */
    bool (*progress)(void *user, const char *what, double share);
    void *user;
};

/* Everything that can be refused is refused before the first tensor is touched, except what is not
 * a number, which is named with its tensor, row and element. After an error or a cancellation
 * OUT is as it was, and OUT.part waits to be continued. */
int quantize_run(const struct quantize_options *o, struct err *e);

/* What would be written: a table by part and type, exact sizes, memory, time. Touches no data. */
int quantize_plan_text(const struct quantize_options *o, struct buf *text, struct err *e);

/* Compare OUT with the source: relative squared error of every tensor, plain and weighted, of its
 * output where the inputs' correlation is given, largest difference, and marks where a tensor is
 * far from its kind's median. */
int quantize_verify(const struct quantize_options *o, struct buf *text, struct err *e);

#endif
