/* cuda_dev.cu - opening a GPU, its memory, and copies.
 *
 * Ops queue kernels on one stream and return. The first failure is remembered as on every device;
 * one that a kernel causes shows at the step's end. */
#include "cuda_impl.h"

#include <stdio.h>
#include <stdlib.h>

extern "C" {
#include "cuda_ops_impl.h"
#include "iq_tables.h"
}

/* ---- opening ------------------------------------------------------------------------------- */

static int failed(struct err *e, cudaError_t code, const char *what)
{
    bool memory = code == cudaErrorMemoryAllocation;
    return err_set(e, memory ? ERR_NO_MEMORY : ERR_IO, "device cuda: %s: %s", what,
                   cudaGetErrorString(code));
}

/* The runtime takes a missing driver for an old one. */
static const char *why_none(cudaError_t code)
{
    int version = 0;
    cudaDriverGetVersion(&version);
    return version == 0 ? "no NVIDIA driver was found" : cudaGetErrorString(code);
}

static int choose_gpu(struct cuda *c, int index, struct err *e)
{
    int n = 0;
    cudaError_t code = cudaGetDeviceCount(&n);
    if (code != cudaSuccess)
        return err_set(e, ERR_UNSUPPORTED, "device cuda: no GPU can be used: %s", why_none(code));
    if (index >= n)
        return err_set(e, ERR_UNSUPPORTED, "device cuda:%d: there are %d GPUs", index, n);
    code = cudaSetDevice(index);
    if (code == cudaSuccess)
        code = cudaStreamCreate(&c->stream);
    return code == cudaSuccess ? 0 : failed(e, code, "cannot be opened");
}

static int describe(struct cuda *c, int index, struct err *e)
{
    cudaDeviceProp p;
    cudaError_t code = cudaGetDeviceProperties(&p, index);
    if (code != cudaSuccess)
        return failed(e, code, "its properties");
    c->n_multi = p.multiProcessorCount;
    c->multi_shared = p.sharedMemPerMultiprocessor;
    snprintf(c->describe, sizeof c->describe, "%.80s, compute %d.%d, %d multiprocessors%s", p.name,
             p.major, p.minor, p.multiProcessorCount, c->exact ? ", exact" : "");
    c->shared_max = p.sharedMemPerBlockOptin;
    c->overlaps = p.major >= 9;
    c->dev.shares_memory = p.integrated;
    return 0;
}

static int load_tables(struct cuda *c, struct err *e)
{
    struct cu_tables t;
    memcpy(t.iq2_xxs, iq2_xxs_grid, sizeof t.iq2_xxs);
    memcpy(t.iq2_xs, iq2_xs_grid, sizeof t.iq2_xs);
    t.magnitudes = IQ2_XXS_SIZES;
    TRY(cuda_memory_new(&c->dev, (void **)&c->tables, sizeof t, e));
    cudaError_t code = cudaMemcpyAsync(c->tables, &t, sizeof t, cudaMemcpyHostToDevice, c->stream);
    if (code == cudaSuccess)
        code = cudaStreamSynchronize(c->stream);
    return code == cudaSuccess ? 0 : failed(e, code, "codebooks");
}

int cuda_open(struct dev **d, int index, const struct backend_options *opt, struct err *e)
{
    struct cuda *c = (struct cuda *)calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NO_MEMORY, "device cuda: out of memory");
    cuda_ops_fill(&c->ops);
    c->dev.name = "cuda";
    c->dev.ops = &c->ops;
    c->dev.layer = -1;
    c->dev.impl = c;
    c->exact = opt->exact;
    c->stage = &c->plain;
    int code = choose_gpu(c, index, e);
    if (code == 0)
        code = describe(c, index, e);
    if (code == 0)
        code = load_tables(c, e);
    if (code < 0) {
        cuda_close(&c->dev);
        return code;
    }
    *d = &c->dev;
    return 0;
}

void cuda_close(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    cuda_marks_free(d);
    cuda_forget_steps(c);
    cuda_stage_free(&c->plain);
    cuda_free_ahead(&c->ahead);
    cuda_free_slots(c->slots);
    cudaFree(c->tables);
    for (int i = 0; i < N_LOOK; i++)
        cudaFreeHost(c->look[i]);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    free(c);
}

const char *cuda_describe(const struct dev *d)
{
    return cuda_of(d)->describe;
}

/* ---- memory -------------------------------------------------------------------------------- */

static int taken(struct dev *d, cudaError_t code, size_t bytes, struct err *e)
{
    if (code == cudaSuccess)
        return 0;
    return err_set(e, ERR_NO_MEMORY, "device %s: %zu bytes: %s", d->name, bytes,
                   cudaGetErrorString(code));
}

int cuda_memory_new(struct dev *d, void **mem, size_t bytes, struct err *e)
{
    *mem = NULL;
    return bytes ? taken(d, cudaMalloc(mem, bytes), bytes, e) : 0;
}

void cuda_memory_free(struct dev *d, void *mem)
{
    (void)d;
    cudaFree(mem);
}

int cuda_host_new(struct dev *d, void **mem, size_t bytes, struct err *e)
{
    *mem = NULL;
    cudaError_t code = bytes ? cudaHostAlloc(mem, bytes, cudaHostAllocMapped) : cudaSuccess;
    if (code == cudaSuccess)
        return 0;
    return err_set(e, ERR_NO_MEMORY, "device %s: %zu bytes of page-locked memory: %s", d->name,
                   bytes, cudaGetErrorString(code));
}

void cuda_host_free(struct dev *d, void *mem)
{
    (void)d;
    cudaFreeHost(mem);
}

size_t cuda_memory_left(const struct dev *d, size_t *all)
{
    size_t left = 0;
    (void)d;
    *all = 0;
    return cudaMemGetInfo(&left, all) == cudaSuccess ? left : 0;
}

/* ---- a step -------------------------------------------------------------------------------- */

void cuda_check(struct dev *d, cudaError_t code, const char *what)
{
    if (code != cudaSuccess)
        dev_fail(d, code == cudaErrorMemoryAllocation ? ERR_NO_MEMORY : ERR_IO, "%s: %s", what,
                 cudaGetErrorString(code));
}

void cuda_launched(struct dev *d, const char *kernel)
{
    cuda_check(d, cudaGetLastError(), kernel);
    cuda_of(d)->follows = true;
    cuda_of(d)->n_launch++;
}

void cuda_interrupted(struct dev *d)
{
    cuda_of(d)->follows = false;
}

#ifndef CUDA_EMULATED
cudaLaunchConfig_t cuda_early(const struct dev *d, dim3 grid, dim3 block, size_t dynamic,
                              cudaLaunchAttribute *early)
{
    const struct cuda *c = cuda_of(d);
    early->id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early->val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t how = {};
    how.gridDim = grid;
    how.blockDim = block;
    how.dynamicSmemBytes = dynamic;
    how.stream = c->stream;
    how.attrs = early;
    how.numAttrs = c->overlaps && c->follows;
    return how;
}
#endif

void cuda_begin(struct dev *d)
{
    cuda_of(d)->ahead.of = NULL;
    cuda_interrupted(d);
    cuda_stage_begin(&cuda_of(d)->plain);
}

int cuda_wait(struct dev *d, struct err *e)
{
    (void)e;
    if (!dev_planning(d))
        cuda_check(d, cudaStreamSynchronize(cuda_of(d)->stream), "the step");
    return 0;
}

void cuda_copy(struct dev *d, void *to, const void *from, size_t bytes)
{
    if (d->err.code != ERR_NONE)
        return;
    cuda_interrupted(d);
    cuda_check(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda_of(d)->stream),
               "a copy");
    cuda_check(d, cudaStreamSynchronize(cuda_of(d)->stream), "a copy");
}

#define MOVE_THREADS 256
#define MOVE_BYTES 8192 /* of a block */

/* They travel with the launch, so that nobody has to keep them. */
struct moving {
    struct dev_piece piece[DEV_PIECES];
};

template <class T> __device__ __forceinline__ void move(const struct dev_piece *p, size_t first,
                                                        size_t last)
{
    for (size_t i = first + threadIdx.x * sizeof(T); i < last; i += MOVE_THREADS * sizeof(T))
        *(T *)((char *)p->to + i) = *(const T *)((const char *)p->from + i);
}

/* Grid: pieces, MOVE_BYTES. */
__global__ void __launch_bounds__(MOVE_THREADS) move_kernel(struct moving m)
{
    const struct dev_piece *p = &m.piece[blockIdx.x];
    size_t first = (size_t)blockIdx.y * MOVE_BYTES;
    size_t last = first + MOVE_BYTES < p->bytes ? first + MOVE_BYTES : p->bytes;
    uintptr_t uneven = (uintptr_t)p->to | (uintptr_t)p->from | p->bytes;
    if (uneven % sizeof(uint4) == 0)
        move<uint4>(p, first, last);
    else if (uneven % sizeof(uint2) == 0)
        move<uint2>(p, first, last);
    else
        move<char>(p, first, last);
}

void cuda_move(struct dev *d, const struct dev_piece *p, int n)
{
    struct moving m;
    size_t most = 1;
    memcpy(m.piece, p, (size_t)n * sizeof *p);
    for (int i = 0; i < n; i++)
        most = MAX(most, p[i].bytes);
    LAUNCH(d, move_kernel, dim3((unsigned)n, blocks_for(most, MOVE_BYTES)), MOVE_THREADS, 0, m);
}

struct tensor cuda_look(struct dev *d, const struct tensor *t)
{
    struct cuda *c = cuda_of(d);
    struct tensor host = *t;
    size_t bytes = t->rows ? t->pitch * (size_t)(t->rows - 1) +
                             dtype_bytes(t->type, (size_t)t->cols) : 0;
    int i = c->n_look++ % N_LOOK;
    host.data = NULL;
    if (c->look_size[i] < bytes) { /* only while somebody looks, and then seldom */
        cudaFreeHost(c->look[i]);
        c->look[i] = NULL;
        c->look_size[i] = bytes + bytes / 2;
        cuda_check(d, cudaMallocHost(&c->look[i], c->look_size[i]), "memory for looking");
    }
    cuda_copy(d, c->look[i], t->data, bytes);
    if (d->err.code == ERR_NONE)
        host.data = c->look[i];
    return host;
}
