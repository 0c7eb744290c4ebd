/* cpu_impl.h - what drivers (threads, tiling) and row kernels (one instruction set) agree on.
 *
 * Drivers live in cpu_*.c once; kernels are entries of struct cpu_kernels, filled with plain C and
 * overwritten, weakest instruction set first. A kernel's bits may not depend on how many rows it
 * is given: the order of summation over a row is part of its contract below. */
#ifndef DS_CPU_IMPL_H
#define DS_CPU_IMPL_H

#include "ops_table.h"
#include "thread.h"

#define TILE_W 4  /* weight rows of a tile */
#define TILE_X 32 /* activation rows of a tile, at most */
#define BAND_W 32  /* weight rows of a band */
#define BAND_X 128 /* activation rows of a band, at most */
#define FEW_MAX 8   /* the same, where few rows have a kernel of their own */
#define KEY_TILE 32 /* cached rows that are scored together */

/* How a kernel wants a row of n activations; rows begin at multiples of 64 bytes.
 *   ACT_F32   as they are
 *   ACT_Q32   | i8 q x n | f32 d x n/32 | i16 sum x n/16 |   x = d q, d = largest / 127 per 32;
 *   ACT_Q256  | i8 q x n | f32 d x n/256 | i16 sum x n/16 |  the same per 256; sums of 16 q
 * A block that holds a NaN or an infinity has d = NaN, so that every product with it is NaN. */
enum act_form { ACT_F32, ACT_Q32, ACT_Q256, N_ACT };

size_t act_bytes(enum act_form form, int n);

static inline const float *act_d(const void *row, int n)
{
    return (const float *)((const uint8_t *)row + n);
}

static inline const int16_t *act_sum(const void *row, int n)
{
    return (const int16_t *)((const uint8_t *)row + n + n / 256 * 4);
}

static inline const int16_t *act_sum_q32(const void *row, int n)
{
    return (const int16_t *)((const uint8_t *)row + n + n / 32 * 4);
}

/* out[i][at + j] := w[j] times x[i] for j < n_w, i < n_x.
 *
 * ACT_F32: element e goes to lane e mod 16, lanes are summed with fused multiply-add in ascending
 * order, then as ((l + l8) + l4), (s0 + s1) + (s2 + s3). Kernels without fused multiply-add round
 * the product too.
 * ACT_Q32, ACT_Q256: blocks in ascending order; of each the exact integer sum S is added as
 * fma(dw * dx, S, acc), then for types with a minimum fma(-(mw * dx), M, acc). These bits are the
 * same for every instruction set. */
struct tile {
    const uint8_t *w[TILE_W];     /* rows of packed weights; beyond n_w they repeat the last */
    const uint8_t *scale[TILE_W]; /* their scales, for types that keep them apart */
    const void *x[TILE_X];
    float *out[TILE_X];
    int n_w, n_x, k, at; /* k: elements of a row */
    size_t ahead; /* bytes from a weight row to the one that comes next in its place */
};

/* The same product, the same bits, in a shape for many activation rows: every weight is unpacked
 * once for all of them. */
struct band {
    const uint8_t *w[BAND_W];     /* beyond n_w they repeat the last */
    const uint8_t *scale[BAND_W];
    const void *const *x;         /* [n_x] */
    float *const *out;            /* [n_x] */
    int n_w, n_x, k, at;
    size_t ahead; /* as in struct tile */
};

/* out[i] += sum over j of p[i][j] * row[j], j ascending, fused multiply-adds. */
struct blend {
    float *out;
    const float *p, *row;
    size_t out_pitch, p_pitch, row_pitch; /* in elements */
    int n_out, n_row, dim;
};

typedef void tile_fn(const struct tile *t);
typedef void band_fn(const struct band *b);
typedef void pack_fn(const float *x, void *row, int n);
typedef void decode_fn(enum dtype type, const void *src, const uint8_t *scale, float *dst, int n);

struct product_kernel {
    enum act_form form;
    tile_fn *tile; /* NULL: decode the weights, then as F32 */
    band_fn *few;  /* up to FEW_MAX activation rows; NULL: none */
    band_fn *band; /* NULL: none */
    int few_x, band_x; /* activation rows from which on few, band are faster */
};

/* run(n): n turns of `flops` operations in registers, as fast as there is. NULL: not known. */
struct peak_kernel { void (*run)(int n); double flops; };

/* Index of a type in cpu_kernels.product. */
#define TYPE_SLOT(t) ((t) < DT_F8_E4M3 ? (t) : 40 + (t) - DT_F8_E4M3)
#define N_TYPE_SLOT 43

struct cpu_kernels {
    struct product_kernel product[N_TYPE_SLOT]; /* by TYPE_SLOT() */
    pack_fn *pack[N_ACT];
    decode_fn *decode; /* quant_decode() */
    void (*kv_unpack)(const uint8_t *row, int head_dim, int rope_dim, float *x);
    void (*index_unpack)(const uint8_t *row, int dim, float *x);
    void (*hadamard)(float *x, int n);     /* hadamard() and fp4_simulate(), every bit */
    void (*fp4_simulate)(float *x, int n);
    void (*blend)(const struct blend *b);
    /* out[c][r] := in[r][c], r < n, c < cols; zeros up to r < KEY_TILE. */
    void (*transpose)(float *out, const float *in, int n, int cols);
    double (*sum_squares)(const float *x, int n); /* 16 lanes as in tile, in double */
    /* x := exp(x - max), the sum is returned; lanes as in tile. */
    float (*exp_sum)(float *x, int n, float max);
    /* out := x * scale * weight; weight NULL: ones; out may be x. */
    void (*scale_row)(float *out, const float *x, const float *weight, float scale, int n);
    /* out := weight * silu(min(gate, clamp)) * clamp(up); out may be gate or up. */
    void (*swiglu)(float *out, const float *gate, const float *up, int n, float clamp,
                   float weight);
    struct peak_kernel peak_float, peak_int;
};

void cpu_kernels_plain(struct cpu_kernels *k), cpu_pack_plain(struct cpu_kernels *k);
void cpu_kernels_avx2(struct cpu_kernels *k), cpu_kernels_avx512(struct cpu_kernels *k),
    cpu_kernels_amx(struct cpu_kernels *k);
void cpu_peak_avx2(struct cpu_kernels *k), cpu_peak_avx512(struct cpu_kernels *k),
    cpu_blend_avx512(struct cpu_kernels *k);
void cpu_kernels_neon(struct cpu_kernels *k), cpu_kernels_dotprod(struct cpu_kernels *k),
    cpu_kernels_i8mm(struct cpu_kernels *k);

struct cpu {
    struct dev dev;
    struct ops ops;
    struct cpu_kernels k;
    struct pool *pool;
    unsigned isa;
    bool exact;
    char describe[64];
};

static inline struct cpu *cpu_of(const struct dev *d)
{
    return d->impl;
}

/* The kernel for weights of a type; exact: one that takes float32 activations. */
struct product_kernel cpu_product_kernel(const struct cpu *c, enum dtype type, bool exact);

void cpu_kernels_fill(struct cpu *c);
void cpu_ops_fill(struct ops *ops);

#endif
