/* time_ops.h - how fast products are, in bytes of weights and operations per second, and how long
 * the other ops of a layer of DeepSeek-V4-Flash's size take.
 *
 * The weights of one type are cycled through 256 MB, so that they come from memory as in a real
 * step. One thread is measured in processor time, which neighbours on the machine disturb least;
 * all threads together in elapsed time. The best of five rounds counts. */
#ifndef TIME_OPS_H
#define TIME_OPS_H

#include <time.h>

#include "clock.h"
#include "ops/cases_cache.h"
#include "thread.h"

#define TIME_BYTES ((size_t)256 << 20)
#define TIME_COLS 4096
#define TIME_ROWS 2048

/* The fastest there is, or what the environment asks for by TIME_AVX2 or TIME_AVX512. */
static enum table best_table(void)
{
    if (table_exists(TABLE_AMX) && !getenv("TIME_AVX512") && !getenv("TIME_AVX2"))
        return TABLE_AMX;
    return table_exists(TABLE_AVX512) && !getenv("TIME_AVX2") ? TABLE_AVX512 : TABLE_AVX2;
}

struct time_job {
    struct dev *d;
    struct tensor w[256], x, out;
    int n_w;
    bool elapsed; /* else processor time */
};

static double now_s(bool elapsed)
{
    return elapsed ? clock_now_s() : (double)clock() / CLOCKS_PER_SEC;
}

/* Seconds per product. */
static double time_product(struct time_job *j)
{
    double best = INFINITY;
    for (int round = 0, i = 0; round < 5; round++) {
        double start = now_s(j->elapsed), spent;
        int n = 0;
        do {
            dev_begin(j->d);
            op_matmul(j->d, &j->out, &j->w[i++ % j->n_w], &j->x);
            n++;
            spent = now_s(j->elapsed) - start;
        } while (spent < 0.15);
        best = fmin(best, spent / n);
    }
    return best;
}

static void time_type(enum dtype type, uint8_t *mem, enum table table, int n_thread)
{
    static const int counts[] = { 1, 2, 4, 8, 32, 128, 512 };
    size_t pitch = dtype_bytes(type, TIME_COLS), bytes = pitch * TIME_ROWS;
    struct time_job j = { .d = table_at(table, n_thread), .elapsed = n_thread > 1 };
    struct tensor w = random_weights(type, TIME_COLS, TIME_ROWS);
    while (j.n_w < 256 && (size_t)(j.n_w + 1) * bytes <= TIME_BYTES) {
        struct tensor *t = &j.w[j.n_w];
        *t = w;
        t->data = mem + (size_t)j.n_w++ * bytes;
        t->pitch = pitch;
        for (int r = 0; r < TIME_ROWS; r++)
            memcpy(tensor_row(t, r), tensor_row(&w, r), pitch);
    }
    printf("%-8s", dtype_name((int)type));
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        j.x = random_tensor(TIME_COLS, counts[i], FILL_RANDOM);
        j.out = random_tensor(TIME_ROWS, counts[i], FILL_ZERO);
        double s = time_product(&j);
        if (i == 0)
            printf(" %6.1f GB/s |", (double)bytes / s / 1e9);
        printf(" %6.1f", 2.0 * TIME_COLS * TIME_ROWS * counts[i] / s / 1e9);
        fflush(stdout);
    }
    printf("\n");
    drop_memory();
}

struct read_job {
    const uint64_t *mem;
    uint64_t sum[64];
};

static void read_part(void *ctx, int task, int worker)
{
    struct read_job *j = ctx;
    const uint64_t *p = j->mem + (size_t)task * (TIME_BYTES / 64 / 8);
    uint64_t sum = 0;
    (void)worker;
    for (size_t i = 0; i < TIME_BYTES / 64 / 8; i += 8) {
        __builtin_prefetch(p + i + 1024);
        sum += p[i] + p[i + 1] + p[i + 2] + p[i + 3];
        sum += p[i + 4] + p[i + 5] + p[i + 6] + p[i + 7];
    }
    j->sum[task] = sum;
}

static void time_memory(const uint8_t *mem, int n_thread)
{
    struct pool *pool;
    struct read_job j = { .mem = (const uint64_t *)mem };
    double best = INFINITY;
    assert_int_equal(pool_new(&pool, n_thread, NULL), 0);
    for (int round = 0; round < 10; round++) {
        double start = now_s(n_thread > 1);
        pool_run(pool, read_part, &j, 64);
        best = fmin(best, now_s(n_thread > 1) - start);
    }
    pool_free(pool);
    printf("reading memory: %.1f GB/s (%d)\n", (double)TIME_BYTES / best / 1e9,
           (int)(j.sum[0] & 1));
}

/* ---- the other ops ------------------------------------------------------------------------- */

#define TIME_EMBD 4096
#define TIME_HEADS 64
#define TIME_SCRATCH ((size_t)256 << 20)

struct layer_job {
    struct dev *d;
    int n;
    struct hc hc;
    struct cache_in p;
    struct tensor streams, gates, x, q, o, index_q, logits, part;
    struct route route;
    struct router router;
    struct expert e[32];
    const float *norm;
};

static void do_hc_mix(struct layer_job *j)
{
    op_hc_mix(j->d, &j->x, &j->gates, &j->streams, &j->hc);
}

static void do_hc_spread(struct layer_job *j)
{
    op_hc_spread(j->d, &j->streams, &j->x, &j->gates, &j->hc);
}

static void do_norm(struct layer_job *j)
{
    op_norm(j->d, &j->x, &j->x, j->norm, 1e-6f);
}

static void do_norm_heads(struct layer_job *j)
{
    op_norm_heads(j->d, &j->q, TIME_HEADS, 1e-6f);
}

static void do_rope(struct layer_job *j)
{
    op_rope(j->d, &j->q, TIME_HEADS, &j->p.rope, false, &j->p.r);
}

static void do_kv_store(struct layer_job *j)
{
    op_kv_store(j->d, &j->p.x, &j->p.r, 0);
}

static void do_compress(struct layer_job *j)
{
    op_compress(j->d, &j->p.s, &j->p.s, &j->p.comp, &j->p.rope, &j->p.r, 0);
}

static void do_index_query(struct layer_job *j)
{
    op_index_query(j->d, &j->index_q, &j->p.ix, &j->p.rope, &j->p.r);
}

static void do_pick(struct layer_job *j)
{
    op_pick(j->d, &j->p.picked, &j->index_q, &j->p.weight, &j->p.ix, &j->p.r, 0);
}

static void do_attend(struct layer_job *j)
{
    op_attend(j->d, &j->o, &j->q, &j->p.picked, &j->p.at, &j->p.r, 0);
}

static void do_route(struct layer_job *j)
{
    op_route(j->d, &j->route, &j->logits, &j->router, &j->p.r);
}

static void do_experts(struct layer_job *j)
{
    struct expert_set some = { .n = 32, .e = j->e };
    op_experts(j->d, &j->part, &some, &j->route, &j->x, 10);
}

static void do_sum_experts(struct layer_job *j)
{
    op_sum_experts(j->d, &j->x, &j->part, &j->route);
}

static void build_layer(struct layer_job *j, int n, int context)
{
    struct cache *c = &j->p.cache;
    j->n = n;
    c->shape = (struct kv_shape){
        true, 512, 64, 128, kv_row_bytes(512, 64), kv_index_row_bytes(128), 128, 127 + n, 8,
        context / 4 * 4 + 4,
    };
    c->layer[0].ratio = c->layer[1].ratio = 4;
    lay_out(c, NULL, 1024, 256);
    lay_out(c, take(c->bytes), 1024, 256);
    fill_cache(c, false);
    struct row *row = take((size_t)n * sizeof *row);
    for (int i = 0; i < n; i++)
        row[i] = (struct row){ .pos = context - n + i };
    j->p.r = (struct rows){ n, row, 1, c->views };
    j->p.rope = random_rope(32);
    j->p.comp = (struct compressor){ random_floats(4096, 0), random_floats(512, 1), 4, 512, 1024,
                                     1e-6f, false };
    j->p.ix = (struct indexer){ TIME_HEADS, 128, 512, .01f };
    j->p.at = (struct attention){ TIME_HEADS, .04f, random_floats(TIME_HEADS, 0), true, NULL };
    j->p.x = random_tensor(512, n, FILL_RANDOM);
    j->p.s = random_tensor(1024, n, FILL_RANDOM);
    j->p.weight = random_tensor(TIME_HEADS, n, FILL_RANDOM);
    j->p.picked = random_picks(&j->p, 512);
}

static void build_rest(struct layer_job *j)
{
    int n = j->n;
    j->hc = random_hc(DT_F16, 4, TIME_EMBD, false);
    j->norm = random_floats(TIME_EMBD, 1);
    j->streams = random_tensor(4 * TIME_EMBD, n, FILL_RANDOM);
    j->gates = random_tensor(24, n, FILL_RANDOM);
    j->x = random_tensor(TIME_EMBD, n, FILL_RANDOM);
    j->q = random_tensor(TIME_HEADS * 512, n, FILL_RANDOM);
    j->o = random_tensor(TIME_HEADS * 512, n, FILL_RANDOM);
    j->index_q = random_tensor(TIME_HEADS * 128, n, FILL_RANDOM);
    j->logits = random_tensor(256, n, FILL_RANDOM);
    j->part = random_tensor(TIME_EMBD, 6 * n, FILL_RANDOM);
    j->route = (struct route){ int_tensor(6, n), random_tensor(6, n, FILL_RANDOM) };
    j->router = (struct router){ random_floats(256, 0), NULL, 0, 32, 6, 1.5f };
    j->logits.cols = 32;
    for (int i = 0; i < 32; i++)
        j->e[i] = (struct expert){ i, random_weights(DT_IQ2_XXS, TIME_EMBD, 2048),
                                   random_weights(DT_IQ2_XXS, TIME_EMBD, 2048),
                                   random_weights(DT_Q2_K, 2048, TIME_EMBD) };
}

static double time_op(struct layer_job *j, void (*op)(struct layer_job *))
{
    double best = INFINITY;
    for (int round = 0; round < 5; round++) {
        double start = now_s(false), spent;
        int n = 0;
        do {
            dev_begin(j->d);
            op(j);
            n++;
            spent = now_s(false) - start;
        } while (spent < 0.05);
        best = fmin(best, spent / n);
    }
    return best;
}

static void time_layer(int n, int context)
{
    static const struct {
        const char *name;
        void (*op)(struct layer_job *);
    } ops[] = {
        { "hc_mix", do_hc_mix }, { "hc_spread", do_hc_spread }, { "norm", do_norm },
        { "norm_heads", do_norm_heads }, { "rope", do_rope }, { "kv_store", do_kv_store },
        { "compress", do_compress }, { "index_query", do_index_query }, { "pick", do_pick },
        { "attend", do_attend }, { "route", do_route }, { "experts", do_experts },
        { "sum_experts", do_sum_experts },
    };
    struct layer_job *j = take(sizeof *j);
    j->d = table_at(best_table(), 1);
    build_layer(j, n, context);
    build_rest(j);
    printf("microseconds of one thread for %d rows at %d tokens, ratio 4\n", n, context);
    for (size_t i = 0; i < COUNT_OF(ops); i++)
        printf("%-12s %9.1f\n", ops[i].name, time_op(j, ops[i].op) * 1e6);
    drop_memory();
}

static void time_products(const char *only, uint8_t *scratch)
{
    char cpu[128];
    uint8_t *mem = aligned_alloc(64, TIME_BYTES);
    assert_non_null(mem);
    memset(mem, 1, TIME_BYTES);
    cpu_name(cpu, sizeof cpu);
    for (int n_thread = 1; n_thread <= MIN(cpu_count(), 3); n_thread += MAX(1, cpu_count() - 1)) {
        struct dev *d = table_at(best_table(), n_thread);
        arena_init(&d->scratch, scratch, TIME_SCRATCH);
        printf("%s; %s; %dx%d; GFLOP/s with 1 2 4 8 32 128 512 rows\n", cpu, dev_describe(d),
               TIME_ROWS, TIME_COLS);
        time_memory(mem, n_thread);
        for (size_t t = 0; t < COUNT_OF(weight_types); t++)
            if (!only || strcmp(only, dtype_name((int)weight_types[t])) == 0)
                time_type(weight_types[t], mem, best_table(), n_thread);
        arena_init(&d->scratch, NULL, 0);
    }
    free(mem);
}

/* only: a type of weights, or "layer"; NULL: all. */
static int time_all(const char *only)
{
    uint8_t *scratch = aligned_alloc(64, TIME_SCRATCH);
    assert_non_null(scratch);
    if (!only || strcmp(only, "layer") != 0)
        time_products(only, scratch);
    if (!only || strcmp(only, "layer") == 0) {
        arena_init(&table_at(best_table(), 1)->scratch, scratch, TIME_SCRATCH);
        time_layer(1, 32768);
        time_layer(32, 32768);
    }
    free(scratch);
    return 0;
}

#endif
