/* thread.c - a fork-join pool.
 *
 * Work is divided dynamically: threads take the next task from a counter, so that cores of
 * unequal speed finish together. A loop ends when its tasks are done, not when every worker has
 * come by: on a busy machine a worker may wait for a processor longer than the loop takes, and
 * then the others do its share. Between loops a worker spins briefly (a decode step starts a loop
 * every few microseconds) and then sleeps on a condition. */
#define _GNU_SOURCE
#include "thread.h"

#include "nodes.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SPINS 2000 /* about 20 microseconds of pause instructions */

struct pool {
    int n;
    pthread_t *thread;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    atomic_uint round;       /* changes when a loop starts; written under the lock */
    /* | tasks of the loop | next to take |, 32 bits each: one addition takes a task and tells if
     * there was one. Who got one holds the loop open, and may read fn and ctx. */
    atomic_ullong ticket;
    atomic_int n_done;
    atomic_bool quit;
    pool_fn *fn;
    void *ctx;
};

struct worker {
    struct pool *p;
    int index;
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Take tasks until there are none; true if the loop's last one was among them. */
static bool take_tasks(struct pool *p, int worker)
{
    bool was_last = false;
    for (;;) {
        unsigned long long t = atomic_fetch_add(&p->ticket, 1);
        int n_task = (int)(t >> 32), task = (int)(t & UINT32_MAX);
        if (task >= n_task)
            return was_last;
        p->fn(p->ctx, task, worker);
        was_last = atomic_fetch_add(&p->n_done, 1) + 1 == n_task;
    }
}

static unsigned await_round(struct pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        unsigned now = atomic_load_explicit(&p->round, memory_order_acquire);
        if (now != seen)
            return now;
        pause_cpu();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->round) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    pthread_mutex_unlock(&p->lock);
    return atomic_load(&p->round);
}

static void *worker_main(void *arg)
{
    struct worker w = *(struct worker *)arg;
    free(arg);
    unsigned seen = 0;
    struct nodes nodes;
    nodes_find(&nodes);
    nodes_spread_thread(&nodes);
    for (;;) {
        seen = await_round(w.p, seen);
        if (atomic_load(&w.p->quit))
            return NULL;
        if (take_tasks(w.p, w.index)) {
            pthread_mutex_lock(&w.p->lock);
            pthread_cond_signal(&w.p->done);
            pthread_mutex_unlock(&w.p->lock);
        }
    }
}

static void start_round(struct pool *p, int n_task)
{
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->n_done, 0);
    atomic_store(&p->ticket, (unsigned long long)n_task << 32);
    atomic_fetch_add(&p->round, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void pool_run(struct pool *p, pool_fn *fn, void *ctx, int n_task)
{
    if (!p || p->n == 1 || n_task <= 1) {
        for (int t = 0; t < n_task; t++)
            fn(ctx, t, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    start_round(p, n_task);
    take_tasks(p, 0);
    for (int i = 0; i < SPINS && atomic_load(&p->n_done) < n_task; i++)
        pause_cpu();
    if (atomic_load(&p->n_done) < n_task) {
        pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->n_done) < n_task)
            pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
}

int pool_new(struct pool **out, int n, struct err *e)
{
    CHECK(n >= 1);
    *out = NULL;
    struct pool *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_NO_MEMORY, "thread pool: out of memory");
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    p->n = 1;
    p->thread = calloc((size_t)n, sizeof *p->thread);
    for (int i = 1; p->thread && i < n; i++) {
        struct worker *w = malloc(sizeof *w);
        if (!w)
            break;
        *w = (struct worker){ p, i };
        if (pthread_create(&p->thread[i], NULL, worker_main, w) != 0) {
            free(w);
            break;
        }
        p->n = i + 1;
    }
    if (p->n != n) {
        pool_free(p);
        return err_set(e, ERR_NO_MEMORY, "thread pool: cannot start %d threads", n);
    }
    *out = p;
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->quit, true);
    start_round(p, 0);
    for (int i = 1; i < p->n; i++)
        pthread_join(p->thread[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    free(p->thread);
    free(p);
}

int pool_size(const struct pool *p)
{
    return p ? p->n : 1;
}
