/* test_api.c - opening, tokens, chat and answers through the public interface. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "buf.h"
#include "dwarfstar.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define MODEL "models/pebble"
#define N_VOCAB 2304
#define BAR "\xEF\xBD\x9C"
#define EOS "<" BAR "end\xE2\x96\x81of\xE2\x96\x81sentence" BAR ">"
#define DSML BAR "DSML" BAR

static dstar_engine *engine;

static void must(int code, const struct dstar_error *e)
{
    if (code < 0)
        fail_msg("%d: %s", code, e->text);
}

static int open_all(void **state)
{
    (void)state;
    struct dstar_options o;
    struct dstar_error e;
    dstar_options_init(&o);
    o.model = MODEL;
    o.ctx = 2000;
    must(dstar_open(&engine, &o, &e), &e);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    dstar_close(engine);
    return 0;
}

/* ---- opening ------------------------------------------------------------------------------ */

struct watch {
    int n, cancel_at;
    double last;
};

static int watch_progress(void *user, const char *what, double done)
{
    struct watch *w = user;
    assert_non_null(what);
    assert_true(done >= w->last && done <= 1);
    w->last = done;
    return ++w->n == w->cancel_at;
}

/* memory 1: the least; then weights and experts' memory, which take long, are told about, too. */
static void cancel_opening(uint64_t memory, int least_n)
{
    struct dstar_options o;
    struct dstar_error e;
    struct watch w = { 0 };
    dstar_engine *en;
    dstar_options_init(&o);
    o.model = MODEL;
    o.ctx = 512;
    o.memory_bytes = memory;
    o.progress = watch_progress;
    o.progress_user = &w;
    must(dstar_open(&en, &o, &e), &e);
    dstar_close(en);
    assert_true(w.last == 1);
    int n = w.n;
    assert_true(n >= least_n);
    for (int at = 1; at <= n; at += MAX(n / 10, 1)) {
        w = (struct watch){ .cancel_at = at };
        assert_int_equal(dstar_open(&en, &o, &e), DSTAR_CANCELLED);
        assert_null(en);
        assert_int_equal(w.n, at); /* nobody is asked again */
    }
}

static void test_progress_and_its_cancellation(void **state)
{
    (void)state;
    cancel_opening(0, 4);
    cancel_opening(1, 100);
}

static void test_what_cannot_be_opened(void **state)
{
    (void)state;
    struct dstar_options good, o;
    dstar_options_init(&good);
    good.model = MODEL;
    good.ctx = 512;
    struct {
        struct dstar_options o;
        int code;
        const char *words;
    } cases[9];
    for (int i = 0; i < 9; i++)
        cases[i].o = good;
#define CASE(i, field, value, c, w) \
    (cases[i].o.field = (value), cases[i].code = (c), cases[i].words = (w))
    CASE(0, model, "no/such/model.gguf", DSTAR_IO, "no/such/model.gguf");
    CASE(1, model, NULL, DSTAR_ARGUMENT, "model is missing");
    CASE(2, device, "toaster", DSTAR_ARGUMENT, "toaster");
    CASE(3, cpu, "z80", DSTAR_ARGUMENT, "z80");
    CASE(4, sessions, 0, DSTAR_ARGUMENT, "sessions is 0");
    CASE(5, max_rows, -1, DSTAR_ARGUMENT, "max_rows is -1");
    CASE(6, profile, 7, DSTAR_ARGUMENT, "profile is 7");
    CASE(7, ctx, -5, DSTAR_ARGUMENT, "ctx is -5");
    CASE(8, memory_bytes, 1000, DSTAR_NO_MEMORY, "MiB of memory for 1048576 tokens");
    cases[8].o.ctx = 1 << 20;
    for (int i = 0; i < 9; i++) {
        dstar_engine *en;
        struct dstar_error e = { 0 };
        o = cases[i].o;
        int code = dstar_open(&en, &o, &e);
        if (code != cases[i].code || !strstr(e.text, cases[i].words))
            fail_msg("case %d: %d '%s', expected %d '%s'", i, code, e.text, cases[i].code,
                     cases[i].words);
        assert_null(en);
        assert_int_equal(e.code, code);
    }
}

static void test_info(void **state)
{
    (void)state;
    const struct dstar_info *i = dstar_engine_info(engine);
    assert_string_equal(i->name, "pebble");
    assert_string_equal(i->format, "checkpoint");
    assert_non_null(strstr(i->device, "cpu"));
    assert_int_equal(i->n_layer, 7);
    assert_int_equal(i->n_vocab, N_VOCAB);
    assert_int_equal(i->cache_simulation, 1);
    assert_int_equal(i->profile, DSTAR_PROFILE_PREVIEW);
    assert_int_equal(i->ctx, 2000);
    assert_true(i->plan.mapped > 31000000 && i->plan.mapped < 33000000);
    assert_true(i->plan.total >= i->plan.scratch + i->plan.session + i->plan.cache);
    assert_true(i->plan.cache_per_token > 100);
    assert_string_equal(dstar_version(), DSTAR_VERSION);
}

static void test_only_tokens(void **state)
{
    (void)state;
    struct dstar_options o;
    struct dstar_error e;
    dstar_engine *en;
    dstar_session *s;
    struct dstar_tokens t = { 0 };
    dstar_options_init(&o);
    o.model = MODEL;
    o.part = DSTAR_TOKENS;
    must(dstar_open(&en, &o, &e), &e);
    must(dstar_tokenise(en, "hello", 5, 0, &t, &e), &e);
    assert_true(t.n > 0);
    assert_int_equal(dstar_session_new(&s, en, &e), DSTAR_ARGUMENT);
    struct dstar_text_eval job = { .id = t.id, .n = t.n };
    assert_int_equal(dstar_eval(en, &job, &e), DSTAR_ARGUMENT);
    dstar_tokens_release(&t);
    dstar_close(en);
}

/* ---- tokens ------------------------------------------------------------------------------- */

static const char *const sample =
    "Gr\xC3\xBC\xC3\x9F""e, \xE4\xB8\x96\xE7\x95\x8C! \xF0\x9F\xAA\xA8 <think>x</think>\n 12345";

static void test_text_and_back(void **state)
{
    (void)state;
    struct dstar_error e;
    for (int special = 0; special < 2; special++) {
        struct dstar_tokens t = { 0 };
        char *back;
        size_t len;
        int32_t think = dstar_token_find(engine, "<think>");
        must(dstar_tokenise(engine, sample, strlen(sample), special, &t, &e), &e);
        bool has_marker = false;
        for (int i = 0; i < t.n; i++)
            has_marker |= t.id[i] == think;
        assert_int_equal(has_marker, special);
        must(dstar_detokenise(engine, t.id, t.n, 1, &back, &len, &e), &e);
        assert_int_equal(len, strlen(sample));
        assert_string_equal(back, sample);
        dstar_free(back);
        must(dstar_detokenise(engine, t.id, t.n, 0, &back, &len, &e), &e);
        assert_int_equal(strstr(back, "<think>") == NULL, special);
        dstar_free(back);
        dstar_tokens_release(&t);
    }
    assert_int_equal(dstar_token_find(engine, "no such marker"), -1);
    assert_null(dstar_token_bytes(engine, N_VOCAB, &(size_t){ 0 }));
    assert_true(dstar_token_is_stop(engine, dstar_token_find(engine, EOS)));
    assert_false(dstar_token_is_stop(engine, 100));
}

/* Characters come whole, though a token may end inside of one. */
static void test_text_as_it_comes(void **state)
{
    (void)state;
    struct dstar_error e;
    struct dstar_tokens t = { 0 };
    struct buf all;
    dstar_text *text;
    int n_empty = 0;
    must(dstar_tokenise(engine, sample, strlen(sample), 1, &t, &e), &e);
    must(dstar_text_new(&text, engine, 1, &e), &e);
    buf_init(&all, 1000);
    for (int i = 0; i < t.n; i++) {
        size_t len;
        const char *piece = dstar_text_push(text, t.id[i], &len);
        assert_int_equal(strlen(piece), len);
        assert_true(len == 0 || ((unsigned char)piece[0] & 0xC0) != 0x80);
        n_empty += len == 0;
        buf_add(&all, piece, len);
    }
    assert_true(n_empty > 0);
    assert_string_equal(all.data, sample);
    assert_string_equal(dstar_text_end(text, NULL), "");
    dstar_text_free(text);
    dstar_tokens_release(&t);
    buf_release(&all);
}

static void *tokenise_much(void *result)
{
    struct dstar_error e;
    struct dstar_tokens t = { 0 };
    for (int i = 0; i < 300; i++) {
        t.n = 0;
        if (dstar_tokenise(engine, sample, strlen(sample), i % 2, &t, &e) < 0)
            return NULL;
    }
    *(int *)result = t.n;
    dstar_tokens_release(&t);
    return NULL;
}

static void test_tokens_from_many_threads(void **state)
{
    (void)state;
    pthread_t thread[4];
    int n[4] = { 0 };
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, tokenise_much, &n[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < 4; i++)
        assert_true(n[i] > 10 && n[i] == n[0]);
}

/* ---- chat --------------------------------------------------------------------------------- */

static void expect_prompt(const struct dstar_chat *chat, const char *want, int in_reasoning)
{
    struct dstar_error e;
    struct dstar_prompt p = { 0 };
    char *text;
    must(dstar_chat_render(engine, chat, &p, &e), &e);
    must(dstar_chat_render(engine, chat, &p, &e), &e); /* replaces the first */
    must(dstar_detokenise(engine, p.tokens.id, p.tokens.n, 1, &text, NULL, &e), &e);
    if (!strstr(text, want))
        fail_msg("'%s' is not in '%s'", want, text);
    assert_int_equal(p.in_reasoning, in_reasoning);
    assert_int_equal(p.leading, 1);
    dstar_free(text);
    dstar_tokens_release(&p.tokens);
}

static void test_prompts(void **state)
{
    (void)state;
    struct dstar_chat c;
    struct dstar_error e;
    struct dstar_prompt p = { 0 };
    dstar_chat_init(&c);
    c.messages = "[{\"role\": \"user\", \"content\": \"Hi <" BAR "User" BAR ">\"}]";
    expect_prompt(&c, "<" BAR "Assistant" BAR "></think>", 0);
    c.think = DSTAR_THINK_HIGH;
    expect_prompt(&c, "<" BAR "Assistant" BAR "><think>", 1);
    c.tools = "[{\"type\": \"function\", \"function\": {\"name\": \"add\", \"parameters\": {}}}]";
    expect_prompt(&c, "\"name\": \"add\"", 1);
    c.messages = "[{\"role\": \"user\"";
    assert_int_equal(dstar_chat_render(engine, &c, &p, &e), DSTAR_FORMAT);
    c.messages = NULL;
    assert_int_equal(dstar_chat_render(engine, &c, &p, &e), DSTAR_ARGUMENT);
    c.messages = "[]";
    c.think = 9;
    assert_int_equal(dstar_chat_render(engine, &c, &p, &e), DSTAR_ARGUMENT);
    assert_int_equal(dstar_think_of(engine, "max"), DSTAR_THINK_MAX);
    assert_int_equal(dstar_think_of(engine, "none"), DSTAR_THINK_NONE);
    assert_int_equal(dstar_think_of(engine, "sideways"), -1);
}

struct answer {
    struct buf reasoning, content, args;
    char name[32], id[64];
    int n_begin, n_end, finish, n_finished, stop;
};

static void on_event(void *user, const struct dstar_event *ev)
{
    struct answer *a = user;
    switch (ev->kind) {
    case DSTAR_REASONING: buf_add(&a->reasoning, ev->text, ev->len); break;
    case DSTAR_CONTENT: buf_add(&a->content, ev->text, ev->len); break;
    case DSTAR_CALL_ARGS: buf_add(&a->args, ev->text, ev->len); break;
    case DSTAR_CALL_END: a->n_end += ev->complete; break;
    case DSTAR_CALL_BEGIN:
        snprintf(a->name, sizeof a->name, "%s", ev->name);
        snprintf(a->id, sizeof a->id, "%s", ev->id);
        a->n_begin++;
        break;
    case DSTAR_FINISHED:
        a->finish = ev->finish;
        a->stop = ev->stop;
        a->n_finished++;
        break;
    default: break;
    }
}

static void answer_init(struct answer *a)
{
    *a = (struct answer){ .finish = -1 };
    buf_init(&a->reasoning, 10000);
    buf_init(&a->content, 10000);
    buf_init(&a->args, 10000);
}

static void answer_release(struct answer *a)
{
    buf_release(&a->reasoning);
    buf_release(&a->content);
    buf_release(&a->args);
}

/* Give the tokens of `text` to a parser of answers to `chat`. */
static void parse(struct answer *a, struct dstar_chat *chat, const char *text)
{
    struct dstar_error e;
    struct dstar_tokens t = { 0 };
    struct dstar_prompt p = { 0 };
    dstar_parser *parser;
    answer_init(a);
    chat->on_event = on_event;
    chat->on_event_user = a;
    must(dstar_chat_render(engine, chat, &p, &e), &e);
    must(dstar_parser_new(&parser, engine, chat, &p, &e), &e);
    must(dstar_tokenise(engine, text, strlen(text), 1, &t, &e), &e);
    int more = 1;
    for (int i = 0; i < t.n && more > 0; i++)
        must(more = dstar_parser_push(parser, t.id[i], &e), &e);
    must(dstar_parser_end(parser, more, &e), &e);
    dstar_parser_free(parser);
    dstar_tokens_release(&t);
    dstar_tokens_release(&p.tokens);
}

static void test_answers_are_taken_apart(void **state)
{
    (void)state;
    struct answer a;
    struct dstar_chat c;
    const char *stop = "END";
    dstar_chat_init(&c);
    c.messages = "[{\"role\": \"user\", \"content\": \"Hi\"}]";
    c.think = DSTAR_THINK_HIGH;
    parse(&a, &c, "Let me see.</think>Hello!" EOS);
    assert_string_equal(a.reasoning.data, "Let me see.");
    assert_string_equal(a.content.data, "Hello!");
    assert_int_equal(a.finish, DSTAR_FINISH_STOP);
    assert_int_equal(a.n_finished, 1);
    answer_release(&a);

    c.think = DSTAR_THINK_NONE;
    c.stop = &stop;
    c.n_stop = 1;
    parse(&a, &c, "one EN two END three");
    assert_string_equal(a.content.data, "one EN two ");
    assert_int_equal(a.stop, 0);
    answer_release(&a);

    parse(&a, &c, "cut off");
    assert_string_equal(a.content.data, "cut off");
    assert_int_equal(a.finish, DSTAR_FINISH_LENGTH);
    answer_release(&a);
}

static void test_tool_calls_are_found(void **state)
{
    (void)state;
    struct answer a;
    struct dstar_chat c;
    dstar_chat_init(&c);
    c.messages = "[{\"role\": \"user\", \"content\": \"2 and 3?\"}]";
    c.tools = "[{\"type\": \"function\", \"function\": {\"name\": \"add\", \"parameters\": "
              "{\"type\": \"object\", \"properties\": {\"x\": {\"type\": \"integer\"}}}}}]";
    parse(&a, &c, "I add.\n\n<" DSML "tool_calls>\n<" DSML "invoke name=\"add\">\n"
                  "<" DSML "parameter name=\"x\" string=\"false\">2</" DSML "parameter>\n"
                  "</" DSML "invoke>\n</" DSML "tool_calls>" EOS);
    assert_string_equal(a.content.data, "I add.");
    assert_string_equal(a.name, "add");
    assert_string_equal(a.args.data, "{\"x\": 2}");
    assert_int_equal(a.n_begin, 1);
    assert_int_equal(a.n_end, 1);
    assert_int_equal(strncmp(a.id, "call_", 5), 0);
    assert_int_equal(a.finish, DSTAR_FINISH_CALLS);
    answer_release(&a);
}

/* ---- answers of the model ----------------------------------------------------------------- */

static dstar_session *asked(const char *messages, const struct dstar_sampling *sampling)
{
    struct dstar_error e;
    struct dstar_prompt p = { 0 };
    struct dstar_chat c;
    dstar_session *s;
    dstar_chat_init(&c);
    c.messages = messages;
    must(dstar_chat_render(engine, &c, &p, &e), &e);
    must(dstar_session_new(&s, engine, &e), &e);
    must(dstar_session_sampling(s, sampling, &e), &e);
    must(dstar_session_set(s, p.tokens.id, p.tokens.n, &e), &e);
    dstar_tokens_release(&p.tokens);
    return s;
}

static void test_model_greets(void **state)
{
    (void)state;
    struct dstar_error e;
    struct dstar_sampling sampling;
    struct dstar_stats st;
    dstar_text *text;
    struct buf said;
    int32_t id;
    int n = 0;
    dstar_sampling_init(&sampling);
    sampling.temperature = 0;
    dstar_session *s = asked("[{\"role\": \"user\", \"content\": \"Hello\"}]", &sampling);
    must(dstar_text_new(&text, engine, 0, &e), &e);
    buf_init(&said, 1000);
    for (int more = 1; more == 1 && n < 60; n++) {
        must(more = dstar_next(s, &id, &e), &e);
        if (more)
            buf_puts(&said, dstar_text_push(text, id, NULL));
    }
    print_message("%s\n", said.data);
    assert_in_range(n, 3, 59); /* it stops by itself */
    assert_true(dstar_token_is_stop(engine, id));
    assert_non_null(strstr(said.data, "ello"));
    dstar_session_stats(s, &st);
    assert_true(st.first_token_s > 0 && st.prefill_s > 0 && st.decode_s > 0);
    assert_int_equal(st.n_decode, n - 1);
    assert_int_equal(st.n_tok, st.n_computed);
    assert_true(st.mark_bytes > 0 && st.cache_bytes > 0 && st.state_bytes > 0);
    dstar_text_free(text);
    buf_release(&said);
    dstar_session_free(s);
}

/* However hot: no placeholders, and nothing that is banned. */
static void test_control_tokens_are_not_drawn(void **state)
{
    (void)state;
    struct dstar_error e;
    struct dstar_sampling sampling;
    const int32_t allowed[] = {
        dstar_token_find(engine, EOS), dstar_token_find(engine, "</think>"),
        dstar_token_find(engine, DSML),
    };
    const int32_t banned[] = { 300, 301, 302 };
    int seen_stop = 0;
    dstar_sampling_init(&sampling);
    sampling.temperature = 1000;
    sampling.banned = banned;
    sampling.n_banned = 3;
    dstar_session *s = asked("[{\"role\": \"user\", \"content\": \"Hello\"}]", &sampling);
    while (dstar_session_step(s, &e) > 0)
        ;
    for (int i = 0; i < 30000; i++) {
        int32_t id;
        size_t len;
        must(dstar_sample(s, &id, &e), &e);
        assert_true(id < 300 || id > 302);
        const char *bytes = dstar_token_bytes(engine, id, &len);
        assert_non_null(bytes);
        char *marker = calloc(1, len + 1);
        assert_non_null(marker);
        memcpy(marker, bytes, len);
        bool is_added = dstar_token_find(engine, marker) == id;
        free(marker);
        if (is_added && id != allowed[0] && id != allowed[1] && id != allowed[2])
            fail_msg("drew %d, %.*s", id, (int)len, bytes);
        seen_stop += id == allowed[0];
    }
    assert_true(seen_stop > 0);
    dstar_session_free(s);
}

static void test_probabilities(void **state)
{
    (void)state;
    struct dstar_error e;
    struct dstar_sampling sampling;
    struct dstar_candidate top[N_VOCAB];
    double sum = 0;
    dstar_sampling_init(&sampling);
    dstar_session *s = asked("[{\"role\": \"user\", \"content\": \"Hello\"}]", &sampling);
    while (dstar_session_step(s, &e) > 0)
        ;
    const float *logits = dstar_logits(s);
    assert_int_equal(dstar_top(logits, N_VOCAB, top, N_VOCAB), N_VOCAB);
    for (int i = 0; i < N_VOCAB; i++) {
        sum += exp(top[i].logprob);
        assert_true(i == 0 || logits[top[i].id] <= logits[top[i - 1].id]);
    }
    assert_true(fabs(sum - 1) < 1e-4);
    struct dstar_candidate few[3];
    assert_int_equal(dstar_top(logits, N_VOCAB, few, 3), 3);
    assert_memory_equal(few, top, sizeof few);
    assert_int_equal(dstar_top(logits, 2, top, 5), 2);
    assert_true(fabs(dstar_logprob(logits, N_VOCAB, few[1].id) - few[1].logprob) < 1e-6);
    assert_int_equal(dstar_top(logits, N_VOCAB, few, 0), 0);
    dstar_session_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress_and_its_cancellation),
        cmocka_unit_test(test_what_cannot_be_opened),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_only_tokens),
        cmocka_unit_test(test_text_and_back),
        cmocka_unit_test(test_text_as_it_comes),
        cmocka_unit_test(test_tokens_from_many_threads),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_answers_are_taken_apart),
        cmocka_unit_test(test_tool_calls_are_found),
        cmocka_unit_test(test_model_greets),
        cmocka_unit_test(test_control_tokens_are_not_drawn),
        cmocka_unit_test(test_probabilities),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
