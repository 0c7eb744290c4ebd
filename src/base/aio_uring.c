/* aio_uring.c - reads through io_uring: one system call starts a batch and another collects what
 * has come. No polling threads: they would burn a core that computes.
 *
 * Buffered reads are handed to the kernel's own workers, since the kernel would otherwise copy
 * them on the thread that computes. */
#define _GNU_SOURCE
#include "aio_impl.h"

#ifdef HAVE_URING

#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>

#define REGION_BYTES ((size_t)1 << 30) /* the kernel registers no more in one piece */

struct aio_uring {
    struct io_uring ring;
    const struct aio_job *job;
    struct aio_event *failed; /* [depth] never started */
    int n_failed;
    uint8_t *mem;             /* registered, in regions; NULL: it is not */
    size_t mem_bytes;
    bool fixed_files;
};

/* Index of the region that holds all of [p, p + n); -1: none does. */
static int region_of(const struct aio_uring *u, const uint8_t *p, size_t n)
{
    if (!u->mem || p < u->mem || n > u->mem_bytes || (size_t)(p - u->mem) > u->mem_bytes - n)
        return -1;
    size_t at = (size_t)(p - u->mem), first = at / REGION_BYTES;
    return (at + n - 1) / REGION_BYTES == first ? (int)first : -1;
}

static void uring_start(void *impl, int id)
{
    struct aio_uring *u = impl;
    const struct aio_job *j = &u->job[id];
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (!sqe) {
        u->failed[u->n_failed++] = (struct aio_event){ id, -EAGAIN };
        return;
    }
    int fd = u->fixed_files ? j->fixed_fd : j->fd;
    int region = region_of(u, j->read.dst, j->read.bytes);
    unsigned bytes = (unsigned)j->read.bytes;
    if (region >= 0)
        io_uring_prep_read_fixed(sqe, fd, j->read.dst, bytes, j->read.offset, region);
    else
        io_uring_prep_read(sqe, fd, j->read.dst, bytes, j->read.offset);
    unsigned flags = (u->fixed_files ? IOSQE_FIXED_FILE : 0u) | (j->direct ? 0u : IOSQE_ASYNC);
    io_uring_sqe_set_flags(sqe, flags);
    io_uring_sqe_set_data64(sqe, (uint64_t)id);
}

/* What could not be submitted stays in the ring and goes with the next call into it. */
static void uring_flush(void *impl)
{
    struct aio_uring *u = impl;
    int code = io_uring_submit(&u->ring);
    CHECK(code != -EEXIST); /* another thread than the one that was promised */
}

static int take_events(struct aio_uring *u, struct aio_event *ev, int max)
{
    int n = MIN(max, u->n_failed);
    memcpy(ev, u->failed, (size_t)n * sizeof *ev);
    u->n_failed -= n;
    memmove(u->failed, u->failed + n, (size_t)u->n_failed * sizeof *ev);
    struct io_uring_cqe *cqe;
    while (n < max && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        ev[n++] = (struct aio_event){ (int)io_uring_cqe_get_data64(cqe), cqe->res };
        io_uring_cqe_seen(&u->ring, cqe);
    }
    return n;
}

static int uring_wait(void *impl, struct aio_event *ev, int max, double wait_s)
{
    struct aio_uring *u = impl;
    if (io_uring_sq_ready(&u->ring) > 0)
        io_uring_submit(&u->ring);
    if (u->ring.flags & IORING_SETUP_DEFER_TASKRUN)
        io_uring_get_events(&u->ring);
    int n = take_events(u, ev, max);
    if (n > 0 || wait_s <= 0)
        return n;
    struct __kernel_timespec t = { .tv_sec = (int64_t)wait_s };
    t.tv_nsec = (long long)((wait_s - (double)t.tv_sec) * 1e9);
    struct io_uring_cqe *cqe;
    io_uring_wait_cqe_timeout(&u->ring, &cqe, &t);
    return take_events(u, ev, max);
}

static void uring_close(void *impl)
{
    struct aio_uring *u = impl;
    io_uring_queue_exit(&u->ring);
    free(u->failed);
    free(u);
}

/* The set-up that costs least, then what older kernels know. */
static int open_ring(struct aio_uring *u, const struct aio_setup *s, struct err *e)
{
    static const struct {
        unsigned flags;
        const char *name;
    } kind[] = {
        { IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, "one issuer, deferred work" },
        { IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, "cooperative work" },
        { 0, "plain" },
    };
    int code = 0;
    for (size_t i = s->one_thread ? 0 : 1; i < COUNT_OF(kind); i++) {
        struct io_uring_params p = { .flags = kind[i].flags };
        code = io_uring_queue_init_params((unsigned)s->depth, &u->ring, &p);
        if (code == 0 && !(p.features & IORING_FEAT_EXT_ARG)) {
            io_uring_queue_exit(&u->ring);
            return err_set(e, ERR_UNSUPPORTED, "io_uring is older than Linux 5.11");
        }
        if (code == 0) {
            snprintf(s->ring, 64, "%s", kind[i].name);
            return 0;
        }
        if (code != -EINVAL)
            break;
    }
    errno = -code;
    return err_errno(e, "io_uring is refused%s",
                     code == -ENOMEM ? " (limit of locked memory: ulimit -l)" : "");
}

static int register_memory(struct aio_uring *u, const struct aio_setup *s, struct err *e)
{
    size_t n = (s->mem_bytes + REGION_BYTES - 1) / REGION_BYTES;
    struct iovec *region = calloc(n ? n : 1, sizeof *region);
    if (!region)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %zu registered regions", n);
    for (size_t i = 0; i < n; i++) {
        region[i].iov_base = (uint8_t *)s->mem + i * REGION_BYTES;
        region[i].iov_len = MIN(REGION_BYTES, s->mem_bytes - i * REGION_BYTES);
    }
    int code = io_uring_register_buffers(&u->ring, region, (unsigned)n);
    free(region);
    if (code < 0) {
        errno = -code;
        return err_errno(e, "memory of %zu bytes cannot be registered (limit of locked memory: "
                         "ulimit -l)", s->mem_bytes);
    }
    u->mem = s->mem;
    u->mem_bytes = s->mem_bytes;
    return 0;
}

/* Spares the kernel a look-up for each read; without it all works the same. */
static bool register_files(struct aio_uring *u, const struct aio_setup *s)
{
    int *fd = calloc((size_t)s->n_file * 2, sizeof *fd);
    if (!fd)
        return false;
    for (int i = 0; i < s->n_file; i++) {
        fd[2 * i] = s->file[i].buffered;
        fd[2 * i + 1] = s->file[i].direct;
    }
    int code = io_uring_register_files(&u->ring, fd, (unsigned)s->n_file * 2);
    free(fd);
    return code == 0;
}

int aio_uring_open(void **impl, const struct aio_setup *s, struct err *e)
{
    struct aio_uring *u = calloc(1, sizeof *u);
    if (!u)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a ring of reads");
    u->job = s->job;
    u->failed = calloc((size_t)s->depth, sizeof *u->failed);
    int code = u->failed ? open_ring(u, s, e)
                         : err_set(e, ERR_NO_MEMORY, "out of memory for a ring of reads");
    if (code < 0) {
        free(u->failed);
        free(u);
        return code;
    }
    u->fixed_files = register_files(u, s);
    code = s->mem ? register_memory(u, s, e) : 0;
    if (code < 0) {
        uring_close(u);
        return code;
    }
    *impl = u;
    return 0;
}

const struct aio_way aio_uring_way = { uring_start, uring_flush, uring_wait, uring_close };

#else

int aio_uring_open(void **impl, const struct aio_setup *s, struct err *e)
{
    (void)impl;
    (void)s;
    return err_set(e, ERR_UNSUPPORTED, "built without liburing");
}

const struct aio_way aio_uring_way = { 0 };

#endif
