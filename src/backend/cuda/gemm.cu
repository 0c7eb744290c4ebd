/* gemm.cu - products with many rows of activations, rounded to eight bits: tiles of 128 rows of
 * weights times 128 of activations. A turn takes 128 elements further: its weights are unpacked;
 * then, while tensor cores multiply signed bytes (m16n8k32), the next turn's weights and
 * activations arrive by themselves. Sums over 32 elements are exact, steps are applied to them in
 * float32. */
#include "mma_impl.h"
#include "pair_impl.h"
#include "product_impl.h"

#define TILE GROUP_TILE
#define SLOTS 4 /* units of a turn */
#define DEPTH (SLOTS * UNIT)
#define PITCH (DEPTH + 16) /* eight rows are in different banks; minima and sums lie between */
#define THREADS 256
#define PAIRS 4 /* of a warp's columns, sixteen each */
#define COPIES 8 /* of a codebook's entry, so that lanes meet different banks */

/* A turn's bytes and steps. A warp has 32 rows of weights; the steps of l, l + 8, l + 16, l + 24 of
 * them are neighbours, and so are those of columns l, l + 1, l + 8, l + 9: what a lane needs. */
struct inputs {
    int8_t x[TILE][PITCH];
    float x_d[SLOTS][TILE];
};

__host__ __device__ __forceinline__ constexpr int block_bytes(int type)
{
    return type == DT_Q8_0 ? 34 : type == DT_MXFP4 ? 17 : type == DT_FP4 ? 16
         : type == DT_Q2_K ? 84 : type == DT_Q4_K ? 144 : 66;
}

/* Of a row in a turn, at most, from where 16 bytes begin to where they end. */
__host__ __device__ __forceinline__ constexpr int pieces_of(int type)
{
    return (block_bytes(type) * (act_block(type) == 32 ? SLOTS : 1) + 15 + 15) / 16;
}

template <int type> struct tile {
    int8_t w[TILE][PITCH];
    float w_d[SLOTS + 1][TILE];
    struct inputs inputs[2]; /* of a turn, and of the next one on their way */
    uint8_t raw[TILE][16 * (pieces_of(type) | 1)]; /* the next turn's weights, as in memory */
    const uint8_t *x[TILE];  /* rows of activations */
    float *out[TILE];
    uint32_t size[type == DT_IQ2_XXS ? 256 : 1][COPIES], sign[type == DT_IQ2_XXS ? 128 : 1][COPIES];
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

/* n rows. What lies behind a row's end is multiplied by steps of zero. */
template <int type>
__device__ __forceinline__ void fetch_inputs(struct tile<type> *t, int k, int n, int turn)
{
    const int block = act_block(type), chunks = DEPTH / 16, steps = block == 32 ? SLOTS : 1;
    struct inputs *to = &t->inputs[turn % 2];
    int thread = (int)threadIdx.x, chunk = thread % chunks * 16, at = turn * DEPTH + chunk;
#pragma unroll
    for (int i = thread / chunks; i < TILE; i += THREADS / chunks)
        if (i < n && at < k)
            COPY_ASYNC(&to->x[i][chunk], t->x[i] + at, 16, true);
    int step = thread % steps, b = turn * DEPTH / block + step;
    bool there = b * block < k;
#pragma unroll
    for (int i = thread / steps; i < TILE; i += THREADS / steps)
        if (i < n)
            COPY_ASYNC(&to->x_d[step][col_place(i)], many_d(t->x[i], k, there ? b : 0), 4, there);
    if (has_min<type>() && thread < n) /* low halves, then high ones */
        COPY_ASYNC(&to->x[thread][DEPTH], many_sums(t->x[thread], k, turn / 2) + turn % 2 * 16, 16,
                   true);
}

/* The minima of 256 elements by sixteens: dm * m. */
struct cu_minima {
    int m[4]; /* signed bytes, four each */
    float dm;
};

__device__ __forceinline__ void minima_load(int type, const uint8_t *p, struct cu_minima *out)
{
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
    const int block = act_block(type), bytes = block_bytes(type);
    int first = turn * DEPTH / block, end = (turn * DEPTH + DEPTH + block - 1) / block;
    *from = first * bytes;
    *n = (end < k / block ? end : k / block) * bytes - *from;
}

/* Neighbouring lanes fetch neighbouring pieces; from: the tile's first row; n_row: rows it has. */
template <int type>
__device__ __forceinline__ void fetch_weights(struct tile<type> *t, const struct cu_src *first,
                                              size_t pitch, int n_row, int k, int turn)
{
    const int lanes = pieces_of(type) > 8 ? 16 : 8;
    int from, n, piece = (int)threadIdx.x % lanes, r = (int)threadIdx.x / lanes;
    raw_span<type>(turn, k, &from, &n);
    const uint8_t *at = first->row + from + (size_t)r * pitch + piece * 16;
#pragma unroll
    for (int i = 0; i < TILE * lanes / THREADS; i++, r += THREADS / lanes) {
        int before = (int)((uintptr_t)at % 16);
        if (r < n_row && piece * 16 < n + before)
            COPY_ASYNC(&t->raw[r][piece * 16], at - before, 16, true);
        at += pitch * (THREADS / lanes);
    }
}

/* The codebook of IQ2_XXS as in pair_impl.h, with fewer copies. */
__device__ __forceinline__ void fill_book(struct tile<DT_IQ2_XXS> *t,
                                          const struct cu_tables *tables)
{
    static_assert(THREADS == 256, "a thread for each entry");
    uint32_t i = threadIdx.x, eight = eight_signs(i), sign = 0;
    uint64_t grid = tables->iq2_xxs[i];
    uint32_t size = low_nibbles((uint32_t)grid >> 4) | low_nibbles((uint32_t)(grid >> 36)) << 16;
    for (int j = 0; j < 8; j++)
        sign |= (eight >> j & 1) << (4 * j + 2);
    for (uint32_t j = 0; j < COPIES; j++) {
        t->size[i][(i + j) % COPIES] = size;
        if (i < 128)
            t->sign[i][(i + j) % COPIES] = sign;
    }
}

/* Pair j of a block, at any address. */
__device__ __forceinline__ void unpack_iq2_xxs(const struct tile<DT_IQ2_XXS> *t,
                                               const uint8_t *block, int j, struct cu_unit *out)
{
    float d = f16_at(block) * .125f;
    uintptr_t at = (uintptr_t)(block + 2 + 16 * j);
    const uint32_t *w = (const uint32_t *)(at & ~(uintptr_t)3);
    unsigned by = (unsigned)(at & 3) * 8;
#pragma unroll
    for (int h = 0; h < 2; h++, w += 2) {
        uint32_t index = __funnelshift_r(w[0], w[1], by);
        uint32_t rest = __funnelshift_r(w[1], w[2], by);
        out[h].d = d * (float)((rest >> 28) * 2 + 1);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t eight = t->size[index >> 8 * i & 255][LANE % COPIES] |
                             t->sign[rest >> 7 * i & 127][LANE % COPIES];
            out[h].q[2 * i] = book_four(eight);
            out[h].q[2 * i + 1] = book_four(eight >> 16);
        }
    }
}

/* Pair p of what lies at row. */
template <int type>
__device__ __forceinline__ void unpack_pair(const struct tile<type> *t, const struct cu_src *row,
                                            int p, struct cu_unit *out)
{
    if constexpr (type == DT_IQ2_XXS) {
        unpack_iq2_xxs(t, row->row, p, out);
    } else if ((uintptr_t)row->row % 4 == 0) {
        struct cu_piece piece = { row->row, row->scale, NULL };
        pair_load<type>(&piece, p, true, out);
    } else {
        unit_load(type, row, 2 * p, &out[0]);
        unit_load(type, row, 2 * p + 1, &out[1]);
    }
}

/* Two threads have a row's four units; src: the thread's row. Behind the weights' end steps are
 * zero. */
template <int type>
__device__ __forceinline__ void unpack_weights(struct tile<type> *t, const struct cu_src *src,
                                               int k, int turn)
{
    const bool wide = act_block(type) == 256; /* a block has two turns */
    int r = (int)threadIdx.x / 2, half = (int)threadIdx.x % 2, from, n;
    raw_span<type>(turn, k, &from, &n);
    struct cu_src row = { t->raw[r] + (uintptr_t)(src->row + from) % 16, src->scale, NULL };
    if (type == DT_FP4)
        row.scale += turn * SLOTS;
    struct cu_unit w[2];
    unpack_pair<type>(t, &row, half + (wide ? turn % 2 * 2 : 0), w);
    int4 *to = (int4 *)(t->w[r] + half * 2 * UNIT);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int slot = 2 * half + i;
        to[2 * i] = { w[i].q[0], w[i].q[1], w[i].q[2], w[i].q[3] };
        to[2 * i + 1] = { w[i].q[4], w[i].q[5], w[i].q[6], w[i].q[7] };
        t->w_d[slot][row_place(r)] = (turn * SLOTS + slot) * UNIT < k ? w[i].d : 0;
    }
    if (has_min<type>() && half == 0) {
        struct cu_minima m;
        minima_load(type, row.row, &m);
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

template <int type>
__device__ __forceinline__ void load_left(struct left *a, const struct tile<type> *t, int slot,
                                          int row)
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
__device__ __forceinline__ void multiply_turn(float (*sum)[2][2][4], const struct tile<type> *t,
                                              const struct inputs *in, int n)
{
    const int d_slots = act_block(type) == 32 ? SLOTS : 1;
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

template <int type>
__device__ __forceinline__ void store(const struct tile<type> *t, float (*sum)[2][2][4], int row0,
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
    SHARED_DYNAMIC(struct tile<type>, t);
    struct cu_job job;
    int row0 = (int)blockIdx.x * TILE, i0, turns = (p.k + DEPTH - 1) / DEPTH;
    float sum[PAIRS][2][2][4] = {};
    if (!tile_at(&p, (int)blockIdx.y, &job, &i0))
        return;
    int n = min(job.n - i0, TILE), n_row = min(p.rows - row0, TILE);
    if ((int)threadIdx.x < n) {
        t->x[threadIdx.x] = job_in(&p, &job, i0 + (int)threadIdx.x);
        t->out[threadIdx.x] = job_out(&p, &job, i0 + (int)threadIdx.x);
    }
    if constexpr (type == DT_IQ2_XXS)
        fill_book(t, p.tables);
    struct cu_src first = job_row(&p, &job, row0);
    struct cu_src mine = job_row(&p, &job, row0 + min((int)threadIdx.x / 2, n_row - 1));
    __syncthreads();
    fetch_inputs<type>(t, p.k, n, 0);
    fetch_weights<type>(t, &first, job.w.pitch, n_row, p.k, 0);
    for (int turn = 0; turn < turns; turn++) {
        COPY_WAIT();
        __syncthreads();
        unpack_weights<type>(t, &mine, p.k, turn);
        __syncthreads();
        if (turn + 1 < turns) {
            fetch_inputs<type>(t, p.k, n, turn + 1);
            fetch_weights<type>(t, &first, job.w.pitch, n_row, p.k, turn + 1);
        }
        multiply_turn<type>(sum, t, &t->inputs[turn % 2], n);
    }
    store(t, sum, row0, p.rows, n);
}

template <int type> static void many(struct dev *d, const struct cu_product *p, int n_job)
{
    dim3 grid(blocks_for((size_t)p->rows, TILE), tiles_of(p), (unsigned)n_job);
    (void)cudaFuncSetAttribute(many_kernel<type>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)sizeof(struct tile<type>));
    LAUNCH(d, many_kernel<type>, grid, THREADS, sizeof(struct tile<type>), *p);
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
