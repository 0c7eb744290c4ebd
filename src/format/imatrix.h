/* imatrix.h - importance matrices: for every matrix, the mean square of each input.
 *
 * Two public formats, told apart by their first bytes; a matrix is named as its tensor in GGUF,
 * "blk.0.ffn_gate_exps.weight", and stacked experts have a vector each.
 *
 *   GGUF    key general.type "imatrix"; F32 tensors NAME.in_sum2 [n_col, n_mat], sums of squares,
 *           NAME.counts [1, n_mat], tokens, and perhaps NAME.in_sum, sums of the values
 *   legacy  | n_entry i32 | n_entry x { length i32, name, n_call i32, n_value i32, values f32 } |
 *           values to be divided by n_call; tokens are not known
 *
 * The file is mapped; values are read, and checked, when asked for. */
#ifndef DS_IMATRIX_H
#define DS_IMATRIX_H

#include "error.h"

struct imatrix;

int imatrix_open(struct imatrix **m, const char *path, struct err *e);
void imatrix_close(struct imatrix *m); /* NULL is fine */

/* The same of bytes that stay until the close; path: for error texts. */
int imatrix_parse(struct imatrix **m, const char *path, const uint8_t *data, size_t size,
                  struct err *e);

const char *imatrix_path(const struct imatrix *m);

/* How many matrices; chunks of text as stated, and their source: -1 and NULL when not. */
int imatrix_count(const struct imatrix *m);
int64_t imatrix_chunks(const struct imatrix *m);
const char *imatrix_dataset(const struct imatrix *m);
uint64_t imatrix_hash(const struct imatrix *m); /* of the whole file */

/* The number of an entry, -1 when there is none. */
int imatrix_find(const struct imatrix *m, const char *tensor);

/* The entry has n_mat vectors of n_col; otherwise ERR_MISMATCH. */
int imatrix_check(const struct imatrix *m, int entry, int64_t n_col, int64_t n_mat, struct err *e);

/* Means of one vector of a checked entry; all zero when no token was seen. *n_token: what they are
 * means of, -1 when not known. A negative or infinite value, or none, is ERR_FORMAT. */
int imatrix_read(const struct imatrix *m, int entry, int64_t mat, int64_t n_col, float *mean,
                 double *n_token, struct err *e);

/* The same of the values themselves, where the file has them. */
bool imatrix_has_values(const struct imatrix *m, int entry);
int imatrix_read_values(const struct imatrix *m, int entry, int64_t mat, int64_t n_col,
                        float *mean, struct err *e);

#endif
