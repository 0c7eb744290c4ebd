/* book_impl.h - the codebook of IQ2_XXS in shared memory, a copy for every lane. */
#ifndef DS_BOOK_IMPL_H
#define DS_BOOK_IMPL_H

#include "list_impl.h"
#include "unit_impl.h"

/* The codebook of IQ2_XXS in shared memory: 256 entries for eight magnitudes, then 128 for seven
 * signs and the eighth they imply. An entry has a nibble for each of eight weights, whose bits 0-1
 * choose the magnitude and bit 2 the sign; every lane has a copy in a bank of its own. */
#define BOOK_ENTRY (WARP * 4)
#define BOOK_SIGNS (256 * BOOK_ENTRY)
#define BOOK_ALIGN (128 * BOOK_ENTRY) /* of signs, where no addition is to spare */

__host__ __device__ __forceinline__ constexpr int book_bytes(int type)
{
    return type == DT_IQ2_XXS ? BOOK_SIGNS + 128 * BOOK_ENTRY : 0;
}

/* The copy of an entry that is `at` bytes from the book's beginning. */
__device__ __forceinline__ uint32_t book_entry(const uint8_t *book, uint32_t at)
{
    return *(const uint32_t *)(book + at);
}

__device__ __forceinline__ int book_four(uint32_t entry)
{
    return (int)__byte_perm(IQ2_XXS_SIZES, IQ2_XXS_NEGATED, entry);
}

/* A thread stores the copies of its entry, in an order that meets different banks. */
__device__ __forceinline__ void book_copies(uint8_t *to, uint32_t entry)
{
#pragma unroll
    for (int i = 0; i < BOOK_ENTRY / 16; i++)
        ((uint4 *)to)[(i + LANE) % (BOOK_ENTRY / 16)] = { entry, entry, entry, entry };
}

/* What a thread asks for before it has room for it. */
__device__ __forceinline__ uint64_t book_ask(const struct cu_tables *tables)
{
    return tables->iq2_xxs[threadIdx.x % 256];
}

/* By all threads of a block, with what they asked for. */
__device__ __forceinline__ void book_fill(const struct cu_tables *tables, uint64_t asked,
                                          uint8_t *sizes, uint8_t *signs)
{
#pragma unroll 1
    for (int t = (int)threadIdx.x; t < 256 + 128; t += (int)blockDim.x) {
        if (t < 256) {
            uint64_t grid = t == (int)threadIdx.x ? asked : tables->iq2_xxs[t];
            uint32_t low = low_nibbles((uint32_t)grid >> 4);
            book_copies(sizes + t * BOOK_ENTRY,
                        low | low_nibbles((uint32_t)(grid >> 36)) << 16);
            continue;
        }
        uint32_t eight = eight_signs((uint32_t)t - 256), entry = 0;
        for (int i = 0; i < 8; i++)
            entry |= (eight >> i & 1) << (4 * i + 2);
        book_copies(signs + (t - 256) * BOOK_ENTRY, entry);
    }
}

#endif
