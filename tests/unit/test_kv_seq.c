/* test_kv_seq.c - one conversation's cache: steps, failures, going back, marks, what it costs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu.h"
#include "kv_fake.h"
#include "kv_row.h"

static void test_steps_of_any_size(void **state)
{
    (void)state;
    const int chunk[] = { 1, 3, 7, 64, 200 };
    for (size_t i = 0; i < COUNT_OF(chunk); i++) {
        struct fake f;
        fake_open(&f, 2000, 0, 4);
        fake_append(&f.seq, 1537, chunk[i], 1);
        assert_int_equal(f.seq.n_tok, 1537);
        assert_int_equal(f.seq.n_block, 4);
        assert_true(fake_ok(&f.seq));
        fake_close(&f);
    }
}

static void test_short_way_back_computes_nothing(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f, 2000, 0, 4);
    fake_append(&f.seq, 700, 100, 1);
    for (int back = 0; back <= f.shape.slack; back++) {
        assert_int_equal(kv_truncate(&f.seq, 700 - back), 700 - back);
        assert_true(fake_ok(&f.seq));
    }
    /* The same way back twice is too far. */
    assert_int_equal(kv_truncate(&f.seq, 700 - f.shape.slack - 1), 0);
    assert_int_equal(f.seq.n_block, 0);
    fake_close(&f);
}

static void test_way_back_counts_from_the_furthest_step(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f, 2000, 0, 4);
    fake_append(&f.seq, 300, 100, 1);
    assert_int_equal(kv_truncate(&f.seq, 300 - f.shape.slack), 300 - f.shape.slack);
    fake_append(&f.seq, 2, 2, 9);
    assert_true(fake_ok(&f.seq));
    assert_int_equal(kv_truncate(&f.seq, 300 - f.shape.slack), 300 - f.shape.slack);
    assert_true(fake_ok(&f.seq));
    assert_int_equal(kv_truncate(&f.seq, 300 - f.shape.slack - 1), 0);
    fake_close(&f);
}

static void test_mark_saves_what_lies_before_it(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f, 3000, 4, 6);
    fake_append(&f.seq, 901, 128, 1);
    kv_mark(&f.seq, 0, true);
    fake_append(&f.seq, 1200, 77, 2);
    assert_int_equal(kv_truncate(&f.seq, 1500), 901);
    assert_true(fake_ok(&f.seq));
    /* What must be computed again is still there to be computed. */
    fake_compute(&f.seq, 1500 - 901, 50);
    assert_true(fake_ok(&f.seq));
    assert_int_equal(kv_truncate(&f.seq, 901), 901);
    assert_int_equal(kv_truncate(&f.seq, 900), 0);
    fake_close(&f);
}

static void test_mark_with_room_before_it(void **state)
{
    (void)state;
    for (int pos = 128 * 5 - 3; pos < 128 * 5 + 9; pos++) {
        struct fake f;
        fake_open(&f, 3000, 4, 6);
        fake_append(&f.seq, pos, 128, 1);
        kv_mark(&f.seq, f.shape.slack, true);
        fake_append(&f.seq, 1000, 100, 2);
        assert_int_equal(kv_truncate(&f.seq, pos - 2), pos - 2);
        assert_true(fake_ok(&f.seq));
        fake_append(&f.seq, 300, 100, 3);
        assert_true(fake_ok(&f.seq));
        /* The mark was cut, not lost: its tokens before the cut are still the past. */
        assert_int_equal(kv_truncate(&f.seq, pos - 1), pos - 2);
        assert_true(fake_ok(&f.seq));
        fake_append(&f.seq, 300, 100, 4);
        assert_int_equal(kv_truncate(&f.seq, pos - f.shape.slack), pos - f.shape.slack);
        assert_true(fake_ok(&f.seq));
        fake_append(&f.seq, 300, 100, 5);
        assert_int_equal(kv_truncate(&f.seq, pos - f.shape.slack - 1), 0);
        fake_close(&f);
    }
}

static void test_failed_step_costs_nothing(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f, 3000, 2, 6);
    fake_append(&f.seq, 777, 100, 1);
    for (int n = 1; n <= 200; n += n < 10 ? 1 : 63) {
        for (int layer = 0; layer <= FAKE_N_LAYER; layer++) {
            for (int i = 0; i < n; i++)
                f.seq.token[777 + i] = 60 + i + layer;
            assert_int_equal(kv_reserve(&f.seq, n, NULL), 0);
            fake_write(&f.seq, n, layer);
            kv_abort(&f.seq);
            assert_int_equal(f.seq.n_tok, 777);
            assert_true(fake_ok(&f.seq));
        }
    }
    assert_int_equal(f.seq.n_block, 2);
    fake_append(&f.seq, 500, 99, 2);
    assert_true(fake_ok(&f.seq));
    fake_close(&f);
}

static void test_limits(void **state)
{
    (void)state;
    struct fake f;
    struct err e = { 0 };
    fake_open(&f, 1000, 2, 1);
    fake_append(&f.seq, 510, 100, 1);
    assert_int_equal(kv_reserve(&f.seq, 3, &e), ERR_NO_MEMORY);
    assert_non_null(strstr(e.text, "1 blocks of 512"));
    assert_int_equal(f.seq.n_block, 1);
    assert_int_equal(kv_reserve(&f.seq, 2, NULL), 0);
    fake_write(&f.seq, 2, FAKE_N_LAYER);
    kv_commit(&f.seq);
    assert_true(fake_ok(&f.seq));
    fake_close(&f);

    e = (struct err){ 0 };
    fake_open(&f, 100, 2, 1);
    fake_append(&f.seq, 99, 100, 1);
    assert_int_equal(kv_reserve(&f.seq, 2, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "100"));
    assert_int_equal(f.seq.n_tok, 99);
    fake_close(&f);
}

/* Another holder of the block being filled must not see our tokens. */
static void test_shared_block_is_copied_before_writing(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f, 2000, 0, 3);
    fake_append(&f.seq, 600, 100, 1);
    struct kv_block *shared = f.seq.block[1];
    uint8_t *before = malloc(f.pool.block_bytes);
    assert_non_null(before);
    memcpy(before, shared->mem, f.pool.block_bytes);
    kv_block_share(shared);
    fake_append(&f.seq, 300, 100, 2);
    assert_ptr_not_equal(f.seq.block[1], shared);
    assert_memory_equal(shared->mem, before, f.pool.block_bytes);
    assert_int_equal(shared->refs, 1);
    assert_true(fake_ok(&f.seq));
    kv_block_drop(&f.pool, shared);
    free(before);
    fake_close(&f);
}

static void test_marks_are_bounded_and_dense_at_the_end(void **state)
{
    (void)state;
    struct fake f;
    fake_open(&f, 20000, 6, 40);
    for (int i = 0; i < 180; i++) {
        fake_append(&f.seq, 100, 100, (uint64_t)i);
        kv_mark(&f.seq, 0, false);
    }
    assert_int_equal(f.seq.n_mark, 6);
    assert_int_equal(f.seq.mark[5].pos, 18000);
    assert_true(f.seq.mark[4].pos >= 17000);
    assert_true(f.seq.mark[0].pos < 15000);
    for (int i = 1; i < 6; i++)
        assert_true(f.seq.mark[i].pos > f.seq.mark[i - 1].pos);
    struct kv_use use = kv_use_of(&f.seq);
    assert_true(use.marks > 0 && use.marks <= f.seq_bytes.data);
    /* Each of them still works. */
    for (int i = 5; i >= 0; i--) {
        int pos = f.seq.mark[i].pos;
        assert_int_equal(kv_truncate(&f.seq, pos), pos);
        assert_true(fake_ok(&f.seq));
    }
    fake_close(&f);
}

static void test_chosen_marks_outlive_others(void **state)
{
    (void)state;
    for (int chosen = 0; chosen < 2; chosen++) {
        struct fake f;
        fake_open(&f, 4000, 3, 8);
        fake_append(&f.seq, 900, 100, 1);
        kv_mark(&f.seq, 0, false);
        for (int i = 0; i < 3; i++) {
            fake_append(&f.seq, 50, 50, (uint64_t)i);
            kv_mark(&f.seq, 0, chosen && i == 0);
        }
        assert_int_equal(f.seq.mark[0].pos, 900);
        assert_int_equal(f.seq.mark[1].pos, chosen ? 950 : 1000);
        assert_int_equal(f.seq.mark[2].pos, 1050);
        fake_close(&f);
    }
}

/* Any order of all operations, checked after each; tokens come from few values, so that cut and
 * regrown conversations resemble each other. */
static void test_random_operations(void **state)
{
    (void)state;
    struct fake f;
    struct rng rng = { 42, 0 };
    int n_restored = 0;
    fake_open(&f, 4096, 5, 8);
    for (int step = 0; step < 3000; step++) {
        int n = 1 + (int)(rng_next(&rng) % (rng_next(&rng) % 4 ? 12 : 200));
        switch (rng_next(&rng) % 8) {
        case 0:
        case 1: {
            int back = (int)(rng_next(&rng) % (rng_next(&rng) % 2 ? 8 : 900));
            int p = MAX(0, f.seq.n_tok - back), stand = kv_truncate(&f.seq, p);
            assert_true(stand <= p);
            n_restored += stand < p && stand > 0;
            break;
        }
        case 2:
            kv_mark(&f.seq, (int)(rng_next(&rng) % 9), rng_next(&rng) % 2);
            break;
        case 3:
            if (f.seq.n_tok + n > f.seq.max_tok)
                break;
            for (int i = 0; i < n; i++)
                f.seq.token[f.seq.n_tok + i] = (int32_t)(rng_next(&rng) % 3);
            assert_int_equal(kv_reserve(&f.seq, n, NULL), 0);
            fake_write(&f.seq, n, (int)(rng_next(&rng) % (FAKE_N_LAYER + 1)));
            kv_abort(&f.seq);
            break;
        default:
            if (f.seq.n_tok + n > f.seq.max_tok)
                kv_truncate(&f.seq, (int)(rng_next(&rng) % 1000));
            fake_append(&f.seq, n, 200, rng_next(&rng) % 4);
        }
        assert_true(fake_ok(&f.seq));
    }
    assert_true(n_restored > 20);
    fake_close(&f);
}

/* Flash: 43 layers, rows as trained. */
static struct kv_shape flash_shape(int ratio[43])
{
    for (int l = 0; l < 43; l++)
        ratio[l] = l < 2 ? 0 : l % 2 ? 128 : 4;
    return (struct kv_shape){
        .packed = true,
        .head_dim = 512,
        .rope_dim = 64,
        .index_dim = 128,
        .row_bytes = kv_row_bytes(512, 64),
        .index_row_bytes = kv_index_row_bytes(128),
        .window = 128,
        .ring_cap = 127 + 256,
        .slack = 8,
        .block_tok = 512,
    };
}

static void test_cost_of_flash(void **state)
{
    (void)state;
    int ratio[43];
    struct kv_shape s = flash_shape(ratio);
    const int n_tok = 1 << 20, n_block = n_tok / 512;
    assert_true((double)kv_rows_bytes(&s, ratio, 43, 512) / 512 == 3514.25);
    struct kv_bytes pool = kv_pool_bytes(&s, ratio, 43, n_block);
    /* Besides the rows only a few words per block. */
    assert_true(pool.data >= 3514.25 * n_tok && pool.data < 3514.25 * n_tok + 50000);
    assert_true(pool.host < 100000);

    struct kv_pool p;
    struct kv_mem mem;
    fake_map(&mem, pool);
    kv_pool_init(&p, &s, ratio, 43, mem, n_block);
    /* Tokens (4 MB) and pointers to blocks (1 MB); rings of 383 rows (9.6 MB), frontiers
     * (14.6 MB) and the copy before a step (17.9 MB). */
    struct kv_bytes fixed = kv_seq_bytes(&p, n_tok, 0);
    assert_in_range(fixed.host, 5e6, 5.5e6);
    assert_in_range(fixed.data, 40e6, 44.5e6);
    /* A mark is at most a window of rows and the frontiers. */
    size_t mark = kv_seq_bytes(&p, n_tok, 1).data - fixed.data;
    assert_in_range(mark, 17.5e6, 18.5e6);
    fake_unmap(mem, pool);
}

/* A short conversation in a cache mapped for a million tokens takes memory for itself alone. */
static void test_only_touched_pages_cost(void **state)
{
    (void)state;
    int ratio[43], n_tok = 8192;
    struct kv_shape s = flash_shape(ratio);
    struct kv_bytes pool_bytes = kv_pool_bytes(&s, ratio, 43, 2048);
    struct kv_pool p;
    struct kv_seq seq;
    struct kv_mem pool_mem, seq_mem;
    size_t before = cpu_rss().anonymous;
    if (before == 0)
        skip();
    fake_map(&pool_mem, pool_bytes);
    kv_pool_init(&p, &s, ratio, 43, pool_mem, 2048);
    struct kv_bytes seq_bytes = kv_seq_bytes(&p, 1 << 20, 8);
    fake_map(&seq_mem, seq_bytes);
    kv_seq_init(&seq, &p, seq_mem, 1 << 20, 8);
    for (int done = 0; done < n_tok; done += 256) {
        assert_int_equal(kv_reserve(&seq, 256, NULL), 0);
        kv_commit(&seq);
    }
    for (int i = 0; i < seq.n_block; i++)
        memset(seq.block[i]->mem, 1, p.block_bytes);
    size_t rows = cpu_rss().anonymous - before;
    double expected = 3514.25 * n_tok;
    /* State: the copies before steps and what they read of rings and frontiers. */
    assert_true(rows >= expected);
    assert_true(rows <= expected + 40e6);
    fake_unmap(seq_mem, seq_bytes);
    fake_unmap(pool_mem, pool_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_of_any_size),
        cmocka_unit_test(test_short_way_back_computes_nothing),
        cmocka_unit_test(test_way_back_counts_from_the_furthest_step),
        cmocka_unit_test(test_mark_saves_what_lies_before_it),
        cmocka_unit_test(test_mark_with_room_before_it),
        cmocka_unit_test(test_failed_step_costs_nothing),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_shared_block_is_copied_before_writing),
        cmocka_unit_test(test_marks_are_bounded_and_dense_at_the_end),
        cmocka_unit_test(test_chosen_marks_outlive_others),
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_cost_of_flash),
        cmocka_unit_test(test_only_touched_pages_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
