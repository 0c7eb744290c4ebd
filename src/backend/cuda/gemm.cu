/* gemm.cu - products with many rows of activations, rounded to eight bits: tiles of 128 rows of
 * weights times 128 of activations. A turn takes 128 elements further: its weights are unpacked;
 * then, while tensor cores multiply signed bytes (m16n8k32), the next turn's weights and
 * activations arrive by themselves. Sums over 32 elements are exact, steps are applied to them in
 * float32. */
#include "mma_impl.h"
#include "product_impl.h"
#include "widen_impl.h"

#define TILE GROUP_TILE
#define SLOTS 4 /* units of a turn */
#define DEPTH (SLOTS * UNIT)
#define PITCH (DEPTH + 16) /* eight rows are in different banks; minima and sums lie between */
#define RAW 176 /* bytes of a row in a turn, from where 16 bytes begin to where they end */
#define THREADS 256
#define PAIRS 4 /* of a warp's columns, sixteen each */

/* A turn's bytes and steps. A warp has 32 rows of weights; the steps of l, l + 8, l + 16, l + 24 of
 * them are neighbours, and so are those of columns l, l + 1, l + 8, l + 9: what a lane needs. */
struct inputs {
    int8_t x[TILE][PITCH];
    float x_d[SLOTS][TILE];
};

struct many {
    int8_t w[TILE][PITCH];
    float w_d[SLOTS + 1][TILE];
    struct inputs inputs[2]; /* of a turn, and of the next one on their way */
    uint8_t raw[TILE][RAW];  /* the next turn's weights as they lie in memory */
    uint64_t grid[256];      /* a codebook */
    const uint8_t *x[TILE];  /* rows of activations, NULL: none */
    float *out[TILE];
};

template <int type> __device__ __forceinline__ bool has_min()
{
    return type == DT_Q2_K || type == DT_Q4_K;
}

__device__ __forceinline__ int row_place(int r)
{
    return r / 32 * 32 + r % 8 * 4 + r % 32 / 8;
}

__device__ __forceinline__ int col_place(int i)
{
    return i / 16 * 16 + i % 8 / 2 * 4 + i % 16 / 8 * 2 + i % 2;
}

/* ---- what a turn needs ---------------------------------------------------------------------- */

template <int type>
__device__ __forceinline__ void fetch_inputs(struct many *t, const struct cu_product *p, int turn)
{
    const int block = type == DT_Q8_0 || type == DT_MXFP4 || type == DT_FP4 ? 32 : 256;
    const int chunks = DEPTH / 16, steps = block == 32 ? SLOTS : 1;
    struct inputs *to = &t->inputs[turn % 2];
#pragma unroll
    for (int c = (int)threadIdx.x; c < TILE * chunks; c += THREADS) {
        int i = c / chunks, at = turn * DEPTH + c % chunks * 16;
        const uint8_t *x = t->x[i];
        bool there = x && at < p->k;
        COPY_ASYNC(&to->x[i][c % chunks * 16], there ? x + at : p->x, 16, there);
    }
    for (int c = (int)threadIdx.x; c < TILE * steps; c += THREADS) {
        int i = c / steps, b = turn * DEPTH / block + c % steps;
        const uint8_t *x = t->x[i];
        bool there = x && b * block < p->k;
        COPY_ASYNC(&to->x_d[c % steps][col_place(i)],
                   there ? many_d(x, p->k, b) : (const float *)p->x, 4, there);
    }
    if (has_min<type>() && threadIdx.x < TILE) { /* low halves, then high ones */
        const uint8_t *x = t->x[threadIdx.x];
        COPY_ASYNC(&to->x[threadIdx.x][DEPTH],
                   x ? many_sums(x, p->k, turn / 2) + turn % 2 * 16 : (const int8_t *)p->x, 16,
                   x != NULL);
    }
}

/* The minima of 256 elements by sixteens: dm * m. */
struct cu_minima {
    int m[4]; /* signed bytes, four each */
    float dm;
};

__device__ __forceinline__ void minima_load(int type, const struct cu_src *s, int block,
                                            struct cu_minima *out)
{
    const uint8_t *p = s->row + (size_t)block * (type == DT_Q2_K ? 84 : 144);
    out->dm = f16_at(type == DT_Q2_K ? p + 82 : p + 2);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (type == DT_Q2_K) {
            out->m[i] = (int)(load32(p + 4 * i) >> 4 & 0x0f0f0f0f);
            continue;
        }
        int scale, min[2];
        q4_k_scales(p + 4, 2 * i, &scale, &min[0]);
        q4_k_scales(p + 4, 2 * i + 1, &scale, &min[1]);
        out->m[i] = min[0] * 0x0101 | min[1] * 0x01010000;
    }
}

/* A turn's weights in their row: blocks that hold any of its elements. */
template <int type> __device__ __forceinline__ void raw_span(int turn, int k, int *from, int *n)
{
    const int block = type == DT_Q8_0 || type == DT_MXFP4 || type == DT_FP4 ? 32 : 256;
    const int bytes = type == DT_Q8_0 ? 34 : type == DT_MXFP4 ? 17 : type == DT_FP4 ? 16
                    : type == DT_Q2_K ? 84 : type == DT_Q4_K ? 144 : 66;
    int first = turn * DEPTH / block, end = (turn * DEPTH + DEPTH + block - 1) / block;
    *from = first * bytes;
    *n = (end < k / block ? end : k / block) * bytes - *from;
}

/* Neighbouring lanes fetch neighbouring pieces. */
template <int type>
__device__ __forceinline__ void fetch_weights(struct many *t, const struct cu_product *p,
                                              const struct cu_job *job, int row0, int turn)
{
    const int pieces = RAW / 16;
    int from, n;
    raw_span<type>(turn, p->k, &from, &n);
    for (int c = (int)threadIdx.x; c < TILE * pieces; c += THREADS) {
        int r = c / pieces;
        const uint8_t *row = job_row(p, job, row0 + r).row + from;
        const uint8_t *piece = row - (uintptr_t)row % 16 + c % pieces * 16;
        if (row0 + r < p->rows && piece < row + n)
            COPY_ASYNC(&t->raw[r][c % pieces * 16], piece, 16, true);
    }
}

/* Two threads have a row's four units; beyond the weights' end everything is zero. */
template <int type>
__device__ __forceinline__ void unpack_weights(struct many *t, const struct cu_product *p,
                                               const struct cu_job *job, int row0, int turn)
{
    int r = (int)threadIdx.x / 2, half = (int)threadIdx.x % 2, from, n;
    struct cu_src src = job_row(p, job, row0 + r);
    bool row = row0 + r < p->rows;
    raw_span<type>(turn, p->k, &from, &n);
    int before = (int)((uintptr_t)(src.row + from) % 16) - from; /* raw follows the row's start */
    src.row = t->raw[r] + before;
    src.tables = (const struct cu_tables *)(const void *)t->grid;
#pragma unroll
    for (int i = 0; i < SLOTS / 2; i++) {
        int slot = half * (SLOTS / 2) + i, u = turn * SLOTS + slot;
        struct cu_unit w = {};
        if (row && u * UNIT < p->k)
            unit_load(type, &src, u, &w);
        int4 *to = (int4 *)(t->w[r] + slot * UNIT);
        to[0] = { w.q[0], w.q[1], w.q[2], w.q[3] };
        to[1] = { w.q[4], w.q[5], w.q[6], w.q[7] };
        t->w_d[slot][row_place(r)] = w.d;
    }
    if (has_min<type>() && half == 0) {
        struct cu_minima m = {};
        if (row)
            minima_load(type, &src, turn / 2, &m);
        *(int4 *)(t->w[r] + DEPTH) = { m.m[0], m.m[1], m.m[2], m.m[3] };
        t->w_d[SLOTS][row_place(r)] = turn % 2 ? -256 * m.dm : -m.dm;
    }
}

/* ---- multiplying ---------------------------------------------------------------------------- */

#define MAGIC 12582912.f /* 1.5 x 2^23: as whole numbers its bits plus s are the float MAGIC + s */

/* 32 rows of weights of a slot: two tiles of sixteen. With s the sum of products,
 * (MAGIC + s) d - MAGIC d is s d, rounded once: what is subtracted has few bits. */
struct left {
    uint32_t q[2][4];
    float d[4], off[4];
};

__device__ __forceinline__ void load_left(struct left *a, const struct many *t, int slot, int row)
{
    const int8_t *q = &t->w[row + LANE % 16][slot * UNIT + LANE / 16 * 16];
    float4 d = *(const float4 *)&t->w_d[slot][row + LANE / 4 * 4];
    LOAD_8X8_X4(a->q[0], q);
    LOAD_8X8_X4(a->q[1], q + 16 * PITCH);
    a->d[0] = d.x, a->d[1] = d.y, a->d[2] = d.z, a->d[3] = d.w;
#pragma unroll
    for (int i = 0; i < 4; i++)
        a->off[i] = -MAGIC * a->d[i];
}

/* sum += a times sixteen columns of activations from col on. */
__device__ __forceinline__ void multiply(float (*sum)[2][4], const struct left *a,
                                         const struct inputs *t, int slot, int d_slot, int col)
{
    uint32_t b[4];
    float4 four = *(const float4 *)&t->x_d[d_slot][col + LANE % 4 * 4];
    float x_d[4] = { four.x, four.y, four.z, four.w };
    LOAD_8X8_X4(b, &t->x[col + LANE / 16 * 8 + LANE % 8][slot * UNIT + LANE / 8 % 2 * 16]);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int m = i % 2, n = i / 2, s[4];
        MMA_S8(s, a->q[m], b + 2 * n, (int)__float_as_uint(MAGIC));
#pragma unroll
        for (int c = 0; c < 4; c++) {
            int row = 2 * m + c / 2;
            float y = fmaf(__uint_as_float((uint32_t)s[c]), a->d[row], a->off[row]);
            sum[m][n][c] = fmaf(y, x_d[2 * n + c % 2], sum[m][n][c]);
        }
    }
}

/* A warp's part: 32 rows, and every other sixteen columns, so that few columns are shared
 * evenly. */
template <int type>
__device__ __forceinline__ void multiply_turn(float (*sum)[2][2][4], const struct many *t,
                                              const struct inputs *in, int n)
{
    const int d_slots = type == DT_Q8_0 || type == DT_MXFP4 || type == DT_FP4 ? SLOTS : 1;
    int warp = (int)threadIdx.x / WARP, row = warp / 2 * 32;
#pragma unroll
    for (int slot = 0; slot < SLOTS + (has_min<type>() ? 1 : 0); slot++) {
        struct left a;
        load_left(&a, t, slot, row);
        if (slot == SLOTS) /* sixteen minima: half the depth */
            a.q[0][2] = a.q[0][3] = a.q[1][2] = a.q[1][3] = 0;
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++) {
            int col = (2 * pair + warp % 2) * 16;
            if (col < n)
                multiply(sum[pair], &a, in, slot, slot < d_slots ? slot : 0, col);
        }
    }
}

/* ---- kernel --------------------------------------------------------------------------------- */

__device__ __forceinline__ void store(const struct many *t, float (*sum)[2][2][4], int row0,
                                      int n_row, int n)
{
    int warp = (int)threadIdx.x / WARP;
#pragma unroll
    for (int pair = 0; pair < PAIRS; pair++)
#pragma unroll
        for (int c = 0; c < 16; c++) {
            int m = c / 8, i = (2 * pair + warp % 2) * 16 + c % 8 / 4 * 8 + LANE % 4 * 2 + c % 2;
            int r = row0 + warp / 2 * 32 + m * 16 + c % 4 / 2 * 8 + LANE / 4;
            if (i < n && r < n_row)
                t->out[i][r] = sum[pair][m][c % 8 / 4][c % 4];
        }
}

/* Grid: tiles of weights, tiles of activations, jobs; experts are told apart by the tiles. */
template <int type> __global__ void __launch_bounds__(THREADS, 2) many_kernel(struct cu_product p)
{
    SHARED_DYNAMIC(struct many, t);
    struct cu_job job;
    int row0 = (int)blockIdx.x * TILE, i0, turns = (p.k + DEPTH - 1) / DEPTH;
    float sum[PAIRS][2][2][4] = {};
    if (!tile_at(&p, (int)blockIdx.y, &job, &i0))
        return;
    int n = job.n - i0;
    for (int i = (int)threadIdx.x; i < TILE; i += THREADS) {
        t->x[i] = i < n ? job_in(&p, &job, i0 + i) : NULL;
        t->out[i] = i < n ? job_out(&p, &job, i0 + i) : NULL;
    }
    t->grid[threadIdx.x] = p.tables->iq2_xxs[threadIdx.x];
    __syncthreads();
    fetch_inputs<type>(t, &p, 0);
    fetch_weights<type>(t, &p, &job, row0, 0);
    for (int turn = 0; turn < turns; turn++) {
        COPY_WAIT();
        __syncthreads();
        unpack_weights<type>(t, &p, &job, row0, turn);
        __syncthreads();
        if (turn + 1 < turns) {
            fetch_inputs<type>(t, &p, turn + 1);
            fetch_weights<type>(t, &p, &job, row0, turn + 1);
        }
        multiply_turn<type>(sum, t, &t->inputs[turn % 2], n);
    }
    store(t, sum, row0, p.rows, n);
}

template <int type> static void many(struct dev *d, const struct cu_product *p, int n_job)
{
    dim3 grid(blocks_for((size_t)p->rows, TILE), tiles_of(p), (unsigned)n_job);
    (void)cudaFuncSetAttribute(many_kernel<type>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)sizeof(struct many));
    LAUNCH(d, many_kernel<type>, grid, THREADS, sizeof(struct many), *p);
}

void cuda_product_many(struct dev *d, const struct cu_product *p, int n_job)
{
    switch (p->type) {
    case DT_Q8_0: many<DT_Q8_0>(d, p, n_job); return;
    case DT_MXFP4: many<DT_MXFP4>(d, p, n_job); return;
    case DT_FP4: many<DT_FP4>(d, p, n_job); return;
    case DT_Q2_K: many<DT_Q2_K>(d, p, n_job); return;
    case DT_Q4_K: many<DT_Q4_K>(d, p, n_job); return;
    default: many<DT_IQ2_XXS>(d, p, n_job);
    }
}
