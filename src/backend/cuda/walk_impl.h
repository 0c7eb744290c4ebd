/* walk_impl.h - how the warps of a block walk through packed weights: each takes tiles of some rows
 * and copies pieces of CHUNK elements of them into shared memory, ahead of their use. */
#ifndef DS_WALK_IMPL_H
#define DS_WALK_IMPL_H

#include "async_impl.h"
#include "pair_impl.h"
#include "round_impl.h"

#define CHUNK 2048
#define PAIR (2 * UNIT)

/* Pieces under way; a codebook leaves no room for more. */
__host__ __device__ __forceinline__ constexpr int few_stages(int type)
{
    return type == DT_Q8_0 || type == DT_IQ2_XXS ? 2 : 4;
}

/* A row has 32 lanes, or 16 where it has no more than CHUNK / 2 elements; a tile is two rows for
 * each such group of lanes, or as many rows of a gate and of up in turns. Shared memory holds
 * a codebook, activations, barriers (two for them, one of which is used, then those of stages),
 * then every warp's stages of a tile's pieces. */
static inline struct cu_plan few_plan(const struct cu_few *f, int n)
{
    struct cu_plan p;
    p.tile_rows = f->k <= CHUNK / 2 ? 4 : 2;
    int each = f->up.data ? p.tile_rows / 2 : p.tile_rows;
    p.n_tile = (f->rows + each - 1) / each;
    p.n_chunk = (f->k + CHUNK - 1) / CHUNK;
    size_t piece = f->k <= CHUNK ? f->row_bytes : f->row_bytes * CHUNK / (size_t)f->k;
    p.piece = (int)round_up(piece, 16);
    p.ring = book_bytes(f->type) + n * n_record(f->k) * (int)sizeof(struct cu_record) +
             (2 + FEW_WARPS * few_stages(f->type)) * (int)sizeof(uint64_t);
    p.total = p.ring + FEW_WARPS * few_stages(f->type) * p.tile_rows * p.piece + 64;
    return p; /* 64: a pair is read whole, behind the last piece too */
}

/* Where a warp is: a piece of a tile. */
struct cu_place {
    int tile, chunk;
};

/* What of a product a warp needs again and again, in registers. */
struct cu_walk {
    const uint8_t *w[2];         /* rows of even and of odd place in a tile */
    uint32_t pitch[2];
    int rows, n_tile, n_chunk, piece, last; /* last: bytes of a row's last piece */
    int tile_rows, each;         /* each: rows of the product in a tile */
    int stride;                  /* from one of a warp's tiles to its next */
    int lanes, q, p;             /* of a row; a lane's first row in a tile, its pair in a piece */
    bool whole, joined;          /* pieces are copied by one lane each; those of a tile together */
};

__device__ __forceinline__ bool are_whole(const struct cu_walk *walk)
{
    uintptr_t odd = (uintptr_t)walk->w[0] | (uintptr_t)walk->w[1] | walk->pitch[0] |
                    walk->pitch[1] | (uintptr_t)walk->last;
    return COPIES_PIECES && odd % 16 == 0;
}

__device__ __forceinline__ struct cu_walk walk_of(const struct cu_few *f)
{
    const struct cu_plan *p = &f->plan;
    const struct cu_weights *odd = f->up.data ? &f->up : &f->w;
    bool narrow = p->tile_rows > 2;
    struct cu_walk walk = {
        { f->w.data + (size_t)f->row0 * f->w.pitch, odd->data + (size_t)f->row0 * odd->pitch },
        { (uint32_t)f->w.pitch, (uint32_t)odd->pitch }, f->rows, p->n_tile, p->n_chunk, p->piece,
        (int)f->row_bytes - (p->n_chunk - 1) * p->piece, p->tile_rows,
        f->up.data ? p->tile_rows / 2 : p->tile_rows, f->n_block * FEW_WARPS,
        narrow ? WARP / 2 : WARP, narrow ? LANE / (WARP / 2) * 2 : 0,
        narrow ? LANE % (WARP / 2) : LANE, false, false
    };
    walk.whole = are_whole(&walk);
    walk.joined = !f->up.data && p->n_chunk == 1 && walk.pitch[0] == (uint32_t)p->piece &&
                  f->rows % p->tile_rows == 0;
    return walk;
}

__device__ __forceinline__ void next_place(const struct cu_walk *walk, struct cu_place *at)
{
    if (++at->chunk < walk->n_chunk)
        return;
    at->chunk = 0;
    at->tile += walk->stride;
}

/* Row q of a tile, as long as there are rows. */
__device__ __forceinline__ int tile_row(const struct cu_walk *walk, int tile, int q)
{
    return min(tile * walk->each + (walk->each == walk->tile_rows ? q : q / 2), walk->rows - 1);
}

__device__ __forceinline__ const uint8_t *row_at(const struct cu_walk *walk, int tile, int q)
{
    size_t row = (size_t)tile_row(walk, tile, q), pitch = q % 2 ? walk->pitch[1] : walk->pitch[0];
    return (q % 2 ? walk->w[1] : walk->w[0]) + row * pitch;
}

/* What to ask for next; from: of the lane's own row of the tile, if it has one. */
struct cu_ask {
    struct cu_place at;
    const uint8_t *from;
};

__device__ __forceinline__ struct cu_ask first_ask(const struct cu_walk *walk, struct cu_place at)
{
    return { at, row_at(walk, at.tile, LANE) };
}

__device__ __forceinline__ void ask_whole(const struct cu_walk *walk, struct cu_ask *ask,
                                          uint8_t *to, uint64_t *bar, int n)
{
    if (LANE == 0)
        pieces_expect(bar, walk->tile_rows * n);
    if (LANE < (walk->joined ? 1 : walk->tile_rows))
        copy_piece(to + LANE * walk->piece, ask->from, walk->joined ? walk->tile_rows * n : n, bar);
    ask->from += walk->piece;
    int tile = ask->at.tile;
    next_place(walk, &ask->at);
    if (ask->at.tile != tile)
        ask->from = row_at(walk, ask->at.tile, LANE);
}

/* All lanes for every piece. */
__device__ __forceinline__ void ask_shared(const struct cu_walk *walk, struct cu_ask *ask,
                                           uint8_t *to, int n)
{
#pragma unroll 1
    for (int q = 0; q < walk->tile_rows; q++)
        warp_copy(to + q * walk->piece,
                  row_at(walk, ask->at.tile, q) + ask->at.chunk * walk->piece, n);
    next_place(walk, &ask->at);
}

/* Asks for a tile's pieces, if there are more. */
__device__ __forceinline__ void ask_pieces(const struct cu_walk *walk, struct cu_ask *ask,
                                           uint8_t *to, uint64_t *bar)
{
    int n = ask->at.chunk + 1 < walk->n_chunk ? walk->piece : walk->last;
    bool more = ask->at.tile < walk->n_tile;
    if (more && walk->whole)
        ask_whole(walk, ask, to, bar, n);
    else if (more)
        ask_shared(walk, ask, to, n);
    if (!walk->whole)
        copy_commit();
}

#endif
