/* test_stream.c - experts that come from files: the same bits as with all of them mapped, whatever
 * fits into memory and however it is read; decisions that a simulation makes, too; faults. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "cpu.h"
#include "deepseek4.h"
#include "engine.h"
#include "evaluate.h"
#include "file.h"
#include "measure.h"
#include "offline.h"
#include "sanitized.h"
#include "session.h"
#include "session_file.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MODEL "models/pebble"
#define N_TOK 100

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

static int open_model(bool with_mtp)
{
    struct dstar_options o;
    struct err e = { 0 };
    dstar_options_init(&o);
    o.model = MODEL;
    o.ctx = 1024;
    o.max_rows = 64;
    o.mtp = with_mtp;
    must(engine_open(&engine, &o, &e), &e);
    for (int i = 0; i < N_TOK; i++)
        text[i] = 300 + i * 7919 % 2000;
    model_experts(engine.model, layer);
    for (int i = 0; i < weights_n_file(engine.files); i++)
        file[i] = weights_file(engine.files, i);
    options = (struct expert_shelf_ask){
        .layer = layer,
        .map = model_expert_map(engine.model),
        .io = { .file = file, .n_file = weights_n_file(engine.files) },
    };
    return 0;
}

static int open_all(void **state)
{
    (void)state;
    return open_model(true);
}

static int open_plain(void **state)
{
    (void)state;
    return open_model(false);
}

static int close_all(void **state)
{
    (void)state;
    engine_close(&engine);
    return 0;
}

/* Every row's logits, of the network and of the draft block. */
struct seen {
    float *logits;
    int n;
};

static size_t row_floats(void)
{
    return (size_t)engine.rules.n_vocab;
}

static int keep_row(void *user, int pos, const float *logits, const float *mtp)
{
    struct seen *s = user;
    float *to = s->logits + 2 * row_floats() * (size_t)pos;
    memcpy(to, logits, row_floats() * sizeof *to);
    memcpy(to + row_floats(), mtp, row_floats() * sizeof *to);
    s->n++;
    return 0;
}

static float *logits_of(int chunk)
{
    struct seen s = { malloc(2 * row_floats() * sizeof(float) * N_TOK), 0 };
    struct err e = { 0 };
    struct dstar_text_eval job = { text, N_TOK, chunk, 1, keep_row, &s };
    assert_non_null(s.logits);
    must(evaluate(&engine, &job, &e), &e);
    assert_int_equal(s.n, N_TOK);
    return s.logits;
}

static struct expert_store *store_with(int percent)
{
    struct expert_store *store;
    struct err e = { 0 };
    size_t least, most;
    expert_store_sizes(&options, &least, &most);
    options.bytes = MAX(least, most * (size_t)percent / 100);
    must(expert_store_open(&store, &options, &e), &e);
    model_use_store(engine.model, store);
    return store;
}

/* Of the network's layers; the draft block of this model has experts of the same size. */
static const struct expert_slots *slots_of(const struct expert_store *store)
{
    return expert_shelf_slots(expert_store_shelf(store, 0));
}

static const struct expert_reads *reads_of(const struct expert_store *store)
{
    return expert_shelf_reads(expert_store_shelf(store, 0));
}

static void store_end(struct expert_store *store)
{
    expert_slots_verify(slots_of(store));
    model_use_store(engine.model, NULL);
    expert_store_close(store);
}

static size_t all_bytes(void)
{
    return 2 * row_floats() * sizeof(float) * N_TOK;
}

static void check_logits(const float *want, int chunk)
{
    float *got = logits_of(chunk);
    assert_memory_equal(got, want, all_bytes());
    free(got);
}

/* Cold, then warm, from one token a step to whole sweeps. */
static void test_same_bits_at_any_size(void **state)
{
    (void)state;
    static const int percent[] = { 0, 5, 20, 50, 100 };
    static const int chunk[] = { 64, 1, 5 };
    float *want = logits_of(0);
    uint64_t last = UINT64_MAX;
    for (size_t i = 0; i < COUNT_OF(percent); i++) {
        struct expert_store *store = store_with(percent[i]);
        for (size_t c = 0; c < COUNT_OF(chunk); c++)
            check_logits(want, chunk[c]);
        const struct expert_counts *n = &slots_of(store)->counts;
        const struct expert_reads_stats *r = expert_reads_stats(reads_of(store));
        print_message("%3d %%: %3d slots, %llu lookups, %llu hits, %.1f MB read\n", percent[i],
                      slots_of(store)->n_slot, (unsigned long long)n->lookups,
                      (unsigned long long)n->hits, (double)r->bytes_read / 1e6);
        assert_true(n->misses <= last);
        last = n->misses;
        store_end(store);
    }
    assert_int_equal(last, options.map->n_layer * options.map->n_expert); /* each once */
    free(want);
}

static void test_same_bits_on_any_path(void **state)
{
    (void)state;
    float *want = logits_of(0);
    for (enum aio_path path = AIO_URING_FIXED; path <= AIO_POOL_BUFFERED; path++) {
        struct expert_store *store;
        struct err e = { 0 };
        size_t least, most;
        expert_store_sizes(&options, &least, &most);
        options.bytes = most / 5;
        options.io.path = path;
        int code = expert_store_open(&store, &options, &e);
        options.io.path = AIO_AUTO;
        print_message("%s: %s\n", aio_path_name(path), code < 0 ? e.text : "had");
        if (code < 0) {
            assert_int_equal(code, ERR_IO);
            assert_true(path != AIO_POOL_BUFFERED); /* this one can be had everywhere */
            continue;
        }
        model_use_store(engine.model, store);
        check_logits(want, 16);
        store_end(store);
    }
    free(want);
}

/* ---- the simulation ------------------------------------------------------------------------ */

/* Recorded with its steps, the simulation decides the same about every expert and victim. */
static void test_simulation_agrees(void **state)
{
    (void)state;
    char path[64];
    uint64_t decided[3];
    snprintf(path, sizeof path, "/tmp/test_stream.%ld", (long)getpid());
    for (int i = 0; i < 3; i++) {
        struct expert_store *store = store_with(i * 25);
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
            for (int n = 0; n < 40; n++) {
                int32_t id;
                must(session_next(&s, &id, &e), &e);
            }
            session_close(&s);
        }
        must(trace_write(t, path, true, &e), &e);
        trace_end(t);
        const struct expert_slots *slots = slots_of(store);
        must(routes_read(&r, path, slots->policy.shape.n_expert, &e), &e);
        must(simulate(&sim, &r, &slots->policy.shape, &e), &e);
        assert_int_equal(sim.lookups, slots->counts.lookups);
        assert_int_equal(sim.hits, slots->counts.hits);
        assert_int_equal(sim.misses, slots->counts.misses);
        assert_true(sim.decided == slots->decided);
        decided[i] = sim.decided;
        routes_release(&r);
        store_end(store);
    }
    assert_true(decided[0] != decided[1] && decided[1] != decided[2]);
    unlink(path);
}

/* ---- faults -------------------------------------------------------------------------------- */

/* A disk on which some reads fail, are cut short, or never come back. */
/* Takes the library's place. While it is negative, time passes; else only slow reads take any. */
static double reads_took_s = -1;

double clock_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return reads_took_s >= 0 ? reads_took_s : (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bad_disk {
    int sys;          /* of reads from `first` on */
    int first, n;     /* reads that have come back */
    bool is_short, is_stuck, is_slow;
};

static bool deliver(void *user, const struct aio_read *r, struct aio_done *d)
{
    struct bad_disk *disk = user;
    int n = disk->n++;
    if (disk->is_stuck && n >= disk->first)
        return false;
    if (disk->is_slow)
        reads_took_s += 1e-3;
    if (disk->is_short && d->bytes > 9000 && n % 2)
        d->bytes = 4096 + r->bytes / 8192 * 4096;
    if (disk->sys && n >= disk->first) {
        d->code = ERR_IO;
        d->sys = disk->sys;
        d->bytes = 0;
    }
    return true;
}

static int evaluate_all(struct err *e)
{
    struct seen s = { malloc(all_bytes()), 0 };
    assert_non_null(s.logits);
    struct dstar_text_eval job = { text, N_TOK, 16, 1, keep_row, &s };
    int code = evaluate(&engine, &job, e);
    free(s.logits);
    return code;
}

static void test_failed_reads_fail_the_request(void **state)
{
    (void)state;
    struct bad_disk disk = { 0 };
    struct aio_fault fault = { &disk, deliver };
    float *want = logits_of(0);
    options.io.fault = &fault;
    for (int first = 0; first < 300; first += 133) {
        struct expert_store *store = store_with(20);
        for (int round = 0; round < 2; round++) {
            struct err e = { 0 };
            disk = (struct bad_disk){ .sys = EIO, .first = first };
            assert_int_equal(evaluate_all(&e), ERR_IO);
            assert_non_null(strstr(e.text, "safetensors"));
            assert_non_null(strstr(e.text, "expert "));
            assert_non_null(strstr(e.text, strerror(EIO)));
            disk = (struct bad_disk){ 0 };
            check_logits(want, round ? 64 : 1);
        }
        store_end(store);
    }
    options.io.fault = NULL;
    free(want);
}

static void test_short_reads_change_nothing(void **state)
{
    (void)state;
    struct bad_disk disk = { .is_short = true };
    struct aio_fault fault = { &disk, deliver };
    float *want = logits_of(0);
    options.io.fault = &fault;
    struct expert_store *store = store_with(20);
    check_logits(want, 16);
    assert_true(expert_reads_stats(reads_of(store))->n_short > 0);
    store_end(store);
    options.io.fault = NULL;
    free(want);
}

/* From the page cache: a busy drive is late with good reads, too. */
static void test_stuck_reads(void **state)
{
    (void)state;
    struct bad_disk disk = { .is_stuck = true, .first = 50 };
    struct aio_fault fault = { &disk, deliver };
    struct err e = { 0 };
    float *want = logits_of(0);
    options.io.path = AIO_POOL_BUFFERED;
    options.io.fault = &fault;
    options.warn_s = 0.1;
    options.fail_s = 1;
    struct expert_store *store = store_with(20);
    assert_int_equal(evaluate_all(&e), ERR_IO);
    assert_non_null(strstr(e.text, "did not come back"));
    disk.is_stuck = false;
    check_logits(want, 16);
    store_end(store);
    options.warn_s = options.fail_s = 0;
    options.io.fault = NULL;
    options.io.path = AIO_AUTO;
    free(want);
}

static struct expert_tally decode_of(const struct expert_store *store)
{
    struct expert_shelf_stats s;
    expert_shelf_stats(expert_store_shelf(store, 0), &s);
    return s.decode;
}

/* A slow drive explains what is waited for, at most all that was missing, and nothing where
 * everything is in memory. The clock shows nothing but the drive's time, so load changes little. */
static void test_waits_are_explained(void **state)
{
    (void)state;
    struct bad_disk disk = { .is_slow = true };
    struct aio_fault fault = { &disk, deliver };
    float *want = logits_of(0);
    options.io.path = AIO_POOL_BUFFERED;
    options.io.fault = &fault;
    reads_took_s = 0;
    struct expert_store *store = store_with(50);
    check_logits(want, 1);
    struct expert_tally t = decode_of(store);
    const struct expert_reads_stats *r = expert_reads_stats(reads_of(store));
    double missing = (double)(t.lookups - t.hits) * (double)expert_map_bytes(options.map, 0);
    double all_s = missing * r->busy_s / (double)r->bytes_read;
    print_message("%.2f s: waited %.2f, explained %.2f\n", all_s, t.wait_s, t.model_wait_s);
    assert_true(t.model_wait_s > 0.2 * t.wait_s && t.model_wait_s < 1.05 * all_s);
    store_end(store);
    store = store_with(100);
    check_logits(want, 1);
    double before = decode_of(store).model_wait_s;
    check_logits(want, 1);
    assert_true(before > 0 && decode_of(store).model_wait_s == before);
    store_end(store);
    reads_took_s = -1;
    options.io.fault = NULL;
    options.io.path = AIO_AUTO;
    free(want);
}

static struct session *waiting;

static void on_alarm(int number)
{
    (void)number;
    atomic_store(&waiting->cancelled, 1);
}

/* While it waits for a read that will take long. */
static void test_cancel_while_waiting(void **state)
{
    (void)state;
    struct bad_disk disk = { .is_stuck = true, .first = 20 };
    struct aio_fault fault = { &disk, deliver };
    struct session s;
    struct err e = { 0 };
    options.io.fault = &fault;
    struct expert_store *store = store_with(20);
    must(session_open(&s, &engine, &e), &e);
    must(session_set(&s, text, 64, &e), &e);
    signal(SIGALRM, on_alarm);
    waiting = &s;
    setitimer(ITIMER_REAL, &(struct itimerval){ .it_value = { 0, 100000 } }, NULL);
    double begin = clock_now_s();
    assert_int_equal(session_step(&s, &e), ERR_CANCELLED);
    double took = clock_now_s() - begin;
    print_message("cancelled after %.0f ms\n", took * 1e3);
    assert_true(took > 0.09 && took < 0.3 + 2);
    atomic_store(&s.cancelled, 0);
    assert_int_equal(s.kv.n_tok, 0);
    disk.is_stuck = false;
    e = (struct err){ 0 };
    must(session_step(&s, &e), &e);
    session_close(&s);
    store_end(store);
    options.io.fault = NULL;
}

/* ---- the engine's own ---------------------------------------------------------------------- */

/* memory 1: the least that it works with. */
static void open_with(struct engine *en, size_t memory, const char *io, const char *popular)
{
    struct dstar_options o;
    struct err e = { 0 };
    dstar_options_init(&o);
    o.model = MODEL;
    o.ctx = memory == 1 ? 0 : 1024;
    o.max_rows = 64;
    o.memory_bytes = memory;
    o.ssd_io = io;
    o.popular = popular;
    must(engine_open(en, &o, &e), &e);
}

static void read_text(struct engine *en, float *logits)
{
    struct session s;
    struct err e = { 0 };
    must(session_open(&s, en, &e), &e);
    must(session_set(&s, text, N_TOK, &e), &e);
    while (s.kv.n_tok < s.n_all)
        must(session_step(&s, &e) < 0 ? -1 : 0, &e);
    memcpy(logits, s.logits, row_floats() * sizeof *logits);
    session_close(&s);
}

/* What the whole process has in memory, model and all, is at most what it may have. */
static void test_memory_is_obeyed(void **state)
{
    (void)state;
    size_t experts = 0;
    int n_stream = 0;
    if (cpu_rss().now == 0 || IS_SANITIZED)
        skip();
    float *want = malloc(row_floats() * sizeof *want), *got = malloc(row_floats() * sizeof *got);
    read_text(&engine, want);
    struct cpu_rss before = cpu_rss();
    for (size_t more = 30; more <= 45; more += 3) {
        struct engine en;
        size_t limit = before.anonymous + (more << 20); /* files that are mapped already aside */
        open_with(&en, limit, NULL, NULL);
        assert_true(en.budget.experts > experts || !en.store);
        n_stream += en.store != NULL;
        experts = en.budget.experts;
        read_text(&en, got);
        assert_memory_equal(got, want, row_floats() * sizeof *got);
        size_t now = cpu_rss().now - (before.now - before.anonymous);
        print_message("may have %.1f MB, has %.1f\n", (double)limit / 1e6, (double)now / 1e6);
        assert_true(now <= limit + limit / 100);
        engine_close(&en);
    }
    assert_true(n_stream > 1);
    free(want);
    free(got);
}

static int count_ready(const struct expert_slots *s)
{
    int n = 0;
    for (int i = 0; i < s->n_slot; i++)
        n += s->slot[i].state == EXPERT_READY;
    return n;
}

static void count_refusals(void *user, int level, const char *line)
{
    *(int *)user += level == DSTAR_LOG_WARN && strstr(line, "line 1: found \"nonsense\"") &&
                    strstr(line, "it is not used");
}

static void test_popular_experts(void **state)
{
    (void)state;
    char path[64];
    struct engine en;
    float *want = malloc(row_floats() * sizeof *want), *got = malloc(row_floats() * sizeof *got);
    size_t memory = 1; /* the least is taken */
    snprintf(path, sizeof path, "/tmp/test_stream.%ld.popular", (long)getpid());
    open_with(&en, memory, "pool-buffered", path);
    assert_non_null(en.store);
    assert_int_equal(count_ready(slots_of(en.store)), 0);
    read_text(&en, want);
    engine_close(&en);
    assert_true(file_exists(path));
    open_with(&en, memory, NULL, path);
    const struct expert_slots *slots = slots_of(en.store);
    assert_true(count_ready(slots) > slots->n_slot / 2);
    read_text(&en, got);
    assert_memory_equal(got, want, row_floats() * sizeof *got);
    assert_true(slots->counts.hits > 0);
    engine_close(&en);
    /* Damaged: said, and nothing else happens. */
    struct file_out f;
    int n_warning = 0;
    assert_int_equal(file_out_open(&f, path, NULL), 0);
    assert_int_equal(file_out_write(&f, "nonsense\n", 9, NULL), 0);
    assert_int_equal(file_out_commit(&f, NULL), 0);
    struct dstar_options o;
    dstar_options_init(&o);
    o.model = MODEL;
    o.memory_bytes = memory;
    o.popular = path;
    o.log = count_refusals;
    o.log_user = &n_warning;
    assert_int_equal(engine_open(&en, &o, NULL), 0);
    assert_int_equal(n_warning, 1);
    engine_close(&en);
    unlink(path);
    free(want);
    free(got);
}

/* ---- a conversation that goes on ----------------------------------------------------------- */

/* A file's session data, which the caller releases. */
static void data_of(const char *path, struct buf *extra)
{
    struct session s;
    struct kv_disk d;
    struct err e = { 0 };
    buf_init(extra, (size_t)1 << 24);
    must(session_open(&s, &engine, &e), &e);
    must(kv_disk_open(&d, path, &s.kv, &engine.identity, extra, &e), &e);
    kv_disk_close(&d);
    session_close(&s);
}

/* Load it with a store of its own, write some tokens; hits, and the logits at the end. */
static uint64_t go_on(const char *path, float *logits, int n)
{
    struct session s;
    struct err e = { 0 };
    struct expert_store *store = store_with(60);
    engine.store = store;
    must(session_open(&s, &engine, &e), &e);
    must(session_load(&s, path, &e), &e);
    for (int i = 0; i < n; i++) {
        int32_t id;
        must(session_next(&s, &id, &e), &e);
    }
    must(session_step(&s, &e), &e);
    memcpy(logits, s.logits, row_floats() * sizeof *logits);
    session_close(&s);
    uint64_t hits = slots_of(store)->counts.hits;
    engine.store = NULL;
    store_end(store);
    return hits;
}

static void write_sessions(const char *with, const char *without)
{
    struct session s;
    struct err e = { 0 };
    struct expert_store *store = store_with(60);
    engine.store = store;
    must(session_open(&s, &engine, &e), &e);
    must(session_set(&s, text, 60, &e), &e);
    for (int i = 0; i < 20; i++) {
        int32_t id;
        must(session_next(&s, &id, &e), &e);
    }
    must(session_save(&s, with, &e), &e);
    engine.store = NULL; /* as if everything were mapped */
    must(session_save(&s, without, &e), &e);
    session_close(&s);
    store_end(store);
}

/* The experts that it used are there before its first token is computed; its text is the same. */
static void test_session_brings_its_experts(void **state)
{
    (void)state;
    char with[64], without[64];
    float *cold = malloc(row_floats() * sizeof *cold), *warm = malloc(row_floats() * sizeof *warm);
    snprintf(with, sizeof with, "/tmp/test_stream.%ld.with", (long)getpid());
    snprintf(without, sizeof without, "/tmp/test_stream.%ld.without", (long)getpid());
    write_sessions(with, without);
    uint64_t n_cold = go_on(without, cold, 1), n_warm = go_on(with, warm, 1);
    print_message("first two tokens: %d hits cold, %d warm\n", (int)n_cold, (int)n_warm);
    assert_true(n_warm > 2 * n_cold);
    assert_memory_equal(cold, warm, row_floats() * sizeof *cold);
    unlink(with);
    unlink(without);
    free(cold);
    free(warm);
}

static int load_changed(const char *path, const struct buf *extra, struct err *e)
{
    struct session s;
    char other[80];
    snprintf(other, sizeof other, "%s.changed", path);
    must(session_open(&s, &engine, e), e);
    must(session_load(&s, path, e), e);
    must(kv_disk_save(&s.kv, other, &engine.identity, extra->data, extra->len, e), e);
    int code = session_load(&s, other, e);
    session_close(&s);
    unlink(other);
    return code;
}

/* Files of the version before load; one whose experts cannot be is refused. */
static void test_session_experts_are_checked(void **state)
{
    (void)state;
    static const struct {
        int at; /* from the first expert on */
        uint8_t value;
        const char *says;
    } bad[] = {
        { 0, 200, "used expert 0: found layer 200" },
        { 3, 2, "used expert 0: found layer 0, expert 5" },
        { 8, 0, "used expert 1: found layer 0, expert 0" }, /* the same again */
        { -1, 9, "used experts, expected at most 182" },
    };
    char with[64], without[64];
    struct buf extra, old;
    struct err e = { 0 };
    uint32_t n_used;
    snprintf(with, sizeof with, "/tmp/test_stream.%ld.with", (long)getpid());
    snprintf(without, sizeof without, "/tmp/test_stream.%ld.without", (long)getpid());
    write_sessions(with, without);
    data_of(with, &extra);
    memcpy(&n_used, extra.data + 40, sizeof n_used);
    assert_true(n_used > 50);
    size_t first = extra.len - 8 * (size_t)n_used; /* there is no note */
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct err why = { 0 };
        char *at = bad[i].at < 0 ? extra.data + 41 : extra.data + first + bad[i].at;
        char kept[8];
        memcpy(kept, at, sizeof kept);
        if (bad[i].at == 8)
            memcpy(at, at - 8, 4);
        else
            *at = (char)bad[i].value;
        assert_int_equal(load_changed(with, &extra, &why), ERR_FORMAT);
        if (!strstr(why.text, bad[i].says))
            fail_msg("%s", why.text);
        memcpy(at, kept, sizeof kept);
    }
    assert_int_equal(load_changed(with, &extra, &e), 0);
    buf_release(&extra);
    data_of(without, &extra);
    buf_init(&old, extra.len);
    buf_add(&old, extra.data, 40);
    buf_add(&old, extra.data + 48, extra.len - 48);
    old.data[0] = 1;
    must(load_changed(with, &old, &e), &e);
    old.data[0] = 3;
    assert_int_equal(load_changed(with, &old, &e), ERR_UNSUPPORTED);
    buf_release(&old);
    buf_release(&extra);
    unlink(with);
    unlink(without);
}

static void last_logits(const char *model, size_t memory, int max_rows, struct buf *out,
                        int *n_shelf)
{
    struct engine en;
    struct session s;
    struct dstar_options o;
    struct err e = { 0 };
    dstar_options_init(&o);
    o.model = model;
    o.max_rows = max_rows;
    o.memory_bytes = memory;
    must(engine_open(&en, &o, &e), &e);
    must(session_open(&s, &en, &e), &e);
    must(session_set(&s, text, 40, &e), &e);
    while (s.kv.n_tok < s.n_all)
        must(session_step(&s, &e) < 0 ? -1 : 0, &e);
    buf_init(out, 1 << 24);
    buf_add(out, s.logits, (size_t)en.rules.n_vocab * sizeof *s.logits);
    *n_shelf = en.store ? expert_store_n_shelf(en.store) : 0;
    for (int i = 0; i < *n_shelf; i++)
        assert_true(expert_shelf_slots(expert_store_shelf(en.store, i))->counts.hits > 0);
    session_close(&s);
    engine_close(&en);
}

/* Layers of three types and as many sizes. */
static void test_mixed_sizes(void **state)
{
    (void)state;
    static const char rules[] = "blk.*_exps.weight Q4_K layers=3-4\n"
                                "blk.*_exps.weight Q2_K layers=1-1\n"
                                "blk.*_exps.weight MXFP4\n"
                                "*                 keep\n";
    char recipe[64];
    struct file_out f;
    struct file_memory m;
    struct err e = { 0 };
    struct buf want, got;
    int n_shelf;
    snprintf(recipe, sizeof recipe, "/tmp/test_stream.%ld.recipe", (long)getpid());
    must(file_out_open(&f, recipe, &e), &e);
    must(file_out_write(&f, rules, sizeof rules - 1, &e), &e);
    must(file_out_commit(&f, &e), &e);
    struct synth_options o = { .shape = "small", .recipe = recipe, .tokenizer = MODEL,
                               .n_layer = 6, .n_expert = 32, .n_thread = 2, .seed = 3 };
    must(synth_memory(&o, &m, &e), &e);
    last_logits(m.path, 0, 16, &want, &n_shelf);
    assert_int_equal(n_shelf, 0);
    for (int max_rows = 1; max_rows <= 16; max_rows *= 16) {
        last_logits(m.path, 1, max_rows, &got, &n_shelf);
        assert_int_equal(n_shelf, 3);
        assert_int_equal(got.len, want.len);
        assert_memory_equal(got.data, want.data, want.len);
        buf_release(&got);
    }
    buf_release(&want);
    file_memory_close(&m);
    unlink(recipe);
}

static void test_way_to_read_is_checked(void **state)
{
    (void)state;
    struct dstar_options o;
    struct engine en;
    struct err e = { 0 };
    dstar_options_init(&o);
    o.model = MODEL;
    o.ssd_io = "telepathy";
    assert_int_equal(engine_open(&en, &o, &e), ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "telepathy"));
    engine_close(&en);
}

int main(void)
{
    const struct CMUnitTest with_draft[] = {
        cmocka_unit_test(test_same_bits_at_any_size),
        cmocka_unit_test(test_same_bits_on_any_path),
        cmocka_unit_test(test_failed_reads_fail_the_request),
        cmocka_unit_test(test_short_reads_change_nothing),
        cmocka_unit_test(test_stuck_reads),
        cmocka_unit_test(test_waits_are_explained),
        cmocka_unit_test(test_cancel_while_waiting),
    };
    const struct CMUnitTest plain[] = {
        cmocka_unit_test(test_simulation_agrees),
        cmocka_unit_test(test_memory_is_obeyed),
        cmocka_unit_test(test_popular_experts),
        cmocka_unit_test(test_session_brings_its_experts),
        cmocka_unit_test(test_session_experts_are_checked),
        cmocka_unit_test(test_mixed_sizes),
        cmocka_unit_test(test_way_to_read_is_checked),
    };
    int bad = cmocka_run_group_tests(with_draft, open_all, close_all);
    return bad + cmocka_run_group_tests(plain, open_plain, close_all);
}
