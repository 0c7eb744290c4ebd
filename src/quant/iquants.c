/* iquants.c - ggml's codebook types at two bits: eight weights are one entry of a table of
 * magnitudes, seven signs (the eighth follows) and a share of a scale.
 *
 * IQ2_XXS: | f16 d | 8 x { u8 index x 4 | u32: 4 x 7 signs, scale in the top 4 bits } |
 * IQ2_XS:  | f16 d | 32 x u16: 9 index, 7 signs | 8 x u8: scales of two groups of 16 |
 * x = d (scale + 1/2) / 4 * magnitude * sign; every product fits 24 bits. */
#include "half.h"
#include "iq_tables.h"
#include "quant_impl.h"

/* Signs are half and half: a branch would be guessed wrong every other time. */
static void put_eight(uint64_t grid, unsigned signs, float d, float *dst)
{
    for (int j = 0; j < 8; j++) {
        float x = d * (float)(int)(grid >> (8 * j) & 255);
        dst[j] = f32_of_bits(f32_bits(x) ^ (uint32_t)(signs >> j) << 31);
    }
}

void iq2_xxs_decode(const uint8_t *src, float *dst, int n)
{
    for (int i = 0; i < n; i += 256, src += 66) {
        float d = f16_at(src);
        for (int g = 0; g < 8; g++) {
            const uint8_t *group = src + 2 + 8 * g;
            uint32_t rest;
            memcpy(&rest, group + 4, 4);
            float scale = d * ((float)(rest >> 28) + .5f) * .25f;
            for (int l = 0; l < 4; l++)
                put_eight(iq2_xxs_grid[group[l]], iq2_signs(rest >> (7 * l) & 127), scale,
                          dst + i + 32 * g + 8 * l);
        }
    }
}

void iq2_xs_decode(const uint8_t *src, float *dst, int n)
{
    for (int i = 0; i < n; i += 256, src += 74) {
        float d = f16_at(src);
        for (int l = 0; l < 32; l++) {
            uint16_t code;
            memcpy(&code, src + 2 + 2 * l, 2);
            unsigned nibble = src[66 + l / 4] >> (l / 2 % 2 * 4) & 15;
            float scale = d * ((float)nibble + .5f) * .25f;
            put_eight(iq2_xs_grid[code & 511], iq2_signs(code >> 9), scale, dst + i + 8 * l);
        }
    }
}
