/* quant_random.c - words of rng_at() laid into blocks of every type that models are packed in.
 *
 * Block b of a type takes W consecutive words, number b * W and up: first what fills the codes,
 * byte for byte in little-endian order, last the one for the scale. Scales are (16 + r) * 2^shift
 * with four random bits r; minima are the multiple of the scale that makes the codes' mean zero.
 * Rejected: numbers rounded to blocks, a hundred times slower and no more telling; a generator with
 * state, which could not begin in the middle. */
#include "quant_random.h"

#include "fp8.h"
#include "rng.h"

enum { MAX_WORDS = 18 };

/* m * 2^shift as binary16; exact for m of up to 11 bits and results of 2^-24 up to 2^15. */
static uint16_t f16_of(unsigned m, int shift)
{
    int top = 31 - __builtin_clz(m), e = top + shift;
    CHECK(shift >= -24 && e <= 15 && top <= 10);
    if (e < -14) /* subnormal: units of 2^-24 */
        return (uint16_t)(m << (shift + 24));
    return (uint16_t)((unsigned)(e + 15) << 10 | (m << (10 - top) & 0x3ff));
}

/* Machines this program runs on are little-endian, as the formats are. */
static void put_u16(uint8_t *dst, uint16_t v)
{
    memcpy(dst, &v, sizeof v);
}

static void put_u64(uint8_t *dst, uint64_t v)
{
    memcpy(dst, &v, sizeof v);
}

/* ---- one block ---- */

static void block_q8_0(const uint64_t *w, int shift, uint8_t *dst)
{
    put_u16(dst, f16_of(16 + (w[4] & 15), shift));
    for (int i = 0; i < 4; i++) /* odd codes, -127 to 127: no -128, and their mean is zero */
        put_u64(dst + 2 + 8 * i, w[i] | UINT64_C(0x0101010101010101));
}

/* d sc q - dmin m with m = sc = 8 to 15 and dmin = 3/2 d. */
static void block_q2k(const uint64_t *w, int shift, uint8_t *dst)
{
    unsigned d = 16 + (unsigned)(w[10] & 15);
    for (int i = 0; i < 2; i++) {
        uint64_t sc = (w[i] & UINT64_C(0x0707070707070707)) | UINT64_C(0x0808080808080808);
        put_u64(dst + 8 * i, sc | sc << 4);
    }
    for (int i = 0; i < 8; i++)
        put_u64(dst + 16 + 8 * i, w[2 + i]);
    put_u16(dst + 80, f16_of(d, shift));
    put_u16(dst + 82, f16_of(3 * d, shift - 1));
}

/* d sc q - dmin m with m = sc = 32 to 63 and dmin = 15/2 d. */
static void block_q4k(const uint64_t *w, int shift, uint8_t *dst)
{
    unsigned d = 16 + (unsigned)(w[17] & 15);
    put_u16(dst, f16_of(d, shift));
    put_u16(dst + 2, f16_of(15 * d, shift - 1));
    for (int j = 0; j < 4; j++) {
        unsigned low = 32 | (w[16] >> 8 * j & 31), high = 32 | (w[16] >> (8 * j + 32) & 31);
        dst[4 + j] = dst[8 + j] = (uint8_t)(low | (high >> 4) << 6);
        dst[12 + j] = (uint8_t)((high & 15) * 17);
    }
    for (int i = 0; i < 16; i++)
        put_u64(dst + 16 + 8 * i, w[i]);
}

/* Any indices and signs; the 4-bit scale is 8 to 15. */
static void block_iq2xxs(const uint64_t *w, int shift, uint8_t *dst)
{
    put_u16(dst, f16_of(16 + (w[8] & 15), shift));
    for (int i = 0; i < 8; i++)
        put_u64(dst + 2 + 8 * i, w[i] | UINT64_C(1) << 63);
}

static uint8_t e8m0_of(uint64_t w, int shift)
{
    CHECK(shift > -127 && shift < 126);
    return (uint8_t)(127 + shift + (int)(w & 1));
}

static void block_mxfp4(const uint64_t *w, int shift, uint8_t *dst)
{
    dst[0] = e8m0_of(w[2], shift);
    put_u64(dst + 1, w[0]);
    put_u64(dst + 9, w[1]);
}

/* MXFP4 has element j in the low half of byte j and j + 16 in the high one, the vendor's layout
 * has neighbours in a byte. */
static void block_fp4(const uint64_t *w, int shift, uint8_t *dst)
{
    uint8_t code[16];
    (void)shift;
    put_u64(code, w[0]);
    put_u64(code + 8, w[1]);
    for (int j = 0; j < 8; j++) {
        dst[j] = (uint8_t)((code[2 * j] & 15) | (code[2 * j + 1] & 15) << 4);
        dst[8 + j] = (uint8_t)(code[2 * j] >> 4 | (code[2 * j + 1] >> 4) << 4);
    }
}

/* ---- the table ---- */

/* unit: with scales 16 to 31 (root mean square 23.95) and codes as above. */
static const struct form {
    enum dtype type;
    int n_word;
    void (*block)(const uint64_t *w, int shift, uint8_t *dst); /* NULL: a byte for an element */
    double unit;
} forms[] = {
    { DT_Q8_0, 5, block_q8_0, 1769.7 },
    { DT_Q2_K, 11, block_q2k, 313.96 },
    { DT_Q4_K, 18, block_q4k, 5341.8 },
    { DT_IQ2_XXS, 9, block_iq2xxs, 1690.9 },
    { DT_MXFP4, 3, block_mxfp4, 4.6267 },
    { DT_FP4, 3, block_fp4, 4.6267 },
    { DT_F8_E4M3, 0, NULL, 21.37 },
    { DT_F32, 0, NULL, 147.80 },
    { DT_F16, 0, NULL, 147.80 },
    { DT_BF16, 0, NULL, 147.80 },
};

static const struct form *form_of(enum dtype type)
{
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        if (forms[i].type == type)
            return &forms[i];
    }
    return NULL;
}

double quant_random_unit(enum dtype type)
{
    const struct form *f = form_of(type);
    return f ? f->unit : 0;
}

int quant_random_shift(enum dtype type, double rms)
{
    double x = rms / quant_random_unit(type);
    int shift = 0;
    CHECK(x > 1e-30 && x < 1e30);
    for (; x * x < .5; shift--)
        x *= 2;
    for (; x * x >= 2; shift++)
        x /= 2;
    return shift;
}

/* ---- a byte for an element ---- */

/* The encoded number of every byte. */
static void fill_codes(const struct quant_random *q, uint32_t code[256])
{
    for (int b = 0; b < 256; b++) {
        int c = b < 128 ? b : b - 256;
        float one = f32_of_bits((uint32_t)(127 + q->shift) << 23); /* 2^shift */
        float x = q->around_one ? (float)(56 + (c + 128) / 16) / 64
                                : (float)(2 * c + 1) * one;
        code[b] = q->type == DT_F32    ? f32_bits(x)
                  : q->type == DT_F16  ? f32_to_f16(x)
                  : q->type == DT_BF16 ? f32_to_bf16(x)
                                       : (uint32_t)((b & 0x9f) | 0x40); /* 2 to 30 */
    }
}

static void put_codes(const uint32_t code[256], uint64_t w, int from, int n, int bytes,
                      uint8_t *dst)
{
    for (int i = 0; i < n; i++) {
        uint32_t c = code[w >> 8 * (from + i) & 255];
        memcpy(dst + i * bytes, &c, (size_t)bytes);
    }
}

static void random_elements(const struct quant_random *q, uint64_t first, size_t n, uint8_t *dst)
{
    uint32_t code[256];
    int bytes = dtype_info((int)q->type)->bytes;
    CHECK(q->around_one || (q->shift > -120 && q->shift < 110));
    fill_codes(q, code);
    while (n > 0) {
        int from = (int)(first % 8), now = (int)MIN(n, (size_t)(8 - from));
        put_codes(code, rng_at(q->key, first / 8), from, now, bytes, dst);
        dst += now * bytes;
        first += (uint64_t)now;
        n -= (size_t)now;
    }
}

/* ---- many blocks ---- */

void quant_random(const struct quant_random *q, uint64_t first, size_t n, uint8_t *dst)
{
    const struct form *f = form_of(q->type);
    uint64_t w[MAX_WORDS];
    CHECK(f);
    if (!f->block) {
        random_elements(q, first, n, dst);
        return;
    }
    size_t bytes = q->type == DT_FP4 ? 16 : (size_t)dtype_info((int)q->type)->bytes;
    for (size_t b = 0; b < n; b++, dst += bytes) {
        for (int i = 0; i < f->n_word; i++)
            w[i] = rng_at(q->key, (first + b) * (uint64_t)f->n_word + (uint64_t)i);
        f->block(w, q->shift, dst);
    }
}

void quant_random_scales(const struct quant_random *q, uint64_t first, size_t n, uint8_t *dst)
{
    uint64_t step = q->type == DT_FP4 ? 3 : 1, at = q->type == DT_FP4 ? 2 : 0;
    CHECK(q->type == DT_FP4 || q->type == DT_F8_E4M3);
    for (size_t i = 0; i < n; i++)
        dst[i] = e8m0_of(rng_at(q->key, (first + i) * step + at), q->shift);
}
