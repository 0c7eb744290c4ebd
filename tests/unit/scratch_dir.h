/* scratch_dir.h - a folder for a test's files, and writing, patching and removing them.
 *
 * Include first: it asks the C library for mkdtemp(). */
#ifndef DS_SCRATCH_DIR_H
#define DS_SCRATCH_DIR_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

/* The folder's path; every file in it (but no folder) is removed by scratch_close(). */
struct scratch {
    char path[64];
};

static inline void scratch_open(struct scratch *s)
{
    static const char stem[] = "/tmp/dstar-test-";
    memset(s->path, 0, sizeof s->path);
    memcpy(s->path, stem, sizeof stem - 1);
    memset(s->path + sizeof stem - 1, 'X', 6); /* the letters that mkdtemp() replaces */
    CHECK(mkdtemp(s->path) != NULL);
}

static inline const char *scratch_file(const struct scratch *s, const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", s->path, name);
    return path;
}

static inline void scratch_put(const struct scratch *s, const char *name, const void *data,
                               size_t n)
{
    FILE *f = fopen(scratch_file(s, name), "wb");
    CHECK(f != NULL);
    CHECK(n == 0 || fwrite(data, 1, n, f) == n);
    CHECK(fclose(f) == 0);
}

static inline void scratch_remove(const struct scratch *s, const char *name)
{
    unlink(scratch_file(s, name));
}

static inline void scratch_close(struct scratch *s)
{
    struct dir_list list;
    CHECK(dir_list_open(&list, s->path, NULL) == 0);
    for (int i = 0; i < list.n; i++)
        scratch_remove(s, list.name[i]);
    dir_list_close(&list);
    CHECK(rmdir(s->path) == 0);
}

#endif
