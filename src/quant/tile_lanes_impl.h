/* tile_lanes_impl.h - products of matrices that are stored in tiles.
 *
 * A matrix of m rows lies in columns of 16: element (i, j) at [j / 16][i][j % 16], so that 16
 * columns of consecutive rows are one run of memory, and a product reads all of its operands from
 * front to back whatever the width. */
#ifndef DS_TILE_LANES_IMPL_H
#define DS_TILE_LANES_IMPL_H

#include "base.h"

struct tile_kernels {
    /* m x 16 numbers at out += A B. A: m rows, 16 n_tile columns, its tiles a_step numbers apart;
     * b: [16 n_tile][16]. m is a multiple of 4. Each sum is taken in the order of columns. */
    void (*add)(float *out, const float *a, size_t a_step, const float *b, int n_tile, int m);
    /* x[16 t + i] -= sum over j < 8 of v[j] u[t][j][i], for tiles t from `tile` to 15; the tiles of
     * u are 256 rows apart. */
    void (*take)(float *x, const float *v, const float *u, int tile);
};

const struct tile_kernels *tile_kernels(unsigned isa);

/* Where element (i, j) of a matrix of n_row rows is. */
static inline size_t tile_at(int n_row, int i, int j)
{
    return ((size_t)(j / 16) * (size_t)n_row + (size_t)i) * 16 + (size_t)(j % 16);
}

#endif
