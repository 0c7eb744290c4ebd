/* pick_packed.cu - scores of packed index rows, on tensor cores.
 *
 * A warp has 32 rows of the cache in registers, as bfloat16, which holds them exactly, and shows
 * them to queries. A query that op_index_query has rounded is exact in bfloat16 too; what another
 * one has more goes in as a second part. Of few rows of the step a block keeps one query and meets
 * all of the cache; of many it keeps rows of the cache and meets many queries.
 *
 * A product may sum in any order: of each row lane l has the quarter l % 4, as it lies there, and
 * queries lie in shared memory so that they fit. */
#include "pick_impl.h"
#include "mma_impl.h"

#define OWN_ROWS 32 /* of the cache, for a warp */
#define FEW_WARPS 4
#define MANY_WARPS 8
#define BLOCKS_EACH 2 /* of a multiprocessor, where blocks take turns */
#define QUERIES 16 /* for a block that keeps rows */
#define PADDED(n_head) (((n_head) + 15) / 16 * 16)

/* One query: high and low parts [2][heads][pitch], weights [heads]. */
struct query {
    uint16_t *part;
    float *weight;
    int heads, pitch, parts;
};

__device__ __forceinline__ struct query query_at(uint8_t *shared, int heads, int dim)
{
    struct query q = { (uint16_t *)shared, NULL, heads, dim + 8, 2 };
    q.weight = (float *)(shared + (size_t)2 * heads * q.pitch * sizeof *q.part);
    return q;
}

struct eight {
    float x[8];
};

__device__ __forceinline__ struct eight load_eight(const float *x, bool aligned)
{
    if (!aligned)
        return { { x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7] } };
    float4 a = *(const float4 *)(const void *)x, b = *(const float4 *)(const void *)(x + 4);
    return { { a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w } };
}

/* Pair j of eight numbers: numbers j and j + 4. Of the eight from 8 v on in quarter l it is what
 * the lanes 4 n + l have at depth step 2 v + j / 2. All of the block's threads wait for each
 * other. */
template <int DIM>
__device__ __forceinline__ void load_query(struct query *q, const struct picking *p, int i)
{
    const float *x = p->q.x + (size_t)i * p->q.pitch;
    const float *weight = p->weight.x + (size_t)i * p->weight.pitch;
    uint32_t rest = 0;
    bool aligned = (uintptr_t)x % sizeof(float4) == 0;
#pragma unroll 4
    for (int at = 8 * (int)threadIdx.x; at < q->heads * DIM; at += 8 * (int)blockDim.x) {
        int k = at % DIM, quarter = k / (DIM / 4), v = k % (DIM / 4) / 8;
        uint16_t *to = q->part + at / DIM * q->pitch + 32 * v + 2 * quarter;
        struct eight y = {};
        if (at < p->n_head * DIM)
            y = load_eight(x + at, aligned);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            uint32_t high, low;
            bf16_split(y.x[j], y.x[j + 4], &high, &low);
            *(uint32_t *)(to + 8 * j) = high;
            *(uint32_t *)(to + 8 * j + q->heads * q->pitch) = low;
            rest |= low & 0x7fff7fff;
        }
    }
    for (int h = (int)threadIdx.x; h < q->heads; h += (int)blockDim.x)
        q->weight[h] = h < p->n_head ? weight[h] * p->scale : 0;
    q->parts = __syncthreads_or(rest != 0) ? 2 : 1;
}

/* ---- rows of the cache --------------------------------------------------------------------- */

/* Where this lane's quarters of the warp's rows from b on lie: rows b + 8 i + LANE / 4. NULL from
 * row n on. */
__device__ __forceinline__ void find_rows(const struct picking *p, int seq, int b, int n,
                                          const uint8_t **row)
{
    const struct kv_shape *s = &p->step.shape;
    const struct kv_layer *layer = kv_of(&p->step, seq, p->l);
    unsigned per = (unsigned)(s->block_tok / layer->ratio), end = (unsigned)n;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        unsigned own = (unsigned)(b + 8 * i + LANE / 4);
        row[i] = NULL;
        if (own < end)
            row[i] = layer->index_block[own / per] + (size_t)(own % per) * s->index_row_bytes;
    }
}

/* A quarter of a row, as it lies there; all zeros are zeros. */
template <int DIM> struct quarter {
    uint32_t code[DIM / 32], scale;
};

template <int DIM>
__device__ __forceinline__ void fetch_rows(const uint8_t *const *row, struct quarter<DIM> *x)
{
    int l = LANE % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[i] = {};
        if (!row[i])
            continue;
        const uint8_t *from = row[i] + l * (DIM / 8);
#pragma unroll
        for (int v = 0; v < DIM / 32; v++) /* the longest rows are of whole words */
            x[i].code[v] = DIM == 128 ? *(const uint32_t *)(from + 4 * v) : load32(from + 4 * v);
        x[i].scale = row[i][DIM / 2 + l * DIM / (4 * FP4_GROUP)];
    }
}

/* Of eight codes pair j: their exponents and mantissas, moved to where bfloat16 has its own, are
 * 2^-126 of the value. */
__device__ __forceinline__ uint32_t widen_pair(uint32_t eight, int j, uint32_t scale)
{
    uint32_t two = eight >> 4 * j, x, y;
    BF16_TIMES(x, (two & 0x00070007) << 6 | (two & 0x00080008) << 12, 0x7e807e80);
    BF16_TIMES(y, x, scale);
    return y;
}

/* The left side of products: a[m] rows 16 m. */
template <int DIM>
__device__ __forceinline__ void widen_rows(const struct quarter<DIM> *x, uint32_t (*a)[DIM / 16][4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t scale = (__float_as_uint(e8m0_value(x[i].scale)) >> 16) * 0x00010001;
#pragma unroll
        for (int j = 0; j < DIM / 8; j++)
            a[i / 2][j / 2][i % 2 + j % 2 * 2] = widen_pair(x[i].code[j / 4], j % 4, scale);
    }
}

/* ---- scores -------------------------------------------------------------------------------- */

/* dot[m][j] += rows 16 m times heads 8 j from `from` on. */
template <int DIM>
__device__ __forceinline__ void add_products(const uint16_t *from, const uint32_t (*a)[DIM / 16][4],
                                             float (*dot)[2][4])
{
#pragma unroll
    for (int e = 0; e < DIM / 16; e++) {
        uint32_t b[4];
        LOAD_8X8_X4(b, from + 16 * e);
#pragma unroll
        for (int i = 0; i < 4; i++)
            MMA_BF16(dot[i / 2][i % 2], a[i / 2][e], b + i % 2 * 2);
    }
}

/* Adds to sum[m][r], of row 16 m + 8 r + LANE / 4, what this lane's heads say. */
template <int DIM>
__device__ __forceinline__ void score_rows(const struct query *q,
                                           const uint32_t (*a)[DIM / 16][4], float (*sum)[2])
{
    const uint16_t *from = q->part + (LANE / 16 * 8 + LANE % 8) * q->pitch + LANE / 8 % 2 * 8;
    for (int h = 0; h < q->heads; h += 16, from += 16 * q->pitch) {
        float dot[2][2][4] = {};
#pragma unroll 1
        for (int part = 0; part < q->parts; part++)
            add_products<DIM>(from + part * q->heads * q->pitch, a, dot);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            float w = q->weight[h + i / 2 % 2 * 8 + LANE % 4 * 2 + i % 2];
            sum[i / 8][i / 4 % 2] = fmaf(w, fmaxf(dot[i / 8][i / 2 % 2][i / 4 % 2 * 2 + i % 2], 0),
                                         sum[i / 8][i / 4 % 2]);
        }
    }
}

/* Of the rows from `first` on those before n. */
template <int DIM>
__device__ __forceinline__ void write_scores(const struct query *q,
                                             const uint32_t (*a)[DIM / 16][4], float *score,
                                             int first, int n)
{
    float sum[2][2] = {};
    score_rows<DIM>(q, a, sum);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float all = lanes_sum<4>(sum[i / 2][i % 2]);
        int b = first + 8 * i + LANE / 4;
        if (LANE % 4 == 0 && b < n)
            score[b] = known(all);
    }
}

/* Grid: blocks that take turns at the cache, rows of the step. */
template <int DIM>
__global__ void __launch_bounds__(FEW_WARPS *WARP, BLOCKS_EACH) score_few_kernel(struct picking p)
{
    SHARED_DYNAMIC(uint8_t, shared);
    struct query q = query_at(shared, PADDED(p.n_head), DIM);
    struct cu_row r = p.step.row[p.row0 + (int)blockIdx.y];
    int n = n_visible(&p, &r), stride = (int)gridDim.x * FEW_WARPS * OWN_ROWS;
    int first = ((int)blockIdx.x * FEW_WARPS + WARP_ID) * OWN_ROWS;
    const uint8_t *row[4];
    find_rows(&p, r.seq, first, n, row);
    for (int i = 0; i < 4; i++)
        if (row[i])
            PREFETCH(row[i] + LANE % 4 * (DIM / 8));
    wait_for_last();
    if (n <= p.top_k || first - WARP_ID * OWN_ROWS >= n)
        return;
    struct quarter<DIM> x[4];
    uint32_t a[2][DIM / 16][4];
    fetch_rows<DIM>(row, x);
    load_query<DIM>(&q, &p, p.row0 + (int)blockIdx.y);
    for (; first < n; first += stride) {
        widen_rows<DIM>(x, a);
        find_rows(&p, r.seq, first + stride, n, row);
        fetch_rows<DIM>(row, x);
        write_scores<DIM>(&q, a, p.score + blockIdx.y * p.pitch, first, n);
    }
}

/* Grid: rows of the cache, QUERIES rows of the step of n from p.row0 on. */
template <int DIM>
__global__ void __launch_bounds__(MANY_WARPS *WARP, 2) score_many_kernel(struct picking p, int n)
{
    SHARED_DYNAMIC(uint8_t, shared);
    struct query q = query_at(shared, PADDED(p.n_head), DIM);
    uint32_t a[2][DIM / 16][4];
    int block0 = (int)blockIdx.x * MANY_WARPS * OWN_ROWS, seq = -1;
    int first = block0 + WARP_ID * OWN_ROWS;
    int last = ((int)blockIdx.y + 1) * QUERIES < n ? ((int)blockIdx.y + 1) * QUERIES : n;
    for (int i = (int)blockIdx.y * QUERIES; i < last; i++) {
        struct cu_row r = p.step.row[p.row0 + i];
        int visible = n_visible(&p, &r);
        if (visible <= p.top_k || block0 >= visible)
            continue;
        if (r.seq != seq) { /* all that a later query here may see is there */
            int end = r.first + r.count < p.row0 + last ? r.first + r.count : p.row0 + last;
            struct cu_row later = p.step.row[end - 1];
            const uint8_t *row[4];
            struct quarter<DIM> x[4];
            find_rows(&p, r.seq, first, n_visible(&p, &later), row);
            fetch_rows<DIM>(row, x);
            widen_rows<DIM>(x, a);
            seq = r.seq;
        }
        __syncthreads();
        load_query<DIM>(&q, &p, p.row0 + i);
        write_scores<DIM>(&q, a, p.score + (size_t)i * p.pitch, first, visible);
    }
}

/* ---- launching ----------------------------------------------------------------------------- */

template <int DIM> static void score(struct dev *d, const struct picking *p, int n, bool few)
{
    int heads = PADDED(p->n_head), rows = (few ? FEW_WARPS : MANY_WARPS) * OWN_ROWS;
    size_t shared = (size_t)2 * heads * (DIM + 8) * sizeof(uint16_t) +
                    (size_t)heads * sizeof(float);
    unsigned n_block = blocks_for(p->pitch, (size_t)rows);
    unsigned n_turn = blocks_for((size_t)cuda_of(d)->n_multi * BLOCKS_EACH, (size_t)n);
    (void)cudaFuncSetAttribute(few ? (const void *)score_few_kernel<DIM>
                                   : (const void *)score_many_kernel<DIM>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (few)
        LAUNCH_EARLY(d, score_few_kernel<DIM>, dim3(MIN(n_block, n_turn), (unsigned)n),
                     FEW_WARPS * WARP, shared, *p);
    else
        LAUNCH(d, score_many_kernel<DIM>, dim3(n_block, blocks_for((size_t)n, QUERIES)),
               MANY_WARPS * WARP, shared, *p, n);
}

bool cuda_scores_packed(const struct kv_shape *s, const struct indexer *ix)
{
    return s->packed && (ix->dim == 32 || ix->dim == 64 || ix->dim == 128);
}

void cuda_score_packed(struct dev *d, const struct picking *p, int n, bool few)
{
    switch (p->dim) {
    case 32: score<32>(d, p, n, few); return;
    case 64: score<64>(d, p, n, few); return;
    default: score<128>(d, p, n, few);
    }
}
