/* compress.cu - rows on their way into the cache and to attention: queries, window rows, pooled
 * blocks, the frontiers that later blocks need. One kernel, in which every block of threads has a
 * part of one row to do; packing as in src/quant/kv_row.c, bit for bit. */
#include "pack_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 512
#define WARPS (THREADS / WARP)
#define MAX_DIM 1024       /* of a row */
#define PAIRS 8            /* a lane's part of a query: heads have 2 * WARP * PAIRS elements */
#define INDEX_EACH 4       /* of an index query: WARP * INDEX_EACH */
#define POOL_FEW 8         /* tokens whose inputs a thread asks for together */
#define POOL_MOST 128      /* tokens that are looked up together */

/* One compressor's inputs. */
struct pooling {
    struct cu_mat a, s;
    struct compressor c;
};

/* What of a step is to be done; kernels' blocks take the parts in this order. */
struct preparing {
    struct pooling pool[2];
    int n_pool;
    bool pools, keeps;  /* whether blocks are pooled, frontiers kept */
    struct cu_mat kv;   /* x NULL: none */
    const float *kv_norm; /* NULL: normed and rotated already */
    struct cu_mat q, index_q;
    int n_head, dim, n_index_head, index_dim; /* no heads: none */
    float eps;
    struct rope rope;
    struct cu_step step;
    int l;
};

/* Where a token's values and gate scores are; ape: what its scores get, NULL: they have it. */
struct source {
    const float *a, *s, *ape;
};

/* A row in shared memory: one that is made for the cache, or what heads have in common. */
struct row_buffer {
    float x[MAX_DIM];
    struct cu_sums sums;
    float2 turn[MAX_DIM / 2]; /* of its pairs */
    struct source source[POOL_MOST];
};

/* A thread's part of a row's norm: known before the row is. */
struct finish {
    float by[MAX_DIM / THREADS];
};

/* How a row at pos is rotated; the block waits before anybody uses it. */
__device__ __forceinline__ void find_turns(struct row_buffer *z, const struct rope *rope, int pos)
{
    int t = (int)threadIdx.x;
    if (t < rope->n_pair)
        z->turn[t] = turn_by((float)pos * rope->freq[t], false);
}

__device__ __forceinline__ struct finish finish_for(int n, const float *weight)
{
    struct finish f = {};
    int t = (int)threadIdx.x;
#pragma unroll
    for (int j = 0; j < MAX_DIM / THREADS; j++)
        f.by[j] = t + j * THREADS < n ? weight[t + j * THREADS] : 0;
    return f;
}

__device__ __forceinline__ void norm_rotate(struct row_buffer *z, int n, const struct finish *f,
                                            float eps, int n_pair)
{
    float sum = 0;
    int t = (int)threadIdx.x;
    __syncthreads();
    for (int k = t; k < n; k += THREADS)
        sum = fmaf(z->x[k], z->x[k], sum);
    float scale = 1 / sqrtf(block_sum(sum, &z->sums) / (float)n + eps);
#pragma unroll
    for (int j = 0; j < MAX_DIM / THREADS; j++)
        if (t + j * THREADS < n)
            z->x[t + j * THREADS] = z->x[t + j * THREADS] * scale * f->by[j];
    __syncthreads();
    if (t < n_pair)
        turn_pair(z->x + n - 2 * (n_pair - t), z->turn[t]);
}

/* ---- window rows --------------------------------------------------------------------------- */

__device__ __forceinline__ void store_row(struct row_buffer *z, const struct preparing *p, int i)
{
    struct cu_row r = p->step.row[i];
    const struct kv_shape *s = &p->step.shape;
    const struct kv_layer *layer = kv_of(&p->step, r.seq, p->l);
    uint8_t *slot = layer->ring + (size_t)(r.pos % s->ring_cap) * s->row_bytes;
    struct finish f;
    if (p->kv_norm) {
        find_turns(z, &p->rope, r.pos);
        f = finish_for(s->head_dim, p->kv_norm);
    }
    wait_for_last();
    for (int k = (int)threadIdx.x; k < s->head_dim; k += THREADS)
        z->x[k] = p->kv.x[i * p->kv.pitch + k];
    if (p->kv_norm)
        norm_rotate(z, s->head_dim, &f, p->eps, p->rope.n_pair);
    __syncthreads();
    if (s->packed)
        pack_kv_row(z->x, s->head_dim, s->rope_dim, slot, s->row_bytes);
    else
        copy_row(z->x, s->head_dim, slot);
}

/* ---- pooling ------------------------------------------------------------------------------- */

/* One compressor at one row of the step, number i. */
struct pooler {
    const struct preparing *p;
    const struct pooling *in;
    struct cu_row r;
    int i;
    struct kv_front front;
};

/* Of token t: a row of the step, or one that the frontier kept. */
__device__ __forceinline__ struct source source_of(const struct pooler *at, int t)
{
    const struct pooling *in = at->in;
    int back = at->r.pos - t, width = in->c.width;
    if (back > at->i - at->r.first) {
        size_t slot = (size_t)(t % at->front.cap) * width;
        return { at->front.a + slot, at->front.s + slot, NULL };
    }
    size_t row = (size_t)(at->i - back);
    return { in->a.x + row * in->a.pitch, in->s.x + row * in->s.pitch,
             in->c.ape + (size_t)(t % in->c.ratio) * width };
}

/* Channel k of a token's value and gate score. */
__device__ __forceinline__ float2 input_at(const struct source *from, int k)
{
    float s = from->s[k];
    return { from->a[k], from->ape ? s + from->ape[k] : s };
}

/* The tokens that are pooled: n of them; overlapping, those of the block itself, from `own` on,
 * speak through the second half of the channels. */
struct span_of_tokens {
    int first, n, own, shift;
};

__device__ __forceinline__ struct span_of_tokens span_at(const struct pooler *at)
{
    const struct compressor *c = &at->in->c;
    bool overlap = c->width == 2 * c->dim;
    int end = at->r.pos + 1, first = max(end - (overlap ? 2 : 1) * c->ratio, 0);
    return { first, end - first, end - first - c->ratio, overlap ? c->dim : 0 };
}

/* Up to POOL_MOST of them, from number `from` on. */
__device__ __forceinline__ void find_sources(struct row_buffer *z, const struct pooler *at,
                                             const struct span_of_tokens *s, int from)
{
    int t = from + (int)threadIdx.x;
    __syncthreads();
    if (threadIdx.x < POOL_MOST && t < s->n) {
        struct source one = source_of(at, s->first + t);
        int shift = t >= s->own ? s->shift : 0;
        z->source[threadIdx.x] = { one.a + shift, one.s + shift, one.ape ? one.ape + shift : NULL };
    }
    __syncthreads();
}

/* The next POOL_FEW of n. */
__device__ __forceinline__ void take_few(const struct source *from, int n, int k, float2 *in)
{
#pragma unroll
    for (int j = 0; j < POOL_FEW; j++)
        in[j] = j < n ? input_at(from + j, k) : float2{ 0, -INFINITY };
}

/* Channel k of the row whose block ends here: the mean of the values weighted by a softmax of the
 * scores. All threads take part. */
__device__ __forceinline__ float pool_channel(struct row_buffer *z, const struct pooler *at,
                                              const struct span_of_tokens *s, int k)
{
    float max = -INFINITY, sum = 0, value = 0;
    float2 in[POOL_FEW];
#pragma unroll 1
    for (int t = 0; t < s->n; t += POOL_FEW) {
        if (t % POOL_MOST == 0)
            find_sources(z, at, s, t);
        take_few(z->source + t % POOL_MOST, s->n - t, k, in);
#pragma unroll
        for (int j = 0; j < POOL_FEW; j++)
            max = fmaxf(max, in[j].y);
    }
#pragma unroll 1
    for (int t = 0; t < s->n; t += POOL_FEW) {
        if (t % POOL_MOST == 0 && s->n > POOL_MOST)
            find_sources(z, at, s, t);
        if (s->n > POOL_FEW)
            take_few(z->source + t % POOL_MOST, s->n - t, k, in);
#pragma unroll
        for (int j = 0; j < POOL_FEW; j++) {
            float w = t + j < s->n ? expf(in[j].y - max) : 0;
            sum = t + j < s->n ? sum + w : sum;
            value = t + j < s->n ? fmaf(w, in[j].x, value) : value;
        }
    }
    return value / sum;
}

__device__ __forceinline__ void append_row(struct row_buffer *z, const struct pooler *at)
{
    const struct kv_shape *s = &at->p->step.shape;
    const struct compressor *c = &at->in->c;
    const struct kv_layer *layer = kv_of(&at->p->step, at->r.seq, at->p->l);
    int b = at->r.pos / c->ratio, per = s->block_tok / c->ratio;
    uint8_t *block = (c->index ? layer->index_block : layer->block)[b / per];
    uint8_t *row = block + (size_t)(b % per) * (c->index ? s->index_row_bytes : s->row_bytes);
    if (!s->packed) {
        copy_row(z->x, c->dim, row);
    } else if (c->index) {
        hadamard_row(z->x, c->dim);
        pack_index_row(z->x, c->dim, row);
    } else {
        pack_kv_row(z->x, s->head_dim, s->rope_dim, row, s->row_bytes);
    }
}

/* The row of the block that ends here. */
__device__ __forceinline__ void pool_row(struct row_buffer *z, const struct pooler *at)
{
    const struct compressor *c = &at->in->c;
    struct span_of_tokens span = span_at(at);
    struct finish f = finish_for(c->dim, c->norm);
    find_turns(z, &at->p->rope, at->r.pos + 1 - c->ratio);
    wait_for_last();
    for (int from = 0; from < c->dim; from += THREADS) {
        int k = from + (int)threadIdx.x;
        float x = pool_channel(z, at, &span, min(k, c->dim - 1));
        if (k < c->dim)
            z->x[k] = x;
    }
    norm_rotate(z, c->dim, &f, c->eps, at->p->rope.n_pair);
    __syncthreads();
    append_row(z, at);
}

/* The last `cap` rows of a span stay. */
__device__ __forceinline__ void keep_row(const struct pooler *at)
{
    const struct kv_front *f = &at->front;
    if (at->i < at->r.first + at->r.count - f->cap)
        return;
    struct source from = source_of(at, at->r.pos);
    for (int k = (int)threadIdx.x; k < f->width; k += THREADS) {
        float2 in = input_at(&from, k);
        f->a[(size_t)(at->r.pos % f->cap) * f->width + k] = in.x;
        f->s[(size_t)(at->r.pos % f->cap) * f->width + k] = in.y;
    }
}

__device__ __forceinline__ void compress_row(struct row_buffer *z, const struct preparing *p,
                                             const struct pooling *in, int i)
{
    struct pooler at = { p, in, p->step.row[i], i, {} };
    const struct kv_layer *layer = kv_of(&p->step, at.r.seq, p->l);
    at.front = in->c.index ? layer->index : layer->main;
    if (p->pools && (at.r.pos + 1) % in->c.ratio == 0)
        pool_row(z, &at);
    wait_for_last();
    __syncthreads(); /* pooling reads what keeping overwrites */
    if (p->keeps)
        keep_row(&at);
}

/* ---- queries, a warp for each head ---------------------------------------------------------- */

__device__ __forceinline__ void prepare_query(const struct row_buffer *z,
                                              const struct preparing *p, int head, int i)
{
    if (head >= p->n_head)
        return;
    float *v = p->q.x + i * p->q.pitch + (size_t)head * p->dim + 2 * LANE, sum = 0;
    float x[PAIRS][2];
    int plain = p->dim / 2 - p->rope.n_pair;
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        bool here = 2 * (LANE + k * WARP) < p->dim;
        x[k][0] = here ? v[2 * k * WARP] : 0;
        x[k][1] = here ? v[2 * k * WARP + 1] : 0;
    }
#pragma unroll
    for (int k = 0; k < PAIRS; k++)
        sum = fmaf(x[k][1], x[k][1], fmaf(x[k][0], x[k][0], sum));
    float scale = 1 / sqrtf(warp_sum(sum) / (float)p->dim + p->eps);
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        if (2 * (LANE + k * WARP) >= p->dim)
            continue;
        x[k][0] *= scale;
        x[k][1] *= scale;
        if (LANE + k * WARP >= plain)
            turn_pair(x[k], z->turn[LANE + k * WARP - plain]);
        v[2 * k * WARP] = x[k][0];
        v[2 * k * WARP + 1] = x[k][1];
    }
}

/* A lane's part of a rotated pair: the lane beside it has the other. */
__device__ __forceinline__ float rotate_half(float x, float2 turn)
{
    float other = __shfl_xor_sync(ALL_LANES, x, 1);
    float pair[2] = { LANE % 2 ? other : x, LANE % 2 ? x : other };
    turn_pair(pair, turn);
    return pair[LANE % 2];
}

/* Lane l has elements l, l + 32, ... */
__device__ __forceinline__ void hadamard_lanes(float *x, int n)
{
#pragma unroll
    for (int len = 1; len < WARP; len *= 2)
#pragma unroll
        for (int k = 0; k < INDEX_EACH; k++) {
            float other = __shfl_xor_sync(ALL_LANES, x[k], len);
            x[k] = LANE & len ? other - x[k] : x[k] + other;
        }
#pragma unroll
    for (int len = 1; len < INDEX_EACH; len *= 2)
#pragma unroll
        for (int k = 0; k < INDEX_EACH; k++)
            if (!(k & len) && len * WARP < n) {
                float a = x[k], b = x[k + len];
                x[k] = a + b;
                x[k + len] = a - b;
            }
    float norm = (float)(1 / sqrt((double)n));
#pragma unroll
    for (int k = 0; k < INDEX_EACH; k++)
        x[k] *= norm;
}

__device__ __forceinline__ void prepare_index_query(const struct row_buffer *z,
                                                    const struct preparing *p, int head, int i)
{
    if (head >= p->n_index_head)
        return;
    int n = p->index_dim, plain = n - 2 * p->rope.n_pair;
    float *v = p->index_q.x + i * p->index_q.pitch + (size_t)head * n + LANE, x[INDEX_EACH];
#pragma unroll
    for (int k = 0; k < INDEX_EACH; k++)
        x[k] = k * WARP < n ? v[k * WARP] : 0;
#pragma unroll
    for (int k = 0; k < INDEX_EACH; k++) {
        int at = LANE + k * WARP - plain;
        float turned = rotate_half(x[k], z->turn[max(at, 0) / 2]);
        x[k] = at >= 0 ? turned : x[k];
    }
    if (p->step.shape.packed) {
        hadamard_lanes(x, n);
#pragma unroll
        for (int k = 0; k < INDEX_EACH; k++) {
            float s = e8m0_value(fp4_scale(x[k]));
            x[k] = e2m1_value(e2m1_code(x[k] / s)) * s;
        }
    }
#pragma unroll
    for (int k = 0; k < INDEX_EACH; k++)
        if (k * WARP < n)
            v[k * WARP] = x[k];
}

/* ---- the ops ------------------------------------------------------------------------------- */

/* Grid: parts of a row, rows. */
__global__ void __launch_bounds__(THREADS) prepare_kernel(struct preparing p)
{
    SHARED(struct row_buffer, z);
    int part = (int)blockIdx.x, i = (int)blockIdx.y;
    if (part < p.n_pool) {
        compress_row(&z, &p, &p.pool[part], i);
        return;
    }
    part -= p.n_pool;
    if (p.kv.x && part == 0) {
        store_row(&z, &p, i);
        return;
    }
    part = (part - (p.kv.x != NULL)) * WARPS + WARP_ID;
    int n_head = (p.n_head + WARPS - 1) / WARPS * WARPS;
    find_turns(&z, &p.rope, p.step.row[i].pos);
    __syncthreads();
    wait_for_last();
    if (part < n_head)
        prepare_query(&z, &p, part, i);
    else
        prepare_index_query(&z, &p, part - n_head, i);
}

static void prepare(struct dev *d, const struct preparing *p, int n)
{
    unsigned parts = (unsigned)p->n_pool + (p->kv.x != NULL) +
                     blocks_for((size_t)p->n_head, WARPS) +
                     blocks_for((size_t)p->n_index_head, WARPS);
    LAUNCH_EARLY(d, prepare_kernel, dim3(parts, (unsigned)n), THREADS, 0, *p);
}

/* What a row keeps may be where another row of the same span finds what it pools, unless the
 * frontier is longer than it has to be by that many rows. */
static void prepare_all(struct dev *d, struct preparing *p, int n)
{
    p->pools = p->keeps = true;
    if (p->n_pool == 0 || n <= MAX(1, p->step.shape.slack)) {
        prepare(d, p, n);
        return;
    }
    p->keeps = false;
    prepare(d, p, n);
    p->keeps = true;
    p->pools = false;
    p->kv.x = NULL;
    p->n_head = p->n_index_head = 0;
    prepare(d, p, n);
}

static struct pooling pooling_of(const struct compressing *c)
{
    CHECK(c->c->dim <= MAX_DIM);
    return { mat_of(&c->a), mat_of(&c->s), *c->c };
}

static struct preparing preparing_of(const struct cu_step *s, const struct rope *rope, int l)
{
    struct preparing p = {};
    if (rope)
        p.rope = *rope;
    p.step = *s;
    p.l = l;
    return p;
}

void cuda_prepare(struct dev *d, const struct fresh *f, const struct rows *r, int l)
{
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    if (!s)
        return;
    struct preparing p = preparing_of(s, f->rope, l);
    for (int i = 0; i < f->n_comp; i++)
        p.pool[i] = pooling_of(&f->comp[i]);
    p.n_pool = f->n_comp;
    p.kv = mat_of(&f->kv);
    p.kv_norm = f->kv_norm;
    p.q = mat_of(&f->q);
    p.n_head = f->n_head;
    p.dim = f->q.cols / f->n_head;
    p.eps = f->eps;
    if (f->ix) {
        p.index_q = mat_of(&f->index_q);
        p.n_index_head = f->ix->n_head;
        p.index_dim = f->ix->dim;
    }
    CHECK(p.dim % 2 == 0 && p.dim <= 2 * WARP * PAIRS);
    CHECK(p.index_dim % WARP == 0 && p.index_dim <= WARP * INDEX_EACH);
    prepare_all(d, &p, r->n);
}

void cuda_kv_store(struct dev *d, const struct tensor *kv, const struct rows *r, int l)
{
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    if (!s)
        return;
    struct preparing p = preparing_of(s, NULL, l);
    p.kv = mat_of(kv);
    prepare_all(d, &p, r->n);
}

void cuda_compress(struct dev *d, const struct tensor *a, const struct tensor *s,
                   const struct compressor *c, const struct rope *rope, const struct rows *r, int l)
{
    struct compressing one = { c, *a, *s };
    const struct cu_step *step = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    if (!step)
        return;
    struct preparing p = preparing_of(step, rope, l);
    p.pool[0] = pooling_of(&one);
    p.n_pool = 1;
    prepare_all(d, &p, r->n);
}

void cuda_index_query(struct dev *d, struct tensor *q, const struct indexer *ix,
                      const struct rope *rope, const struct rows *r)
{
    CHECK(ix->dim % WARP == 0 && ix->dim <= WARP * INDEX_EACH);
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    if (!s)
        return;
    struct preparing p = preparing_of(s, rope, 0);
    p.index_q = mat_of(q);
    p.n_index_head = ix->n_head;
    p.index_dim = ix->dim;
    prepare_all(d, &p, r->n);
}
