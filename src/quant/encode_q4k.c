/* encode_q4k.c - packing Q4_K: | f16 d | f16 dmin | u8 scales x 12 | u8 q x 128 |. The search is
 * encode_affine.c's. */
#include "encode_impl.h"

#include "quant_impl.h"

/* Six-bit scales and minima of eight sub-blocks in twelve bytes: the first four of each whole, of
 * the others the low four bits together, the upper two above the first four. */
static void put_scales(uint8_t *bytes, const uint8_t *scale, const uint8_t *min)
{
    for (int s = 0; s < 4; s++) {
        bytes[s] = (uint8_t)(scale[s] | scale[s + 4] >> 4 << 6);
        bytes[s + 4] = (uint8_t)(min[s] | min[s + 4] >> 4 << 6);
        bytes[s + 8] = (uint8_t)((scale[s + 4] & 15) | (min[s + 4] & 15) << 4);
    }
}

/* Low nibbles are the even sub-blocks. */
static void put_code(uint8_t *block, int e, int code)
{
    int shift = e / 32 % 2 * 4;
    uint8_t *byte = block + 16 + e / 64 * 32 + e % 32;
    *byte = (uint8_t)((*byte & ~(15 << shift)) | code << shift);
}

void q4_k_search(struct affine_search *q, const struct encode_block *b, uint8_t *dst)
{
    struct affine_block best;
    affine_search_block(q, q->q4, b, &best);
    memcpy(dst, best.bits, 4);
    put_scales(dst + 4, best.scale, best.min);
    for (int e = 0; e < 256; e++) {
        float a = best.step[0] * (float)best.scale[e / 32];
        float m = best.step[1] * (float)best.min[e / 32];
        put_code(dst, e, affine_code(b->x[e], a, m, 15));
    }
}

void q4_k_search_group(uint8_t *block, int at, float *x)
{
    int scale, min;
    q4_k_scale(block + 4, at / 32, &scale, &min);
    float a = f16_at(block) * (float)scale, m = f16_at(block + 2) * (float)min;
    int code = affine_code(*x, a, m, 15);
    put_code(block, at, code);
    *x = a * (float)code - m;
}
