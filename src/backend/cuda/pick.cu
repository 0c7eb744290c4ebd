/* pick.cu - which compressed rows a query sees: scores of all visible ones, then the exact choice
 * of the best by radix selection, of equal ones the lower. Scores of as many rows of the step are
 * kept at a time as fit a fixed memory. */
#include "pick_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 128
#define WARPS (THREADS / WARP)
#define AT_ONCE 4          /* rows of the cache that a warp scores together */
#define ROWS 64            /* of the cache, for a block */
#define SCORE_BYTES ((size_t)64 << 20)
#define SHARED_BYTES 49152 /* what every GPU gives without being asked */

/* ---- scores -------------------------------------------------------------------------------- */

/* Row b as float32 to shared memory, by a warp. */
__device__ __forceinline__ void load_index_row(const struct picking *p, const struct cu_row *r,
                                               int b, float *to)
{
    const struct kv_shape *s = &p->step.shape;
    const struct kv_layer *layer = kv_of(&p->step, r->seq, p->l);
    int per = s->block_tok / layer->ratio;
    const uint8_t *row = layer->index_block[b / per] + (size_t)(b % per) * s->index_row_bytes;
    for (int k = LANE; k < p->dim; k += WARP)
        to[k] = s->packed ? index_value(row, p->dim, k) : ((const float *)row)[k];
}

/* A warp scores AT_ONCE rows, a lane for every 32nd head. q [dim][heads + 1], the last so that
 * turning q round meets all banks; rows [AT_ONCE][dim]. */
__device__ __forceinline__ void score_rows(const struct picking *p, const float *q, int heads,
                                           const float *rows, const float *weight, float *sum)
{
    for (int h = LANE; h < heads; h += WARP) {
        float dot[AT_ONCE] = { 0 }, w = h < p->n_head ? weight[h] * p->scale : 0;
        for (int k = 0; k < p->dim; k++)
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                dot[i] = fmaf(q[k * (heads + 1) + h], rows[i * p->dim + k], dot[i]);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            sum[i] = h < p->n_head ? fmaf(w, fmaxf(dot[i], 0), sum[i]) : sum[i];
    }
}

/* Grid: ROWS rows of the cache, rows of the step. Shared: q transposed, then each warp's rows. */
__global__ void __launch_bounds__(THREADS) score_kernel(struct picking p)
{
    wait_for_last();
    SHARED_DYNAMIC(float, q);
    int i = p.row0 + (int)blockIdx.y, heads = (p.n_head + WARP - 1) / WARP * WARP;
    struct cu_row r = p.step.row[i];
    int n = n_visible(&p, &r), first = (int)blockIdx.x * ROWS;
    float *mine = q + p.dim * (heads + 1) + WARP_ID * AT_ONCE * p.dim;
    const float *from = p.q.x + (size_t)i * p.q.pitch;
    if (n <= p.top_k || first >= n)
        return;
    for (int at = (int)threadIdx.x; at < heads * p.dim; at += THREADS) {
        int h = at / p.dim, k = at % p.dim;
        q[k * (heads + 1) + h] = h < p.n_head ? from[at] : 0;
    }
    __syncthreads();
    for (int b = first + WARP_ID * AT_ONCE; b < first + ROWS && b < n; b += WARPS * AT_ONCE) {
        float sum[AT_ONCE] = { 0 };
        for (int j = 0; j < AT_ONCE; j++)
            load_index_row(&p, &r, b + j < n ? b + j : n - 1, mine + j * p.dim);
        __syncwarp();
        score_rows(&p, q, heads, mine, p.weight.x + (size_t)i * p.weight.pitch, sum);
        for (int j = 0; j < AT_ONCE; j++) {
            float all = warp_sum(sum[j]);
            if (LANE == 0 && b + j < n)
                p.score[blockIdx.y * p.pitch + b + j] = known(all);
        }
        __syncwarp();
    }
}

/* ---- the choice ---------------------------------------------------------------------------- */

#define COPIES 8 /* of the histogram: most scores begin with the same few digits */
#define SELECT_FEW 1024

struct selection {
    int counted[256][COPIES], histogram[256];
    uint32_t prefix; /* of the last key taken, as far as known */
    int left;        /* how many with that prefix are to be taken */
    int count[WARP];
};

/* Larger floats have larger keys; both zeros are one. */
__device__ __forceinline__ uint32_t key_of(float x)
{
    uint32_t u = __float_as_uint(x + 0.f);
    return u & 0x80000000 ? ~u : u | 0x80000000;
}

/* By a warp, a lane for 8 digits, the largest first: where the counts reach what is left. */
__device__ __forceinline__ void find_digit(struct selection *s, int shift)
{
    int last = 255 - 8 * LANE, own = 0, left = s->left;
    for (int i = 0; i < 8; i++)
        own += s->histogram[last - i];
    int before = own;
    for (int i = 1; i < WARP; i *= 2) {
        int lower = __shfl_up_sync(ALL_LANES, before, i);
        before += LANE >= i ? lower : 0;
    }
    before -= own;
    if (before >= left || before + own < left)
        return;
    for (left -= before; s->histogram[last] < left; last--)
        left -= s->histogram[last];
    s->left = left;
    s->prefix |= (uint32_t)last << shift;
}

/* One more digit of the last key taken: bits shift .. shift + 7. */
__device__ __forceinline__ void narrow(struct selection *s, const float *score, int n, int shift)
{
    uint32_t prefix = s->prefix, mask = shift == 24 ? 0 : 0xffffffffu << (shift + 8);
    int t = (int)threadIdx.x, n_thread = (int)blockDim.x;
    for (int i = t; i < 256 * COPIES; i += n_thread)
        s->counted[i / COPIES][i % COPIES] = 0;
    __syncthreads();
#pragma unroll 4
    for (int b = t; b < n; b += n_thread) {
        uint32_t key = key_of(score[b]);
        if ((key & mask) == prefix)
            atomicAdd(&s->counted[key >> shift & 255][t % COPIES], 1);
    }
    __syncthreads();
    for (int i = t; i < 256; i += n_thread) {
        int sum = 0;
        for (int k = 0; k < COPIES; k++)
            sum += s->counted[i][k];
        s->histogram[i] = sum;
    }
    __syncthreads();
    if (WARP_ID == 0)
        find_digit(s, shift);
    __syncthreads();
}

/* How many threads before this one said yes; *all: in the block. */
__device__ __forceinline__ int rank_of(struct selection *s, bool yes, int *all)
{
    unsigned votes = __ballot_sync(ALL_LANES, yes);
    int rank = __popc(votes & ((1u << LANE) - 1));
    if (LANE == 0)
        s->count[WARP_ID] = __popc(votes);
    __syncthreads();
    *all = 0;
    for (int w = 0; w < N_WARP; w++) {
        rank += w < WARP_ID ? s->count[w] : 0;
        *all += s->count[w];
    }
    __syncthreads();
    return rank;
}

/* Grid: rows of the step. */
__global__ void __launch_bounds__(SELECT_FEW) select_kernel(struct picking p)
{
    wait_for_last();
    SHARED(struct selection, s);
    int i = p.row0 + (int)blockIdx.x, t = (int)threadIdx.x, n_thread = (int)blockDim.x;
    struct cu_row r = p.step.row[i];
    int n = n_visible(&p, &r), k = n < p.top_k ? n : p.top_k;
    int32_t *picked = p.picked + (size_t)i * p.picked_pitch;
    const float *score = p.score + blockIdx.x * p.pitch;
    for (int j = t; j < p.top_k; j += n_thread)
        picked[j] = j < k ? j : -1;
    if (n <= p.top_k)
        return;
    if (t == 0) {
        s.prefix = 0;
        s.left = k;
    }
    __syncthreads();
    for (int shift = 24; shift >= 0; shift -= 8)
        narrow(&s, score, n, shift);
    uint32_t least = s.prefix;
    int n_equal = s.left, n_taken = 0, n_seen = 0;
    for (int b0 = 0; b0 < n; b0 += n_thread) {
        int b = b0 + t, all;
        uint32_t key = b < n ? key_of(score[b]) : 0;
        int equal = n_seen + rank_of(&s, b < n && key == least, &all);
        n_seen += all;
        bool take = b < n && (key > least || (key == least && equal < n_equal));
        int to = n_taken + rank_of(&s, take, &all);
        n_taken += all;
        if (take)
            picked[to] = b;
    }
}

/* ---- the op -------------------------------------------------------------------------------- */

static int most_visible(const struct rows *r, int l)
{
    return MAX(1, cuda_reach(r) / r->kv[0]->layer[l].ratio);
}

void cuda_pick(struct dev *d, struct tensor *picked, const struct tensor *q,
               const struct tensor *weight, const struct indexer *ix, const struct rows *r, int l)
{
    size_t mark = arena_mark(&d->scratch), pitch = (size_t)most_visible(r, l);
    int heads = (ix->n_head + WARP - 1) / WARP * WARP;
    int at_once = (int)MAX((size_t)FEW_MAX, SCORE_BYTES / (pitch * sizeof(float)));
    size_t shared = (size_t)(heads + 1 + WARPS * AT_ONCE) * (size_t)ix->dim * sizeof(float);
    bool many = r->n > FEW_MAX && cuda_scores_many(r->kv[r->host[0].seq]->shape, ix);
    bool scores = pitch > (size_t)ix->top_k; /* else everything is taken */
    CHECK(shared <= SHARED_BYTES);
    at_once = MIN(at_once, r->n);
    float *score = (float *)dev_alloc(d, (size_t)at_once * pitch * sizeof *score);
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    for (int i = 0; s && i < r->n; i += at_once) {
        unsigned n = (unsigned)MIN(at_once, r->n - i);
        struct picking p = { mat_of(q), mat_of(weight), ix->n_head, ix->dim, ix->top_k, l, i,
                             ix->scale, score, pitch, (int32_t *)picked->data,
                             picked->pitch / sizeof(int32_t), *s };
        if (scores && many)
            cuda_score_many(d, &p, (int)n);
        else if (scores)
            LAUNCH_EARLY(d, score_kernel, dim3(blocks_for(pitch, ROWS), n), THREADS, shared, p);
        LAUNCH_EARLY(d, select_kernel, dim3(n), r->n > FEW_MAX ? THREADS : SELECT_FEW, 0, p);
    }
    arena_rewind(&d->scratch, mark);
}
