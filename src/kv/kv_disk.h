/* kv_disk.h - a conversation's cache as one file.
 *
 * The file belongs to one model (identity) and one shape of cache. It is complete or absent, every
 * part of it is checksummed, and what was loaded goes on bit for bit as if never stopped. */
#ifndef DS_KV_DISK_H
#define DS_KV_DISK_H

#include "buf.h"
#include "file.h"
#include "kv_seq.h"

#define KV_DISK_MAX_MARK 64

/* What is said about a copy of the state in the file. */
struct kv_disk_mark {
    int32_t pos, floor, top;
    uint32_t chosen;
};

/* Little-endian, as in memory. On disk:
 *
 *   | kv_disk_head | ratio, 4 x n_layer | kv_disk_mark x (1 + n_mark): now, then marks | check 8 |
 *   | token, 4 x n_tok | check 8 | extra | check 8 |
 *   | rows of block 0, as in a kv_block | check 8 | rows of block 1 | check 8 | ...
 *   | copy of the state now | check 8 | copy of mark 0 | check 8 | ...
 *
 * The last block holds only the rows that its tokens complete, layer after layer. A check is the
 * hash (base/hash.h) of its part, seeded with the part's place, so that parts cannot be swapped. */
struct kv_disk_head {
    char magic[8];
    uint32_t version, packed;
    uint8_t identity[32];
    int32_t head_dim, rope_dim, index_dim, window, slack, block_tok, n_layer;
    int32_t n_tok, n_mark, unused;
    uint64_t extra_bytes, file_bytes;
};

/* Whose session it is. */
struct kv_disk_model {
    uint8_t identity[32];
    int n_vocab; /* tokens are below */
};

/* Write s and `extra` (the caller's own bytes). Holds no more than a few pieces in memory. Not
 * during a step. ERR_NO_MEMORY: the disk is full; an older file of that name then still stands. */
int kv_disk_save(struct kv_seq *s, const char *path, const struct kv_disk_model *model,
                 const void *extra, size_t extra_bytes, struct err *e);

/* A file found to be whole and to fit into s. */
struct kv_disk {
    struct file_in file;
    struct kv_disk_head head;
    struct kv_disk_mark mark[1 + KV_DISK_MAX_MARK]; /* [0]: the state now */
    int64_t token_at, block_at; /* places in the file */
};

/* Reads and checks everything, changes nothing in s. extra (initialised, its maximum a limit for
 * the file) gets the caller's bytes. ERR_MISMATCH: of another model or shape; ERR_LIMIT: more
 * tokens than s may have; ERR_NO_MEMORY: more blocks than the pool has left; ERR_FORMAT:
 * damaged. */
int kv_disk_open(struct kv_disk *d, const char *path, const struct kv_seq *s,
                 const struct kv_disk_model *model, struct buf *extra, struct err *e);

/* Replace the content of s by the file's. Fails only if the file changed or became unreadable
 * since it was checked; s is then empty. Marks that s has no room for are left out, oldest
 * first. */
int kv_disk_load(struct kv_disk *d, struct kv_seq *s, struct err *e);
void kv_disk_close(struct kv_disk *d);

#endif
