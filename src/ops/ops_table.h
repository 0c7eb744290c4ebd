/* ops_table.h - what a device provides: one function per op, in the words of ops.h.
 *
 * A backend's table starts as the scalar one and is overwritten where it has something faster. */
#ifndef DS_OPS_TABLE_H
#define DS_OPS_TABLE_H

#include "ops.h"

struct draw;

struct ops {
    void (*embed)(struct dev *, struct tensor *, const struct tensor *, const struct rows *);
    void (*gather)(struct dev *, struct tensor *, const struct tensor *, const struct rows *);
    void (*norm)(struct dev *, struct tensor *, const struct tensor *, const float *, float);
    void (*norm_heads)(struct dev *, struct tensor *, int, float);
    void (*matmul)(struct dev *, struct tensor *, const struct tensor *, const struct tensor *);
    void (*matmul_exact)(struct dev *, struct tensor *, const struct tensor *,
                         const struct tensor *);
    void (*matmul_grouped)(struct dev *, struct tensor *, const struct tensor *,
                           const struct tensor *, int);
    void (*swiglu)(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                   float);
    void (*add)(struct dev *, struct tensor *, const struct tensor *);
    void (*rope)(struct dev *, struct tensor *, int, const struct rope *, bool,
                 const struct rows *);
    void (*hc_mix)(struct dev *, struct tensor *, struct tensor *, const struct tensor *,
                   const struct hc *);
    void (*hc_spread)(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                      const struct hc *);
    void (*hc_head)(struct dev *, struct tensor *, const struct tensor *, const struct hc *);
    void (*kv_store)(struct dev *, const struct tensor *, const struct rows *, int);
    void (*compress)(struct dev *, const struct tensor *, const struct tensor *,
                     const struct compressor *, const struct rope *, const struct rows *, int);
    void (*index_query)(struct dev *, struct tensor *, const struct indexer *,
                        const struct rope *, const struct rows *);
    void (*pick)(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                 const struct indexer *, const struct rows *, int);
    void (*attend)(struct dev *, struct tensor *, const struct tensor *, const struct tensor *,
                   const struct attention *, const struct rows *, int);
    void (*route)(struct dev *, struct route *, const struct tensor *, const struct router *,
                  const struct rows *);
    void (*experts)(struct dev *, struct tensor *, const struct expert_set *,
                    const struct route *, const struct tensor *, float);
    void (*experts_ahead)(struct dev *, const struct expert_set *, int); /* NULL: nothing */
    void (*sum_experts)(struct dev *, struct tensor *, const struct tensor *,
                        const struct route *);
    bool attends_back; /* attend undoes rotations itself */
    /* Several ops at once; NULL: one after another. */
    void (*hc_mix_norm)(struct dev *, struct tensor *, struct tensor *, const struct tensor *,
                        const struct hc *, const float *, float);
    bool (*hc_turn)(struct dev *, struct tensor *, struct tensor *, struct tensor *,
                    const struct hc_turn *); /* false: not these */
    void (*products)(struct dev *, struct matmul *, int, const struct tensor *);
    void (*sum_experts_add)(struct dev *, struct tensor *, const struct tensor *,
                            const struct route *, const struct tensor *);
    void (*prepare)(struct dev *, const struct fresh *, const struct rows *, int);
    /* The rest is NULL where ops run at once, in the host's memory. */
    void (*begin)(struct dev *);               /* a step begins */
    int (*wait)(struct dev *, struct err *);   /* until queued work is done */
    void (*copy)(struct dev *, void *, const void *, size_t);   /* dev_copy() */
    void (*random)(struct dev *, const struct quant_random *, size_t, size_t, void *);
    struct tensor (*look)(struct dev *, const struct tensor *); /* dev_look() */
    void (*sum)(struct dev *, const struct dev_sums *, const struct tensor *); /* a watch's */
    bool (*replay)(struct dev *, const struct rows *, const struct rows *, struct tensor *);
    bool (*results)(struct dev *, struct tensor *); /* dev_replay(), dev_results() */
    void (*draw)(struct dev *, const struct draw *, int, int);  /* dev_draw() */
    /* Memory of the device; copies within it; what is left of it. */
    int (*take)(struct dev *, void **, size_t, struct err *);
    void (*move)(struct dev *, const struct dev_piece *, int);
    int (*lanes)(struct dev *, int, size_t, void **, struct err *); /* dev_lanes(), dev_send() */
    int (*send)(struct dev *, int, void *, size_t, struct err *);
    void (*lanes_close)(struct dev *);
    void (*mark)(struct dev *, int);            /* dev_mark(), dev_between(), dev_stall() */
    double (*between)(struct dev *, int, int);
    void (*stall)(struct dev *, double);
    void (*give_back)(struct dev *, void *);
    int (*take_ahead)(struct dev *, size_t, int, struct err *);    /* dev_ahead_take() */
    int (*take_slots)(struct dev *, struct expert_set *, int, size_t,
                      struct err *);                               /* dev_slots_take() */
    int (*take_host)(struct dev *, void **, size_t, struct err *); /* dev_host_take() */
    void (*give_back_host)(struct dev *, void *);
    size_t (*left)(const struct dev *, size_t *all);
};

#endif
