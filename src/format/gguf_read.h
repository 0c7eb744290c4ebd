/* gguf_read.h - the directory of one GGUF file (version 2 or 3, little-endian).
 *
 * On disk:  | "GGUF" | version u32 | n_tensor u64 | n_kv u64 |
 *           | n_kv x (key string, type u32, value) |
 *           | n_tensor x (name string, n_dim u32, n_dim x u64, type u32, offset u64) |
 *           | zeros to a multiple of general.alignment (32 unless stated) | data |
 * string = length u64 and bytes; array = element type u32, length u64, elements; an offset counts
 * from the start of the data. Format: ggml's docs/gguf.md. */
#ifndef DS_GGUF_READ_H
#define DS_GGUF_READ_H

#include "weights.h"

/* A key of four integers for each tensor: low and high half of a key of random numbers, their
 * shift, and where they are. */
#define GGUF_COUNTED_KEY "dwarfstar.counted"
enum { GGUF_STORED, GGUF_COUNTED, GGUF_AROUND_ONE };

struct gguf {
    struct meta *meta;
    struct weight *tensor; /* file order; name and data filled in, file 0 */
    int n_tensor, version;
    char *names;
    size_t data_at; /* of the data, in the file */
};

/* Take apart `size` bytes at `data`, which must stay until gguf_release(). file: for error texts,
 * which also name field, found and expected. On failure nothing is held. */
int gguf_parse(struct gguf *g, const char *file, const uint8_t *data, size_t size, struct err *e);
void gguf_release(struct gguf *g);

/* The values of `type` in the file, as numbers of enum dtype; false for those of no GGUF file. */
bool gguf_has_type(int type);

#endif
