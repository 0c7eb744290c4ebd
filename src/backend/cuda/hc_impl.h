/* hc_impl.h - a sublayer's hyper-connection as kernels see it. */
#ifndef DS_HC_IMPL_H
#define DS_HC_IMPL_H

#include "floats_impl.h"
#include "used_impl.h"

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

/* Four elements, of which n are there; aligned: at multiples of 16 bytes, all or none. */
__device__ __forceinline__ float4 load_four(const float *x, int n, bool aligned)
{
    if (aligned && n > 0)
        return *(const float4 *)x;
    return { n > 0 ? x[0] : 0, n > 1 ? x[1] : 0, n > 2 ? x[2] : 0, n > 3 ? x[3] : 0 };
}

__device__ __forceinline__ void store_four(float *to, float4 x, int n, bool aligned)
{
    const float each[4] = { x.x, x.y, x.z, x.w };
    if (aligned && n > 0)
        *(float4 *)to = x;
    else
        for (int i = 0; i < 4 && i < n; i++)
            to[i] = each[i];
}

__device__ __forceinline__ float add_four(float4 a, float4 b, float sum)
{
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

/* How fn lies: in float32 or float16 at addresses of two elements, or otherwise. */
enum layout { PAIRS_F32, PAIRS_F16, ANY };

static inline enum layout layout_of(const struct cu_hc *hc)
{
    uintptr_t odd = ((uintptr_t)hc->fn | hc->fn_pitch) % sizeof(float2);
    bool pairs = hc->n_embd % 2 == 0 && hc->type != DT_BF16 && odd % dtype_bytes(hc->type, 2) == 0;
    return !pairs ? ANY : hc->type == DT_F32 ? PAIRS_F32 : PAIRS_F16;
}

/* What follows the mixing; no weight: nothing. */
struct hc_norm {
    const float *weight;
    float eps;
};

/* What is made of the streams; gates.x NULL: no gates. */
struct hc_made {
    struct cu_mat x, gates;
    struct hc_norm norm;
};

/* What a sublayer gave to the streams, and their gates. y.x NULL: nothing. */
struct hc_given {
    struct cu_mat y, gates;
    struct cu_mat part; /* of n_used experts, which are summed before y is added; 0: none */
    const int32_t *id;
    size_t id_pitch;
    int n_used;
};

/* An element of every stream, after the sublayer gave y. */
template <int most>
__device__ __forceinline__ void spread(float *v, float y, const float *gates, int n)
{
    const float *post = gates + n, *c = post + n;
    float old[most];
#pragma unroll
    for (int j = 0; j < most; j++)
        old[j] = v[j];
#pragma unroll
    for (int k = 0; k < most; k++) {
        float sum = k < n ? post[k] * y : 0;
#pragma unroll
        for (int j = 0; j < most; j++)
            sum = j < n && k < n ? fmaf(c[j * n + k], old[j], sum) : sum;
        v[k] = sum;
    }
}

/* hc_few.cu: up to FEW_MAX rows: the streams take what was given, then the rest is made. */
void cuda_hc_few(struct dev *d, const struct hc_made *to, const struct tensor *streams,
                 const struct hc_given *given, const struct cu_hc *hc);

/* hc_many.cu: part [rows][m + 1][pieces] of many rows; how many pieces. */
int cuda_hc_pieces(const struct cu_hc *hc);
void cuda_hc_project_many(struct dev *d, float *part, const struct tensor *streams,
                          const struct cu_hc *hc);

#endif
