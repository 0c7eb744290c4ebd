/* synth.h - models of any shape with random weights: for measuring, and for tests of what is too
 * large to be trained.
 *
 * Every byte is a function of (seed, tensor, place) alone (docs/formats.md, "Synthetic models"), so
 * files are the same with any number of threads, and parts can be made without the whole. Numbers
 * have sizes that keep activations alive through any number of layers; what comes out is noise. */
#ifndef DS_SYNTH_H
#define DS_SYNTH_H

#include "error.h"
#include "file.h"
#include "log.h"
#include "quant.h"

enum synth_format {
    SYNTH_GGUF,
    SYNTH_VENDOR, /* a checkpoint folder, in the vendor's types: recipe "lossless" only */
};

struct synth_options {
    const char *out;       /* the .gguf file; the folder, which must not exist */
    const char *shape;     /* "flash", "pro", "small" */
    const char *recipe;    /* a built-in name or a file (recipe.h) */
    const char *tokenizer; /* whose text is embedded, padded: GGUF, checkpoint folder or
                              tokenizer.json; NULL: none */
    enum synth_format format;
    int n_layer, n_expert; /* 0: the shape's */
    int n_thread;          /* 0: all processors this process may use */
    uint64_t seed;
    bool counted;  /* synth_memory(): bytes are left out, and whoever opens it makes them */
    const struct log *log; /* remarks; may be NULL */
    /* As quantize_options.progress. */
    bool (*progress)(void *user, const char *what, double share);
    void *user;
};

/* Write it. The file is complete or as it was; a folder has no config.json until it is complete. */
int synth_run(const struct synth_options *o, struct err *e);

/* The same as a file in memory, whose path is m->path until file_memory_close(). o->out is not
 * used. Pages are taken as for any file of this size, but no disk. */
int synth_memory(const struct synth_options *o, struct file_memory *m, struct err *e);

/* The same model, to be made in parts. */
struct synth;

struct synth_tensor {
    const char *name; /* as in GGUF */
    enum dtype type;
    int n_dim;
    int64_t dim[4];   /* fastest first */
};

int synth_open(struct synth **s, const struct synth_options *o, struct err *e);
void synth_close(struct synth *s); /* NULL is fine */
int synth_n_tensor(const struct synth *s);
struct synth_tensor synth_tensor_at(const struct synth *s, int i);

/* n rows of tensor i from its row `first` on; rows of stacked matrices are counted through. Any
 * number of threads may do so at a time. */
void synth_rows(const struct synth *s, int i, int64_t first, int64_t n, void *dst);

#endif
