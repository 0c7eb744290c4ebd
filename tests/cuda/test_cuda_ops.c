/* test_cuda_ops.c - every op of the CUDA table against the scalar definition: the same cases as for
 * the CPU's tables. Linked with the emulator (make test) the kernels run on the processor, with
 * threads in ascending order, then in others; linked with the true objects they run on a GPU (make
 * test-cuda).
 *
 *   build/tests/cuda/test_cuda_ops [OP]    one op by name; * and ? are allowed */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "backend.h"
#include "cuda_dev.h"

#define ON_GPU 1
#define open_device open_either
#define close_device close_either

#ifdef CUDA_ON_CARD

/* Of the runtime, whose header is C++: memory that the host sees too, for comparing. */
int cudaMallocManaged(void **p, size_t n, unsigned flags);
int cudaFree(void *p);

static void *new_memory(size_t n)
{
    void *p = NULL;
    assert_int_equal(cudaMallocManaged(&p, n, 1), 0);
    return p;
}

static void free_memory(void *p)
{
    cudaFree(p);
}

static void set_order(int order)
{
    (void)order;
}

#else

void emu_set_order(int order);

static void *new_memory(size_t n)
{
    void *p = aligned_alloc(ARENA_ALIGN, round_up(n, ARENA_ALIGN));
    assert_non_null(p);
    return p;
}

static void free_memory(void *p)
{
    free(p);
}

static void set_order(int order)
{
    emu_set_order(order - 1);
}

#endif

static int open_either(struct dev **d, const char *name, const struct backend_options *o,
                       struct err *e)
{
    return name[1] == 'u' ? cuda_open(d, 0, o, e) : dev_open(d, name, o, e);
}

static void close_either(struct dev *d)
{
    if (d->name[1] == 'u')
        cuda_close(d);
    else
        dev_close(d);
}

#include "ops/cases_cache.h"

#define OP(name) { #name, test_##name, reset_dice, NULL, NULL }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        OP(embed),
        OP(embed_bad_token),
        OP(all_codes),
        OP(norm),
        OP(norm_heads),
        OP(matmul),
        OP(matmul_exact),
        OP(products),
        OP(gated),
        OP(matmul_grouped),
        OP(integer_sums),
        OP(swiglu),
        OP(add),
        OP(rope),
        OP(hc_mix),
        OP(hc_spread),
        OP(hc_turn),
        OP(kv_store),
        OP(compress),
        OP(index_query),
        OP(prepare),
        OP(pick),
        OP(attend),
        OP(route),
        OP(experts),
        OP(sum_experts),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    close_tables();
    return failed;
}
