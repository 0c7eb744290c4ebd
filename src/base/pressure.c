/* pressure.c - /proc/meminfo, the cgroups from the process's own up to the root, and PSI.
 *
 * A group's limit holds for those below it, so each one on the way up is looked at. In a container
 * the path that /proc tells may begin further up than what is mounted: names that do not exist are
 * skipped, and the mount's own root comes last in any case. */
#include "pressure.h"

#include <stdio.h>
#include <stdlib.h>

#define MOST_GROUP 512
#define MOST_DIR 1024
#define MOST_PATH 1100

/* The two ways a group tells its memory. */
struct flavour {
    const char *mount, *limit, *used, *file[2];
};

static const struct flavour v1 = { "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                   "memory.usage_in_bytes",
                                   { "total_inactive_file", "total_active_file" } };
static const struct flavour v2 = { "/sys/fs/cgroup", "memory.max", "memory.current",
                                   { "inactive_file", "active_file" } };

/* A small file's only number; -1: there is none, also for "max". */
static double number_in(const char *path)
{
    FILE *f = fopen(path, "r");
    char word[64];
    double x = -1;
    if (f && fscanf(f, "%63s", word) == 1 && word[0] >= '0' && word[0] <= '9')
        x = strtod(word, NULL);
    if (f)
        fclose(f);
    return x;
}

/* The number behind a line's first word, which may end with a colon; 0: there is none. */
static double number_of(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    char line[256];
    size_t n = strlen(key);
    double x = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && (line[n] == ' ' || line[n] == ':')) {
            x = strtod(line + n + 1, NULL);
            break;
        }
    if (f)
        fclose(f);
    return x;
}

static void add_place(struct pressure *p, double total, double available)
{
    size_t all = (size_t)total, now = (size_t)MAX(MIN(available, total), 0);
    if (p->limit == 0 || now * (double)p->total < (double)p->available * total) {
        p->total = all;
        p->available = now;
    }
    p->free = p->limit == 0 ? now : MIN(p->free, now);
    p->limit = p->limit == 0 ? all : MIN(p->limit, all);
}

/* What a group's files take of its limit can be dropped. */
static void add_group(struct pressure *p, const char *dir, const struct flavour *f, double machine)
{
    char path[MOST_PATH];
    snprintf(path, sizeof path, "%s/%s", dir, f->limit);
    double limit = number_in(path);
    snprintf(path, sizeof path, "%s/%s", dir, f->used);
    double used = number_in(path);
    if (limit < 0 || used < 0 || limit > 0x1p60 || (machine > 0 && limit >= machine))
        return;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    double file = number_of(path, f->file[0]) + number_of(path, f->file[1]);
    add_place(p, limit, limit - MAX(used - file, 0));
}

static void add_groups(struct pressure *p, const char *root, char *group, const struct flavour *f,
                       double machine)
{
    char dir[MOST_DIR];
    size_t n = strlen(group);
    while (n > 0 && group[n - 1] == '/')
        group[--n] = 0;
    for (;;) {
        snprintf(dir, sizeof dir, "%s%s%s", root, f->mount, group);
        add_group(p, dir, f, machine);
        char *slash = strrchr(group, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

/* Is `name` one of the words of a list with commas? */
static bool is_among(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == 0))
            return true;
    }
    return false;
}

/* Lines of /proc/self/cgroup: number, controllers, path; v2 has the number 0 and no controllers. */
static void add_own_groups(struct pressure *p, const char *root, double machine, char *own)
{
    char line[MOST_GROUP + 128];
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *f = fopen(line, "r");
    while (f && fgets(line, sizeof line, f)) {
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        group[strcspn(group, "\n")] = 0;
        if (list[1] == 0 && strlen(group) < MOST_GROUP)
            memcpy(own, group, strlen(group) + 1);
        if (list[1] == 0)
            add_groups(p, root, group, &v2, machine);
        else if (is_among(list + 1, "memory"))
            add_groups(p, root, group, &v1, machine);
    }
    if (f)
        fclose(f);
}

/* "some avg10=1.50 ..."; -1: there is no such file. */
static double stall_in(const char *path)
{
    FILE *f = fopen(path, "r");
    double x = -1;
    if (f && fscanf(f, "some avg10=%lf", &x) != 1)
        x = -1;
    if (f)
        fclose(f);
    return x;
}

void pressure_read(struct pressure *p, const char *root)
{
    char path[MOST_PATH], own[MOST_GROUP] = "";
    *p = (struct pressure){ .stall = -1 };
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    double machine = number_of(path, "MemTotal") * 1024;
    if (machine > 0)
        add_place(p, machine, number_of(path, "MemAvailable") * 1024);
    add_own_groups(p, root, machine, own);
    snprintf(path, sizeof path, "%s%s%s/memory.pressure", root, v2.mount, own);
    p->stall = stall_in(path);
    if (p->stall >= 0)
        return;
    snprintf(path, sizeof path, "%s/proc/pressure/memory", root);
    p->stall = stall_in(path);
}
