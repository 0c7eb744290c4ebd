/* quantize_gain.c - rows that are as large as before.
 *
 * What has the least squared error is too small: rounded numbers are the source's times a gain
 * below one, by the share of the error, and something that is independent of them. The independent
 * parts of many rows and experts cancel, the gain does not: it is the same for gate, up and down,
 * and multiplies. So the steps of a row are enlarged until its product with the source is what the
 * source's with itself is, columns weighted by their importance: a little more error, and none of
 * it in common. Rejected: one factor for a matrix, as rows differ in how well they can be coded. */
#include "quantize_impl.h"

#include "half.h"

/* A row's factor is within these: of two bits about 1.1, of four 1.01. */
#define LEAST_GAIN 1.0
#define MOST_GAIN 1.25

/* Where the steps of a block lie; n 0: the type has none that could be scaled. */
struct steps {
    size_t block, at[2]; /* bytes */
    int n;
};

static struct steps steps_of(enum dtype type)
{
    switch (type) {
    case DT_IQ2_XXS: return (struct steps){ 66, { 0 }, 1 };
    case DT_Q2_K: return (struct steps){ 84, { 80, 82 }, 2 };
    case DT_Q4_K: return (struct steps){ 144, { 0, 2 }, 2 };
    default: return (struct steps){ 0 };
    }
}

static double factor_of(const float *x, const float *y, const float *importance, int n)
{
    double whole = 0, common = 0;
    for (int j = 0; j < n; j++) {
        double w = importance ? (double)importance[j] : 1;
        whole += w * (double)x[j] * (double)x[j];
        common += w * (double)x[j] * (double)y[j];
    }
    double factor = common > 0 ? whole / common : LEAST_GAIN;
    return MIN(MAX(factor, LEAST_GAIN), MOST_GAIN);
}

int quantize_keep_gain(struct quantize_worker *w, const struct quantize_unit *u,
                       const float *importance, struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    const struct steps s = steps_of(t->type);
    int cols = (int)t->dim[0];
    size_t row_bytes = dtype_bytes(t->type, (size_t)cols);
    for (int64_t i = 0; i < u->n_row && s.n > 0; i++) {
        uint8_t *row = w->dst + (size_t)i * row_bytes;
        TRY(quantize_row(w, i, w->num, e));
        quant_decode(t->type, row, NULL, w->weight, cols);
        double factor = factor_of(w->num, w->weight, importance, cols);
        for (size_t at = 0; at < row_bytes; at += s.block) {
            for (int k = 0; k < s.n; k++) {
                double step = (double)f16_at(row + at + s.at[k]) * factor;
                uint16_t h = f32_to_f16((float)MIN(step, 65504));
                memcpy(row + at + s.at[k], &h, sizeof h);
            }
        }
    }
    return 0;
}
