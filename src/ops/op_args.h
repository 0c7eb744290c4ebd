/* op_args.h - what ops are told besides tensors. */
#ifndef DS_OP_ARGS_H
#define DS_OP_ARGS_H

#include "dev.h"

/* Rotary frequencies: angle of pair i at position p is p * freq[i], product in float32. */
struct rope {
    const float *freq;
    int n_pair; /* rope_dim / 2: pairs are adjacent elements at the end of a head */
};

/* One of several products of the same x: as by op_matmul, or op_matmul_exact; or, with up, as by
 * op_gated. */
struct matmul {
    struct tensor out;
    const struct tensor *w;
    bool exact;
    const struct tensor *up;
    float clamp;
};

/* Hyper-connection parameters of one sublayer; m = 2*n_stream + n_stream^2 (the head: n_stream). */
struct hc {
    struct tensor fn;          /* [m, n_stream * n_embd], F32 or F16 */
    const float *base, *scale; /* [m], [3] (the head: [1]) */
    int n_stream, n_iter;      /* n_iter: Sinkhorn iterations, the first one included */
    float eps, norm_eps;
};

/* A compressor of `ratio` tokens into one row of `dim`; overlapping when width == 2 * dim. */
struct compressor {
    const float *ape;  /* [ratio, width] added to the gate scores */
    const float *norm; /* [dim] */
    int ratio, dim, width;
    float eps;
    bool index;        /* the indexer's: its rows go to kv_layer.index_block */
};

struct indexer {
    int n_head, dim, top_k;
    float scale; /* of the head weights: (dim * n_head)^-0.5 */
};

/* A compressor's inputs, [n, width] each. */
struct compressing {
    const struct compressor *c;
    struct tensor a, s;
};

/* What a layer's products say of new rows, on its way into the cache and to attention. */
struct fresh {
    struct tensor q, kv;      /* [n, n_head * head_dim], [n, head_dim] */
    int n_head;
    const float *kv_norm;     /* [head_dim] */
    float eps;
    const struct rope *rope;
    struct compressing comp[2];
    int n_comp;
    struct tensor index_q;    /* [n, n_head * dim] of ix */
    const struct indexer *ix; /* NULL: none */
};

struct router {
    const float *bias;     /* [n_expert] added for selection only; NULL: none */
    const int32_t *by_token; /* [n_vocab, n_used]: hash routing; NULL: top-k of score + bias */
    int n_vocab, n_expert, n_used;
    float scale;
};

/* Who computes which row: ids and weights [n, n_used]. */
struct route {
    struct tensor id;     /* I32 */
    struct tensor weight; /* F32 */
};

/* One routed expert whose weights are at hand. */
struct expert {
    int id;
    struct tensor gate, up, down;
};

/* Places in the memory of a device that is apart for far experts of a layer that few rows used
 * last; the device itself says whose they are. */
#define MAX_SLOT 256
#define MAX_PLACE 1024 /* experts of a set that has slots; their ids are 0, 1, ... */
enum { PLACE_NEAR = -2, PLACE_FAR = -1 }; /* else a slot's number */
struct far_state {
    int tick;            /* steps so far */
    unsigned arrived;    /* blocks of the kernel that copies */
    uint64_t fetched;    /* experts that were brought, or read where they lie */
    int used[MAX_SLOT];  /* tick of its last use */
    int owner[MAX_SLOT]; /* expert; -1: none */
    int place[MAX_PLACE];
};
struct far_slots {
    int n;
    uint8_t *mem; /* [n] of `each` bytes */
    size_t each;
    const struct expert *home; /* [set.n] on the device: where they are read otherwise */
    struct far_state *state;  /* on the device */
};

struct expert_set {
    int n;
    const struct expert *e;     /* ascending id */
    const struct expert *there; /* the same in memory of a device that is apart; NULL: not there */
    const void *far;            /* what of them lies in the host's memory, one after another */
    size_t far_bytes;
    struct far_slots slots; /* n 0: none; `there` changes with them */
};

/* Between two sublayers: what the one behind gave, and what the next one is. */
struct hc_turn {
    struct tensor y;        /* [n, n_embd] */
    struct tensor part;     /* of experts, to which y is added; no rows: none */
    struct route route;     /* theirs */
    const struct hc *hc;    /* of the sublayer behind */
    const struct hc *next;  /* NULL: none, and the streams are all that changes */
    const float *weight;    /* its norm */
    float eps;
};

struct attention {
    int n_head;
    float scale;        /* of the scores */
    const float *sink;  /* [n_head] */
    bool picked;        /* of the compressed rows only those picked, not all visible ones */
    const struct rope *back; /* values carry their rotation: the row's own is undone; or NULL */
};

#endif
