/* attend.cu - one softmax over the window, the compressed rows and the sink; keys are the values.
 *
 * Packed rows of the cache are for attend_few.cu and attend_many.cu. Here are rows of any kind: a
 * row's keys are cut into segments of 128, each with a softmax of its own in blocks of their own; a
 * second kernel merges segments in ascending order. */
#include "attend_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 128
#define HEADS 8   /* of a block */
#define KEYS 8    /* that are scored together */
#define SEGMENT 128
#define MAX_DIM 512
#define EACH (MAX_DIM / THREADS) /* elements of a head that a thread sums */
#define TEAM 8    /* lanes that share a score */

/* A segment's softmax so far, for each head: relative to max. */
struct attend_tile {
    float q[HEADS][MAX_DIM], key[KEYS][MAX_DIM + TEAM];
    float score[HEADS][KEYS], max[HEADS], sum[HEADS], shrink[HEADS];
};

/* A warp for every key; keys that are not there are zeros. */
__device__ __forceinline__ void load_keys(struct attend_tile *t, const struct attending *p,
                                          const struct cu_view *v, int j0)
{
    const struct kv_shape *s = &p->step.shape;
    for (int k = WARP_ID; k < KEYS; k += N_WARP) {
        const uint8_t *row = j0 + k < v->n ? key_row(s, v, j0 + k) : NULL;
        for (int i = LANE; i < p->dim; i += WARP)
            t->key[k][i] = !row       ? 0
                           : s->packed ? kv_value(row, s->head_dim, s->rope_dim, i)
                                       : ((const float *)row)[i];
    }
}

/* Scores of all heads and keys of the tile, each by TEAM lanes. */
__device__ __forceinline__ void score_keys(struct attend_tile *t, const struct attending *p,
                                           int n_key)
{
    int lane = (int)threadIdx.x % TEAM;
    for (int at = (int)threadIdx.x / TEAM; at < HEADS * KEYS; at += THREADS / TEAM) {
        int h = at / KEYS, k = at % KEYS;
        float dot = 0;
        for (int i = lane; i < p->dim; i += TEAM)
            dot = fmaf(t->q[h][i], t->key[k][i], dot);
        dot = lanes_sum<TEAM>(dot);
        if (lane == 0)
            t->score[h][k] = k < n_key ? dot * p->scale : -INFINITY;
    }
}

/* Scores to weights; how much smaller what was summed before becomes. The first two warps. */
__device__ __forceinline__ void weigh_keys(struct attend_tile *t)
{
    int h = (int)threadIdx.x / KEYS, k = (int)threadIdx.x % KEYS;
    if (h >= HEADS)
        return;
    float x = t->score[h][k], old = t->max[h], max = x;
    for (int i = KEYS / 2; i > 0; i /= 2)
        max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, i));
    max = fmaxf(max, old);
    float w = exp_below(x, max), sum = lanes_sum<KEYS>(w);
    t->score[h][k] = w;
    if (k == 0) {
        t->shrink[h] = exp_below(old, max);
        t->sum[h] = t->sum[h] * t->shrink[h] + sum;
        t->max[h] = max;
    }
}

/* Keys first .. last-1 of the query; values of this thread's elements to sum. */
__device__ __forceinline__ void attend_segment(struct attend_tile *t, const struct attending *p,
                                               const struct cu_view *v, int first, int last,
                                               float (*sum)[EACH])
{
    for (int h = (int)threadIdx.x; h < HEADS; h += THREADS) {
        t->max[h] = -INFINITY;
        t->sum[h] = 0;
    }
#pragma unroll
    for (int i = 0; i < HEADS * EACH; i++)
        sum[i / EACH][i % EACH] = 0;
    for (int j = first; j < last; j += KEYS) {
        __syncthreads();
        load_keys(t, p, v, j);
        __syncthreads();
        score_keys(t, p, last - j);
        __syncthreads();
        weigh_keys(t);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < HEADS * EACH; i++) {
            int h = i / EACH, e = (int)threadIdx.x + i % EACH * THREADS;
            float s = sum[h][i % EACH] * t->shrink[h];
#pragma unroll
            for (int k = 0; k < KEYS; k++)
                s = e < p->dim ? fmaf(t->score[h][k], t->key[k][e], s) : s;
            sum[h][i % EACH] = s;
        }
    }
    __syncthreads();
}

__device__ __forceinline__ void load_query(struct attend_tile *t, const struct attending *p,
                                           int row, int head0)
{
    for (int i = (int)threadIdx.x; i < HEADS * p->dim; i += THREADS) {
        int h = i / p->dim, e = i % p->dim;
        t->q[h][e] = head0 + h < p->n_head
                         ? p->q.x[row * p->q.pitch + (size_t)(head0 + h) * p->dim + e]
                         : 0;
    }
}

__device__ __forceinline__ float *part_of(const struct attending *p, int row, int h, int segment)
{
    return p->part + (((size_t)row * p->n_head + h) * p->n_segment + segment) * (p->dim + 2);
}

/* Grid: segments, HEADS heads, rows. */
__global__ void __launch_bounds__(THREADS) segment_kernel(struct attending p)
{
    wait_for_last();
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

/* Several softmaxes as one. */
struct merged {
    float max, sum;
};

/* Adds one with (max, sum); *old, *add: what the values of both are to be multiplied with. */
__device__ __forceinline__ void merge(struct merged *m, float max, float sum, float *old,
                                      float *add)
{
    float both = fmaxf(m->max, max);
    *old = exp_below(m->max, both);
    *add = exp_below(max, both);
    m->sum = m->sum * *old + sum * *add;
    m->max = both;
}

/* Grid: heads, rows. */
__global__ void __launch_bounds__(THREADS) merge_kernel(struct attending p)
{
    wait_for_last();
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

/* Of the compressed rows, the most that one row of the step sees. */
static int most_blocks(const struct rows *r, const struct tensor *picked, int l)
{
    int ratio = r->kv[0]->layer[l].ratio, most = ratio ? cuda_reach(r) / ratio : 0;
    return picked ? MIN(most, picked->cols) : most;
}

/* The same for rows from i on. */
static struct attending from_row(const struct attending *p, int i)
{
    struct attending part = *p;
    part.q.x += (size_t)i * p->q.pitch;
    part.out.x += (size_t)i * p->out.pitch;
    part.picked += p->picked ? (size_t)i * p->picked_pitch : 0;
    part.step.row += i;
    return part;
}

/* Rows of any kind: FEW_MAX at a time. */
static void attend_plain(struct dev *d, const struct attending *p, int n)
{
    unsigned heads = blocks_for((size_t)p->n_head, HEADS), segments = (unsigned)p->n_segment;
    for (int i = 0; i < n; i += FEW_MAX) {
        struct attending part = from_row(p, i);
        unsigned some = (unsigned)MIN(FEW_MAX, n - i);
        LAUNCH_EARLY(d, segment_kernel, dim3(segments, heads, some), THREADS, 0, part);
        LAUNCH_EARLY(d, merge_kernel, dim3((unsigned)p->n_head, some), THREADS, 0, part);
    }
}

/* Everything but where things lie. */
static struct attending attending_of(const struct tensor *q, const struct attention *at,
                                     const struct rows *r, int l)
{
    struct attending p;
    memset(&p, 0, sizeof p);
    p.n_head = at->n_head;
    p.dim = q->cols / at->n_head;
    p.l = l;
    p.scale = at->scale;
    p.sink = at->sink;
    p.ratio = r->kv[r->host[0].seq]->layer[l].ratio;
    CHECK(p.dim <= MAX_DIM);
    return p;
}

void cuda_attend(struct dev *d, struct tensor *out, const struct tensor *q,
                 const struct tensor *picked, const struct attention *at, const struct rows *r,
                 int l)
{
    size_t mark = arena_mark(&d->scratch);
    const struct kv_shape *shape = r->kv[r->host[0].seq]->shape;
    struct attending p = attending_of(q, at, r, l);
    bool packed = cuda_attends_many(shape), few = packed && r->n <= FEW_MAX;
    int n_block = most_blocks(r, picked, l), n_plain = MIN(r->n, FEW_MAX) * p.n_head;
    p.n_window = few ? cuda_few_segments(shape->window) : 0;
    p.n_segment = few ? p.n_window + cuda_few_segments(n_block)
                      : (shape->window + n_block + SEGMENT - 1) / SEGMENT;
    if (few)
        p.part = (float *)dev_alloc(d, cuda_few_bytes(&p, r->n));
    else if (!packed)
        p.part = (float *)dev_alloc(d, (size_t)(n_plain * p.n_segment) * (size_t)(p.dim + 2) *
                                           sizeof(float));
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    if (s) {
        p.q = mat_of(q);
        p.out = mat_of(out);
        p.picked = picked ? (const int32_t *)picked->data : NULL;
        p.picked_pitch = picked ? picked->pitch / sizeof(int32_t) : 0;
        p.n_picked = picked ? picked->cols : 0;
        p.step = *s;
        if (few && at->back)
            p.back = *at->back;
        (few ? cuda_attend_few : packed ? cuda_attend_many : attend_plain)(d, &p, r->n);
    }
    if (at->back && !few)
        cuda_rope(d, out, at->n_head, at->back, true, r);
    arena_rewind(&d->scratch, mark);
}
