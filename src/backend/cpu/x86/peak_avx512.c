/* peak_avx512.c - the same with vectors of 512 bits, and products of bytes in one instruction. */
#include "cpu_impl.h"

#include <immintrin.h>

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { CHAINS = 12 };

static void floats(int n)
{
    __m512 acc[CHAINS], x = _mm512_set1_ps(.5f), y = _mm512_set1_ps(1e-3f);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_ps((float)i);
    for (int k = 0; k < n; k++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_fmadd_ps(acc[i], x, y);
        __asm__ volatile("" : "+v"(x), "+v"(y));
    }
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        __asm__ volatile("" : : "v"(acc[i]));
}

static void bytes(int n)
{
    __m512i acc[CHAINS], x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (int k = 0; k < n; k++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], x, y);
        __asm__ volatile("" : "+v"(x), "+v"(y));
    }
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        __asm__ volatile("" : : "v"(acc[i]));
}

void cpu_peak_avx512(struct cpu_kernels *k)
{
    k->peak_float = (struct peak_kernel){ floats, 2.0 * 16 * CHAINS };
    k->peak_int = (struct peak_kernel){ bytes, 2.0 * 64 * CHAINS };
}
