/* cuda_impl.h - the device's state on the host, how kernels are launched, and what of a step lies
 * in device memory. */
#ifndef DS_CUDA_IMPL_H
#define DS_CUDA_IMPL_H

#include <cuda_runtime.h>

#define _Noreturn [[noreturn]]
extern "C" {
#include "cuda_dev.h"
#include "ops_table.h"
}

#define WARP 32
#define FEW_MAX 8 /* rows up to which products and attention take the kernels for few */

/* One row of a step. A span is the rows of one conversation: adjacent, at consecutive positions. */
struct cu_row {
    int token, pos, seq;
    int first, count; /* of the span it belongs to */
    int out;          /* its place among the rows that want logits, or -1 */
};

/* A list of rows and their conversations' caches, all in device memory: kernels read positions
 * here, so that a recorded step can be replayed with others. */
struct cu_step {
    const struct cu_row *row;
    const struct kv_layer *kv; /* [n_seq][n_layer], block tables in device memory too */
    int n_layer;
    struct kv_shape shape;
};

/* Codebooks, in device memory. */
struct cu_tables {
    uint64_t iq2_xxs[256], iq2_xs[512];
};

struct cu_seen {
    const struct row *host;
    struct kv_view **kv;
    int n;
    struct cu_step step;
};

#define MAX_LISTS 4
#define N_LOOK 3

struct cuda {
    struct dev dev;
    struct ops ops;
    cudaStream_t stream;
    bool exact; /* activations are never rounded */
    struct cu_tables *tables;
    int n_multi;                    /* multiprocessors */
    size_t multi_shared;            /* memory of one */
    struct cu_seen seen[MAX_LISTS]; /* lists of rows this step has shown */
    int n_seen;
    uint8_t *stage, *stage_dev;     /* what of them goes to the device: pinned, and its copy */
    size_t stage_size, stage_used;
    uint8_t *look[N_LOOK];          /* pinned: tensors that the host looks at, in turns */
    size_t look_size[N_LOOK];
    int n_look;
    size_t shared_max; /* what a block may ask for */
    int n_unit;        /* multiprocessors */
    struct {
        cudaStream_t stream;
        void *mem;                  /* pinned */
    } lane[DEV_LANES];              /* while weights are loaded */
    int n_lane;
    cudaEvent_t mark[DEV_MARKS];    /* for measuring; 0: never set */
    char describe[160];
};

static inline struct cuda *cuda_of(const struct dev *d)
{
    return (struct cuda *)d->impl;
}

/* The rows in device memory; copied when the step first shows them. NULL after a failure. */
const struct cu_step *cuda_rows(struct dev *d, const struct rows *r);

/* `bytes` of a step's own data on their way to the device: written through the pointer returned,
 * sent by cuda_send(), which returns their place there. NULL after a failure. A list of rows taken
 * before must be asked for again. */
void *cuda_stage(struct dev *d, size_t bytes);
void *cuda_send(struct dev *d, const void *staged, size_t bytes);

/* Whether kernels are to be launched: not while planning, not after a failure. */
static inline bool cuda_runs(const struct dev *d)
{
    return !dev_planning(d) && d->err.code == ERR_NONE;
}

/* Records what the runtime says of the launch before. */
void cuda_launched(struct dev *d, const char *kernel);

static inline unsigned blocks_for(size_t n, size_t per)
{
    return (unsigned)((n + per - 1) / per);
}

/* Kernels are launched and shared memory is declared in these words alone: the tests compile the
 * same files for an emulator (tests/cuda/). */
#ifndef CUDA_EMULATED
#define LAUNCH(d, kernel, grid, block, dynamic, ...)                                       \
    do {                                                                                   \
        kernel<<<grid, block, dynamic, cuda_of(d)->stream>>>(__VA_ARGS__);                 \
        cuda_launched(d, #kernel);                                                         \
    } while (0)
#define SHARED(type, name) __shared__ type name
#define SHARED_DYNAMIC(type, name)              \
    extern __shared__ uint4 shared_dynamic[];   \
    type *name = (type *)(void *)shared_dynamic
#endif

/* Rows of float32 as kernels see them; pitch in floats. */
struct cu_mat {
    float *x;
    size_t pitch;
};

static inline struct cu_mat mat_of(const struct tensor *t)
{
    return { (float *)t->data, t->pitch / sizeof(float) };
}

#endif
