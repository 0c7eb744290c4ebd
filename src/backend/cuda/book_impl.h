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

__host__ __device__ __forceinline__ constexpr int book_bytes(int type)
{
    return type == DT_IQ2_XXS ? BOOK_SIGNS + 128 * BOOK_ENTRY : 0;
}

/* The copy of an entry that is `at` bytes from the book's beginning. */
__device__ __forceinline__ uint32_t book_entry(const uint8_t *book, uint32_t at)
{
    return *(const uint32_t *)(book + at);
}

/* Magnitudes are 8, 25 and 43. */
__device__ __forceinline__ int book_four(uint32_t entry)
{
    return (int)__byte_perm(0x002b1908, 0x00d5e7f8, entry);
}

/* A thread stores the copies of its entry, in an order that meets different banks. */
__device__ __forceinline__ void book_copies(uint8_t *to, uint32_t entry)
{
#pragma unroll
    for (int i = 0; i < BOOK_ENTRY / 16; i++)
        ((uint4 *)to)[(i + LANE) % (BOOK_ENTRY / 16)] = { entry, entry, entry, entry };
}

__device__ __forceinline__ void book_fill(const struct cu_tables *tables, uint8_t *book)
{
    static_assert(FEW_THREADS == 256, "a thread for each entry");
    int t = (int)threadIdx.x;
    uint64_t grid = tables->iq2_xxs[t];
    uint32_t low = low_nibbles((uint32_t)grid >> 4), high = low_nibbles((uint32_t)(grid >> 36));
    book_copies(book + t * BOOK_ENTRY, low | high << 16);
    uint32_t eight = eight_signs((uint32_t)t), entry = 0;
    for (int i = 0; i < 8; i++)
        entry |= (eight >> i & 1) << (4 * i + 2);
    if (t < 128)
        book_copies(book + BOOK_SIGNS + t * BOOK_ENTRY, entry);
}

#endif
