/* thread.h - a pool that runs one loop at a time on all its threads. */
#ifndef DS_THREAD_H
#define DS_THREAD_H

#include "error.h"

struct pool;

/* n >= 1 threads in all, the caller of pool_run() included. */
int pool_new(struct pool **p, int n, struct err *e);
void pool_free(struct pool *p);
int pool_size(const struct pool *p);

/* fn(ctx, task, worker) for every task in 0..n_task-1, each once, in any order, on any thread;
 * 0 <= worker < pool_size(). Returns when all are done. Not reentrant. p NULL: runs here. */
typedef void pool_fn(void *ctx, int task, int worker);
void pool_run(struct pool *p, pool_fn *fn, void *ctx, int n_task);

#endif
