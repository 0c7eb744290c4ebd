/* test_engine.c - steps that fail, steps of several conversations, plans, evaluation. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu.h"
#include "engine.h"
#include "evaluate.h"
#include "ops_table.h"
#include "sanitized.h"
#include "session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MODEL "models/pebble"
#define N_TOK 200

static struct engine engine;
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
    o.sessions = 3;
    must(engine_open(&engine, &o, &e), &e);
    for (int i = 0; i < N_TOK; i++)
        text[i] = 300 + i * 7919 % 2000;
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    engine_close(&engine);
    return 0;
}

static void compute(struct session *s, const int32_t *id, int n)
{
    struct err e = { 0 };
    must(session_set(s, id, n, &e), &e);
    while (s->kv.n_tok < s->n_all)
        must(session_step(s, &e), &e);
}

static size_t logits_bytes(void)
{
    return (size_t)engine.rules.n_vocab * sizeof(float);
}

static float *fresh_logits(const int32_t *id, int n)
{
    struct session s;
    float *copy = malloc(logits_bytes());
    assert_non_null(copy);
    assert_int_equal(session_open(&s, &engine, NULL), 0);
    compute(&s, id, n);
    assert_true(session_ready(&s));
    memcpy(copy, s.logits, logits_bytes());
    session_close(&s);
    return copy;
}

/* ---- failures ----------------------------------------------------------------------------- */

static int calls_until_failure;
static const struct ops *sound;

static void fail_in_time(struct dev *d)
{
    if (--calls_until_failure == 0)
        dev_fail(d, ERR_IO, "planted failure");
}

static void failing_swiglu(struct dev *d, struct tensor *out, const struct tensor *gate,
                           const struct tensor *up, float clamp)
{
    fail_in_time(d);
    sound->swiglu(d, out, gate, up, clamp);
}

static void failing_kv_store(struct dev *d, const struct tensor *kv, const struct rows *r, int l)
{
    sound->kv_store(d, kv, r, l);
    fail_in_time(d);
}

static void test_failed_step_leaves_the_past(void **state)
{
    (void)state;
    struct session s;
    struct ops failing = *engine.dev->ops;
    float *before = fresh_logits(text, 100), *after = fresh_logits(text, 170);
    sound = engine.dev->ops;
    failing.swiglu = failing_swiglu;
    failing.kv_store = failing_kv_store;
    assert_int_equal(session_open(&s, &engine, NULL), 0);
    for (int n = 101; n <= 170; n += 23) { /* steps within and beyond the slack */
        for (int at = 1; at < 14; at += 2) {
            struct err e = { 0 };
            compute(&s, text, 100);
            assert_memory_equal(s.logits, before, logits_bytes());
            assert_int_equal(session_set(&s, text, n, NULL), 0);
            engine.dev->ops = &failing;
            calls_until_failure = at;
            assert_int_equal(session_step(&s, &e), ERR_IO);
            engine.dev->ops = sound;
            assert_non_null(strstr(e.text, "planted failure"));
            assert_non_null(strstr(e.text, "layer"));
            assert_int_equal(s.kv.n_tok, 100);
            assert_int_equal(s.n_all, n);
            /* The same step again, and the rest. */
            int64_t computed = s.n_prefill + s.n_decode;
            compute(&s, text, 170);
            assert_memory_equal(s.logits, after, logits_bytes());
            assert_int_equal(s.n_prefill + s.n_decode - computed, 70);
        }
    }
    session_close(&s);
    free(before);
    free(after);
}

static void test_scratch_too_small_is_an_error(void **state)
{
    (void)state;
    struct session s;
    struct err e = { 0 };
    size_t size = engine.dev->scratch.size;
    assert_int_equal(session_open(&s, &engine, NULL), 0);
    assert_int_equal(session_set(&s, text, 60, NULL), 0);
    engine.dev->scratch.size = size / 4;
    assert_int_equal(session_step(&s, &e), ERR_NO_MEMORY);
    assert_non_null(strstr(e.text, "scratch"));
    engine.dev->scratch.size = size;
    compute(&s, text, 60);
    session_close(&s);
}

/* ---- many conversations ------------------------------------------------------------------- */

static void test_step_of_three_conversations(void **state)
{
    (void)state;
    const int n[] = { 90, 1, 33 };
    struct session s[3];
    struct batch *b = &engine.batch;
    struct err e = { 0 };
    int at[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(session_open(&s[i], &engine, NULL), 0);
        must(session_set(&s[i], text + 7 * i, n[i], &e), &e);
        at[i] = 0;
    }
    /* Shares of a step change all the time. */
    for (int step = 0; at[0] < n[0] || at[1] < n[1] || at[2] < n[2]; step++) {
        batch_clear(b);
        for (int i = 0; i < 3; i++)
            batch_add(b, &s[i], 1 + (step + i) % 17, false);
        must(engine_step(&engine, b, &e), &e);
        for (int i = 0; i < 3; i++)
            at[i] = s[i].kv.n_tok;
    }
    /* One more token for each, as when all decode. */
    batch_clear(b);
    for (int i = 0; i < 3; i++) {
        assert_true(session_ready(&s[i]));
        must(session_append(&s[i], text + 7 * i + n[i], 1, &e), &e);
        assert_int_equal(batch_add(b, &s[i], 1, false), 1);
    }
    must(engine_step(&engine, b, &e), &e);
    for (int i = 0; i < 3; i++) {
        float *want = malloc(logits_bytes());
        assert_non_null(want);
        assert_true(session_ready(&s[i]));
        memcpy(want, s[i].logits, logits_bytes());
        session_close(&s[i]);
        float *alone = fresh_logits(text + 7 * i, n[i] + 1);
        assert_memory_equal(want, alone, logits_bytes());
        free(alone);
        free(want);
    }
}

/* When one has no room, nobody's past changes. */
static void test_pool_used_up_in_a_shared_step(void **state)
{
    (void)state;
    struct session s[2];
    struct batch *b = &engine.batch;
    struct err e = { 0 };
    struct kv_block *held[16];
    int n_held = 0;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(session_open(&s[i], &engine, NULL), 0);
        must(session_set(&s[i], text, 20, &e), &e);
    }
    compute(&s[0], text, 20);
    must(session_append(&s[0], text, 3, &e), &e);
    while ((held[n_held] = kv_block_take(&engine.pool)))
        n_held++;
    batch_clear(b);
    assert_int_equal(batch_add(b, &s[0], 64, false), 3);
    assert_int_equal(batch_add(b, &s[1], 64, false), 20);
    assert_int_equal(engine_step(&engine, b, &e), ERR_NO_MEMORY);
    assert_int_equal(s[0].kv.n_tok, 20);
    assert_int_equal(s[1].kv.n_tok, 0);
    while (n_held > 0)
        kv_block_drop(&engine.pool, held[--n_held]);
    must(engine_step(&engine, b, &e), &(struct err){ 0 });
    assert_int_equal(s[0].kv.n_tok, 23);
    assert_int_equal(s[1].kv.n_tok, 20);
    session_close(&s[0]);
    session_close(&s[1]);
}

/* ---- plans -------------------------------------------------------------------------------- */

/* What is planned, the process as it is included, stays within what may be taken; more memory means
 * more experts in memory, and once the model fits, a longer context. */
static void test_plan_follows_the_memory(void **state)
{
    (void)state;
    struct dstar_options o;
    dstar_options_init(&o);
    o.model = MODEL;
    o.part = DSTAR_PLAN;
    size_t last_experts = 0, before = cpu_rss().anonymous;
    int last_ctx = 0, n_stream = 0, n_mapped = 0;
    if (before == 0 || IS_SANITIZED)
        skip();
    for (uint64_t more = 28u << 20; more <= 256u << 20; more = more * 3 / 2) {
        struct engine en;
        struct err e = { 0 };
        o.memory_bytes = before + more;
        must(engine_open(&en, &o, &e), &e);
        const struct budget *b = &en.budget;
        assert_true(b->taken + b->total + (b->is_streaming ? 0 : b->mapped) <= o.memory_bytes);
        assert_true(b->is_streaming ? n_mapped == 0 && b->experts > last_experts
                                    : b->ctx > last_ctx && b->ctx % b->shape.block_tok == 0);
        last_experts = b->experts;
        last_ctx = b->is_streaming ? 0 : b->ctx;
        n_stream += b->is_streaming;
        n_mapped += !b->is_streaming;
        struct dstar_options longer = o;
        longer.part = DSTAR_ALL;
        longer.ctx = 1 << 20;
        engine_close(&en);
        if (last_ctx)
            continue;
        assert_int_equal(engine_open(&en, &longer, &e), ERR_NO_MEMORY);
        engine_close(&en);
    }
    assert_true(n_stream > 1 && n_mapped > 1);
    struct engine en;
    struct err e = { 0 };
    o.part = DSTAR_ALL;
    o.memory_bytes = 1 << 20;
    o.ctx = 1 << 20;
    assert_int_equal(engine_open(&en, &o, &e), ERR_NO_MEMORY);
    assert_non_null(strstr(e.text, "1048576 tokens of context"));
    assert_non_null(strstr(e.text, " MiB"));
    engine_close(&en);
    e = (struct err){ 0 };
    o.memory_bytes = 0;
    o.ctx = INT32_MAX;
    assert_int_equal(engine_open(&en, &o, &e), ERR_LIMIT);
    engine_close(&en);
}

static void count_warnings(void *user, int level, const char *text)
{
    if (level == DSTAR_LOG_WARN && strstr(text, "less than the least"))
        ++*(int *)user;
}

/* A machine that has not even the least. */
static void test_machine_too_small(void **state)
{
    (void)state;
    struct budget b;
    struct err e = { 0 };
    struct budget_ask ask = { .n_session = 1, .max_rows = 64, .memory_bytes = 1 << 20,
                              .machine = (size_t)64 << 30, .mapped = (size_t)1 << 30,
                              .experts_least = (size_t)2 << 20, .experts_most = (size_t)4 << 20,
                              .max_mark = 2, .slack = 4 };
    must(budget_plan(&b, &ask, engine.model, engine.dev, &e), &e);
    assert_true(b.is_streaming && b.least > ask.memory_bytes);
    ask.machine = b.least - 1;
    assert_int_equal(budget_plan(&b, &ask, engine.model, engine.dev, &e), ERR_NO_MEMORY);
    assert_non_null(strstr(e.text, "at least, the machine has"));
    ask.machine = b.least;
    e = (struct err){ 0 };
    must(budget_plan(&b, &ask, engine.model, engine.dev, &e), &e);
}

static void work_with_too_little(int ctx)
{
    struct dstar_options o;
    struct engine en;
    struct session s;
    struct err e = { 0 };
    int n_warning = 0;
    dstar_options_init(&o);
    o.model = MODEL;
    o.memory_bytes = 1 << 20;
    o.ctx = ctx;
    o.log = count_warnings;
    o.log_user = &n_warning;
    must(engine_open(&en, &o, &e), &e);
    assert_int_equal(n_warning, 1);
    assert_true(en.budget.is_streaming && en.budget.ctx == (ctx ? ctx : 512));
    must(session_open(&s, &en, &e), &e);
    compute(&s, text, N_TOK);
    float *want = fresh_logits(text, N_TOK);
    assert_memory_equal(s.logits, want, logits_bytes());
    free(want);
    session_close(&s);
    engine_close(&en);
}

/* Below the least it works, and says so; also with a context that is none of the trouble. */
static void test_too_little_memory(void **state)
{
    (void)state;
    for (int ctx = 0; ctx <= 1024; ctx += 1024)
        work_with_too_little(ctx);
}

static void test_memory_taken_is_memory_planned(void **state)
{
    (void)state;
    struct dstar_options o;
    struct err e = { 0 };
    struct engine en;
    struct session s;
    size_t before = cpu_rss().anonymous;
    if (before == 0)
        skip();
    dstar_options_init(&o);
    o.model = MODEL;
    o.ctx = 512;
    o.max_rows = 64;
    must(engine_open(&en, &o, &e), &e);
    must(session_open(&s, &en, &e), &e);
    compute(&s, text, N_TOK);
    size_t taken = cpu_rss().anonymous - before;
    print_message("planned %zu, taken %zu\n", en.budget.total, taken);
    /* Besides: the directory of tensors, the tokenizer. */
    assert_true(taken <= en.budget.total + (20u << 20));
    session_close(&s);
    engine_close(&en);
}

/* ---- evaluation --------------------------------------------------------------------------- */

struct seen {
    float *logits; /* [N_TOK][n_vocab] */
    int n, end_at;
};

static int keep_row(void *user, int pos, const float *logits, const float *mtp)
{
    struct seen *s = user;
    assert_int_equal(pos, s->n);
    assert_null(mtp);
    memcpy(s->logits + (size_t)pos * engine.rules.n_vocab, logits, logits_bytes());
    s->n++;
    return s->n == s->end_at;
}



static void test_evaluation(void **state)
{
    (void)state;
    struct err e = { 0 };
    struct seen all[2] = { { 0 } };
    const int chunk[] = { 0, 5 };
    for (int i = 0; i < 2; i++) {
        all[i].logits = malloc(N_TOK * logits_bytes());
        assert_non_null(all[i].logits);
        struct dstar_text_eval job = { text, N_TOK, chunk[i], 0, keep_row, &all[i] };
        must(evaluate(&engine, &job, &e), &e);
        assert_int_equal(all[i].n, N_TOK);
    }
    assert_memory_equal(all[0].logits, all[1].logits, N_TOK * logits_bytes());
    float *want = fresh_logits(text, 77);
    assert_memory_equal(all[0].logits + (size_t)76 * engine.rules.n_vocab, want, logits_bytes());
    free(want);

    all[0].n = 0;
    all[0].end_at = 9;
    struct dstar_text_eval job = { text, N_TOK, 0, 0, keep_row, &all[0] };
    assert_int_equal(evaluate(&engine, &job, &e), ERR_CANCELLED);
    assert_int_equal(all[0].n, 9);
    e = (struct err){ 0 };
    job.mtp = 1;
    assert_int_equal(evaluate(&engine, &job, &e), ERR_ARGUMENT);
    assert_int_equal(engine.n_session, 0);
    assert_int_equal(engine.pool.n_used, 0);
    free(all[0].logits);
    free(all[1].logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_step_leaves_the_past),
        cmocka_unit_test(test_scratch_too_small_is_an_error),
        cmocka_unit_test(test_step_of_three_conversations),
        cmocka_unit_test(test_pool_used_up_in_a_shared_step),
        cmocka_unit_test(test_plan_follows_the_memory),
        cmocka_unit_test(test_machine_too_small),
        cmocka_unit_test(test_too_little_memory),
        cmocka_unit_test(test_memory_taken_is_memory_planned),
        cmocka_unit_test(test_evaluation),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
