/* list_impl.h - a product of a few rows of activations, as the blocks of threads that compute it
 * see it. Several of them share a launch. */
#ifndef DS_LIST_IMPL_H
#define DS_LIST_IMPL_H

#include "product_impl.h"

#define FEW_THREADS 256
#define FEW_WARPS (FEW_THREADS / WARP)

/* How packed weights are walked through and where what lies in shared memory, see walk_impl.h. */
struct cu_plan {
    int tile_rows, n_tile, n_chunk;
    int ring, piece, total; /* bytes */
};

struct cu_record;

struct cu_few {
    enum dtype type;
    int k, rows, n;       /* elements and number of weight rows; activation rows */
    size_t row_bytes;     /* of packed weights */
    struct cu_weights w, up; /* up.data: out := weight * silu(w x) * (up x), clamped */
    float clamp, weight;
    int row0;             /* the first of w's rows */
    const uint8_t *x;     /* float32 */
    size_t x_pitch;       /* bytes */
    const struct cu_record *rounded; /* x, rounded by another kernel; NULL: blocks do that */
    float *out;
    size_t out_pitch;     /* floats */
    int n_block;          /* of threads */
    struct cu_plan plan;
};

/* Row i of x; beyond n the last one, whose sums nobody wants. */
__device__ __forceinline__ const float *few_x(const struct cu_few *f, int i)
{
    return (const float *)(f->x + (size_t)(i < f->n ? i : f->n - 1) * f->x_pitch);
}

__device__ __forceinline__ bool is_aligned(const void *p, size_t pitch, int bytes)
{
    return (((uintptr_t)p | pitch) & (uintptr_t)(bytes - 1)) == 0;
}

static inline bool is_number(enum dtype type)
{
    return type == DT_F32 || type == DT_F16 || type == DT_BF16 || type == DT_F8_E4M3;
}

#endif
