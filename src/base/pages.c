/* pages.c - anonymous mappings without a claim on swap. */
#define _GNU_SOURCE
#include "pages.h"

#include "nodes.h"

#include <sys/mman.h>

int pages_map(void **mem, size_t size, struct err *e)
{
    *mem = NULL;
    if (size == 0)
        return 0;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return err_errno(e, "cannot map %zu bytes of memory", size);
    struct nodes nodes;
    nodes_find(&nodes);
    nodes_spread_memory(&nodes, p, size);
    *mem = p;
    return 0;
}

void pages_unmap(void *mem, size_t size)
{
    if (mem)
        munmap(mem, size);
}
