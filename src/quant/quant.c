/* quant.c - one door to all types: decode a run of elements, encode the few types we write.
 *
 * Bytes are read as they lie in the files, so the machine must be little-endian. */
#include "quant.h"

#include "fp4.h"
#include "quant_impl.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian");

static void decode_u16(const uint8_t *src, float *dst, int n, bool brain)
{
    for (int i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * (size_t)i, 2);
        dst[i] = brain ? bf16_to_f32(h) : f16_to_f32(h);
    }
}

void quant_decode(enum dtype type, const void *src, const uint8_t *scale, float *dst, int n)
{
    const struct dtype_info *info = dtype_info((int)type);
    CHECK(info && n >= 0 && n % info->block == 0);
    switch (type) {
    case DT_F32: memmove(dst, src, sizeof *dst * (size_t)n); return;
    case DT_F16: decode_u16(src, dst, n, false); return;
    case DT_BF16: decode_u16(src, dst, n, true); return;
    case DT_Q4_0: q4_0_decode(src, dst, n); return;
    case DT_Q8_0: q8_0_decode(src, dst, n); return;
    case DT_Q2_K: q2_k_decode(src, dst, n); return;
    case DT_Q3_K: q3_k_decode(src, dst, n); return;
    case DT_Q4_K: q4_k_decode(src, dst, n); return;
    case DT_Q5_K: q5_k_decode(src, dst, n); return;
    case DT_Q6_K: q6_k_decode(src, dst, n); return;
    case DT_IQ2_XXS: iq2_xxs_decode(src, dst, n); return;
    case DT_IQ2_XS: iq2_xs_decode(src, dst, n); return;
    case DT_MXFP4: mxfp4_decode(src, dst, n); return;
    case DT_F8_E4M3: CHECK(scale); f8_e4m3_decode(src, scale, dst, n); return;
    case DT_FP4: CHECK(scale); fp4_decode(src, scale, dst, n); return;
    case DT_F8_E8M0:
        for (int i = 0; i < n; i++)
            dst[i] = e8m0_to_f32(((const uint8_t *)src)[i]);
        return;
    case DT_I8:
    case DT_I32:
    case DT_I64: break;
    }
    CHECK(!"a type of numbers");
}

static void encode_u16(const float *src, uint8_t *dst, int n, bool brain)
{
    for (int i = 0; i < n; i++) {
        uint16_t h = brain ? f32_to_bf16(src[i]) : f32_to_f16(src[i]);
        memcpy(dst + 2 * (size_t)i, &h, 2);
    }
}

bool quant_encode(enum dtype type, const float *src, void *dst, int n)
{
    switch (type) {
    case DT_F32: memmove(dst, src, sizeof *src * (size_t)n); return true;
    case DT_F16: encode_u16(src, dst, n, false); return true;
    case DT_BF16: encode_u16(src, dst, n, true); return true;
    case DT_Q8_0:
        CHECK(n % 32 == 0);
        q8_0_encode(src, dst, n);
        return true;
    default: return false;
    }
}
