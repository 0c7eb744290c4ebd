/* test_cuda_draw.c - tokens drawn where the logits are: what the sampler draws on the host from the
 * same logits with the same random numbers, for every setting; and in conversations, where logits
 * come to the host when somebody asks for them, and not before. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda_dev.h"
#include "engine.h"
#include "session.h"

#ifdef CUDA_ON_CARD
static void emu_set_order(int order)
{
    (void)order;
}
#else
void emu_set_order(int order);
#endif

static struct dstar_error error;

/* ---- rows of numbers ------------------------------------------------------------------------- */

#define MOST_VOCAB 9000
#define N_ROW 19 /* more than a launch takes */

struct row_of {
    struct sampler host, there;
    uint64_t host_mask[MOST_VOCAB / 64 + 1], there_mask[MOST_VOCAB / 64 + 1];
    struct draw draw;
    float logits[MOST_VOCAB];
    int kind;
};

static struct row_of row[N_ROW];
static struct dev *gpu;
static struct sampler_work work;
static int n_vocab;

static void *on_gpu(size_t bytes)
{
    struct err e = { 0 };
    void *p;
    assert_int_equal(cuda_memory_new(gpu, &p, bytes, &e), 0);
    return p;
}

static void take_all(void)
{
    struct backend_options o = { 0 };
    struct err e = { 0 };
    assert_int_equal(cuda_open(&gpu, 0, &o, &e), 0);
    arena_init(&gpu->scratch, on_gpu(4096), 4096);
    for (int i = 0; i < N_ROW; i++) {
        void *out;
        assert_int_equal(cuda_host_new(gpu, &out, sizeof *row[i].draw.out, &e), 0);
        row[i].draw = (struct draw){
            .logits = on_gpu(sizeof row[i].logits),
            .kept = on_gpu(sizeof row[i].logits),
            .allowed = on_gpu(sizeof row[i].there_mask),
            .group = on_gpu((size_t)draw_groups(MOST_VOCAB) * sizeof(struct draw_group)),
            .out = out,
        };
    }
}

static void give_all_back(void)
{
    for (int i = 0; i < N_ROW; i++) {
        cuda_memory_free(gpu, (void *)(uintptr_t)row[i].draw.logits);
        cuda_memory_free(gpu, row[i].draw.kept);
        cuda_memory_free(gpu, row[i].draw.allowed);
        cuda_memory_free(gpu, row[i].draw.group);
        cuda_host_free(gpu, row[i].draw.out);
    }
    cuda_memory_free(gpu, gpu->scratch.mem);
    cuda_close(gpu);
}

/* Logits of a kind; those from DAMAGED on are no logits. */
enum { NORMAL, FLAT, STEPS, PEAK, EQUAL, ZEROS, HOLES, HUGE_ONES, ONE_LEFT, DAMAGED, INFINITE,
       NONE_LEFT, N_KIND };

static float one_logit(int kind, int i, struct rng *r)
{
    double x = -6;
    for (int k = 0; k < 12; k++)
        x += rng_unit(r);
    bool rare = rng_next(r) % 97 == 0;
    switch (kind) {
    case FLAT: return (float)(x * .1);
    case STEPS: return (float)(floor(x * 4) / 2);
    case PEAK: return (float)(x + (i == n_vocab / 3 ? 25 : 0));
    case EQUAL: return -3.25f;
    case ZEROS: return rare ? -1 : rng_next(r) % 2 ? 0.f : -0.f;
    case HOLES: return rng_next(r) % 3 ? -INFINITY : (float)(4 * x);
    case HUGE_ONES: return (float)(x * 1e37);
    case ONE_LEFT: return i == n_vocab / 2 ? -7 : -INFINITY;
    case NONE_LEFT: return -INFINITY;
    default: return (float)(3 * x);
    }
}

static void fill(struct row_of *w, int kind, struct rng *r)
{
    w->kind = kind;
    for (int i = 0; i < n_vocab; i++)
        w->logits[i] = one_logit(kind, i, r);
    if (kind == DAMAGED)
        w->logits[rng_next(r) % (uint64_t)n_vocab] = NAN;
    if (kind == INFINITE)
        w->logits[rng_next(r) % (uint64_t)n_vocab] = INFINITY;
}

static const struct dstar_sampling settings[] = {
    { .temperature = 0 },
    { .temperature = 1 },
    { .temperature = .6f },
    { .temperature = 1000 },
    { .temperature = 1e-30f },
    { .temperature = 1, .top_p = .95f },
    { .temperature = .7f, .top_p = .5f, .min_p = .05f },
    { .temperature = 1, .min_p = .05f },
    { .temperature = 1.5f, .min_p = 1 },
    { .temperature = 1, .top_k = 1 },
    { .temperature = 1, .top_k = 40 },
    { .temperature = .8f, .top_k = 40, .top_p = .9f },
    { .temperature = 1, .top_k = 200, .min_p = .01f },
    { .temperature = 1, .top_k = DRAW_MOST + 1 },
    { .temperature = 0, .top_k = 3, .top_p = .2f, .min_p = .9f },
    { .temperature = 1, .presence_penalty = .5f, .penalty_last_n = -1 },
};

static void set(struct row_of *w, const struct dstar_sampling *p, struct rng *r)
{
    static uint64_t base[MOST_VOCAB / 64 + 1];
    struct dstar_sampling q = *p;
    uint64_t banned = rng_next(r) % 3;
    for (size_t i = 0; i < COUNT_OF(base); i++)
        base[i] = banned == 0 ? UINT64_MAX : banned == 1 ? rng_next(r) | rng_next(r)
                                           : rng_next(r) % 4 ? rng_next(r) : 0;
    sampler_mask_set(base, n_vocab / 2, true);
    q.top_p = q.top_p > 0 ? q.top_p : 1;
    q.repeat_penalty = 1;
    q.seed = rng_next(r);
    sampler_init(&w->host, n_vocab, w->host_mask, &work);
    sampler_init(&w->there, n_vocab, w->there_mask, &work);
    assert_int_equal(sampler_set(&w->host, &q, base, NULL), 0);
    assert_int_equal(sampler_set(&w->there, &q, base, NULL), 0);
}

/* Whether the device has to know the token. Lists have what a peaked distribution needs, where
 * there are blocks enough to tell the best by. */
static bool must_know(const struct row_of *w)
{
    const struct dstar_sampling *p = &w->host.p;
    if (p->presence_penalty != 0 || p->top_k > DRAW_MOST)
        return false;
    if (p->temperature == 0 || (p->top_k == 0 && p->top_p == 1 && p->min_p == 0))
        return true;
    if (p->top_k == 0 && p->top_p < 1)
        return w->kind == PEAK && n_vocab >= 5000;
    return (w->kind == NORMAL || w->kind == PEAK) && n_vocab > 128 * MAX(1, p->top_k);
}

/* Sums of weights, which decide one draw in 2^50 or so when they differ: bit for bit. */
static void same_sums(const struct row_of *w)
{
    static struct draw_group group[MOST_VOCAB / DRAW_BLOCK / DRAW_GROUP + 1];
    struct err e = { 0 };
    size_t bytes = (size_t)draw_groups(n_vocab) * sizeof *group;
    assert_int_equal(dev_copy_now(gpu, group, w->draw.group, bytes, &e), 0);
    for (int b = 0; b < (n_vocab + DRAW_BLOCK - 1) / DRAW_BLOCK; b++)
        assert_memory_equal(&group[b / DRAW_GROUP].upto[b % DRAW_GROUP], &work.block[b].upto, 8);
}

static int compare(struct row_of *w, struct rng *r)
{
    static float kept[MOST_VOCAB];
    const int32_t past[] = { 0, (int32_t)(rng_next(r) % (uint64_t)n_vocab) };
    struct err e = { 0 };
    int32_t want = -1, got = -1;
    assert_int_equal(dev_copy_now(gpu, kept, w->draw.kept, (size_t)n_vocab * 4, &e), 0);
    assert_memory_equal(kept, w->logits, (size_t)n_vocab * 4);
    int code = sampler_pick(&w->host, w->logits, past, 2, &want, &e);
    if (code == 0 && w->draw.kind == DRAW_ONE)
        same_sums(w);
    bool knows = sampler_take(&w->there, &w->draw, &got);
    if (knows ? code < 0 || got != want || w->host.rng.n != w->there.rng.n
              : code == 0 && must_know(w))
        fail_msg("%d tokens of kind %d, temperature %g, top_k %d, top_p %g, min_p %g: %s, token "
                 "%d, expected %d", n_vocab, w->kind, (double)w->host.p.temperature,
                 w->host.p.top_k, (double)w->host.p.top_p, (double)w->host.p.min_p,
                 knows ? "drawn" : "not drawn", got, want);
    w->there.rng = w->host.rng;
    return knows;
}

/* n rows at once, of settings and kinds in turns. Returns how many tokens the device knew. */
static int draw_rows(int n, int turn, struct rng *r)
{
    struct draw draw[N_ROW];
    struct err e = { 0 };
    int n_known = 0;
    for (int i = 0; i < n; i++) {
        struct row_of *w = &row[i];
        int at = turn + i;
        fill(w, at / (int)COUNT_OF(settings) % N_KIND, r);
        set(w, &settings[at % (int)COUNT_OF(settings)], r);
        assert_int_equal(dev_copy_now(gpu, (void *)(uintptr_t)w->draw.logits, w->logits,
                                      (size_t)n_vocab * 4, &e), 0);
        assert_int_equal(dev_copy_now(gpu, w->draw.allowed, w->there_mask,
                                      sampler_mask_bytes(n_vocab), &e), 0);
        memset(w->draw.out, 0x5a, sizeof *w->draw.out);
    }
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < n; i++) {
            sampler_ask(&row[i].there, &row[i].draw);
            draw[i] = row[i].draw;
        }
        dev_begin(gpu);
        dev_draw(gpu, draw, n, n_vocab);
        assert_int_equal(dev_wait(gpu, &e), 0);
        for (int i = 0; i < n; i++)
            n_known += compare(&row[i], r);
    }
    return n_known;
}

static void draws_the_same(void **state)
{
    static const int sizes[] = { 1, 63, 65, 500, 2048, 2049, 5000, MOST_VOCAB };
    struct rng r = { .seed = 3 };
    int n_turn = (int)COUNT_OF(settings) * N_KIND, n_known = 0, n_all = 0;
    (void)state;
    void *mem = aligned_alloc(64, round_up(sampler_work_bytes(MOST_VOCAB), 64));
    assert_non_null(mem);
    memset(mem, 0, sampler_work_bytes(MOST_VOCAB));
    take_all();
    for (size_t k = 0; k < COUNT_OF(sizes); k++) {
        n_vocab = sizes[k];
        sampler_work_init(&work, n_vocab, mem);
        for (int turn = 0, n; turn < n_turn; turn += n) {
            n = turn % 3 ? 1 : N_ROW;
            emu_set_order(turn % 3);
            n_known += draw_rows(n, turn, &r);
            n_all += 2 * n;
        }
        memset(mem, 0, sampler_work_bytes(MOST_VOCAB));
    }
    emu_set_order(0);
    print_message("%d of %d tokens were drawn on the device\n", n_known, n_all);
    give_all_back();
    free(mem);
}

/* A random number just where one token's share ends and the next one's begins. */
static void draws_on_borders(void **state)
{
    struct rng r = { .seed = 8 };
    struct err e = { 0 };
    (void)state;
    n_vocab = 4500;
    void *mem = aligned_alloc(64, round_up(sampler_work_bytes(n_vocab), 64));
    assert_non_null(mem);
    memset(mem, 0, sampler_work_bytes(n_vocab));
    sampler_work_init(&work, n_vocab, mem);
    take_all();
    struct row_of *w = row;
    fill(w, EQUAL, &r); /* every weight is 1: sums are whole numbers */
    set(w, &settings[1], &r);
    memset(w->there_mask, 0xff, sizeof w->there_mask);
    assert_int_equal(dev_copy_now(gpu, (void *)(uintptr_t)w->draw.logits, w->logits,
                                  (size_t)n_vocab * 4, &e), 0);
    assert_int_equal(dev_copy_now(gpu, w->draw.allowed, w->there_mask,
                                  sampler_mask_bytes(n_vocab), &e), 0);
    for (int i = 0; i < n_vocab; i += i % 64 == 0 || i % 64 == 62 ? 1 : 31) {
        for (int side = -1; side < 2; side++) {
            sampler_ask(&w->there, &w->draw);
            double unit = (i + (side < 0 ? .5 : side)) / n_vocab;
            w->draw.unit = unit < 1 ? unit : 1 - 0x1p-53;
            dev_begin(gpu);
            dev_draw(gpu, &w->draw, 1, n_vocab);
            assert_int_equal(dev_wait(gpu, &e), 0);
            assert_int_equal(w->draw.out->id, (int)(n_vocab * w->draw.unit));
        }
    }
    give_all_back();
    free(mem);
}

/* ---- conversations --------------------------------------------------------------------------- */

static dstar_engine *open_gpu(void)
{
    struct dstar_options o;
    char path[512];
    dstar_engine *engine = NULL;
    snprintf(path, sizeof path, "%s/pebble.gguf", getenv("DSTAR_BUILD"));
    dstar_options_init(&o);
    o.model = path;
    o.device = "cuda";
    o.ctx = 512;
    o.sessions = 2;
    if (dstar_open(&engine, &o, &error) < 0)
        fail_msg("%s", error.text);
    return engine;
}

/* A conversation, and a sampler on the host that is to draw the same. */
struct pair {
    dstar_session *s;
    struct sampler host;
    uint64_t *mask;
    int32_t last;
};

static void open_pair(struct pair *p, dstar_engine *e, const struct dstar_sampling *how)
{
    struct engine *en = engine_of(e);
    static const int32_t begin[] = { 40, 300, 77, 21 };
    p->mask = malloc(sampler_mask_bytes(en->rules.n_vocab));
    assert_non_null(p->mask);
    sampler_init(&p->host, en->rules.n_vocab, p->mask, &en->sampling);
    assert_int_equal(sampler_set(&p->host, how, en->rules.allowed, NULL), 0);
    assert_int_equal(dstar_session_new(&p->s, e, &error), 0);
    assert_int_equal(dstar_session_sampling(p->s, how, &error), 0);
    assert_int_equal(dstar_session_set(p->s, begin, 4, &error), 0);
}

static void close_pair(struct pair *p)
{
    dstar_session_free(p->s);
    free(p->mask);
}

static int32_t sample(struct pair *p)
{
    int32_t id;
    if (dstar_sample(p->s, &id, &error) < 0)
        fail_msg("%s", error.text);
    return id;
}

static int32_t expected(struct pair *p)
{
    const struct session *s = session_of(p->s);
    int32_t id;
    assert_int_equal(sampler_pick(&p->host, dstar_logits(p->s), s->kv.token, s->kv.n_tok, &id,
                                  NULL), 0);
    return id;
}

static void step(struct pair *p)
{
    int left;
    do {
        left = dstar_session_step(p->s, &error);
        assert_true(left >= 0);
    } while (left > 0);
}

static void how(struct dstar_sampling *p, int i)
{
    dstar_sampling_init(p);
    p->seed = 7 + (uint64_t)i;
    p->temperature = i == 1 ? 0 : 1;
    p->top_p = i == 2 ? .9f : 1;
    p->top_k = i == 2 ? 20 : 0; /* by top_p alone the vocabulary is too small for a list */
    p->min_p = i == 3 ? .1f : 0;
}

/* Two take turns; one's logits outlive the other's steps. */
static void says_the_same(void **state)
{
    (void)state;
    dstar_engine *e = open_gpu();
    for (int i = 0; i < 4; i++) {
        struct dstar_sampling p;
        struct pair two[2];
        how(&p, i);
        open_pair(&two[0], e, &p);
        open_pair(&two[1], e, &p);
        for (int k = 0; k < 6; k++) {
            for (int j = 0; j < 2; j++) {
                step(&two[j]);
                two[j].last = sample(&two[j]);
                assert_true(session_of(two[j].s)->is_far); /* nobody has looked at its logits */
            }
            for (int j = 0; j < 2; j++) {
                assert_int_equal(two[j].last, expected(&two[j]));
                assert_int_equal(sample(&two[j]), expected(&two[j])); /* from the same logits */
                assert_int_equal(dstar_session_append(two[j].s, &two[j].last, 1, &error), 0);
            }
        }
        close_pair(&two[0]);
        close_pair(&two[1]);
    }
    dstar_close(e);
}

/* What was drawn is not taken for what is asked after other settings, a failed step, a loaded file:
 * then it is drawn again, from logits that are still there. */
static void draws_again(void **state)
{
    (void)state;
    dstar_engine *e = open_gpu();
    struct engine *en = engine_of(e);
    struct dstar_sampling p;
    struct pair a;
    how(&p, 0);
    open_pair(&a, e, &p);
    step(&a);
    p.seed = 99;
    p.banned = (int32_t[]){ 40, 41 };
    p.n_banned = 2;
    assert_int_equal(dstar_session_sampling(a.s, &p, &error), 0);
    assert_int_equal(sampler_set(&a.host, &p, en->rules.allowed, NULL), 0);
    a.last = sample(&a);
    assert_int_equal(a.last, expected(&a));
    assert_int_equal(dstar_session_append(a.s, &a.last, 1, &error), 0);
    step(&a);
    assert_int_equal(sample(&a), expected(&a));

    int n;
    dstar_session_tokens(a.s, &n, NULL);
    step(&a);
    assert_int_equal(dstar_session_append(a.s, (int32_t[]){ 50, 51 }, 2, &error), 0);
    batch_clear(&en->batch);
    batch_add(&en->batch, session_of(a.s), 2, false);
    session_of(a.s)->cancelled = 1;
    assert_int_equal(engine_step(en, &en->batch, &(struct err){ 0 }), ERR_CANCELLED);
    session_of(a.s)->cancelled = 0;
    assert_int_equal(dstar_session_truncate(a.s, n, &error), 0);
    assert_non_null(dstar_logits(a.s));
    assert_int_equal(sample(&a), expected(&a));
    close_pair(&a);
    dstar_close(e);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_the_same),
        cmocka_unit_test(draws_on_borders),
        cmocka_unit_test(says_the_same),
        cmocka_unit_test(draws_again),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
