/* quantize_gain.c - rows that are as large as before, and right for the average input.
 *
 * What has the least squared error is too small: rounded numbers are the source's times a gain
 * below one, by the share of the error, and something that is independent of them. The independent
 * parts of many rows and experts cancel, the gain does not: it is the same for gate, up and down,
 * and multiplies. So the steps of a row are enlarged until its product with the source is what the
 * source's with itself is, columns weighted by their importance: a little more error, and none of
 * it in common. Rejected: one factor for a matrix, as rows differ in how well they can be coded.
 *
 * Where the importance matrix has the inputs' means, too, codes are then chosen once more so that
 * errors cancel over the average input: quant_mean.h. */
#include "quantize_impl.h"

#include "half.h"
#include "quant_feedback.h"
#include "quant_mean.h"

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

/* Enlarge the steps of a packed row. */
static void enlarge(uint8_t *row, size_t row_bytes, const struct steps *s, double factor)
{
    for (size_t at = 0; at < row_bytes; at += s->block) {
        for (int k = 0; k < s->n; k++) {
            double step = (double)f16_at(row + at + s->at[k]) * factor;
            uint16_t h = f32_to_f16((float)MIN(step, 65504));
            memcpy(row + at + s->at[k], &h, sizeof h);
        }
    }
}

bool quantize_knows_means(const struct quantize *q, const struct quantize_tensor *t)
{
    return t->rule->mean && t->weights == RECIPE_IMATRIX && quant_has_feedback(t->type) &&
           imatrix_has_values(q->imatrix, t->entry);
}

int quantize_prepare(struct quantize_worker *w, const struct quantize_unit *u,
                     const float *importance, struct err *e)
{
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    w->means.known = importance && quantize_knows_means(w->q, t);
    if (!w->means.known)
        return 0;
    TRY(quantize_mean(w, u, e));
    quant_mean_make(w->means.mean, importance, w->means.shift, w->means.weight, (int)t->dim[0]);
    return 0;
}

double quantize_gain(struct quantize_worker *w, const struct quantize_tensor *t, const float *x,
                     const float *importance, const uint8_t *row)
{
    int cols = (int)t->dim[0];
    if (!t->rule->gain || steps_of(t->type).n == 0)
        return 1;
    quant_decode(t->type, row, NULL, w->weight, cols);
    return factor_of(x, w->weight, importance, cols);
}

void quantize_correct(struct quantize_worker *w, const struct quantize_tensor *t, const float *x,
                      const float *importance, uint8_t *row)
{
    int cols = (int)t->dim[0];
    const struct steps s = steps_of(t->type);
    double factor = quantize_gain(w, t, x, importance, row);
    struct quant_mean m = { w->means.mean, w->means.shift, w->means.weight, (float)factor };
    if (s.n > 0 && t->rule->gain)
        enlarge(row, dtype_bytes(t->type, (size_t)cols), &s, factor);
    if (w->means.known)
        quant_mean_row(w->search[t->rule->effort], &m, t->type, x, row, cols);
}
