/* quant.h - how numbers are packed. The scalar encode and decode here are the definition;
 * every faster form is tested against them.
 *
 * Types with a ggml id keep it, so that a GGUF file's type is ours. The vendor's FP8 and FP4
 * are the two types whose scales lie in a tensor of their own. Layouts: docs/formats.md. */
#ifndef DS_QUANT_H
#define DS_QUANT_H

#include "base.h"

enum dtype {
    DT_F32 = 0,
    DT_F16 = 1,
    DT_Q4_0 = 2,
    DT_Q8_0 = 8,
    DT_Q2_K = 10,
    DT_Q3_K = 11,
    DT_Q4_K = 12,
    DT_Q5_K = 13,
    DT_Q6_K = 14,
    DT_IQ2_XXS = 16,
    DT_IQ2_XS = 17,
    DT_I8 = 24,
    DT_I32 = 26,
    DT_I64 = 27,
    DT_BF16 = 30,
    DT_MXFP4 = 39,
    /* Only in the vendor's checkpoints. Scales are E8M0 bytes in a second tensor. */
    DT_F8_E4M3 = 1000, /* one scale for every 128 x 128 tile */
    DT_F8_E8M0 = 1001, /* the scales themselves */
    DT_FP4 = 1002,     /* two per byte, element 2i in the low nibble; one scale per row and 32 */
};

struct dtype_info {
    enum dtype type;
    const char *name; /* "IQ2_XXS", as GGUF tools print it */
    int block;        /* elements per block; a row is a whole number of blocks */
    int bytes;        /* bytes per block, scales of their own not counted */
};

/* NULL for a type this program does not know. */
const struct dtype_info *dtype_info(int type);

/* "?" for an unknown type. */
const char *dtype_name(int type);

/* Bytes of n elements; n must be a multiple of the block. */
size_t dtype_bytes(enum dtype type, size_t n);

/* n elements (a multiple of the type's block) to float32, exactly as the format defines it.
 * Types with their own scales: `scale` is the row's first scale byte, one per 128 (F8_E4M3:
 * the caller passes the tile row, r / 128) or per 32 (FP4) elements; otherwise NULL.
 * Not for DT_I8 and the integer types. */
void quant_decode(enum dtype type, const void *src, const uint8_t *scale, float *dst, int n);

/* float32 to F32, F16, BF16, Q8_0; rounds to nearest even where the format allows a choice.
 * Returns false for a type that has no encoder here. */
bool quant_encode(enum dtype type, const float *src, void *dst, int n);

/* FP4 with its scales (n elements) to MXFP4 blocks: the same values, bit for bit. */
void quant_fp4_to_mxfp4(const uint8_t *fp4, const uint8_t *scale, uint8_t *mxfp4, int n);

#endif
