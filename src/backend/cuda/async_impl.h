/* async_impl.h - copies to shared memory that a thread does not wait for when it asks. They come
 * in groups, the oldest first; what other threads asked for is there after a barrier. */
#ifndef DS_ASYNC_IMPL_H
#define DS_ASYNC_IMPL_H

#include "device_impl.h"

#ifdef CUDA_EMULATED
#define COPIES_PIECES true
#define pieces_open(bar) emu_bulk_open(bar)
#define pieces_expect(bar, n) emu_bulk_expect(bar, n)
#define copy_piece(to, from, n, bar) emu_bulk_copy(to, from, n, bar)
#define pieces_wait(bar, phase) emu_bulk_wait(bar, phase)
#define copy_16(to, from) emu_copy_async(to, from, 16)
#define copy_16_or_zeros(to, from, there) emu_copy_async(to, from, 16, there)
#define copy_4(to, from) emu_copy_async(to, from, 4)
#define copy_commit() emu_copy_commit()
#define copy_wait(n) emu_copy_wait(n)
#else
__device__ __forceinline__ void copy_16(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::
                 "r"(SHARED_AT(to)), "l"(from) : "memory");
}

__device__ __forceinline__ void copy_16_or_zeros(void *to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::
                 "r"(SHARED_AT(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
}

__device__ __forceinline__ void copy_4(void *to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::
                 "r"(SHARED_AT(to)), "l"(from) : "memory");
}

/* Ends a group. */
__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until no more than the last n groups are under way; n is a constant. */
#define copy_wait(n) asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory")
#endif

/* Pieces that one lane asks for, with barriers that count their bytes: 8 bytes of shared memory
 * each, which a lane opens before the warp meets. Then, in turns: one lane expects the bytes of all
 * pieces, lanes ask for n bytes each, a multiple of 16 like both addresses, and all wait; phase: of
 * even turns 0, of odd ones 1. */
#if !defined CUDA_EMULATED && __CUDA_ARCH__ >= 900
#define COPIES_PIECES true
__device__ __forceinline__ void pieces_open(uint64_t *bar)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\tfence.proxy.async.shared::cta;" ::
                 "r"(SHARED_AT(bar)) : "memory");
}

__device__ __forceinline__ void pieces_expect(uint64_t *bar, int n)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::
                 "r"(SHARED_AT(bar)), "r"(n) : "memory");
}

__device__ __forceinline__ void copy_piece(void *to, const void *from, int n, uint64_t *bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::
                 "r"(SHARED_AT(to)), "l"(from), "r"(n), "r"(SHARED_AT(bar)) : "memory");
}

__device__ __forceinline__ void pieces_wait(uint64_t *bar, int phase)
{
    asm volatile("{\n\t.reg .pred done;\n"
                 "again:\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                 "@!done bra again;\n\t}" ::
                 "r"(SHARED_AT(bar)), "r"(phase) : "memory");
}
#elif !defined CUDA_EMULATED
#define COPIES_PIECES false
#define pieces_open(bar) ((void)(bar))
#define pieces_expect(bar, n) ((void)(bar), (void)(n))
#define copy_piece(to, from, n, bar) ((void)(to), (void)(from), (void)(n), (void)(bar))
#define pieces_wait(bar, phase) ((void)(bar), (void)(phase))
#endif

/* A warp asks for n bytes of a row; at addresses that are no multiples of 4 it waits for them.
 * Loops stay loops: a launch runs through code that it must fetch first. */
__device__ __forceinline__ void warp_copy(uint8_t *to, const uint8_t *from, int n)
{
    uintptr_t odd = (uintptr_t)from | (uintptr_t)n;
    if (__builtin_expect(odd % 16 == 0, 1)) {
#pragma unroll 1
        for (int i = LANE * 16; i < n; i += WARP * 16)
            copy_16(to + i, from + i);
    } else if (odd % 4 == 0) {
#pragma unroll 1
        for (int i = LANE * 4; i < n; i += WARP * 4)
            copy_4(to + i, from + i);
    } else {
#pragma unroll 1
        for (int i = LANE; i < n; i += WARP)
            to[i] = from[i];
    }
}

#endif
