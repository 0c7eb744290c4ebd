/* peak_avx2.c - as many multiplications and additions as AVX2 can do, for measuring kernels by.
 *
 * Ten independent chains hide the latency; nothing is loaded or stored. */
#include "avx2_impl.h"

enum { CHAINS = 10 };

static void floats(int n)
{
    __m256 acc[CHAINS], x = _mm256_set1_ps(.5f), y = _mm256_set1_ps(1e-3f);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_ps((float)i);
    for (int k = 0; k < n; k++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm256_fmadd_ps(acc[i], x, y);
        __asm__ volatile("" : "+x"(x), "+x"(y));
    }
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        __asm__ volatile("" : : "x"(acc[i]));
}

/* Unsigned by signed bytes: pairs to 16 bits, pairs of these to 32, added. */
static void bytes(int n)
{
    __m256i acc[CHAINS], x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(5);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_epi32(i);
    for (int k = 0; k < n; k++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++) {
            __asm__ volatile("" : "+x"(y)); /* a product of its own for each sum */
            __m256i pairs = _mm256_maddubs_epi16(x, y);
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(pairs, x));
        }
    }
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        __asm__ volatile("" : : "x"(acc[i]));
}

void cpu_peak_avx2(struct cpu_kernels *k)
{
    k->peak_float = (struct peak_kernel){ floats, 2.0 * 8 * CHAINS };
    k->peak_int = (struct peak_kernel){ bytes, 2.0 * 32 * CHAINS };
}
