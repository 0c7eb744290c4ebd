/* weights_impl.h - struct weights, and what both readers of tensor directories check alike. */
#ifndef DS_WEIGHTS_IMPL_H
#define DS_WEIGHTS_IMPL_H

#include "file.h"
#include "gguf_read.h"
#include "name_index.h"
#include "safetensors.h"

struct weights_file {
    char *path;
    struct file_map map;
    struct gguf gguf;      /* of the two, the one of the file's kind */
    struct safetensors st;
};

struct weights {
    enum weights_kind kind;
    char *path, *tokenizer;
    struct meta *config; /* checkpoints; GGUF has its own in file[0] */
    struct weights_file *file;
    int n_file;
    struct weight *weight;
    int n_weight;
    struct name_index index;
};

/* Map and parse the next file of w; there is room for it. */
int weights_add_file(struct weights *w, const char *path, struct err *e);

/* All files' tensors as one list with an index. */
int weights_join(struct weights *w, struct err *e);

int weights_open_gguf(struct weights *w, const char *path, struct err *e);
int weights_open_checkpoint(struct weights *w, const char *dir, struct err *e);

/* The bytes of a tensor from type and dim[]: rows of whole blocks, nothing empty, no overflow. */
int weight_set_bytes(struct weight *w, const char *file, struct err *e);

/* No two of n tensors of one file share a byte. */
int weights_check_overlap(const struct weight *w, int n, const char *file, struct err *e);

/* "[4096, 129280]", slowest first, as checkpoints print it. Returns out. */
const char *weight_shape_text(char out[96], const struct weight *w);

#endif
