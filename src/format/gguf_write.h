/* gguf_write.h - write a GGUF file (version 3) of any size with little memory.
 *
 * Order: open; put metadata and add tensors; begin, which writes everything up to the data; write
 * each tensor's bytes in any order and pieces; finish. Until finish nothing is seen under the
 * final name. Layout: gguf_read.h. */
#ifndef DS_GGUF_WRITE_H
#define DS_GGUF_WRITE_H

#include "file.h"
#include "meta.h"
#include "quant.h"

struct gguf_out; /* one tensor */

struct gguf_writer {
    struct file_out file;
    struct buf kv;  /* metadata as it goes to the file; failure is sticky until begin */
    uint64_t n_kv;
    size_t alignment; /* 32; may be changed before the first tensor is added, a multiple of 8 */
    struct gguf_out *tensor;
    int n_tensor, cap_tensor;
    int64_t data_at, data_bytes; /* data_bytes: with the padding between tensors */
    int64_t kept;   /* bytes on the disk that an earlier try has taken */
};

/* Creates path.part. A failed open needs no abort. */
int gguf_write_open(struct gguf_writer *w, const char *path, struct err *e);

/* The same in two steps: without a file metadata and tensors may be announced and sizes asked;
 * the file is needed from gguf_write_begin() on. keep: what a part of an earlier try holds stays,
 * which was announced in the same way. */
void gguf_write_plan(struct gguf_writer *w);
int gguf_write_to(struct gguf_writer *w, const char *path, bool keep, struct err *e);

/* Instead of a file on the disk one in memory, which m holds. */
int gguf_write_to_memory(struct gguf_writer *w, struct file_memory *m, struct err *e);

/* Metadata. Every key once; the caller sees to that. */
void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t value);
void gguf_put_f32(struct gguf_writer *w, const char *key, float value);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool value);
void gguf_put_str(struct gguf_writer *w, const char *key, const char *value);
void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *value, int n);
void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *value, int n);

/* Where in the file the n values are that were put last, by gguf_put_i32s(): others may take their
 * place between begin and finish. */
int64_t gguf_i32s_at(const struct gguf_writer *w, int n);
int gguf_write_i32s(struct gguf_writer *w, int64_t at, const int32_t *value, int n, struct err *e);

/* An array of n strings: this, then n times gguf_put_item(). */
void gguf_put_strs(struct gguf_writer *w, const char *key, int n);
void gguf_put_item(struct gguf_writer *w, const char *data, size_t len);

/* As another file has it: integers as u32, i32 or 64 bits, whatever holds all of them; numbers
 * with fractions as f32. META_NONE is left out. */
void gguf_put_kv(struct gguf_writer *w, const struct meta_kv *kv);

/* Announce a tensor: dims fastest first, whole blocks. Returns its number, from 0 up. */
int gguf_add_tensor(struct gguf_writer *w, const char *name, enum dtype type, int n_dim,
                    const int64_t *dim, struct err *e);
size_t gguf_tensor_bytes(const struct gguf_writer *w, int tensor);

/* Of the finished file; before it was begun. -1: memory is exhausted. */
int64_t gguf_write_bytes(const struct gguf_writer *w);

/* A fingerprint of everything before the data; before it was begun. */
uint64_t gguf_write_hash(const struct gguf_writer *w);

/* Check that the disk has room for all of it (ERR_NO_MEMORY), write metadata and directory. */
int gguf_write_begin(struct gguf_writer *w, struct err *e);

/* n bytes of a tensor from its byte `at` on. Different threads may write different bytes. */
int gguf_write_data(struct gguf_writer *w, int tensor, size_t at, const void *data, size_t n,
                    struct err *e);

/* n bytes of a tensor as an earlier try has left them; if they are as they should be, say so
 * instead of writing them again. */
int gguf_write_read(const struct gguf_writer *w, int tensor, size_t at, void *dst, size_t n,
                    struct err *e);
void gguf_write_kept(struct gguf_writer *w, int tensor, size_t n);

/* Every byte of every tensor must have been written once. Renames to the final name. On failure
 * the part is removed and w released, as by gguf_write_abort(). */
int gguf_write_finish(struct gguf_writer *w, struct err *e);
void gguf_write_abort(struct gguf_writer *w); /* also of a zeroed or finished writer */

/* The same, but the part stays, to be continued. */
void gguf_write_leave(struct gguf_writer *w);

#endif
