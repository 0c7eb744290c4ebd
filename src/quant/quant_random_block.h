/* quant_random_block.h - one random block of every type, by integers alone: for the processor and,
 * compiled once more, for a GPU (src/backend/cuda/synth.cu).
 *
 * First come the words that fill the codes, byte for byte in little-endian order, last the one for
 * the scale. Scales are (16 + r) * 2^shift with four random bits r; minima are the multiple of the
 * scale that makes the codes' mean zero. */
#ifndef DS_QUANT_RANDOM_BLOCK_H
#define DS_QUANT_RANDOM_BLOCK_H

#include "quant_random.h"
#include "rng.h"

enum { QUANT_RANDOM_WORDS = 18 }; /* of a block at most */

/* m * 2^shift as binary16; exact for m of up to 11 bits and results of 2^-24 up to 2^15. */
ON_DEVICES static inline uint16_t random_f16(unsigned m, int shift)
{
    int top = 0;
    while (m >> (top + 1))
        top++;
    if (top + shift < -14) /* subnormal: units of 2^-24 */
        return (uint16_t)(m << (shift + 24));
    return (uint16_t)((unsigned)(top + shift + 15) << 10 | (m << (10 - top) & 0x3ff));
}

/* Machines this program runs on are little-endian, as the formats are. */
ON_DEVICES static inline void put_u16(uint8_t *dst, uint16_t v)
{
    memcpy(dst, &v, sizeof v);
}

ON_DEVICES static inline void put_u64(uint8_t *dst, uint64_t v)
{
    memcpy(dst, &v, sizeof v);
}

ON_DEVICES static inline void block_q8_0(const uint64_t *w, int shift, uint8_t *dst)
{
    put_u16(dst, random_f16(16 + (w[4] & 15), shift));
    for (int i = 0; i < 4; i++) /* odd codes, -127 to 127: no -128, and their mean is zero */
        put_u64(dst + 2 + 8 * i, w[i] | UINT64_C(0x0101010101010101));
}

/* d sc q - dmin m with m = sc = 8 to 15 and dmin = 3/2 d. */
ON_DEVICES static inline void block_q2k(const uint64_t *w, int shift, uint8_t *dst)
{
    unsigned d = 16 + (unsigned)(w[10] & 15);
    for (int i = 0; i < 2; i++) {
        uint64_t sc = (w[i] & UINT64_C(0x0707070707070707)) | UINT64_C(0x0808080808080808);
        put_u64(dst + 8 * i, sc | sc << 4);
    }
    for (int i = 0; i < 8; i++)
        put_u64(dst + 16 + 8 * i, w[2 + i]);
    put_u16(dst + 80, random_f16(d, shift));
    put_u16(dst + 82, random_f16(3 * d, shift - 1));
}

/* d sc q - dmin m with m = sc = 32 to 63 and dmin = 15/2 d. */
ON_DEVICES static inline void block_q4k(const uint64_t *w, int shift, uint8_t *dst)
{
    unsigned d = 16 + (unsigned)(w[17] & 15);
    put_u16(dst, random_f16(d, shift));
    put_u16(dst + 2, random_f16(15 * d, shift - 1));
    for (int j = 0; j < 4; j++) {
        unsigned low = 32 | (w[16] >> 8 * j & 31), high = 32 | (w[16] >> (8 * j + 32) & 31);
        dst[4 + j] = dst[8 + j] = (uint8_t)(low | (high >> 4) << 6);
        dst[12 + j] = (uint8_t)((high & 15) * 17);
    }
    for (int i = 0; i < 16; i++)
        put_u64(dst + 16 + 8 * i, w[i]);
}

/* Any indices and signs; the 4-bit scale is 8 to 15. */
ON_DEVICES static inline void block_iq2xxs(const uint64_t *w, int shift, uint8_t *dst)
{
    put_u16(dst, random_f16(16 + (w[8] & 15), shift));
    for (int i = 0; i < 8; i++)
        put_u64(dst + 2 + 8 * i, w[i] | UINT64_C(1) << 63);
}

ON_DEVICES static inline uint8_t random_e8m0(uint64_t w, int shift)
{
    return (uint8_t)(127 + shift + (int)(w & 1));
}

ON_DEVICES static inline void block_mxfp4(const uint64_t *w, int shift, uint8_t *dst)
{
    dst[0] = random_e8m0(w[2], shift);
    put_u64(dst + 1, w[0]);
    put_u64(dst + 9, w[1]);
}

/* MXFP4 has element j in the low half of byte j and j + 16 in the high one, the vendor's layout
 * has neighbours in a byte. */
ON_DEVICES static inline void block_fp4(const uint64_t *w, uint8_t *dst)
{
    uint8_t code[16];
    put_u64(code, w[0]);
    put_u64(code + 8, w[1]);
    for (int j = 0; j < 8; j++) {
        dst[j] = (uint8_t)((code[2 * j] & 15) | (code[2 * j + 1] & 15) << 4);
        dst[8 + j] = (uint8_t)(code[2 * j] >> 4 | (code[2 * j + 1] >> 4) << 4);
    }
}

/* From the block's words, as many as quant_random_words() says. */
ON_DEVICES static inline void random_block(enum dtype type, const uint64_t *w, int shift,
                                           uint8_t *dst)
{
    switch (type) {
    case DT_Q8_0: block_q8_0(w, shift, dst); break;
    case DT_Q2_K: block_q2k(w, shift, dst); break;
    case DT_Q4_K: block_q4k(w, shift, dst); break;
    case DT_IQ2_XXS: block_iq2xxs(w, shift, dst); break;
    case DT_MXFP4: block_mxfp4(w, shift, dst); break;
    default: block_fp4(w, dst); break;
    }
}

/* Words of a block; 0: a byte of a word is an element, of the code that is given here. */
int quant_random_words(enum dtype type);
void quant_random_codes(const struct quant_random *q, uint32_t code[256]);

/* Of a block, or an element. */
size_t quant_random_bytes(enum dtype type);

#endif
