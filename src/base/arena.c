/* arena.c - a bump allocator that can also only count. */
#include "arena.h"

void arena_init(struct arena *a, void *mem, size_t size)
{
    CHECK((uintptr_t)mem % ARENA_ALIGN == 0);
    *a = (struct arena){ .mem = mem, .size = size };
}

void *arena_alloc(struct arena *a, size_t n)
{
    size_t at = a->used;
    size_t len = round_up(n, ARENA_ALIGN);
    if (a->mem && (len > a->size || at > a->size - len)) {
        a->overflow = true;
        return NULL;
    }
    a->used = at + len;
    a->peak = MAX(a->peak, a->used);
    return a->mem ? a->mem + at : NULL;
}

size_t arena_mark(const struct arena *a)
{
    return a->used;
}

void arena_rewind(struct arena *a, size_t mark)
{
    CHECK(mark <= a->used);
    a->used = mark;
}
