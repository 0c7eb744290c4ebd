/* tensor.h - views of memory, and the lists of rows that a step computes. */
#ifndef DS_TENSOR_H
#define DS_TENSOR_H

#include "quant.h"

/* Row-major view of device memory. Owns nothing, copied freely. A weight [out][in] has
 * rows = out, cols = in. */
struct tensor {
    void *data;
    enum dtype type;
    int cols, rows;
    size_t pitch;         /* bytes from one row to the next */
    const uint8_t *scale; /* E8M0 scales of DT_F8_E4M3 and DT_FP4, else NULL */
    size_t scale_pitch;   /* scale bytes per row (DT_FP4) or per 128 rows (DT_F8_E4M3) */
};

/* While planning data is NULL, and so the result means nothing. */
static inline void *tensor_row(const struct tensor *t, int r)
{
    return (void *)((uintptr_t)t->data + (size_t)r * t->pitch);
}

static inline float *tensor_f32(const struct tensor *t, int r)
{
    return (float *)tensor_row(t, r);
}

static inline int32_t *tensor_i32(const struct tensor *t, int r)
{
    return (int32_t *)tensor_row(t, r);
}

/* Scales of row r, NULL for a type without. */
static inline const uint8_t *tensor_scale(const struct tensor *t, int r)
{
    int tile = t->type == DT_F8_E4M3 ? r / 128 : r;
    return t->scale ? t->scale + (size_t)tile * t->scale_pitch : NULL;
}

/* Row r as float32, cols numbers. */
static inline void tensor_decode(const struct tensor *t, int r, float *dst)
{
    quant_decode(t->type, tensor_row(t, r), tensor_scale(t, r), dst, t->cols);
}

/* n rows from `first`; for DT_F8_E4M3 `first` must be a multiple of 128. */
static inline struct tensor tensor_rows(const struct tensor *t, int first, int n)
{
    struct tensor part = *t;
    part.data = tensor_row(t, first);
    part.scale = tensor_scale(t, first);
    part.rows = n;
    return part;
}

/* n columns from `first` of a float32 tensor. */
static inline struct tensor tensor_cols(const struct tensor *t, int first, int n)
{
    struct tensor part = *t;
    part.data = (void *)((uintptr_t)t->data + (size_t)first * sizeof(float));
    part.cols = n;
    return part;
}

/* One token at one position of one conversation. Prefill, decode, draft verification and many
 * users at once are all just lists of these. */
struct row {
    int32_t token, pos, seq; /* seq: index into rows.kv */
    bool logits;             /* the step returns logits of this row */
};

/* How cached rows are stored; the same for all layers and conversations of a model. */
struct kv_shape {
    bool packed;         /* FP8 and FP4 rows as trained (kv_row.h); otherwise float32 rows */
    int head_dim, rope_dim, index_dim;
    size_t row_bytes, index_row_bytes;
    int window;          /* rows a query sees raw, its own included */
    int ring_cap;        /* slots of a ring: window - 1 + the most rows of a step, or more */
    int slack;           /* frontiers keep this many rows more than the mathematics needs: so far
                            back may a conversation be cut without restoring a mark */
    int block_tok;       /* tokens of a block of compressed rows, a multiple of every ratio */
};

/* A compressor's inputs that are not yet, or only half, pooled: slot = pos % cap. */
struct kv_front {
    float *a, *s; /* values and gate scores (position bias added), each [cap][width] */
    int cap, width;
};

/* One conversation's cache in one layer. Compressed row b (tokens b*ratio .. b*ratio+ratio-1) is
 * row b % per of block b / per, per = block_tok / ratio. */
struct kv_layer {
    int ratio;            /* 0: window only; 4: overlapping blocks with an index; else plain */
    uint8_t *ring;        /* [ring_cap][row_bytes], slot = pos % ring_cap */
    struct kv_front main, index; /* a NULL where the layer has none */
    uint8_t **block;      /* [blocks] of [per][row_bytes] */
    uint8_t **index_block; /* [blocks] of [per][index_row_bytes]; NULL unless ratio is 4 */
};

/* What the ops of a step see of one conversation. */
struct kv_view {
    const struct kv_shape *shape;
    int n_layer; /* backbone layers, then MTP blocks */
    struct kv_layer *layer;
};

static inline uint8_t *kv_ring_row(const struct kv_shape *s, const struct kv_layer *l, int pos)
{
    return l->ring + (size_t)(pos % s->ring_cap) * s->row_bytes;
}

static inline uint8_t *kv_block_row(const struct kv_shape *s, const struct kv_layer *l, int b)
{
    int per = s->block_tok / l->ratio;
    return l->block[b / per] + (size_t)(b % per) * s->row_bytes;
}

static inline uint8_t *kv_index_row(const struct kv_shape *s, const struct kv_layer *l, int b)
{
    int per = s->block_tok / l->ratio;
    return l->index_block[b / per] + (size_t)(b % per) * s->index_row_bytes;
}

/* What one step computes, and each conversation's cache. Rows of one conversation are adjacent
 * and at consecutive positions. */
struct rows {
    int n;
    const struct row *host;
    int n_seq;
    struct kv_view **kv;
};

#endif
