/* file.c - files through POSIX calls; every short read and write is continued. */
#define _GNU_SOURCE
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

int file_map_open(struct file_map *m, const char *path, struct err *e)
{
    *m = (struct file_map){ 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, "%s: cannot open", path);
    struct stat st;
    int code = ERR_NONE;
    if (fstat(fd, &st) < 0) {
        code = err_errno(e, "%s: cannot tell its size", path);
    } else if (!S_ISREG(st.st_mode)) {
        code = err_set(e, ERR_IO, "%s: is not a regular file", path);
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            code = err_errno(e, "%s: cannot map %lld bytes", path, (long long)st.st_size);
        else
            *m = (struct file_map){ p, (size_t)st.st_size };
    }
    close(fd);
    return code;
}

void file_map_close(struct file_map *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct file_map){ 0 };
}

void file_map_forget(const struct file_map *m, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (m->data)
        madvise((void *)(uintptr_t)m->data, m->size, MADV_DONTNEED);
    if (fd < 0)
        return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

int file_read_all(struct buf *out, const char *path, struct err *e)
{
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, "%s: cannot open", path);
    int code = ERR_NONE;
    for (;;) {
        char chunk[65536];
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            code = err_errno(e, "%s: cannot read", path);
        if (n <= 0)
            break;
        buf_add(out, chunk, (size_t)n);
        if (out->failed) {
            code = err_set(e, ERR_LIMIT, "%s: larger than the limit of %zu bytes", path, out->max);
            break;
        }
    }
    if (!is_stdin)
        close(fd);
    return code;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool file_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int dir_list_add(struct dir_list *d, int *cap, const char *name)
{
    if (d->n == *cap) {
        *cap = *cap ? *cap * 2 : 64;
        char **more = realloc(d->name, (size_t)*cap * sizeof *more);
        if (!more)
            return ERR_NO_MEMORY;
        d->name = more;
    }
    d->name[d->n] = strdup(name);
    return d->name[d->n++] ? 0 : ERR_NO_MEMORY;
}

int dir_list_open(struct dir_list *d, const char *dir, struct err *e)
{
    *d = (struct dir_list){ 0 };
    DIR *open_dir = opendir(dir);
    if (!open_dir)
        return err_errno(e, "%s: cannot open the folder", dir);
    int cap = 0, code = 0;
    struct dirent *entry;
    while (code == 0 && (entry = readdir(open_dir))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            code = dir_list_add(d, &cap, entry->d_name);
    }
    closedir(open_dir);
    if (code < 0) {
        dir_list_close(d);
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for a list of its files", dir);
    }
    if (d->n > 0)
        qsort(d->name, (size_t)d->n, sizeof *d->name, by_text);
    return 0;
}

void dir_list_close(struct dir_list *d)
{
    for (int i = 0; i < d->n; i++)
        free(d->name[i]);
    free(d->name);
    *d = (struct dir_list){ 0 };
}

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    char *path = malloc(n);
    if (path)
        snprintf(path, n, "%s/%s", dir, name);
    return path;
}

int64_t file_space_free(const char *path)
{
    struct statvfs v;
    char *dir = strdup(path);
    if (!dir)
        return -1;
    char *slash = strrchr(dir, '/');
    if (slash == dir)
        slash++;
    if (slash)
        *slash = 0;
    int rc = statvfs(slash ? dir : ".", &v);
    free(dir);
    return rc < 0 ? -1 : (int64_t)v.f_bavail * (int64_t)v.f_frsize;
}

int file_in_open(struct file_in *f, const char *path, struct err *e)
{
    struct stat st;
    *f = (struct file_in){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
    if (f->fd < 0)
        return err_errno(e, "%s: cannot open", path);
    int code = 0;
    if (fstat(f->fd, &st) < 0)
        code = err_errno(e, "%s: cannot tell its size", path);
    else if (!S_ISREG(st.st_mode))
        code = err_set(e, ERR_IO, "%s: is not a regular file", path);
    else if (!(f->path = strdup(path)))
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    if (code < 0)
        close(f->fd);
    else
        f->size = st.st_size;
    return code;
}

int file_in_read_at(const struct file_in *f, int64_t at, void *dst, size_t n, struct err *e)
{
    char *p = dst;
    while (n > 0) {
        ssize_t done = pread(f->fd, p, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_errno(e, "%s: cannot read %zu bytes at %lld", f->path, n, (long long)at);
        if (done == 0)
            return err_set(e, ERR_FORMAT, "%s: ends at byte %lld, expected %zu more", f->path,
                           (long long)at, n);
        p += done;
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

int file_out_read_at(const struct file_out *f, int64_t at, void *dst, size_t n, struct err *e)
{
    return file_in_read_at(&(struct file_in){ f->fd, f->part, 0 }, at, dst, n, e);
}

void file_in_forget(const struct file_in *f, int64_t at, size_t n)
{
    posix_fadvise(f->fd, (off_t)at, (off_t)n, POSIX_FADV_DONTNEED);
}

void file_in_close(struct file_in *f)
{
    if (!f->path)
        return;
    close(f->fd);
    free(f->path);
    *f = (struct file_in){ .fd = -1 };
}

static int open_part(struct file_out *f, const char *path, int flags, struct err *e)
{
    *f = (struct file_out){ .fd = -1 };
    size_t n = strlen(path) + sizeof ".part";
    f->path = strdup(path);
    f->part = malloc(n);
    if (!f->path || !f->part) {
        file_out_abort(f);
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    }
    snprintf(f->part, n, "%s.part", path);
    f->fd = open(f->part, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0666);
    if (f->fd < 0) {
        int code = err_errno(e, "%s: cannot create", f->part);
        free(f->part);
        f->part = NULL;
        file_out_abort(f);
        return code;
    }
    return 0;
}

int file_out_open(struct file_out *f, const char *path, struct err *e)
{
    return open_part(f, path, O_TRUNC, e);
}

int file_out_reopen(struct file_out *f, const char *path, int64_t *kept, struct err *e)
{
    struct stat st;
    TRY(open_part(f, path, 0, e));
    *kept = fstat(f->fd, &st) < 0 ? 0 : (int64_t)st.st_blocks * 512;
    return 0;
}

int file_out_memory(struct file_out *f, struct file_memory *m, struct err *e)
{
    *f = (struct file_out){ .fd = -1 };
    *m = (struct file_memory){ .fd = -1 };
#ifdef __linux__
    m->fd = memfd_create("dstar", MFD_CLOEXEC);
    if (m->fd < 0)
        return err_errno(e, "cannot create a file in memory");
    snprintf(m->path, sizeof m->path, "/proc/self/fd/%d", m->fd);
    f->path = strdup(m->path);
    f->fd = dup(m->fd);
    if (f->path && f->fd >= 0)
        return 0;
    file_out_abort(f);
    file_memory_close(m);
    return err_set(e, ERR_NO_MEMORY, "no room for a file in memory");
#else
    return err_set(e, ERR_UNSUPPORTED, "files in memory need Linux");
#endif
}

void file_memory_close(struct file_memory *m)
{
    if (m->fd >= 0)
        close(m->fd);
    *m = (struct file_memory){ .fd = -1 };
}

int file_out_write_at(struct file_out *f, int64_t at, const void *data, size_t n, struct err *e)
{
    const char *p = data;
    while (n > 0) {
        ssize_t done = pwrite(f->fd, p, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_errno(e, "%s: cannot write %zu bytes at %lld", f->part ? f->part : f->path,
                             n, (long long)at);
        p += done;
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

int file_out_write(struct file_out *f, const void *data, size_t n, struct err *e)
{
    TRY(file_out_write_at(f, f->size, data, n, e));
    f->size += (int64_t)n;
    return 0;
}

/* A rename is only durable once the folder that holds the name is. */
static void sync_folder(const char *path)
{
    char *dir = strdup(path);
    if (!dir)
        return;
    char *slash = strrchr(dir, '/');
    if (slash == dir)
        slash++;
    if (slash)
        *slash = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(dir);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

int file_out_commit(struct file_out *f, struct err *e)
{
    int code = 0;
    if (!f->part) {
        file_out_abort(f);
        return 0;
    }
    if (fsync(f->fd) < 0)
        code = err_errno(e, "%s: cannot flush to the disk", f->part);
    if (close(f->fd) < 0 && code == 0)
        code = err_errno(e, "%s: cannot close", f->part);
    f->fd = -1;
    if (code == 0 && rename(f->part, f->path) < 0)
        code = err_errno(e, "%s: cannot rename to %s", f->part, f->path);
    if (code == 0) {
        sync_folder(f->path);
        free(f->part);
        f->part = NULL;
    }
    file_out_abort(f);
    return code;
}

void file_out_abort(struct file_out *f)
{
    if (!f->path && !f->part)
        return;
    if (f->fd >= 0)
        close(f->fd);
    if (f->part)
        unlink(f->part);
    free(f->path);
    free(f->part);
    *f = (struct file_out){ .fd = -1 };
}

void file_out_leave(struct file_out *f)
{
    free(f->part);
    f->part = NULL;
    file_out_abort(f);
}
