/* packed_impl.h - packed weights times a few rows of rounded activations: a lane multiplies a pair
 * of units of two rows of weights with what it has read of the activations once. */
#ifndef DS_PACKED_IMPL_H
#define DS_PACKED_IMPL_H

#include "gated_impl.h"
#include "times_impl.h"
#include "walk_impl.h"

/* sum[h][i] plus a lane's share of two rows of a tile's pieces times row i of x. */
template <int type, int n_x>
__device__ __forceinline__ void tile_add(const struct cu_few *f, const struct cu_walk *walk,
                                         struct cu_place at, const uint8_t *pieces,
                                         const uint8_t *shared, float (*sum)[n_x])
{
    int q = walk->q, p = walk->p, k = f->k, from = at.chunk * CHUNK + p * PAIR;
    if (from >= k)
        return;
    struct cu_unit w[2][2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        struct cu_piece s = { pieces + (q + h) * walk->piece, NULL, shared };
        if (type == DT_FP4) {
            const struct cu_weights *m = h && f->up.data ? &f->up : &f->w;
            size_t row = (size_t)(tile_row(walk, at.tile, q + h) + f->row0);
            s.scale = m->scale + row * m->scale_pitch + at.chunk * (CHUNK / UNIT);
        }
        pair_load<type>(&s, p, from + UNIT < k, w[h]);
    }
    const struct cu_record *record =
        (const struct cu_record *)(shared + book_bytes(type)) + from / RECORD;
#pragma unroll
    for (int i = 0; i < n_x; i++, record += n_record(k)) {
        if (i >= f->n)
            break;
        struct cu_record x = *record;
#pragma unroll
        for (int j = 0; j < 4; j++)
            sum[j / 2][i] = unit_times<type>(&w[j / 2][j % 2], (const int *)x.q + j % 2 * 8,
                                             x.d[j % 2], x.sum + j % 2 * 2, sum[j / 2][i]);
    }
}

/* The sum of all a to the lower half of a row's lanes, that of all b to the upper one. */
__device__ __forceinline__ float two_sums(float a, float b, int lanes)
{
    bool up = LANE & lanes / 2;
    float x = (up ? b : a) + __shfl_xor_sync(ALL_LANES, up ? a : b, lanes / 2);
    if (lanes == WARP)
        x += __shfl_xor_sync(ALL_LANES, x, WARP / 4);
    return lanes_sum<WARP / 4>(x);
}

__device__ __forceinline__ float gated(const struct cu_few *f, float a, float b)
{
    return silu_times(a, b, f->clamp) * f->weight;
}

/* A tile's rows are complete. */
template <int n_x>
__device__ __forceinline__ void tile_out(const struct cu_few *f, const struct cu_walk *walk,
                                         int tile, float (*sum)[n_x])
{
    bool gate = walk->each < walk->tile_rows;
    int half = walk->lanes / 2, h = !gate && walk->p >= half;
    int r = tile * walk->each + (gate ? walk->q / 2 : walk->q + h);
#pragma unroll
    for (int i = 0; i < n_x; i++) {
        if (i >= f->n)
            break;
        float x = two_sums(sum[0][i], sum[1][i], walk->lanes);
        float up = gate ? __shfl_xor_sync(ALL_LANES, x, half) : 0;
        sum[0][i] = sum[1][i] = 0;
        if (walk->p == h * half && r < walk->rows)
            f->out[(size_t)i * f->out_pitch + r] = gate ? gated(f, x, up) : x;
    }
}

/* Block number `block` of the product. Weights are asked for before the activations are there. */
template <int type, int n_x>
__device__ __forceinline__ void few_packed(const struct cu_few *f, int block,
                                           const struct cu_tables *tables)
{
    SHARED_DYNAMIC(uint8_t, shared);
    constexpr int stages = few_stages(type);
    struct cu_walk walk = walk_of(f);
    int warp = (int)threadIdx.x / WARP, stage = walk.tile_rows * walk.piece;
    uint8_t *ring = shared + f->plan.ring + warp * stages * stage;
    uint64_t *bar = (uint64_t *)(shared + f->plan.ring) - (FEW_WARPS - warp) * stages;
    uint64_t *bar_x = (uint64_t *)(shared + f->plan.ring) - FEW_WARPS * stages - 1;
    struct cu_place at = { block + warp * f->n_block, 0 };
    struct cu_ask ask = first_ask(&walk, at);
    if (walk.whole && LANE < stages)
        pieces_open(bar + LANE);
    if (f->rounded && threadIdx.x == 0)
        pieces_open(bar_x);
    __syncwarp();
#pragma unroll 1
    for (int s = 0; s < stages; s++)
        ask_pieces(&walk, &ask, ring + s * stage, bar + s);
    if (type == DT_IQ2_XXS)
        book_fill(tables, book_ask(tables), shared, shared + BOOK_SIGNS);
    wait_for_last();
    struct cu_record *record = (struct cu_record *)(shared + book_bytes(type));
    if (f->rounded)
        ask_rounded(f, record, bar_x);
    else if (n_x == 1)
        few_round<act_block(type), has_minima(type)>(f, record);
    __syncthreads();
    if (COPIES_PIECES && f->rounded)
        pieces_wait(bar_x, 0);
    float sum[2][n_x] = {};
#pragma unroll 1
    for (int s = 0, phase = 0; at.tile < walk.n_tile; next_place(&walk, &at)) {
        if (walk.whole)
            pieces_wait(bar + s, phase);
        else
            copy_wait(stages - 1);
        __syncwarp();
        tile_add<type, n_x>(f, &walk, at, ring + s * stage, shared, sum);
        __syncwarp();
        ask_pieces(&walk, &ask, ring + s * stage, bar + s);
        if (at.chunk == walk.n_chunk - 1)
            tile_out<n_x>(f, &walk, at.tile, sum);
        s = s + 1 < stages ? s + 1 : 0;
        phase ^= s == 0;
    }
}

#endif
