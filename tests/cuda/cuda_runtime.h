/* cuda_runtime.h - as much of CUDA as our kernels use, on the processor: for tests alone.
 *
 * The .cu files are compiled as C++ with this header in the place of CUDA's. The threads of a block
 * are fibers; one runs until it waits at a barrier. They take turns forwards, backwards, or lane by
 * lane across warps (emu_order): whoever reads what another thread has not yet written, because a
 * barrier is missing, sees the poison that shared memory is filled with before every block, or gets
 * different bits in different orders. Misaligned access is found by -fsanitize=alignment. Blocks
 * run one after another, so races between blocks are not found here. Memory of the device can be
 * touched by kernels and copies alone: the host's hand on it is a fault, as on a GPU. A stream that
 * is captured keeps its launches and copies, with their arguments as they are then, for a graph. */
#ifndef CUDA_EMULATED_H
#define CUDA_EMULATED_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#define CUDA_EMULATED
#define __global__ static
#define __device__ static
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __grid_constant__
#define __align__(n) alignas(n)

struct emu_dim { unsigned x, y, z; };
struct dim3 : emu_dim {
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : emu_dim{ a, b, c } {}
};
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };

/* ---- fibers ------------------------------------------------------------------------------- */

#define EMU_THREADS 1024
#define EMU_STACK (64 << 10)
#define EMU_COPIES 256          /* that a thread may have under way */
#define EMU_PIECES 256          /* that a block may have under way */
#define EMU_SHARED (48 << 10)   /* what a block may declare */
#define EMU_DYNAMIC (227 << 10) /* what a launch may ask for */

enum emu_state { EMU_READY, EMU_WARP, EMU_BLOCK, EMU_DONE };

typedef void *emu_place[5]; /* where to go on: the compiler's own light setjmp */

/* cp.async: a copy, the group it belongs to. */
struct emu_copy {
    void *to;
    const void *from;
    int n, group;
};

/* cp.async.bulk: a copy, the barrier that counts its bytes. */
struct emu_piece {
    void *to;
    const void *from;
    int n;
    uint64_t *bar;
};

struct emu_fiber {
    emu_place at;
    ucontext_t start;
    enum emu_state state;
    emu_dim index;
    int id;
    size_t shared_used;
    unsigned n_exchange, n_or;
    int n_copy, n_group; /* under way; groups of them begun */
    emu_copy copy[EMU_COPIES];
    char *stack;
};

struct emu_warp {
    int n_waiting;
    uint64_t slot[2][32][8]; /* what lanes show each other; two, so that one barrier is enough */
};

struct emu_machine {
    emu_fiber *now;
    emu_dim block, block_dim, grid_dim;
    int order, n_thread, n_done, n_waiting;
    int any[3]; /* of the block's threads said yes */
    bool early, waited; /* it began before its precursor was done; the block waited for that */
    void (*call)(const void *);
    const void *kernel;
    emu_place scheduler;
    emu_fiber fiber[EMU_THREADS];
    emu_warp warp[EMU_THREADS / 32];
    emu_piece piece[EMU_PIECES]; /* of the block, under way */
    int n_piece;
    size_t dynamic_bytes, shared_bytes, used_bytes; /* shared: to be poisoned */
    alignas(256) uint8_t shared[EMU_SHARED], dynamic[EMU_DYNAMIC];
    size_t memory_bytes; /* what the GPU says it has */
    bool no_driver, integrated;
};
extern emu_machine emu;

#define threadIdx (emu.now->index)
#define blockIdx (emu.block)
#define blockDim (emu.block_dim)
#define gridDim (emu.grid_dim)
#define warpSize 32

[[noreturn]] static inline void emu_fail(const char *what)
{
    fprintf(stderr, "emulated GPU: %s (block %u %u %u, thread %d)\n", what, emu.block.x,
            emu.block.y, emu.block.z, emu.now ? emu.now->id : -1);
    abort();
}

void emu_yield();

static inline void __syncthreads()
{
    emu_fiber *f = emu.now;
    f->state = EMU_BLOCK;
    if (++emu.n_waiting + emu.n_done < emu.n_thread) {
        emu_yield();
        return;
    }
    emu.n_waiting = 0;
    for (int i = 0; i < emu.n_thread; i++)
        if (emu.fiber[i].state == EMU_BLOCK)
            emu.fiber[i].state = EMU_READY;
}

/* Three, so that the one to be used next but one is cleared when nobody looks at it. */
static inline int __syncthreads_count(int x)
{
    int turn = emu.now->n_or++ % 3;
    emu.any[turn] += x != 0;
    __syncthreads();
    emu.any[(turn + 2) % 3] = 0;
    return emu.any[turn];
}

static inline int __syncthreads_or(int x)
{
    return __syncthreads_count(x) > 0;
}

static inline void __syncwarp(unsigned mask = 0xffffffff)
{
    emu_fiber *f = emu.now;
    emu_warp *w = &emu.warp[f->id / 32];
    if (mask != 0xffffffff)
        emu_fail("only whole warps are emulated");
    f->state = EMU_WARP;
    if (++w->n_waiting < 32) {
        emu_yield();
        return;
    }
    w->n_waiting = 0;
    for (int i = f->id / 32 * 32; i < f->id / 32 * 32 + 32; i++)
        emu.fiber[i].state = EMU_READY;
}

/* Shared memory declared by a kernel: every thread declares the same, in the same order. */
static inline void *emu_shared(size_t n)
{
    size_t at = emu.now->shared_used;
    emu.now->shared_used = (at + n + 15) / 16 * 16;
    if (emu.now->shared_used > EMU_SHARED)
        emu_fail("too much shared memory");
    if (emu.now->shared_used > emu.used_bytes)
        emu.used_bytes = emu.now->shared_used;
    return emu.shared + at;
}
#define SHARED(type, name) type &name = *(type *)emu_shared(sizeof(type))
#define SHARED_DYNAMIC(type, name) type *name = (type *)emu.dynamic

template <class F> static void emu_call(const void *kernel)
{
    (*(const F *)kernel)();
}

void emu_run(const char *name, dim3 grid, dim3 block, size_t dynamic);

/* Work of a stream: done at once, or kept for a graph. */
struct emu_work {
    emu_work *next = NULL;
    virtual void run() = 0;
    virtual ~emu_work() {}
};
void emu_do(emu_work *w);

template <class F> static void emu_stream(const F &f)
{
    struct work : emu_work {
        F f;
        work(const F &x) : f(x) {}
        void run() { f(); }
    };
    emu_do(new work(f));
}

/* Arguments are copied when a kernel is launched. */
template <class... P, class... A>
static void emu_launch(const char *name, bool early, dim3 grid, dim3 block, size_t dynamic,
                       void (*k)(P...), const A &...a)
{
    auto kernel = [=] { k(P(a)...); };
    emu_stream([=] {
        emu.call = emu_call<decltype(kernel)>;
        emu.kernel = &kernel;
        emu.early = early;
        emu_run(name, grid, block, dynamic);
    });
}
#define LAUNCH(cu, kernel, grid, block, dynamic, ...) \
    (emu_launch(#kernel, false, grid, block, dynamic, kernel, __VA_ARGS__), \
     cuda_launched(cu, #kernel))
#define LAUNCH_EARLY(cu, kernel, grid, block, dynamic, ...) \
    (emu_launch(#kernel, true, grid, block, dynamic, kernel, __VA_ARGS__), \
     cuda_launched(cu, #kernel))

/* ---- what lanes show each other -------------------------------------------------------------- */

/* All lanes' values; valid until the next but one exchange. */
template <class T> static T (*emu_exchange(const T *mine, int n))[8]
{
    static_assert(sizeof(T) <= 8, "");
    emu_fiber *f = emu.now;
    emu_warp *w = &emu.warp[f->id / 32];
    uint64_t(*slot)[8] = w->slot[f->n_exchange++ & 1];
    T(*typed)[8] = (T(*)[8])(void *)slot;
    for (int i = 0; i < n; i++)
        typed[f->id % 32][i] = mine[i];
    __syncwarp();
    return typed;
}

template <class T> static inline T __shfl_sync(unsigned, T x, int lane)
{
    return emu_exchange(&x, 1)[lane & 31][0];
}

template <class T> static inline T __shfl_xor_sync(unsigned, T x, int mask)
{
    int lane = emu.now->id % 32;
    return emu_exchange(&x, 1)[(lane ^ mask) & 31][0];
}

template <class T> static inline T __shfl_up_sync(unsigned, T x, int by)
{
    int lane = emu.now->id % 32;
    return emu_exchange(&x, 1)[lane >= by ? lane - by : lane][0];
}

static inline unsigned __reduce_max_sync(unsigned, unsigned x)
{
    unsigned(*all)[8] = emu_exchange(&x, 1);
    for (int i = 0; i < 32; i++)
        x = all[i][0] > x ? all[i][0] : x;
    return x;
}

static inline unsigned __reduce_add_sync(unsigned, unsigned x)
{
    unsigned(*all)[8] = emu_exchange(&x, 1), sum = 0;
    for (int i = 0; i < 32; i++)
        sum += all[i][0];
    return sum;
}

static inline unsigned __reduce_min_sync(unsigned, unsigned x)
{
    return ~__reduce_max_sync(0xffffffff, ~x);
}

static inline unsigned __ballot_sync(unsigned, int x)
{
    int (*all)[8] = emu_exchange(&x, 1);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= (unsigned)(all[i][0] != 0) << i;
    return bits;
}

static inline unsigned __match_any_sync(unsigned, int x)
{
    int (*all)[8] = emu_exchange(&x, 1);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= (unsigned)(all[i][0] == x) << i;
    return bits;
}

/* ---- instructions --------------------------------------------------------------------------- */

static inline int __dp4a(int a, int b, int c)
{
    c += (int8_t)a * (int8_t)b + (int8_t)(a >> 8) * (int8_t)(b >> 8);
    return c + (int8_t)(a >> 16) * (int8_t)(b >> 16) + (a >> 24) * (b >> 24);
}

static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 32; i += 8)
        c += (a >> i & 255) * (b >> i & 255);
    return c;
}

/* Two halves of a with the lower two bytes of b, or the upper ones. */
static inline int __dp2a_lo(int a, int b, int c)
{
    return c + (int16_t)a * (int8_t)b + (a >> 16) * (int8_t)(b >> 8);
}

static inline int __dp2a_hi(int a, int b, int c) { return __dp2a_lo(a, b >> 16, c); }

/* dp4a.u32.s32 */
static inline int emu_dp4a_plus(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8)
        c += (uint8_t)(a >> i) * (int8_t)(b >> i);
    return c;
}

static inline float emu_bf16(uint32_t code)
{
    float x;
    code <<= 16;
    memcpy(&x, &code, 4);
    return x;
}

static inline float emu_f16(uint32_t code)
{
    int exp = code >> 10 & 31, man = code & 0x3ff;
    float x = exp == 31 ? (man ? NAN : INFINITY)
                        : ldexpf((float)(exp ? man | 0x400 : man), (exp ? exp : 1) - 25);
    return code & 0x8000 ? -x : x;
}

/* The nearest, of two the even one. */
static inline uint32_t emu_f16_code(float x)
{
    uint32_t sign = signbit(x) ? 0x8000 : 0;
    x = fabsf(x);
    if (isnan(x))
        return 0x7fff;
    if (x >= 65520)
        return sign | 0x7c00;
    int e = x < 0x1p-14f ? -14 : ilogbf(x);
    return sign | ((uint32_t)(e + 14) * 1024 + (uint32_t)rintf(ldexpf(x, 10 - e)));
}

/* Two products; what bfloat16 cannot hold is not emulated. */
static inline uint32_t emu_bf16_times(uint32_t a, uint32_t b)
{
    float x[2] = { emu_bf16(a & 0xffff) * emu_bf16(b & 0xffff),
                   emu_bf16(a >> 16) * emu_bf16(b >> 16) };
    uint32_t code[2];
    memcpy(code, x, sizeof x);
    if ((code[0] | code[1]) & 0xffff)
        emu_fail("a product in bfloat16 is rounded");
    return code[0] >> 16 | code[1];
}

/* d += a b, 16 x 16 times 16 x 8, two numbers in a register: see mma_impl.h. Sums of 16 are cut
 * off, not rounded, as on the card. */
template <float value(uint32_t)>
static inline void emu_mma(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    uint32_t mine[6] = { a[0], a[1], a[2], a[3], b[0], b[1] };
    int lane = emu.now->id % 32;
    uint32_t (*all)[8] = emu_exchange(mine, 6);
    double sum[4] = { d[0], d[1], d[2], d[3] };
    for (int k = 0; k < 8; k++) {
        uint32_t x[2], y[2]; /* of two rows, of two columns */
        for (int i = 0; i < 2; i++) {
            x[i] = all[lane / 4 * 4 + k % 4][i + k / 4 * 2];
            y[i] = all[(lane % 4 * 2 + i) * 4 + k % 4][4 + k / 4];
        }
        for (int i = 0; i < 4; i++) {
            sum[i] += (double)value(x[i / 2] & 0xffff) * value(y[i % 2] & 0xffff);
            sum[i] += (double)value(x[i / 2] >> 16) * value(y[i % 2] >> 16);
        }
    }
    for (int i = 0; i < 4; i++) {
        d[i] = (float)sum[i];
        if (isfinite(d[i]) && fabs(d[i]) > fabs(sum[i]))
            d[i] = nextafterf(d[i], 0);
    }
}

/* ldmatrix: n matrices of 8 x 8, each lane's address that of row lane % 8 of matrix lane / 8. */
static inline void emu_load_8x8(uint32_t *r, const void *row, int n, bool transposed)
{
    int lane = emu.now->id % 32;
    const uint8_t *mine = (const uint8_t *)row;
    if (lane < 8 * n && ((uintptr_t)mine - (uintptr_t)emu.dynamic) % 16)
        emu_fail("a row of a matrix is not aligned");
    const uint8_t *(*all)[8] = emu_exchange(&mine, 1);
    for (int i = 0; i < n; i++) {
        uint16_t x[2];
        for (int j = 0; j < 2; j++) {
            int at = lane % 4 * 2 + j, own = lane / 4;
            const uint8_t *from = all[8 * i + (transposed ? at : own)][0];
            memcpy(&x[j], from + 2 * (transposed ? own : at), 2);
        }
        r[i] = x[0] | (uint32_t)x[1] << 16;
    }
    __syncwarp(); /* what was read may now be written over */
}

/* cp.async: nobody knows when it arrives. In one of the orders of threads it does at once; in the
 * others at the last moment, and until then there is poison. */
static inline void emu_copy_async(void *to, const void *from, int bytes, bool there = true)
{
    static const uint8_t zeros[16] = { 0 };
    emu_fiber *f = emu.now;
    if (((uintptr_t)from | ((uintptr_t)to - (uintptr_t)emu.dynamic)) % (size_t)bytes)
        emu_fail("a copy is not aligned");
    if (f->n_copy == EMU_COPIES)
        emu_fail("too many copies under way");
    f->copy[f->n_copy++] = { to, there ? from : zeros, bytes, f->n_group };
    if (emu.order == 1)
        memcpy(to, there ? from : zeros, (size_t)bytes);
    else
        memset(to, 0xff, (size_t)bytes);
}

static inline void emu_copy_commit() { emu.now->n_group++; }

/* Until the last n groups alone are under way; -1: until nothing is. */
static inline void emu_copy_wait(int n = -1)
{
    emu_fiber *f = emu.now;
    int left = 0;
    for (int i = 0; i < f->n_copy; i++) {
        emu_copy *c = &f->copy[i];
        if (c->group >= f->n_group - n)
            f->copy[left++] = *c;
        else if (emu.order != 1)
            memcpy(c->to, c->from, (size_t)c->n);
    }
    f->n_copy = left;
}

/* Pieces that a barrier counts. Bytes come when somebody waits for them, and are poison till then,
 * or at once. The barrier's word: expected bytes above, turns that are over below. */
static inline void emu_bulk_open(uint64_t *bar) { *bar = 0; }

static inline void emu_bulk_expect(uint64_t *bar, int n)
{
    if (*bar >> 32)
        emu_fail("a turn begins before the last one was waited for");
    *bar += (uint64_t)n << 32;
}

static inline void emu_bulk_copy(void *to, const void *from, int n, uint64_t *bar)
{
    if (((uintptr_t)from | ((uintptr_t)to - (uintptr_t)emu.dynamic) | (uintptr_t)n) % 16)
        emu_fail("a piece is not aligned");
    if (emu.n_piece == EMU_PIECES)
        emu_fail("too many pieces under way");
    emu.piece[emu.n_piece++] = { to, from, n, bar };
    if (emu.order == 1)
        memcpy(to, from, (size_t)n);
    else
        memset(to, 0xff, (size_t)n);
}

static inline void emu_bulk_wait(uint64_t *bar, int phase)
{
    int left = 0, n = 0;
    if ((*bar & 1) != (uint64_t)phase)
        return; /* that turn is over */
    for (int i = 0; i < emu.n_piece; i++) {
        emu_piece *c = &emu.piece[i];
        if (c->bar != bar) {
            emu.piece[left++] = *c;
            continue;
        }
        if (emu.order != 1)
            memcpy(c->to, c->from, (size_t)c->n);
        n += c->n;
    }
    emu.n_piece = left;
    if (n == 0 || (uint64_t)n != *bar >> 32)
        emu_fail("pieces are not the bytes that were expected");
    *bar = (*bar + 1) & 0xffffffff;
}

static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned by)
{
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (by & 31));
}

static inline unsigned __byte_perm(unsigned lo, unsigned hi, unsigned at)
{
    uint64_t all = (uint64_t)hi << 32 | lo;
    unsigned x = 0;
    for (int i = 0; i < 4; i++) {
        if (at >> 4 * i & 8)
            emu_fail("signs of __byte_perm are not emulated");
        x |= (unsigned)(all >> (at >> 4 * i & 7) * 8 & 255) << 8 * i;
    }
    return x;
}

/* Blocks run one after another. */
static inline void __threadfence() {}
static inline unsigned atomicInc(unsigned *p, unsigned last)
{
    unsigned old = *p;
    *p = old >= last ? 0 : old + 1;
    return old;
}

template <class T> static inline T atomicAdd(T *p, T x)
{
    T old = *p;
    *p += x;
    return old;
}

static inline int min(int a, int b) { return a < b ? a : b; }
static inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline long long __double_as_longlong(double x)
{
    long long u;
    memcpy(&u, &x, 8);
    return u;
}
static inline double __longlong_as_double(long long u)
{
    double x;
    memcpy(&x, &u, 8);
    return x;
}
static inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
static inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }

/* ---- the runtime ----------------------------------------------------------------------------- */

typedef int cudaError_t;
typedef int cudaStream_t;
typedef timespec *cudaEvent_t;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInsufficientDriver = 35,
       cudaErrorLaunchFailure = 719,
       cudaErrorStreamCaptureUnsupported = 900, cudaErrorStreamCaptureInvalidated = 901 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDefault };
struct cudaDeviceProp {
    char name[64];
    int major, minor, multiProcessorCount;
    size_t sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
    int integrated;
};

static inline cudaError_t cudaDriverGetVersion(int *v) { *v = emu.no_driver ? 0 : 13000; return 0; }
static inline cudaError_t cudaGetDeviceCount(int *n)
{
    *n = !emu.no_driver;
    return emu.no_driver ? cudaErrorInsufficientDriver : 0;
}
static inline cudaError_t cudaSetDevice(int) { return 0; }
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    *p = { "emulated GPU", 0, 0, 1, EMU_DYNAMIC, EMU_DYNAMIC, emu.integrated };
    return 0;
}
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class F> static inline cudaError_t cudaFuncSetAttribute(F *, cudaFuncAttribute, int n)
{
    return n > EMU_DYNAMIC;
}
size_t emu_device_used();
static inline cudaError_t cudaMemGetInfo(size_t *a, size_t *b)
{
    size_t used = emu_device_used();
    *b = emu.memory_bytes;
    *a = *b > used ? *b - used : 0;
    return 0;
}
static inline cudaError_t cudaStreamCreate(cudaStream_t *s) { *s = 1; return 0; }
static inline cudaError_t cudaStreamDestroy(cudaStream_t) { return 0; }
/* A second stream: its copies are done at the last moment, when somebody waits for an event behind
 * them, and until then there is poison. */
#define EMU_BESIDE 2
enum { cudaStreamNonBlocking = 1 };
void emu_beside(void *to, const void *from, size_t n);
void emu_beside_now();
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = EMU_BESIDE;
    return 0;
}
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t, unsigned)
{
    if (s != EMU_BESIDE)
        emu_beside_now();
    return 0;
}
static inline cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    *e = (cudaEvent_t)calloc(1, sizeof **e);
    return *e ? 0 : cudaErrorMemoryAllocation;
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t e) { free(e); return 0; }
static inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t)
{
    return clock_gettime(CLOCK_MONOTONIC, e);
}
static inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b)
{
    *ms = (float)((double)(b->tv_sec - a->tv_sec) * 1e3 +
                  (double)(b->tv_nsec - a->tv_nsec) / 1e6);
    return 0;
}
static inline void __nanosleep(unsigned) {}
cudaError_t cudaStreamSynchronize(cudaStream_t);
static inline cudaError_t cudaGetLastError() { return 0; }
static inline const char *cudaGetErrorString(cudaError_t e) { return e ? "an error" : "no error"; }

typedef struct emu_graph *cudaGraph_t, *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                             cudaStreamCaptureModeRelaxed };
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *);
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *, cudaGraph_t, unsigned long long);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);

void *emu_device_take(size_t n);
void emu_device_give_back(void *p);
void emu_device_open(bool open); /* to kernels and copies */
void emu_copy(void *to, const void *from, size_t n); /* any thread may */

template <class T> static inline cudaError_t cudaMalloc(T **p, size_t n)
{
    *p = (T *)emu_device_take(n);
    return *p ? 0 : cudaErrorMemoryAllocation;
}
template <class T> static inline cudaError_t cudaMallocHost(T **p, size_t n)
{
    *p = (T *)aligned_alloc(256, (n + 255) / 256 * 256);
    if (*p)
        memset((void *)*p, 0xff, n);
    return *p ? 0 : cudaErrorMemoryAllocation;
}
void *emu_host_take(size_t n); /* counted */
enum { cudaHostAllocMapped = 2 };
static inline cudaError_t cudaHostAlloc(void **p, size_t n, unsigned)
{
    *p = emu_host_take(n);
    return *p ? 0 : cudaErrorMemoryAllocation;
}
static inline cudaError_t cudaFree(void *p) { emu_device_give_back(p); return 0; }
static inline cudaError_t cudaFreeHost(void *p) { free(p); return 0; }
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind,
                                          cudaStream_t s)
{
    if (s == EMU_BESIDE)
        emu_beside(to, from, n);
    else
        emu_stream([=] { emu_copy(to, from, n); });
    return 0;
}
static inline cudaError_t cudaMemsetAsync(void *to, int c, size_t n, cudaStream_t)
{
    emu_stream([=] {
        emu_device_open(true);
        memset(to, c, n);
        emu_device_open(false);
    });
    return 0;
}

#endif
