/* test_expert_reads.c - experts arrive whole, whatever the disk does on the way. */
#include "scratch_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>

#include "clock.h"
#include "expert_probe.h"
#include "pages.h"
#include "read_faults.h"

#define N_LAYER 2
#define N_EXPERT 8
#define N_KEY (N_LAYER * N_EXPERT)
#define N_PLACE 20
#define FILE_BYTES ((size_t)1700000)

static struct scratch dir;
static uint8_t content[FILE_BYTES];

/* A model of three tensors a layer as in a GGUF, or of six tensors an expert as in a checkpoint;
 * a reader of it with some faults; memory for places, with guards between them. */
struct bench {
    struct expert_map map;
    struct expert_reads *r;
    struct read_faults faults;
    uint8_t *mem;
    size_t mem_bytes, pitch;
    struct expert_load load[N_PLACE];
    struct expert_arrival last[N_PLACE]; /* the last report of each place */
    char why[N_PLACE][1024];
    int n_report;
    char path[512];
};

static void stacked_map(struct expert_map *m)
{
    static const uint64_t bytes[] = { 9 * 4096, 9 * 4096, 13 * 4096 };
    static const enum expert_part part[] = { EXPERT_GATE, EXPERT_UP, EXPERT_DOWN };
    uint64_t at = 4096 * 3 + 32;
    for (int l = 0; l < N_LAYER; l++) {
        for (int p = 0; p < 3; p++) {
            struct expert_extent x = { at, bytes[p] / (l + 1), 0 };
            expert_map_stack(m, l, part[p], &x);
            at += x.bytes * N_EXPERT + 96;
        }
    }
    assert_true(at <= FILE_BYTES);
}

/* Odd sizes and places; the last expert ends with the file. */
static void scattered_map(struct expert_map *m)
{
    uint64_t at = 0;
    for (int key = 0; key < N_KEY; key++) {
        for (int p = 0; p < EXPERT_N_PART; p++) {
            uint64_t bytes = p == EXPERT_GATE_SCALE || p == EXPERT_UP_SCALE ? 777 : 20003;
            struct expert_extent x = { at, bytes, 0 };
            expert_map_set(m, key, (enum expert_part)p, &x);
            at += bytes + 1;
        }
    }
    struct expert_extent last = { FILE_BYTES - 20003, 20003, 0 };
    expert_map_set(m, N_KEY - 1, EXPERT_DOWN_SCALE, &last);
    assert_true(at <= FILE_BYTES);
}

/* warn_s is also how often a wait looks again: what a fault withholds comes soon. A busy drive's
 * good reads can take long, so where no read hangs fail_s is the default. */
static void bench_open(struct bench *b, enum aio_path path, int run, bool stacked, double fail_s)
{
    const char *file = scratch_file(&dir, "model");
    snprintf(b->path, sizeof b->path, "%s", file);
    struct err e = { 0 };
    assert_int_equal(expert_map_open(&b->map, N_LAYER, N_EXPERT, &e), 0);
    (stacked ? stacked_map : scattered_map)(&b->map);
    const char *files[] = { b->path };
    struct expert_reads_ask ask = { .map = &b->map, .run = run, .most_places = N_PLACE,
                                    .piece_bytes = 16384, .warn_s = 0.04, .fail_s = fail_s };
    ask.io = (struct aio_ask){ .path = path, .depth = 16, .file = files, .n_file = 1,
                               .fault = &b->faults.fault };
    if (expert_reads_open(&b->r, &ask, &e) < 0)
        fail_msg("%s", e.text);
    b->pitch = expert_reads_place_bytes(b->r) + 4096;
    b->mem_bytes = b->pitch * N_PLACE + 4096;
    assert_int_equal(pages_map((void **)&b->mem, b->mem_bytes, &e), 0);
    memset(b->mem, 0x77, b->mem_bytes);
}

static struct bench *new_bench_failing(enum aio_path path, int run, bool stacked, double fail_s)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    faults_init(&b->faults);
    bench_open(b, path, run, stacked, fail_s);
    return b;
}

static struct bench *new_bench(enum aio_path path, int run, bool stacked)
{
    return new_bench_failing(path, run, stacked, 0);
}

static void free_bench(struct bench *b)
{
    assert_int_equal(expert_reads_close(b->r), 0);
    for (int i = 0; i <= N_PLACE; i++) /* nothing was written beside the places */
        for (size_t k = 0; k < 4096; k++)
            assert_int_equal(b->mem[(size_t)i * b->pitch + k], 0x77);
    pages_unmap(b->mem, b->mem_bytes);
    expert_map_close(&b->map);
    free(b);
}

static struct expert_load *set_load(struct bench *b, int id, int key, int n, enum expert_urgency u)
{
    b->load[id] = (struct expert_load){ id, key, n, (uint32_t)(1000 + key), u,
                                        b->mem + 4096 + (size_t)id * b->pitch };
    memset(&b->last[id], 0, sizeof b->last[id]);
    return &b->load[id];
}

static void start(struct bench *b, int id, int key, int n, enum expert_urgency u)
{
    expert_reads_start(b->r, set_load(b, id, key, n, u), 1);
}

static bool content_is_right(const struct bench *b, int id)
{
    const struct expert_load *l = &b->load[id];
    bool right = true;
    for (int i = 0; i < l->n; i++) {
        for (int p = 0; p < EXPERT_N_PART; p++) {
            const struct expert_extent *x = expert_map_at(&b->map, l->key + i,
                                                          (enum expert_part)p);
            const void *at = expert_reads_part(b->r, l, i, (enum expert_part)p);
            assert_true((at == NULL) == (x->bytes == 0));
            right = right && (!at || memcmp(at, content + x->offset, x->bytes) == 0);
        }
    }
    return right;
}

static void poll_once(struct bench *b, double wait_s)
{
    struct expert_arrival a[3];
    int n = expert_reads_poll(b->r, a, 3, wait_s);
    for (int i = 0; i < n; i++) {
        const struct expert_load *l = &b->load[a[i].id];
        assert_int_equal(a[i].key, l->key);
        assert_int_equal(a[i].generation, l->generation);
        assert_false(b->last[l->id].quiet); /* nothing comes after the last report */
        assert_int_equal(a[i].parts & b->last[l->id].parts, b->last[l->id].parts);
        b->last[l->id] = a[i];
        snprintf(b->why[l->id], sizeof b->why[0], "%s", a[i].why);
        b->n_report++;
    }
}

static void finish(struct bench *b)
{
    double until = clock_now_s() + 20;
    while (expert_reads_busy(b->r) > 0 && clock_now_s() < until)
        poll_once(b, 1.0);
    assert_int_equal(expert_reads_busy(b->r), 0);
}

static void assert_loaded(struct bench *b, int id)
{
    const struct expert_arrival *a = &b->last[id];
    if (a->code)
        fail_msg("%s", b->why[id]);
    assert_true(a->quiet);
    assert_int_equal(a->parts, EXPERT_ALL_PARTS);
    assert_true(content_is_right(b, id));
}

static void test_all_paths(void **state)
{
    (void)state;
    static const enum aio_path paths[] = { AIO_AUTO, AIO_POOL_BUFFERED };
    for (int k = 0; k < 8; k++) {
        int run = k & 1 ? 4 : 1;
        struct bench *b = new_bench(paths[k >> 2], run, k & 2);
        for (int i = 0; i * run < N_KEY; i++)
            set_load(b, i, i * run, run, i % 3 ? EXPERT_DEMAND : EXPERT_AHEAD);
        expert_reads_start(b->r, b->load, N_KEY / run);
        finish(b);
        for (int i = 0; i * run < N_KEY; i++)
            assert_loaded(b, i);
        const struct expert_reads_stats *s = expert_reads_stats(b->r);
        uint64_t wanted = 0;
        for (int key = 0; key < N_KEY; key++)
            wanted += expert_map_bytes(&b->map, key);
        assert_int_equal(s->bytes_wanted, wanted);
        assert_true(s->bytes_read >= wanted && s->n_load == N_KEY);
        free_bench(b);
    }
}

/* In a run of neighbours no page is read twice. */
static void test_runs_are_merged(void **state)
{
    (void)state;
    struct bench *one = new_bench(AIO_POOL_BUFFERED, 1, true);
    struct bench *four = new_bench(AIO_POOL_BUFFERED, 4, true);
    for (int i = 0; i < 4; i++)
        start(one, i, i, 1, EXPERT_DEMAND);
    start(four, 0, 0, 4, EXPERT_DEMAND);
    finish(one);
    finish(four);
    assert_loaded(four, 0);
    assert_true(expert_reads_stats(four->r)->n_read < expert_reads_stats(one->r)->n_read);
    const uint8_t *a = expert_reads_part(four->r, &four->load[0], 0, EXPERT_UP);
    const uint8_t *b = expert_reads_part(four->r, &four->load[0], 3, EXPERT_UP);
    assert_int_equal(b - a, 3 * 9 * 4096);
    free_bench(one);
    free_bench(four);
}

/* One read at a time shows the order: all gates and ups, then downs, then what is only ahead. */
static void test_order(void **state)
{
    (void)state;
    struct bench *b = new_bench(AIO_POOL_BUFFERED, 1, true);
    expert_reads_limit(b->r, 1, 1);
    start(b, 0, 7, 1, EXPERT_AHEAD); /* its first piece is under way already */
    start(b, 1, 6, 1, EXPERT_AHEAD);
    set_load(b, 2, 1, 1, EXPERT_DEMAND);
    set_load(b, 3, 2, 1, EXPERT_DEMAND);
    expert_reads_start(b->r, b->load + 2, 2);
    expert_reads_urge(b->r, 1);
    finish(b);
    static const struct { int key; enum expert_part part; } order[] = {
        { 7, EXPERT_GATE }, { 1, EXPERT_GATE }, { 1, EXPERT_UP }, { 2, EXPERT_GATE },
        { 2, EXPERT_UP }, { 6, EXPERT_GATE }, { 6, EXPERT_UP }, { 1, EXPERT_DOWN },
        { 2, EXPERT_DOWN }, { 6, EXPERT_DOWN }, { 7, EXPERT_GATE }, { 7, EXPERT_UP },
        { 7, EXPERT_DOWN },
    };
    size_t k = 0;
    for (int i = 0; i < b->faults.n; i++) {
        const struct expert_extent *x = expert_map_at(&b->map, order[k].key, order[k].part);
        if (b->faults.seen[i] < x->offset || b->faults.seen[i] >= x->offset + x->bytes) {
            assert_true(++k < COUNT_OF(order));
            x = expert_map_at(&b->map, order[k].key, order[k].part);
        }
        assert_true(b->faults.seen[i] >= x->offset && b->faults.seen[i] < x->offset + x->bytes);
    }
    assert_int_equal(k, COUNT_OF(order) - 1);
    free_bench(b);
}

static double mean_depth(struct bench *b, enum expert_urgency urgency)
{
    struct expert_reads_stats before = *expert_reads_stats(b->r);
    start(b, 0, 3, 1, urgency);
    finish(b);
    const struct expert_reads_stats *s = expert_reads_stats(b->r);
    return (s->depth_s - before.depth_s) / (s->busy_s - before.busy_s);
}

/* What is waited for goes to the drive at once, what is only ahead as the drive likes it. Reads
 * take long here, so that other programs have no say. */
static void test_only_ahead_is_limited(void **state)
{
    (void)state;
    struct bench *b = new_bench(AIO_POOL_BUFFERED, 1, true);
    b->faults.latency_s = 0.05;
    expert_reads_limit(b->r, 16, 1);
    double ahead = mean_depth(b, EXPERT_AHEAD), demand = mean_depth(b, EXPERT_DEMAND);
    assert_true(ahead > 0.99 && ahead < 1.01);
    print_message("%.2f and %.2f in flight\n", ahead, demand);
    assert_true(demand > 1.5);
    free_bench(b);
}

static void test_short_reads(void **state)
{
    (void)state;
    static const size_t cut[] = { 1, 31, 32, 33, 4095, 4096, 4097, 8191, 8192, 12345, 16383 };
    for (size_t k = 0; k < 4 * COUNT_OF(cut); k++) {
        struct bench *b = new_bench(k & 1 ? AIO_AUTO : AIO_POOL_BUFFERED, 1, k & 2);
        b->faults.cut_to = cut[k / 4];
        b->faults.n_cut = 25;
        start(b, 0, 3, 1, EXPERT_DEMAND);
        start(b, 1, N_KEY - 1, 1, EXPERT_DEMAND);
        finish(b);
        assert_loaded(b, 0);
        assert_loaded(b, 1);
        assert_true(expert_reads_stats(b->r)->n_short > 0 || cut[k / 4] > 8192);
        assert_int_equal(expert_reads_stats(b->r)->n_error, 0);
        free_bench(b);
    }
}

static void test_errors_that_pass(void **state)
{
    (void)state;
    static const int sys[] = { EINTR, EAGAIN, EIO, EREMOTEIO };
    for (int k = 0; k < 40; k++) {
        struct bench *b = new_bench(k & 1 ? AIO_AUTO : AIO_POOL_BUFFERED, 1, k & 2);
        b->faults.fail_from = k / 4;
        b->faults.n_fail = 1;
        b->faults.sys = sys[k % 4];
        start(b, 0, 5, 1, EXPERT_DEMAND);
        start(b, 1, 9, 1, EXPERT_DEMAND);
        finish(b);
        assert_loaded(b, 0);
        assert_loaded(b, 1);
        const struct expert_reads_stats *s = expert_reads_stats(b->r);
        assert_int_equal(s->n_again, k % 4 < 2);
        assert_int_equal(s->n_reread, k % 4 >= 2);
        free_bench(b);
    }
}

static void test_errors_of_direct_reads(void **state)
{
    (void)state;
    struct bench *b = new_bench(AIO_AUTO, 1, true);
    bool direct = aio_path_is_direct(expert_reads_io(b->r)->path);
    b->faults.n_fail = 1000;
    b->faults.direct_only = true;
    start(b, 0, 5, 1, EXPERT_DEMAND);
    finish(b);
    if (direct) {
        assert_loaded(b, 0);
        assert_int_equal(expert_reads_stats(b->r)->n_buffered, 1);
    }
    free_bench(b);
}

/* A bad place on the disk costs the experts that lie there, and says so. */
static void test_errors_that_stay(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct bench *b = new_bench(k ? AIO_AUTO : AIO_POOL_BUFFERED, 1, true);
        b->faults.fail_at = expert_map_at(&b->map, 11, EXPERT_UP)->offset + 5000;
        b->faults.fail_bytes = 1;
        for (int i = 0; i < N_KEY; i++)
            set_load(b, i, i, 1, EXPERT_DEMAND);
        expert_reads_start(b->r, b->load, N_KEY);
        finish(b);
        for (int i = 0; i < N_KEY; i++) {
            if (i != 11)
                assert_loaded(b, i);
        }
        assert_int_equal(b->last[11].code, ERR_IO);
        assert_true(b->last[11].quiet);
        if (!strstr(b->why[11], "model: layer 1, expert 3, up, "))
            fail_msg("%s", b->why[11]);
        assert_non_null(strstr(b->why[11], "Input/output error"));
        assert_int_equal(expert_reads_stats(b->r)->n_failed, 1);
        b->faults.fail_bytes = 0; /* and when it can be read again, it is */
        start(b, 11, 11, 1, EXPERT_DEMAND);
        finish(b);
        assert_loaded(b, 11);
        free_bench(b);
    }
}

/* Errors from before it was wanted again do not count: three attempts fail, not two. */
static void test_wanted_again(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct bench *b = new_bench(AIO_POOL_BUFFERED, 1, true);
        uint64_t at = expert_map_at(&b->map, 4, EXPERT_UP)->offset;
        b->faults.fail_at = at;
        b->faults.stuck_at = at + 20002; /* another piece of the same part */
        b->faults.fail_bytes = 1;
        b->faults.stuck = true;
        start(b, 0, 4, 1, EXPERT_AHEAD);
        double until = clock_now_s() + 10;
        while (expert_reads_stats(b->r)->n_error == 0 && clock_now_s() < until)
            poll_once(b, 0.01);
        if (k)
            expert_reads_urge(b->r, 0);
        b->faults.stuck = false;
        finish(b);
        assert_int_equal(b->last[0].code, ERR_IO);
        assert_int_equal(expert_reads_stats(b->r)->n_error, 2 + k);
        free_bench(b);
    }
}

static void test_hung_read(void **state)
{
    (void)state;
    struct bench *b = new_bench_failing(AIO_POOL_BUFFERED, 1, true, 0.5);
    b->faults.stuck = true;
    b->faults.stuck_at = expert_map_at(&b->map, 4, EXPERT_DOWN)->offset;
    start(b, 0, 4, 1, EXPERT_DEMAND);
    start(b, 1, 12, 1, EXPERT_DEMAND);
    double until = clock_now_s() + 10;
    while (!b->last[0].code && clock_now_s() < until)
        poll_once(b, 0.5);
    assert_int_equal(b->last[0].code, ERR_IO);
    assert_false(b->last[0].quiet); /* its memory is not to be used */
    assert_non_null(strstr(b->why[0], "did not come back"));
    assert_loaded(b, 1);
    assert_int_equal(expert_reads_stats(b->r)->n_hung, 1);
    for (int i = 0; i < 20; i++)
        poll_once(b, 0.005);
    assert_int_equal(expert_reads_busy(b->r), 1);
    b->faults.stuck = false;
    finish(b);
    assert_true(b->last[0].quiet);
    free_bench(b);
}

static void test_drop(void **state)
{
    (void)state;
    struct bench *b = new_bench(AIO_POOL_BUFFERED, 1, true);
    expert_reads_limit(b->r, 2, 2);
    start(b, 0, 0, 1, EXPERT_DEMAND);
    start(b, 1, 1, 1, EXPERT_AHEAD);
    expert_reads_drop(b->r, 0);
    expert_reads_drop(b->r, 1);
    expert_reads_drop(b->r, 2); /* not being read */
    finish(b);
    assert_int_equal(b->last[0].code, ERR_CANCELLED);
    assert_int_equal(b->last[1].code, ERR_CANCELLED);
    assert_int_equal(b->faults.n, 2);
    start(b, 0, 2, 1, EXPERT_DEMAND);
    finish(b);
    assert_loaded(b, 0);
    free_bench(b);
}

static void test_fingerprint(void **state)
{
    (void)state;
    struct bench *b = new_bench(AIO_AUTO, 1, false);
    start(b, 0, 6, 1, EXPERT_DEMAND);
    finish(b);
    uint64_t good = expert_reads_hash(b->r, &b->load[0], 0);
    b->faults.flip_at = expert_map_at(&b->map, 6, EXPERT_DOWN_SCALE)->offset + 20002;
    start(b, 0, 6, 1, EXPERT_DEMAND);
    finish(b);
    assert_false(content_is_right(b, 0));
    assert_true(expert_reads_hash(b->r, &b->load[0], 0) != good);
    b->faults.flip_at = 0;
    start(b, 0, 6, 1, EXPERT_DEMAND);
    finish(b);
    assert_loaded(b, 0);
    assert_true(expert_reads_hash(b->r, &b->load[0], 0) == good);
    free_bench(b);
}

/* A drive that answers one read after another needs one at a time; one on which each takes its time
 * however many there are needs as many as are allowed. */
static void test_probe(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct bench *b = new_bench(AIO_POOL_BUFFERED, 1, true);
        struct expert_probe probe;
        struct err e = { 0 };
        b->faults.pace_s = k ? 0 : 0.002;
        b->faults.latency_s = k ? 0.02 : 0;
        size_t place = expert_reads_place_bytes(b->r);
        uint8_t *mem = malloc(place * 9);
        assert_non_null(mem);
        uint8_t *aligned = mem + (4096 - (uintptr_t)mem % 4096) % 4096;
        bool found = false;
        for (int i = 0; i < 4 && !found; i++) { /* on a busy machine times are not what they were */
            double begin = clock_now_s();
            assert_int_equal(expert_probe(&probe, b->r, aligned, 8, 0.8, &e), 0);
            assert_true(clock_now_s() - begin < 5);
            assert_int_equal(expert_reads_busy(b->r), 0);
            found = k ? probe.depth == 16 : probe.depth <= 4;
        }
        assert_true(found);
        assert_true(probe.bytes_per_s > 0 && probe.rate[4] > 0 && probe.rate[5] == 0);
        b->faults.fail_bytes = FILE_BYTES;
        b->faults.pace_s = b->faults.latency_s = 0;
        assert_int_equal(expert_probe(&probe, b->r, aligned, 8, 0.1, &e), ERR_IO);
        assert_int_equal(expert_reads_busy(b->r), 0);
        free(mem);
        free_bench(b);
    }
}

static void test_truncated_file(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct bench *b = new_bench(k ? AIO_AUTO : AIO_POOL_BUFFERED, 1, false);
        struct err e = { 0 };
        assert_int_equal(expert_reads_check(b->r, &e), 0);
        assert_int_equal(truncate(b->path, FILE_BYTES - 30000), 0);
        assert_int_equal(expert_reads_check(b->r, &e), ERR_IO);
        assert_non_null(strstr(e.text, "has 1670000 bytes now, had 1700000"));
        start(b, 0, 0, 1, EXPERT_DEMAND);
        start(b, 1, N_KEY - 1, 1, EXPERT_DEMAND);
        finish(b);
        assert_loaded(b, 0);
        assert_int_equal(b->last[1].code, ERR_IO);
        assert_non_null(strstr(b->why[1], "layer 1, expert 7: "));
        assert_non_null(strstr(b->why[1], "1670000 bytes now"));
        free_bench(b);
        scratch_put(&dir, "model", content, FILE_BYTES);
    }
}

static void must_be_unchanged(struct bench *b)
{
    struct err e = { 0 };
    if (expert_reads_check(b->r, &e) < 0)
        fail_msg("%s", e.text);
}

static void test_changed_file(void **state)
{
    (void)state;
    struct bench *b = new_bench(AIO_POOL_BUFFERED, 1, true);
    struct err e = { 0 };
    scratch_put(&dir, "other", content, 100);
    char other[512];
    snprintf(other, sizeof other, "%s", scratch_file(&dir, "other"));
    assert_int_equal(rename(other, b->path), 0); /* the open file is still the old one */
    must_be_unchanged(b);
    start(b, 0, 0, 1, EXPERT_DEMAND);
    finish(b);
    assert_loaded(b, 0);
    free_bench(b);
    scratch_put(&dir, "model", content, FILE_BYTES);

    b = new_bench(AIO_POOL_BUFFERED, 1, true);
    usleep(20000); /* file times tick slowly */
    FILE *f = fopen(b->path, "r+b");
    assert_non_null(f);
    assert_int_equal(fwrite(content, 1, 1, f), 1);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(expert_reads_check(b->r, &e), ERR_IO);
    assert_non_null(strstr(e.text, "was changed while it is in use"));
    free_bench(b);
}

static void test_extent_beyond_file(void **state)
{
    (void)state;
    struct expert_map map;
    struct err e = { 0 };
    assert_int_equal(expert_map_open(&map, N_LAYER, N_EXPERT, &e), 0);
    const char *files[] = { scratch_file(&dir, "model") };
    struct expert_reads_ask ask = { .map = &map, .most_places = 1,
                                    .io = { .file = files, .n_file = 1 } };
    static const struct expert_extent bad[] = {
        { FILE_BYTES - 99, 100, 0 }, { UINT64_MAX - 5, 10, 0 }, { 0, UINT64_MAX, 0 },
    };
    struct expert_reads *r;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        expert_map_set(&map, 13, EXPERT_DOWN, &bad[i]);
        e.code = 0;
        assert_int_equal(expert_reads_open(&r, &ask, &e), ERR_FORMAT);
        assert_non_null(strstr(e.text, "model: layer 1, expert 5, down: "));
    }
    struct expert_extent good = { FILE_BYTES - 100, 100, 0 };
    expert_map_set(&map, 13, EXPERT_DOWN, &good);
    assert_int_equal(expert_reads_open(&r, &ask, &e), 0);
    assert_int_equal(expert_reads_close(r), 0);
    expert_map_close(&map);
}

/* Random loads, drops and faults: each load ends once, and is right or says that it is not. */
static void test_random(void **state)
{
    (void)state;
    for (int seed = 0; seed < 8; seed++) {
        struct rng rng = { (uint64_t)seed, 0 }, order = { (uint64_t)seed + 100, 0 };
        struct bench *b = new_bench(seed & 1 ? AIO_AUTO : AIO_POOL_BUFFERED, 3, seed & 2);
        b->faults.shuffle = &order;
        bool busy[N_PLACE] = { false };
        for (int step = 0; step < 400; step++) {
            int id = (int)(rng_next(&rng) % N_PLACE), key = (int)(rng_next(&rng) % N_KEY);
            if (rng_next(&rng) % 16 == 0) {
                b->faults.fail_from = b->faults.n + (int)(rng_next(&rng) % 8);
                b->faults.n_fail = (int)(rng_next(&rng) % 12);
                b->faults.cut_to = rng_next(&rng) % 16000 + 1;
                b->faults.n_cut = 3;
            }
            expert_reads_limit(b->r, (int)(rng_next(&rng) % 16) + 1, (int)(rng_next(&rng) % 4) + 1);
            if (!busy[id]) {
                int n = 1 + (int)(rng_next(&rng) % 3);
                n = MIN(n, N_EXPERT - key % N_EXPERT);
                start(b, id, key, n, rng_next(&rng) % 2 ? EXPERT_DEMAND : EXPERT_AHEAD);
                busy[id] = true;
            } else if (rng_next(&rng) % 4 == 0) {
                expert_reads_drop(b->r, id);
            } else {
                expert_reads_urge(b->r, id);
            }
            poll_once(b, rng_next(&rng) % 2 ? 0 : 0.001);
            for (int i = 0; i < N_PLACE; i++) {
                if (busy[i] && b->last[i].quiet) {
                    assert_true(b->last[i].code || content_is_right(b, i));
                    busy[i] = false;
                }
            }
        }
        finish(b);
        const struct expert_reads_stats *s = expert_reads_stats(b->r);
        assert_true(s->n_dropped > 0 && s->n_error > 0 && s->n_short > 0);
        free_bench(b);
    }
}

static int set_up(void **state)
{
    (void)state;
    struct rng rng = { 7, 0 };
    for (size_t i = 0; i < FILE_BYTES; i++)
        content[i] = (uint8_t)rng_next(&rng);
    scratch_open(&dir);
    scratch_put(&dir, "model", content, FILE_BYTES);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_close(&dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_paths),
        cmocka_unit_test(test_runs_are_merged),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_only_ahead_is_limited),
        cmocka_unit_test(test_short_reads),
        cmocka_unit_test(test_errors_that_pass),
        cmocka_unit_test(test_errors_of_direct_reads),
        cmocka_unit_test(test_errors_that_stay),
        cmocka_unit_test(test_wanted_again),
        cmocka_unit_test(test_hung_read),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_fingerprint),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_truncated_file),
        cmocka_unit_test(test_changed_file),
        cmocka_unit_test(test_extent_beyond_file),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
