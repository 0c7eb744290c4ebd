/* test_cuda_dial.c - a model whose experts lie partly in the GPU's memory and partly in the host's:
 * in steps of one row, recorded ones too, of a few and of many it says, bit for bit, what it says
 * when all of them lie in the GPU's; whatever their share, stored or made, ranked by a file or not.
 * What tokens used is written to such a file.
 * What fits neither there nor in the host's memory is refused before anything is taken. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "unit/scratch_dir.h"

#include "cpu.h"
#include "deepseek4.h"
#include "dwarfstar.h"
#include "engine.h"
#include "flow.h"
#include "measure.h"
#include "synth.h"

#include <math.h>
#include <stdlib.h>

/* The archive's may be without CUDA. */
#ifndef HAVE_CUDA
#define HAVE_CUDA
#endif
#include "../../src/backend/backend.c"

#ifndef CUDA_ON_CARD
/* The emulator's. */
void emu_set_memory(size_t bytes);
void emu_set_integrated(int yes);
void emu_set_fault(int which); /* 3: the next page-locked memory is not had */
size_t emu_take_host(void);
int emu_take_replays(void);
#endif

/* A driver takes whole pages of 2 MB: there a tenth of the experts is more than a few of those. */
#ifdef CUDA_ON_CARD
#define ROUNDED ((size_t)8 << 20)
#define N_EXPERT 240
#else
#define ROUNDED ((size_t)0)
#define N_EXPERT 12
#endif

enum { N_TOK = 10, N_VOCAB = 4096, N_LAYER = 3 };
#define SAID ((size_t)N_TOK * N_VOCAB)

static const int chunks[] = { N_TOK, 4, 1 }; /* many rows, a few, one */

struct bed {
    struct scratch dir;
    struct file_memory file, counted; /* the same model: stored; its bytes to be made */
    float *want[COUNT_OF(chunks)]; /* by chunk: all experts in the GPU's memory */
    uint64_t rest;                 /* of that memory, beside experts */
    uint64_t experts;              /* bytes */
    uint8_t identity[32];
};

static struct dstar_error error;

static struct dstar_options options(const char *path)
{
    struct dstar_options o;
    dstar_options_init(&o);
    o.model = path;
    o.device = "cuda";
    o.ctx = 512;
    o.max_rows = 32;
    return o;
}

static dstar_engine *open_with(const struct dstar_options *o)
{
    dstar_engine *engine;
    if (dstar_open(&engine, o, &error) < 0)
        fail_msg("%s", error.text);
    return engine;
}

static int keep(void *user, int pos, const float *logits, const float *mtp)
{
    (void)mtp;
    memcpy((float *)user + (size_t)pos * N_VOCAB, logits, N_VOCAB * sizeof *logits);
    return 0;
}

static float *say(dstar_engine *engine, int chunk)
{
    int32_t id[N_TOK];
    float *said = calloc(SAID, sizeof *said);
    assert_non_null(said);
    for (int i = 0; i < N_TOK; i++)
        id[i] = 37 * i % 1000 + 5;
    struct dstar_text_eval job = { id, N_TOK, chunk, 0, keep, said };
    if (dstar_eval(engine, &job, &error) < 0)
        fail_msg("%s", error.text);
    return said;
}

static void make_model(struct file_memory *m, bool counted)
{
    struct synth_options s = { .shape = "small", .recipe = "q2", .seed = 1, .n_layer = N_LAYER,
                               .n_expert = N_EXPERT, .counted = counted,
                               .tokenizer = "models/pebble/tokenizer.json" };
    struct err e = { 0 };
    if (synth_memory(&s, m, &e) < 0)
        fail_msg("%s", e.text);
}

static int make(void **state)
{
    struct bed *b = calloc(1, sizeof *b);
    assert_non_null(b);
    scratch_open(&b->dir);
    make_model(&b->file, false);
    make_model(&b->counted, true);
    struct dstar_options o = options(b->file.path);
    dstar_engine *engine = open_with(&o);
    const struct engine *e = engine_of(engine);
    size_t planned = model_info(e->model)->held_bytes + e->budget.total;
    size_t taken = e->gpu_free - dev_memory_left(e->dev) - e->split.near_bytes;
    b->rest = MAX(planned, taken) + ROUNDED;
    for (size_t c = 0; c < COUNT_OF(chunks); c++)
        b->want[c] = say(engine, chunks[c]);
    assert_true(expert_split_all(&e->split) && e->split.n == N_LAYER * N_EXPERT);
    b->experts = e->split.bytes;
    memcpy(b->identity, dstar_engine_info(engine)->identity, sizeof b->identity);
    dstar_close(engine);
    *state = b;
    return 0;
}

static int drop(void **state)
{
    struct bed *b = *state;
    for (size_t c = 0; c < COUNT_OF(chunks); c++)
        free(b->want[c]);
    file_memory_close(&b->file);
    file_memory_close(&b->counted);
    scratch_close(&b->dir);
    free(b);
    return 0;
}

static uint64_t room_for(const struct bed *b, double share)
{
    return b->rest + (uint64_t)(share * (double)b->experts);
}

/* What people are told of it. */
static void check_told(dstar_engine *engine, const struct expert_split *s)
{
    struct flow f;
    struct buf line;
    char want[64];
    buf_init(&line, 1000);
    flow_of(engine, &f);
    flow_line(&f, 1, &line);
    snprintf(want, sizeof want, "%d of %d experts (", s->n_near, s->n);
    assert_true(line.len > 0 && strncmp(line.data, want, strlen(want)) == 0);
    buf_release(&line);
}

/* Those of a token's experts of a layer that neither lie near nor in a slot, and what is there
 * afterwards: they take the places of those used longest ago. */
static int lacking(struct far_state *s, int n_slot, const uint16_t *id, int n_used)
{
    int n = 0;
    s->tick++;
    for (int j = 0; j < n_used; j++)
        if (s->place[id[j]] >= 0)
            s->used[s->place[id[j]]] = s->tick;
    for (int j = 0; j < n_used; j++) {
        int oldest = -1;
        if (s->place[id[j]] != PLACE_FAR)
            continue;
        n++;
        for (int i = 0; i < n_slot; i++)
            if (s->used[i] < s->tick && (oldest < 0 || s->used[i] < s->used[oldest]))
                oldest = i;
        if (oldest < 0)
            continue;
        if (s->owner[oldest] >= 0)
            s->place[s->owner[oldest]] = PLACE_FAR;
        s->owner[oldest] = id[j];
        s->place[id[j]] = oldest;
        s->used[oldest] = s->tick;
    }
    return n;
}

/* What the tokens of say() use; this step has too many rows to be counted. */
static void trace_routes(const struct bed *b, dstar_engine *engine, struct routes *r)
{
    struct trace *t;
    struct err e = { 0 };
    char path[512];
    snprintf(path, sizeof path, "%s", scratch_file(&b->dir, "routes"));
    assert_int_equal(trace_begin(&t, engine, &e), 0);
    free(say(engine, N_TOK));
    if (trace_write(t, path, false, &e) < 0 || routes_read(r, path, N_EXPERT, &e) < 0)
        fail_msg("%s", e.text);
    trace_end(t);
}

/* Bytes that tokens read over the bus, counted on the device while recorded steps run, are those of
 * the experts that lie far among what a trace of the same tokens names. */
static void check_counted(const struct bed *b, dstar_engine *engine, const struct expert_split *s)
{
    const struct expert_map *map = model_expert_map(engine_of(engine)->model);
    struct flow before, f;
    struct routes r;
    static struct far_state at[N_LAYER];
    double want = 0;
    for (int l = 0; l < N_LAYER; l++) {
        const struct far_slots *slots = &model_expert_set(engine_of(engine)->model, l)->slots;
        if (slots->n > 0)
            dev_copy(engine_of(engine)->dev, &at[l], slots->state, sizeof at[l]);
    }
    flow_of(engine, &before);
    free(say(engine, 1));
    flow_of(engine, &f);
    flow_since(&f, &before);
    trace_routes(b, engine, &r);
    size_t row = (size_t)r.n_layer * (size_t)r.n_used;
    for (size_t i = 0; i < N_TOK * (size_t)N_LAYER; i++) {
        int l = (int)(i % N_LAYER);
        const uint16_t *id = r.id + i / N_LAYER * row + (size_t)(l * r.n_used);
        const struct far_slots *slots = &model_expert_set(engine_of(engine)->model, l)->slots;
        if (slots->n > 0)
            want += lacking(&at[l], slots->n, id, r.n_used) * (double)slots->each;
        else
            for (int j = 0; j < r.n_used; j++)
                want += s->near[l * N_EXPERT + id[j]] ? 0 : (double)expert_map_bytes(
                                                                map, l * N_EXPERT + id[j]);
    }
    routes_release(&r);
    if (f.far_read != want || fabs(f.far_tok - N_TOK) > 1e-9)
        fail_msg("%g of %g tokens, expected %g", f.far_read, f.far_tok, want);
}

/* The same bits, for every chunk, from an engine with these options; its split, for a while. */
static struct expert_split compare(const struct bed *b, const struct dstar_options *o)
{
    static uint8_t near[N_LAYER * N_EXPERT];
#ifndef CUDA_ON_CARD
    emu_take_host();
    emu_take_replays();
#endif
    dstar_engine *engine = open_with(o);
    const struct engine *e = engine_of(engine);
    struct expert_split s = e->split;
#ifndef CUDA_ON_CARD
    assert_int_equal(emu_take_host(), s.bytes - s.near_bytes);
#endif
    check_told(engine, &s);
    if (o->gpu_memory_bytes)
        assert_true(e->gpu_free - dev_memory_left(e->dev) <= o->gpu_memory_bytes + ROUNDED);
    for (size_t c = 0; c < COUNT_OF(chunks); c++) {
        float *said = say(engine, chunks[c]);
        assert_memory_equal(said, b->want[c], SAID * sizeof *said);
        free(said);
    }
    if (o->popular) /* layers that differ */
        check_counted(b, engine, &s);
#ifndef CUDA_ON_CARD
    assert_true(emu_take_replays() >= N_TOK - 3);
#endif
    s.near = memcpy(near, s.near, sizeof near);
    dstar_close(engine);
    return s;
}

static void any_share(void **state)
{
    struct bed *b = *state;
    static const double share[] = { .9, .1 };
    int before = N_LAYER * N_EXPERT;
    for (size_t i = 0; i < COUNT_OF(share); i++) {
        struct dstar_options o = options(b->file.path);
        o.gpu_memory_bytes = room_for(b, share[i]);
        struct expert_split s = compare(b, &o);
        assert_true(s.n_near > 0 && s.n_near < before);
        before = s.n_near;
    }
}

/* Without a file of popular experts every layer has the same share, or one more. */
static void made_where_they_lie(void **state)
{
    struct bed *b = *state;
    struct dstar_options o = options(b->counted.path);
    int n[N_LAYER] = { 0 };
    o.gpu_memory_bytes = room_for(b, .6);
    struct expert_split s = compare(b, &o);
    for (int k = 0; k < s.n; k++)
        n[k / N_EXPERT] += s.near[k];
    for (int l = 0; l < N_LAYER; l++)
        assert_in_range(n[l], s.n_near / N_LAYER, s.n_near / N_LAYER + 1);
}

/* What the device says of a layer's slots is true: a slot has its owner's bytes, and kernels find
 * them there. */
static int check_slots(struct dev *d, const struct expert_set *set)
{
    const struct far_slots *slots = &set->slots;
    static struct far_state s;
    struct expert there[N_EXPERT], home[N_EXPERT];
    uint8_t *held = malloc(slots->each);
    int n_held = 0;
    assert_non_null(held);
    dev_copy(d, &s, slots->state, sizeof s);
    dev_copy(d, there, set->there, sizeof there);
    dev_copy(d, home, slots->home, sizeof home);
    for (int e = 0; e < N_EXPERT; e++) {
        int slot = s.place[e];
        const uint8_t *at = slot < 0 ? home[e].gate.data : slots->mem + (size_t)slot * slots->each;
        assert_ptr_equal(there[e].gate.data, at);
        assert_int_equal((uint8_t *)there[e].down.data - at,
                         (uint8_t *)home[e].down.data - (uint8_t *)home[e].gate.data);
        if (slot < 0)
            continue;
        assert_true(slot < slots->n && s.owner[slot] == e);
        assert_in_range(s.used[slot], 1, s.tick);
        dev_copy(d, held, at, slots->each);
        assert_memory_equal(held, home[e].gate.data, slots->each);
        n_held++;
    }
    free(held);
    assert_true(n_held > 0 && s.arrived == 0);
    return (int)s.fetched;
}

/* Experts of a layer's slots are not fetched again: the same text twice in a row, one token at a
 * time, fetches less the second time than the experts it uses. */
static void those_used_last_stay(void **state)
{
    struct bed *b = *state;
    struct dstar_options o = options(b->file.path);
    o.gpu_memory_bytes = room_for(b, .6);
    dstar_engine *engine = open_with(&o);
    const struct engine *e = engine_of(engine);
    assert_true(e->split.n_slot > 0 && !expert_split_all(&e->split));
    int fetched[2] = { 0 }, used = N_TOK * N_LAYER * model_info(e->model)->n_used;
    for (int turn = 0; turn < 2; turn++) {
        free(say(engine, 1));
        for (int l = 0; l < N_LAYER; l++)
            fetched[turn] += check_slots(e->dev, &e->model->layer[l].experts);
    }
    assert_true(fetched[0] > 0 && fetched[0] < used);
    assert_true(fetched[1] >= fetched[0] && fetched[1] < 2 * used);
    dstar_close(engine);
}

/* All of the last layer, and the last expert of the others. */
static bool is_popular(int key)
{
    return key / N_EXPERT == N_LAYER - 1 || key % N_EXPERT == N_EXPERT - 1;
}

static void name_model(struct expert_profile *p, const struct bed *b)
{
    for (int i = 0; i < 32; i++)
        snprintf(p->model + 2 * i, 3, "%02x", b->identity[i]);
}

static void popular_ones_lie_near(void **state)
{
    struct bed *b = *state;
    struct dstar_options o = options(b->file.path);
    uint32_t count[N_LAYER * N_EXPERT];
    struct expert_profile p = { .n_layer = N_LAYER, .n_expert = N_EXPERT, .count = count };
    struct buf text;
    char path[512];
    name_model(&p, b);
    for (int k = 0; k < N_LAYER * N_EXPERT; k++)
        count[k] = is_popular(k) ? (uint32_t)(1000 + k) : 3;
    buf_init(&text, 1 << 20);
    expert_profile_write(&p, &text);
    scratch_put(&b->dir, "popular", text.data, text.len);
    buf_release(&text);
    snprintf(path, sizeof path, "%s", scratch_file(&b->dir, "popular"));
    o.popular = path;
    o.gpu_memory_bytes = room_for(b, .9);
    struct expert_split s = compare(b, &o);
    assert_true(s.n_near > N_EXPERT + N_LAYER - 1 && s.n_near < s.n);
    for (int k = 0; k < s.n; k++)
        assert_true(s.near[k] || !is_popular(k));
}

enum { N_KEY = N_LAYER * N_EXPERT };

static void read_profile(const struct bed *b, const char *path, uint32_t count[N_KEY])
{
    struct expert_profile p = { .n_layer = N_LAYER, .n_expert = N_EXPERT, .count = count };
    struct buf text;
    struct err e = { 0 };
    name_model(&p, b);
    buf_init(&text, 1 << 20);
    if (file_read_all(&text, path, &e) < 0 ||
        expert_profile_read(&p, text.data, text.len, path, &e) < 0)
        fail_msg("%s", e.text);
    buf_release(&text);
}

/* Say it in steps of `chunk` tokens and close; if uses: count what was used, by a trace. */
static void use(const struct bed *b, dstar_engine *engine, int chunk, uint32_t *uses)
{
    struct routes r;
    free(say(engine, chunk));
    if (uses) {
        trace_routes(b, engine, &r);
        for (int i = 0; i < N_TOK * r.n_layer * r.n_used; i++)
            uses[i / r.n_used % r.n_layer * N_EXPERT + r.id[i]]++;
        routes_release(&r);
    }
    dstar_close(engine);
}

/* Nothing that lies far was used more than what lies near. */
static bool is_ranked(dstar_engine *engine, const uint32_t count[N_KEY])
{
    const struct expert_split *s = &engine_of(engine)->split;
    uint32_t near = UINT32_MAX, far = 0;
    assert_true(s->n_near > 0 && !expert_split_all(s));
    for (int k = 0; k < N_KEY; k++)
        if (s->near[k])
            near = MIN(near, count[k]);
        else
            far = MAX(far, count[k]);
    return near >= far;
}

static void what_was_used_is_kept(void **state)
{
    struct bed *b = *state;
    struct dstar_options o = options(b->file.path);
    uint32_t uses[N_KEY] = { 0 }, first[N_KEY], count[N_KEY], most = 0;
    char path[512];
    snprintf(path, sizeof path, "%s", scratch_file(&b->dir, "kept"));
    o.popular = path; /* there is none yet, and there is room for all experts */
    use(b, open_with(&o), 1, uses);
    read_profile(b, path, first);
    for (int k = 0; k < N_KEY; k++) {
        assert_int_equal(first[k], 1000 * uses[k]);
        most = MAX(most, first[k]);
    }
    o.gpu_memory_bytes = room_for(b, .6);
    dstar_engine *engine = open_with(&o);
    assert_true(is_ranked(engine, first));
    use(b, engine, 4, NULL);
    read_profile(b, path, count);
    for (int k = 0; k < N_KEY; k++) /* what was read begins with one use at most, and fades */
        assert_int_equal(count[k], (uint32_t)(1000. * uses[k] + 1000 * exp2(-N_TOK / 128.) *
                                              first[k] / most + .5));
    dstar_close(open_with(&o)); /* nothing was used */
    read_profile(b, path, first);
    assert_memory_equal(first, count, sizeof count);
    o.popular = NULL;
    engine = open_with(&o);
    assert_false(is_ranked(engine, first)); /* not by chance */
    dstar_close(engine);
}

static void refused(const struct dstar_options *o, const char *why)
{
    dstar_engine *engine = NULL;
    assert_int_equal(dstar_open(&engine, o, &error), DSTAR_NO_MEMORY);
    assert_null(engine);
    if (!strstr(error.text, why))
        fail_msg("%s", error.text);
}

static void does_not_fit(void **state)
{
    struct bed *b = *state;
    struct dstar_options o = options(b->counted.path);
    o.gpu_memory_bytes = room_for(b, .5);
    o.memory_bytes = cpu_rss().anonymous + b->experts / 4;
    refused(&o, "of the host's memory, ");
    o.memory_bytes = 0;
    o.gpu_memory_bytes = (b->rest - ROUNDED) / 2;
    refused(&o, "device cuda");
    o.gpu_memory_bytes = 1 << 20;
    refused(&o, "the weights that every token needs are");
#ifndef CUDA_ON_CARD
    emu_take_host(); /* what conversations before took */
    o.gpu_memory_bytes = room_for(b, .5);
    emu_set_integrated(1); /* there is no other memory */
    refused(&o, "of the host's memory, 0");
    emu_set_integrated(0);
    assert_int_equal(emu_take_host(), 0);
    emu_set_fault(3);
    refused(&o, "bytes of page-locked memory");
    o.gpu_memory_bytes = 0; /* the GPU itself is small */
    emu_set_memory(room_for(b, .5));
    compare(b, &o);
    emu_set_memory((size_t)4 << 30);
#endif
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_share),
        cmocka_unit_test(those_used_last_stay),
        cmocka_unit_test(made_where_they_lie),
        cmocka_unit_test(popular_ones_lie_near),
        cmocka_unit_test(what_was_used_is_kept),
        cmocka_unit_test(does_not_fit),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, make, drop);
}
