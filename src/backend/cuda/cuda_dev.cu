/* cuda_dev.cu - opening a GPU, its memory, and what of a step is copied to it.
 *
 * Ops queue kernels on one stream and return. The first failure is remembered as on every device;
 * one that a kernel causes shows at the step's end. The step's rows and the places of their caches
 * are copied once, when an op first shows them: kernels find positions in device memory. */
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

static int choose_gpu(struct cuda *c, int index, struct err *e)
{
    int n = 0;
    cudaError_t code = cudaGetDeviceCount(&n);
    if (code != cudaSuccess)
        return err_set(e, ERR_UNSUPPORTED, "device cuda: no GPU can be used: %s",
                       cudaGetErrorString(code));
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
    c->n_unit = p.multiProcessorCount;
    return 0;
}

static int load_tables(struct cuda *c, struct err *e)
{
    TRY(cuda_memory_new(&c->dev, (void **)&c->tables, sizeof *c->tables, e));
    cudaError_t code = cudaMemcpyAsync(c->tables->iq2_xxs, iq2_xxs_grid, sizeof c->tables->iq2_xxs,
                                       cudaMemcpyHostToDevice, c->stream);
    if (code == cudaSuccess)
        code = cudaMemcpyAsync(c->tables->iq2_xs, iq2_xs_grid, sizeof c->tables->iq2_xs,
                               cudaMemcpyHostToDevice, c->stream);
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
    cudaFree(c->tables);
    cudaFree(c->stage_dev);
    cudaFreeHost(c->stage);
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

size_t cuda_memory_left(const struct dev *d)
{
    size_t left = 0, all = 0;
    (void)d;
    return cudaMemGetInfo(&left, &all) == cudaSuccess ? left : 0;
}

/* ---- a step -------------------------------------------------------------------------------- */

static void check(struct dev *d, cudaError_t code, const char *what)
{
    if (code != cudaSuccess)
        dev_fail(d, code == cudaErrorMemoryAllocation ? ERR_NO_MEMORY : ERR_IO, "%s: %s", what,
                 cudaGetErrorString(code));
}

void cuda_launched(struct dev *d, const char *kernel)
{
    check(d, cudaGetLastError(), kernel);
}

void cuda_begin(struct dev *d)
{
    cuda_of(d)->n_seen = 0;
    cuda_of(d)->stage_used = 0;
}

int cuda_wait(struct dev *d, struct err *e)
{
    (void)e;
    if (!dev_planning(d))
        check(d, cudaStreamSynchronize(cuda_of(d)->stream), "the step");
    return 0;
}

void cuda_copy(struct dev *d, void *to, const void *from, size_t bytes)
{
    if (d->err.code != ERR_NONE)
        return;
    check(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda_of(d)->stream), "a copy");
    check(d, cudaStreamSynchronize(cuda_of(d)->stream), "a copy");
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
        check(d, cudaMallocHost(&c->look[i], c->look_size[i]), "memory for looking");
    }
    cuda_copy(d, c->look[i], t->data, bytes);
    if (d->err.code == ERR_NONE)
        host.data = c->look[i];
    return host;
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* Bytes of a list of rows and all it points at; blocks up to each conversation's last row. */
static size_t stage_bytes(const struct rows *r)
{
    size_t n = (size_t)r->n * sizeof(struct cu_row) + 256;
    for (int q = 0; r->kv && q < r->n_seq; q++) {
        size_t n_block = 0;
        for (int i = 0; i < r->n; i++)
            if (r->host[i].seq == q)
                n_block = (size_t)(r->host[i].pos / r->kv[q]->shape->block_tok) + 1;
        n += (size_t)r->kv[q]->n_layer * (sizeof(struct kv_layer) + n_block * 2 * sizeof(void *));
    }
    return round_up(n, 256);
}

/* Room for `bytes` more, in pinned memory and on the device. Grows when more conversations, layers
 * or blocks are shown than ever before; lists already shown stay where they are. */
static bool stage_room(struct dev *d, struct cuda *c, size_t bytes)
{
    if (c->stage_used + bytes <= c->stage_size)
        return true;
    if (c->stage_used > 0) {
        check(d, cudaStreamSynchronize(c->stream), "the step");
        c->n_seen = 0;
        c->stage_used = 0;
    }
    cudaFreeHost(c->stage);
    cudaFree(c->stage_dev);
    c->stage = c->stage_dev = NULL;
    c->stage_size = 2 * round_up(bytes, 65536);
    check(d, cudaMallocHost(&c->stage, c->stage_size), "memory for rows");
    check(d, cudaMalloc(&c->stage_dev, c->stage_size), "memory for rows");
    return d->err.code == ERR_NONE;
}

void *cuda_stage(struct dev *d, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    bytes = round_up(bytes, 256);
    if (!stage_room(d, c, bytes))
        return NULL;
    c->stage_used += bytes;
    return c->stage + c->stage_used - bytes;
}

void *cuda_send(struct dev *d, const void *staged, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    uint8_t *to = c->stage_dev + ((const uint8_t *)staged - c->stage);
    check(d, cudaMemcpyAsync(to, staged, bytes, cudaMemcpyHostToDevice, c->stream), "a list");
    return to;
}

/* Writes into the stage; what it returns is the place on the device. */
struct writer {
    uint8_t *host, *dev;
    size_t at;
};

static void *put(struct writer *w, const void *data, size_t bytes)
{
    void *dev = w->dev + w->at;
    memcpy(w->host + w->at, data, bytes);
    w->at = round_up(w->at + bytes, 8);
    return dev;
}

static const struct cu_row *put_rows(struct writer *w, const struct rows *r)
{
    const struct cu_row *dev = (const struct cu_row *)(w->dev + w->at);
    int out = 0;
    for (int i = 0, first = 0, count = 0; i < r->n; i++) {
        if (i == 0 || r->host[i].seq != r->host[i - 1].seq) {
            first = i;
            for (count = 1; i + count < r->n && r->host[i + count].seq == r->host[i].seq;)
                count++;
        }
        struct cu_row row = { r->host[i].token, r->host[i].pos, r->host[i].seq, first, count,
                              r->host[i].logits ? out++ : -1 };
        put(w, &row, sizeof row);
    }
    return dev;
}

static const struct kv_layer *put_caches(struct writer *w, const struct rows *r)
{
    int n_layer = r->kv[0]->n_layer;
    size_t all = (size_t)r->n_seq * (size_t)n_layer;
    struct kv_layer *to = (struct kv_layer *)(w->host + w->at);
    const struct kv_layer *dev = (const struct kv_layer *)(w->dev + w->at);
    w->at += all * sizeof *to;
    for (int q = 0; q < r->n_seq; q++) {
        int last = -1;
        for (int i = 0; i < r->n; i++)
            last = r->host[i].seq == q ? r->host[i].pos : last;
        size_t n = last < 0 ? 0 : (size_t)(last / r->kv[q]->shape->block_tok) + 1;
        for (int l = 0; l < n_layer; l++) {
            struct kv_layer layer = r->kv[q]->layer[l];
            if (layer.ratio)
                layer.block = (uint8_t **)put(w, layer.block, n * sizeof *layer.block);
            if (layer.ratio && layer.index_block)
                layer.index_block =
                    (uint8_t **)put(w, layer.index_block, n * sizeof *layer.index_block);
            to[(size_t)q * (size_t)n_layer + (size_t)l] = layer;
        }
    }
    return dev;
}

static const struct cu_step *show_rows(struct dev *d, struct cuda *c, const struct rows *r)
{
    size_t bytes = stage_bytes(r);
    uint8_t *stage = (uint8_t *)cuda_stage(d, bytes);
    if (!stage)
        return NULL;
    CHECK(c->n_seen < MAX_LISTS);
    struct writer w = { stage, c->stage_dev + (stage - c->stage), 0 };
    struct cu_seen *seen = &c->seen[c->n_seen];
    memset(seen, 0, sizeof *seen);
    seen->host = r->host;
    seen->kv = r->kv;
    seen->n = r->n;
    seen->step.row = put_rows(&w, r);
    if (r->kv && r->n_seq) {
        seen->step.n_layer = r->kv[0]->n_layer;
        seen->step.shape = *r->kv[0]->shape;
        seen->step.kv = put_caches(&w, r);
    }
    CHECK(w.at <= bytes);
    cuda_send(d, stage, w.at);
    c->n_seen++;
    return &seen->step;
}

const struct cu_step *cuda_rows(struct dev *d, const struct rows *r)
{
    struct cuda *c = cuda_of(d);
    for (int i = 0; i < c->n_seen; i++)
        if (c->seen[i].host == r->host && c->seen[i].n == r->n && c->seen[i].kv == r->kv)
            return &c->seen[i].step;
    return show_rows(d, c, r);
}
