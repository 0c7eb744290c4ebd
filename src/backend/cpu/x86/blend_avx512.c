/* blend_avx512.c - sums of rows by weights: attention's scores and values, the index's scores.
 *
 * Eight outputs by 32 columns at a time, so that a row is loaded once for eight sums and sixteen
 * independent sums hide the latency. Every element adds its rows in ascending order with fused
 * multiply-adds: the same bits as with narrower vectors. */
#include "cpu_impl.h"

#include <immintrin.h>

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Columns e .. e+31 as far as the masks say, of outputs i .. i+n_o-1. */
static inline __attribute__((always_inline)) void block(const struct blend *b, int i, int e,
                                                        int n_o, __mmask16 lo, __mmask16 hi)
{
    float *out = b->out + (size_t)i * b->out_pitch + e;
    const float *p = b->p + (size_t)i * b->p_pitch, *row = b->row + e;
    __m512 acc[8][2];
    UNROLL
    for (int o = 0; o < n_o; o++) {
        acc[o][0] = _mm512_maskz_loadu_ps(lo, out + (size_t)o * b->out_pitch);
        acc[o][1] = _mm512_maskz_loadu_ps(hi, out + (size_t)o * b->out_pitch + 16);
    }
    for (int j = 0; j < b->n_row; j++, row += b->row_pitch) {
        __m512 x0 = _mm512_maskz_loadu_ps(lo, row), x1 = _mm512_maskz_loadu_ps(hi, row + 16);
        UNROLL
        for (int o = 0; o < n_o; o++) {
            __m512 s = _mm512_set1_ps(p[(size_t)o * b->p_pitch + j]);
            acc[o][0] = _mm512_fmadd_ps(s, x0, acc[o][0]);
            acc[o][1] = _mm512_fmadd_ps(s, x1, acc[o][1]);
        }
    }
    UNROLL
    for (int o = 0; o < n_o; o++) {
        _mm512_mask_storeu_ps(out + (size_t)o * b->out_pitch, lo, acc[o][0]);
        _mm512_mask_storeu_ps(out + (size_t)o * b->out_pitch + 16, hi, acc[o][1]);
    }
}

static void columns(const struct blend *b, int e, __mmask16 lo, __mmask16 hi)
{
    int i = 0;
    for (; i + 8 <= b->n_out; i += 8)
        block(b, i, e, 8, lo, hi);
    for (; i + 4 <= b->n_out; i += 4)
        block(b, i, e, 4, lo, hi);
    for (; i < b->n_out; i++)
        block(b, i, e, 1, lo, hi);
}

static void blend(const struct blend *b)
{
    int e = 0;
    for (; e + 32 <= b->dim; e += 32)
        columns(b, e, 0xffff, 0xffff);
    if (e < b->dim) {
        uint32_t rest = (UINT32_C(1) << (b->dim - e)) - 1;
        columns(b, e, (__mmask16)rest, (__mmask16)(rest >> 16));
    }
}

void cpu_blend_avx512(struct cpu_kernels *k)
{
    k->blend = blend;
}
