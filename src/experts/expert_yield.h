/* expert_yield.h - how much memory experts may take when others need it, too. */
#ifndef DS_EXPERT_YIELD_H
#define DS_EXPERT_YIELD_H

#include "pressure.h"

struct expert_yield {
    size_t least, most; /* bytes, of which ... */
    size_t now;         /* ... experts may take so many; at first the most */
    int n_calm;         /* looks since there is room for more */
};

/* A look at the machine: gives y->now, changed or not. */
size_t expert_yield_look(struct expert_yield *y, const struct pressure *p);

#endif
