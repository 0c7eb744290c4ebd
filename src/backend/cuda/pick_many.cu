/* pick_many.cu - scores of packed index rows for many rows of the step, on tensor cores.
 *
 * A block has ROWS rows of the cache in registers, as bfloat16, which holds them exactly, and shows
 * them to queries in turn. A query that op_index_query has rounded is exact in bfloat16 too; what
 * another one has more goes in as a second part. */
#include "pick_impl.h"
#include "mma_impl.h"

#define THREADS 256
#define WARPS (THREADS / WARP)
#define ROWS 256   /* of the cache, for a block: 32 for each warp */
#define QUERIES 16 /* for a block */
#define PADDED(n_head) (((n_head) + 15) / 16 * 16)

/* One query: high and low parts [2][heads][pitch], weights [heads], whether there are low parts. */
struct query {
    uint16_t *part;
    float *weight;
    uint32_t *low; /* [WARPS] */
    int heads, pitch;
};

__device__ __forceinline__ struct query query_at(uint8_t *shared, int heads, int dim)
{
    struct query q = { (uint16_t *)shared, NULL, NULL, heads, dim + 8 };
    q.weight = (float *)(shared + (size_t)2 * heads * q.pitch * sizeof *q.part);
    q.low = (uint32_t *)(q.weight + heads);
    return q;
}

template <int DIM>
__device__ __forceinline__ void load_query(const struct query *q, const struct picking *p, int i)
{
    const float *x = p->q.x + (size_t)i * p->q.pitch;
    const float *weight = p->weight.x + (size_t)i * p->weight.pitch;
    uint32_t rest = 0;
#pragma unroll 4
    for (int at = 2 * (int)threadIdx.x; at < q->heads * DIM; at += 2 * THREADS) {
        bool there = at < p->n_head * DIM;
        uint16_t *to = q->part + at / DIM * q->pitch + at % DIM;
        uint32_t high, low;
        bf16_split(there ? x[at] : 0, there ? x[at + 1] : 0, &high, &low);
        *(uint32_t *)to = high;
        *(uint32_t *)(to + q->heads * q->pitch) = low;
        rest |= low & 0x7fff7fff;
    }
    for (int h = (int)threadIdx.x; h < q->heads; h += THREADS)
        q->weight[h] = h < p->n_head ? weight[h] * p->scale : 0;
    unsigned any = __ballot_sync(ALL_LANES, rest != 0);
    if (LANE == 0)
        q->low[WARP_ID] = any;
}

/* Two neighbouring numbers of an index row. */
__device__ __forceinline__ uint32_t widen_index(const uint8_t *row, int dim, int i)
{
    float s = e8m0_value(row[dim / 2 + i / FP4_GROUP]);
    uint32_t two = row[i / 2];
    return __byte_perm(__float_as_uint(e2m1_value(two) * s),
                       __float_as_uint(e2m1_value(two >> 4) * s), 0x7632);
}

/* This warp's 32 rows from b on, as the left side of products: a[m] rows 16 m. Rows from n on are
 * zeros. */
template <int DIM>
__device__ __forceinline__ void load_rows(const struct picking *p, int seq, int b, int n,
                                          uint32_t (*a)[DIM / 16][4])
{
    const struct kv_shape *s = &p->step.shape;
    const struct kv_layer *layer = kv_of(&p->step, seq, p->l);
    int per = s->block_tok / layer->ratio;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int own = b + 8 * i + LANE / 4;
        const uint8_t *row =
            own < n ? layer->index_block[own / per] + (size_t)(own % per) * s->index_row_bytes
                    : NULL;
#pragma unroll
        for (int e = 0; e < DIM / 16; e++) {
            int at = 16 * e + LANE % 4 * 2;
            a[i / 2][e][i % 2] = row ? widen_index(row, DIM, at) : 0;
            a[i / 2][e][i % 2 + 2] = row ? widen_index(row, DIM, at + 8) : 0;
        }
    }
}

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
                                           const uint32_t (*a)[DIM / 16][4], int parts,
                                           float (*sum)[2])
{
    const uint16_t *from = q->part + (LANE / 16 * 8 + LANE % 8) * q->pitch + LANE / 8 % 2 * 8;
    for (int h = 0; h < q->heads; h += 16, from += 16 * q->pitch) {
        float dot[2][2][4] = {};
        for (int part = 0; part < parts; part++)
            add_products<DIM>(from + part * q->heads * q->pitch, a, dot);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            float w = q->weight[h + i / 2 % 2 * 8 + LANE % 4 * 2 + i % 2];
            sum[i / 8][i / 4 % 2] = fmaf(w, fmaxf(dot[i / 8][i / 2 % 2][i / 4 % 2 * 2 + i % 2], 0),
                                         sum[i / 8][i / 4 % 2]);
        }
    }
}

/* Grid: ROWS rows of the cache, QUERIES rows of the step of n from p.row0 on. */
template <int DIM>
__global__ void __launch_bounds__(THREADS, 2) score_many_kernel(struct picking p, int n)
{
    SHARED_DYNAMIC(uint8_t, shared);
    struct query q = query_at(shared, PADDED(p.n_head), DIM);
    uint32_t a[2][DIM / 16][4];
    int first = (int)blockIdx.x * ROWS + WARP_ID * 32, seq = -1;
    int last = ((int)blockIdx.y + 1) * QUERIES < n ? ((int)blockIdx.y + 1) * QUERIES : n;
    for (int i = (int)blockIdx.y * QUERIES; i < last; i++) {
        struct cu_row r = p.step.row[p.row0 + i];
        int visible = n_visible(&p, &r);
        if (visible <= p.top_k || (int)blockIdx.x * ROWS >= visible)
            continue;
        if (r.seq != seq) { /* all that a later query here may see is there */
            int end = r.first + r.count < p.row0 + last ? r.first + r.count : p.row0 + last;
            struct cu_row later = p.step.row[end - 1];
            load_rows<DIM>(&p, r.seq, first, n_visible(&p, &later), a);
            seq = r.seq;
        }
        __syncthreads();
        load_query<DIM>(&q, &p, p.row0 + i);
        __syncthreads();
        float sum[2][2] = {};
        uint32_t low = 0;
        for (int w = 0; w < WARPS; w++)
            low |= q.low[w];
        score_rows<DIM>(&q, a, low ? 2 : 1, sum);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float all = lanes_sum<4>(sum[j / 2][j % 2]);
            int b = first + 8 * j + LANE / 4;
            if (LANE % 4 == 0 && b < visible)
                p.score[(size_t)i * p.pitch + b] = known(all);
        }
    }
}

template <int DIM> static void score(struct dev *d, const struct picking *p, int n)
{
    int heads = PADDED(p->n_head);
    size_t shared = (size_t)2 * heads * (DIM + 8) * sizeof(uint16_t) +
                    (size_t)(heads + WARPS) * sizeof(float);
    dim3 grid(blocks_for(p->pitch, ROWS), blocks_for((size_t)n, QUERIES));
    cudaFuncSetAttribute(score_many_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)shared);
    LAUNCH(d, score_many_kernel<DIM>, grid, THREADS, shared, *p, n);
}

bool cuda_scores_many(const struct kv_shape *s, const struct indexer *ix)
{
    return s->packed && (ix->dim == 32 || ix->dim == 64 || ix->dim == 128);
}

void cuda_score_many(struct dev *d, const struct picking *p, int n)
{
    switch (p->dim) {
    case 32: score<32>(d, p, n); return;
    case 64: score<64>(d, p, n); return;
    default: score<128>(d, p, n);
    }
}
