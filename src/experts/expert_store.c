/* expert_store.c - one shelf for each size of expert.
 *
 * Sizes differ where layers are quantised differently, and in the draft block. A common cache would
 * have to give up several small experts for a large one, and what it decides would depend on how
 * they lie. Memory is divided once, by the bytes that the layers have: every layer then has the
 * same share of its experts in memory. */
#include "expert_store.h"

#include "clock.h"
#include "expert_yield.h"
#include "slab.h"

#include <stdlib.h>

#define LARGER_BYTES ((size_t)4 << 30) /* by so much is the cache larger that is simulated beside */
#define LOOK_S 1.0 /* between looks at whether memory is short */

struct expert_store {
    int n_shelf, n_layer, n_expert;
    struct expert_shelf *shelf[EXPERT_MOST_SHELVES];
    struct expert_map map[EXPERT_MOST_SHELVES];
    int *shelf_of; /* [n_layer] */
    size_t least[EXPERT_MOST_SHELVES], most[EXPERT_MOST_SHELVES]; /* bytes */
    struct expert_yield yield;
    void (*look)(void *user, struct pressure *p); /* NULL: at the machine */
    void *look_user;
    double next_look_s;
    struct log log;
};

/* Which shelf a layer belongs to, if layers get shelves in their order; sizes holds those seen. */
static int classify(const struct expert_map *map, int layer, uint64_t sizes[], int *n)
{
    uint64_t bytes = expert_map_bytes(map, layer * map->n_expert);
    for (int i = 0; i < *n; i++)
        if (sizes[i] == bytes)
            return i;
    if (*n == EXPERT_MOST_SHELVES)
        return *n - 1;
    sizes[*n] = bytes;
    return (*n)++;
}

static void copy_layer(struct expert_map *to, const struct expert_map *from, int layer)
{
    for (int e = 0; e < from->n_expert; e++)
        for (int p = 0; p < EXPERT_N_PART; p++) {
            int key = layer * from->n_expert + e;
            expert_map_set(to, key, (enum expert_part)p,
                           expert_map_at(from, key, (enum expert_part)p));
        }
}

static void close_maps(struct expert_map map[], int n)
{
    for (int i = 0; i < n; i++)
        expert_map_close(&map[i]);
}

/* One map for each shelf; shelf_of may be NULL. Returns how many. */
static int divide_map(const struct expert_map *all, struct expert_map map[], int *shelf_of,
                      struct err *e)
{
    uint64_t sizes[EXPERT_MOST_SHELVES];
    int n = 0;
    for (int l = 0; l < all->n_layer; l++) {
        int before = n, i = classify(all, l, sizes, &n);
        if (n > before && expert_map_open(&map[i], all->n_layer, all->n_expert, e) < 0) {
            close_maps(map, before);
            return ERR_NO_MEMORY;
        }
        copy_layer(&map[i], all, l);
        if (shelf_of)
            shelf_of[l] = i;
    }
    return n;
}

void expert_store_sizes(const struct expert_shelf_ask *ask, size_t *least, size_t *most)
{
    struct expert_map map[EXPERT_MOST_SHELVES];
    int n = divide_map(ask->map, map, NULL, NULL);
    *least = *most = 0;
    for (int i = 0; i < n; i++) {
        struct expert_shelf_ask part = *ask;
        size_t low, high;
        part.map = &map[i];
        expert_shelf_sizes(&part, &low, &high);
        *least += low;
        *most += high;
    }
    close_maps(map, MAX(n, 0));
}

/* By size, but nobody less than the least, and nobody more than there is to hold. */
static void divide_bytes(const struct expert_shelf_ask *ask, struct expert_map map[], int n,
                         size_t bytes[])
{
    size_t low[EXPERT_MOST_SHELVES], high[EXPERT_MOST_SHELVES], least = 0, over = 0;
    for (int i = 0; i < n; i++) {
        struct expert_shelf_ask part = *ask;
        part.map = &map[i];
        expert_shelf_sizes(&part, &low[i], &high[i]);
        least += low[i];
        over += high[i] - low[i];
    }
    size_t left = ask->bytes > least ? ask->bytes - least : 0;
    for (int i = 0; i < n; i++) {
        double share = over ? (double)(high[i] - low[i]) / (double)over : 0;
        bytes[i] = low[i] + MIN((size_t)((double)left * share), high[i] - low[i]);
        bytes[i] = bytes[i] / SLAB_UNIT * SLAB_UNIT;
    }
}

static int open_shelves(struct expert_store *s, const struct expert_shelf_ask *ask, struct err *e)
{
    size_t bytes[EXPERT_MOST_SHELVES];
    int n = divide_map(ask->map, s->map, s->shelf_of, e);
    TRY(n);
    divide_bytes(ask, s->map, n, bytes);
    for (int i = 0; i < n; i++) {
        struct expert_shelf_ask part = *ask;
        struct expert_shelf_stats stats;
        size_t high;
        part.map = &s->map[i];
        part.bytes = bytes[i];
        part.larger_bytes = (size_t)((double)LARGER_BYTES * (double)bytes[i] / (double)ask->bytes);
        s->n_shelf = i + 1;
        TRY(expert_shelf_open(&s->shelf[i], &part, e));
        expert_shelf_stats(s->shelf[i], &stats);
        expert_shelf_sizes(&part, &s->least[i], &high);
        s->most[i] = stats.slab_bytes;
        s->yield.least += s->least[i];
        s->yield.most += s->most[i];
    }
    s->yield.now = s->yield.most;
    return 0;
}

int expert_store_open(struct expert_store **out, const struct expert_shelf_ask *ask, struct err *e)
{
    struct expert_store *s = calloc(1, sizeof *s);
    int *shelf_of = calloc((size_t)ask->map->n_layer, sizeof *shelf_of);
    *out = NULL;
    if (!s || !shelf_of) {
        free(s);
        free(shelf_of);
        return err_set(e, ERR_NO_MEMORY, "out of memory for experts");
    }
    *s = (struct expert_store){ .n_layer = ask->map->n_layer, .n_expert = ask->map->n_expert,
                                .shelf_of = shelf_of, .look = ask->look,
                                .look_user = ask->look_user, .log = ask->log };
    int code = open_shelves(s, ask, e);
    if (code < 0)
        expert_store_close(s);
    else
        *out = s;
    return code;
}

void expert_store_close(struct expert_store *s)
{
    if (!s)
        return;
    for (int i = 0; i < EXPERT_MOST_SHELVES; i++) {
        expert_shelf_close(s->shelf[i]);
        expert_map_close(&s->map[i]);
    }
    free(s->shelf_of);
    free(s);
}

int expert_store_popular(struct expert_store *s, const struct expert_profile *p,
                         const struct report *told, struct err *e)
{
    for (int i = 0; i < s->n_shelf; i++)
        TRY(expert_shelf_popular(s->shelf[i], p, told, e));
    return 0;
}

int expert_store_restore(struct expert_store *s, const struct expert_profile *p,
                         const struct report *told, struct err *e)
{
    for (int i = 0; i < s->n_shelf; i++)
        TRY(expert_shelf_restore(s->shelf[i], p, told, e));
    return 0;
}

/* tidy: heap - when the model is closed, or a session saved */
bool expert_store_profile(const struct expert_store *s, struct expert_profile *p)
{
    struct expert_profile part = *p;
    size_t n = (size_t)s->n_expert;
    bool used = false;
    part.count = malloc((size_t)s->n_layer * n * sizeof *part.count);
    for (int i = 0; part.count && i < s->n_shelf; i++) {
        const struct expert_policy *policy = &expert_shelf_slots(s->shelf[i])->policy;
        used |= policy->n_use > 0;
        expert_profile_take(&part, policy);
        for (int l = 0; l < s->n_layer; l++)
            if (s->shelf_of[l] == i)
                memcpy(p->count + (size_t)l * n, part.count + (size_t)l * n, n * sizeof *p->count);
    }
    free(part.count);
    return used;
}

static size_t given_bytes(const struct expert_store *s)
{
    size_t sum = 0;
    for (int i = 0; i < s->n_shelf; i++) {
        struct expert_shelf_stats stats;
        expert_shelf_stats(s->shelf[i], &stats);
        sum += stats.given_bytes;
    }
    return sum;
}

/* Every shelf keeps its least, and of the rest the share that all experts may have. */
static void divide_room(struct expert_store *s, size_t bytes)
{
    const struct expert_yield *y = &s->yield;
    double share = y->most > y->least
                       ? (double)(bytes - y->least) / (double)(y->most - y->least) : 1;
    for (int i = 0; i < s->n_shelf; i++) {
        size_t more = (size_t)((double)(s->most[i] - s->least[i]) * share);
        expert_shelf_resize(s->shelf[i], s->least[i] + more);
    }
}

/* Memory may be short by now, or there again. */
static void look_around(struct expert_store *s)
{
    struct pressure p;
    double now = clock_now_s();
    if (!s->look && now < s->next_look_s)
        return;
    s->next_look_s = now + LOOK_S;
    if (s->look)
        s->look(s->look_user, &p);
    else
        pressure_read(&p, "");
    size_t before = given_bytes(s);
    divide_room(s, expert_yield_look(&s->yield, &p));
    size_t after = given_bytes(s);
    if (before != after)
        log_put(&s->log, before == 0 ? LOG_WARN : LOG_INFO, "%s of %s of memory are available: "
                "experts have %s, of %s at the start", bytes_text((double)p.available).s,
                bytes_text((double)p.total).s, bytes_text((double)(s->yield.most - after)).s,
                bytes_text((double)s->yield.most).s);
}

void experts_begin(struct expert_store *s, struct dev *d, const struct rows *r)
{
    if (s && !dev_planning(d))
        look_around(s);
    for (int i = 0; s && !dev_planning(d) && i < s->n_shelf; i++)
        expert_shelf_begin(s->shelf[i], d, r);
}

void experts_want(struct expert_store *s, struct dev *d, const struct expert_set *all, int l,
                  const struct route *route, struct expert_need *need)
{
    *need = (struct expert_need){ .all = all };
    if (!s || dev_planning(d))
        return;
    need->shelf = s->shelf[s->shelf_of[l]];
    expert_shelf_want(need->shelf, d, l, route);
}

bool experts_next(struct expert_need *need, struct dev *d, struct expert_set *some)
{
    if (need->shelf)
        return expert_shelf_next(need->shelf, d, some);
    bool first = !need->given;
    *some = *need->all;
    need->given = true;
    return first;
}

void experts_done(struct expert_need *need)
{
    if (need->shelf)
        expert_shelf_done(need->shelf);
}

int expert_store_n_shelf(const struct expert_store *s)
{
    return s->n_shelf;
}

const struct expert_shelf *expert_store_shelf(const struct expert_store *s, int i)
{
    CHECK(i >= 0 && i < s->n_shelf);
    return s->shelf[i];
}

int expert_store_shelf_of(const struct expert_store *s, int layer)
{
    return s->shelf_of[layer];
}
