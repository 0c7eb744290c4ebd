/* iq_tables.h - the codebooks of IQ2_XXS and IQ2_XS: magnitudes of eight weights per entry,
 * weight j in byte j, each 8, 25 or 43. */
#ifndef DS_IQ_TABLES_H
#define DS_IQ_TABLES_H

#include "base.h"

extern const uint64_t iq2_xxs_grid[256];
/* The same with two bits a weight: level 0, 1, 2 of weight j in bits 2 j. */
extern const uint16_t iq2_xxs_code[256];
extern const uint64_t iq2_xs_grid[512];

/* Seven stored signs to eight: the number of minus signs is always even. */
static inline unsigned iq2_signs(unsigned seven)
{
    unsigned fold = seven ^ seven >> 4; /* 0x6996: parity of a nibble */
    return seven | (0x6996u >> (fold & 15) & 1) << 7;
}

#endif
