/* test_session.c - conversations through the public interface, on the bundled model. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base.h"
#include "dwarfstar.h"
#include "hash.h"
#include "kv_disk.h"
#include "rng.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define MODEL "models/pebble"
#define CTX 2048
#define MAX_TOK 1200

static dstar_engine *engine;
static int n_vocab;
static int32_t text[MAX_TOK]; /* a long text's tokens */
static char path[64];

static void must(int code, const struct dstar_error *e)
{
    if (code < 0)
        fail_msg("%d: %s", code, e->text);
}

static dstar_engine *open_engine(int max_rows, int sessions, int simulate)
{
    struct dstar_options o;
    struct dstar_error e = { 0 };
    dstar_engine *en;
    dstar_options_init(&o);
    o.model = MODEL;
    o.ctx = CTX;
    o.max_rows = max_rows;
    o.sessions = sessions;
    o.cache_simulation = simulate;
    must(dstar_open(&en, &o, &e), &e);
    return en;
}

static int open_all(void **state)
{
    (void)state;
    struct dstar_tokens t = { 0 };
    struct dstar_error e;
    char sentence[100];
    engine = open_engine(64, 2, -1);
    n_vocab = dstar_engine_info(engine)->n_vocab;
    for (int i = 0; t.n < MAX_TOK; i++) {
        int n = snprintf(sentence, sizeof sentence, "Note %d: the river took %d stones. ", i,
                         i * 37 % 101);
        must(dstar_tokenise(engine, sentence, (size_t)n, 0, &t, &e), &e);
    }
    memcpy(text, t.id, sizeof text);
    dstar_tokens_release(&t);
    snprintf(path, sizeof path, "/tmp/test_session.%ld", (long)getpid());
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    dstar_close(engine);
    unlink(path);
    return 0;
}

static dstar_session *new_session(dstar_engine *en)
{
    dstar_session *s;
    struct dstar_error e;
    must(dstar_session_new(&s, en, &e), &e);
    return s;
}

static void compute(dstar_session *s)
{
    struct dstar_error e;
    int left;
    do
        must(left = dstar_session_step(s, &e), &e);
    while (left > 0);
}

static void set_and_compute(dstar_session *s, const int32_t *id, int n)
{
    struct dstar_error e;
    must(dstar_session_set(s, id, n, &e), &e);
    compute(s);
}

/* A copy of the logits, which the caller frees. */
static float *take_logits(const dstar_session *s)
{
    const float *now = dstar_logits(s);
    float *copy = malloc((size_t)n_vocab * sizeof *copy);
    assert_non_null(now);
    assert_non_null(copy);
    memcpy(copy, now, (size_t)n_vocab * sizeof *copy);
    return copy;
}

static void expect_logits(const dstar_session *s, const float *want)
{
    assert_non_null(dstar_logits(s));
    assert_memory_equal(dstar_logits(s), want, (size_t)n_vocab * sizeof *want);
}

/* What a session that knows nothing else computes for these tokens. */
static float *fresh_logits(const int32_t *id, int n)
{
    dstar_session *s = new_session(engine);
    set_and_compute(s, id, n);
    float *logits = take_logits(s);
    dstar_session_free(s);
    return logits;
}

static int64_t n_computed(const dstar_session *s)
{
    struct dstar_stats st;
    dstar_session_stats(s, &st);
    return st.n_prefill + st.n_decode;
}

static void test_steps_of_any_size_agree(void **state)
{
    (void)state;
    const int rows[] = { 1, 7, 130 };
    float *want = fresh_logits(text, 150);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        dstar_engine *en = open_engine(rows[i], 1, -1);
        dstar_session *s = new_session(en);
        set_and_compute(s, text, 150);
        expect_logits(s, want);
        dstar_session_free(s);
        dstar_close(en);
    }
    free(want);
}

static void test_only_what_is_new_is_computed(void **state)
{
    (void)state;
    dstar_session *s = new_session(engine);
    struct dstar_stats st;
    set_and_compute(s, text, 200);
    assert_int_equal(n_computed(s), 200);
    set_and_compute(s, text, 230);
    assert_int_equal(n_computed(s), 230);
    dstar_session_stats(s, &st);
    assert_int_equal(st.n_reused, 200);
    /* The same again: nothing at all. */
    float *want = take_logits(s);
    set_and_compute(s, text, 230);
    assert_int_equal(n_computed(s), 230);
    expect_logits(s, want);
    free(want);
    dstar_session_free(s);
}

/* A turn, an answer, and the next prompt, which parts from the first at its last token, as when the
 * marker of thinking is replaced: the prompt is not computed again. */
static void test_next_turn_parts_at_the_end_of_the_prompt(void **state)
{
    (void)state;
    dstar_session *s = new_session(engine);
    struct dstar_sampling p;
    struct dstar_stats st;
    struct dstar_error e;
    int32_t next[400];
    set_and_compute(s, text, 300);
    dstar_sampling_init(&p);
    must(dstar_session_sampling(s, &p, &e), &e);
    for (int i = 0; i < 30; i++) {
        int32_t id;
        must(dstar_sample(s, &id, &e), &e);
        must(dstar_session_append(s, &id, 1, &e), &e);
        must(dstar_session_step(s, &e), &e);
    }
    memcpy(next, text, sizeof next);
    next[299] = text[299] + 1;
    int64_t before = n_computed(s);
    set_and_compute(s, next, 320);
    dstar_session_stats(s, &st);
    assert_int_equal(st.n_reused, 299);
    assert_int_equal(n_computed(s) - before, 21);
    float *want = fresh_logits(next, 320);
    expect_logits(s, want);
    free(want);
    dstar_session_free(s);
}

/* Back to before the last turns: from the mark of an earlier prompt, bit for bit. */
static void test_truncate_goes_back_to_a_mark(void **state)
{
    (void)state;
    dstar_session *s = new_session(engine);
    struct dstar_error e;
    struct dstar_stats st;
    const int turn[] = { 150, 260, 400, 410 };
    for (size_t i = 0; i < COUNT_OF(turn); i++)
        set_and_compute(s, text, turn[i]);
    const int cut[] = { 405, 300, 260, 255, 200, 100 };
    const int from[] = { 404, 260, 259, 254, 150, 0 };
    for (size_t i = 0; i < COUNT_OF(cut); i++) {
        int64_t before = n_computed(s);
        must(dstar_session_truncate(s, cut[i], &e), &e);
        dstar_session_stats(s, &st);
        assert_int_equal(st.n_reused, from[i]);
        compute(s);
        assert_int_equal(n_computed(s) - before, cut[i] - from[i]);
        float *want = fresh_logits(text, cut[i]);
        expect_logits(s, want);
        free(want);
    }
    assert_true(dstar_session_truncate(s, 101, &e) == DSTAR_ARGUMENT);
    assert_true(dstar_session_truncate(s, -1, &e) == DSTAR_ARGUMENT);
    dstar_session_free(s);
}

static void test_long_text_gets_marks_in_passing(void **state)
{
    (void)state;
    struct dstar_options o;
    struct dstar_error e;
    dstar_engine *en;
    struct dstar_stats st;
    int32_t *many = malloc(5000 * sizeof *many);
    assert_non_null(many);
    for (int i = 0; i < 5000; i++)
        many[i] = text[i % MAX_TOK];
    dstar_options_init(&o);
    o.model = MODEL;
    o.ctx = 5000;
    must(dstar_open(&en, &o, &e), &e);
    dstar_session *s = new_session(en);
    set_and_compute(s, many, 4400);
    must(dstar_session_truncate(s, 4300, &e), &e);
    dstar_session_stats(s, &st);
    assert_int_equal(st.n_reused, 4096);
    dstar_session_free(s);
    dstar_close(en);
    free(many);
}

static void test_limits(void **state)
{
    (void)state;
    dstar_session *s = new_session(engine);
    struct dstar_error e;
    int32_t *many = calloc(CTX + 1, sizeof *many), id;
    assert_non_null(many);
    for (int i = 0; i <= CTX; i++)
        many[i] = text[i % MAX_TOK];
    set_and_compute(s, text, 50);
    float *want = take_logits(s);
    assert_int_equal(dstar_session_set(s, many, CTX + 1, &e), DSTAR_LIMIT);
    assert_non_null(strstr(e.text, "2049 tokens are more than the context of 2048"));
    assert_int_equal(dstar_session_append(s, many, CTX - 49, &e), DSTAR_LIMIT);
    many[3] = n_vocab;
    assert_int_equal(dstar_session_set(s, many, 5, &e), DSTAR_ARGUMENT);
    assert_non_null(strstr(e.text, "token 3"));
    many[3] = -1;
    assert_int_equal(dstar_session_append(s, many, 5, &e), DSTAR_ARGUMENT);
    expect_logits(s, want); /* nothing changed */
    free(want);

    must(dstar_session_set(s, text, 0, &e), &e);
    assert_null(dstar_logits(s));
    assert_int_equal(dstar_next(s, &id, &e), DSTAR_ARGUMENT);
    many[3] = 5;
    set_and_compute(s, many, CTX);
    assert_non_null(dstar_logits(s));
    assert_int_equal(dstar_next(s, &id, &e), DSTAR_LIMIT);
    assert_non_null(strstr(e.text, "full"));
    free(many);
    dstar_session_free(s);
}

static void test_only_planned_sessions(void **state)
{
    (void)state;
    struct dstar_error e;
    dstar_session *a = new_session(engine), *b = new_session(engine), *c;
    assert_int_equal(dstar_session_new(&c, engine, &e), DSTAR_LIMIT);
    assert_null(c);
    dstar_session_free(a);
    dstar_session_free(b);
}

static void test_cancel_between_steps(void **state)
{
    (void)state;
    dstar_session *s = new_session(engine);
    struct dstar_error e;
    int n, done;
    int32_t id;
    must(dstar_session_set(s, text, 300, &e), &e);
    must(dstar_session_step(s, &e), &e);
    dstar_cancel(s);
    assert_int_equal(dstar_session_step(s, &e), DSTAR_CANCELLED);
    assert_int_equal(dstar_next(s, &id, &e), DSTAR_CANCELLED);
    dstar_session_tokens(s, &n, &done);
    assert_int_equal(n, 300);
    assert_int_equal(done, 64);
    dstar_uncancel(s);
    set_and_compute(s, text, 300);
    assert_int_equal(n_computed(s), 300);
    float *want = fresh_logits(text, 300);
    expect_logits(s, want);
    free(want);
    dstar_session_free(s);
}

static void *cancel_soon(void *session)
{
    usleep(30000);
    dstar_cancel(session);
    return NULL;
}

static void test_cancel_from_another_thread(void **state)
{
    (void)state;
    dstar_session *s = new_session(engine);
    struct dstar_error e;
    pthread_t thread;
    int code, n, done;
    must(dstar_session_set(s, text, MAX_TOK, &e), &e);
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, s), 0);
    do {
        code = dstar_session_step(s, &e);
        if (code == 0) /* a machine this fast must be kept busy */
            must(dstar_session_set(s, text + 1, MAX_TOK - 1, &e), &e);
    } while (code >= 0);
    assert_int_equal(code, DSTAR_CANCELLED);
    pthread_join(thread, NULL);
    dstar_session_tokens(s, &n, &done);
    assert_true(done <= n);
    dstar_session_free(s);
}

/* ---- files -------------------------------------------------------------------------------- */

static void sample_hotly(dstar_session *s)
{
    struct dstar_sampling p;
    struct dstar_error e;
    dstar_sampling_init(&p);
    p.temperature = 1.5f;
    p.seed = 11;
    p.penalty_last_n = 20;
    p.presence_penalty = 0.5f;
    must(dstar_session_sampling(s, &p, &e), &e);
}

/* n tokens, those that end a turn included (they are drawn again, so the count is kept). */
static void draw(dstar_session *s, int32_t *out, int n)
{
    struct dstar_error e;
    for (int i = 0; i < n; i++)
        must(dstar_next(s, &out[i], &e), &e);
    compute(s);
}

static void test_resume_is_bit_identical(void **state)
{
    (void)state;
    const int prompt[] = { 1, 130, 333 };
    for (size_t i = 0; i < COUNT_OF(prompt); i++) {
        struct dstar_error e;
        int32_t first[20], again[20];
        size_t len;
        dstar_session *a = new_session(engine);
        sample_hotly(a);
        set_and_compute(a, text, prompt[i]);
        draw(a, first, 7);
        must(dstar_session_set_note(a, "a note", 6, &e), &e);
        must(dstar_session_save(a, path, &e), &e);
        draw(a, first, 20);
        float *want = take_logits(a);

        dstar_engine *en = open_engine(16, 1, -1);
        dstar_session *b = new_session(en);
        sample_hotly(b);
        must(dstar_session_load(b, path, &e), &e);
        draw(b, again, 20);
        assert_memory_equal(first, again, sizeof first);
        expect_logits(b, want);
        assert_memory_equal(dstar_session_note(b, &len), "a note", 6);
        assert_int_equal(len, 6);
        /* Marks came along. */
        struct dstar_stats st;
        must(dstar_session_truncate(b, prompt[i], &e), &e);
        dstar_session_stats(b, &st);
        assert_int_equal(st.n_reused, prompt[i] - 1);
        free(want);
        dstar_session_free(a);
        dstar_session_free(b);
        dstar_close(en);
    }
}

static void test_saved_in_the_middle_of_a_prompt(void **state)
{
    (void)state;
    struct dstar_error e;
    int n, done;
    dstar_session *a = new_session(engine), *b = new_session(engine);
    must(dstar_session_set(a, text, 250, &e), &e);
    must(dstar_session_step(a, &e), &e);
    must(dstar_session_save(a, path, &e), &e);
    must(dstar_session_load(b, path, &e), &e);
    dstar_session_tokens(b, &n, &done);
    assert_int_equal(n, 250);
    assert_int_equal(done, 64);
    assert_null(dstar_logits(b));
    set_and_compute(b, text, 250);
    assert_int_equal(n_computed(b), 250 - 64);
    dstar_session_free(a);
    float *want = fresh_logits(text, 250);
    expect_logits(b, want);
    free(want);
    dstar_session_free(b);
}

/* A load that fails, and the session's logits before and after. */
static void expect_refused(dstar_session *s, const float *logits, int code, const char *words)
{
    struct dstar_error e = { 0 };
    int got = dstar_session_load(s, path, &e);
    if (got >= 0 || (code && got != code))
        fail_msg("got %d (%s), expected %d", got, e.text, code);
    if (!strstr(e.text, path) || !strstr(e.text, words) || strchr(e.text, '\n'))
        fail_msg("'%s' does not name the file and say '%s'", e.text, words);
    expect_logits(s, logits);
}

static long file_size(void)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    fclose(f);
    return n;
}

static void flip(long at, int bit)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 1 << bit, f);
    fclose(f);
}

static void test_damaged_files(void **state)
{
    (void)state;
    struct dstar_error e;
    struct rng rng = { 3, 0 };
    dstar_session *a = new_session(engine), *b = new_session(engine);
    set_and_compute(a, text, 400);
    must(dstar_session_save(a, path, &e), &e);
    set_and_compute(b, text + 5, 90);
    float *logits = take_logits(b);
    long size = file_size();
    for (int i = 0; i < 200; i++) {
        long at = (long)(rng_next(&rng) % (uint64_t)size);
        int bit = (int)(rng_next(&rng) % 8);
        flip(at, bit);
        expect_refused(b, logits, 0, "");
        flip(at, bit);
    }
    must(dstar_session_load(b, path, &e), &e); /* whole again */
    set_and_compute(b, text + 5, 90);
    for (long n = size - 1; n > 0; n -= n > size - 50 ? 7 : n / 20 + 1) {
        assert_int_equal(truncate(path, n), 0);
        expect_refused(b, logits, DSTAR_FORMAT, "");
    }
    free(logits);
    dstar_session_free(a);
    dstar_session_free(b);
}

static void test_files_of_others(void **state)
{
    (void)state;
    struct dstar_error e;
    dstar_session *a = new_session(engine);
    set_and_compute(a, text, 100);
    float *logits = take_logits(a);

    dstar_engine *en = open_engine(64, 1, 0);
    dstar_session *b = new_session(en);
    set_and_compute(b, text, 100);
    must(dstar_session_save(b, path, &e), &e);
    expect_refused(a, logits, DSTAR_MISMATCH, "packed is 0, expected 1");
    dstar_session_free(b);
    dstar_close(en);

    /* Another model's identity, everything else right. */
    must(dstar_session_save(a, path, &e), &e);
    struct kv_disk_head h;
    uint8_t head[4096];
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
    head[offsetof(struct kv_disk_head, identity) + 31] ^= 1;
    memcpy(&h, head, sizeof h);
    size_t n = sizeof h + 4 * (size_t)h.n_layer;
    n += sizeof(struct kv_disk_mark) * (size_t)(1 + h.n_mark);
    uint64_t check = hash_of(head, n, 0);
    memcpy(head + n, &check, sizeof check);
    rewind(f);
    assert_int_equal(fwrite(head, 1, sizeof head, f), sizeof head);
    fclose(f);
    expect_refused(a, logits, DSTAR_MISMATCH, "another model");
    unlink(path);
    expect_refused(a, logits, DSTAR_IO, "cannot open");
    free(logits);
    dstar_session_free(a);
}

/* The limit on file size stands in for a full disk. */
static void test_full_disk(void **state)
{
    (void)state;
    struct dstar_error e;
    struct rlimit old, low;
    dstar_session *a = new_session(engine);
    set_and_compute(a, text, 100);
    must(dstar_session_save(a, path, &e), &e);
    float *first = take_logits(a);
    long size = file_size();
    set_and_compute(a, text, 300);
    float *second = take_logits(a);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)size;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    int code = dstar_session_save(a, path, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_true(code < 0);
    assert_non_null(strstr(e.text, path));
    expect_logits(a, second);
    assert_int_equal(file_size(), size);
    must(dstar_session_load(a, path, &e), &e);
    expect_logits(a, first);
    free(first);
    free(second);
    dstar_session_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_of_any_size_agree),
        cmocka_unit_test(test_only_what_is_new_is_computed),
        cmocka_unit_test(test_next_turn_parts_at_the_end_of_the_prompt),
        cmocka_unit_test(test_truncate_goes_back_to_a_mark),
        cmocka_unit_test(test_long_text_gets_marks_in_passing),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_only_planned_sessions),
        cmocka_unit_test(test_cancel_between_steps),
        cmocka_unit_test(test_cancel_from_another_thread),
        cmocka_unit_test(test_resume_is_bit_identical),
        cmocka_unit_test(test_saved_in_the_middle_of_a_prompt),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_files_of_others),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
