/* attend.cu - one softmax over the window, the compressed rows and the sink; keys are the values.
 *
 * A row's keys are cut into segments of 128, each with a softmax of its own; segments are merged in
 * ascending order. Few rows of a step give every segment to another block and merge in a second
 * kernel; many rows do both in one block. The order of all sums is the same, and so are the
 * bits. */
#include "segment_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

__device__ __forceinline__ float *part_of(const struct attending *p, int row, int h, int segment)
{
    return p->part + (((size_t)row * p->n_head + h) * p->n_segment + segment) * (p->dim + 2);
}

/* Grid: segments, HEADS heads, rows. */
__global__ void __launch_bounds__(THREADS) segment_kernel(struct attending p)
{
    SHARED(struct attend_tile, t);
    int row = (int)blockIdx.z, head0 = (int)blockIdx.y * HEADS, first = (int)blockIdx.x * SEGMENT;
    struct cu_view v = view_of(&p, row);
    float sum[HEADS][EACH];
    if (first >= v.n)
        return;
    load_query(&t, &p, row, head0);
    attend_segment(&t, &p, &v, first, first + SEGMENT < v.n ? first + SEGMENT : v.n, sum);
#pragma unroll
    for (int i = 0; i < HEADS * EACH; i++) {
        int h = i / EACH, e = (int)threadIdx.x + i % EACH * THREADS;
        if (head0 + h >= p.n_head)
            continue;
        float *to = part_of(&p, row, head0 + h, (int)blockIdx.x);
        if (e < p.dim)
            to[2 + e] = sum[h][i % EACH];
        if (e == 0) {
            to[0] = t.max[h];
            to[1] = t.sum[h];
        }
    }
}

/* Grid: heads, rows. */
__global__ void __launch_bounds__(THREADS) merge_kernel(struct attending p)
{
    int h = (int)blockIdx.x, row = (int)blockIdx.y;
    int n = (view_of(&p, row).n + SEGMENT - 1) / SEGMENT;
    struct merged m = { p.sink[h], 1 };
    float sum[EACH] = { 0 };
    for (int s = 0; s < n; s++) {
        const float *part = part_of(&p, row, h, s);
        float old, add;
        merge(&m, part[0], part[1], &old, &add);
#pragma unroll
        for (int c = 0; c < EACH; c++) {
            int e = (int)threadIdx.x + c * THREADS;
            sum[c] = e < p.dim ? sum[c] * old + part[2 + e] * add : 0;
        }
    }
#pragma unroll
    for (int c = 0; c < EACH; c++) {
        int e = (int)threadIdx.x + c * THREADS;
        if (e < p.dim)
            p.out.x[row * p.out.pitch + (size_t)h * p.dim + e] = sum[c] / m.sum;
    }
}

/* ---- the op -------------------------------------------------------------------------------- */

static int most_keys(const struct rows *r, const struct tensor *picked, int l)
{
    int most = 1;
    for (int i = 0; i < r->n; i++) {
        const struct kv_view *view = r->kv[r->host[i].seq];
        int ratio = view->layer[l].ratio, n = ratio ? (r->host[i].pos + 1) / ratio : 0;
        most = MAX(most, view->shape->window + (picked ? MIN(n, picked->cols) : n));
    }
    return most;
}

void cuda_attend(struct dev *d, struct tensor *out, const struct tensor *q,
                 const struct tensor *picked, const struct attention *at, const struct rows *r,
                 int l)
{
    struct attending p;
    size_t mark = arena_mark(&d->scratch);
    bool few = r->n <= FEW_MAX;
    memset(&p, 0, sizeof p);
    p.n_head = at->n_head;
    p.dim = q->cols / at->n_head;
    p.n_segment = (most_keys(r, picked, l) + SEGMENT - 1) / SEGMENT;
    CHECK(p.dim <= MAX_DIM);
    if (few)
        p.part = (float *)dev_alloc(d, (size_t)r->n * (size_t)(p.n_head * p.n_segment) *
                                           (size_t)(p.dim + 2) * sizeof(float));
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    if (s) {
        unsigned n = (unsigned)r->n, heads = blocks_for((size_t)p.n_head, HEADS);
        p.q = mat_of(q);
        p.out = mat_of(out);
        p.l = l;
        p.scale = at->scale;
        p.sink = at->sink;
        p.picked = picked ? (const int32_t *)picked->data : NULL;
        p.picked_pitch = picked ? picked->pitch / sizeof(int32_t) : 0;
        p.n_picked = picked ? picked->cols : 0;
        p.step = *s;
        if (few) {
            LAUNCH(d, segment_kernel, dim3((unsigned)p.n_segment, heads, n), THREADS, 0, p);
            LAUNCH(d, merge_kernel, dim3((unsigned)p.n_head, n), THREADS, 0, p);
        } else {
            cuda_attend_many(d, &p, r->n);
        }
    }
    arena_rewind(&d->scratch, mark);
}
