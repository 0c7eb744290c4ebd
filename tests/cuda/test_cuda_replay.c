/* test_cuda_replay.c - recorded steps on the CUDA device, in the emulator: replayed with other
 * tokens, positions, blocks and conversations they give the bits of steps that are not recorded; so
 * they do after a failure and after a cancelled step. Where recording fails, steps do without. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "dwarfstar.h"
#include "engine.h"
#include "measure.h"
#include "session.h"

/* The emulator's. 1: the next capture fails, 2: the next launch of a graph. */
void emu_set_fault(int which);
int emu_take_replays(void);

static struct dstar_error error;

static dstar_engine *open_gpu(void)
{
    struct dstar_options o;
    char path[512];
    dstar_engine *engine = NULL;
    snprintf(path, sizeof path, "%s/pebble.gguf", getenv("DSTAR_BUILD"));
    dstar_options_init(&o);
    o.model = path;
    o.device = "cuda";
    o.ctx = 2048;
    o.sessions = 2;
    o.max_rows = 8;
    if (dstar_open(&engine, &o, &error) < 0)
        fail_msg("%s", error.text);
    emu_take_replays();
    return engine;
}

static dstar_session *open_at(dstar_engine *e, int at)
{
    dstar_session *s;
    struct err why = { 0 };
    assert_int_equal(dstar_session_new(&s, e, &error), 0);
    assert_int_equal(measure_fill_cache(s, at, (uint64_t)at, &why), 0);
    return s;
}

/* Whoever looks at ops has them run. */
static void nothing(void *user, int layer, const struct op_call *call)
{
    (void)user;
    (void)layer;
    (void)call;
}

static int step_all(dstar_engine *e, dstar_session **s, int n)
{
    struct engine *en = engine_of(e);
    struct err why = { 0 };
    batch_clear(&en->batch);
    for (int i = 0; i < n; i++)
        assert_int_equal(batch_add(&en->batch, session_of(s[i]), 1, false), 1);
    return engine_step(en, &en->batch, &why);
}

/* The next tokens of n conversations, step by step; what is said after each step is new memory. */
static float *decode(dstar_engine *e, dstar_session **s, int n, int n_step, bool plain)
{
    size_t n_vocab = (size_t)dstar_engine_info(e)->n_vocab, at = 0;
    float *said = malloc((size_t)(n_step * n) * n_vocab * sizeof *said);
    assert_non_null(said);
    engine_of(e)->dev->on_op = plain ? nothing : NULL;
    for (int k = 0; k < n_step; k++) {
        for (int i = 0; i < n; i++) {
            int32_t id = 17 * k + 5 * i + 40;
            assert_int_equal(dstar_session_append(s[i], &id, 1, &error), 0);
        }
        assert_int_equal(step_all(e, s, n), 0);
        for (int i = 0; i < n; i++, at += n_vocab)
            memcpy(said + at, dstar_logits(s[i]), n_vocab * sizeof *said);
    }
    engine_of(e)->dev->on_op = NULL;
    return said;
}

static void same(dstar_engine *e, float *got, float *want, int n)
{
    size_t bytes = (size_t)n * (size_t)dstar_engine_info(e)->n_vocab * sizeof *got;
    assert_memory_equal(got, want, bytes);
    free(got);
    free(want);
}

/* Over the borders of blocks, of the cache and of compressors, and of what one graph reaches; then
 * the same graph for another conversation, elsewhere. */
static void says_the_same_bits(void **state)
{
    (void)state;
    enum { N = 7 };
    dstar_engine *e = open_gpu();
    dstar_session *s = open_at(e, 1020);
    float *want = decode(e, &s, 1, N, true);
    assert_int_equal(emu_take_replays(), 0);
    dstar_session_free(s);
    s = open_at(e, 1020);
    float *got = decode(e, &s, 1, N, false);
    assert_int_equal(emu_take_replays(), 3 + 2); /* the first of a kind is not recorded */
    same(e, got, want, N);
    dstar_session *other = open_at(e, 510);
    want = decode(e, &other, 1, 4, true);
    dstar_session_free(other);
    other = open_at(e, 510);
    got = decode(e, &other, 1, 4, false);
    assert_int_equal(emu_take_replays(), 4);
    same(e, got, want, 4);
    dstar_session_free(other);
    dstar_session_free(s);
    dstar_close(e);
}

static void two_conversations(void **state)
{
    (void)state;
    enum { N = 4 };
    dstar_engine *e = open_gpu();
    float *said[2];
    for (int plain = 0; plain < 2; plain++) {
        dstar_session *s[2] = { open_at(e, 126), open_at(e, 300) };
        said[plain] = decode(e, s, 2, N, plain);
        assert_int_equal(emu_take_replays(), plain ? 0 : N - 1);
        dstar_session_free(s[0]);
        dstar_session_free(s[1]);
    }
    same(e, said[0], said[1], 2 * N);
    dstar_close(e);
}

/* A step fails, is cancelled, and then is tried again. */
static void fails(void **state)
{
    (void)state;
    dstar_engine *e = open_gpu();
    dstar_session *s = open_at(e, 126);
    size_t n_vocab = (size_t)dstar_engine_info(e)->n_vocab;
    float *want = decode(e, &s, 1, 4, true), *last = malloc(n_vocab * sizeof *last);
    assert_non_null(last);
    dstar_session_free(s);
    s = open_at(e, 126);
    free(decode(e, &s, 1, 3, false));
    emu_take_replays();
    assert_int_equal(dstar_session_append(s, (int32_t[]){ 17 * 3 + 40 }, 1, &error), 0);
    emu_set_fault(2);
    assert_int_equal(step_all(e, &s, 1), ERR_IO);
    session_of(s)->cancelled = 1;
    assert_int_equal(step_all(e, &s, 1), ERR_CANCELLED);
    session_of(s)->cancelled = 0;
    assert_int_equal(emu_take_replays(), 0);
    assert_int_equal(step_all(e, &s, 1), 0);
    assert_int_equal(emu_take_replays(), 1);
    memcpy(last, dstar_logits(s), n_vocab * sizeof *last);
    assert_memory_equal(last, want + 3 * n_vocab, n_vocab * sizeof *last);
    free(last);
    free(want);
    dstar_session_free(s);
    dstar_close(e);
}

/* Without recording. */
static void cannot_record(void **state)
{
    (void)state;
    enum { N = 3 };
    dstar_engine *e = open_gpu();
    dstar_session *s = open_at(e, 126);
    float *want = decode(e, &s, 1, N, true);
    dstar_session_free(s);
    s = open_at(e, 126);
    emu_set_fault(1);
    float *got = decode(e, &s, 1, N, false);
    assert_int_equal(emu_take_replays(), 0);
    same(e, got, want, N);
    dstar_session_free(s);
    dstar_close(e);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_the_same_bits),
        cmocka_unit_test(two_conversations),
        cmocka_unit_test(fails),
        cmocka_unit_test(cannot_record),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
