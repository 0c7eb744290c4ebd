/* quant_feedback.h - encoding rows so that later columns answer for the errors of earlier ones.
 *
 * A row of weights x that became y adds, over inputs with the mean of v v^T = H, the squared error
 * e H e^T to its output, e = x - y. With H = R R^T, R upper triangular, this is |e R|^2, and column
 * j adds (e_j R_jj + sum over i < j of e_i R_ij)^2. So when columns are coded in order, what was
 * lost in earlier ones shifts the number that is to be coded, and each weighs R_jj^2 (that is
 * 1 / U_jj^2 for the factor U = 1 / R of the inverse of H, in which the method is often told).
 *
 * H is a mean square d[j] for every column, of one matrix, and a correlation between columns, which
 * several matrices may share: e_i sqrt(d[i]) takes the place of e_i. A block's scales are settled
 * by the search of quant_encode.h for the shifted numbers of the whole block, then its codes are
 * chosen group by group. Derivation and measurements: docs/quantisation.md. */
#ifndef DS_QUANT_FEEDBACK_H
#define DS_QUANT_FEEDBACK_H

#include "quant_encode.h"
#include "thread.h"

/* Rows of a product that are under way together. */
enum { QUANT_FEEDBACK_ROWS = 48 };

/* Of a correlation matrix of n columns, n a multiple of 256. May be shared by threads. */
struct quant_factor {
    int n;
    unsigned isa;
    float *r;    /* R in tiles (tile_lanes_impl.h), [n / 16][n][16] */
    float *u;    /* [n / 256] inverses of its diagonal blocks, in tiles [16][256][16] */
    float *gain; /* [n] R_jj^2 */
};

/* Where element (i, j) of an n x n matrix is: in tiles. */
size_t quant_factor_at(int n, int i, int j);

/* Numbers of memory that quant_factor_make() wants, aligned to 64. The first n n are the matrix,
 * with ones or slightly more on the diagonal; all of it belongs to the factor then. False: the
 * matrix is not safely positive definite, or not of numbers. isa: as for quant_search_init(). The
 * pool, which may be NULL, makes it faster, not different. */
size_t quant_factor_floats(int n);
bool quant_factor_make(struct quant_factor *f, float *mem, int n, unsigned isa,
                       struct pool *pool);

/* One thread's rows under way. */
struct quant_feedback {
    int n;
    unsigned isa;
    float *error; /* in tiles: of the rows coded last, times sqrt(d); zeros in unused rows */
    float *sum, *shift;
};

/* Numbers of memory, aligned to 64. */
size_t quant_feedback_floats(int n);
void quant_feedback_init(struct quant_feedback *b, float *mem, int n, unsigned isa);

/* Is there feedback for the type: IQ2_XXS, Q2_K, Q4_K? */
bool quant_has_feedback(enum dtype type);

/* Rows to packed rows. root: sqrt(d[j]), all above zero, row i's n at i root_step (0: the same for
 * all rows); x: [n_row][n], n_row at most QUANT_FEEDBACK_ROWS. factor: what is searched for is so
 * many times x, errors still being of x, for rows that shall not become smaller; NULL: ones. */
struct quant_rows {
    enum dtype type;
    const float *root;
    size_t root_step;
    const float *x, *factor;
    int n_row;
    void *dst;
};

void quant_feedback_rows(struct quant_feedback *b, struct quant_search *q,
                         const struct quant_factor *f, const struct quant_rows *rows);

/* Take the errors of rows that were packed in another way. */
void quant_feedback_compare(struct quant_feedback *b, const struct quant_rows *rows);

/* What a coder would lose whose own error at each column is independent noise of variance 1/3: a
 * full set of rows, the same for the same seed. Tells how well a factor suits another correlation
 * before anything is coded. */
void quant_feedback_probe(struct quant_feedback *b, const struct quant_factor *f, uint64_t seed);

/* The sum over the rows of e H e^T, their errors being those of the last call of any; h:
 * correlation in tiles, in units of the same d. */
double quant_feedback_loss(const struct quant_feedback *b, const float *h);

#endif
