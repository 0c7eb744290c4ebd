/* published.c - a model file with its blocks of two bits searched for as published encoders do.
 *
 *   published SOURCE.gguf IMATRIX IN.gguf OUT.gguf
 *
 * IN is what `dstar quantize` made of SOURCE. OUT is the same file, but every IQ2_XXS and Q2_K
 * tensor is encoded again, with the importances as the matrix has them (ones for an expert that saw
 * no token). For the comparison in docs/quantisation.md; the program itself has no such search. */
#include <stdio.h>
#include <stdlib.h>

#include "file.h"
#include "imatrix.h"
#include "quant_encode.h"
#include "unit/published_search.h"
#include "weights.h"

enum { MAX_COLS = 1 << 16 };

struct job {
    struct weights *source, *in;
    struct imatrix *imatrix;
    struct buf bytes; /* of the new file */
    struct published_grid grid;
    float num[MAX_COLS], importance[MAX_COLS], weight[MAX_COLS];
};

static int read_importance(struct job *j, const struct weight *t, int64_t slice, struct err *e)
{
    double n_token, sum = 0;
    int entry = imatrix_find(j->imatrix, t->name);
    if (entry < 0)
        return err_set(e, ERR_MISMATCH, "%s: no entry %s", imatrix_path(j->imatrix), t->name);
    TRY(imatrix_check(j->imatrix, entry, t->dim[0], t->dim[2], e));
    TRY(imatrix_read(j->imatrix, entry, slice, t->dim[0], j->importance, &n_token, e));
    for (int64_t i = 0; i < t->dim[0]; i++)
        sum += (double)j->importance[i];
    for (int64_t i = 0; i < t->dim[0] && !(sum > 0); i++)
        j->importance[i] = 1;
    return 0;
}

static int encode(struct job *j, const struct weight *to, struct err *e)
{
    const struct weight *from = weights_find(j->source, to->name);
    size_t block = dtype_bytes(to->type, 256);
    if (!from || from->dim[0] != to->dim[0] || from->dim[1] != to->dim[1] || to->dim[0] > MAX_COLS)
        return err_set(e, ERR_MISMATCH, "tensor %s: the source has none of this shape", to->name);
    size_t row_bytes = from->bytes / (size_t)(from->dim[1] * from->dim[2]);
    uint8_t *dst = (uint8_t *)j->bytes.data + to->offset;
    int cols = (int)to->dim[0];
    for (int64_t r = 0; r < to->dim[1] * to->dim[2]; r++) {
        if (r % to->dim[1] == 0)
            TRY(read_importance(j, to, r / to->dim[1], e));
        quant_decode(from->type, from->data + (size_t)r * row_bytes, NULL, j->num, cols);
        quant_emphasise(j->num, j->importance, 0.5f, j->weight, cols);
        for (int i = 0; i < cols; i += 256, dst += block) {
            if (to->type == DT_IQ2_XXS)
                published_iq2_xxs(&j->grid, j->num + i, j->weight + i, dst);
            else
                published_q2_k(j->num + i, j->weight + i, dst);
        }
    }
    return 0;
}

static int run(struct job *j, char **arg, struct err *e)
{
    struct file_out out;
    TRY(weights_open(&j->source, arg[1], e));
    TRY(imatrix_open(&j->imatrix, arg[2], e));
    TRY(weights_open(&j->in, arg[3], e));
    TRY(file_read_all(&j->bytes, arg[3], e));
    for (int i = 0; i < weights_count(j->in); i++) {
        const struct weight *t = weights_at(j->in, i);
        if (t->type == DT_IQ2_XXS || t->type == DT_Q2_K)
            TRY(encode(j, t, e));
    }
    TRY(file_out_open(&out, arg[4], e));
    int code = file_out_write(&out, j->bytes.data, j->bytes.len, e);
    if (code == 0)
        code = file_out_commit(&out, e);
    file_out_abort(&out);
    return code;
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    struct job *j = calloc(1, sizeof *j);
    if (argc != 5 || !j) {
        fprintf(stderr, "usage: published SOURCE.gguf IMATRIX IN.gguf OUT.gguf\n");
        return 2;
    }
    published_init(&j->grid);
    buf_init(&j->bytes, (size_t)1 << 32);
    int code = run(j, argv, &e);
    if (code < 0)
        fprintf(stderr, "published: %s\n", e.text);
    weights_close(j->in);
    weights_close(j->source);
    imatrix_close(j->imatrix);
    buf_release(&j->bytes);
    free(j);
    return code < 0;
}
