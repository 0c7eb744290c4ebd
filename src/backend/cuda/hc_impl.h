/* hc_impl.h - a sublayer's hyper-connection as kernels see it. */
#ifndef DS_HC_IMPL_H
#define DS_HC_IMPL_H

#include "floats_impl.h"

#define MAX_STREAM 8

struct cu_hc {
    const uint8_t *fn;
    size_t fn_pitch;
    enum dtype type;
    const float *base, *scale;
    int n_stream, n_iter, n_embd, m;
    float eps, norm_eps;
};

/* Elements e and e + 1 of row i of fn, 0 from n on. */
__device__ __forceinline__ float2 two_of_fn(const struct cu_hc *hc, int i, size_t at, int n)
{
    const uint8_t *row = hc->fn + i * hc->fn_pitch;
    if (hc->type == DT_F32)
        return { n > 0 ? __uint_as_float(load32(row + at * 4)) : 0,
                 n > 1 ? __uint_as_float(load32(row + at * 4 + 4)) : 0 };
    uint32_t two = n > 1 ? load32(row + at * 2) : n > 0 ? load16(row + at * 2) : 0;
    if (hc->type == DT_F16)
        return { f16_value(two & 0xffff), f16_value(two >> 16) };
    return { __uint_as_float(two << 16), __uint_as_float(two & 0xffff0000) };
}

/* How fn lies: in float32 or float16 at addresses of two elements, or otherwise. */
enum layout { PAIRS_F32, PAIRS_F16, ANY };

static inline enum layout layout_of(const struct cu_hc *hc)
{
    uintptr_t odd = ((uintptr_t)hc->fn | hc->fn_pitch) % sizeof(float2);
    bool pairs = hc->n_embd % 2 == 0 && hc->type != DT_BF16 && odd % dtype_bytes(hc->type, 2) == 0;
    return !pairs ? ANY : hc->type == DT_F32 ? PAIRS_F32 : PAIRS_F16;
}

/* hc_many.cu: part [rows][m + 1][pieces] of many rows; how many pieces. */
int cuda_hc_pieces(const struct cu_hc *hc);
void cuda_hc_project_many(struct dev *d, float *part, const struct tensor *streams,
                          const struct cu_hc *hc);

#endif
