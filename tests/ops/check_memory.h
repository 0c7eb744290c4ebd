/* check_memory.h - where the memory and the devices of check_ops.h are from: the host's, or what a
 * GPU and the host both see. tests/cuda/test_cuda_ops.c sets ON_GPU. */
#ifndef CHECK_MEMORY_H
#define CHECK_MEMORY_H

#ifndef ON_GPU

#define ON_GPU 0
#define open_device dev_open
#define close_device dev_close
#define free_memory free

static void *new_memory(size_t n)
{
    void *p = aligned_alloc(ARENA_ALIGN, round_up(n, ARENA_ALIGN));
    assert_non_null(p);
    return p;
}

static void set_order(int order)
{
    (void)order;
}

#endif

#endif
