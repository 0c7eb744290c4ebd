/* aio_threads.c - reads by threads that wait in pread(), where there is no io_uring.
 *
 * One thread for each read in flight: they sleep in the kernel and cost no processor, and a drive
 * needs its depth however few cores there are. */
#define _GNU_SOURCE
#include "aio_impl.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MOST_THREADS 64
#define STACK_BYTES ((size_t)256 << 10)

struct aio_threads {
    const struct aio_job *job;
    int depth, n_thread;
    pthread_t *thread;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    int *todo;                  /* [depth] ring of jobs to start */
    int todo_at, n_todo;
    struct aio_event *finished; /* [depth] */
    int n_finished;
    bool quit;
};

static int64_t read_job(const struct aio_job *j)
{
    ssize_t n = pread(j->fd, j->read.dst, j->read.bytes, (off_t)j->read.offset);
    return n < 0 ? -errno : n;
}

static void *thread_main(void *arg)
{
    struct aio_threads *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->quit && t->n_todo == 0)
            pthread_cond_wait(&t->work, &t->lock);
        if (t->quit)
            break;
        int id = t->todo[t->todo_at];
        t->todo_at = (t->todo_at + 1) % t->depth;
        t->n_todo--;
        pthread_mutex_unlock(&t->lock);
        int64_t result = read_job(&t->job[id]);
        pthread_mutex_lock(&t->lock);
        t->finished[t->n_finished++] = (struct aio_event){ id, result };
        pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void threads_start(void *impl, int job)
{
    struct aio_threads *t = impl;
    pthread_mutex_lock(&t->lock);
    CHECK(t->n_todo < t->depth);
    t->todo[(t->todo_at + t->n_todo++) % t->depth] = job;
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

static void threads_flush(void *impl)
{
    (void)impl;
}

static void deadline(struct timespec *at, double wait_s)
{
    clock_gettime(CLOCK_MONOTONIC, at);
    int64_t ns = at->tv_nsec + (int64_t)(wait_s * 1e9);
    at->tv_sec += (time_t)(ns / 1000000000);
    at->tv_nsec = (long)(ns % 1000000000);
}

static int threads_wait(void *impl, struct aio_event *ev, int max, double wait_s)
{
    struct aio_threads *t = impl;
    struct timespec until;
    if (wait_s > 0)
        deadline(&until, wait_s);
    pthread_mutex_lock(&t->lock);
    while (t->n_finished == 0 && wait_s > 0) {
        if (pthread_cond_timedwait(&t->done, &t->lock, &until) != 0)
            break;
    }
    int n = MIN(max, t->n_finished);
    memcpy(ev, t->finished, (size_t)n * sizeof *ev);
    t->n_finished -= n;
    memmove(t->finished, t->finished + n, (size_t)t->n_finished * sizeof *ev);
    pthread_mutex_unlock(&t->lock);
    return n;
}

static void threads_close(void *impl)
{
    struct aio_threads *t = impl;
    pthread_mutex_lock(&t->lock);
    t->quit = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < t->n_thread; i++)
        pthread_join(t->thread[i], NULL);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->done);
    free(t->thread);
    free(t->todo);
    free(t->finished);
    free(t);
}

static void start_threads(struct aio_threads *t, int n)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    while (t->n_thread < n && pthread_create(&t->thread[t->n_thread], &attr, thread_main, t) == 0)
        t->n_thread++;
    pthread_attr_destroy(&attr);
}

int aio_threads_open(void **impl, const struct aio_setup *s, struct err *e)
{
    struct aio_threads *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_NO_MEMORY, "out of memory for reading threads");
    int n = MIN(s->depth, MOST_THREADS);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    t->job = s->job;
    t->depth = s->depth;
    t->thread = calloc((size_t)n, sizeof *t->thread);
    t->todo = calloc((size_t)s->depth, sizeof *t->todo);
    t->finished = calloc((size_t)s->depth, sizeof *t->finished);
    if (t->thread && t->todo && t->finished)
        start_threads(t, n);
    if (t->n_thread == 0) {
        threads_close(t);
        return err_set(e, ERR_NO_MEMORY, "cannot start a thread for reading");
    }
    *impl = t;
    return 0;
}

const struct aio_way aio_threads_way = { threads_start, threads_flush, threads_wait,
                                         threads_close };
