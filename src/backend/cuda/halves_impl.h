/* halves_impl.h - tiles of 16-bit floats in shared memory, 64 deep, and their products. Depth may
 * be taken in any order that both sides share: of a row lane l takes the 16 elements from
 * 16 (l % 4) on, in two reads; of these each of four steps multiplies four. */
#ifndef DS_HALVES_IMPL_H
#define DS_HALVES_IMPL_H

#include "async_impl.h"
#include "mma_impl.h"

#define HALVES 64
#define HALF_STEPS (HALVES / 16)
#define EIGHTS (HALVES / 8) /* what one copy brings */

/* Of neighbouring rows eights lie in different places: eight lanes read two rows at once. */
struct half_row {
    uint4 eight[EIGHTS];
};

__device__ __forceinline__ uint4 *half_place(struct half_row *tile, int row, int eight)
{
    return &tile[row].eight[eight ^ (row & 1)];
}

/* A lane's part of a row, two elements in each word. */
struct halves {
    uint32_t two[EIGHTS];
};

/* Row l / 4 from `row` on, a multiple of 8. */
__device__ __forceinline__ void half_load(struct halves *x, const struct half_row *tile, int row)
{
    int own = LANE / 4, first = LANE % 4 * 2;
    const struct half_row *from = tile + row + own;
    uint4 a = from->eight[first ^ (own & 1)], b = from->eight[(first + 1) ^ (own & 1)];
    x->two[0] = a.x, x->two[1] = a.y, x->two[2] = a.z, x->two[3] = a.w;
    x->two[4] = b.x, x->two[5] = b.y, x->two[6] = b.z, x->two[7] = b.w;
}

/* sum += step s of 16 rows (a: row l / 4, then row l / 4 + 8) times 8 columns (x: column l / 4),
 * in float16 or bfloat16; sum: rows l / 4 and l / 4 + 8, columns 2 (l % 4) and one more. */
template <bool f16>
__device__ __forceinline__ void half_multiply(float *sum, const struct halves *a,
                                              const struct halves *x, int s)
{
    uint32_t left[4] = { a[0].two[2 * s], a[1].two[2 * s], a[0].two[2 * s + 1],
                         a[1].two[2 * s + 1] };
    if (f16)
        MMA_F16(sum, left, x->two + 2 * s);
    else
        MMA_BF16(sum, left, x->two + 2 * s);
}

/* sum[m][h] += 16 n_a rows times 16 columns, halves h of eight each; sums take turns, so that none
 * waits for itself. */
template <bool f16, int n_a>
__device__ __forceinline__ void half_multiply_16(float (*sum)[2][4], const struct halves *a,
                                                 const struct halves *x)
{
#pragma unroll
    for (int i = 0; i < HALF_STEPS * n_a * 2; i++)
        half_multiply<f16>(sum[i / 2 % n_a][i % 2], a + i / 2 % n_a * 2, x + i % 2, i / 2 / n_a);
}

#endif
