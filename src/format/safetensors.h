/* safetensors.h - the directory of one safetensors file, and the index of a sharded checkpoint.
 *
 * On disk:  | n u64 | n bytes of JSON: name -> dtype, shape, data_offsets from, to | data |
 * Offsets count from the data; shapes are slowest first; scalars have an empty shape.
 * Format: the safetensors project's README. */
#ifndef DS_SAFETENSORS_H
#define DS_SAFETENSORS_H

#include "weights.h"

struct safetensors {
    struct weight *tensor; /* order of the header; name, data and offset filled in, file 0.
                              Packed FP4 still is DT_I8 here, and scales are not attached. */
    int n_tensor;
    char *names;
};

/* Take apart `size` bytes at `data`, which must stay until the release. file: for error texts.
 * On failure nothing is held. */
int safetensors_parse(struct safetensors *s, const char *file, const uint8_t *data, size_t size,
                      struct err *e);
void safetensors_release(struct safetensors *s);

/* model.safetensors.index.json: which file holds which tensor. */
struct shard_index {
    void *json; /* owns the strings */
    int n_tensor, n_shard;
    const char **name, **file; /* [n_tensor] */
    const char **shard;        /* [n_shard]: the distinct files, sorted */
};

int shard_index_parse(struct shard_index *x, const char *file, const char *text, size_t len,
                      struct err *e);
void shard_index_release(struct shard_index *x);

#endif
