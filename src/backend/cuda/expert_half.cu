/* expert_half.cu - routed experts of two bits for a few rows: one block on a multiprocessor, whose
 * warps share a codebook; a lane keeps 128 activations in registers and goes through rows of
 * weights, of which it has the same half block (half_impl.h). Warps copy tiles of rows ahead into
 * shared memory. */
#include "half_impl.h"
#include "gated_impl.h"
#include "pairs_impl.h"

#define CHUNK (WARP * HALF)
#define STAGES 2
#define MAX_WARPS 16

/* ---- the plan -------------------------------------------------------------------------------- */

/* A row has 32 lanes, or 16 where that is enough for it; each of these groups of lanes has n_row
 * rows of a tile. Shared memory holds activations, a codebook, barriers, then every warp's stages
 * of a tile's rows. */
static struct cu_plan half_plan(const struct cu_few *f, int n_row)
{
    struct cu_plan p = {};
    int chunk = MIN(f->k, CHUNK), each = f->k <= CHUNK / 2 ? 2 * n_row : n_row;
    p.tile_rows = each;
    each = f->up.data ? each / 2 : each;
    p.n_tile = (f->rows + each - 1) / each;
    p.n_chunk = (f->k + CHUNK - 1) / CHUNK;
    p.piece = (int)round_up(dtype_bytes(f->type, (size_t)chunk), 16);
    p.ring = (int)round_up((size_t)n_record(f->k) * sizeof(struct cu_record), 16) +
             (f->type == DT_IQ2_XXS ? BOOK_ALIGN + book_bytes(f->type) : 0) +
             MAX_WARPS * STAGES * (int)sizeof(uint64_t);
    return p;
}

/* Warps of a block that find room, up to `most`, and what shared memory they take; 64: a half is
 * read whole, behind the last row too. */
static int half_warps(const struct cuda *c, struct cu_plan *p, int most)
{
    int warp = STAGES * p->tile_rows * p->piece;
    int room = (int)c->shared_max - STATIC_SHARED - p->ring - 64;
    int n = MIN(most, MAX(room, 0) / warp);
    p->total = p->ring + n * warp + 64;
    return n;
}

/* ---- a walk through a pair's rows ------------------------------------------------------------ */

/* What a warp needs of a product again and again. Matrices of a tile lie one behind the other. */
struct cu_halves {
    const uint8_t *w[2];
    size_t pitch[2];
    int rows, each, n_matrix;    /* of the product; of each matrix in a tile */
    int n_chunk, piece, last;    /* bytes of a row's pieces and of the last one */
    int lanes;                   /* of a row */
    bool whole, joined;          /* pieces are copied by a lane each, a matrix's together */
};

__device__ __forceinline__ struct cu_halves halves_of(const struct cu_few *f)
{
    const struct cu_plan *p = &f->plan;
    int n_matrix = f->up.data ? 2 : 1, last = (int)f->row_bytes - (p->n_chunk - 1) * p->piece;
    const struct cu_weights *up = f->up.data ? &f->up : &f->w;
    uintptr_t odd = (uintptr_t)f->w.data | (uintptr_t)up->data | f->w.pitch | up->pitch |
                    (uintptr_t)last;
    bool whole = COPIES_PIECES && odd % 16 == 0;
    bool dense = p->n_chunk == 1 && f->w.pitch == (size_t)last && up->pitch == f->w.pitch;
    int each = p->tile_rows / n_matrix;
    return { { f->w.data, up->data }, { f->w.pitch, up->pitch }, f->rows, each, n_matrix,
             p->n_chunk, p->piece, last, f->k <= CHUNK / 2 ? WARP / 2 : WARP, whole,
             whole && dense && f->rows >= each };
}

/* The first row of a tile; the last tile ends with the last row. */
__device__ __forceinline__ int tile_from(const struct cu_halves *w, int tile)
{
    return max(min(tile * w->each, w->rows - w->each), 0);
}

__device__ __forceinline__ const uint8_t *row_of(const struct cu_halves *w, int from, int i)
{
    int m = i / w->each, row = min(from + i % w->each, w->rows - 1);
    return (m ? w->w[1] : w->w[0]) + (size_t)row * (m ? w->pitch[1] : w->pitch[0]);
}

/* A warp's turns with a pair: where it is, what it asks for next, the first tile of others. */
struct cu_turn {
    int tile, chunk;
};

struct cu_turns {
    struct cu_turn at, ask;
    int end;
};

/* Its stages. */
struct cu_ring {
    uint8_t *at;
    uint64_t *bar;
    int stage, bytes; /* bytes: of a stage */
    unsigned phase;   /* a bit for each */
};

__device__ __forceinline__ void next_turn(const struct cu_halves *w, struct cu_turn *t, int step)
{
    if (++t->chunk == w->n_chunk) {
        t->chunk = 0;
        t->tile += step;
    }
}

/* A turn's weights to a stage: a lane for each matrix, or for each row, or all lanes for each. */
__device__ __forceinline__ void ask_turn(const struct cu_halves *w, struct cu_turn t,
                                         const struct cu_ring *ring, int stage)
{
    uint8_t *to = ring->at + stage * ring->bytes;
    int n = t.chunk + 1 < w->n_chunk ? w->piece : w->last, n_row = w->n_matrix * w->each;
    int from = tile_from(w, t.tile);
    if (!w->whole) {
#pragma unroll 1
        for (int i = 0; i < n_row; i++)
            warp_copy(to + i * w->piece, row_of(w, from, i) + t.chunk * w->piece, n);
        return;
    }
    if (LANE == 0)
        pieces_expect(ring->bar + stage, n_row * n);
    if (w->joined && LANE < w->n_matrix)
        copy_piece(to + LANE * w->each * n,
                   (LANE ? w->w[1] : w->w[0]) + (size_t)from * (size_t)n, w->each * n,
                   ring->bar + stage);
    else if (!w->joined && LANE < n_row)
        copy_piece(to + LANE * w->piece, row_of(w, from, LANE) + t.chunk * w->piece, n,
                   ring->bar + stage);
}

/* What is next to ask for, if there is more. */
__device__ __forceinline__ void ask_next(const struct cu_halves *w, struct cu_turns *t,
                                         const struct cu_ring *ring, int stage)
{
    if (t->ask.tile < t->end)
        ask_turn(w, t->ask, ring, stage);
    next_turn(w, &t->ask, N_WARP);
    if (!w->whole)
        copy_commit();
}

/* ---- a tile ---------------------------------------------------------------------------------- */

/* sum[j] plus a lane's share of its row j; of a gate and of up in turns. */
template <int type, int n_row>
__device__ __forceinline__ void add_rows(const struct cu_halves *w, const uint8_t *stage,
                                         const struct cu_book *book, const struct cu_half *x,
                                         float *sum)
{
    int h = LANE % w->lanes;
    int other = w->n_matrix > 1 ? w->each * w->piece : w->piece, group = LANE / w->lanes;
    stage += group * n_row / w->n_matrix * w->piece;
#pragma unroll 1
    for (int j = 0; j < n_row; j++) {
        float s = half_times<type>(stage, h, book, x, sum[0]);
#pragma unroll
        for (int i = 0; i + 1 < n_row; i++)
            sum[i] = sum[i + 1];
        sum[n_row - 1] = s;
        stage += j % 2 && w->n_matrix > 1 ? w->piece - other : other;
    }
}

/* The sums of n_row values over a row's lanes, of value j to a part of them: its bits are those of
 * the lane that halve them first. */
template <int n_row> __device__ __forceinline__ float sums_of(float *x, int lanes)
{
    int by = lanes / 2;
#pragma unroll
    for (int n = n_row / 2; n > 0; n /= 2, by /= 2)
#pragma unroll
        for (int i = 0; i < n; i++) {
            bool up = LANE & by;
            float mine = up ? x[2 * i + 1] : x[2 * i], other = up ? x[2 * i] : x[2 * i + 1];
            x[i] = mine + __shfl_xor_sync(ALL_LANES, other, by);
        }
    float s = x[0];
    for (; by > 0; by /= 2)
        s += __shfl_xor_sync(ALL_LANES, s, by);
    return s;
}

template <int n_row>
__device__ __forceinline__ void tile_out(const struct cu_few *f, const struct cu_halves *w,
                                         int tile, float *sum)
{
    float x = sums_of<n_row>(sum, w->lanes);
    int j = LANE & w->lanes / 2 ? 1 : 0, group = LANE / w->lanes;
    if (n_row > 2 && LANE & w->lanes / 4)
        j += 2;
    bool mine = LANE % (w->lanes / n_row) == 0, gate = w->n_matrix > 1;
    int row = tile_from(w, tile) + (gate ? (group * n_row + j) / 2 : group * n_row + j);
    if (gate) {
        float up = __shfl_xor_sync(ALL_LANES, x, w->lanes / 2);
        mine = mine && j % 2 == 0;
        x = mine ? silu_times(x, up, f->clamp) * f->weight : 0;
    }
    if (mine && row < w->rows)
        f->out[row] = x;
#pragma unroll
    for (int i = 0; i < n_row; i++)
        sum[i] = 0;
}

/* ---- the kernel ------------------------------------------------------------------------------ */

/* The pair's activations to shared memory, rounded. */
template <int type>
__device__ __forceinline__ void take_x(const struct cu_few *f, struct cu_record *to)
{
    if (f->rounded) {
        const uint4 *from = (const uint4 *)f->rounded;
        int n = n_record(f->k) * (int)(sizeof *to / sizeof *from);
        for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
            ((uint4 *)to)[i] = from[i];
        return;
    }
    bool wide = is_aligned(f->x, 0, 16);
#pragma unroll 1
    for (int s = WARP_ID; s * SPAN < f->k; s += N_WARP)
        round_spans<act_block(type), has_minima(type), 1>((const float *)f->x, s, N_WARP, f->k,
                                                          wide, to);
}

/* What a block has for all of its pairs. */
struct cu_block {
    struct cu_ring ring;
    struct cu_book book;
    uint64_t asked; /* of the codebook's */
    bool begun;     /* it has had a pair, and the codebook is there */
};

/* All but the first weights are still to be asked for. */
template <int type, int n_row>
__device__ __forceinline__ void add_tiles(const struct cu_few *f, const struct cu_halves *w,
                                          struct cu_turns t, struct cu_block *b)
{
    SHARED_DYNAMIC(uint8_t, shared);
    const struct cu_record *record = (const struct cu_record *)(void *)shared;
    struct cu_ring *ring = &b->ring;
    int h = LANE % w->lanes, n_half = f->k / HALF;
    float sum[n_row] = {};
    struct cu_half x;
    if (h < n_half)
        half_read(record + 2 * h, &x);
#pragma unroll 1
    for (; t.at.tile < t.end; next_turn(w, &t.at, N_WARP)) {
        if (w->whole)
            pieces_wait(ring->bar + ring->stage, (int)(ring->phase >> ring->stage & 1));
        else
            copy_wait(STAGES - 1);
        __syncwarp();
        int at = t.at.chunk * WARP + h;
        if (w->n_chunk > 1 && at < n_half)
            half_read(record + 2 * at, &x);
        if (at < n_half)
            add_rows<type, n_row>(w, ring->at + ring->stage * ring->bytes, &b->book, &x, sum);
        __syncwarp();
        ask_next(w, &t, ring, ring->stage);
        if (t.at.chunk == w->n_chunk - 1)
            tile_out<n_row>(f, w, t.at.tile, sum);
        ring->phase ^= w->whole ? 1u << ring->stage : 0;
        ring->stage = ring->stage + 1 < STAGES ? ring->stage + 1 : 0;
    }
    if (!w->whole)
        copy_wait(0);
}

/* Tiles from..end of a pair. */
template <int type, int n_row>
__device__ __forceinline__ void pair_tiles(const struct cu_pairs *p, const struct cu_few *f,
                                           int from, int end, struct cu_block *b)
{
    SHARED_DYNAMIC(uint8_t, shared);
    struct cu_record *record = (struct cu_record *)(void *)shared;
    struct cu_halves w = halves_of(f);
    struct cu_turn first = { from + WARP_ID, 0 };
    struct cu_turns t = { first, first, end };
#pragma unroll 1
    for (int i = 0; i < STAGES; i++)
        ask_next(&w, &t, &b->ring, (b->ring.stage + i) % STAGES);
    if (type == DT_IQ2_XXS && !b->begun) {
        shared_place at = SHARED_AT(shared) + (shared_place)(n_record(f->k) * (int)sizeof *record);
        at = (at + BOOK_ALIGN - 1) & ~(shared_place)(BOOK_ALIGN - 1);
        uint8_t *signs = shared + (at - SHARED_AT(shared));
        book_fill(p->tables, b->asked, signs + BOOK_ALIGN, signs);
        at += (shared_place)LANE * 4;
        b->book.sizes = at + BOOK_ALIGN;
        b->book.signs = at;
    }
    wait_for_last();
    if (b->begun)
        __syncthreads();
    b->begun = true;
    take_x<type>(f, record);
    __syncthreads();
    add_tiles<type, n_row>(f, &w, t, b);
}

/* Tiles of all pairs, one pair behind the other, divided evenly among the blocks. */
template <int type, int n_row> __global__ void __launch_bounds__(MAX_WARPS *WARP, 1)
halves_kernel(const __grid_constant__ struct cu_pairs p)
{
    SHARED_DYNAMIC(uint8_t, shared);
    const struct cu_plan *plan = &p.f.plan;
    struct cu_block b = {};
    if (type == DT_IQ2_XXS) {
        b.asked = book_ask(p.tables);
        b.book.plus = p.tables->magnitudes;
    }
    int64_t all = (int64_t)p.n_pair * plan->n_tile;
    int at = (int)(all * blockIdx.x / gridDim.x), end = (int)(all * (blockIdx.x + 1) / gridDim.x);
    b.ring.bytes = plan->tile_rows * plan->piece;
    b.ring.at = shared + plan->ring + WARP_ID * STAGES * b.ring.bytes;
    b.ring.bar = (uint64_t *)(void *)(shared + plan->ring) - (WARP_ID + 1) * STAGES;
    if (LANE < STAGES)
        pieces_open(b.ring.bar + LANE);
    __syncwarp();
    if (!p.knows_route)
        wait_for_last();
#pragma unroll 1
    while (at < end) {
        int pair = at / plan->n_tile, from = at - pair * plan->n_tile;
        int n = min(plan->n_tile - from, end - at);
        struct cu_few f;
        if (pair_product(&p, pair, &f))
            pair_tiles<type, n_row>(&p, &f, from, from + n, &b);
        at += n;
    }
    wait_for_last();
}

/* ---- the launch ------------------------------------------------------------------------------ */

template <int type, int n_row>
static void launch_halves(struct dev *d, const struct cu_pairs *p, int n_warp)
{
    const struct cuda *c = cuda_of(d);
    (void)cudaFuncSetAttribute(halves_kernel<type, n_row>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)(c->shared_max - STATIC_SHARED));
    unsigned n_block = (unsigned)MIN(c->n_multi, p->n_pair * p->f.plan.n_tile);
    LAUNCH_EARLY(d, (halves_kernel<type, n_row>), n_block, (unsigned)(n_warp * WARP),
                 (size_t)p->f.plan.total, *p);
}

bool cuda_halves_fit(const struct dev *d, enum dtype type, int k)
{
    struct cu_few f;
    memset(&f, 0, sizeof f);
    f.type = type;
    f.k = k;
    struct cu_plan plan = half_plan(&f, 2);
    return half_warps(cuda_of(d), &plan, 1) > 0;
}

/* Four rows for a lane where that leaves enough warps. One row of activations makes do with half of
 * them: what they leave of a multiprocessor lets the next kernel begin beside them. */
void cuda_halves(struct dev *d, struct cu_pairs *p)
{
    int most = p->n_pair > p->n_used ? MAX_WARPS : MAX_WARPS / 2;
    p->f.plan = half_plan(&p->f, 4);
    int n_warp = half_warps(cuda_of(d), &p->f.plan, most);
    bool four = n_warp >= MAX_WARPS / 2;
    if (!four) {
        p->f.plan = half_plan(&p->f, 2);
        n_warp = half_warps(cuda_of(d), &p->f.plan, most);
    }
    if (p->f.type == DT_Q2_K && four)
        launch_halves<DT_Q2_K, 4>(d, p, n_warp);
    else if (p->f.type == DT_Q2_K)
        launch_halves<DT_Q2_K, 2>(d, p, n_warp);
    else if (four)
        launch_halves<DT_IQ2_XXS, 4>(d, p, n_warp);
    else
        launch_halves<DT_IQ2_XXS, 2>(d, p, n_warp);
}
