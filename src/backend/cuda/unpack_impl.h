/* unpack_impl.h - packed rows of the cache to bfloat16, which holds them exactly, some numbers for
 * a thread at a time. */
#ifndef DS_UNPACK_IMPL_H
#define DS_UNPACK_IMPL_H

#include "mma_impl.h"
#include "pack_impl.h"

#define EACH 8 /* numbers of a row that a thread unpacks together */

/* EACH numbers of a row, as they lie there: in FP8 with their scale, or in bfloat16. */
struct packed {
    uint2 a, b;
    uint32_t scale;
};

#define IS_BF16 256 /* no scale */

/* Past the first cache: a line of it may be older than a row that has just been written there. */
__device__ __forceinline__ struct packed fetch(const struct kv_shape *s, const uint8_t *row, int e)
{
    int nope = s->head_dim - s->rope_dim;
    struct packed x = { { 0, 0 }, { 0, 0 }, IS_BF16 };
    if (!row || e >= s->head_dim)
        return x;
    if (e < nope) {
        x.a = __ldcg((const uint2 *)(row + e));
        x.scale = __ldcg(row + nope + 2 * s->rope_dim + e / FP8_GROUP);
        return x;
    }
    x.a = __ldcg((const uint2 *)(row + nope + 2 * (e - nope)));
    x.b = __ldcg((const uint2 *)(row + nope + 2 * (e - nope) + 8));
    return x;
}

/* Whether one of four E4M3 is no number. */
__device__ __forceinline__ bool has_nan(uint32_t four)
{
    return ((four & 0x7f7f7f7f) + 0x01010101) & 0x80808080;
}

/* Codes i and i + 1 of four, whatever they are. */
__device__ __forceinline__ uint32_t widen_any(uint32_t four, int i, float scale)
{
    return __byte_perm(__float_as_uint(e4m3_value(four >> 8 * i & 255) * scale),
                       __float_as_uint(e4m3_value(four >> (8 * i + 8) & 255) * scale), 0x7632);
}

/* Bytes 0 and 1, or 2 and 3, of four codes: their exponents and mantissas, moved to where bfloat16
 * has its own, are 2^-120 of the value; scale: 2^120 times the true one, twice. */
__device__ __forceinline__ uint32_t widen_two(uint32_t four, uint32_t which, uint32_t scale)
{
    uint32_t two = __byte_perm(four, 0, which), x;
    BF16_TIMES(x, (two & 0x80008000) | (two & 0x7f007f00) >> 4, scale);
    return x;
}

__device__ __forceinline__ uint4 widen_packed(const struct packed *x)
{
    if (x->scale == IS_BF16)
        return { x->a.x, x->a.y, x->b.x, x->b.y };
    if (x->scale > 127 + 7 || has_nan(x->a.x) || has_nan(x->a.y)) {
        float s = e8m0_value(x->scale);
        return { widen_any(x->a.x, 0, s), widen_any(x->a.x, 2, s), widen_any(x->a.y, 0, s),
                 widen_any(x->a.y, 2, s) };
    }
    uint32_t s = (x->scale + 120) * 0x00800080;
    return { widen_two(x->a.x, 0x1404, s), widen_two(x->a.x, 0x3424, s),
             widen_two(x->a.y, 0x1404, s), widen_two(x->a.y, 0x3424, s) };
}

#endif
