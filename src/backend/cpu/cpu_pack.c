/* cpu_pack.c - activations to eight bits, so that products run on integers.
 *
 * One step per 32 or 256 values, largest / 127, kept in float32 (half precision would cost three
 * bits of what the eight can say). The quotient 127 / largest is formed once; its rounding can
 * lift nothing beyond 127. Groups whose largest value is below 2^-100 become zero, so that the
 * quotient stays finite. */
#include "cpu_impl.h"

#include "half.h"

#include <math.h>

size_t act_bytes(enum act_form form, int n)
{
    size_t len = (size_t)n;
    size_t bytes = form == ACT_F32   ? len * 4
                   : form == ACT_Q32 ? len + len / 32 * 4 + len / 16 * 2
                                     : len + len / 256 * 4 + len / 16 * 2;
    return round_up(bytes, ARENA_ALIGN);
}

/* The bits of |x| order as the numbers do, with infinity and NaN on top. */
static void pack_group(const float *x, int8_t *q, float *d, int n)
{
    uint32_t top = 0;
    for (int i = 0; i < n; i++)
        top = MAX(top, f32_bits(x[i]) & 0x7fffffff);
    if (top >= 0x7f800000 || top < f32_bits(0x1p-100f)) {
        *d = top >= 0x7f800000 ? NAN : 0;
        memset(q, 0, (size_t)n);
        return;
    }
    float max = f32_of_bits(top), inverse = 127 / max;
    *d = max / 127;
    for (int i = 0; i < n; i++)
        q[i] = (int8_t)rintf(x[i] * inverse);
}

static void add_up(const int8_t *q, int16_t *sum, int n)
{
    for (int i = 0; i < n; i += 16) {
        int s = 0;
        for (int j = 0; j < 16; j++)
            s += q[i + j];
        sum[i / 16] = (int16_t)s;
    }
}

static void pack_q32(const float *x, void *row, int n)
{
    int8_t *q = row;
    float *d = (float *)(q + n);
    for (int i = 0; i < n; i += 32)
        pack_group(x + i, q + i, d + i / 32, 32);
    add_up(q, (int16_t *)(d + n / 32), n);
}

static void pack_q256(const float *x, void *row, int n)
{
    int8_t *q = row;
    float *d = (float *)(q + n);
    for (int i = 0; i < n; i += 256)
        pack_group(x + i, q + i, d + i / 256, 256);
    add_up(q, (int16_t *)(d + n / 256), n);
}

void cpu_pack_plain(struct cpu_kernels *k)
{
    k->pack[ACT_Q32] = pack_q32;
    k->pack[ACT_Q256] = pack_q256;
}
