/* emulator.cc - runs the blocks of a launch, one after another; see cuda_runtime.h here. */
#include "cuda_runtime.h"

#include <pthread.h>
#include <sys/mman.h>

emu_machine emu;

/* ---- memory of the device ------------------------------------------------------------------ */

#define SPACE ((size_t)64 << 30) /* of addresses */

/* One range, handed out in ascending order; all of it is free again when nothing is in use. */
static struct {
    uint8_t *base;
    size_t used, taken; /* addresses; bytes in use */
    uint32_t *pages;    /* of the range that begins at a page */
    int n_use;
} space;

void emu_device_open(bool open)
{
    static int n_open;
    n_open += open ? 1 : -1;
    if (n_open == (open ? 1 : 0) && space.used && mprotect(space.base, space.used, open ? PROT_READ | PROT_WRITE : PROT_NONE))
        emu_fail("memory of the device cannot be protected");
}

void emu_copy(void *to, const void *from, size_t n)
{
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&one);
    emu_device_open(true);
    memcpy(to, from, n);
    emu_device_open(false);
    pthread_mutex_unlock(&one);
}

static void *addresses(size_t n, int rights)
{
    return mmap(NULL, n, rights, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

void *emu_device_take(size_t n)
{
    size_t all = (n + 4095) / 4096 * 4096;
    if (!space.base) {
        space.base = (uint8_t *)addresses(SPACE, PROT_NONE);
        space.pages = (uint32_t *)addresses(SPACE / 4096 * sizeof *space.pages,
                                            PROT_READ | PROT_WRITE);
    }
    if (space.base == MAP_FAILED || space.pages == MAP_FAILED || all > SPACE - space.used ||
        space.taken + all > emu.memory_bytes)
        return NULL;
    uint8_t *p = space.base + space.used;
    space.pages[space.used / 4096] = (uint32_t)(all / 4096);
    space.used += all;
    space.taken += all;
    space.n_use++;
    emu_device_open(true);
    memset(p, 0xff, n);
    emu_device_open(false);
    return p;
}

void emu_device_give_back(void *p)
{
    if (!p)
        return;
    space.taken -= (size_t)space.pages[((uint8_t *)p - space.base) / 4096] * 4096;
    if (--space.n_use > 0)
        return;
    madvise(space.base, space.used, MADV_DONTNEED);
    space.used = 0;
}

size_t emu_device_used()
{
    return space.taken;
}

extern "C" void emu_set_integrated(int yes)
{
    emu.integrated = yes;
}

static struct {
    void *to;
    const void *from;
    size_t n;
} beside;

void emu_beside(void *to, const void *from, size_t n)
{
    beside = { to, from, n };
    emu_device_open(true);
    memset(to, 0xff, n);
    emu_device_open(false);
}

void emu_beside_now()
{
    if (beside.n)
        emu_copy(beside.to, beside.from, beside.n);
    beside.n = 0;
}

/* ---- launches ------------------------------------------------------------------------------ */

extern "C" void emu_set_memory(size_t bytes)
{
    emu.memory_bytes = bytes;
}

/* A machine without a GPU. */
extern "C" void emu_set_no_driver(bool none)
{
    emu.no_driver = none;
}

/* Before anything asks. */
__attribute__((constructor)) static void start()
{
    emu_set_memory((size_t)4 << 30);
}

extern "C" void emu_set_order(int order)
{
    emu.order = order;
}

__attribute__((noinline)) void emu_yield()
{
    if (!__builtin_setjmp(emu.now->at))
        __builtin_longjmp(emu.scheduler, 1);
}

/* A fiber lives on: it does its thread's part of one block after another. */
static void fiber_main()
{
    for (;;) {
        emu.call(emu.kernel);
        emu.now->state = EMU_DONE;
        emu.n_done++;
        emu_yield();
    }
}

__attribute__((noinline)) static void go_on(emu_fiber *f)
{
    if (f->stack)
        __builtin_longjmp(f->at, 1);
    f->stack = (char *)malloc(EMU_STACK);
    memset(&f->start, 0, sizeof f->start);
    if (!f->stack || getcontext(&f->start) < 0)
        emu_fail("no memory for stacks");
    f->start.uc_stack.ss_sp = f->stack;
    f->start.uc_stack.ss_size = EMU_STACK;
    makecontext(&f->start, fiber_main, 0);
    setcontext(&f->start);
}

/* Until it waits. */
__attribute__((noinline)) static void turn(emu_fiber *f)
{
    emu.now = f;
    if (!__builtin_setjmp(emu.scheduler))
        go_on(f);
}

/* The i-th to have its turn. */
static int at_turn(int i)
{
    int n = emu.n_thread, warps = n / 32;
    if (emu.order == 1)
        return n - 1 - i;
    return emu.order == 2 ? i % warps * 32 + i / warps * 13 % 32 : i;
}

static void run_block()
{
    memset(emu.shared, 0xff, emu.shared_bytes); /* what a block has declared so far */
    memset(emu.dynamic, 0xff, emu.dynamic_bytes);
    emu.n_done = emu.n_waiting = 0;
    memset(emu.any, 0, sizeof emu.any);
    for (int i = 0; i < emu.n_thread; i++) {
        emu_fiber *f = &emu.fiber[i];
        unsigned x = emu.block_dim.x, y = emu.block_dim.y, u = (unsigned)i;
        f->id = i;
        f->index = { u % x, u / x % y, u / x / y };
        f->state = EMU_READY;
        f->shared_used = 0;
        f->n_copy = f->n_group = 0;
        f->n_or = 0;
        emu.warp[i / 32].n_waiting = 0;
    }
    while (emu.n_done < emu.n_thread) {
        bool moved = false;
        for (int i = 0; i < emu.n_thread; i++) {
            emu_fiber *f = &emu.fiber[at_turn(i)];
            if (f->state == EMU_READY) {
                turn(f);
                moved = true;
            }
        }
        if (!moved)
            emu_fail("threads wait at different barriers");
    }
}

void emu_run(const char *name, dim3 grid, dim3 block, size_t dynamic)
{
    emu.n_thread = (int)(block.x * block.y * block.z);
    emu.block_dim = block;
    emu.grid_dim = grid;
    emu.dynamic_bytes = dynamic;
    emu.used_bytes = 0;
    emu.shared_bytes = sizeof emu.shared;
    emu_device_open(true);
    if (emu.n_thread % 32 || emu.n_thread > EMU_THREADS || dynamic > EMU_DYNAMIC || !grid.x ||
        !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535)
        emu_fail(name);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                emu.block = { x, y, z };
                emu.waited = false;
                emu.n_piece = 0;
                run_block();
                if (emu.early && !emu.waited)
                    emu_fail("a block did not wait for the kernel before its own");
                emu.shared_bytes = emu.used_bytes;
            }
    emu.now = NULL;
    emu_device_open(false);
}

/* ---- graphs -------------------------------------------------------------------------------- */

struct emu_graph {
    emu_work *first, **end;
};

static emu_graph *capturing;
static bool invalid;
static enum { NO_FAULT, FAULT_CAPTURE, FAULT_LAUNCH, FAULT_HOST } fault;
static int n_replay;

/* The next end of a capture, launch of a graph or taking of page-locked memory fails. */
extern "C" void emu_set_fault(int which)
{
    fault = which == 1 ? FAULT_CAPTURE : which == 2 ? FAULT_LAUNCH : FAULT_HOST;
}

/* Launches of graphs since the last call. */
extern "C" int emu_take_replays()
{
    int n = n_replay;
    n_replay = 0;
    return n;
}

static bool strikes(int which)
{
    bool now = fault == which;
    if (now)
        fault = NO_FAULT;
    return now;
}

static size_t host_bytes;

void *emu_host_take(size_t n)
{
    void *p = NULL;
    if (!strikes(FAULT_HOST) && cudaMallocHost(&p, n) == 0)
        host_bytes += n;
    return p;
}

/* Page-locked memory that kernels may read, taken since the last call. */
extern "C" size_t emu_take_host()
{
    size_t n = host_bytes;
    host_bytes = 0;
    return n;
}

void emu_do(emu_work *w)
{
    if (capturing) {
        *capturing->end = w;
        capturing->end = &w->next;
        return;
    }
    w->run();
    delete w;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    invalid |= capturing != NULL;
    return capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode)
{
    if (capturing)
        return cudaErrorStreamCaptureUnsupported;
    capturing = new emu_graph;
    capturing->first = NULL;
    capturing->end = &capturing->first;
    invalid = false;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *g)
{
    *g = capturing;
    capturing = NULL;
    if (!*g || (!invalid && !strikes(FAULT_CAPTURE)))
        return *g ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
    cudaGraphExecDestroy(*g);
    *g = NULL;
    return cudaErrorStreamCaptureInvalidated;
}

/* It takes the work over. */
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t g, unsigned long long)
{
    *exec = new emu_graph{ g->first, NULL };
    g->first = NULL;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t)
{
    if (strikes(FAULT_LAUNCH))
        return cudaErrorLaunchFailure;
    emu_device_open(true);
    for (emu_work *w = g->first; w; w = w->next)
        w->run();
    emu_device_open(false);
    n_replay++;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g)
{
    for (emu_work *w = g ? g->first : NULL, *next; w; w = next) {
        next = w->next;
        delete w;
    }
    delete g;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    return cudaGraphExecDestroy(g);
}
