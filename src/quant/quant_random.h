/* quant_random.h - packed numbers made by counting, not by rounding.
 *
 * Every block is legal and a pure function of (key, type, shift, number of the block), so that any
 * part of a tensor can be made anywhere, in any order, with the same bytes. Nothing but integers
 * is used. Numbers are symmetric around zero, and one block in no way depends on another.
 * Which bit comes from where: docs/formats.md, section "Synthetic models". */
#ifndef DS_QUANT_RANDOM_H
#define DS_QUANT_RANDOM_H

#include "quant.h"

struct quant_random {
    enum dtype type;
    uint64_t key;      /* one for each tensor */
    int shift;         /* the numbers' root mean square is 2^shift * quant_random_unit(type) */
    bool around_one;   /* F32, F16, BF16: 1 + k/64, k from -8 to 7; shift is ignored */
};

/* Whether there are such numbers: of this type, with scales that it has. */
bool quant_random_can(const struct quant_random *q);

/* n blocks from block `first` on (F32, F16, BF16, F8_E4M3: elements; FP4: of 32 in 16 bytes) to
 * dst. Types: those of quant_random_unit(). FP4 has the numbers of MXFP4 with the same key. */
void quant_random(const struct quant_random *q, uint64_t first, size_t n, uint8_t *dst);

/* E8M0 scales: of FP4's blocks, or of F8_E4M3's tiles (with a key of their own). */
void quant_random_scales(const struct quant_random *q, uint64_t first, size_t n, uint8_t *dst);

/* Root mean square at shift 0; 0: there are no random numbers of this type. */
double quant_random_unit(enum dtype type);

/* The shift that comes nearest to a root mean square, by ratio. */
int quant_random_shift(enum dtype type, double rms);

#endif
