/* weights.h - a model's tensors by name, wherever they lie: one GGUF file, a split GGUF, or the
 * vendor's checkpoint folder (config.json, one or more safetensors files, tokenizer.json).
 *
 * Knows dtypes, shapes and places; not what a tensor means. Data is mapped, never copied. Opening
 * checks everything that can be checked without touching data: every tensor's type is known, its
 * shape is whole blocks, its bytes lie inside its file, no two overlap, no name occurs twice. */
#ifndef DS_WEIGHTS_H
#define DS_WEIGHTS_H

#include "meta.h"
#include "quant_random.h"

enum weights_kind { WEIGHTS_GGUF, WEIGHTS_CHECKPOINT };

struct weight {
    const char *name;
    enum dtype type;     /* packed FP4 ("I8" in the vendor's files with a .scale beside it) is
                            DT_FP4, its dim[0] counted in elements, not bytes */
    int n_dim;
    int64_t dim[4];      /* fastest first, as in GGUF; unused are 1 */
    const uint8_t *data; /* mapped, read-only; may be misaligned */
    size_t bytes;
    int file;            /* index for weights_file() */
    int64_t offset;      /* of data in that file */
    const uint8_t *scale; /* E8M0 scales of DT_F8_E4M3 [rows/128][dim0/128], both rounded up, or of
                             DT_FP4 [rows][dim0/32]; else NULL. Also listed as a tensor itself. */
    int64_t scale_pitch; /* scale bytes from one row (of tiles) to the next */
    bool counted;         /* data are zeros: the numbers are those of `random`, from block 0 on */
    struct quant_random random;
};

struct weights;

/* path: a .gguf file or a checkpoint folder. Of a split GGUF any part will do, the others are found
 * beside it: "NAME-00001-of-00003.gguf" with split.* keys, or "NAME-Layers00-30.gguf" and
 * "NAME-Layers-31-output.gguf", each a complete GGUF file with some of the tensors.
 * Errors name the file, the tensor or key, what was found and what was expected. */
int weights_open(struct weights **w, const char *path, struct err *e);
void weights_close(struct weights *w);

enum weights_kind weights_kind(const struct weights *w);
const char *weights_path(const struct weights *w);
const struct meta *weights_meta(const struct weights *w); /* first GGUF part, or config.json */

int weights_count(const struct weights *w);
const struct weight *weights_at(const struct weights *w, int i); /* order of the files */
const struct weight *weights_find(const struct weights *w, const char *name); /* NULL: absent */

int weights_n_file(const struct weights *w);
const char *weights_file(const struct weights *w, int i);
int64_t weights_file_bytes(const struct weights *w, int i);

/* What was read of the data through its mapping takes memory no more. */
void weights_forget(const struct weights *w);

/* The checkpoint folder's tokenizer.json path, NULL for GGUF or when there is none. */
const char *weights_tokenizer_path(const struct weights *w);

#endif
