/* collect_impl.h - what a collector holds. */
#ifndef DS_COLLECT_IMPL_H
#define DS_COLLECT_IMPL_H

#include "collect.h"
#include "deepseek4_names.h"
#include "engine.h"
#include "gram.h"

/* Sums of one matrix, or of one stack of experts. twin: a second tensor that sees the same. */
struct collect_stat {
    char name[DSV4_NAME_MAX], twin[DSV4_NAME_MAX];
    const void *data; /* of the matrix; NULL: experts */
    int n_col, n_mat;
    double *square, *value; /* [n_mat][n_col] */
    int64_t *count;         /* [n_mat] rows */
};

/* What goes together in the inputs of gate and up, and of down. */
struct collect_products {
    struct gram gram[2][2]; /* [gate and up, down][learn, held] */
    struct gram_rows rows[2];
};

/* Routed experts of a layer: their rows in order, however they come. */
struct collect_layer {
    struct collect_products all, *own; /* own: [n_expert] of each alone; NULL: not wanted */
};

/* The same sums in the memory of a device that is apart, which are then the true ones. */
struct collect_there {
    void *mem;             /* NULL: they are the host's */
    struct dev_sums *sums; /* [n_stat] */
};

struct collector {
    struct engine *engine;
    struct dev_watch watch;
    struct collect_there there;
    int n_layer, n_expert, n_used, n_embd, n_ff;
    struct collect_stat *stat; /* matrices, then gate and down of each layer */
    struct collect_stat **by_data; /* [n_dense] by address, which differs from run to run */
    int n_dense, n_stat;
    struct collect_layer *layer; /* [n_layer]; NULL: no products */
    struct pool *pool;
    float *mid;             /* [most pairs of a step][n_ff] of the layer that runs */
    int n_mid;
    bool held;
    struct err err;
};

/* The products number i of all that are collected, NULL past the last: layer by layer, of all its
 * experts, then of each alone. *l: the layer, *x: the expert or -1. */
struct collect_products *collect_products_at(const struct collector *c, int i, int *l, int *x);

/* ERR_NO_MEMORY: the device has no room for them. */
int collect_there_open(struct collector *c, struct err *e);
int collect_there_send(struct collector *c, struct err *e); /* from the host's */
void collect_there_close(struct collector *c);

/* ERR_FORMAT: what is wrong, and where. */
int collect_no_number(const struct collector *c, const struct collect_stat *s, int mat,
                      struct err *e);

static inline struct collect_stat *collect_experts(const struct collector *c, int layer, bool down)
{
    return &c->stat[c->n_dense + 2 * layer + down];
}

#endif
