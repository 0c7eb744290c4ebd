/* bootstrap.h - how sure a mean over texts is, and a difference of two. */
#ifndef DS_BOOTSTRAP_H
#define DS_BOOTSTRAP_H

#include "error.h"

/* A value and the interval that holds 95 % of what other texts of the kind would have given. */
struct interval {
    double value, low, high;
};

/* Sums over the rows of each of n texts, of one quantity by two measurements. */
struct paired_sums {
    const double *a, *b; /* [n] */
    const double *rows;  /* [n] */
    int n;
};

struct paired {
    struct interval a, b, difference, ratio; /* means over rows; b - a; b / a */
};

/* Texts are drawn with replacement, as many as there are, n_draw times, the same for a and b
 * (Efron 1979); ends of an interval are the 2.5 and 97.5 % quantiles of what that gives. ratio is 0
 * where a is. The same seed gives the same result. ERR_ARGUMENT: no rows, or n_draw < 40. */
int bootstrap_paired(struct paired *out, const struct paired_sums *s, int n_draw, uint64_t seed,
                     struct err *e);

#endif
