/* simulate.c - replays routes on the cache of experts, and on one that knows the future.
 *
 * The cache is expert_slots itself and not a model of it, so a simulation cannot differ from an
 * engine that gets the same routes. Reads end at once: with one conversation, every choice is made
 * when all reads of the layer before are done, so their duration changes no choice. */
#include "simulate.h"

#include <stdlib.h>

#include "expert_use.h"
#include "file.h"

#define HEADER_BYTES 16
#define MAX_FILE_BYTES ((size_t)1 << 31)
#define MAX_USED 64

static unsigned get_u16(const uint8_t *p)
{
    return p[0] | (unsigned)p[1] << 8;
}

static uint32_t get_u32(const uint8_t *p)
{
    return get_u16(p) | (uint32_t)get_u16(p + 2) << 16;
}

static int read_header(struct routes *r, const char *path, const struct buf *file, int *n_word,
                       struct err *e)
{
    const uint8_t *p = (const uint8_t *)file->data;
    size_t n;
    if (file->len < HEADER_BYTES)
        return err_set(e, ERR_FORMAT, "%s: found %zu bytes, expected a header of %d", path,
                       file->len, HEADER_BYTES);
    if (p[0] == 0x1f && p[1] == 0x8b)
        return err_set(e, ERR_FORMAT, "%s: is compressed, expected a plain trace (gzip -d)", path);
    uint32_t n_tok = get_u32(p), n_layer = get_u32(p + 4), n_used = get_u32(p + 8);
    uint32_t n_step = get_u32(p + 12);
    if (n_step > 3 * (uint64_t)n_tok || n_layer == 0 || n_layer > 1024 || n_used == 0 ||
        n_used > MAX_USED)
        return err_set(e, ERR_FORMAT, "%s: header: found %u layers, %u experts used, %u words of "
                       "steps; expected 1 to 1024, 1 to %d, at most three for each token", path,
                       n_layer, n_used, n_step, MAX_USED);
    if (!mul_size((size_t)n_layer * n_used * 2, n_tok, &n) ||
        !add_size(n, 4 * (size_t)n_step, &n) || n != file->len - HEADER_BYTES)
        return err_set(e, ERR_FORMAT, "%s: found %zu bytes behind the header, expected %u tokens "
                       "of %u layers of %u experts in 16 bits and %u words of steps in 32", path,
                       file->len - HEADER_BYTES, n_tok, n_layer, n_used, n_step);
    *r = (struct routes){ .n_tok = (int)n_tok, .n_layer = (int)n_layer, .n_used = (int)n_used };
    *n_word = (int)n_step;
    return 0;
}

/* A word with the top bit set and the next one: memory given back or taken again. */
static int read_room(struct routes *r, const char *path, const uint8_t *p, int i, struct err *e)
{
    uint32_t n_open = get_u32(p) & ~TRACE_ROOM, n_slot = get_u32(p + 4);
    if (n_open == 0 || n_open > n_slot || n_slot > INT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: step %d: found %u of %u places for experts, expected 1 "
                       "to all", path, i, n_open, n_slot);
    r->room[r->n_room++] = (struct routes_room){ i, (int)n_open, (int)n_slot };
    return 0;
}

/* Behind the routes: the tokens of each step, together all. */
static int read_steps(struct routes *r, const char *path, const struct buf *file, int n_word,
                      struct err *e)
{
    const uint8_t *p = (const uint8_t *)file->data + file->len - 4 * (size_t)n_word;
    uint64_t sum = 0;
    if (n_word == 0)
        return 0;
    r->step = malloc((size_t)n_word * sizeof *r->step);
    r->room = malloc((size_t)n_word * sizeof *r->room);
    if (!r->step || !r->room)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for %d steps", path, n_word);
    for (int i = 0; i < n_word; i++) {
        uint32_t n = get_u32(p + 4 * (size_t)i);
        if (n & TRACE_ROOM && i + 1 < n_word) {
            TRY(read_room(r, path, p + 4 * (size_t)i++, r->n_step, e));
            continue;
        }
        if (n == 0 || n & TRACE_ROOM)
            return err_set(e, ERR_FORMAT, "%s: step %d: found %u tokens, expected some", path,
                           r->n_step, n);
        r->step[r->n_step++] = n;
        sum += n;
    }
    if (sum != (uint64_t)r->n_tok)
        return err_set(e, ERR_FORMAT, "%s: found %llu tokens in %d steps, expected %d", path,
                       (unsigned long long)sum, r->n_step, r->n_tok);
    return 0;
}

static int check_layer(const struct routes *r, size_t row, const char *path, int n_expert,
                       struct err *e)
{
    const uint16_t *id = r->id + row * (size_t)r->n_used;
    size_t tok = row / (size_t)r->n_layer, layer = row % (size_t)r->n_layer;
    for (int i = 0; i < r->n_used; i++) {
        if (id[i] >= n_expert)
            return err_set(e, ERR_FORMAT, "%s: token %zu, layer %zu: found expert %u, expected "
                           "less than %d", path, tok, layer, id[i], n_expert);
        for (int j = 0; j < i; j++)
            if (id[i] == id[j])
                return err_set(e, ERR_FORMAT, "%s: token %zu, layer %zu: found expert %u twice",
                               path, tok, layer, id[i]);
    }
    return 0;
}

static int read_ids(struct routes *r, const char *path, const struct buf *file, int n_expert,
                    struct err *e)
{
    size_t n_row = (size_t)r->n_tok * (size_t)r->n_layer, n = n_row * (size_t)r->n_used;
    r->id = malloc(MAX(n, 1) * sizeof *r->id);
    if (!r->id)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for %zu routes", path, n);
    for (size_t i = 0; i < n; i++)
        r->id[i] = (uint16_t)get_u16((const uint8_t *)file->data + HEADER_BYTES + 2 * i);
    for (size_t row = 0; row < n_row; row++)
        TRY(check_layer(r, row, path, n_expert, e));
    return 0;
}

int routes_read(struct routes *r, const char *path, int n_expert, struct err *e)
{
    struct buf file;
    int n_word = 0;
    *r = (struct routes){ 0 };
    buf_init(&file, MAX_FILE_BYTES);
    int code = file_read_all(&file, path, e);
    if (code >= 0)
        code = read_header(r, path, &file, &n_word, e);
    if (code >= 0)
        code = read_ids(r, path, &file, n_expert, e);
    if (code >= 0)
        code = read_steps(r, path, &file, n_word, e);
    if (code < 0)
        routes_release(r);
    buf_release(&file);
    return code;
}

void routes_release(struct routes *r)
{
    free(r->id);
    free(r->step);
    free(r->room);
    *r = (struct routes){ 0 };
}

static int check_shape(const struct routes *r, const struct expert_shape *shape, struct err *e)
{
    if (shape->n_slot < r->n_used)
        return err_set(e, ERR_ARGUMENT, "%d slots: expected at least the %d experts that a layer "
                       "uses", shape->n_slot, r->n_used);
    if (shape->n_layer != r->n_layer)
        return err_set(e, ERR_ARGUMENT, "found routes of %d layers, expected %d", r->n_layer,
                       shape->n_layer);
    return 0;
}

static const uint16_t *route_at(const struct routes *r, int tok, int layer)
{
    return r->id + ((size_t)tok * (size_t)r->n_layer + (size_t)layer) * (size_t)r->n_used;
}

static int count_steps(const struct routes *r)
{
    return r->step ? r->n_step : r->n_tok;
}

static int step_size(const struct routes *r, int step)
{
    return r->step ? (int)r->step[step] : 1;
}

/* Places that are open from a step on, of a shape's; *next counts what was passed already. */
static int room_at(const struct routes *r, int step, int n_slot, int n_open, int *next)
{
    for (; *next < r->n_room && r->room[*next].step == step; ++*next) {
        const struct routes_room *room = &r->room[*next];
        int64_t n = ((int64_t)n_slot * room->n_open + room->n_slot / 2) / room->n_slot;
        n_open = MAX((int)n, r->n_used);
    }
    return n_open;
}

/* What tokens tok .. tok+n-1 use of a layer. */
static void use_of(struct expert_use *u, const struct routes *r, int tok, int n, int layer)
{
    int32_t expert[MAX_USED];
    expert_use_begin(u, n);
    for (int t = 0; t < n; t++) {
        const uint16_t *id = route_at(r, tok + t, layer);
        for (int i = 0; i < r->n_used; i++)
            expert[i] = id[i];
        expert_use_add(u, t, expert, r->n_used);
    }
}

static void replay_layer(struct expert_slots *s, struct expert_use *u, int layer)
{
    expert_use_end(u, s->n_open, layer);
    CHECK(expert_use_decide(u, s) >= 0);
    for (int i = 0; i < u->n; i++)
        if (u->slot[i] >= 0 && expert_use_missing(u, i))
            expert_slots_arrived(s, u->slot[i]);
    expert_use_done(u, s);
}

/* Memory for what `init` takes of an arena; the caller frees a->mem. */
static int arena_for(struct arena *a, size_t size, struct err *e)
{
    size_t whole = round_up(MAX(size, 1), ARENA_ALIGN);
    void *mem = aligned_alloc(ARENA_ALIGN, whole);
    if (!mem)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a simulation of %zu bytes", whole);
    arena_init(a, mem, whole);
    return 0;
}

int simulate(struct simulated *out, const struct routes *r, const struct expert_shape *shape,
             struct err *e)
{
    struct expert_slots s;
    struct expert_use u;
    struct arena a;
    TRY(check_shape(r, shape, e));
    arena_init(&a, NULL, 0);
    expert_slots_init(&s, shape, &a);
    expert_use_init(&u, shape->n_expert, &a);
    TRY(arena_for(&a, a.peak, e));
    expert_slots_init(&s, shape, &a);
    expert_use_init(&u, shape->n_expert, &a);
    for (int i = 0, tok = 0, next = 0; i < count_steps(r); tok += step_size(r, i++)) {
        int n_open = room_at(r, i, s.n_slot, s.n_open, &next);
        if (n_open != s.n_open)
            expert_slots_resize(&s, n_open);
        expert_slots_step(&s, step_size(r, i));
        for (int l = 0; l < r->n_layer; l++) {
            use_of(&u, r, tok, step_size(r, i), l);
            replay_layer(&s, &u, l);
        }
    }
    *out = (struct simulated){ s.counts.lookups, s.counts.hits, s.counts.misses, { 0 },
                               s.policy.n_switch, s.decided };
    memcpy(out->ruled_tok, s.policy.ruled_tok, sizeof out->ruled_tok);
    free(a.mem);
    return 0;
}

/* Everything that the future needs: for each use, the step of the same expert's next use. */
struct foresight {
    int32_t *next;   /* like routes.id; INT32_MAX: never again */
    double *score;   /* [n_key] minus the next use: least is used last */
    uint64_t *last;  /* [n_key] all 0 */
    struct expert_heap heap;
    struct expert_use use;
};

/* Uses of a step, from behind, do not see each other. */
static void look_ahead(struct foresight *f, const struct routes *r, int n_expert)
{
    int tok = r->n_tok;
    for (int s = count_steps(r) - 1; s >= 0; s--) {
        size_t per_tok = (size_t)r->n_layer * (size_t)r->n_used;
        size_t end = (size_t)tok * per_tok, begin = end - (size_t)step_size(r, s) * per_tok;
        for (size_t i = begin; i < end; i++) { /* score: the next use seen so far from behind */
            size_t layer = i % per_tok / (size_t)r->n_used;
            f->next[i] = (int32_t)f->score[layer * (size_t)n_expert + r->id[i]];
        }
        for (size_t i = begin; i < end; i++) {
            size_t layer = i % per_tok / (size_t)r->n_used;
            f->score[layer * (size_t)n_expert + r->id[i]] = s;
        }
        tok -= step_size(r, s);
    }
}

static void foresight_init(struct foresight *f, const struct routes *r,
                           const struct expert_shape *shape, struct arena *a)
{
    size_t n_key = (size_t)r->n_layer * (size_t)shape->n_expert;
    size_t n = (size_t)r->n_tok * (size_t)r->n_layer * (size_t)r->n_used;
    f->next = arena_alloc(a, n * sizeof *f->next);
    f->score = arena_alloc(a, n_key * sizeof *f->score);
    f->last = arena_alloc(a, n_key * sizeof *f->last);
    expert_heap_init(&f->heap, a, shape->n_slot + shape->n_expert, (int)n_key);
    expert_use_init(&f->use, shape->n_expert, a);
    if (!a->mem)
        return;
    f->heap.score = f->score;
    f->heap.last = f->last;
    memset(f->last, 0, n_key * sizeof *f->last);
    for (size_t k = 0; k < n_key; k++)
        f->score[k] = INT32_MAX;
    look_ahead(f, r, shape->n_expert);
}

static void see_next(struct foresight *f, const struct routes *r, int tok, int n, int layer)
{
    for (int t = tok; t < tok + n; t++)
        for (int i = 0; i < r->n_used; i++) {
            const uint16_t *id = &route_at(r, t, layer)[i];
            f->score[layer * f->use.n_expert + *id] = -(double)f->next[id - r->id];
        }
}

/* What a sweep reads it may forget at once; what is wanted stays until the layer is done. */
static int foresee_layer(struct foresight *f, const struct routes *r, int n_slot, int tok, int n)
{
    struct expert_use *u = &f->use;
    int n_hit = 0, first = u->layer * u->n_expert;
    for (int i = 0; i < u->n; i++)
        n_hit += expert_heap_remove(&f->heap, first + u->expert[i]);
    see_next(f, r, tok, n, u->layer);
    for (int i = 0; i < u->n && u->is_sweep; i++)
        expert_heap_add(&f->heap, first + u->expert[i]);
    while (f->heap.n + (u->is_sweep ? 0 : u->n) > n_slot)
        expert_heap_pop(&f->heap);
    for (int i = 0; i < u->n && !u->is_sweep; i++)
        expert_heap_add(&f->heap, first + u->expert[i]);
    return n_hit;
}

int simulate_best(struct simulated *out, const struct routes *r, const struct expert_shape *shape,
                  struct err *e)
{
    struct foresight f;
    struct arena a;
    struct simulated sum = { 0 };
    TRY(check_shape(r, shape, e));
    arena_init(&a, NULL, 0);
    foresight_init(&f, r, shape, &a);
    TRY(arena_for(&a, a.peak, e));
    foresight_init(&f, r, shape, &a);
    int n_open = shape->n_slot, next = 0;
    for (int i = 0, tok = 0; i < count_steps(r); tok += step_size(r, i++)) {
        n_open = room_at(r, i, shape->n_slot, n_open, &next);
        for (int l = 0; l < r->n_layer; l++) {
            use_of(&f.use, r, tok, step_size(r, i), l);
            expert_use_end(&f.use, n_open, l);
            sum.hits += (uint64_t)foresee_layer(&f, r, n_open, tok, step_size(r, i));
            sum.lookups += (uint64_t)f.use.n;
        }
    }
    sum.misses = sum.lookups - sum.hits;
    *out = sum;
    free(a.mem);
    return 0;
}
