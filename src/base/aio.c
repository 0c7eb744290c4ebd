/* aio.c - the choice of a way to read, and what is common to both: files, alignment, places for
 * reads under way, counters, and the test's faults between disk and caller. */
#define _GNU_SOURCE
#include "aio_impl.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST_READ_BYTES ((size_t)1 << 30)
#define MOST_ALIGN ((size_t)1 << 20)
#define USUAL_ALIGN ((size_t)4096)
#define CLOSE_WAIT_S 10.0
#define FAULT_SLICE_S 0.001

struct aio {
    struct aio_info info;
    const struct aio_way *way;
    void *impl;
    struct aio_file *file;
    int n_file;
    struct aio_job *job;     /* [depth] */
    int *free_job;           /* [depth] stack */
    int n_free;
    struct aio_event *event; /* [depth] taken from the way at once */
    struct aio_fault fault;
    struct aio_event *held;  /* [depth] that the fault does not deliver yet */
    int n_held;
};

static const char *const path_name[] = { "auto", "uring-fixed", "uring-direct", "uring-buffered",
                                         "pool-direct", "pool-buffered" };

const char *aio_path_name(enum aio_path path)
{
    return path_name[path];
}

bool aio_path_named(enum aio_path *path, const char *name)
{
    for (size_t i = 0; i < COUNT_OF(path_name); i++) {
        if (strcmp(name, path_name[i]) == 0) {
            *path = (enum aio_path)i;
            return true;
        }
    }
    return false;
}

bool aio_path_is_direct(enum aio_path path)
{
    return path == AIO_URING_FIXED || path == AIO_URING_DIRECT || path == AIO_POOL_DIRECT;
}

static bool is_uring(enum aio_path path)
{
    return path == AIO_URING_FIXED || path == AIO_URING_DIRECT || path == AIO_URING_BUFFERED;
}

/* ---- files ----------------------------------------------------------------------------------- */

static int64_t time_ns(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int open_file(struct aio_file *f, const char *path, struct err *e)
{
    f->direct = -1;
    f->buffered = open(path, O_RDONLY | O_CLOEXEC);
    if (f->buffered < 0)
        return err_errno(e, "%s: cannot open", path);
    f->path = strdup(path);
    struct stat st;
    if (!f->path)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    if (fstat(f->buffered, &st) < 0)
        return err_errno(e, "%s: cannot tell its size", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_IO, "%s: is not a regular file", path);
    f->size = st.st_size;
    f->mtime_ns = time_ns(st.st_mtim);
    return 0;
}

static void close_files(struct aio *a)
{
    for (int i = 0; a->file && i < a->n_file; i++) {
        struct aio_file *f = &a->file[i];
        if (f->direct >= 0)
            close(f->direct);
        if (f->buffered >= 0)
            close(f->buffered);
        free(f->path);
    }
    free(a->file);
}

/* Alignment that direct reads of an open file want: as the file system says, else a page. */
static int ask_alignment(const struct aio_file *f, size_t *offset, size_t *mem, struct err *e)
{
    *offset = *mem = USUAL_ALIGN;
#ifdef STATX_DIOALIGN
    struct statx st;
    if (statx(f->direct, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 &&
        (st.stx_mask & STATX_DIOALIGN)) {
        *offset = st.stx_dio_offset_align;
        *mem = st.stx_dio_mem_align;
    }
#endif
    if (*offset == 0 || *mem == 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: its file system has no direct reads", f->path);
    if (*offset > MOST_ALIGN || *mem > MOST_ALIGN)
        return err_set(e, ERR_UNSUPPORTED, "%s: direct reads want an alignment of %zu bytes",
                       f->path, MAX(*offset, *mem));
    return 0;
}

static int open_direct(struct aio_file *f, size_t *offset, size_t *mem, struct err *e)
{
#ifdef O_DIRECT
    f->direct = open(f->path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (f->direct < 0)
        return err_errno(e, "%s: cannot be opened for direct reads", f->path);
    TRY(ask_alignment(f, offset, mem, e));
    void *at;
    if (posix_memalign(&at, MAX(*mem, USUAL_ALIGN), *offset) != 0)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", f->path);
    ssize_t n = pread(f->direct, at, *offset, 0);
    int code = n < 0 ? err_errno(e, "%s: direct reads are refused", f->path) : 0;
    free(at);
    return code;
#else
    (void)offset;
    (void)mem;
    return err_set(e, ERR_UNSUPPORTED, "%s: this system has no direct reads", f->path);
#endif
}

/* All files or none: a path is the same for all. */
static int open_all_direct(struct aio *a, struct err *e)
{
    a->info.align_offset = a->info.align_mem = 1;
    for (int i = 0; i < a->n_file; i++) {
        size_t offset = 1, mem = 1;
        TRY(open_direct(&a->file[i], &offset, &mem, e));
        a->info.align_offset = MAX(a->info.align_offset, offset);
        a->info.align_mem = MAX(a->info.align_mem, mem);
    }
    return 0;
}

uint64_t aio_file_bytes(const struct aio *a, int file)
{
    CHECK(file >= 0 && file < a->n_file);
    return (uint64_t)a->file[file].size;
}

const char *aio_file_name(const struct aio *a, int file)
{
    CHECK(file >= 0 && file < a->n_file);
    return a->file[file].path;
}

int aio_check_files(const struct aio *a, struct err *e)
{
    for (int i = 0; i < a->n_file; i++) {
        const struct aio_file *f = &a->file[i];
        struct stat st;
        if (fstat(f->buffered, &st) < 0)
            return err_errno(e, "%s: cannot tell its size", f->path);
        if (st.st_size != f->size)
            return err_set(e, ERR_IO, "%s: has %lld bytes now, had %lld when it was opened",
                           f->path, (long long)st.st_size, (long long)f->size);
        if (time_ns(st.st_mtim) != f->mtime_ns)
            return err_set(e, ERR_IO, "%s: was changed while it is in use", f->path);
    }
    return 0;
}

/* ---- choosing -------------------------------------------------------------------------------- */

static int open_way(struct aio *a, enum aio_path path, const struct aio_ask *ask, struct err *e)
{
    struct aio_setup s = {
        .job = a->job, .depth = a->info.depth, .file = a->file, .n_file = a->n_file,
        .mem = path == AIO_URING_FIXED ? ask->mem : NULL, .mem_bytes = ask->mem_bytes,
        .one_thread = ask->one_thread, .ring = a->info.ring,
    };
    a->way = is_uring(path) ? &aio_uring_way : &aio_threads_way;
    if (is_uring(path))
        return aio_uring_open(&a->impl, &s, e);
    return aio_threads_open(&a->impl, &s, e);
}

static void note_refusal(struct aio *a, enum aio_path path, const char *why)
{
    size_t len = strlen(a->info.refused);
    snprintf(a->info.refused + len, sizeof a->info.refused - len, "%s%s: %s", len ? "; " : "",
             path_name[path], why);
}

static int choose_path(struct aio *a, const struct aio_ask *ask, struct err *e)
{
    struct err direct = { 0 };
    if (ask->path == AIO_AUTO || aio_path_is_direct(ask->path))
        open_all_direct(a, &direct);
    enum aio_path first = ask->path ? ask->path : ask->mem ? AIO_URING_FIXED : AIO_URING_DIRECT;
    enum aio_path last = ask->path ? ask->path : AIO_POOL_BUFFERED;
    for (enum aio_path p = first; p <= last; p++) {
        struct err why = { 0 };
        if (p == AIO_URING_FIXED && !ask->mem)
            err_set(&why, ERR_ARGUMENT, "no memory to register");
        else if (aio_path_is_direct(p) && direct.code)
            why = direct;
        else if (open_way(a, p, ask, &why) == 0) {
            a->info.path = p;
            return 0;
        }
        note_refusal(a, p, why.text);
    }
    return err_set(e, ERR_IO, "cannot read: %s", a->info.refused);
}

static int take_memory(struct aio *a, struct err *e)
{
    size_t depth = (size_t)a->info.depth;
    a->job = calloc(depth, sizeof *a->job);
    a->free_job = calloc(depth, sizeof *a->free_job);
    a->event = calloc(depth, sizeof *a->event);
    a->held = calloc(depth, sizeof *a->held);
    a->file = calloc((size_t)a->n_file, sizeof *a->file);
    if (!a->job || !a->free_job || !a->event || !a->held || !a->file)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d reads at once", a->info.depth);
    for (int i = 0; i < a->info.depth; i++)
        a->free_job[a->n_free++] = i;
    for (int i = 0; i < a->n_file; i++)
        a->file[i].direct = a->file[i].buffered = -1;
    return 0;
}

static void release(struct aio *a)
{
    if (a->impl)
        a->way->close(a->impl);
    close_files(a);
    free(a->job);
    free(a->free_job);
    free(a->event);
    free(a->held);
    free(a);
}

int aio_open(struct aio **out, const struct aio_ask *ask, struct err *e)
{
    CHECK(ask->n_file > 0 && ask->depth >= 0 && ask->depth <= AIO_MOST_DEPTH);
    *out = NULL;
    struct aio *a = calloc(1, sizeof *a);
    if (!a)
        return err_set(e, ERR_NO_MEMORY, "out of memory for reading");
    a->info.depth = ask->depth ? ask->depth : AIO_DEPTH;
    a->n_file = ask->n_file;
    if (ask->fault)
        a->fault = *ask->fault;
    int code = take_memory(a, e);
    for (int i = 0; code == 0 && i < a->n_file; i++)
        code = open_file(&a->file[i], ask->file[i], e);
    if (code == 0)
        code = choose_path(a, ask, e);
    if (code < 0) {
        release(a);
        return code;
    }
    if (!aio_path_is_direct(a->info.path))
        a->info.align_offset = a->info.align_mem = 1;
    *out = a;
    return 0;
}

int aio_close(struct aio *a)
{
    if (!a)
        return 0;
    double until = clock_now_s() + CLOSE_WAIT_S;
    int n = aio_in_flight(a) - a->n_held;
    while (n > 0 && clock_now_s() < until)
        n -= a->way->wait(a->impl, a->event, a->info.depth, until - clock_now_s());
    if (n == 0)
        release(a);
    return n;
}

/* ---- reading --------------------------------------------------------------------------------- */

int aio_in_flight(const struct aio *a)
{
    return a->info.depth - a->n_free;
}

const struct aio_info *aio_info(const struct aio *a)
{
    return &a->info;
}

static void start_read(struct aio *a, const struct aio_read *r)
{
    const struct aio_info *info = &a->info;
    CHECK(r->file >= 0 && r->file < a->n_file && r->bytes > 0 && r->bytes <= MOST_READ_BYTES);
    bool direct = aio_path_is_direct(info->path) && !r->buffered;
    if (direct)
        CHECK((r->offset | r->bytes) % info->align_offset == 0 &&
              (uintptr_t)r->dst % info->align_mem == 0);
    int id = a->free_job[--a->n_free];
    const struct aio_file *f = &a->file[r->file];
    a->job[id] = (struct aio_job){ *r, direct ? f->direct : f->buffered,
                                   2 * r->file + direct, direct };
    a->way->start(a->impl, id);
}

int aio_submit(struct aio *a, const struct aio_read *r, int n)
{
    n = MIN(n, a->n_free);
    for (int i = 0; i < n; i++)
        start_read(a, &r[i]);
    if (n > 0)
        a->way->flush(a->impl);
    return n;
}

/* True: *d goes to the caller and the job is over. */
static bool deliver(struct aio *a, struct aio_event ev, struct aio_done *d)
{
    const struct aio_read *r = &a->job[ev.job].read;
    *d = (struct aio_done){ .tag = r->tag };
    if (ev.result < 0) {
        d->code = ERR_IO;
        d->sys = (int)-ev.result;
    } else {
        d->bytes = (size_t)ev.result;
    }
    if (a->fault.deliver && !a->fault.deliver(a->fault.user, r, d))
        return false;
    a->info.n_read++;
    a->info.n_error += d->code != ERR_NONE;
    a->info.n_short += d->code == ERR_NONE && d->bytes < r->bytes;
    a->info.bytes += d->bytes;
    a->free_job[a->n_free++] = ev.job;
    return true;
}

static int reap_held(struct aio *a, struct aio_done *done, int max)
{
    int n = 0, kept = 0;
    for (int i = 0; i < a->n_held; i++) {
        if (n < max && deliver(a, a->held[i], &done[n]))
            n++;
        else
            a->held[kept++] = a->held[i];
    }
    a->n_held = kept;
    return n;
}

static int reap_some(struct aio *a, struct aio_done *done, int max, double wait_s)
{
    int n = reap_held(a, done, max);
    int room = MIN(max - n, aio_in_flight(a) - a->n_held);
    if (room <= 0)
        return n;
    int n_event = a->way->wait(a->impl, a->event, room, n > 0 ? 0 : wait_s);
    for (int i = 0; i < n_event; i++) {
        if (deliver(a, a->event[i], &done[n]))
            n++;
        else
            a->held[a->n_held++] = a->event[i];
    }
    return n;
}

int aio_reap(struct aio *a, struct aio_done *done, int max, double wait_s)
{
    double until = wait_s > 0 ? clock_now_s() + wait_s : 0;
    for (;;) {
        double slice = a->fault.deliver ? MIN(wait_s, FAULT_SLICE_S) : wait_s;
        int n = reap_some(a, done, max, slice);
        if (n > 0 || wait_s <= 0 || aio_in_flight(a) == 0)
            return n;
        wait_s = until - clock_now_s();
        if (a->n_held > 0) {
            struct timespec t = { .tv_nsec = (long)(FAULT_SLICE_S * 1e9) };
            nanosleep(&t, NULL);
        }
    }
}
