/* expert_probe.c - the same reads that decoding makes, without pause, at one depth after another.
 *
 * Rates are taken while the queue is full, from one completion to another: filling and draining
 * would count against great depths. */
#include "expert_probe.h"

#include "clock.h"
#include "rng.h"

#define PROBE_S 0.5
#define GOOD_SHARE 0.95
#define DRAIN_S 5.0

struct probe {
    struct expert_reads *r;
    uint8_t *mem;
    int n_place;
    struct rng rng;
    bool is_busy[EXPERT_PROBE_PLACES];
};

/* A random expert that has bytes, into each free place. */
static void fill_places(struct probe *p)
{
    struct expert_load load[EXPERT_PROBE_PLACES];
    const struct expert_map *map = expert_reads_map(p->r);
    uint64_t n_key = (uint64_t)map->n_layer * (uint64_t)map->n_expert;
    int n = 0;
    for (int i = 0; i < p->n_place; i++) {
        int key = (int)(rng_next(&p->rng) % n_key);
        if (p->is_busy[i] || expert_map_bytes(map, key) == 0)
            continue;
        void *place = p->mem + (size_t)i * expert_reads_place_bytes(p->r);
        load[n++] = (struct expert_load){ i, key, 1, 0, EXPERT_DEMAND, place };
        p->is_busy[i] = true;
    }
    if (n > 0)
        expert_reads_start(p->r, load, n);
}

static int take_arrivals(struct probe *p, double wait_s, struct err *e)
{
    struct expert_arrival a[EXPERT_PROBE_PLACES];
    int n = expert_reads_poll(p->r, a, EXPERT_PROBE_PLACES, wait_s), code = 0;
    for (int i = 0; i < n; i++) {
        if (a[i].quiet)
            p->is_busy[a[i].id] = false;
        if (a[i].code && a[i].code != ERR_CANCELLED)
            code = err_set(e, a[i].code, "%s", a[i].why);
    }
    return code;
}

/* Adds to *bytes and *seconds what came at this depth. */
static int measure(struct probe *p, int depth, double most_s, double *bytes, double *seconds,
                   struct err *e)
{
    expert_reads_limit(p->r, depth, depth);
    double begin = clock_now_s(), now = begin;
    uint64_t first = expert_reads_stats(p->r)->bytes_read;
    while (now - begin < most_s) {
        fill_places(p);
        TRY(take_arrivals(p, most_s - (now - begin), e));
        now = clock_now_s();
    }
    *bytes += (double)(expert_reads_stats(p->r)->bytes_read - first);
    *seconds += now - begin;
    return 0;
}

/* Nothing is in flight afterwards, unless a read hangs. */
static void drain(struct probe *p)
{
    struct err ignored = { 0 };
    double until = clock_now_s() + DRAIN_S;
    for (int i = 0; i < p->n_place; i++)
        expert_reads_drop(p->r, i);
    while (expert_reads_busy(p->r) > 0 && clock_now_s() < until)
        take_arrivals(p, 0.1, &ignored);
}

static int probe_all(struct probe *p, int n_depth, double slice_s, double *rate, struct err *e)
{
    double bytes[EXPERT_PROBE_DEPTHS] = { 0 }, seconds[EXPERT_PROBE_DEPTHS] = { 0 };
    for (int step = 0; step < 2 * n_depth; step++) {
        int i = step < n_depth ? step : 2 * n_depth - 1 - step;
        TRY(measure(p, 1 << i, slice_s, &bytes[i], &seconds[i], e));
        rate[i] = bytes[i] / seconds[i];
    }
    return 0;
}

static void choose(struct expert_probe *out)
{
    double best = 0;
    for (int i = 0; i < EXPERT_PROBE_DEPTHS; i++)
        best = MAX(best, out->rate[i]);
    int i = 0;
    while (out->rate[i] < GOOD_SHARE * best)
        i++;
    out->depth = 1 << i;
    out->bytes_per_s = out->rate[i];
}

int expert_probe(struct expert_probe *out, struct expert_reads *r, void *mem, int n_place,
                 double most_s, struct err *e)
{
    CHECK(n_place > 0);
    *out = (struct expert_probe){ 0 };
    struct probe p = { .r = r, .mem = mem, .n_place = MIN(n_place, EXPERT_PROBE_PLACES) };
    p.rng.seed = (uint64_t)(clock_now_s() * 1e9); /* what was read before may be cached */
    int n_depth = 0;
    while (n_depth < EXPERT_PROBE_DEPTHS && 1 << n_depth <= expert_reads_io(r)->depth &&
           1 << n_depth <= p.n_place * 6)
        n_depth++;
    double slice_s = (most_s > 0 ? most_s : PROBE_S) / (2 * n_depth);
    int code = probe_all(&p, n_depth, slice_s, out->rate, e);
    if (code == 0)
        choose(out);
    drain(&p);
    int most = expert_reads_io(r)->depth;
    expert_reads_limit(r, most, code == 0 ? out->depth : most);
    return code;
}
