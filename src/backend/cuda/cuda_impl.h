/* cuda_impl.h - the device's state on the host, and how kernels are launched. */
#ifndef DS_CUDA_IMPL_H
#define DS_CUDA_IMPL_H

#include <cuda_runtime.h>

#define _Noreturn [[noreturn]]
extern "C" {
#include "cuda_dev.h"
#include "ops_table.h"
}

#include "stage_impl.h"

#define WARP 32

/* The magnitudes of IQ2_XXS, 8, 25 and 43, as bytes, and what is below zero. */
#define IQ2_XXS_SIZES 0x002b1908u
#define IQ2_XXS_NEGATED 0x00d5e7f8u

/* Codebooks, in device memory. */
struct cu_tables {
    uint64_t iq2_xxs[256], iq2_xs[512];
    uint32_t magnitudes; /* IQ2_XXS_SIZES */
};

#define N_LOOK 3

/* Room for a layer's experts that lie in the host's memory, see ahead.cu. */
struct cu_ahead {
    void *mem;
    size_t bytes, n;         /* of it; that were copied */
    struct expert *list;     /* [n_expert] where they are then */
    int n_expert;
    const struct expert *of; /* whose they are; NULL: nobody's */
    cudaStream_t stream;
    cudaEvent_t free, ready; /* nobody reads it; the copy is there */
};

struct cuda {
    struct dev dev;
    struct ops ops;
    cudaStream_t stream;
    bool exact; /* activations are never rounded */
    struct cu_tables *tables;
    int n_multi;                   /* multiprocessors */
    size_t multi_shared;           /* memory of one */
    struct cu_stage plain, *stage; /* of steps that are not recorded; of this step */
    struct cu_recorded record[N_RECORD], *recording; /* NULL: this step is not recorded */
    bool overlaps;                 /* a kernel's first instructions may run beside its precursor */
    bool follows;                  /* the last thing queued is a kernel */
    uint64_t n_launch, routed;     /* kernels so far; with them the last that wrote a route */
    int64_t n_replay;
    bool cannot_record;
    uint8_t *look[N_LOOK];         /* pinned: tensors that the host looks at, in turns */
    size_t look_size[N_LOOK];
    int n_look;
    size_t shared_max; /* what a block may ask for */
    struct {
        cudaStream_t stream;
        void *mem;                  /* pinned */
    } lane[DEV_LANES];              /* while weights are loaded */
    int n_lane;
    cudaEvent_t mark[DEV_MARKS];    /* for measuring; 0: never set */
    struct cu_ahead ahead;
    struct cu_slots *slots; /* all layers' */
    char describe[160];
};

static inline struct cuda *cuda_of(const struct dev *d)
{
    return (struct cuda *)d->impl;
}

/* Whether kernels are to be launched: not while planning, not after a failure. */
static inline bool cuda_runs(const struct dev *d)
{
    return !dev_planning(d) && d->err.code == ERR_NONE;
}

/* Fails unless it is success; the same for the launch before. */
void cuda_check(struct dev *d, cudaError_t code, const char *what);
void cuda_launched(struct dev *d, const char *kernel);

/* Where kernels find the experts: copied ahead, or set->there. */
const struct expert *cuda_ahead(struct dev *d, const struct expert_set *set);
void cuda_free_ahead(struct cu_ahead *a);

/* Experts that few rows are about to use, from the host's memory to the set's slots. */
void cuda_bring(struct dev *d, const struct expert_set *set, const struct route *route);
void cuda_free_slots(struct cu_slots *first);

/* The next kernel does not follow a kernel: it begins when all that is queued is done. */
void cuda_interrupted(struct dev *d);

static inline unsigned blocks_for(size_t n, size_t per)
{
    return (unsigned)((n + per - 1) / per);
}

/* Kernels are launched and shared memory is declared in these words alone: the tests compile the
 * same files for an emulator (tests/cuda/). */
#ifndef CUDA_EMULATED
cudaLaunchConfig_t cuda_early(const struct dev *d, dim3 grid, dim3 block, size_t dynamic,
                              cudaLaunchAttribute *early);
#define LAUNCH(d, kernel, grid, block, dynamic, ...)                                       \
    do {                                                                                   \
        kernel<<<grid, block, dynamic, cuda_of(d)->stream>>>(__VA_ARGS__);                 \
        cuda_launched(d, #kernel);                                                         \
    } while (0)
/* For kernels of which every block calls wait_for_last(). */
#define LAUNCH_EARLY(d, kernel, grid, block, dynamic, ...)                                 \
    do {                                                                                   \
        cudaLaunchAttribute early;                                                         \
        cudaLaunchConfig_t how = cuda_early(d, grid, block, dynamic, &early);              \
        cuda_check(d, cudaLaunchKernelEx(&how, kernel, __VA_ARGS__), #kernel);             \
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
