/* attend_few.cu - attention of few rows, on packed rows of the cache: short, whatever is seen.
 *
 * What a row sees is cut into segments of 32 keys, those of the window first; each has a softmax of
 * its own for HEADS heads in a block of threads, and a second kernel merges segments in ascending
 * order. Keys are unpacked once to bfloat16, which holds them exactly; queries enter the tensor
 * cores as sums of three bfloat16, all their bits, and weights as sums of two. */
#include "attend_impl.h"
#include "mma_impl.h"
#include "unpack_impl.h"

#define THREADS 256
#define WARPS (THREADS / WARP)
#define HEADS 16   /* of a block */
#define SEGMENT 32 /* keys of a block */
#define MAX_DIM 512
#define OWN (MAX_DIM / WARPS) /* dimensions of a warp: it scores by these and sums these */
#define STEPS (OWN / 16)
#define OWN_KEYS (SEGMENT / WARPS)
#define PITCH (SEGMENT / 2 + 4) /* so that eight rows of weights begin in different banks */

/* Keys lie in pieces of 8 numbers, in every row exchanged among eight so that reading a column of
 * pieces meets all banks; scores likewise. */
struct few_tile {
    uint16_t key[SEGMENT][MAX_DIM];
    union {
        float score[WARPS][HEADS][SEGMENT]; /* each warp's part of them */
        uint32_t weight[2][HEADS][PITCH];   /* two keys together: high parts, low parts */
    };
};

__device__ __forceinline__ uint16_t *piece(struct few_tile *t, int key, int e)
{
    return t->key[key] + ((e / 8) ^ (key % 8)) * 8;
}

__device__ __forceinline__ float2 *two_scores(struct few_tile *t, int warp, int head, int key)
{
    return (float2 *)(void *)&t->score[warp][head][key ^ head % 4 * 8];
}

/* ---- keys ---------------------------------------------------------------------------------- */

/* Where key number j of the segment lies for a query; NULL: there is none, or it is not one of
 * those that are asked for: that the step itself wrote or chose, or that older ones wrote. */
__device__ __forceinline__ const uint8_t *few_key(const struct attending *p, int row, int j,
                                                  bool fresh)
{
    struct cu_row r = p->step.row[row];
    const struct kv_shape *s = &p->step.shape;
    const struct kv_layer *layer = kv_of(&p->step, r.seq, p->l);
    int segment = (int)blockIdx.x, back = s->window - 1 - (segment * SEGMENT + j);
    int b = (segment - p->n_window) * SEGMENT + j, per = p->ratio ? s->block_tok / p->ratio : 1;
    int own = row - r.first; /* rows of the step before it */
    if (segment < p->n_window)
        return back < 0 || back > r.pos || (back <= own) != fresh
                   ? NULL : layer->ring + (size_t)((r.pos - back) % s->ring_cap) * s->row_bytes;
    bool there = b < (r.pos + 1) / p->ratio && (!p->picked || b < p->n_picked);
    if (!there || (p->picked || (b + 1) * p->ratio > r.pos - own) != fresh)
        return NULL;
    int at = p->picked ? p->picked[row * p->picked_pitch + b] : b;
    return layer->block[at / per] + (size_t)(at % per) * s->row_bytes;
}

/* Each warp its keys: first the older ones, and zeros for all others, then the fresh ones. One bit
 * for each that is there. */
template <bool fresh>
__device__ __forceinline__ uint32_t load_few_keys(struct few_tile *t, const struct attending *p,
                                                  int row)
{
    const struct kv_shape *s = &p->step.shape;
    uint64_t at = (uint64_t)(uintptr_t)few_key(p, row, LANE, fresh);
    uint32_t there = __ballot_sync(ALL_LANES, at != 0);
    int key0 = WARP_ID * OWN_KEYS;
    const uint8_t *from[OWN_KEYS];
    if (fresh && !(there >> key0 & ((1u << OWN_KEYS) - 1)))
        return there;
#pragma unroll
    for (int k = 0; k < OWN_KEYS; k++)
        from[k] = (const uint8_t *)(uintptr_t)__shfl_sync(ALL_LANES, at, key0 + k);
    for (int e = LANE * EACH; e < p->dim; e += WARP * EACH) {
        struct packed x[OWN_KEYS];
#pragma unroll
        for (int k = 0; k < OWN_KEYS; k++)
            x[k] = fetch(s, from[k], e);
#pragma unroll
        for (int k = 0; k < OWN_KEYS; k++)
            if (!fresh || from[k])
                *(uint4 *)(void *)piece(t, key0 + k, e) = widen_packed(&x[k]);
    }
    return there;
}

/* ---- scores -------------------------------------------------------------------------------- */

/* Of every step of 16 dimensions: rows LANE / 4 and eight more, columns 2 (LANE % 4) and eight
 * more, as the tensor cores take them. */
__device__ __forceinline__ void load_few_query(float2 (*q)[4], const struct attending *p, int row,
                                               int head0)
{
    const float *from = p->q.x + row * p->q.pitch;
    bool even = (uintptr_t)from % sizeof(float2) == 0;
#pragma unroll
    for (int i = 0; i < STEPS * 4; i++) {
        int head = head0 + LANE / 4 + i % 2 * 8;
        int e = WARP_ID * OWN + i / 4 * 16 + LANE % 4 * 2 + i / 2 % 2 * 8;
        const float *x = from + (size_t)head * p->dim + e;
        q[i / 4][i % 4] = { 0, 0 };
        if (head < p->n_head && e < p->dim && even)
            q[i / 4][i % 4] = *(const float2 *)x;
        else if (head < p->n_head && e < p->dim)
            q[i / 4][i % 4] = { x[0], x[1] };
    }
}

/* As sums of three bfloat16: 24 bits. */
__device__ __forceinline__ void split_in_three(float2 x, uint32_t *high, uint32_t *mid,
                                               uint32_t *low)
{
    bf16_split(x.x, x.y, high, mid);
    float a = x.x - __uint_as_float(*high << 16) - __uint_as_float(*mid << 16);
    float b = x.y - __uint_as_float(*high & 0xffff0000) - __uint_as_float(*mid & 0xffff0000);
    a = a - a == 0 ? a : 0;
    b = b - b == 0 ? b : 0;
    BF16_PAIR(*low, a, b);
}

/* This warp's part of all scores. */
__device__ __forceinline__ void score_few(struct few_tile *t, float2 (*q)[4], int dim)
{
    float sum[3][SEGMENT / 8][4] = {};
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        int e = WARP_ID * OWN + step * 16;
        uint32_t a[3][4], b[SEGMENT / 8][2];
        if (e >= dim)
            break;
#pragma unroll
        for (int i = 0; i < 4; i++)
            split_in_three(q[step][i], &a[0][i], &a[1][i], &a[2][i]);
#pragma unroll
        for (int j = 0; j < SEGMENT / 8; j += 2)
            LOAD_8X8_X4(b[j], piece(t, j * 8 + LANE / 16 * 8 + LANE % 8, e + LANE / 8 % 2 * 8));
#pragma unroll
        for (int i = 0; i < 3 * SEGMENT / 8; i++)
            MMA_BF16(sum[i / (SEGMENT / 8)][i % (SEGMENT / 8)], a[i / (SEGMENT / 8)],
                     b[i % (SEGMENT / 8)]);
    }
#pragma unroll
    for (int i = 0; i < SEGMENT / 4; i++) {
        int j = i / 2, half = i % 2 * 2;
        *two_scores(t, WARP_ID, LANE / 4 + i % 2 * 8, j * 8 + LANE % 4 * 2) = {
            sum[2][j][half] + sum[1][j][half] + sum[0][j][half],
            sum[2][j][half + 1] + sum[1][j][half + 1] + sum[0][j][half + 1]
        };
    }
}

/* Scores to weights, two keys of a head for each thread; the segment's maximum and sum. */
__device__ __forceinline__ float2 weigh_few(struct few_tile *t, const struct attending *p,
                                            uint32_t there)
{
    int head = (int)threadIdx.x / 16, key = (int)threadIdx.x % 16 * 2;
    float2 x = { 0, 0 };
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        float2 part = *two_scores(t, w, head, key);
        x = { x.x + part.x, x.y + part.y };
    }
    x.x = there >> key & 1 ? x.x * p->scale : -INFINITY;
    x.y = there >> key & 2 ? x.y * p->scale : -INFINITY;
    float max = fmaxf(x.x, x.y);
    for (int i = 8; i > 0; i /= 2)
        max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, i));
    x = { exp_below(x.x, max), exp_below(x.y, max) };
    float sum = lanes_sum<16>(x.x + x.y);
    __syncthreads(); /* weights take the scores' place */
    bf16_split(x.x, x.y, &t->weight[0][head][key / 2], &t->weight[1][head][key / 2]);
    return { max, sum };
}

/* ---- values -------------------------------------------------------------------------------- */

/* This warp's dimensions of the values' weighted sum. */
__device__ __forceinline__ void sum_few(struct few_tile *t, float (*sum)[4], int dim)
{
#pragma unroll
    for (int step = 0; step < SEGMENT / 16; step++) {
        uint32_t a[2][4], b[OWN / 8][2];
#pragma unroll
        for (int i = 0; i < 8; i++)
            a[i / 4][i % 4] = t->weight[i / 4][LANE / 4 + i % 2 * 8]
                                       [step * 8 + LANE % 4 + i / 2 % 2 * 4];
#pragma unroll
        for (int j = 0; j < OWN / 8; j += 2) {
            int e = WARP_ID * OWN + j * 8 + LANE / 16 * 8;
            if (WARP_ID * OWN + j * 8 < dim)
                LOAD_8X8_X4_TRANSPOSED(b[j], piece(t, step * 16 + LANE % 16, e));
        }
#pragma unroll
        for (int i = 0; i < 2 * OWN / 8; i++)
            if (WARP_ID * OWN + i % (OWN / 8) * 8 < dim)
                MMA_BF16(sum[i % (OWN / 8)], a[i / (OWN / 8)], b[i % (OWN / 8)]);
    }
}

/* part: [row][head][segment], first the maxima and sums of all, then the values. */
__device__ __forceinline__ size_t few_place(const struct attending *p, int row, int head)
{
    return ((size_t)row * p->n_head + head) * p->n_segment + blockIdx.x;
}

__device__ __forceinline__ float *few_values(const struct attending *p, int n_row)
{
    return p->part + ((size_t)n_row * p->n_head * p->n_segment + 1) / 2 * 4;
}

/* Grid: segments, HEADS heads, rows. */
__global__ void __launch_bounds__(THREADS) few_kernel(struct attending p)
{
    SHARED(struct few_tile, t);
    int row = (int)blockIdx.z, head0 = (int)blockIdx.y * HEADS;
    int head = head0 + (int)threadIdx.x / 16;
    float2 q[STEPS][4], own = { -INFINITY, 0 }, *stat = (float2 *)(void *)p.part;
    float sum[OWN / 8][4] = {};
    uint32_t there = load_few_keys<false>(&t, &p, row);
    wait_for_last();
    load_few_query(q, &p, row, head0);
    there |= load_few_keys<true>(&t, &p, row);
    __syncthreads();
    if (there) {
        score_few(&t, q, p.dim);
        __syncthreads();
        own = weigh_few(&t, &p, there);
        __syncthreads();
        sum_few(&t, sum, p.dim);
    }
    if (threadIdx.x % 16 == 0 && head < p.n_head)
        stat[few_place(&p, row, head)] = own;
#pragma unroll
    for (int i = 0; i < OWN / 4; i++) {
        int e = WARP_ID * OWN + i / 2 * 8 + LANE % 4 * 2, h = head0 + LANE / 4 + i % 2 * 8;
        float *to = few_values(&p, (int)gridDim.z) + few_place(&p, row, h) * p.dim + e;
        if (there && e < p.dim && h < p.n_head)
            *(float2 *)(void *)to = { sum[i / 2][i % 2 * 2], sum[i / 2][i % 2 * 2 + 1] };
    }
}

/* ---- merging ------------------------------------------------------------------------------- */

#define QUARTER (MAX_DIM / 4) /* threads that each merge four dimensions */
#define TEAMS 4               /* that share the segments */
#define AHEAD 5               /* segments on their way to a team */

struct merge_tile {
    float4 sum[TEAMS][QUARTER];
};

/* The maximum of all segments and the sink, and the sum of all weights. By every warp. */
__device__ __forceinline__ float2 merged_few(const float2 *stat, int n, float sink)
{
    float max = sink, sum = 0;
    for (int s = LANE; s < n; s += WARP)
        max = fmaxf(max, stat[s].x);
    max = warp_max(max);
    for (int s = LANE; s < n; s += WARP)
        sum += stat[s].y * exp_below(stat[s].x, max);
    return { max, warp_sum(sum) + expf(sink - max) };
}

__device__ __forceinline__ void add_weighted(float4 *sum, float4 x, float weight)
{
    if (weight == 0) /* nothing was written there */
        return;
    sum->x = fmaf(x.x, weight, sum->x);
    sum->y = fmaf(x.y, weight, sum->y);
    sum->z = fmaf(x.z, weight, sum->z);
    sum->w = fmaf(x.w, weight, sum->w);
}

/* How the pairs of four dimensions from e are turned back. */
__device__ __forceinline__ void turns_back(float2 *turn, const struct attending *p, int row, int e)
{
    int pair = e / 2 - (p->dim / 2 - p->back.n_pair);
#pragma unroll
    for (int i = 0; i < 2; i++)
        if (pair + i >= 0 && e < p->dim)
            turn[i] = turn_by((float)p->step.row[row].pos * p->back.freq[pair + i], true);
}

/* Four dimensions from e, to where they belong: divided, turned back. */
__device__ __forceinline__ void finish_few(const struct attending *p, int row, float4 sum,
                                           float all, int e, const float2 *turn)
{
    float x[4] = { sum.x / all, sum.y / all, sum.z / all, sum.w / all };
    int pair = e / 2 - (p->dim / 2 - p->back.n_pair);
    float *to = p->out.x + row * p->out.pitch + (size_t)blockIdx.x * p->dim + e;
#pragma unroll
    for (int i = 0; i < 2; i++)
        if (pair + i >= 0)
            turn_pair(x + 2 * i, turn[i]);
#pragma unroll
    for (int i = 0; i < 4; i++)
        to[i] = x[i];
}

/* Grid: heads, rows. */
__global__ void __launch_bounds__(QUARTER *TEAMS) merge_few_kernel(struct attending p)
{
    SHARED(struct merge_tile, t);
    int row = (int)blockIdx.y, team = (int)threadIdx.x / QUARTER, n = p.n_segment;
    int quarter = (int)threadIdx.x % QUARTER, e = 4 * quarter;
    size_t first = ((size_t)row * p.n_head + blockIdx.x) * n;
    const float2 *stat = (const float2 *)(const void *)p.part + first;
    const float *value = few_values(&p, (int)gridDim.y) + first * p.dim + e;
    float4 sum = { 0, 0, 0, 0 };
    float2 all = { 0, 0 }, turn[2];
    float sink = p.sink[blockIdx.x];
    if (team == 0)
        turns_back(turn, &p, row, e);
    wait_for_last();
    for (int s0 = 0; s0 < n; s0 += AHEAD * TEAMS) {
        float4 x[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int s = s0 + i * TEAMS + team;
            x[i] = s < n && e < p.dim ? *(const float4 *)(const void *)(value + (size_t)s * p.dim)
                                      : float4{ 0, 0, 0, 0 };
        }
        if (s0 == 0)
            all = merged_few(stat, n, sink);
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int s = s0 + i * TEAMS + team;
            add_weighted(&sum, x[i], s < n ? exp_below(stat[s].x, all.x) : 0);
        }
    }
    t.sum[team][quarter] = sum;
    __syncthreads();
    if (team > 0 || e >= p.dim)
        return;
    for (int i = 1; i < TEAMS; i++)
        add_weighted(&sum, t.sum[i][quarter], 1);
    finish_few(&p, row, sum, all.y, e, turn);
}

/* ---- launching ----------------------------------------------------------------------------- */

size_t cuda_few_bytes(const struct attending *p, int n)
{
    size_t parts = (size_t)n * (size_t)p->n_head * (size_t)p->n_segment;
    return ((parts + 1) / 2 * 4 + parts * (size_t)p->dim) * sizeof(float);
}

int cuda_few_segments(int n)
{
    return (n + SEGMENT - 1) / SEGMENT;
}

void cuda_attend_few(struct dev *d, const struct attending *p, int n)
{
    dim3 grid((unsigned)p->n_segment, blocks_for((size_t)p->n_head, HEADS), (unsigned)n);
    LAUNCH_EARLY(d, few_kernel, grid, THREADS, 0, *p);
    dim3 heads((unsigned)p->n_head, (unsigned)n);
    LAUNCH_EARLY(d, merge_few_kernel, heads, QUARTER *TEAMS, 0, *p);
}
