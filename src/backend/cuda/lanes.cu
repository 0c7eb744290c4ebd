/* lanes.cu - copies to the GPU that wait for no other: a stream and pinned memory for each thread
 * that brings something. */
#include "cuda_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

static int result(struct dev *d, cudaError_t code, struct err *e)
{
    if (code == cudaSuccess)
        return 0;
    return err_set(e, code == cudaErrorMemoryAllocation ? ERR_NO_MEMORY : ERR_IO,
                   "device %s: copying weights: %s", d->name, cudaGetErrorString(code));
}

int cuda_lanes(struct dev *d, int n, size_t bytes, void **mem, struct err *e)
{
    struct cuda *c = cuda_of(d);
    for (int i = 0; i < n; i++) {
        TRY(result(d, cudaStreamCreate(&c->lane[i].stream), e));
        c->n_lane = i + 1;
        TRY(result(d, cudaMallocHost(&c->lane[i].mem, bytes), e));
        mem[i] = c->lane[i].mem;
    }
    return 0;
}

int cuda_send_lane(struct dev *d, int lane, void *to, size_t bytes, struct err *e)
{
    struct cuda *c = cuda_of(d);
    cudaStream_t stream = c->lane[lane].stream;
    TRY(result(d, cudaMemcpyAsync(to, c->lane[lane].mem, bytes, cudaMemcpyDefault, stream), e));
    return result(d, cudaStreamSynchronize(stream), e);
}

void cuda_lanes_close(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    for (int i = 0; i < c->n_lane; i++) {
        cudaFreeHost(c->lane[i].mem);
        cudaStreamDestroy(c->lane[i].stream);
        c->lane[i] = {};
    }
    c->n_lane = 0;
}
