/* nodes.c - interleaving by Linux's system calls; libnuma would be a dependency for two of them. */
#define _GNU_SOURCE
#include "nodes.h"

#include <stdio.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { INTERLEAVE = 3 }; /* MPOL_INTERLEAVE */

static void add_node(struct nodes *out, long node)
{
    unsigned long bit = 1ul << node % (8 * (long)sizeof bit);
    unsigned long *word = &out->bits[node / (8 * (long)sizeof bit)];
    out->n += (*word & bit) == 0;
    *word |= bit;
}

bool nodes_parse(struct nodes *out, const char *list)
{
    *out = (struct nodes){ 0 };
    for (const char *p = list; *p && *p != '\n';) {
        char *end;
        if (*p < '0' || *p > '9')
            return false;
        long first = strtol(p, &end, 10), last = first;
        if (*end == '-') {
            p = end + 1;
            if (*p < '0' || *p > '9')
                return false;
            last = strtol(p, &end, 10);
        }
        if (last < first || last >= NODES_MOST)
            return false;
        for (long node = first; node <= last; node++)
            add_node(out, node);
        if (*end == ',')
            end++;
        else if (*end && *end != '\n')
            return false;
        p = end;
    }
    return out->n > 0;
}

void nodes_find(struct nodes *out)
{
    char line[4096];
    FILE *f = fopen("/sys/devices/system/node/has_memory", "r");
    bool found = f && fgets(line, sizeof line, f) && nodes_parse(out, line);
    if (f)
        fclose(f);
    if (!found)
        *out = (struct nodes){ .n = 1, .bits = { 1 } };
}

#if defined(__linux__)

bool nodes_spread_thread(const struct nodes *to)
{
    return to->n < 2 ||
           syscall(SYS_set_mempolicy, INTERLEAVE, to->bits, (unsigned long)NODES_MOST) == 0;
}

bool nodes_spread_memory(const struct nodes *to, void *mem, size_t size)
{
    return to->n < 2 || size == 0 ||
           syscall(SYS_mbind, mem, size, INTERLEAVE, to->bits, (unsigned long)NODES_MOST, 0ul) ==
               0;
}

#else

bool nodes_spread_thread(const struct nodes *to)
{
    return to->n < 2;
}

bool nodes_spread_memory(const struct nodes *to, void *mem, size_t size)
{
    (void)mem;
    (void)size;
    return to->n < 2;
}

#endif
