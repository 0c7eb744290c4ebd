/* time.cu - the GPU's own time between places in the queue, for measuring. */
#include "cuda_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

static void check(struct dev *d, cudaError_t code)
{
    if (code != cudaSuccess)
        dev_fail(d, ERR_IO, "measuring time: %s", cudaGetErrorString(code));
}

void cuda_mark(struct dev *d, int i)
{
    struct cuda *c = cuda_of(d);
    if (cuda_runs(d) && !c->mark[i])
        check(d, cudaEventCreate(&c->mark[i]));
    cuda_interrupted(d);
    if (cuda_runs(d))
        check(d, cudaEventRecord(c->mark[i], c->stream));
}

double cuda_between(struct dev *d, int from, int to)
{
    const struct cuda *c = cuda_of(d);
    float ms = 0;
    if (cuda_runs(d))
        check(d, cudaEventElapsedTime(&ms, c->mark[from], c->mark[to]));
    return (double)ms / 1e3;
}

void cuda_marks_free(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    for (int i = 0; i < DEV_MARKS && c->mark[i]; i++)
        cudaEventDestroy(c->mark[i]);
}

__global__ void stall_kernel(int us)
{
    for (int i = 0; i < us; i++)
        __nanosleep(1000);
}

void cuda_stall(struct dev *d, double s)
{
    if (cuda_runs(d))
        LAUNCH(d, stall_kernel, dim3(1), WARP, 0, (int)(s * 1e6));
}
