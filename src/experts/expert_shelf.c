/* expert_shelf.c - when what is read, and where it lies.
 *
 * Slots are what expert_slots decides about; places are memory. Every slot has a place, and there
 * are a few spare ones through which experts pass that have no slot: those that a sweep uses once,
 * and those that are read before a layer asks for them. If it then gives one a slot, slot and spare
 * place change over and nothing is copied. So reading ahead is never part of a decision: the same
 * routes decide the same, however fast the reads are.
 *
 * Rejected: a cache for prompts of its own, which takes memory from the answers. */
#include "expert_shelf_impl.h"

#include "clock.h"
#include "expert_place.h"
#include "expert_probe.h"

#include <stdlib.h>

#define MOST_SPARE 24
#define LEAST_SPARE 2
#define AHEAD_SHARE 9    /* tenths of a layer's experts that tell that the next needs all, too */
#define PROBE_BYTES 1e9  /* of experts, from which on the drive is measured */
#define CHECK_TOK 64     /* tokens between looks at whether the files were changed */

/* What has become of an expert of the need. */
enum phase { PHASE_WAITING, PHASE_READING, PHASE_GIVEN, PHASE_OVER };

/* ---- memory ---------------------------------------------------------------------------------- */

static bool has_layer(const struct expert_shelf_ask *ask, int layer)
{
    return expert_map_bytes(ask->map, layer * ask->map->n_expert) > 0;
}

static int count_layers(const struct expert_shelf_ask *ask)
{
    int n = 0;
    for (int l = 0; l < ask->map->n_layer; l++)
        n += has_layer(ask, l);
    return n;
}

static size_t place_bytes(const struct expert_shelf_ask *ask)
{
    struct expert_place p;
    expert_place_init(&p, ask->map, 4096, 1);
    return p.bytes;
}

int shelf_most_used(const struct expert_shelf_ask *ask)
{
    int n = 0;
    for (int l = 0; l < ask->map->n_layer; l++)
        n = MAX(n, ask->layer[l].n_used);
    return n;
}

void expert_shelf_sizes(const struct expert_shelf_ask *ask, size_t *least, size_t *most)
{
    size_t one = place_bytes(ask);
    *least = round_up(one * (size_t)(shelf_most_used(ask) + LEAST_SPARE), SLAB_UNIT);
    *most = round_up(one * ((size_t)(count_layers(ask) * ask->map->n_expert) + MOST_SPARE),
                     SLAB_UNIT);
}

/* A quarter of the places at most is spare: few enough to leave a small memory its slots. */
static void divide(const struct expert_shelf *s, int *n_slot, int *n_spare)
{
    int n_key = count_layers(&s->ask) * s->ask.map->n_expert, n_used = shelf_most_used(&s->ask);
    int n = (int)MIN(s->slab.size / s->place_bytes, (size_t)(n_key + MOST_SPARE));
    *n_spare = MAX(LEAST_SPARE, MIN(MIN(MOST_SPARE, n / 4), n - n_used));
    *n_slot = MIN(n - *n_spare, n_key);
}

static struct expert_shape shape_of(const struct expert_shelf_ask *ask, int n_slot)
{
    struct expert_shape shape = { count_layers(ask), ask->map->n_expert, n_slot, .n_weak = 0 };
    int n_hash = 0;
    while (n_hash < ask->map->n_layer && ask->layer[n_hash].by_token)
        n_hash++;
    expert_rules_auto(&shape);
    shape.n_weak = expert_weak_layers(&shape, n_hash) ? n_hash : 0; /* by its share of its layers */
    shape.n_layer = ask->map->n_layer;
    return shape;
}

static void take_tables(struct expert_shelf *s, struct arena *a)
{
    int n_slot, n_spare, n_expert = s->ask.map->n_expert, n_key = s->ask.map->n_layer * n_expert;
    divide(s, &n_slot, &n_spare);
    s->n_place = n_slot + n_spare;
    struct expert_shape shape = shape_of(&s->ask, n_slot);
    expert_slots_init(&s->slots, &shape, a);
    expert_use_init(&s->use, n_expert, a);
    expert_use_init(&s->next_use, n_expert, a);
    shape.n_slot = MIN(count_layers(&s->ask) * n_expert,
                       n_slot + (int)(s->ask.larger_bytes / s->place_bytes));
    shape.n_rule = 1; /* a good one; several would cost more than they tell */
    expert_slots_init(&s->larger, &shape, a);
    s->of_layer = arena_alloc(a, (size_t)s->ask.map->n_layer * sizeof *s->of_layer);
    s->place = arena_alloc(a, (size_t)s->n_place * sizeof *s->place);
    s->place_of = arena_alloc(a, (size_t)n_slot * sizeof *s->place_of);
    s->staged = arena_alloc(a, (size_t)n_key * sizeof *s->staged);
    s->spare = arena_alloc(a, (size_t)s->n_place * sizeof *s->spare);
    s->some = arena_alloc(a, (size_t)n_expert * sizeof *s->some);
    s->phase = arena_alloc(a, (size_t)n_expert * sizeof *s->phase);
    if (!a->mem)
        return;
    memset(s->of_layer, 0, (size_t)s->ask.map->n_layer * sizeof *s->of_layer);
    for (int i = 0; i < s->n_place; i++) {
        bool is_spare = i >= n_slot;
        s->place[i] = (struct place){ .key = -1, .slot = is_spare ? -1 : i };
        if (is_spare)
            s->spare[s->n_spare++] = i;
        else
            s->place_of[i] = i;
    }
    for (int k = 0; k < n_key; k++)
        s->staged[k] = -1;
}

static int tables_open(struct expert_shelf *s, struct err *e)
{
    struct arena a;
    arena_init(&a, NULL, 0);
    take_tables(s, &a);
    size_t size = round_up(a.peak, ARENA_ALIGN);
    s->tables = aligned_alloc(ARENA_ALIGN, size);
    if (!s->tables)
        return err_set(e, ERR_NO_MEMORY, "out of memory for tables of experts");
    arena_init(&a, s->tables, size);
    take_tables(s, &a);
    for (int i = 0; i < SHELF_MOST_LOADS; i++)
        s->free_load[s->n_free_load++] = (int16_t)(SHELF_MOST_LOADS - 1 - i);
    return 0;
}

/* Only where it pays: what is small is read in less time than this takes. */
static int probe(struct expert_shelf *s, struct err *e)
{
    struct expert_probe found;
    double all = (double)s->place_bytes * count_layers(&s->ask) * s->ask.map->n_expert;
    if (s->n_place < EXPERT_PROBE_PLACES || all < PROBE_BYTES)
        return 0;
    TRY(expert_probe(&found, s->reads, s->slab.mem, EXPERT_PROBE_PLACES, 0, e));
    s->stats.probe_bytes_per_s = found.bytes_per_s;
    return 0;
}

int expert_shelf_open(struct expert_shelf **out, const struct expert_shelf_ask *ask, struct err *e)
{
    struct expert_shelf *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(e, ERR_NO_MEMORY, "out of memory for experts");
    s->ask = *ask;
    struct expert_reads_ask reads = {
        .map = ask->map, .io = ask->io, .most_places = SHELF_MOST_LOADS, .warn_s = ask->warn_s,
        .fail_s = ask->fail_s, .log = ask->log
    };
    s->ask.told = NULL;
    int code = slab_open(&s->slab, ask->bytes, ask->told, e);
    if (code == 0)
        code = expert_reads_open(&s->reads, &reads, e);
    if (code == 0) {
        s->place_bytes = expert_reads_place_bytes(s->reads);
        size_t least = s->place_bytes * (size_t)(shelf_most_used(ask) + LEAST_SPARE);
        code = least <= s->slab.size ? tables_open(s, e)
                                     : err_set(e, ERR_NO_MEMORY, "%zu bytes for experts, expected "
                                               "at least %zu", s->slab.size, least);
    }
    if (code == 0)
        code = probe(s, e);
    if (code == 0)
        s->bytes_before = expert_reads_stats(s->reads)->bytes_read;
    if (code < 0)
        expert_shelf_close(s);
    else
        *out = s;
    return code;
}

void expert_shelf_close(struct expert_shelf *s)
{
    if (!s)
        return;
    if (expert_reads_close(s->reads) == 0)
        slab_close(&s->slab);
    free(s->tables);
    free(s);
}

/* ---- places and reads ------------------------------------------------------------------------ */

static int key_of(const struct expert_shelf *s, int layer, int expert)
{
    return layer * s->use.n_expert + expert;
}

/* Give a spare place back that nobody reads into. */
static void let_go(struct expert_shelf *s, int p)
{
    struct place *place = &s->place[p];
    CHECK(place->slot < 0 && !place->reading);
    if (place->key >= 0)
        s->staged[place->key] = -1;
    *place = (struct place){ .key = -1, .slot = -1 };
    s->spare[s->n_spare++] = p;
}

/* A load is over. */
static void ended(struct expert_shelf *s, int p, bool ok)
{
    struct place *place = &s->place[p];
    s->free_load[s->n_free_load++] = place->load;
    place->reading = false;
    place->ready = ok;
    place->failed = false;
    if (place->slot >= 0)
        (ok ? expert_slots_arrived : expert_slots_failed)(&s->slots, place->slot);
    else if (!ok || place->key < 0)
        let_go(s, p);
}

void shelf_poll(struct expert_shelf *s, double wait_s)
{
    int n = expert_reads_poll(s->reads, s->arrival, SHELF_MOST_LOADS, wait_s);
    for (int i = 0; i < n; i++) {
        const struct expert_arrival *a = &s->arrival[i];
        int p = s->place_of_load[a->id];
        if (a->code != ERR_NONE && a->code != ERR_CANCELLED) {
            s->failed.code = ERR_NONE;
            err_set(&s->failed, a->code, "%s", a->why);
            s->place[p].failed = true;
        }
        if (a->quiet)
            ended(s, p, a->code == ERR_NONE);
    }
}

void shelf_add_read(struct expert_shelf *s, int p, int key, enum expert_urgency urgency)
{
    CHECK(s->n_free_load > 0);
    int16_t id = s->free_load[--s->n_free_load];
    s->place_of_load[id] = p;
    s->place[p].key = key;
    s->place[p].reading = true;
    s->place[p].ready = false;
    s->place[p].load = id;
    s->load[s->n_load++] = (struct expert_load){
        .id = id, .key = key, .n = 1, .urgency = urgency, .place = shelf_memory_of(s, p)
    };
}

void shelf_begin_reads(struct expert_shelf *s)
{
    if (s->n_load > 0)
        expert_reads_start(s->reads, s->load, s->n_load);
    s->n_load = 0;
}

/* Forget something that was read ahead for another layer; false when there is nothing. */
static bool make_room(struct expert_shelf *s)
{
    for (int p = 0; p < s->n_place; p++) {
        const struct place *place = &s->place[p];
        if (place->slot < 0 && place->ready && place->key / s->use.n_expert != s->layer) {
            let_go(s, p);
            return true;
        }
    }
    return false;
}

/* Read into a spare place what is neither there nor in a slot; false when there is no place. */
static bool stage(struct expert_shelf *s, int key, enum expert_urgency urgency)
{
    if (s->staged[key] >= 0 || s->slots.slot_of[key] >= 0)
        return true;
    if (s->n_spare == 0 || s->n_free_load == 0)
        return false;
    int p = s->spare[--s->n_spare];
    s->staged[key] = p;
    shelf_add_read(s, p, key, urgency);
    s->stats.n_ahead += urgency == EXPERT_AHEAD;
    return true;
}

/* A slot was given to an expert that is staged: slot and place change over. */
static void adopt(struct expert_shelf *s, int slot, int key)
{
    int old = s->place_of[slot], p = s->staged[key];
    CHECK(!s->place[old].reading);
    s->staged[key] = -1;
    s->place_of[slot] = p;
    s->place[p].slot = slot;
    s->place[old] = (struct place){ .key = -1, .slot = -1 };
    s->spare[s->n_spare++] = old;
    if (s->place[p].ready)
        expert_slots_arrived(&s->slots, slot);
}

static bool is_used(const struct expert_shelf *s, int key)
{
    for (int i = 0; i < s->use.n; i++)
        if (key_of(s, s->layer, s->use.expert[i]) == key)
            return true;
    return false;
}

/* Spare places of layers that are over, or that hold what the layer does not use. */
static void clear_stale(struct expert_shelf *s)
{
    for (int p = 0; p < s->n_place; p++) {
        struct place *place = &s->place[p];
        if (place->slot >= 0 || place->key < 0 || place->key / s->use.n_expert > s->layer ||
            is_used(s, place->key))
            continue;
        s->staged[place->key] = -1;
        place->key = -1;
        if (place->reading)
            expert_reads_drop(s->reads, place->load);
        else
            let_go(s, p);
    }
}

/* ---- reading ahead --------------------------------------------------------------------------- */

/* Nothing is computed while a call below runs: all of its time counts as waited for reads. */
static void add_wait(struct expert_shelf *s, double begin)
{
    double took = clock_now_s() - begin;
    s->tally->wait_s += took;
    s->of_layer[s->layer].wait_s += took;
}

/* What the step's rows will use of a layer that is routed by the token alone. */
static void use_by_token(struct expert_shelf *s, struct expert_use *u, int layer)
{
    const struct expert_layer *l = &s->ask.layer[layer];
    const struct rows *r = s->rows;
    expert_use_begin(u, r->n);
    for (int i = 0; i < r->n; i++)
        expert_use_add(u, i, l->by_token + (size_t)r->host[i].token * (size_t)l->n_used,
                       l->n_used);
    expert_use_end(u, s->slots.n_open, layer);
}

/* False when there is no more place. */
static bool stage_used(struct expert_shelf *s, const struct expert_use *u)
{
    for (int i = 0; i < u->n; i++)
        if (!stage(s, key_of(s, u->layer, u->expert[i]), EXPERT_AHEAD))
            return false;
    return true;
}

/* The next layer of a sweep: for certain if its routes follow from the tokens, else all of it, if
 * this one uses nearly all. */
static void read_ahead(struct expert_shelf *s)
{
    int next = s->layer + 1;
    if (!s->use.is_sweep || next >= s->ask.map->n_layer || !has_layer(&s->ask, next))
        return;
    if (s->ask.layer[next].by_token) {
        use_by_token(s, &s->next_use, next);
        stage_used(s, &s->next_use);
    }
    if (s->ask.layer[next].by_token || s->use.n * 10 < s->use.n_expert * AHEAD_SHARE)
        return;
    for (int e = 0; e < s->use.n_expert; e++)
        if (!stage(s, key_of(s, next, e), EXPERT_AHEAD))
            return;
}

void expert_shelf_begin(struct expert_shelf *s, struct dev *d, const struct rows *r)
{
    double begin = clock_now_s();
    s->rows = r;
    s->layer = 0;
    s->tally = r->n == 1 ? &s->stats.decode : &s->stats.prefill;
    s->tally->n_tok += (uint64_t)r->n;
    s->tally->n_step++;
    expert_slots_step(&s->slots, r->n);
    expert_slots_step(&s->larger, r->n);
    s->n_unchecked_tok += r->n;
    if (s->n_unchecked_tok >= CHECK_TOK) {
        struct err e = { 0 };
        if (expert_reads_check(s->reads, &e) < 0)
            dev_fail(d, e.code, "%s", e.text); /* and so does every step from now on */
        else
            s->n_unchecked_tok = 0;
    }
    shelf_poll(s, 0);
    for (int l = 0; l < s->ask.map->n_layer && s->ask.layer[l].by_token; l++) {
        if (!has_layer(&s->ask, l))
            continue;
        use_by_token(s, &s->use, l);
        if (!stage_used(s, &s->use))
            break;
    }
    shelf_begin_reads(s);
    add_wait(s, begin);
}

/* ---- a layer --------------------------------------------------------------------------------- */

/* What was decided, with what is there or under way. */
static void look_up(struct expert_shelf *s)
{
    clear_stale(s);
    for (int i = 0; i < s->use.n; i++) {
        int key = key_of(s, s->layer, s->use.expert[i]), slot = s->use.slot[i];
        bool is_missing = expert_use_missing(&s->use, i);
        int p = is_missing ? s->staged[key] : s->place_of[slot];
        s->phase[i] = p < 0 ? PHASE_WAITING : PHASE_READING;
        if (p >= 0 && s->place[p].reading)
            expert_reads_urge(s->reads, s->place[p].load);
        if (!is_missing || p < 0)
            continue;
        s->stats.n_ahead_used++;
        if (slot >= 0)
            adopt(s, slot, key);
    }
}

/* Begin reads of the layer as long as there are places; then those of the next. */
static void read_on(struct expert_shelf *s)
{
    int most = s->use.is_sweep ? SHELF_SWEEP_LOADS : SHELF_MOST_LOADS;
    for (; s->cursor < s->use.n && shelf_count_reading(s) < most; s->cursor++) {
        int i = s->cursor, key = key_of(s, s->layer, s->use.expert[i]), slot = s->use.slot[i];
        if (s->phase[i] != PHASE_WAITING)
            continue;
        if (slot >= 0)
            shelf_add_read(s, s->place_of[slot], key, EXPERT_DEMAND);
        else if (!stage(s, key, EXPERT_DEMAND) &&
                 !(make_room(s) && stage(s, key, EXPERT_DEMAND)))
            break;
        s->phase[i] = PHASE_READING;
    }
    if (s->cursor == s->use.n)
        read_ahead(s);
    shelf_begin_reads(s);
}

static bool is_stopped(struct dev *d)
{
    dev_check_stop(d);
    return d->err.code != ERR_NONE;
}

/* The same routes to the cache that is only simulated. Its answers overwrite the need's. */
static void ask_larger(struct expert_shelf *s)
{
    struct expert_use *u = &s->use;
    CHECK(expert_use_decide(u, &s->larger) >= 0);
    for (int i = 0; i < u->n; i++)
        if (u->slot[i] >= 0 && expert_use_missing(u, i))
            expert_slots_arrived(&s->larger, u->slot[i]);
    expert_use_done(u, &s->larger);
}

void expert_shelf_want(struct expert_shelf *s, struct dev *d, int l, const struct route *route)
{
    CHECK(!s->is_open);
    if (is_stopped(d))
        return;
    expert_use_begin(&s->use, route->id.rows);
    for (int i = 0; i < route->id.rows; i++)
        expert_use_add(&s->use, i, tensor_i32(&route->id, i), route->id.cols);
    expert_use_end(&s->use, s->slots.n_open, l);
    shelf_poll(s, 0);
    s->layer = l;
    double begin = clock_now_s();
    ask_larger(s);
    uint64_t hits = s->slots.counts.hits;
    while (expert_use_decide(&s->use, &s->slots) < 0) { /* reads of a step that failed hold slots */
        shelf_poll(s, SHELF_WAIT_S);
        if (is_stopped(d))
            return;
    }
    hits = s->slots.counts.hits - hits;
    s->tally->lookups += (uint64_t)s->use.n;
    s->tally->hits += hits;
    s->of_layer[l].lookups += (uint64_t)s->use.n;
    s->of_layer[l].hits += hits;
    s->of_layer[l].n_step++;
    s->of_layer[l].n_tok += (uint64_t)route->id.rows;
    s->cursor = 0;
    s->is_open = true;
    s->n_missing = s->use.n - (int)hits;
    look_up(s);
    read_on(s);
    add_wait(s, begin);
    s->asked_s = clock_now_s();
    s->first_wait_s = 0;
}

/* Where expert i of the need is, or -1 when it could not be read. */
static int find_place(const struct expert_shelf *s, int i)
{
    int key = key_of(s, s->layer, s->use.expert[i]), slot = s->use.slot[i], p = -1;
    if (slot < 0)
        p = s->staged[key];
    else if (s->slots.slot[slot].key == key)
        p = s->place_of[slot];
    return p >= 0 && s->place[p].failed ? -1 : p;
}

static void put_tensor(const struct expert_shelf *s, struct tensor *t, const struct expert_load *l,
                       enum expert_part part, enum expert_part scale)
{
    t->data = (void *)(uintptr_t)expert_reads_part(s->reads, l, 0, part);
    t->scale = expert_reads_part(s->reads, l, 0, scale);
}

/* Ascending, though one row's experts come in the order of its route. */
static void put_expert(struct expert_shelf *s, int n, const struct expert *shape, int p)
{
    struct expert_load l = { .key = s->place[p].key, .n = 1, .place = shelf_memory_of(s, p) };
    struct expert e = *shape;
    put_tensor(s, &e.gate, &l, EXPERT_GATE, EXPERT_GATE_SCALE);
    put_tensor(s, &e.up, &l, EXPERT_UP, EXPERT_UP_SCALE);
    put_tensor(s, &e.down, &l, EXPERT_DOWN, EXPERT_DOWN_SCALE);
    for (; n > 0 && s->some[n - 1].id > e.id; n--)
        s->some[n] = s->some[n - 1];
    s->some[n] = e;
}

/* What was given before is computed now: experts without a slot make room. */
static void take_back(struct expert_shelf *s)
{
    for (int i = 0; i < s->use.n; i++) {
        if (s->phase[i] != PHASE_GIVEN)
            continue;
        s->phase[i] = PHASE_OVER;
        if (s->use.slot[i] < 0)
            let_go(s, s->staged[key_of(s, s->layer, s->use.expert[i])]);
    }
}

/* Those that are ready; how many are not. -1: one could not be read. */
static int give(struct expert_shelf *s, const struct expert_set *all, int *n_given)
{
    int n_left = 0;
    *n_given = 0;
    for (int i = 0; i < s->use.n; i++) {
        n_left += s->phase[i] == PHASE_WAITING;
        if (s->phase[i] != PHASE_READING)
            continue;
        int p = find_place(s, i);
        if (p < 0)
            return -1;
        n_left += !s->place[p].ready;
        if (!s->place[p].ready)
            continue;
        put_expert(s, (*n_given)++, &all->e[s->use.expert[i]], p);
        s->phase[i] = PHASE_GIVEN;
    }
    return n_left;
}

bool expert_shelf_next(struct expert_shelf *s, struct dev *d, struct expert_set *some)
{
    const struct expert_set *all = &s->ask.layer[s->layer].set;
    int n_given = 0;
    if (!s->is_open || is_stopped(d))
        return false;
    double begin = clock_now_s();
    take_back(s);
    shelf_poll(s, 0);
    for (;;) {
        read_on(s);
        int n_left = give(s, all, &n_given);
        if (n_left < 0)
            dev_fail(d, s->failed.code, "%s", s->failed.text);
        if (n_left <= 0 || n_given > 0 || is_stopped(d))
            break;
        CHECK(shelf_count_reading(s) > 0);
        s->first_wait_s = s->first_wait_s > 0 ? s->first_wait_s : begin;
        shelf_poll(s, SHELF_WAIT_S);
    }
    add_wait(s, begin);
    *some = (struct expert_set){ .n = n_given, .e = s->some };
    return n_given > 0 && d->err.code == ERR_NONE;
}

/* What the layer would wait if resident experts went first and all else were the drive's rate. */
static void add_model_wait(struct expert_shelf *s)
{
    const struct expert_reads_stats *r = expert_reads_stats(s->reads);
    double end = s->first_wait_s > 0 ? s->first_wait_s : clock_now_s();
    if (s->rows->n != 1 || s->n_missing == 0 || r->bytes_read == 0)
        return;
    double bytes = (double)expert_map_bytes(s->ask.map, key_of(s, s->layer, 0)) * s->n_missing;
    double read_s = bytes * r->busy_s / (double)r->bytes_read;
    s->tally->model_wait_s += MAX(0, read_s - (end - s->asked_s));
}

void expert_shelf_done(struct expert_shelf *s)
{
    if (!s->is_open)
        return;
    take_back(s);
    for (int i = 0; i < s->use.n; i++) /* a step that failed had not come to them */
        if (s->phase[i] == PHASE_WAITING && s->use.slot[i] >= 0)
            expert_slots_failed(&s->slots, s->use.slot[i]);
    expert_use_done(&s->use, &s->slots);
    s->is_open = false;
    add_model_wait(s);
    uint64_t bytes = expert_reads_stats(s->reads)->bytes_read;
    s->tally->bytes += bytes - s->bytes_before;
    s->of_layer[s->layer].bytes += bytes - s->bytes_before;
    s->bytes_before = bytes;
}

/* ---- looking inside -------------------------------------------------------------------------- */

void expert_shelf_stats(const struct expert_shelf *s, struct expert_shelf_stats *out)
{
    *out = s->stats;
    out->layer = s->of_layer;
    out->larger_misses = s->larger.counts.misses;
    out->larger_bytes = (size_t)(s->larger.n_open - s->slots.n_open) * s->place_bytes;
    out->slab_bytes = s->slab.size;
    out->huge_bytes = s->slab.huge_bytes;
    out->locked = s->slab.locked;
    out->lock_limit = s->slab.lock_limit;
}

const struct expert_slots *expert_shelf_slots(const struct expert_shelf *s)
{
    return &s->slots;
}

const struct expert_reads *expert_shelf_reads(const struct expert_shelf *s)
{
    return s->reads;
}
