/* kquants.c - ggml's blocks of 256 with quantised scales of sub-blocks: Q2_K to Q6_K.
 *
 * The codes of a block are collected first, then scaled by sub-blocks, both in loops of fixed
 * length that compilers turn into vectors. Every product below fits 24 bits, so only the
 * subtraction of a minimum rounds, once; any other order of the factors gives the same number. */
#include "half.h"
#include "quant_impl.h"

/* q[0..31] := the bits `mask` of src[0..31] at `shift`. */
static void take_bits(int8_t *q, const uint8_t *src, int shift, int mask)
{
    for (int i = 0; i < 32; i++)
        q[i] = (int8_t)(src[i] >> shift & mask);
}

/* Add `value` where a bit of src is set. */
static void add_bit(int8_t *q, const uint8_t *src, int shift, int value)
{
    for (int i = 0; i < 32; i++)
        q[i] = (int8_t)(q[i] + (src[i] >> shift & 1) * value);
}

static void scale_16(float *dst, const int8_t *q, float d)
{
    for (int i = 0; i < 16; i++)
        dst[i] = d * (float)q[i];
}

static void scale_16_min(float *dst, const int8_t *q, float d, float min)
{
    for (int i = 0; i < 16; i++)
        dst[i] = d * (float)q[i] - min;
}

/* | u8 scale x 16: low nibble scale, high nibble minimum | u8 q x 64 | f16 d | f16 dmin | */
void q2_k_decode(const uint8_t *src, float *dst, int n)
{
    int8_t q[256];
    for (int i = 0; i < n; i += 256, src += 84) {
        float d = f16_at(src + 80), dmin = f16_at(src + 82);
        for (int g = 0; g < 8; g++)
            take_bits(q + 32 * g, src + 16 + g / 4 * 32, g % 4 * 2, 3);
        for (int s = 0; s < 16; s++)
            scale_16_min(dst + i + 16 * s, q + 16 * s, d * (float)(src[s] & 15),
                         dmin * (float)(src[s] >> 4));
    }
}

/* Six-bit scale s of 16, stored with 32 added: nibbles in bytes 0..7, upper bits in 8..11. */
static int q3_k_scale(const uint8_t *b, int s)
{
    int low = s < 8 ? b[s] & 15 : b[s - 8] >> 4;
    int high = b[8 + s % 4] >> (s / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

/* | u8 high bit x 32 | u8 low two bits x 64 | u8 scales x 12 | f16 d |; a clear high bit
 * means four less. */
void q3_k_decode(const uint8_t *src, float *dst, int n)
{
    int8_t q[256];
    for (int i = 0; i < n; i += 256, src += 110) {
        float d = f16_at(src + 108);
        for (int g = 0; g < 8; g++) {
            take_bits(q + 32 * g, src + 32 + g / 4 * 32, g % 4 * 2, 3);
            add_bit(q + 32 * g, src, g, 4);
            for (int l = 0; l < 32; l++)
                q[32 * g + l] = (int8_t)(q[32 * g + l] - 4);
        }
        for (int s = 0; s < 16; s++)
            scale_16(dst + i + 16 * s, q + 16 * s, d * (float)q3_k_scale(src + 96, s));
    }
}

void q4_k_scale(const uint8_t *b, int s, int *scale, int *min)
{
    if (s < 4) {
        *scale = b[s] & 63;
        *min = b[s + 4] & 63;
    } else {
        *scale = (b[s + 4] & 15) | b[s - 4] >> 6 << 4;
        *min = b[s + 4] >> 4 | b[s] >> 6 << 4;
    }
}

/* Eight sub-blocks of 32 with scale and minimum. */
static void scale_256(float *dst, const int8_t *q, const uint8_t *block)
{
    float d = f16_at(block), dmin = f16_at(block + 2);
    for (int s = 0; s < 8; s++) {
        int scale, min;
        q4_k_scale(block + 4, s, &scale, &min);
        for (int i = 32 * s; i < 32 * s + 32; i += 16)
            scale_16_min(dst + i, q + i, d * (float)scale, dmin * (float)min);
    }
}

/* | f16 d | f16 dmin | u8 scales x 12 | u8 q x 128 |; low nibbles are the even sub-blocks. */
void q4_k_decode(const uint8_t *src, float *dst, int n)
{
    int8_t q[256];
    for (int i = 0; i < n; i += 256, src += 144) {
        for (int s = 0; s < 8; s++)
            take_bits(q + 32 * s, src + 16 + s / 2 * 32, s % 2 * 4, 15);
        scale_256(dst + i, q, src);
    }
}

/* As Q4_K with a fifth bit: | f16 d | f16 dmin | u8 scales x 12 | u8 high x 32 | u8 q x 128 |;
 * bit s of high[l] belongs to element l of sub-block s. */
void q5_k_decode(const uint8_t *src, float *dst, int n)
{
    int8_t q[256];
    for (int i = 0; i < n; i += 256, src += 176) {
        for (int s = 0; s < 8; s++) {
            take_bits(q + 32 * s, src + 48 + s / 2 * 32, s % 2 * 4, 15);
            add_bit(q + 32 * s, src + 16, s, 16);
        }
        scale_256(dst + i, q, src);
    }
}

/* | u8 low four bits x 128 | u8 high two bits x 64 | i8 scale x 16 | f16 d |, 32 is zero. */
void q6_k_decode(const uint8_t *src, float *dst, int n)
{
    int8_t q[256], high[32];
    for (int i = 0; i < n; i += 256, src += 210) {
        float d = f16_at(src + 208);
        for (int g = 0; g < 8; g++) {
            int half = g / 4, t = g % 4;
            take_bits(q + 32 * g, src + 64 * half + t % 2 * 32, t / 2 * 4, 15);
            take_bits(high, src + 128 + 32 * half, t * 2, 3);
            for (int l = 0; l < 32; l++)
                q[32 * g + l] = (int8_t)(q[32 * g + l] + high[l] * 16 - 32);
        }
        for (int s = 0; s < 16; s++)
            scale_16(dst + i + 16 * s, q + 16 * s, d * (float)(int8_t)src[192 + s]);
    }
}
