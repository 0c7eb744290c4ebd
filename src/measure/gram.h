/* gram.h - sums of x x^T, fast: what goes together in the inputs of a matrix.
 *
 * Rows are gathered and added block by block, products in float32 within a block, sums in double.
 * The result depends on the rows, their order and the flushes alone. */
#ifndef DS_GRAM_H
#define DS_GRAM_H

#include "error.h"
#include "thread.h"

enum { GRAM_PANEL = 64, GRAM_ROWS = 256 };

struct gram {
    int n, pitch;  /* numbers of a row; of a row of `sum`, whole panels */
    double *sum;   /* [pitch][pitch]; (i, j <= i) at i * pitch + j, the rest means nothing */
    int64_t n_row; /* added to sum */
};

/* Rows on their way into a sum. One may serve many sums, one after another. */
struct gram_rows {
    float *panel; /* [panels][GRAM_ROWS][GRAM_PANEL] */
    int n, cap_cols;
};

int gram_open(struct gram *g, int n, struct err *e);
void gram_close(struct gram *g); /* also of a zeroed one */
int gram_rows_open(struct gram_rows *r, int cap_cols, struct err *e);
void gram_rows_close(struct gram_rows *r);

/* A row of g->n numbers; a full block is added. */
void gram_put(struct gram *g, struct gram_rows *r, const float *x, struct pool *pool);

/* Add what is gathered. */
void gram_flush(struct gram *g, struct gram_rows *r, struct pool *pool);

#endif
