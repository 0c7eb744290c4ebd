/* quant_mean.c - the factor of a diagonal matrix and one vector; a row by it. */
#include "quant_mean.h"

/* Of a column's square so much at least is its own: an input that never changes has no deviation,
 * and any of its errors could be repaired by it alone. */
#define LEAST_OWN .05

void quant_mean_make(const float *mean, const float *square, float *shift, float *weight, int n)
{
    double t = 0;
    for (int j = n - 1; j >= 0; j--) {
        double m = (double)mean[j], whole = (double)square[j];
        double own = MAX(whole - m * m, LEAST_OWN * whole);
        shift[j] = (float)(m / ((1 + t) * own + m * m));
        weight[j] = (float)(own + m * m / (1 + t));
        t += m * m / own;
    }
}

void quant_mean_row(struct quant_search *q, const struct quant_mean *m, enum dtype type,
                    const float *x, void *blocks, int n)
{
    size_t bytes = dtype_bytes(type, 256);
    int group = quant_group(type);
    double sum = 0;
    for (int at = 0; at < n; at += group) {
        uint8_t *block = (uint8_t *)blocks + (size_t)(at / 256) * bytes;
        float y[8];
        for (int i = 0; i < group; i++)
            y[i] = x[at + i] * m->factor + m->shift[at + i] * (float)sum;
        quant_search_group(q, type, block, at % 256, y, m->weight + at);
        for (int i = 0; i < group; i++)
            sum += ((double)x[at + i] - (double)y[i]) * (double)m->mean[at + i];
    }
}
