/* expert_yield.c - give back soon and enough, take again late and half.
 *
 * Short is: less than a 64th of a place's memory is available; or tasks wait for memory and less
 * than an eighth is. That a limit is nearly reached alone is no reason: the user may have asked for
 * all of it. Between giving back and taking again lies a factor of four, so that what is taken
 * cannot itself be the reason to give back. */
#include "expert_yield.h"

#define SHORT 64      /* parts of all memory: available less than this is too little, */
#define ENOUGH 32     /* this is aimed at, */
#define AMPLE 16      /* and this stays when experts take memory again */
#define STALL 10.0    /* percent of time in which tasks wait for memory, */
#define STALL_ROOM 8  /* which counts only if less than this part is available */
#define STEP 20       /* parts of the most: the least change worth its cost */
#define CALM 10       /* looks with room, before memory is taken again */

static size_t less(size_t a, size_t b)
{
    return a > b ? a - b : 0;
}

size_t expert_yield_look(struct expert_yield *y, const struct pressure *p)
{
    size_t step = y->most / STEP;
    bool is_short = p->available < p->total / SHORT;
    bool stalls = p->stall > STALL && p->available < p->total / STALL_ROOM;
    if (p->total == 0)
        return y->now;
    size_t spare = less(p->available, p->total / AMPLE);
    bool has_room = !is_short && !stalls && y->now < y->most &&
                    spare >= MIN(step, y->most - y->now);
    y->n_calm = has_room ? y->n_calm + 1 : 0;
    if (is_short)
        y->now = less(y->now, MAX(p->total / ENOUGH - p->available, step));
    else if (stalls)
        y->now = less(y->now, step);
    if (y->n_calm == CALM) {
        y->now += MIN(MAX(spare / 2, MIN(spare, step)), y->most - y->now);
        y->n_calm = 0;
    }
    y->now = MAX(y->now, y->least);
    return y->now;
}
