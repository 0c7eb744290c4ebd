/* async_impl.h - copies to shared memory that a thread does not wait for when it asks. They come
 * in groups, the oldest first; what other threads asked for is there after a barrier. */
#ifndef DS_ASYNC_IMPL_H
#define DS_ASYNC_IMPL_H

#include "device_impl.h"

#ifdef CUDA_EMULATED
#define copy_16(to, from) emu_copy_async(to, from, 16)
#define copy_4(to, from) emu_copy_async(to, from, 4)
#define prefetch(p) ((void)(p))
#define copy_commit() emu_copy_commit()
#define copy_wait(n) emu_copy_wait(n)
#else
__device__ __forceinline__ void copy_16(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::
                 "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}

__device__ __forceinline__ void copy_4(void *to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::
                 "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}

/* Into the second cache. */
__device__ __forceinline__ void prefetch(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* Ends a group. */
__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until no more than the last n groups are under way; n is a constant. */
#define copy_wait(n) asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory")
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
