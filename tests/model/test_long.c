/* test_long.c - positions up to 2^20: a conversation of a million tokens of which only the last
 * few are computed, over a cache of random but legal rows. Steps of any size agree bit for bit,
 * and the fast table agrees with the scalar one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "kv_row.h"
#include "net.h"
#include "rng.h"

enum { END = 1 << 20, N_STEP = 6, N_BLOCK_MEM = 5 };

static void fill(struct rng *r, float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)(rng_unit(r) + rng_unit(r) + rng_unit(r) - 1.5);
}

static void fill_rows(struct rng *r, uint8_t *rows, int n, const struct kv_shape *s, bool index)
{
    float x[1024];
    for (int i = 0; i < n; i++) {
        fill(r, x, index ? s->index_dim : s->head_dim);
        if (index)
            kv_index_row_pack(x, s->index_dim, rows + (size_t)i * s->index_row_bytes);
        else
            kv_row_pack(x, s->head_dim, s->rope_dim, rows + (size_t)i * s->row_bytes);
    }
}

/* A table of blocks that share a few blocks of memory; the last one, which is written, is its own.
 * Rows that repeat also make scores that tie. */
static uint8_t **shared_blocks(struct rng *r, int n, const struct kv_shape *s, int ratio,
                               bool index)
{
    int per = s->block_tok / ratio;
    size_t bytes = (size_t)per * (index ? s->index_row_bytes : s->row_bytes);
    uint8_t *mem[N_BLOCK_MEM + 1], **table = net_zero((size_t)n * sizeof *table);
    for (int i = 0; i <= N_BLOCK_MEM; i++) {
        mem[i] = net_zero(bytes);
        fill_rows(r, mem[i], per, s, index);
    }
    for (int b = 0; b < n; b++)
        table[b] = mem[b == n - 1 ? N_BLOCK_MEM : b % N_BLOCK_MEM];
    return table;
}

static void free_shared(uint8_t **table, int n)
{
    if (!table)
        return;
    for (int i = 0; i < N_BLOCK_MEM; i++)
        free(table[i]);
    free(table[n - 1]);
    free(table);
}

static void million(struct net *n, uint64_t seed)
{
    struct rng r = { seed, 0 };
    int n_block = END / n->shape.block_tok;
    net_cache(n, 0);
    for (int l = 0; l < n->view.n_layer; l++) {
        struct kv_layer *k = &n->view.layer[l];
        fill_rows(&r, k->ring, n->shape.ring_cap, &n->shape, false);
        if (!k->ratio)
            continue;
        fill(&r, k->main.a, k->main.cap * k->main.width);
        fill(&r, k->main.s, k->main.cap * k->main.width);
        free(k->block[0]), free(k->block);
        k->block = shared_blocks(&r, n_block, &n->shape, k->ratio, false);
        if (!k->index_block)
            continue;
        fill(&r, k->index.a, k->index.cap * k->index.width);
        fill(&r, k->index.s, k->index.cap * k->index.width);
        free(k->index_block[0]), free(k->index_block);
        k->index_block = shared_blocks(&r, n_block, &n->shape, k->ratio, true);
    }
}

static void million_free(struct net *n)
{
    int n_block = END / n->shape.block_tok;
    for (int l = 0; l < n->view.n_layer; l++) {
        struct kv_layer *k = &n->view.layer[l];
        free_shared(k->block, n_block);
        free_shared(k->index_block, n_block);
        k->block = k->index_block = NULL;
    }
    net_cache_free(n, 0);
}

/* Logits of the last N_STEP positions below 2^20 in steps of `chunk`. */
static void run_end(struct net *n, int chunk, float *logits)
{
    int32_t tok[N_STEP] = { 5, 200, 17, 99, 3, 42 };
    int v = model_info(n->model)->n_vocab;
    million(n, 7);
    for (int i = 0; i < N_STEP; i += chunk) {
        int count = MIN(chunk, N_STEP - i);
        struct rows r = { count, n->row, 1, n->views };
        struct model_out out;
        struct err e = { 0 };
        for (int j = 0; j < count; j++)
            n->row[j] = (struct row){ tok[i + j], END - N_STEP + i + j, 0, true };
        dev_begin(n->dev);
        model_forward(n->model, &r, NULL, &out);
        net_must(dev_wait(n->dev, &e), &e);
        memcpy(logits + (size_t)i * v, out.logits.data, (size_t)count * v * sizeof *logits);
    }
    million_free(n);
}

static void last_positions(void **state)
{
    enum { V = 256 };
    static float ref[N_STEP * V], cpu[N_STEP * V], one[N_STEP * V];
    struct net n;
    (void)state;
    net_open(&n, "tests/data/oracle/truehead", "ref", 1, N_STEP);
    assert_int_equal(model_info(n.model)->n_vocab, V);
    run_end(&n, N_STEP, ref);
    net_close(&n);
    net_open(&n, "tests/data/oracle/truehead", "cpu exact", 1, N_STEP);
    run_end(&n, N_STEP, cpu);
    run_end(&n, 1, one);
    assert_memory_equal(cpu, one, sizeof cpu);
    run_end(&n, 4, one);
    assert_memory_equal(cpu, one, sizeof cpu);
    net_close(&n);
    double diff = net_max_difference(ref, cpu, N_STEP * V);
    print_message("largest difference between tables %.2e\n", diff);
    assert_true(diff < 1e-2); /* a rounding boundary may be crossed, a wrong row would be far off */
    assert_true(net_max_difference(ref, ref + V, V) > 0.1); /* and it computed something */
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(last_positions) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
