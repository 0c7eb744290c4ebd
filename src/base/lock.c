/* lock.c - a POSIX mutex behind a name without system headers. */
#include "lock.h"

#include <pthread.h>
#include <stdlib.h>

struct lock {
    pthread_mutex_t mutex;
};

int lock_new(struct lock **l, struct err *e)
{
    *l = malloc(sizeof **l);
    if (*l && pthread_mutex_init(&(*l)->mutex, NULL) == 0)
        return 0;
    free(*l);
    *l = NULL;
    return err_set(e, ERR_NO_MEMORY, "out of memory for a lock");
}

void lock_free(struct lock *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

void lock_take(struct lock *l)
{
    CHECK(pthread_mutex_lock(&l->mutex) == 0);
}

void lock_give(struct lock *l)
{
    CHECK(pthread_mutex_unlock(&l->mutex) == 0);
}
