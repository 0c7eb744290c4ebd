/* test_squeeze.c - memory becomes short while the model runs: experts give theirs back, take it
 * again, and nothing else changes. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "cpu.h"
#include "engine.h"
#include "evaluate.h"
#include "measure.h"
#include "read_faults.h"
#include "sanitized.h"
#include "session.h"
#include "squeeze.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define MODEL "models/pebble"
#define N_TOK 120
#define MIB ((size_t)1 << 20)
#define ALL (640 * MIB) /* of the machine that is made up */

static struct engine engine;
static struct expert_layer layer[16];
static struct expert_shelf_ask options;
static const char *file[8];
static int32_t text[N_TOK];

static void must(int code, const struct err *e)
{
    if (code < 0)
        fail_msg("%d: %s", code, e->text);
}

static int open_all(void **state)
{
    (void)state;
    struct dstar_options o;
    struct err e = { 0 };
    dstar_options_init(&o);
    o.model = MODEL;
    o.ctx = 1024;
    o.max_rows = 64;
    must(engine_open(&engine, &o, &e), &e);
    for (int i = 0; i < N_TOK; i++)
        text[i] = 300 + i * 7919 % 2000;
    model_experts(engine.model, layer);
    for (int i = 0; i < weights_n_file(engine.files); i++)
        file[i] = weights_file(engine.files, i);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    engine_close(&engine);
    return 0;
}

/* ---- a machine made up ----------------------------------------------------------------------- */

/* Others take memory and give it back, so much and for so many looks as chance will have it. Less
 * than 10 MiB are short, more than 40 are much. */
struct neighbours {
    struct rng rng;
    int left;
    size_t available;
    bool is_steady; /* they do as `available` says */
};

static void look(void *user, struct pressure *p)
{
    struct neighbours *n = user;
    if (!n->is_steady && n->left-- <= 0) {
        bool is_short = n->available > 40 * MIB;
        n->available = (is_short ? 0 : 45 * MIB) + rng_next(&n->rng) % 10 * MIB;
        n->left = is_short ? 3 : 10 + (int)(rng_next(&n->rng) % 4);
    }
    *p = (struct pressure){ ALL, n->available, ALL, n->available, 0 };
}

static struct expert_store *store_with(int percent, struct neighbours *n)
{
    struct expert_store *store;
    struct err e = { 0 };
    size_t least, most;
    options.layer = layer;
    options.map = model_expert_map(engine.model);
    options.io.file = file;
    options.io.n_file = weights_n_file(engine.files);
    options.look = look;
    options.look_user = n;
    expert_store_sizes(&options, &least, &most);
    options.bytes = MAX(least, most * (size_t)percent / 100);
    must(expert_store_open(&store, &options, &e), &e);
    model_use_store(engine.model, store);
    engine.store = store;
    return store;
}

static const struct expert_slots *slots_of(const struct expert_store *store)
{
    return expert_shelf_slots(expert_store_shelf(store, 0));
}

static struct expert_shelf_stats stats_of(const struct expert_store *store)
{
    struct expert_shelf_stats stats;
    expert_shelf_stats(expert_store_shelf(store, 0), &stats);
    return stats;
}

static void store_end(struct expert_store *store)
{
    expert_slots_verify(slots_of(store));
    model_use_store(engine.model, NULL);
    engine.store = NULL;
    expert_store_close(store);
}

struct seen {
    float *logits;
    const struct expert_store *store;
    int least, most; /* slots open */
};

static size_t row_bytes(void)
{
    return (size_t)engine.rules.n_vocab * sizeof(float);
}

static int keep_row(void *user, int pos, const float *logits, const float *mtp)
{
    struct seen *s = user;
    (void)mtp;
    memcpy((char *)s->logits + row_bytes() * (size_t)pos, logits, row_bytes());
    if (s->store) {
        int n = slots_of(s->store)->n_open;
        expert_slots_verify(slots_of(s->store));
        s->least = MIN(s->least, n);
        s->most = MAX(s->most, n);
    }
    return 0;
}

static struct seen logits_of(const struct expert_store *store, int chunk)
{
    struct seen s = { malloc(row_bytes() * N_TOK), store, 1 << 30, 0 };
    struct dstar_text_eval job = { text, N_TOK, chunk, 0, keep_row, &s };
    struct err e = { 0 };
    assert_non_null(s.logits);
    must(evaluate(&engine, &job, &e), &e);
    return s;
}

/* Reads that come back late and in any order meet memory that comes and goes. */
static void test_same_bits(void **state)
{
    (void)state;
    static const int percent[] = { 20, 50, 100 };
    struct seen want = logits_of(NULL, 0);
    struct rng order = { 4, 0 };
    static struct read_faults faults;
    faults_init(&faults);
    faults.shuffle = &order;
    for (int k = 0; k < 3; k++) {
        struct neighbours n = { .rng = { (uint64_t)k, 0 }, .available = ALL };
        options.io.fault = k != 1 ? &faults.fault : NULL;
        struct expert_store *store = store_with(percent[k], &n);
        int least = 1 << 30, most = 0;
        for (int chunk = 1; chunk <= 8; chunk *= 8) {
            struct seen got = logits_of(store, chunk);
            assert_memory_equal(got.logits, want.logits, row_bytes() * N_TOK);
            least = MIN(least, got.least);
            most = MAX(most, got.most);
            free(got.logits);
        }
        print_message("%d %%: %d to %d slots, changed %d times\n", percent[k], least, most,
                      (int)stats_of(store).n_resize);
        assert_true(least < most && stats_of(store).n_resize > 2);
        store_end(store);
    }
    options.io.fault = NULL;
    free(want.logits);
}

/* The system really has it, as much as is said; and what is taken again is there. */
static void test_memory_is_given_back(void **state)
{
    (void)state;
    struct neighbours n = { .is_steady = true, .available = ALL };
    struct expert_store *store = store_with(100, &n);
    struct seen s = logits_of(store, 1);
    free(s.logits);
    size_t before = cpu_rss().anonymous;
    if (before == 0)
        skip();
    assert_true(stats_of(store).given_bytes == 0);
    n.available = 0;
    s = logits_of(store, 1);
    free(s.logits);
    struct expert_shelf_stats stats = stats_of(store);
    size_t after = cpu_rss().anonymous;
    print_message("%.1f of %.1f MB given back, process %.1f to %.1f\n",
                  (double)stats.given_bytes / 1e6, (double)stats.slab_bytes / 1e6,
                  (double)before / 1e6, (double)after / 1e6);
    assert_true(stats.given_bytes > stats.slab_bytes / 2);
    assert_true(after + stats.given_bytes <= before + 4 * MIB);
    assert_true(slots_of(store)->n_open >= model_info(engine.model)->n_used);
    n.available = ALL;
    s = logits_of(store, 1);
    free(s.logits);
    assert_true(stats_of(store).given_bytes == 0);
    assert_true(cpu_rss().anonymous + 4 * MIB >= before);
    assert_int_equal(slots_of(store)->n_open, slots_of(store)->n_slot);
    store_end(store);
}

/* A recording holds what was given back, so a simulation decides the same about every expert. */
static void test_simulation_agrees(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "/tmp/test_squeeze.%ld", (long)getpid());
    for (int i = 0; i < 3; i++) {
        struct neighbours n = { .rng = { 30 + (uint64_t)i, 0 }, .available = ALL };
        struct expert_store *store = store_with(i * 25 + 25, &n);
        struct trace *t = NULL;
        struct routes r;
        struct simulated sim;
        struct session s;
        struct err e = { 0 };
        /* trace_begin() wants the handle, of which the engine is the first field */
        must(trace_begin(&t, (dstar_engine *)(void *)&engine, &e), &e);
        for (int round = 0; round < 3; round++) {
            must(session_open(&s, &engine, &e), &e);
            must(session_set(&s, text + 10 * round, 90 - 40 * round, &e), &e);
            for (int k = 0; k < 40; k++) {
                int32_t id;
                int more = session_next(&s, &id, &e);
                must(more, &e);
                if (more == 0)
                    must(session_append(&s, &text[k], 1, &e), &e);
            }
            session_close(&s);
        }
        must(trace_write(t, path, true, &e), &e);
        trace_end(t);
        const struct expert_slots *slots = slots_of(store);
        struct expert_shape shape = slots->policy.shape;
        shape.n_slot = slots->n_slot; /* as at the start */
        must(routes_read(&r, path, shape.n_expert, &e), &e);
        print_message("%d changes in %d steps\n", r.n_room, r.n_step);
        assert_true(r.n_room > 2);
        must(simulate(&sim, &r, &shape, &e), &e);
        assert_int_equal(sim.lookups, slots->counts.lookups);
        assert_int_equal(sim.misses, slots->counts.misses);
        assert_true(sim.decided == slots->decided);
        r.n_room = 0; /* and without that it would not */
        must(simulate(&sim, &r, &shape, &e), &e);
        assert_true(sim.decided != slots->decided);
        routes_release(&r);
        store_end(store);
    }
    unlink(path);
}

/* ---- a real one ------------------------------------------------------------------------------ */

enum { AS_EXPECTED, NOT_SO, NOT_HERE };

static bool write_on(struct session *s, int n)
{
    struct err e = { 0 };
    int32_t id = 0;
    for (int i = 0; i < n; i++) {
        int code = session_next(s, &id, &e);
        if (code == 0) /* it would end its turn: another word */
            code = session_append(s, &text[s->n_all % N_TOK], 1, &e);
        if (code < 0) {
            fprintf(stderr, "%s\n", e.text);
            return false;
        }
    }
    return true;
}

/* Takes memory of the same group until it is ended. */
static pid_t neighbour(size_t bytes, int *ready)
{
    int pipes[2];
    if (pipe(pipes) < 0)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mem != MAP_FAILED)
            memset(mem, 1, bytes);
        if (write(pipes[1], "r", 1) == 1)
            pause();
        _exit(0);
    }
    *ready = pipes[0];
    close(pipes[1]);
    return child;
}

static bool is_squeezed(struct engine *en, struct session *s)
{
    double until = clock_now_s() + 30;
    const struct expert_slots *slots = slots_of(en->store);
    while (slots->n_open == slots->n_slot && clock_now_s() < until) {
        if (!write_on(s, 1))
            return false;
        usleep(20000);
    }
    return slots->n_open < slots->n_slot;
}

/* In the group: an engine with some room to spare, of which a neighbour then takes nearly all. */
static int live_in(const struct squeeze *group)
{
    struct engine en;
    struct session s;
    struct dstar_options o;
    struct pressure p;
    struct err e = { 0 };
    char c;
    int ready = -1;
    if (!squeeze_enter(group))
        return NOT_HERE;
    dstar_options_init(&o);
    o.model = MODEL;
    o.ctx = 512;
    o.memory_bytes = cpu_rss().anonymous + 38 * MIB;
    if (engine_open(&en, &o, &e) < 0 || !en.store) {
        fprintf(stderr, "%s\n", e.text);
        return NOT_SO;
    }
    if (session_open(&s, &en, &e) < 0 || session_set(&s, text, 60, &e) < 0 || !write_on(&s, 20))
        return NOT_SO;
    pressure_read(&p, "");
    if (p.limit != 256 * MIB || p.free < 64 * MIB)
        return NOT_HERE; /* another limit holds */
    if (slots_of(en.store)->n_open != slots_of(en.store)->n_slot)
        return NOT_SO;
    pid_t other = neighbour(p.free - 3 * MIB, &ready);
    bool took = other > 0 && read(ready, &c, 1) == 1;
    bool gave = took && is_squeezed(&en, &s);
    if (other > 0) {
        kill(other, SIGKILL);
        waitpid(other, NULL, 0);
    }
    float *got = malloc(row_bytes());
    memcpy(got, s.logits, row_bytes());
    int n = s.n_all;
    int32_t *id = malloc((size_t)n * sizeof *id);
    memcpy(id, s.kv.token, (size_t)n * sizeof *id);
    session_close(&s);
    size_t given = stats_of(en.store).given_bytes;
    engine_close(&en);
    o.memory_bytes = 0; /* the same tokens with everything mapped */
    bool same = engine_open(&en, &o, &e) == 0 && !en.store && session_open(&s, &en, &e) == 0 &&
                session_set(&s, id, n - 1, &e) == 0;
    while (same && s.kv.n_tok < s.n_all)
        same = session_step(&s, &e) >= 0;
    same = same && memcmp(got, s.logits, row_bytes()) == 0;
    session_close(&s);
    engine_close(&en);
    fprintf(stderr, "squeezed: %d, %.1f MB given back, same bits: %d\n", gave, (double)given / 1e6,
            same);
    free(got);
    free(id);
    return gave && given > 0 && same ? AS_EXPECTED : took ? NOT_SO : NOT_HERE;
}

static void test_cgroup_squeeze(void **state)
{
    (void)state;
    struct squeeze group;
    if (IS_SANITIZED) {
        print_message("skipped: a sanitizer's own memory is most of the group's\n");
        skip();
    }
    if (!squeeze_open(&group) || !squeeze_to(&group, 256 * MIB)) {
        print_message("skipped: no memory cgroup can be made here\n");
        skip();
    }
    pid_t child = fork();
    if (child == 0)
        _exit(live_in(&group));
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    squeeze_close(&group);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_HERE) {
        print_message("skipped: the group cannot be used\n");
        skip();
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), AS_EXPECTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_memory_is_given_back),
        cmocka_unit_test(test_simulation_agrees),
        cmocka_unit_test(test_cgroup_squeeze),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
