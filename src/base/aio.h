/* aio.h - many reads at once from files that do not change, into the caller's memory.
 *
 * The best way that this machine allows is found at open and said: io_uring before threads that
 * wait in pread(), direct reads (no page cache, no copy) before buffered ones. All calls on one
 * object come from one thread at a time. */
#ifndef DS_AIO_H
#define DS_AIO_H

#include "error.h"

/* Best first. FIXED: the memory is registered with the kernel beforehand. */
enum aio_path {
    AIO_AUTO,
    AIO_URING_FIXED,
    AIO_URING_DIRECT,
    AIO_URING_BUFFERED,
    AIO_POOL_DIRECT,
    AIO_POOL_BUFFERED,
};

#define AIO_MOST_DEPTH 256
#define AIO_DEPTH 32 /* when the caller does not say */

struct aio_read {
    int file;          /* index in aio_ask.file */
    bool buffered;     /* through the page cache whatever the path; needs no alignment */
    uint64_t offset;   /* direct: offset and bytes multiples of align_offset, dst of align_mem */
    size_t bytes;
    void *dst;
    uint64_t tag;      /* the caller's */
};

struct aio_done {
    uint64_t tag;
    size_t bytes;        /* read; fewer than asked at the end of the file, or for no reason */
    enum err_code code;  /* ERR_NONE or ERR_IO */
    int sys;             /* then errno */
};

/* For tests: what a disk might do. Asked for each completed read, again at every reap as long as
 * it answers false; may change what is reported and what was read. */
struct aio_fault {
    void *user;
    bool (*deliver)(void *user, const struct aio_read *r, struct aio_done *d);
};

struct aio_ask {
    enum aio_path path;      /* AIO_AUTO: the best there is; else this one or an error */
    int depth;               /* reads in flight at most; 0: AIO_DEPTH */
    const char *const *file; /* [n_file] */
    int n_file;
    void *mem;               /* memory to register; NULL: AIO_URING_FIXED is not tried. What is */
    size_t mem_bytes;        /* registered stays in memory, and cannot be given back */
    bool one_thread;         /* the thread that opens will make all calls: a little cheaper */
    const struct aio_fault *fault; /* NULL but in tests */
};

struct aio_info {
    enum aio_path path;
    char refused[512];   /* why no better path was taken; "" for the first one tried */
    char ring[64];       /* how io_uring was set up; "" without it */
    size_t align_offset, align_mem; /* of direct reads; 1 on buffered paths */
    int depth;
    uint64_t n_read, n_short, n_error, bytes; /* that have come back */
};

struct aio;

/* ERR_IO: a file cannot be opened, or the path asked for cannot be had; says why. */
int aio_open(struct aio **a, const struct aio_ask *ask, struct err *e);

/* Waits up to 10 s for what is in flight. Returns how many reads still are: their memory must then
 * never be used again, nor unmapped. NULL is fine. */
int aio_close(struct aio *a);

/* Starts the first of n reads, as many as depth allows; returns how many that were. A read that the
 * system refuses comes back as done with an error. */
int aio_submit(struct aio *a, const struct aio_read *r, int n);

/* Up to max completed reads. With none: waits for the first up to wait_s; 0: does not wait. Returns
 * how many, 0 when there was none in time or nothing is in flight. */
int aio_reap(struct aio *a, struct aio_done *done, int max, double wait_s);

int aio_in_flight(const struct aio *a);
const struct aio_info *aio_info(const struct aio *a);
const char *aio_path_name(enum aio_path path); /* "uring-direct" ... */
bool aio_path_is_direct(enum aio_path path);

/* By name, also "auto"; false: there is none of this name. */
bool aio_path_named(enum aio_path *path, const char *name);

/* Size of a file when it was opened, and its name. */
uint64_t aio_file_bytes(const struct aio *a, int file);
const char *aio_file_name(const struct aio *a, int file);

/* ERR_IO when a file has another size, or time of change, than when it was opened. A file renamed
 * over is none of that: the open one stays. */
int aio_check_files(const struct aio *a, struct err *e);

#endif
