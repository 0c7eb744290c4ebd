/* test_trace.c - recorded routes: the file's form, hash-routed layers against the model's table,
 * and the same bytes whatever the steps. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "deepseek4.h"
#include "engine.h"
#include "file.h"
#include "measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { N_TOK = 40, HEAD = 16 };

static char path[64];
static int32_t token[N_TOK];

static int choose(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_trace.%ld", (long)getpid());
    for (int i = 0; i < N_TOK; i++)
        token[i] = (i * 37 + 11) % 1000;
    return 0;
}

static int drop(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static dstar_engine *open_rows(int max_rows)
{
    dstar_engine *engine;
    struct dstar_options o;
    struct dstar_error error = { 0 };
    dstar_options_init(&o);
    o.model = "models/pebble";
    o.ctx = 256;
    o.max_rows = max_rows;
    o.mtp = 1;
    if (dstar_open(&engine, &o, &error) < 0)
        fail_msg("%s", error.text);
    return engine;
}

/* Read all tokens, as many a step as the engine takes. */
static void compute(dstar_engine *engine)
{
    dstar_session *s;
    assert_int_equal(dstar_session_new(&s, engine, NULL), 0);
    assert_int_equal(dstar_session_set(s, token, N_TOK, NULL), 0);
    int left;
    while ((left = dstar_session_step(s, NULL)) > 0)
        ;
    assert_int_equal(left, 0);
    dstar_session_free(s);
}

static void record(dstar_engine *engine, struct buf *out)
{
    struct trace *t;
    struct err e = { 0 };
    assert_int_equal(trace_begin(&t, engine, &e), 0);
    compute(engine);
    assert_int_equal(trace_n_tok(t), N_TOK);
    if (trace_write(t, path, false, &e) < 0)
        fail_msg("%s", e.text);
    trace_end(t);
    buf_init(out, 1 << 20);
    assert_int_equal(file_read_all(out, path, &e), 0);
}

static unsigned u16_at(const struct buf *b, size_t at)
{
    return (uint8_t)b->data[at] | (unsigned)(uint8_t)b->data[at + 1] << 8;
}

static unsigned u32_at(const struct buf *b, size_t at)
{
    return u16_at(b, at) | u16_at(b, at + 2) << 16;
}

static void form(void **state)
{
    (void)state;
    struct buf b;
    dstar_engine *engine = open_rows(0);
    const struct dstar_info *info = dstar_engine_info(engine);
    size_t n_route = (size_t)info->n_layer * (size_t)info->n_used;
    record(engine, &b);
    assert_int_equal(b.len, HEAD + 2 * n_route * N_TOK);
    assert_int_equal(u32_at(&b, 0), N_TOK);
    assert_int_equal(u32_at(&b, 4), info->n_layer);
    assert_int_equal(u32_at(&b, 8), info->n_used);
    assert_int_equal(u32_at(&b, 12), 0);
    for (size_t i = 0; i < n_route * N_TOK; i++) {
        assert_in_range(u16_at(&b, HEAD + 2 * i), 0, info->n_expert - 1);
        for (size_t k = i - i % (size_t)info->n_used; k < i; k++) /* none twice */
            assert_int_not_equal(u16_at(&b, HEAD + 2 * i), u16_at(&b, HEAD + 2 * k));
    }
    buf_release(&b);
    dstar_close(engine);
}

static void hash_layers(void **state)
{
    (void)state;
    struct buf b;
    dstar_engine *engine = open_rows(0);
    const struct model *m = engine_of(engine)->model;
    size_t n_layer = (size_t)m->info.n_layer, n_used = (size_t)m->info.n_used, n_hash = 0;
    record(engine, &b);
    for (size_t l = 0; l < n_layer; l++) {
        const int32_t *table = m->layer[l].route.by_token;
        if (!table)
            continue;
        n_hash++;
        for (size_t i = 0; i < N_TOK; i++)
            for (size_t j = 0; j < n_used; j++)
                assert_int_equal(u16_at(&b, HEAD + 2 * ((i * n_layer + l) * n_used + j)),
                                 table[(size_t)token[i] * n_used + j]);
    }
    assert_in_range(n_hash, 1, n_layer - 1);
    buf_release(&b);
    dstar_close(engine);
}

/* Steps of 64 and of 7 tokens, and a second recording by the same engine. */
static void same_bytes(void **state)
{
    (void)state;
    struct buf one, again, few;
    dstar_engine *engine = open_rows(64);
    record(engine, &one);
    record(engine, &again);
    dstar_close(engine);
    engine = open_rows(7);
    record(engine, &few);
    dstar_close(engine);
    assert_int_equal(one.len, again.len);
    assert_int_equal(one.len, few.len);
    assert_memory_equal(one.data, again.data, one.len);
    assert_memory_equal(one.data, few.data, one.len);
    buf_release(&one);
    buf_release(&again);
    buf_release(&few);
}

/* The draft block routes, too; its layer is no part of the file. Nothing is kept after the end. */
static int ignore(void *user, int pos, const float *logits, const float *mtp)
{
    (void)user, (void)pos, (void)logits;
    assert_non_null(mtp);
    return 0;
}

static void draft_block(void **state)
{
    (void)state;
    struct trace *t;
    dstar_engine *engine = open_rows(0);
    struct dstar_text_eval eval = { token, N_TOK, 0, 1, ignore, NULL };
    assert_int_equal(trace_begin(&t, engine, NULL), 0);
    assert_int_equal(dstar_eval(engine, &eval, NULL), 0);
    assert_int_equal(trace_n_tok(t), N_TOK);
    assert_int_equal(trace_write(t, path, false, NULL), 0);
    trace_end(t);
    compute(engine);
    assert_int_equal(trace_begin(&t, engine, NULL), 0);
    assert_int_equal(trace_n_tok(t), 0);
    trace_end(t);
    dstar_close(engine);
}

static void part_of_a_model(void **state)
{
    (void)state;
    struct trace *t;
    struct err e = { 0 };
    struct dstar_options o;
    dstar_engine *engine;
    dstar_options_init(&o);
    o.model = "models/pebble";
    o.part = DSTAR_TOKENS;
    assert_int_equal(dstar_open(&engine, &o, NULL), 0);
    assert_int_equal(trace_begin(&t, engine, &e), ERR_ARGUMENT);
    assert_null(t);
    dstar_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(form),        cmocka_unit_test(hash_layers),
        cmocka_unit_test(same_bytes),  cmocka_unit_test(draft_block),
        cmocka_unit_test(part_of_a_model),
    };
    return cmocka_run_group_tests(tests, choose, drop);
}
