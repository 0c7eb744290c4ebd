/* expert_expect.c - hit rates of the policy on the traces of docs/streaming.md, by the share of
 * experts in memory: the misses fall by about the same amount with each doubling, so that straight
 * lines over the logarithm go through the measured points. A text's own routes may differ; the
 * range tells how much they did. */
#include "expert_expect.h"

#include "base.h"

#include <math.h>

double expert_expect_hits(double share, int text)
{
    static const double at[] = { 0.01, 0.02, 0.05, 0.10, 0.20, 0.50, 1.0 };
    static const double hits[3][COUNT_OF(at)] = {
        { 0.195, 0.288, 0.425, 0.541, 0.670, 0.854, 1 },
        { 0.2285, 0.368, 0.5965, 0.7125, 0.810, 0.929, 1 },
        { 0.299, 0.497, 0.740, 0.841, 0.909, 0.966, 1 },
    };
    size_t i = 0;
    if (share <= at[0])
        return hits[text][0] * MAX(share, 0) / at[0];
    while (i < COUNT_OF(at) - 2 && share > at[i + 1])
        i++;
    double slope = (hits[text][i + 1] - hits[text][i]) / log2(at[i + 1] / at[i]);
    return hits[text][i] + slope * log2(MIN(share, 1.0) / at[i]);
}
