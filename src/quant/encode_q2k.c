/* encode_q2k.c - packing Q2_K: | u8 scale x 16: low nibble scale, high nibble minimum | u8 q x 64 |
 * f16 d | f16 dmin |. The search is encode_affine.c's. */
#include "encode_impl.h"

/* Where the two bits of element e are. */
static uint8_t *place(uint8_t *block, int e, int *shift)
{
    *shift = e / 32 % 4 * 2;
    return block + 16 + 32 * (e / 128) + e % 32;
}

static void put_code(uint8_t *block, int e, int code)
{
    int shift;
    uint8_t *byte = place(block, e, &shift);
    *byte = (uint8_t)((*byte & ~(3 << shift)) | code << shift);
}

void q2_k_search(struct affine_search *q, const struct encode_block *b, uint8_t *dst)
{
    struct affine_block best;
    affine_search_block(q, q->q2, b, &best);
    memcpy(dst + 80, best.bits, 4);
    for (int s = 0; s < 16; s++)
        dst[s] = (uint8_t)(best.scale[s] | best.min[s] << 4);
    for (int e = 0; e < 256; e++) {
        float a = best.step[0] * (float)best.scale[e / 16];
        float m = best.step[1] * (float)best.min[e / 16];
        put_code(dst, e, affine_code(b->x[e], a, m, 3));
    }
}

void q2_k_search_group(uint8_t *block, int at, float *x)
{
    float a = f16_at(block + 80) * (float)(block[at / 16] & 15);
    float m = f16_at(block + 82) * (float)(block[at / 16] >> 4);
    int code = affine_code(*x, a, m, 3);
    put_code(block, at, code);
    *x = a * (float)code - m;
}
