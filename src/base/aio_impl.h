/* aio_impl.h - what aio.c asks of the two ways to read. */
#ifndef DS_AIO_IMPL_H
#define DS_AIO_IMPL_H

#include "aio.h"

struct aio_file {
    char *path;
    int direct, buffered; /* descriptors; direct -1: not on this path */
    int64_t size, mtime_ns; /* the time of change of the inode would tell of renaming, too,
                               which harms nobody */
};

/* A read under way, at one place from start to completion. */
struct aio_job {
    struct aio_read read;
    int fd;
    int fixed_fd;    /* its index among the registered descriptors */
    bool direct;
};

/* result: bytes, or -errno. */
struct aio_event {
    int job;
    int64_t result;
};

/* A way to read. impl is its own state. */
struct aio_way {
    void (*start)(void *impl, int job);  /* never fails: troubles come back as an event */
    void (*flush)(void *impl);           /* after the last start of a batch */
    int (*wait)(void *impl, struct aio_event *ev, int max, double wait_s);
    void (*close)(void *impl);           /* nothing is in flight */
};

/* Everything a way needs to open. */
struct aio_setup {
    struct aio_job *job; /* [depth] */
    int depth;
    const struct aio_file *file;
    int n_file;
    void *mem;           /* NULL: not to be registered */
    size_t mem_bytes;
    bool one_thread;
    char *ring;          /* [64] how it was set up, for aio_info */
};

/* Both fill *impl. ERR_UNSUPPORTED or ERR_IO with the reason. */
int aio_uring_open(void **impl, const struct aio_setup *s, struct err *e);
int aio_threads_open(void **impl, const struct aio_setup *s, struct err *e);

extern const struct aio_way aio_uring_way, aio_threads_way;

#endif
