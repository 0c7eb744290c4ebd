/* squeeze.h - a memory cgroup of a test's own, where the system lets it make one. */
#ifndef TESTS_SQUEEZE_H
#define TESTS_SQUEEZE_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct squeeze {
    char dir[512];
    bool is_v2;
};

static inline bool squeeze_write(const struct squeeze *s, const char *name, unsigned long long n)
{
    char path[640];
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    FILE *f = fopen(path, "w");
    if (!f)
        return false;
    bool ok = fprintf(f, "%llu\n", n) > 0;
    return fclose(f) == 0 && ok;
}

/* A group below this process's own; false: no right, no controller. */
static inline bool squeeze_open(struct squeeze *s)
{
    char line[512], *group = NULL;
    FILE *f = fopen("/proc/self/cgroup", "r");
    *s = (struct squeeze){ .is_v2 = false };
    while (f && fgets(line, sizeof line, f)) {
        char *list = strchr(line, ':');
        s->is_v2 = list && strncmp(list, "::", 2) == 0;
        if (!list || (!s->is_v2 && strncmp(list, ":memory:", 8) != 0))
            continue;
        group = strchr(list + 1, ':') + 1;
        group[strcspn(group, "\n")] = 0;
        break;
    }
    if (f)
        fclose(f);
    if (!group || strlen(group) > 300)
        return false;
    snprintf(s->dir, sizeof s->dir, "/sys/fs/cgroup%s%.300s/dstar-test.%ld",
             s->is_v2 ? "" : "/memory", strcmp(group, "/") == 0 ? "" : group, (long)getpid());
    return mkdir(s->dir, 0755) == 0;
}

/* Bytes that the group may have. */
static inline bool squeeze_to(const struct squeeze *s, unsigned long long bytes)
{
    return squeeze_write(s, s->is_v2 ? "memory.max" : "memory.limit_in_bytes", bytes);
}

/* From here on this process takes its memory from the group. */
static inline bool squeeze_enter(const struct squeeze *s)
{
    return squeeze_write(s, "cgroup.procs", (unsigned long long)getpid());
}

/* When nobody is in it any more. */
static inline void squeeze_close(const struct squeeze *s)
{
    for (int i = 0; i < 100 && rmdir(s->dir) < 0; i++)
        usleep(10000);
}

#endif
