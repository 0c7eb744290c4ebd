/* quant_random.c - words of rng_at() laid into blocks of every type that models are packed in.
 *
 * Block b of a type takes W consecutive words, number b * W and up; quant_random_block.h lays them.
 * Rejected: numbers rounded to blocks, a hundred times slower and no more telling; a generator with
 * state, which could not begin in the middle. */
#include "quant_random_block.h"

#include "half.h"

/* ---- the table ---- */

/* unit: with scales 16 to 31 (root mean square 23.95) and codes as made. least, most: shifts whose
 * scales the type has. */
static const struct form {
    enum dtype type;
    int n_word; /* 0: a byte for an element */
    double unit;
    int least, most;
} forms[] = {
    { DT_Q8_0, 5, 1769.7, -24, 11 },
    { DT_Q2_K, 11, 313.96, -23, 10 },
    { DT_Q4_K, 18, 5341.8, -23, 8 },
    { DT_IQ2_XXS, 9, 1690.9, -24, 11 },
    { DT_MXFP4, 3, 4.6267, -126, 125 },
    { DT_FP4, 3, 4.6267, -126, 125 },
    { DT_F8_E4M3, 0, 21.37, -119, 109 },
    { DT_F32, 0, 147.80, -119, 109 },
    { DT_F16, 0, 147.80, -119, 109 },
    { DT_BF16, 0, 147.80, -119, 109 },
};

static const struct form *form_of(enum dtype type)
{
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        if (forms[i].type == type)
            return &forms[i];
    }
    return NULL;
}

bool quant_random_can(const struct quant_random *q)
{
    const struct form *f = form_of(q->type);
    bool norm = f && f->n_word == 0 && q->around_one;
    return f && (norm || (q->shift >= f->least && q->shift <= f->most));
}

int quant_random_words(enum dtype type)
{
    return form_of(type)->n_word;
}

size_t quant_random_bytes(enum dtype type)
{
    return type == DT_FP4 ? 16 : (size_t)dtype_info((int)type)->bytes;
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
void quant_random_codes(const struct quant_random *q, uint32_t code[256])
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
    quant_random_codes(q, code);
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
    uint64_t w[QUANT_RANDOM_WORDS];
    CHECK(quant_random_can(q));
    int n_word = quant_random_words(q->type);
    size_t bytes = quant_random_bytes(q->type);
    if (n_word == 0) {
        random_elements(q, first, n, dst);
        return;
    }
    for (size_t b = 0; b < n; b++, dst += bytes) {
        for (int i = 0; i < n_word; i++)
            w[i] = rng_at(q->key, (first + b) * (uint64_t)n_word + (uint64_t)i);
        random_block(q->type, w, q->shift, dst);
    }
}

void quant_random_scales(const struct quant_random *q, uint64_t first, size_t n, uint8_t *dst)
{
    uint64_t step = q->type == DT_FP4 ? 3 : 1, at = q->type == DT_FP4 ? 2 : 0;
    CHECK((q->type == DT_FP4 || q->type == DT_F8_E4M3) && quant_random_can(q));
    for (size_t i = 0; i < n; i++)
        dst[i] = random_e8m0(rng_at(q->key, (first + i) * step + at), q->shift);
}
