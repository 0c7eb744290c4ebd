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
 * a codebook, activations, then every warp's stages of a tile's pieces. */
static inline struct cu_plan few_plan(const struct cu_few *f, int n)
{
    struct cu_plan p;
    p.tile_rows = f->k <= CHUNK / 2 ? 4 : 2;
    int each = f->up.data ? p.tile_rows / 2 : p.tile_rows;
    p.n_tile = (f->rows + each - 1) / each;
    p.n_chunk = (f->k + CHUNK - 1) / CHUNK;
    size_t piece = f->k <= CHUNK ? f->row_bytes : f->row_bytes * CHUNK / (size_t)f->k;
    p.piece = (int)round_up(piece, 16);
    p.ring = book_bytes(f->type) + n * n_record(f->k) * (int)sizeof(struct cu_record);
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
    size_t pitch[2];
    int rows, n_tile, n_chunk, piece, last; /* last: bytes of a row's last piece */
    int tile_rows, each;         /* each: rows of the product in a tile */
    int stride;                  /* from one of a warp's tiles to its next */
};

__device__ __forceinline__ struct cu_walk walk_of(const struct cu_few *f)
{
    const struct cu_plan *p = &f->plan;
    const struct cu_weights *odd = f->up.data ? &f->up : &f->w;
    return { { f->w.data + (size_t)f->row0 * f->w.pitch, odd->data + (size_t)f->row0 * odd->pitch },
             { f->w.pitch, odd->pitch }, f->rows, p->n_tile, p->n_chunk, p->piece,
             (int)f->row_bytes - (p->n_chunk - 1) * p->piece, p->tile_rows,
             f->up.data ? p->tile_rows / 2 : p->tile_rows, f->n_block * FEW_WARPS };
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

/* Asks for a tile's pieces. */
__device__ __forceinline__ void tile_copy(const struct cu_walk *walk, struct cu_place at,
                                          uint8_t *to)
{
    int from = at.chunk * walk->piece, n = at.chunk + 1 < walk->n_chunk ? walk->piece : walk->last;
#pragma unroll 1
    for (int q = 0; q < walk->tile_rows && at.tile < walk->n_tile; q++) {
        size_t row = (size_t)tile_row(walk, at.tile, q);
        const uint8_t *w = q % 2 ? walk->w[1] : walk->w[0];
        size_t pitch = q % 2 ? walk->pitch[1] : walk->pitch[0];
        warp_copy(to + q * walk->piece, w + row * pitch + from, n);
    }
    copy_commit();
}

#endif
