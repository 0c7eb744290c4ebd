/* affine_lanes_impl.h - sub-blocks of the form y = a q - b, eight side by side.
 *
 * Q2_K and Q4_K code x as the nearest a q - b with a small whole q >= 0; a is the block's step d
 * times a small whole number, b the block's step dmin times another. Lane s of everything below is
 * sub-block s. For fixed codes q the weighted error is a quadratic form in (a, b), whose sums of
 * w, w q and w q^2 are kept beside its minimum. */
#ifndef DS_AFFINE_LANES_IMPL_H
#define DS_AFFINE_LANES_IMPL_H

#include "base.h"

struct affine_tile {
    float x[32][8], w[32][8]; /* [element][sub-block] */
};

/* The best real-valued a and b of each sub-block, and the form around them. */
struct affine_fit {
    float a[8], b[8], w[8], wq[8], wqq[8];
};

/* Where to start: the range of x taken as `step` codes, the minimum raised by `shift` ranges, for
 * every step and shift. From each, `turns` times: nearest codes, then least squares. */
struct affine_starts {
    float step, step_by;
    int n_step;
    float shift, shift_by;
    int n_shift, turns;
};

struct affine_pair {
    float scale[8], min[8], error[8]; /* whole numbers; weighted error */
};

/* sums over sub-blocks, u = scale q, v = min: weights times uu, uv, vv, ux, vx */
struct affine_sums {
    double uu, uv, vv, ux, vx;
};

struct affine_kernels {
    int n_sub, len; /* sub-blocks in a block, elements in a sub-block */
    float top, most; /* largest code, largest scale and minimum */
    void (*fit)(const struct affine_tile *t, const struct affine_starts *s, struct affine_fit *f);
    /* Error above the fits' own of the block with steps d and dmin, by the quadratic forms. */
    float (*guess)(const struct affine_fit *f, float d, float dmin);
    /* Scales and minima within `radius` of the fit's that have the least error. */
    void (*choose)(const struct affine_tile *t, const struct affine_fit *f, const float step[2],
                   int radius, struct affine_pair *out);
    void (*add_sums)(const struct affine_tile *t, const struct affine_pair *p, const float step[2],
                     struct affine_sums *sums);
};

const struct affine_kernels *affine_q2(unsigned isa);
const struct affine_kernels *affine_q4(unsigned isa);

#endif
