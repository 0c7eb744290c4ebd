/* kv_pool.h - blocks of compressed rows.
 *
 * A block holds the compressed rows that block_tok consecutive tokens leave in every layer. The
 * pool has a fixed number of them in memory that the caller gives; with untouched pages
 * (base/pages.h) only blocks that were used cost anything. */
#ifndef DS_KV_POOL_H
#define DS_KV_POOL_H

#include "dev.h"

/* Layers of this ratio pool overlapping blocks and have an index (kv_layer.ratio). */
#define KV_OVERLAP_RATIO 4

struct kv_block {
    int refs; /* conversations that hold it; only the holder of the one reference may write */
    uint8_t *mem;
    struct kv_block *next; /* in the list of unused blocks */
};

/* What a cache consists of: lists that the host reads in every step, and data that ops read and
 * write, which lies where the device computes. */
struct kv_mem {
    void *host, *data;
};
struct kv_bytes {
    size_t host, data;
};

/* Host:     | offsets, ratios | struct kv_block x n_block |
 * Data:     | blocks |
 * A block:  | rows of layer 0 | its index rows | rows of layer 1 | ...  without gaps */
struct kv_pool {
    struct dev *dev;           /* that the data is copied by; NULL: it is the host's memory */
    struct kv_shape shape;
    int n_layer, n_block, n_used;
    const int *ratio;          /* [n_layer] */
    size_t *row_at, *index_at; /* [n_layer] where in a block */
    size_t block_bytes;
    struct kv_block *block, *unused;
};

/* Bytes of a block's rows that n_tok <= block_tok tokens at its start fill. */
size_t kv_rows_bytes(const struct kv_shape *s, const int *ratio, int n_layer, int n_tok);

/* A pool without blocks, for asking sizes; borrows ratio. */
void kv_pool_plan(struct kv_pool *p, const struct kv_shape *s, const int *ratio, int n_layer);

/* Memory for a pool. ratio [n_layer] as in kv_layer. */
struct kv_bytes kv_pool_bytes(const struct kv_shape *s, const int *ratio, int n_layer, int n_block);

/* mem: kv_pool_bytes() bytes, aligned to 64, the caller's. Copies shape and ratios. */
void kv_pool_init(struct kv_pool *p, const struct kv_shape *s, const int *ratio, int n_layer,
                  struct kv_mem mem, int n_block);

/* A block with one reference, its content undefined; NULL when all are used. */
struct kv_block *kv_block_take(struct kv_pool *p);
void kv_block_share(struct kv_block *b);
void kv_block_drop(struct kv_pool *p, struct kv_block *b);

#endif
