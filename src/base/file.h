/* file.h - reading whole or mapped files, and writing files that are complete or absent. */
#ifndef DS_FILE_H
#define DS_FILE_H

#include "buf.h"
#include "error.h"

/* A file mapped read-only. size 0 maps to data NULL. */
struct file_map {
    const uint8_t *data;
    size_t size;
};

int file_map_open(struct file_map *m, const char *path, struct err *e);
void file_map_close(struct file_map *m);

/* What was read of it so far takes memory no more, neither here nor in the page cache; reading it
 * again brings it back. */
void file_map_forget(const struct file_map *m, const char *path);

/* Whole content of a file (or pipe) of at most out->max bytes, appended to `out`. "-": stdin. */
int file_read_all(struct buf *out, const char *path, struct err *e);

bool file_exists(const char *path);
bool file_is_dir(const char *path);

/* The names in a folder, sorted, without "." and "..". */
struct dir_list {
    char **name;
    int n;
};

int dir_list_open(struct dir_list *d, const char *dir, struct err *e);
void dir_list_close(struct dir_list *d);

/* dir/name in memory that the caller frees; NULL when memory is exhausted. */
char *path_join(const char *dir, const char *name);

/* Bytes free for this process on the file system that holds (the folder of) path; -1: unknown. */
int64_t file_space_free(const char *path);

/* A file read piece by piece, for what is too large to be held or must not fault when mapped. */
struct file_in {
    int fd;
    char *path;
    int64_t size; /* when it was opened */
};

int file_in_open(struct file_in *f, const char *path, struct err *e);

/* n bytes from `at`; ERR_FORMAT when the file ends before. */
int file_in_read_at(const struct file_in *f, int64_t at, void *dst, size_t n, struct err *e);

/* The page cache need not keep n bytes from `at`. */
void file_in_forget(const struct file_in *f, int64_t at, size_t n);
void file_in_close(struct file_in *f); /* also of a zeroed struct */

/* A file being written as path.part. Until commit nothing is seen under `path`; an older
 * file there stays untouched. */
struct file_out {
    int fd;
    char *path, *part; /* part NULL: in memory */
    int64_t size; /* highest byte written + 1 */
};

int file_out_open(struct file_out *f, const char *path, struct err *e);

/* The same, but what a part of an earlier try holds stays: for going on with it. *kept: the bytes
 * it takes on the disk, 0 when there was none. */
int file_out_reopen(struct file_out *f, const char *path, int64_t *kept, struct err *e);

/* The same in memory, for as long as the process holds m. */
struct file_memory {
    int fd;
    char path[32]; /* under which it can be opened and mapped */
};

int file_out_memory(struct file_out *f, struct file_memory *m, struct err *e);
void file_memory_close(struct file_memory *m);

/* At the end, or at an absolute place (thread-safe for disjoint ranges; does not move the end
 * beyond what it writes). */
int file_out_write(struct file_out *f, const void *data, size_t n, struct err *e);
int file_out_write_at(struct file_out *f, int64_t at, const void *data, size_t n, struct err *e);

/* n bytes that were written before; ERR_FORMAT when the part ends before. */
int file_out_read_at(const struct file_out *f, int64_t at, void *dst, size_t n, struct err *e);

/* Flush to the disk, rename to its final name, close. On failure the part is removed. */
int file_out_commit(struct file_out *f, struct err *e);

/* Remove the part and close. Does nothing after a commit or on a zeroed struct. */
void file_out_abort(struct file_out *f);

/* Close and keep the part. */
void file_out_leave(struct file_out *f);

#endif
