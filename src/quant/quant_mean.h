/* quant_mean.h - codes whose errors cancel over the average input.
 *
 * Of the squared error that a row of weights x, coded as y, adds to its output, the average input m
 * causes (sum of (x - y)[j] m[j])^2, and what inputs deviate from it sum of d[j] (x - y)[j]^2, if
 * columns deviate independently. An importance matrix knows both. The first is one number, and many
 * small choices among nearly equal codes can make it vanish: columns are coded in order, and what
 * the sum has come to shifts the numbers that are still to be coded, each by its share of the
 * least change that repairs it. That is quant_feedback.h for H = d + m m^T, whose factor is known
 * without work: T[j] = sum over k > j of m[k]^2 / d[k] is how much the columns to come can do. */
#ifndef DS_QUANT_MEAN_H
#define DS_QUANT_MEAN_H

#include "quant_encode.h"

/* For inputs of mean squares `square`, all above zero, and means `mean`: by how much column j is
 * shifted for each unit of the sum, and what its square error then weighs. */
void quant_mean_make(const float *mean, const float *square, float *shift, float *weight, int n);

/* Code the row again in blocks that were found for factor x: scales stay, codes change. shift and
 * weight: of quant_mean_make(). IQ2_XXS, Q2_K, Q4_K. */
struct quant_mean {
    const float *mean, *shift, *weight;
    float factor;
};

void quant_mean_row(struct quant_search *q, const struct quant_mean *m, enum dtype type,
                    const float *x, void *blocks, int n);

#endif
