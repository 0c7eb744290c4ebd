/* import_impl.h - one import under way: what is written, from what. */
#ifndef DS_IMPORT_IMPL_H
#define DS_IMPORT_IMPL_H

#include "deepseek4_names.h"
#include "gguf_write.h"
#include "import.h"

/* One tensor of the new file. */
struct import_job {
    enum dsv4_role role;
    int block;    /* as in dsv4_official_name() */
    int n_source; /* 1, or the number of experts that are stacked */
    enum dtype type;
    int n_dim;
    int64_t dim[4];
};

struct import {
    const struct import_options *o;
    struct weights *files;
    struct dsv4_hyper h; /* n_nextn as it will be written */
    bool has_mtp;
    struct import_job *job;
    int n_job, cap_job;
    bool *used;         /* [weights_count()] */
    struct file_in *in; /* [weights_n_file()] */
    struct gguf_writer out;
    int64_t done, total; /* bytes written, to write */
    /* A run of rows: as read, its scales, as numbers, as written. */
    uint8_t *src, *scale, *dst;
    float *num;
    int64_t row_elements; /* the longest row */
};

/* The source tensor of a job; x: which of a stack. And its scales, NULL if it needs none. */
const struct weight *import_source(const struct import *im, const struct import_job *job, int x);
const struct weight *import_scales(const struct import *im, const struct weight *w);

/* All jobs, in the order of the file; every checkpoint tensor found, or refused. */
int import_plan(struct import *im, struct err *e);

/* Architecture, hyperparameters, tokenizer into im->out. */
int import_keys(struct import *im, struct err *e);

/* The same for a model without files: im->h alone, and the tokenizer `text`, found at text_path;
 * NULL: none. */
struct tokenizer;
int import_keys_made(struct import *im, const char *name, const struct tokenizer *text,
                     const char *text_path, struct err *e);

/* All bytes of job i. */
int import_convert(struct import *im, int i, struct err *e);

#endif
