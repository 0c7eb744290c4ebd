/* cpu_fetch.h - pages of weights, before anything is read from them. */
#ifndef DS_CPU_FETCH_H
#define DS_CPU_FETCH_H

#include <stddef.h>
#include <stdint.h>

/* The first lines of the pages that begin in n bytes from p. What kernels fetch ahead goes to the
 * second cache, and then the processor keeps no translation of its page: every page would cost a
 * walk through page tables for which everything waits. Never faults. */
static inline void fetch_pages(uintptr_t p, size_t n)
{
    const uintptr_t page = 4096;
    for (uintptr_t at = (p + page - 1) / page * page; at < p + n; at += page)
        __builtin_prefetch((const void *)at);
}

#endif
