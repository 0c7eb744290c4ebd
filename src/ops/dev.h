/* dev.h - a device: memory, a queue of work, one remembered failure. */
#ifndef DS_DEV_H
#define DS_DEV_H

#include "arena.h"
#include "error.h"
#include "quant_random.h"
#include "tensor.h"

#ifndef __cplusplus
#include <stdatomic.h>
#else /* CUDA's sources: the pointer is all they see */
#define atomic_int volatile int
#endif

struct ops;
struct route;
struct expert_set;

/* Sees what the router of `layer` decided for rows r; ids and weights are in host memory. */
typedef void dev_route_fn(void *user, int layer, const struct route *route, const struct rows *r);

/* The rows that one routed expert of `layer` computes. A pair is a row's use of an expert. */
struct dev_pairs {
    int layer, expert, n, n_used;
    const int *pair;          /* [n] row * n_used + slot, ascending */
    const struct tensor *x;   /* gate and up of pair i see row pair[i] / n_used */
    const struct tensor *mid; /* [n rows] down sees these: routing weight applied */
};

/* Sums over the rows that a matrix, or each expert of a layer, is given; in the device's memory. */
struct dev_sums {
    double *square, *value; /* [matrices][columns] */
    int64_t *count;         /* [matrices] rows */
};

/* Sees the inputs of every product before they are rounded to what kernels like; all in host
 * memory. A device that computes experts shows their pairs itself, once for each expert. One that
 * is apart may be asked to add them to sums instead, in the order in which it would show them. */
struct dev_watch {
    void (*input)(void *user, const struct tensor *w, const struct tensor *x);
    void (*expert)(void *user, const struct dev_pairs *p);
    const struct dev_sums *(*sums)(void *user, const struct tensor *w); /* NULL: show */
    const struct dev_sums *(*expert_sums)(void *user, int layer); /* [2] of x, of mid; or NULL */
    void *user;
};

/* Sees the streams of rows r behind `layer`, in host memory. */
typedef void dev_layer_fn(void *user, int layer, const struct tensor *streams,
                          const struct rows *r);

/* One op that has run, for measuring. w: the matrix it read, NULL: none, or experts. */
struct op_call {
    const char *name; /* without "op_" */
    const struct tensor *w;
    int n_group;
};
typedef void dev_op_fn(void *user, int layer, const struct op_call *call);

/* Routes in place of the router's choice, for measuring: the token at position p uses the experts
 * of token p mod n_tok, with the weights that the router gave its own. */
struct dev_routes {
    const uint16_t *id;        /* [n_tok][n_layer][n_used], in memory of the device */
    int n_tok, n_layer, n_used;
    int first;                 /* layers before it and beyond n_layer are routed as ever */
};

struct dev {
    const char *name;       /* "cpu" */
    const struct ops *ops;
    struct arena scratch;   /* a step's temporary memory; without memory while planning */
    struct err err;         /* sticky: the first failure mutes the rest of the step */
    int layer;              /* being computed, for messages; -1 outside layers */
    dev_route_fn *on_route; /* called after every op_route that computed; NULL: nobody looks */
    void *on_route_user;
    dev_layer_fn *on_layer; /* called after every layer of the network that computed; or NULL */
    void *on_layer_user;
    const struct dev_routes *routes; /* NULL: the router's; steady from the first step on */
    uint32_t *uses;         /* [layers][n_expert] on the device, of few rows, by op_route; NULL */
    const struct dev_watch *watch; /* NULL: nobody looks */
    bool shares_memory;     /* apart by its driver alone: what it takes, the host lacks */
    const atomic_int *stop; /* not 0: the step is to fail soon; NULL: nobody will want that */
    dev_op_fn *on_op;       /* called after every op; NULL: nobody looks */
    void *on_op_user;
    void *impl;
};

/* While planning, ops take their scratch and compute nothing; arena.peak is the answer. */
static inline bool dev_planning(const struct dev *d)
{
    return d->scratch.mem == NULL;
}

/* Scratch memory; on exhaustion the device fails and NULL is returned (also while planning). */
void *dev_alloc(struct dev *d, size_t bytes);
struct tensor dev_tensor(struct dev *d, enum dtype type, int cols, int rows);

/* Record a failure of the running step unless there is one. */
void dev_fail(struct dev *d, enum err_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);

#ifndef __cplusplus
/* Fail with ERR_CANCELLED if the step is to stop. */
static inline void dev_check_stop(struct dev *d)
{
    if (d->stop && atomic_load_explicit(d->stop, memory_order_relaxed))
        dev_fail(d, ERR_CANCELLED, "cancelled");
}
#endif

/* Whether the device has memory of its own, where weights and all that ops are given must lie. */
bool dev_is_apart(const struct dev *d);

/* The routes' numbers for row `pos` of the device's layer; NULL: the router's own. */
static inline const uint16_t *dev_routes_of(const struct dev *d, int pos)
{
    const struct dev_routes *s = d->routes;
    if (!s || d->layer < s->first || d->layer >= s->n_layer)
        return NULL;
    return s->id + ((size_t)(pos % s->n_tok) * (size_t)s->n_layer + (size_t)d->layer) *
                       (size_t)s->n_used;
}

/* Memory of a device that is apart, and what is left of it. The host cannot touch it. */
int dev_memory_take(struct dev *d, void **mem, size_t bytes, struct err *e);
void dev_memory_give_back(struct dev *d, void *mem);
size_t dev_memory_left(const struct dev *d);
size_t dev_memory_all(const struct dev *d);

/* Memory of the host that a device that is apart reads in place, over a bus; both use one address.
 * It cannot be moved or evicted. */
int dev_host_take(struct dev *d, void **mem, size_t bytes, struct err *e);
void dev_host_give_back(struct dev *d, void *mem);

/* Memory of the device for what op_experts_ahead() copies, of sets of at most n experts; until the
 * device is closed. */
int dev_ahead_take(struct dev *d, size_t bytes, int n, struct err *e);

/* Up to n slots for the set's far experts of `each` bytes, 0: none; until the device is closed. */
int dev_slots_take(struct dev *d, struct expert_set *set, int n, uint64_t each, struct err *e);

/* A tensor in the device's memory as the host can read it: itself, or a copy for which all queued
 * work was waited for. Valid until the third look after it. data NULL after a failure. */
struct tensor dev_look(struct dev *d, const struct tensor *t);

/* Copy between host and device, after all queued work. A failure is the step's. */
void dev_copy(struct dev *d, void *to, const void *from, size_t bytes);

/* Loading a device that is apart: n lanes, each with so much of the host's memory in mem[] that is
 * copied fast, and copies from there that are done on return. A lane is one thread's at a time. */
enum { DEV_LANES = 16 };
int dev_lanes(struct dev *d, int n, size_t bytes, void **mem, struct err *e);
int dev_send(struct dev *d, int lane, void *to, size_t bytes, struct err *e);
void dev_lanes_close(struct dev *d); /* also after a failure */

/* n blocks of random numbers from block `first` on, a multiple of 8, to memory that the device
 * sees, as a step's work. */
void dev_random(struct dev *d, const struct quant_random *q, size_t first, size_t n, void *to);

/* dev_copy() between steps. */
int dev_copy_now(struct dev *d, void *to, const void *from, size_t bytes, struct err *e);

/* Within the memory of a device that is apart. */
struct dev_piece {
    void *to;
    const void *from;
    size_t bytes;
};
#define DEV_PIECES 128

/* Copies 1 to DEV_PIECES of them, none over another, queued between steps. What fails here has
 * broken the device, and every later step says so. */
void dev_move(struct dev *d, const struct dev_piece *p, int n);

/* The time of a device that is apart: mark i, from 0 up, is when all that was queued before it was
 * done. Seconds between two marks, after dev_wait(). */
enum { DEV_MARKS = 8192 };
void dev_mark(struct dev *d, int i);
double dev_between(struct dev *d, int from, int to);

/* What is queued next begins some `s` seconds later, when more is queued behind it: then marks
 * show the device's time and not the host's. */
void dev_stall(struct dev *d, double s);

/* Between dev_begin() and the first op: whether a step like this one was recorded and now runs
 * again, with the numbers of r and next (NULL: none). Then out is what dev_results() said, and no
 * op is to be called. Steps that a hook looks into always run. */
#define DEV_RESULTS 2
bool dev_replay(struct dev *d, const struct rows *r, const struct rows *next, struct tensor *out);

/* After the last op: the tensors (those with data), which stay where they are until the next step
 * begins. False: the step was to be recorded, could not be, and must begin again. */
bool dev_results(struct dev *d, struct tensor *out);

/* Start a step: forget the last failure, empty the scratch. */
void dev_begin(struct dev *d);

/* End a step: wait until all work is done; the step's failure, if any. */
int dev_wait(struct dev *d, struct err *e);

#endif
