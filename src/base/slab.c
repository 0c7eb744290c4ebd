/* slab.c - memory whose pages are all there before the first read into it.
 *
 * How large the requests are that a drive sees follows from how scattered the memory is that is
 * read into: in huge pages a read of megabytes stays one request. Pages are touched by several
 * threads, since clearing them takes a second for a few gigabytes. Rejected: MAP_HUGETLB, which
 * needs pages that an administrator reserved. */
#define _GNU_SOURCE
#include "slab.h"

#include "cpu.h"
#include "thread.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PIECE ((size_t)32 << 20) /* touched at a time */
#define PIECES ((size_t)8)       /* between two looks at whether to go on */
#define SMALL_PAGE 4096

struct touching {
    uint8_t *mem;
    size_t size;
    atomic_int failed; /* errno */
};

static void touch(void *ctx, int task, int worker)
{
    struct touching *t = ctx;
    size_t at = (size_t)task * PIECE, n = MIN(PIECE, t->size - at);
    volatile uint8_t *mem = t->mem + at;
    (void)worker;
    if (atomic_load(&t->failed) || madvise(t->mem + at, n, MADV_POPULATE_WRITE) == 0)
        return;
    if (errno != EINVAL) { /* EINVAL: a system that does not know it */
        atomic_store(&t->failed, errno);
        return;
    }
    for (size_t i = 0; i < n; i += SMALL_PAGE)
        mem[i] = mem[i];
}

/* Nothing that is written there changes. */
static int touch_all(uint8_t *mem, size_t size, const struct report *told, struct err *e)
{
    struct pool *pool = NULL;
    int code = 0, failed = 0;
    TRY(pool_new(&pool, MIN(cpu_count(), (int)((size + PIECE - 1) / PIECE)), e));
    for (size_t at = 0; at < size && code == 0 && !failed; at += PIECES * PIECE) {
        struct touching t = { .mem = mem + at, .size = MIN(PIECES * PIECE, size - at) };
        code = report_to(told, "memory", (double)at / (double)size, e);
        if (code == 0)
            pool_run(pool, touch, &t, (int)((t.size + PIECE - 1) / PIECE));
        failed = atomic_load(&t.failed);
    }
    pool_free(pool);
    if (code < 0 || !failed)
        return code;
    errno = failed;
    err_errno(e, "no memory for %zu bytes", size);
    return e ? (int)(e->code = ERR_NO_MEMORY) : ERR_NO_MEMORY;
}

/* Huge pages among those of [mem, mem + size), as the system counts them. */
static size_t count_huge(const struct slab *s)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    unsigned long long from = 0, to = 0, kib;
    uintptr_t begin = (uintptr_t)s->mem, end = begin + s->size;
    size_t sum = 0;
    char line[512];
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long a, b;
        if (sscanf(line, "%llx-%llx ", &a, &b) == 2) {
            from = a;
            to = b;
        } else if (from < end && to > begin && sscanf(line, "AnonHugePages: %llu", &kib) == 1) {
            sum += (size_t)kib << 10;
        }
    }
    if (f)
        fclose(f);
    return MIN(sum, s->size);
}

static void lock(struct slab *s)
{
    struct rlimit r;
    s->locked = mlock(s->mem, s->size) == 0;
    if (!s->locked && getrlimit(RLIMIT_MEMLOCK, &r) == 0)
        s->lock_limit = (size_t)r.rlim_cur;
}

int slab_open(struct slab *s, size_t size, const struct report *told, struct err *e)
{
    *s = (struct slab){ .size = round_up(size, SLAB_UNIT) };
    if (size == 0)
        return 0;
    s->map_size = s->size + SLAB_UNIT;
    s->map = mmap(NULL, s->map_size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return err_errno(e, "cannot map %zu bytes of memory", s->map_size);
    }
    s->mem = (uint8_t *)round_up((uintptr_t)s->map, SLAB_UNIT);
    madvise(s->mem, s->size, MADV_HUGEPAGE);
    madvise(s->mem, s->size, MADV_DONTFORK);
    madvise(s->mem, s->size, MADV_DONTDUMP);
    int code = touch_all(s->mem, s->size, told, e);
    if (code < 0) {
        slab_close(s);
        return code;
    }
    lock(s);
    s->huge_bytes = count_huge(s);
    return 0;
}

void slab_close(struct slab *s)
{
    if (s->map)
        munmap(s->map, s->map_size);
    *s = (struct slab){ 0 };
}

size_t slab_give_back(struct slab *s, size_t at, size_t n)
{
    size_t from = round_up(at, SLAB_UNIT), to = (at + n) / SLAB_UNIT * SLAB_UNIT;
    CHECK(at + n <= s->size);
    if (to <= from)
        return 0;
    if (s->locked)
        munlock(s->mem + from, to - from);
    return madvise(s->mem + from, to - from, MADV_DONTNEED) == 0 ? to - from : 0;
}

int slab_take_again(struct slab *s, size_t at, size_t n, struct err *e)
{
    CHECK(at % SMALL_PAGE == 0 && n % SMALL_PAGE == 0 && at + n <= s->size);
    TRY(touch_all(s->mem + at, n, NULL, e));
    s->locked = s->locked && mlock(s->mem + at, n) == 0;
    return 0;
}
