/* iq2_lanes_impl.h - what each entry of the IQ2_XXS codebook gains, as a function of the scale.
 *
 * Eight numbers x with weights w, coded as entry g with the right signs at scale s, have the error
 *     sum w x^2  -  s (b - s a),    a = sum w g^2,    b = 2 sum w |x| g
 * less, if an odd number of x is negative, the cheapest sign that has to be wrong: b loses
 * 4 min w |x| g. So with a scale per entry, everything is a straight line b - s a, the best entry
 * at s is the highest of 256 lines, and the best ones over all scales are their upper envelope. */
#ifndef DS_IQ2_LANES_IMPL_H
#define DS_IQ2_LANES_IMPL_H

#include "base.h"

enum { IQ2_SAMPLES = 5, IQ2_MAX_LINES = 192 };

struct iq2_tables {
    float g[8][256], g2[8][256]; /* magnitude of element j in entry v, and its square */
};

struct iq2_lines {
    float a[256], b[256];
};

/* An upper envelope, lines from steep to flat; b grows with a. n >= 1. */
struct iq2_hull {
    int n;
    float a[IQ2_MAX_LINES], b[IQ2_MAX_LINES];
};

/* The inner loops; every table gives the same numbers. */
struct iq2_kernels {
    void (*lines)(const struct iq2_tables *t, const float *x, const float *w,
                  struct iq2_lines *out);
    /* Height of the highest line at s. If it is above `known`, *which is the line. */
    float (*highest)(const struct iq2_lines *l, float s, float known, int *which);
    /* The highest lines at several scales. */
    void (*sample)(const struct iq2_lines *l, const float s[IQ2_SAMPLES], float a[IQ2_SAMPLES],
                   float b[IQ2_SAMPLES]);
    /* h[i] = height of the hull at s[i]; n a multiple of 32. */
    void (*heights)(const struct iq2_hull *e, const float *s, float *h, int n);
    /* sum[i] += the largest of t[i + off[k]], 16 offsets; n a multiple of 8. */
    void (*add_best)(const float *t, const int off[16], float *sum, int n);
};

const struct iq2_kernels *iq2_kernels(unsigned isa);

#endif
