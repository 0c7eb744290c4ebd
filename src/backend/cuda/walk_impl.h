/* walk_impl.h - how the warps of a block walk through packed weights: each takes tiles of some rows
 * and copies pieces of CHUNK elements of them into shared memory, ahead of their use. */
#ifndef DS_WALK_IMPL_H
#define DS_WALK_IMPL_H

#include "async_impl.h"
#include "pair_impl.h"
#include "round_impl.h"

#define CHUNK 2048
#define PAIR (2 * UNIT)

/* Pieces under way: 16 KB for a warp at most, and no less than 4. */
__host__ __device__ __forceinline__ constexpr int few_stages(int type)
{
    return type == DT_Q8_0 ? 2 : 4;
}

/* Lanes for a row: rows of up to CHUNK / 2 elements come four at a time. */
__host__ __device__ __forceinline__ int row_lanes(int k)
{
    return k <= CHUNK / 2 ? WARP / 2 : WARP;
}

__host__ __device__ __forceinline__ int tile_rows(int k)
{
    return 2 * WARP / row_lanes(k);
}

/* Of two rows for each group of row_lanes(), or of a gate's row and up's. */
__host__ __device__ __forceinline__ int few_tiles(int k, int rows, bool is_gated)
{
    int each = is_gated ? tile_rows(k) / 2 : tile_rows(k);
    return (rows + each - 1) / each;
}

/* Shared memory: activations, codebook, then every warp's stages of a tile's pieces. */
struct cu_room {
    size_t book, ring, piece, total; /* the first two: where; then bytes */
};

__host__ __device__ __forceinline__ struct cu_room few_room(int type, int k, int n,
                                                                   size_t row_bytes)
{
    struct cu_room r;
    size_t chunk = k <= CHUNK ? row_bytes : row_bytes * CHUNK / (size_t)k;
    r.piece = (chunk + 15) / 16 * 16;
    r.book = (size_t)n * (size_t)n_record(k) * sizeof(struct cu_record);
    /* A pair is read whole, behind the last piece too. */
    r.ring = r.book + (type == DT_IQ2_XXS ? 256 * BOOK_COPIES * sizeof(uint64_t) : 0);
    r.total = r.ring + FEW_WARPS * (size_t)(few_stages(type) * tile_rows(k)) * r.piece + 64;
    return r;
}

/* Where a warp is: a piece of a tile. */
struct cu_place {
    int tile, chunk;
};

struct cu_walk {
    const struct cu_few *f;
    struct cu_room room;
    int n_tile, n_chunk, stride; /* from one of a warp's tiles to its next */
};

__device__ __forceinline__ void next_place(const struct cu_walk *walk, struct cu_place *at)
{
    if (++at->chunk < walk->n_chunk)
        return;
    at->chunk = 0;
    at->tile += walk->stride;
}

/* Row q of a tile, as long as there are rows; with a gate its row and that of up take turns. */
__device__ __forceinline__ int tile_row(const struct cu_few *f, int tile, int q)
{
    int rows = tile_rows(f->k);
    return min(f->up.data ? tile * (rows / 2) + q / 2 : tile * rows + q, f->rows - 1) + f->row0;
}

__device__ __forceinline__ const struct cu_weights *tile_weights(const struct cu_few *f, int q)
{
    return f->up.data && q % 2 ? &f->up : &f->w;
}

/* Asks for a tile's pieces. */
__device__ __forceinline__ void tile_copy(const struct cu_walk *walk, struct cu_place at,
                                          uint8_t *to)
{
    const struct cu_few *f = walk->f;
    size_t chunk = f->k <= CHUNK ? f->row_bytes : f->row_bytes * CHUNK / (size_t)f->k;
    size_t from = (size_t)at.chunk * chunk;
    for (int q = 0; q < tile_rows(f->k) && at.tile < walk->n_tile; q++) {
        const struct cu_weights *w = tile_weights(f, q);
        const uint8_t *row = w->data + (size_t)tile_row(f, at.tile, q) * w->pitch;
        warp_copy(to + (size_t)q * walk->room.piece, row + from,
                  (int)(at.chunk + 1 < walk->n_chunk ? chunk : f->row_bytes - from));
    }
    copy_commit();
}

#endif
