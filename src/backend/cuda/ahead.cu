/* ahead.cu - the far experts of a layer, copied beside its attention.
 *
 * A step of many rows uses nearly all experts. Its kernels would fetch pieces of rows over the bus,
 * some of them twice; a copy engine fetches the same bytes once, in long bursts, while attention
 * computes. So the layer's experts in the host's memory, or as many of them as the buffer holds,
 * come into it: one range, one copy on a stream of its own. Fewer rows read in place what they use.
 * Rejected: two buffers in turns, which take twice as much from experts that could lie near. */
#include "cuda_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 128
#define ROWS_PART 4 /* of a layer's experts: rows that use nearly all */

int cuda_take_ahead(struct dev *d, size_t bytes, int n_expert, struct err *e)
{
    struct cu_ahead *a = &cuda_of(d)->ahead;
    cuda_free_ahead(a);
    TRY(cuda_memory_new(d, &a->mem, bytes, e));
    TRY(cuda_memory_new(d, (void **)&a->list, (size_t)n_expert * sizeof *a->list, e));
    if (cudaStreamCreateWithFlags(&a->stream, cudaStreamNonBlocking) != cudaSuccess ||
        cudaEventCreate(&a->free) != cudaSuccess || cudaEventCreate(&a->ready) != cudaSuccess)
        return err_set(e, ERR_IO, "device %s: no stream to copy ahead", d->name);
    a->bytes = bytes;
    a->n_expert = n_expert;
    return 0;
}

void cuda_free_ahead(struct cu_ahead *a)
{
    if (a->stream)
        cudaStreamDestroy(a->stream);
    if (a->free)
        cudaEventDestroy(a->free);
    if (a->ready)
        cudaEventDestroy(a->ready);
    cudaFree(a->mem);
    cudaFree(a->list);
    memset(a, 0, sizeof *a);
}

void cuda_experts_ahead(struct dev *d, const struct expert_set *set, int n_row)
{
    struct cuda *c = cuda_of(d);
    struct cu_ahead *a = &c->ahead;
    a->of = NULL;
    if (!cuda_runs(d) || !a->bytes || n_row <= FEW_MAX || n_row * ROWS_PART < set->n)
        return;
    CHECK(set->n <= a->n_expert && set->there);
    a->n = MIN(a->bytes, set->far_bytes);
    cuda_interrupted(d);
    cuda_check(d, cudaEventRecord(a->free, c->stream), "a copy ahead"); /* of the layer before */
    cuda_check(d, cudaStreamWaitEvent(a->stream, a->free, 0), "a copy ahead");
    cuda_check(d, cudaMemcpyAsync(a->mem, set->far, a->n, cudaMemcpyHostToDevice, a->stream),
               "a copy ahead");
    cuda_check(d, cudaEventRecord(a->ready, a->stream), "a copy ahead");
    a->of = set->e;
}

/* From what lies in [far, far + n) to what lies in mem. */
struct moved {
    const uint8_t *far;
    size_t n;
    uint8_t *mem;
};

__device__ __forceinline__ void move_range(const struct moved *m, const uint8_t **at, size_t bytes)
{
    if (*at >= m->far && *at + bytes <= m->far + m->n)
        *at = m->mem + (*at - m->far);
}

__device__ __forceinline__ void move_matrix(const struct moved *m, struct tensor *t)
{
    const uint8_t *data = (const uint8_t *)t->data;
    size_t n_scale = t->type == DT_F8_E4M3 ? (t->rows + 127) / 128 : t->rows;
    move_range(m, &data, t->pitch * t->rows);
    move_range(m, &t->scale, t->scale_pitch * n_scale);
    t->data = (void *)data;
}

__global__ void __launch_bounds__(THREADS)
moved_kernel(struct moved m, const struct expert *from, struct expert *to, int n)
{
    int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i >= n)
        return;
    struct expert e = from[i];
    move_matrix(&m, &e.gate);
    move_matrix(&m, &e.up);
    move_matrix(&m, &e.down);
    to[i] = e;
}

const struct expert *cuda_ahead(struct dev *d, const struct expert_set *set)
{
    struct cuda *c = cuda_of(d);
    struct cu_ahead *a = &c->ahead;
    if (a->of != set->e)
        return set->there;
    struct moved m = { (const uint8_t *)set->far, a->n, (uint8_t *)a->mem };
    a->of = NULL;
    cuda_check(d, cudaStreamWaitEvent(c->stream, a->ready, 0), "a copy ahead");
    LAUNCH(d, moved_kernel, blocks_for((size_t)set->n, THREADS), THREADS, 0, m, set->there,
           a->list, set->n);
    return a->list;
}
