/* quantize_impl.h - one quantisation under way. */
#ifndef DS_QUANTIZE_IMPL_H
#define DS_QUANTIZE_IMPL_H

#include "imatrix.h"
#include "import_impl.h"
#include "quantize.h"
#include "quantize_feedback_impl.h"
#include "quantize_journal.h"
#include "quantize_upgrade.h"
#include "recipe.h"
#include "thread.h"

#include <stdatomic.h>

/* One tensor of the new file. */
struct quantize_tensor {
    char name[DSV4_NAME_MAX];
    enum dsv4_role role;
    int block; /* as in dsv4_official_name() */
    int job;   /* checkpoints: of import's */
    enum dtype from, type;
    const struct recipe_rule *rule;
    enum recipe_weights weights; /* decided: not RECIPE_BEST */
    int entry;                   /* of the importance matrix; -1: not used */
    int inputs;                  /* its inputs, of the Hessian file; -1: not known */
    bool feedback;               /* may be coded with it */
    int n_part;                  /* units */
    int n_dim;
    int64_t dim[4];
};

bool quantize_searches(const struct quantize_tensor *t); /* not if its bytes stay the same */

/* What one thread does at a time: rows of one matrix. */
struct quantize_unit {
    int tensor;
    int64_t slice, row, n_row; /* slice: which of stacked matrices */
};

/* A unit's bytes as they lie in the source. */
struct quantize_source {
    const struct weight *w, *scales; /* scales: their tensor, NULL: none */
    int64_t row;                     /* of w, of the unit's first */
    size_t row_bytes;
    int64_t scale_row, n_scale_row;
};

struct quantize_worker {
    struct quantize *q;
    void *search_mem;
    struct quant_search *search[2]; /* by effort */
    struct quantize_source source;  /* of what was read last */
    uint8_t *src, *scale, *dst;
    float *num, *weight, *importance;
    struct quantize_means means;
    double *sum;
    struct quant_feedback feedback; /* with inputs: of its n, on the memory below */
    float *feedback_mem, *root;
    float *rows, *row_root; /* QUANT_FEEDBACK_ROWS of numbers, of their weights' roots */
    float factor[QUANT_FEEDBACK_ROWS];
    uint8_t *sample;                /* as many, packed */
    struct err err;
    int failed; /* unit of err; -1: none */
};

struct quantize {
    const struct quantize_options *o;
    struct import_options import_options;
    struct import im; /* files, h, has_mtp, in, out; jobs of a checkpoint */
    enum weights_kind kind;
    struct recipe recipe;
    struct imatrix *imatrix;
    struct hessian_file *hessian;
    struct quantize_inputs inputs;
    struct quantize_told *told; /* [hessian_count()] */
    struct quantize_upgraded upgrade;
    struct quantize_tensor *tensor;
    struct quantize_unit *unit;
    int *unit_inputs; /* [n_unit] of the Hessian file; -1: not known */
    bool *unit_feeds; /* [n_unit] may be coded with feedback */
    int n_tensor, cap_tensor, n_unit;
    struct {
        size_t src, scale, dst, cols; /* of the largest unit: bytes, bytes, bytes, numbers */
        size_t inputs, sample; /* columns with known inputs; bytes of a row of them */
    } most;
    int n_thread;
    struct pool *pool;
    struct quantize_worker *worker; /* [n_thread] */
    struct quantize_journal *journal;
    struct quantize_note *note; /* [n_unit], of an earlier try; NULL: none */
    bool *done, *fed;       /* [n_unit]; fed: coded with feedback */
    int *todo, n_todo;      /* units of the loop that runs */
    bool begun;             /* there is a part worth keeping */
    const char *what;       /* of the loop */
    double work, past;      /* microseconds, by estimate: of all loops of this name; of former */
    int64_t fed_at;         /* place in the file of the counts of units with feedback */
    atomic_ullong finished; /* of these */
    atomic_bool stop;
};

/* Files, recipe, importance: everything that is read before a plan can be made. shape: no files. */
int quantize_open(struct quantize *q, const struct quantize_options *o, struct err *e);
void quantize_close(struct quantize *q);

int quantize_plan(struct quantize *q, struct err *e);
int quantize_decide_weights(const struct quantize *q, struct quantize_tensor *t, struct err *e);
int quantize_keys(struct quantize *q, struct err *e); /* metadata and tensors into im.out */
int quantize_open_workers(struct quantize *q, struct err *e);

/* Hyperparameters of "flash", "pro" or "small" and a draft block, whose ratio[] is there, too. */
int quantize_shape(struct dsv4_hyper *h, const char *name, struct err *e);

struct quantize_source quantize_source_of(const struct quantize *q, const struct quantize_unit *u);
size_t quantize_unit_bytes(const struct quantize *q, const struct quantize_unit *u);
size_t quantize_unit_at(const struct quantize *q, const struct quantize_unit *u);

double quantize_unit_seconds(const struct quantize *q, const struct quantize_unit *u); /* roughly */

/* Source bytes and scales into the worker's buffers; their fingerprint. */
int quantize_read(struct quantize_worker *w, const struct quantize_unit *u, uint64_t *hash,
                  struct err *e);

/* Every value of the importance matrix that will be used is a number; remarks on few tokens. */
int quantize_check_importance(struct quantize *q, struct err *e);

/* The importance of the unit's columns, decided as its tensor says; NULL: all equal. */
int quantize_importance(struct quantize_worker *w, const struct quantize_unit *u,
                        const float **importance, struct err *e);

/* After quantize_read(): numbers of row i of the unit, all finite. */
int quantize_row(struct quantize_worker *w, int64_t i, float *num, struct err *e);

/* After quantize_read(): the unit's bytes into w->dst. fed: with feedback? */
int quantize_encode(struct quantize_worker *w, const struct quantize_unit *u, bool *fed,
                    struct err *e);

/* A row as the diagonal method codes it, after quantize_prepare(). */
void quantize_search_row(struct quantize_worker *w, const struct quantize_tensor *t, const float *x,
                         const float *importance, uint8_t *dst);

/* fn for every unit that is not done, those of the same inputs together, with these at hand. */
typedef int quantize_fn(struct quantize_worker *w, int unit, struct err *e);
int quantize_each_undone(struct quantize *q, const char *what, quantize_fn *fn, bool factor,
                         struct err *e);

/* fn for every unit of todo[], on all threads, up to the first unit's error or the user's wish. */
int quantize_each(struct quantize *q, const char *what, quantize_fn *fn, struct err *e);

#endif
