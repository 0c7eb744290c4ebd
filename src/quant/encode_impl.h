/* encode_impl.h - a block of 256 on its way to being packed, and the encoders of single types. */
#ifndef DS_ENCODE_IMPL_H
#define DS_ENCODE_IMPL_H

#include "affine_lanes_impl.h"
#include "half.h"
#include "iq2_lanes_impl.h"
#include "quant_encode.h"

#include <math.h>

/* Scaled by powers of two so that the largest number and the largest weight lie in [1, 2): no
 * product below overflows or vanishes, whatever the units. */
struct encode_block {
    float x[256], w[256];
    float up, down; /* a step of the file is a step here * up; down = 1 / up */
};

/* A step as the file will hold it, in units of the block; *h: its bits. */
static inline float encode_step(const struct encode_block *b, float d, uint16_t *h)
{
    *h = f32_to_f16(d * b->up);
    *h = MIN(*h, 0x7bff); /* the largest finite one */
    return f16_to_f32(*h) * b->down;
}

enum { IQ2_FAST_CELLS = 56, IQ2_FAST_GRID = 224, IQ2_CELLS = 64 * 12, IQ2_BELOW = 320 };

struct iq2_search {
    const struct iq2_kernels *k;
    enum quant_effort effort;
    struct iq2_tables tables;
    float fast_grid[IQ2_FAST_GRID], grid[IQ2_BELOW + IQ2_CELLS + 32];
    struct iq2_lines lines[32];
    struct iq2_sub {
        struct iq2_hull hull;
        float from[IQ2_MAX_LINES + 1]; /* line k is the highest from here up to from[k + 1] */
        float gain, s;                 /* the largest gain, at scale s */
        float first, last;             /* scales of the first and the last local maximum */
    } sub[8];
    float at[IQ2_CELLS + 32], height[IQ2_CELLS + 32], bound[2 * IQ2_BELOW + IQ2_CELLS + 32];
    float sum[IQ2_BELOW + IQ2_CELLS + 32];
};

void iq2_search_init(struct iq2_search *q, enum quant_effort effort, unsigned isa);
void iq2_xxs_search(struct iq2_search *q, const struct encode_block *b, uint8_t *dst);
void iq2_xxs_search_group(struct iq2_search *q, uint8_t *block, int at, float *x, const float *w);

struct affine_search {
    const struct affine_kernels *q2, *q4;
    enum quant_effort effort;
    struct affine_tile tile[2];
    struct affine_fit fit[2];
};

/* y = step[0] scale q - step[1] min. */
struct affine_block {
    float error, step[2]; /* d and dmin */
    uint16_t bits[2];     /* as the file holds them */
    uint8_t scale[16], min[16];
};

void affine_search_block(struct affine_search *q, const struct affine_kernels *k,
                         const struct encode_block *blk, struct affine_block *best);

/* The code of x: the nearest a q - b. */
static inline int affine_code(float x, float a, float b, int top)
{
    float q = a > 0 ? rintf((x + b) / a) : 0;
    return (int)MAX(0, MIN((float)top, q));
}

void q2_k_search(struct affine_search *q, const struct encode_block *b, uint8_t *dst);
void q2_k_search_group(uint8_t *block, int at, float *x);
void q4_k_search(struct affine_search *q, const struct encode_block *b, uint8_t *dst);
void q4_k_search_group(uint8_t *block, int at, float *x);

/* w: 32 weights. */
void mxfp4_search(const float *x, const float *w, uint8_t *dst);

struct quant_search {
    enum quant_effort effort;
    unsigned isa;
    struct encode_block block;
    struct iq2_search iq2;
    struct affine_search affine;
};

#endif
