/* kv_row.h - how one row of the cache is packed.
 *
 * A row of head_dim values whose last rope_dim are rotary: the others as E4M3 with one power-of-two
 * scale per 64 (the last group may be shorter), the rotary ones as BF16:
 *
 *   | E4M3 x nope | BF16 x rope_dim | E8M0 x ceil(nope / 64) | zeros up to a multiple of 8 |
 *
 * An index row of dim values: | E2M1 x dim, element 2i in the low nibble | E8M0 x dim / 32 |
 * The rounding is the vendor's cache simulation, so that packing a simulated row loses nothing. */
#ifndef DS_KV_ROW_H
#define DS_KV_ROW_H

#include "base.h"

size_t kv_row_bytes(int head_dim, int rope_dim);
void kv_row_pack(const float *x, int head_dim, int rope_dim, uint8_t *row);
void kv_row_unpack(const uint8_t *row, int head_dim, int rope_dim, float *x);

size_t kv_index_row_bytes(int dim); /* dim a multiple of 32 */
void kv_index_row_pack(const float *x, int dim, uint8_t *row);
void kv_index_row_unpack(const uint8_t *row, int dim, float *x);

/* The same rounding without packing: FP8 per 64, FP4 per 32 (in place). */
void fp8_simulate(float *x, int n);
void fp4_simulate(float *x, int n);

/* x := H x, the orthogonal Walsh-Hadamard transform in natural order; n a power of two. */
void hadamard(float *x, int n);

#endif
