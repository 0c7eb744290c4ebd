/* attend_many.cu - attention of many rows, on packed rows of the cache: a block for a row and HEADS
 * of its heads, which all see the same keys.
 *
 * Keys are unpacked once to bfloat16, which holds them exactly, and multiplied by tensor cores;
 * queries and weights go in as sums of two bfloat16. Turns of KEYS keys share one softmax whose
 * maximum rises: what was summed before is then scaled down. */
#include "attend_impl.h"
#include "mma_impl.h"
#include "unpack_impl.h"

#define MAX_DIM 512
#define PITCH (MAX_DIM + 8) /* so that eight rows begin in different banks */
#define TEAM 4              /* threads that weigh one head's keys */
#define KNOWN 256           /* keys whose places are looked up together */

/* Grid's block: TEAM * HEADS threads. To score, a warp takes 16 heads and every second 8 keys; to
 * sum, 32 heads and a quarter of the dimensions. */
template <int HEADS, int KEYS> struct attend_tile {
    uint16_t q[2][HEADS][PITCH], key[KEYS][PITCH];
    float score[HEADS][KEYS + 4]; /* becomes weights: high parts, then low parts */
    float shrink[HEADS];
    const uint8_t *row[KNOWN];
};

/* ---- to shared memory ---------------------------------------------------------------------- */

/* Whether its rows can be read and written two numbers at a time. */
__device__ __forceinline__ bool in_pairs(struct cu_mat m)
{
    return (uintptr_t)m.x % sizeof(float2) == 0 && m.pitch % 2 == 0;
}

__device__ __forceinline__ float2 pair_at(const float *x, bool there, bool even)
{
    if (there && even)
        return *(const float2 *)x;
    return { there ? x[0] : 0, there ? x[1] : 0 };
}

template <int HEADS, int KEYS>
__device__ __forceinline__ void load_query(struct attend_tile<HEADS, KEYS> *t,
                                           const struct attending *p, int row, int head0)
{
    const int n = 16; /* pairs on their way together: of two heads */
    bool even = in_pairs(p->q);
    for (int h = 2 * WARP_ID; h < HEADS; h += 2 * N_WARP)
        for (int e0 = 2 * LANE; e0 < p->dim; e0 += n * WARP) {
            float2 x[n];
#pragma unroll
            for (int i = 0; i < n; i++) {
                int own = head0 + h + i % 2, e = e0 + i / 2 * 2 * WARP;
                const float *q = p->q.x + row * p->q.pitch + (size_t)own * p->dim + e;
                x[i] = pair_at(q, own < p->n_head && e < p->dim, even);
            }
#pragma unroll
            for (int i = 0; i < n; i++) {
                uint16_t *to = t->q[0][h + i % 2] + e0 + i / 2 * 2 * WARP;
                bf16_split(x[i].x, x[i].y, (uint32_t *)to, (uint32_t *)(to + HEADS * PITCH));
            }
        }
}

/* Asks for the query of a row that will soon be some block's, so that it comes while this one
 * computes. */
template <int HEADS>
__device__ __forceinline__ void expect_query(const struct attending *p, int row, int head0)
{
    int heads = p->n_head - head0 < HEADS ? p->n_head - head0 : HEADS;
    const float *q = p->q.x + row * p->q.pitch + (size_t)head0 * p->dim;
    for (int at = (int)threadIdx.x * 32; at < heads * p->dim; at += HEADS * TEAM * 32)
        PREFETCH(q + at);
}

/* Where KNOWN keys from j0 on lie; in the place of those that are not there another one, which will
 * have no weight. */
template <int HEADS, int KEYS>
__device__ __forceinline__ void find_keys(struct attend_tile<HEADS, KEYS> *t,
                                          const struct attending *p, const struct cu_view *v,
                                          int j0)
{
    for (int k = (int)threadIdx.x; k < KNOWN; k += HEADS * TEAM)
        t->row[k] = key_row(&p->step.shape, v, j0 + k < v->n ? j0 + k : j0);
}

/* Every warp its share of the keys from number k0 of those found, up to a multiple of 16. */
template <int HEADS, int KEYS>
__device__ __forceinline__ void load_keys(struct attend_tile<HEADS, KEYS> *t,
                                          const struct attending *p, int k0, int n_key)
{
    const int n = KEYS * WARP / (HEADS * TEAM);
    int own = WARP_ID * n;
    if (own >= (n_key + 15) / 16 * 16)
        return;
    for (int e = LANE * EACH; e < p->dim; e += WARP * EACH) {
        struct packed x[n];
#pragma unroll
        for (int k = 0; k < n; k++)
            x[k] = fetch(&p->step.shape, t->row[k0 + own + k], e);
#pragma unroll
        for (int k = 0; k < n; k++) {
            uint16_t *to = t->key[own + k] + e;
            *(uint4 *)(void *)to = widen_packed(&x[k]);
        }
    }
}

/* ---- scores and weights -------------------------------------------------------------------- */

/* The first 16 * n keys. */
template <int n, int HEADS, int KEYS>
__device__ __forceinline__ void score_keys(struct attend_tile<HEADS, KEYS> *t, int dim)
{
    int head = WARP_ID / 2 * 16, key = WARP_ID % 2 * 8;
    float sum[2][n][4] = {};
    const uint16_t *q = &t->q[0][head + LANE % 16][LANE / 16 * 8];
    const uint16_t *k = &t->key[key + LANE % 8][LANE / 8 % 2 * 8];
#pragma unroll 2
    for (int e = 0; e < dim; e += 16) {
        uint32_t a[2][4], b[n][2];
        LOAD_8X8_X4(a[0], q + e);
        LOAD_8X8_X4(a[1], q + e + HEADS * PITCH);
#pragma unroll
        for (int j = 0; j < n; j++)
            LOAD_8X8_X2(b[j], k + e + 16 * j * PITCH);
#pragma unroll
        for (int i = 0; i < 2 * n; i++)
            MMA_BF16(sum[i / n][i % n], a[i / n], b[i % n]);
    }
#pragma unroll
    for (int j = 0; j < n; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            t->score[head + LANE / 4 + i / 2 * 8][key + 16 * j + LANE % 4 * 2 + i % 2] =
                sum[0][j][i] + sum[1][j][i];
}

/* One head's softmax so far; each of a team sums its own weights. */
struct running {
    float max, sum;
};

/* Scores to weights, in the same place: four neighbouring keys at a time for each of a team. */
template <int HEADS, int KEYS>
__device__ __forceinline__ void weigh_keys(struct attend_tile<HEADS, KEYS> *t, struct running *r,
                                           float scale, int n_key)
{
    const int n = KEYS / TEAM;
    int h = (int)threadIdx.x / TEAM, first = (int)threadIdx.x % TEAM * 4;
    uint16_t *high = (uint16_t *)t->score[h], *low = high + KEYS;
    float x[n], max = -INFINITY;
#pragma unroll
    for (int i = 0; i < n; i++) {
        int k = first + i / 4 * 16 + i % 4;
        x[i] = k < n_key ? t->score[h][k] * scale : -INFINITY;
        max = fmaxf(max, x[i]);
    }
    for (int i = TEAM / 2; i > 0; i /= 2)
        max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, i));
    max = fmaxf(max, r->max);
    float shrink = exp_below(r->max, max), sum = r->sum * shrink;
#pragma unroll
    for (int i = 0; i < n; i++) {
        x[i] = exp_below(x[i], max);
        sum += x[i];
    }
    *r = { max, sum };
    __syncwarp();
    if (first == 0)
        t->shrink[h] = shrink;
#pragma unroll
    for (int i = 0; i < n; i += 2) {
        int k = first + i / 4 * 16 + i % 4;
        bf16_split(x[i], x[i + 1], (uint32_t *)(high + k), (uint32_t *)(low + k));
    }
}

/* ---- values -------------------------------------------------------------------------------- */

#define PART (MAX_DIM / 4) /* dimensions of a warp */

/* sum[i][j]: heads 16 i, dimensions 8 j of the warp's; beyond dim they mean nothing. */
template <int HEADS, int KEYS>
__device__ __forceinline__ void sum_values(const struct attend_tile<HEADS, KEYS> *t, int dim,
                                           int n_key, float (*sum)[PART / 8][4])
{
    int head = WARP_ID / 4 * 32, first = WARP_ID % 4 * PART;
    if (first >= dim)
        return;
#pragma unroll
    for (int i = 0; i < 2 * PART / 8 * 4; i++) {
        int m = i / (PART / 2), c = i % 4;
        sum[m][i / 4 % (PART / 8)][c] *= t->shrink[head + 16 * m + LANE / 4 + c / 2 * 8];
    }
    for (int k = 0; k < n_key; k += 16) {
        uint32_t w[2][2][4]; /* low and high parts */
#pragma unroll
        for (int i = 0; i < 4; i++)
            LOAD_8X8_X4(w[i / 2][i % 2], (const uint16_t *)t->score[head + i % 2 * 16 + LANE % 16] +
                                             k + LANE / 16 * 8 + (i < 2 ? KEYS : 0));
#pragma unroll
        for (int j = 0; j < PART / 8; j += 4) {
            uint32_t b[4][2];
            const uint16_t *key = &t->key[k + LANE % 16][first + 8 * j + LANE / 16 * 8];
            LOAD_8X8_X4_TRANSPOSED(b[0], key);
            LOAD_8X8_X4_TRANSPOSED(b[2], key + 16);
#pragma unroll
            for (int i = 0; i < 16; i++)
                MMA_BF16(sum[i / 4 % 2][j + i % 4], w[i / 8][i / 4 % 2], b[i % 4]);
        }
    }
}

__device__ __forceinline__ void store_values(const struct attending *p, int row, int head0,
                                             const float (*sum)[PART / 8][4], const float *times)
{
    int first = WARP_ID % 4 * PART + LANE % 4 * 2;
    bool even = in_pairs(p->out);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int h = WARP_ID / 4 * 32 + 8 * i + LANE / 4, m = i / 2, c = i % 2 * 2;
        if (head0 + h >= p->n_head)
            continue;
        float *out = p->out.x + row * p->out.pitch + (size_t)(head0 + h) * p->dim + first;
#pragma unroll
        for (int j = 0; j < PART / 8; j++) {
            float2 x = { sum[m][j][c] * times[h], sum[m][j][c + 1] * times[h] };
            if (first + 8 * j >= p->dim)
                break;
            if (even) {
                *(float2 *)(out + 8 * j) = x;
            } else {
                out[8 * j] = x.x;
                out[8 * j + 1] = x.y;
            }
        }
    }
}

/* Grid: rows, HEADS heads; so many rows are computed at a time. */
template <int HEADS, int KEYS>
__global__ void __launch_bounds__(HEADS *TEAM) attend_kernel(struct attending p, int at_once)
{
    SHARED_DYNAMIC(uint8_t, bytes);
    struct attend_tile<HEADS, KEYS> *t = (struct attend_tile<HEADS, KEYS> *)bytes;
    int row = (int)blockIdx.x, head0 = (int)blockIdx.y * HEADS;
    int own = head0 + (int)threadIdx.x / TEAM, one = threadIdx.x % TEAM == 0;
    struct cu_view v = view_of(&p, row);
    struct running r = { own < p.n_head ? p.sink[own] : 0, (float)one };
    find_keys(t, &p, &v, 0);
    load_query(t, &p, row, head0);
    if (row + at_once < (int)gridDim.x)
        expect_query<HEADS>(&p, row + at_once, head0);
    __syncthreads();
    float sum[2][PART / 8][4] = {};
    for (int j = 0; j < v.n; j += KEYS) {
        int n_key = v.n - j < KEYS ? v.n - j : KEYS;
        if (j > 0 && j % KNOWN == 0) {
            find_keys(t, &p, &v, j);
            __syncthreads();
        }
        load_keys(t, &p, j % KNOWN, n_key);
        __syncthreads();
        if (n_key > KEYS / 2)
            score_keys<KEYS / 16>(t, p.dim);
        else
            score_keys<(KEYS + 16) / 32>(t, p.dim);
        __syncthreads();
        weigh_keys(t, &r, p.scale, n_key);
        __syncthreads();
        sum_values(t, p.dim, n_key, sum);
        __syncthreads();
    }
    float all = lanes_sum<TEAM>(r.sum);
    if (one)
        t->shrink[threadIdx.x / TEAM] = 1 / all;
    __syncthreads();
    store_values(&p, row, head0, sum, t->shrink);
}

/* ---- launching ----------------------------------------------------------------------------- */

template <int HEADS, int KEYS>
static void attend(struct dev *d, const struct attending *p, int n)
{
    dim3 grid((unsigned)n, blocks_for((size_t)p->n_head, HEADS));
    size_t shared = sizeof(struct attend_tile<HEADS, KEYS>);
    cudaFuncSetAttribute(attend_kernel<HEADS, KEYS>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)shared);
    LAUNCH(d, (attend_kernel<HEADS, KEYS>), grid, HEADS *TEAM, shared, *p,
           cuda_of(d)->n_multi);
}

bool cuda_attends_many(const struct kv_shape *s)
{
    return s->packed && s->head_dim % 16 == 0 && s->rope_dim % EACH == 0 && s->head_dim <= MAX_DIM;
}

void cuda_attend_many(struct dev *d, const struct attending *p, int n)
{
    if (p->n_head > 32 && cuda_of(d)->shared_max >= sizeof(struct attend_tile<64, 64>))
        attend<64, 64>(d, p, n);
    else
        attend<32, 16>(d, p, n);
}
