/* lock.h - one thread at a time. */
#ifndef DS_LOCK_H
#define DS_LOCK_H

#include "error.h"

struct lock; /* opaque: the system's mutex */

int lock_new(struct lock **l, struct err *e);
void lock_free(struct lock *l); /* NULL is fine; nobody may hold it */
void lock_take(struct lock *l);
void lock_give(struct lock *l);

#endif
