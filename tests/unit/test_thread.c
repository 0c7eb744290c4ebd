/* test_thread.c - every task of every loop runs once, on a machine with fewer processors than
 * threads too, and a loop has ended when pool_run() returns. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "thread.h"

#include <stdatomic.h>

enum { MAX_TASK = 64, N_ROUND = 20000 };

struct work {
    struct pool *pool;
    int n_round;
    atomic_int count[MAX_TASK];
    bool bad_worker;
};

static void task(void *ctx, int t, int worker)
{
    struct work *w = ctx;
    if (worker < 0 || worker >= pool_size(w->pool))
        w->bad_worker = true;
    atomic_fetch_add(&w->count[t], 1);
}

static void all_once(void **state)
{
    (void)state;
    for (int n = 1; n <= 7; n += 2) {
        struct work w = { 0 };
        assert_int_equal(pool_new(&w.pool, n, NULL), 0);
        assert_int_equal(pool_size(w.pool), n);
        for (int round = 0; round < N_ROUND; round++) {
            int n_task = round % (MAX_TASK + 1);
            for (int t = 0; t < MAX_TASK; t++)
                atomic_store_explicit(&w.count[t], 0, memory_order_relaxed);
            pool_run(w.pool, task, &w, n_task);
            for (int t = 0; t < MAX_TASK; t++)
                if (w.count[t] != (t < n_task))
                    fail_msg("%d threads, round %d: task %d ran %d times", n, round, t,
                             (int)w.count[t]);
        }
        assert_false(w.bad_worker);
        pool_free(w.pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_once) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
