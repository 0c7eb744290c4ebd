/* quant_encode.c - the door to the searches: rows to blocks in units that suit them, and forms that
 * need no search. */
#include "quant_encode.h"

#include "encode_impl.h"
#include "q8_lanes_impl.h"

#include <stdalign.h>

_Static_assert(alignof(struct quant_search) <= 64, "memory is aligned to 64");

size_t quant_search_bytes(void)
{
    return sizeof(struct quant_search);
}

struct quant_search *quant_search_init(void *mem, enum quant_effort effort, unsigned isa)
{
    struct quant_search *q = mem;
    CHECK((uintptr_t)mem % 64 == 0);
    q->effort = effort;
    q->isa = isa;
    iq2_search_init(&q->iq2, effort, isa);
    q->affine.effort = effort;
    q->affine.q2 = affine_q2(isa);
    q->affine.q4 = affine_q4(isa);
    return q;
}

bool quant_has_search(enum dtype type)
{
    return type == DT_IQ2_XXS || type == DT_Q2_K || type == DT_Q4_K || type == DT_MXFP4;
}

/* The power of two at or below x >= 0, between 2^-100 and 2^100. */
static float power_below(float x)
{
    int e = (int)(f32_bits(x) >> 23) - 127;
    return f32_of_bits((uint32_t)(MAX(-100, MIN(100, e)) + 127) << 23);
}

static void fill_block(struct encode_block *b, const float *x, const float *w)
{
    float max_x = 0, max_w = 0;
    for (int i = 0; i < 256; i++) {
        max_x = MAX(max_x, fabsf(x[i]));
        max_w = MAX(max_w, w ? w[i] : 1);
    }
    b->up = power_below(max_x);
    b->down = 1 / b->up;
    float unit = 1 / power_below(max_w);
    for (int i = 0; i < 256; i++) {
        b->x[i] = x[i] * b->down;
        b->w[i] = w && max_w > 0 ? w[i] * unit : 1;
    }
}

static void search_mxfp4(struct quant_search *q, const float *x, const float *w, uint8_t *dst,
                         int n)
{
    for (int i = 0; i < 256; i++)
        q->block.w[i] = 1;
    for (int i = 0; i < n; i += 32, dst += 17)
        mxfp4_search(x + i, w ? w + i : q->block.w, dst);
}

void quant_search_row(struct quant_search *q, enum dtype type, const float *x, const float *weight,
                      void *dst, int n)
{
    const struct dtype_info *info = dtype_info((int)type);
    uint8_t *out = dst;
    CHECK(quant_has_search(type) && n % info->block == 0);
    if (type == DT_MXFP4) {
        search_mxfp4(q, x, weight, out, n);
        return;
    }
    for (int i = 0; i < n; i += 256, out += info->bytes) {
        fill_block(&q->block, x + i, weight ? weight + i : NULL);
        if (type == DT_IQ2_XXS)
            iq2_xxs_search(&q->iq2, &q->block, out);
        else if (type == DT_Q2_K)
            q2_k_search(&q->affine, &q->block, out);
        else
            q4_k_search(&q->affine, &q->block, out);
    }
}

int quant_group(enum dtype type)
{
    return type == DT_IQ2_XXS ? 8 : 1;
}

void quant_search_group(struct quant_search *q, enum dtype type, void *block, int at, float *x,
                        const float *weight)
{
    CHECK(at >= 0 && at < 256 && at % quant_group(type) == 0);
    if (type == DT_IQ2_XXS)
        iq2_xxs_search_group(&q->iq2, block, at, x, weight);
    else if (type == DT_Q2_K)
        q2_k_search_group(block, at, x);
    else if (type == DT_Q4_K)
        q4_k_search_group(block, at, x);
    else
        CHECK(!"a type with groups");
}

/* Quarters need square roots alone, which every machine rounds alike. */
static float to_power(float x, float power)
{
    float root = sqrtf(x), half = power * 2;
    if (power == 0)
        return 1;
    if (power == 1)
        return x;
    return half == .5f ? sqrtf(root) : half == 1 ? root : root * sqrtf(root);
}

void quant_emphasise(const float *x, const float *importance, float power, float *weight, int n)
{
    CHECK(power >= 0 && power <= 1 && power * 4 == rintf(power * 4));
    for (int i = 0; i < n; i += 256) {
        double sum = 0;
        int m = MIN(256, n - i);
        for (int j = i; j < i + m; j++)
            sum += (double)x[j] * (double)x[j];
        float mean = (float)(sum / m);
        for (int j = i; j < i + m; j++)
            weight[j] = (importance ? importance[j] : 1) * to_power(mean + x[j] * x[j], power);
    }
}

static bool all_below(const float *x, int n, uint32_t bits)
{
    uint32_t most = 0;
    for (int i = 0; i < n; i++)
        most = MAX(most, f32_bits(x[i]) & 0x7fffffff);
    return most < bits;
}

static bool fp4_to_mxfp4(const uint8_t *src, const uint8_t *scale, uint8_t *dst, int n)
{
    bool good = true;
    for (int i = 0; i < n / 32; i++)
        good &= scale[i] != 255;
    quant_fp4_to_mxfp4(src, scale, dst, n);
    return good;
}

bool quant_recode(const struct quant_search *q, const struct quant_run *from, enum dtype to,
                  void *dst, float *num, int n)
{
    const struct q8_kernels *k = q8_kernels(q->isa);
    const struct dtype_info *info = dtype_info((int)to);
    CHECK(n % info->block == 0);
    if (from->type == DT_FP4 && to == DT_MXFP4)
        return fp4_to_mxfp4(from->data, from->scale, dst, n);
    if (from->type == DT_F8_E4M3 && to == DT_Q8_0)
        return k->from_f8(from->data, from->scale, dst, n);
    if (from->type == DT_BF16 && to == DT_Q8_0)
        return k->from_bf16(from->data, dst, n);
    quant_decode(from->type, from->data, from->scale, num, n);
    if (to == DT_Q8_0)
        return k->from_f32(num, dst, n);
    CHECK(quant_encode(to, num, dst, n));
    /* From the first bit pattern on that rounds to infinity. */
    return all_below(num, n, to == DT_F16 ? 0x477ff000 : to == DT_BF16 ? 0x7f7f8000 : 0x7f800000);
}
