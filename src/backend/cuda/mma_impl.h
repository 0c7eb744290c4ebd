/* mma_impl.h - tensor cores on 16-bit floats, and how their operands are fetched.
 *
 * Of a product of 16 x 16 times 16 x 8 lane l holds: of the left side rows l / 4 and l / 4 + 8, of
 * the right side column l / 4, both at depths 2 (l % 4), one more, and those plus 8; of the sums
 * rows l / 4 and l / 4 + 8, columns 2 (l % 4) and one more. Two numbers share a register. */
#ifndef DS_MMA_IMPL_H
#define DS_MMA_IMPL_H

#include "floats_impl.h"

/* d += a b: float d[4], uint32_t a[4], b[2].
 * load_8x8: four 8 x 8 matrices (x2: two) from shared memory, a register each; lane l gives the
 * address of row l % 8 of matrix l / 8. Transposed: rows become columns.
 * r := a and b rounded, a in the low half. */
#ifdef CUDA_EMULATED
#define MMA_BF16(d, a, b) emu_mma<emu_bf16>(d, a, b)
#define MMA_F16(d, a, b) emu_mma<emu_f16>(d, a, b)
#define LOAD_8X8_X4(r, p) emu_load_8x8(r, p, 4, false)
#define LOAD_8X8_X2(r, p) emu_load_8x8(r, p, 2, false)
#define LOAD_8X8_X4_TRANSPOSED(r, p) emu_load_8x8(r, p, 4, true)
#define BF16_PAIR(r, a, b) ((r) = bf16_code(a) | bf16_code(b) << 16)
#define F16_PAIR(r, a, b) ((r) = emu_f16_code(a) | emu_f16_code(b) << 16)
#define BF16_TIMES(r, a, b) ((r) = emu_bf16_times(a, b))
#else
#define MMA_HALVES(type, d, a, b)                                                           \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                      \
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                   \
        : "+f"((d)[0]), "+f"((d)[1]), "+f"((d)[2]), "+f"((d)[3])                            \
        : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"((b)[0]), "r"((b)[1]))
#define MMA_BF16(d, a, b) MMA_HALVES("bf16", d, a, b)
#define MMA_F16(d, a, b) MMA_HALVES("f16", d, a, b)
#define LOAD_8X8_X4(r, p)                                                                   \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"         \
                 : "=r"((r)[0]), "=r"((r)[1]), "=r"((r)[2]), "=r"((r)[3])                   \
                 : "r"(SHARED_AT(p)))
#define LOAD_8X8_X2(r, p)                                                                   \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"                 \
                 : "=r"((r)[0]), "=r"((r)[1]) : "r"(SHARED_AT(p)))
#define LOAD_8X8_X4_TRANSPOSED(r, p)                                                        \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"   \
                 : "=r"((r)[0]), "=r"((r)[1]), "=r"((r)[2]), "=r"((r)[3])                   \
                 : "r"(SHARED_AT(p)))
#define BF16_PAIR(r, a, b) asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(r) : "f"(a), "f"(b))
#define F16_PAIR(r, a, b) asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(r) : "f"(a), "f"(b))
#define BF16_TIMES(r, a, b)                                                                 \
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(0x80008000))
#endif

/* tidy: wide - the operands above are taken for parameters */
/* Two numbers as sums of two in bfloat16: 16 bits of each are kept. Of what is no number the second
 * is zero. */
__device__ __forceinline__ void bf16_split(float a, float b, uint32_t *high, uint32_t *low)
{
    uint32_t h;
    BF16_PAIR(h, a, b);
    float a_high = __uint_as_float(h << 16), b_high = __uint_as_float(h & 0xffff0000);
    float a_low = a_high - a_high == 0 ? a - a_high : 0;
    float b_low = b_high - b_high == 0 ? b - b_high : 0;
    *high = h;
    BF16_PAIR(*low, a_low, b_low);
}

#endif
