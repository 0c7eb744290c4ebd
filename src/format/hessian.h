/* hessian.h - how the inputs of a matrix go together: sums of x x^T over tokens.
 *
 * A GGUF file with the key general.type "hessian"; for each input NAME ("blk.3.ffn_gate_exps" for
 * gate and up, which see the same numbers, "blk.3.ffn_down_exps" for down)
 *
 *   NAME.hessian         F32 [n (n + 1) / 2]  sums over the tokens to learn from: lower triangle
 *                                             by rows, (0,0) (1,0) (1,1) (2,0) ...
 *   NAME.hessian_held    F32, the same        over other tokens, to judge by; may be missing
 *   NAME.hessian_counts  I64 [2]              tokens of the one and of the other
 *
 * NAME stands for all experts of a layer; what one expert alone sees may be there, too, as
 * NAME.E ("blk.3.ffn_gate_exps.17"). The file is mapped; numbers are read, and checked, when asked
 * for. */
#ifndef DS_HESSIAN_H
#define DS_HESSIAN_H

#include "gguf_write.h"

enum hessian_part { HESSIAN_LEARN, HESSIAN_HELD };

/* ---- reading ---- */

struct hessian_file;

int hessian_open(struct hessian_file **h, const char *path, struct err *e);
void hessian_close(struct hessian_file *h); /* NULL is fine */

const char *hessian_path(const struct hessian_file *h);
uint64_t hessian_hash(const struct hessian_file *h); /* of the whole file */

/* Inputs are numbered from 0. find: -1 when there is none of that name. */
int hessian_count(const struct hessian_file *h);
int hessian_find(const struct hessian_file *h, const char *name);
const char *hessian_name(const struct hessian_file *h, int entry);
int hessian_size(const struct hessian_file *h, int entry); /* n */
int64_t hessian_tokens(const struct hessian_file *h, int entry, enum hessian_part part);

/* Row i of the part's mean of x x^T, columns 0 to i; the part has tokens. ERR_FORMAT names the
 * tensor that has a number which is none, or a negative sum of squares. */
int hessian_row(const struct hessian_file *h, int entry, enum hessian_part part, int i,
                float *mean, struct err *e);

/* The part's sums, for going on from them: element (i, j <= i) is added to sum[i * pitch + j]. */
int hessian_add(const struct hessian_file *h, int entry, enum hessian_part part, double *sum,
                size_t pitch, struct err *e);

/* ---- writing ---- */

/* Accumulators: (i, j <= i) at sum[i * pitch + j]. */
struct hessian_sums {
    const double *sum;
    size_t pitch;
    int64_t n_token;
};

/* Order: open; add every input, and keys of one's own to `out`; begin; put each input's sums, in
 * any order; finish. Until then nothing is seen under the final name. */
struct hessian_writer {
    struct gguf_writer out;
    struct hessian_out {
        int n, sums, held, counts; /* numbers of tensors; held -1: none */
        char name[64];
    } *entry;
    int n_entry;
};

int hessian_write_open(struct hessian_writer *w, const char *path, struct err *e);

/* Returns the input's number. held: a part to judge by will be put, too. name: up to 40 bytes. */
int hessian_write_add(struct hessian_writer *w, const char *name, int n, bool held, struct err *e);
int hessian_write_begin(struct hessian_writer *w, struct err *e);

/* held NULL: none was announced. ERR_FORMAT when a sum is no number as F32. */
int hessian_write_put(struct hessian_writer *w, int entry, const struct hessian_sums *learn,
                      const struct hessian_sums *held, struct err *e);
int hessian_write_finish(struct hessian_writer *w, struct err *e); /* releases w also on failure */
void hessian_write_abort(struct hessian_writer *w); /* also of a zeroed or finished writer */

#endif
