/* measure.h - looking inside a running model. */
#ifndef DS_MEASURE_H
#define DS_MEASURE_H

#include "bootstrap.h"
#include "divergence.h"
#include "dwarfstar.h"
#include "error.h"
#include "flow.h"
#include "calibrate.h"
#include "fit.h"
#include "read_bench.h"
#include "simulate.h"

/* ---- routes: which experts computed which token ------------------------------------------- */

/* A recording of an engine's routes. One at a time for an engine; it ends before the engine is
 * closed. */
struct trace;

/* From here on the routes of every token computed in a layer of the network (not of the draft
 * block) are kept, in the order in which tokens are computed. A step that fails spoils the
 * recording. */
int trace_begin(struct trace **t, dstar_engine *engine, struct err *e);
void trace_end(struct trace *t); /* NULL is fine */

/* Tokens so far. */
int trace_n_tok(const struct trace *t);

/* Write them: four little-endian u32 (tokens, layers, experts used by a token, words of steps),
 * then the experts' numbers as u16 [token][layer][used], by falling score (hash-routed layers: in
 * the order of the model's table), then words of steps as u32: the tokens of each, and before one
 * for which memory was given back or taken again two more, the places left with the top bit set and
 * all places. steps false: 0 words are written, and the file depends on the tokens alone.
 * ERR_FORMAT: a step had failed; nothing is written. */
int trace_write(const struct trace *t, const char *path, bool steps, struct err *e);

/* ---- routes from a file -------------------------------------------------------------------- */

/* From here on the token at position p uses, in every layer of the network, the experts of token
 * p mod (tokens of the file) in a file of routes, with the weights that the router gave its own;
 * not in layers that are routed by the token alone, which are read ahead. For measuring: what comes
 * out is noise. Before the engine's first step. ERR_MISMATCH, ERR_FORMAT: the file's routes are not
 * those of such a model. */
struct imposed;
int impose_begin(struct imposed **m, dstar_engine *engine, const char *path, struct err *e);
void impose_end(struct imposed *m); /* NULL is fine */

/* ---- a past that was never computed -------------------------------------------------------- */

/* Let the session stand behind n_tok random tokens, all rows of its cache drawn (legal codes, about
 * size one) instead of computed. It has no logits then. */
int measure_fill_cache(dstar_session *session, int n_tok, uint64_t seed, struct err *e);

/* ---- layers ------------------------------------------------------------------------------- */

enum { LAYER_WINDOW, LAYER_SPARSE, LAYER_HEAVY, LAYER_HEAD, N_LAYER_KIND }; /* ratio 0, 4, more;
                                                             the head with the embedding */
enum { LAYER_MOST_REPEAT = 64, LAYER_MOST_OP = 96 };

/* One op of a layer of some kind, in the order in which it runs. */
struct layer_op {
    const char *name;      /* "matmul" */
    const char *type;      /* of its matrix, NULL: none */
    int cols, rows;
    double bytes;          /* of weights read */
    double in_layer_s;     /* while the model runs */
    double alone_s;        /* products only: among products of all layers and nothing else; on a
                              device that is apart the same product of all layers back to back */
};

struct layer_times {
    int n_layer;                  /* of this kind in the model */
    double s[LAYER_MOST_REPEAT];  /* of one layer, in each repetition the mean of the kind's */
    double bytes, cache_bytes;    /* read by one: weights (experts that were used), cached rows */
    double alone_s;               /* sum over its ops of alone_s, of those without: in_layer_s */
    int n_op;
    struct layer_op op[LAYER_MOST_OP];
};

struct layer_bench {
    int n_tok;    /* rows of the step */
    int at;       /* its first position; the rows before it are drawn */
    int repeat;   /* 1 to LAYER_MOST_REPEAT */
    struct layer_times kind[N_LAYER_KIND];
    double step_s[LAYER_MOST_REPEAT]; /* of the model's layers and the head, nothing between ops */
};

/* Run the step b->repeat times (and before that) and fill b->kind and b->step_s. The session is
 * left behind `at` random tokens. ERR_LIMIT: more rows than the engine plans a step for, or beyond
 * the context. ERR_UNSUPPORTED: experts are streamed. */
int measure_layers(struct layer_bench *b, dstar_session *session, struct err *e);

/* How many layers of each kind a model has (the head counts as one), and its width. */
struct layer_counts {
    int n[N_LAYER_KIND], n_embd;
};
struct layer_counts measure_layer_counts(dstar_engine *engine);

/* ---- kernels ------------------------------------------------------------------------------ */

struct kernel_bench {
    int type, n_x, repeat;        /* of measure_kernel_type(), rows, 1 to LAYER_MOST_REPEAT */
    double s[LAYER_MOST_REPEAT];  /* of one product */
    double bytes, flops;          /* of one product: weights read, multiplications and additions */
    bool of_bytes;                /* activations are rounded to bytes, else they are float32 */
};

/* Names of the types of weights: "Q8_0"; NULL past the last. */
const char *measure_kernel_type(int i);

/* Products of 2048 x 4096 weights with n_x <= 512 rows of activations, on the engine's device.
 * Scratch as of a step: n_x of its rows or fewer. */
int measure_kernel(struct kernel_bench *b, dstar_engine *engine, struct err *e);

/* Multiplications and additions per second of all of the device's threads at best: fused ones of
 * float32 in registers, and dot products of 8 bits. 0: not known for this device. */
void measure_peak(double *float_flops, double *int_flops, dstar_engine *engine);

/* What opening brought to a device that is apart: bytes of weights, and the time that took;
 * elsewhere nothing. open_s: all of opening. */
struct load_times {
    double bytes, s, open_s;
};
struct load_times measure_load(dstar_engine *engine);

/* Bytes per second that the files of a model are read with, in the pieces and by the threads of
 * loading. */
int measure_files(double *bytes_per_s, const char *path, struct err *e);

/* From here on they come from the drive, as far as this machine's cache is concerned; while nobody
 * has them open. */
int measure_forget_files(const char *path, struct err *e);

/* Bytes per second of the copies that loading makes, without the reads. */
int measure_bus(double *bytes_per_s, dstar_engine *engine, struct err *e);

/* Seconds, since it was first asked for, in which a device that is apart was at steps; else 0. */
double measure_busy_s(dstar_engine *engine);

/* What is taken of the memory of a device that is apart, by whomever, and all of it; else 0. */
struct device_memory {
    size_t taken, all;
};
struct device_memory measure_device_memory(dstar_engine *engine);

/* Bytes per second that all of n threads together read from memory: the most of some rounds. */
int measure_reading(double *bytes_per_s, int n_thread, struct err *e);

/* The same for the memory that the engine's weights are in. A device that is apart copies from
 * place to place there: bytes read and bytes written. */
int measure_memory(double *bytes_per_s, dstar_engine *engine, int n_thread, struct err *e);

#endif
