/* device_impl.h - small things that kernels share: sums over a warp or a block, unaligned loads,
 * rotation, a conversation's cache. */
#ifndef DS_DEVICE_IMPL_H
#define DS_DEVICE_IMPL_H

#include "cuda_impl.h"

/* One row of weights. */
struct cu_src {
    const uint8_t *row, *scale;
    const struct cu_tables *tables;
};

#define LANE ((int)(threadIdx.x % WARP))
#define WARP_ID ((int)(threadIdx.x / WARP))
#define N_WARP ((int)(blockDim.x / WARP))
#define ALL_LANES 0xffffffffu

/* Asks for a line from memory, into the second cache. A pointer to shared memory as instructions
 * want it. */
#ifdef CUDA_EMULATED
#define PREFETCH(p) ((void)(p))
#define SHARED_AT(p) ((uintptr_t)(p))
typedef uintptr_t shared_place;
#else
#define PREFETCH(p) asm volatile("prefetch.global.L2 [%0];" ::"l"(p))
#define SHARED_AT(p) ((uint32_t)__cvta_generic_to_shared(p))
typedef uint32_t shared_place;
#endif

/* Until the kernel queued before this one is done. What comes before it may run beside that kernel,
 * once all blocks of that one are behind their own wait; so all kernels but that one are done, and
 * weights are steady: only those and what older kernels wrote may be read, and nothing written. */
#if defined CUDA_EMULATED
#define wait_for_last() (emu.waited = true)
#elif __CUDA_ARCH__ >= 900
__device__ __forceinline__ void wait_for_last()
{
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
}
#else /* launches overlap from compute 9.0 on */
#define wait_for_last()
#endif

/* Over groups of `width` neighbouring lanes; every lane gets the result. */
template <int width> __device__ __forceinline__ float lanes_sum(float x)
{
    for (int i = width / 2; i > 0; i /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, i);
    return x;
}

__device__ __forceinline__ float warp_sum(float x)
{
    return lanes_sum<WARP>(x);
}

__device__ __forceinline__ float warp_max(float x)
{
    for (int i = WARP / 2; i > 0; i /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, i));
    return x;
}

/* The sum of those of the lanes up to this one. */
__device__ __forceinline__ int warp_scan(int x)
{
    for (int i = 1; i < WARP; i *= 2) {
        int lower = __shfl_up_sync(ALL_LANES, x, i);
        x += LANE >= i ? lower : 0;
    }
    return x;
}

/* What the warps of a block show each other. */
struct cu_sums {
    float part[WARP];
};

/* Over a block. Every thread gets the sum. */
__device__ __forceinline__ float block_sum(float x, struct cu_sums *shared)
{
    int warp = (int)(threadIdx.x / WARP), n = (int)(blockDim.x / WARP);
    x = warp_sum(x);
    __syncthreads();
    if (LANE == 0)
        shared->part[warp] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < n; i++)
        x += shared->part[i];
    return x;
}

/* Threads for a row of n numbers that one block norms, each ROW_EACH of them at most. The order of
 * the sum, and so its bits, is that of this number of threads. */
#define ROW_EACH 8
#define ROW_THREADS 1024

static inline unsigned row_threads(int n)
{
    int quarter = (n + 127) / 128 * 32;
    return (unsigned)(quarter < 128 ? 128 : quarter > ROW_THREADS ? ROW_THREADS : quarter);
}

/* How one rotary pair is turned by `angle` or back; the turning. */
__device__ __forceinline__ float2 turn_by(float angle, bool inverse)
{
    float sine, cosine;
    sincosf(angle, &sine, &cosine);
    return { cosine, inverse ? -sine : sine };
}

__device__ __forceinline__ void turn_pair(float *x, float2 by)
{
    float a = x[0], b = x[1];
    x[0] = a * by.x - b * by.y;
    x[1] = a * by.y + b * by.x;
}

__device__ __forceinline__ void rotate_pair(float *x, float angle, bool inverse)
{
    turn_pair(x, turn_by(angle, inverse));
}

/* Little-endian words at any address: only words that hold a wanted byte are read. */
__device__ __forceinline__ uint32_t load32(const uint8_t *p)
{
    uintptr_t at = (uintptr_t)p;
    uint32_t lo = *(const uint32_t *)(at & ~(uintptr_t)3);
    uint32_t hi = *(const uint32_t *)((at + 3) & ~(uintptr_t)3);
    return __funnelshift_r(lo, hi, (unsigned)(at & 3) * 8);
}

__device__ __forceinline__ uint32_t load16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

/* ---- cached rows ---------------------------------------------------------------------------- */

__device__ __forceinline__ const struct kv_layer *kv_of(const struct cu_step *s, int seq, int l)
{
    return s->kv + (size_t)seq * s->n_layer + l;
}

#endif
