/* compress.cu - rows into the cache: window rows, pooled blocks, the frontiers that later blocks
 * need. A block of threads for each row of the step; packing as in src/quant/kv_row.c, bit for
 * bit. */
#include "pack_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 128
#define MAX_DIM 1024

/* A cached row being made, in shared memory. */
struct row_buffer {
    float x[MAX_DIM];
    struct cu_sums sums;
};

/* Grid: rows. */
__global__ void __launch_bounds__(THREADS) store_kernel(struct cu_mat kv, struct cu_step s, int l)
{
    struct cu_row r = s.row[blockIdx.x];
    const struct kv_layer *layer = kv_of(&s, r.seq, l);
    uint8_t *slot = layer->ring + (size_t)(r.pos % s.shape.ring_cap) * s.shape.row_bytes;
    const float *x = kv.x + blockIdx.x * kv.pitch;
    if (s.shape.packed)
        pack_kv_row(x, s.shape.head_dim, s.shape.rope_dim, slot, s.shape.row_bytes);
    else
        copy_row(x, s.shape.head_dim, slot);
}

void cuda_kv_store(struct dev *d, const struct tensor *kv, const struct rows *r, int l)
{
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    if (s)
        LAUNCH(d, store_kernel, dim3((unsigned)r->n), THREADS, 0, mat_of(kv), *s, l);
}

/* ---- pooling ------------------------------------------------------------------------------- */

struct pooling {
    struct cu_mat a, s;
    struct compressor c;
    struct rope rope;
    struct cu_step step;
    int l;
};

__device__ __forceinline__ const struct kv_front *front_of(const struct pooling *p, int seq)
{
    const struct kv_layer *layer = kv_of(&p->step, seq, p->l);
    return p->c.index ? &layer->index : &layer->main;
}

/* Channel k of token t's value and gate score; the row at hand is number i of the step. */
__device__ __forceinline__ float2 input_at(const struct pooling *p, const struct cu_row *r, int i,
                                           int t, int k)
{
    int back = r->pos - t, width = p->c.width;
    if (back > i - r->first) {
        const struct kv_front *f = front_of(p, r->seq);
        size_t at = (size_t)(t % f->cap) * width + k;
        return { f->a[at], f->s[at] };
    }
    size_t row = (size_t)(i - back);
    return { p->a.x[row * p->a.pitch + k],
             p->s.x[row * p->s.pitch + k] + p->c.ape[(size_t)(t % p->c.ratio) * width + k] };
}

/* Channel k of the row whose block ends at r: the mean of the values weighted by a softmax of the
 * scores. Overlapping, the block itself speaks through the second half of the channels. */
__device__ __forceinline__ float pool_channel(const struct pooling *p, const struct cu_row *r,
                                              int i, int k)
{
    int dim = p->c.dim, ratio = p->c.ratio, last = r->pos;
    bool overlap = p->c.width == 2 * dim;
    int own = overlap ? last + 1 - ratio : 0, first = last + 1 - (overlap ? 2 : 1) * ratio;
    float max = -INFINITY, sum = 0, value = 0;
    for (int t = first < 0 ? 0 : first; t <= last; t++)
        max = fmaxf(max, input_at(p, r, i, t, overlap && t >= own ? dim + k : k).y);
    for (int t = first < 0 ? 0 : first; t <= last; t++) {
        float2 in = input_at(p, r, i, t, overlap && t >= own ? dim + k : k);
        float w = expf(in.y - max);
        sum += w;
        value = fmaf(w, in.x, value);
    }
    return value / sum;
}

__device__ __forceinline__ void norm_rotate(struct row_buffer *z, const struct pooling *p, int pos)
{
    float sum = 0;
    int n = p->c.dim;
    for (int k = (int)threadIdx.x; k < n; k += THREADS)
        sum = fmaf(z->x[k], z->x[k], sum);
    float scale = 1 / sqrtf(block_sum(sum, &z->sums) / (float)n + p->c.eps);
    for (int k = (int)threadIdx.x; k < n; k += THREADS)
        z->x[k] = z->x[k] * scale * p->c.norm[k];
    __syncthreads();
    float *end = z->x + n - 2 * p->rope.n_pair;
    for (int i = (int)threadIdx.x; i < p->rope.n_pair; i += THREADS)
        rotate_pair(end + 2 * i, (float)pos * p->rope.freq[i], false);
    __syncthreads();
}

__device__ __forceinline__ void append_row(struct row_buffer *z, const struct pooling *p,
                                           const struct cu_row *r)
{
    const struct kv_shape *s = &p->step.shape;
    const struct kv_layer *layer = kv_of(&p->step, r->seq, p->l);
    int b = r->pos / p->c.ratio, per = s->block_tok / layer->ratio;
    uint8_t *block = (p->c.index ? layer->index_block : layer->block)[b / per];
    uint8_t *row = block + (size_t)(b % per) * (p->c.index ? s->index_row_bytes : s->row_bytes);
    if (!s->packed) {
        copy_row(z->x, p->c.dim, row);
    } else if (p->c.index) {
        hadamard_row(z->x, p->c.dim);
        pack_index_row(z->x, p->c.dim, row);
    } else {
        pack_kv_row(z->x, s->head_dim, s->rope_dim, row, s->row_bytes);
    }
}

/* Grid: rows; those that end a block make its row. */
__global__ void __launch_bounds__(THREADS) pool_kernel(struct pooling p)
{
    SHARED(struct row_buffer, z);
    int i = (int)blockIdx.x;
    struct cu_row r = p.step.row[i];
    if ((r.pos + 1) % p.c.ratio)
        return;
    for (int k = (int)threadIdx.x; k < p.c.dim; k += THREADS)
        z.x[k] = pool_channel(&p, &r, i, k);
    __syncthreads();
    norm_rotate(&z, &p, r.pos + 1 - p.c.ratio);
    append_row(&z, &p, &r);
}

/* After pooling, which reads what this overwrites. Grid: rows; the last `cap` of a span stay. */
__global__ void __launch_bounds__(THREADS) keep_kernel(struct pooling p)
{
    int i = (int)blockIdx.x;
    struct cu_row r = p.step.row[i];
    const struct kv_front *f = front_of(&p, r.seq);
    if (i < r.first + r.count - f->cap)
        return;
    for (int k = (int)threadIdx.x; k < f->width; k += THREADS) {
        float2 in = input_at(&p, &r, i, r.pos, k);
        f->a[(size_t)(r.pos % f->cap) * f->width + k] = in.x;
        f->s[(size_t)(r.pos % f->cap) * f->width + k] = in.y;
    }
}

void cuda_compress(struct dev *d, const struct tensor *a, const struct tensor *s,
                   const struct compressor *c, const struct rope *rope, const struct rows *r, int l)
{
    CHECK(c->dim <= MAX_DIM);
    const struct cu_step *step = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    if (!step)
        return;
    struct pooling p = { mat_of(a), mat_of(s), *c, *rope, *step, l };
    LAUNCH(d, pool_kernel, dim3((unsigned)r->n), THREADS, 0, p);
    LAUNCH(d, keep_kernel, dim3((unsigned)r->n), THREADS, 0, p);
}

/* ---- index queries ------------------------------------------------------------------------- */

/* Grid: heads, rows. */
__global__ void __launch_bounds__(THREADS) query_kernel(struct cu_mat q, int dim, struct rope rope,
                                                        struct cu_step s)
{
    SHARED(struct row_buffer, z);
    float *v = q.x + blockIdx.y * q.pitch + (size_t)blockIdx.x * dim;
    float *end = z.x + dim - 2 * rope.n_pair;
    for (int k = (int)threadIdx.x; k < dim; k += THREADS)
        z.x[k] = v[k];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < rope.n_pair; i += THREADS)
        rotate_pair(end + 2 * i, (float)s.row[blockIdx.y].pos * rope.freq[i], false);
    __syncthreads();
    if (s.shape.packed) {
        hadamard_row(z.x, dim);
        simulate_fp4(z.x, dim);
    }
    for (int k = (int)threadIdx.x; k < dim; k += THREADS)
        v[k] = z.x[k];
}

void cuda_index_query(struct dev *d, struct tensor *q, const struct indexer *ix,
                      const struct rope *rope, const struct rows *r)
{
    CHECK(ix->dim <= MAX_DIM);
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    dim3 grid((unsigned)ix->n_head, (unsigned)r->n);
    if (s)
        LAUNCH(d, query_kernel, grid, THREADS, 0, mat_of(q), ix->dim, *rope, *s);
}
