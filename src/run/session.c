/* session.c - tokens wanted, tokens computed, and what lies between.
 *
 * The tokens that wait lie behind those computed, in the same array, so that going back makes
 * waiting ones of computed ones by moving a number. */
#include "session.h"

#include "clock.h"
#include "engine.h"

#include <stdlib.h>

/* Long texts get a mark in passing every so many tokens. A multiple of every block of a
 * compressor, where a copy of the state is smallest. */
#define MARK_EVERY_TOK 4096

#define MAX_NOTE_BYTES ((size_t)256 << 20)

/* At the end of the session's memory on the device. */
static int open_draw(struct session *s, size_t at, struct err *err)
{
    struct dev *d = s->engine->dev;
    struct arena a;
    int n_vocab = s->engine->rules.n_vocab;
    void *out;
    TRY(dev_host_take(d, &out, sizeof *s->draw.out, err));
    at = round_up(at, ARENA_ALIGN);
    arena_init(&a, (uint8_t *)s->mem.data + at, s->mem_bytes.data - at);
    s->draw.out = out;
    s->draw.kept = arena_alloc(&a, (size_t)n_vocab * sizeof *s->draw.kept);
    s->draw.allowed = arena_alloc(&a, sampler_mask_bytes(n_vocab));
    s->draw.group = arena_alloc(&a, (size_t)draw_groups(n_vocab) * sizeof *s->draw.group);
    CHECK(!a.overflow);
    return 0;
}

int session_open(struct session *s, struct engine *e, struct err *err)
{
    struct arena a;
    const struct budget *b = &e->budget;
    int n_vocab = e->rules.n_vocab;
    *s = (struct session){ .engine = e, .mem_bytes = budget_session_bytes(b, e->model, b->ctx) };
    TRY(engine_take(e, &s->mem, s->mem_bytes, err));
    arena_init(&a, s->mem.host, s->mem_bytes.host);
    s->logits = arena_alloc(&a, (size_t)n_vocab * sizeof *s->logits);
    uint64_t *mask = arena_alloc(&a, sampler_mask_bytes(n_vocab));
    struct kv_bytes kv_bytes = kv_seq_bytes(&e->pool, b->ctx, b->max_mark);
    struct kv_mem kv = { arena_alloc(&a, kv_bytes.host), s->mem.data };
    CHECK(!a.overflow && kv_bytes.data <= s->mem_bytes.data);
    int code = dev_draws(e->dev) ? open_draw(s, kv_bytes.data, err) : 0;
    if (code < 0) {
        engine_give_back(e, &s->mem, s->mem_bytes);
        return code;
    }
    kv_seq_init(&s->kv, &e->pool, kv, b->ctx, b->max_mark);
    sampler_init(&s->sampler, n_vocab, mask, &e->sampling);
    buf_init(&s->note, MAX_NOTE_BYTES);
    struct dstar_sampling p;
    dstar_sampling_init(&p);
    CHECK(sampler_set(&s->sampler, &p, e->rules.allowed, NULL) == 0);
    e->n_session++;
    return 0;
}

void session_close(struct session *s)
{
    if (!s->mem.host)
        return;
    kv_seq_release(&s->kv);
    buf_release(&s->note);
    dev_host_give_back(s->engine->dev, s->draw.out);
    engine_give_back(s->engine, &s->mem, s->mem_bytes);
    s->engine->n_session--;
    *s = (struct session){ 0 };
}

bool session_ready(const struct session *s)
{
    return s->has_logits && s->kv.n_tok == s->n_all;
}

static int check_tokens(const struct session *s, const int32_t *id, int n, int n_before,
                        struct err *e)
{
    if (n < 0 || n > s->kv.max_tok - n_before)
        return err_set(e, ERR_LIMIT, "%lld tokens are more than the context of %d",
                       (long long)n + n_before, s->kv.max_tok);
    for (int i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= s->engine->rules.n_vocab)
            return err_set(e, ERR_ARGUMENT, "token %d is %d, expected 0 to %d", n_before + i, id[i],
                           s->engine->rules.n_vocab - 1);
    return 0;
}

static int common_prefix(const struct session *s, const int32_t *id, int n)
{
    int most = MIN(n, s->kv.n_tok), i = 0;
    while (i < most && s->kv.token[i] == id[i])
        i++;
    return i;
}

int session_set(struct session *s, const int32_t *id, int n, struct err *e)
{
    TRY(check_tokens(s, id, n, 0, e));
    int keep = common_prefix(s, id, n);
    /* Logits come from computing the last token; one must be left to compute if there are none. */
    if (keep == n && n > 0 && !(s->has_logits && s->kv.n_tok == n))
        keep = n - 1;
    if (keep < s->kv.n_tok)
        s->has_logits = false;
    int stand = kv_truncate(&s->kv, keep);
    memmove(s->kv.token + stand, id + stand, (size_t)(n - stand) * sizeof *id);
    s->n_all = n;
    s->n_reused = stand;
    s->is_prompt = true;
    s->first_token_s = 0;
    s->set_at_s = clock_now_s();
    return 0;
}

int session_append(struct session *s, const int32_t *id, int n, struct err *e)
{
    TRY(check_tokens(s, id, n, s->n_all, e));
    memmove(s->kv.token + s->n_all, id, (size_t)n * sizeof *id);
    s->n_all += n;
    s->is_prompt |= n > 1;
    return 0;
}

/* The end of a prompt is where the next one will part from it; the tokens just before it too, such
 * as the marker of thinking. */
void session_computed(struct session *s, int n)
{
    s->has_logits = false;
    kv_commit(&s->kv);
    if (s->kv.n_tok == s->n_all && s->is_prompt) {
        kv_mark(&s->kv, ENGINE_SLACK, true);
        s->is_prompt = false;
    } else if (s->kv.n_tok / MARK_EVERY_TOK > (s->kv.n_tok - n) / MARK_EVERY_TOK) {
        kv_mark(&s->kv, 0, false);
    }
    *(n > 1 ? &s->n_prefill : &s->n_decode) += n;
}

static int check_cancelled(const struct session *s, struct err *e)
{
    if (atomic_load(&s->cancelled))
        return err_set(e, ERR_CANCELLED, "cancelled");
    return 0;
}

int session_step(struct session *s, struct err *e)
{
    struct batch *b = &s->engine->batch;
    double start = clock_now_s();
    TRY(check_cancelled(s, e));
    if (s->kv.n_tok == s->n_all)
        return 0;
    batch_clear(b);
    int n = batch_add(b, s, s->n_all, false);
    TRY(engine_step(s->engine, b, e));
    *(n > 1 ? &s->prefill_s : &s->decode_s) += clock_now_s() - start;
    return s->n_all - s->kv.n_tok;
}

int session_sampling(struct session *s, const struct dstar_sampling *p, struct err *e)
{
    TRY(sampler_set(&s->sampler, p, s->engine->rules.allowed, e));
    s->is_told = s->is_drawn = false;
    return 0;
}

int session_tell(struct session *s, struct err *e)
{
    if (!s->draw.out || s->is_told)
        return 0;
    TRY(dev_copy_now(s->engine->dev, s->draw.allowed, s->sampler.allowed,
                     sampler_mask_bytes(s->sampler.n_vocab), e));
    s->is_told = true;
    return 0;
}

struct draw session_ask(struct session *s, const float *logits)
{
    sampler_ask(&s->sampler, &s->draw);
    s->draw.logits = logits;
    return s->draw;
}

void session_drawn(struct session *s, bool drawn)
{
    s->is_drawn = drawn;
    s->is_far |= drawn;
}

int session_bring(struct session *s, struct err *e)
{
    if (s->has_logits && s->is_far)
        TRY(dev_copy_now(s->engine->dev, s->logits, s->draw.kept,
                         (size_t)s->sampler.n_vocab * sizeof *s->logits, e));
    s->is_far = false;
    return 0;
}

int session_sample(struct session *s, int32_t *id, struct err *e)
{
    if (!session_ready(s))
        return err_set(e, ERR_ARGUMENT, "no logits: of %d tokens %d wait to be computed",
                       s->n_all, s->n_all - s->kv.n_tok);
    if (!s->is_drawn || !sampler_take(&s->sampler, &s->draw, id)) {
        TRY(session_bring(s, e));
        TRY(sampler_pick(&s->sampler, s->logits, s->kv.token, s->kv.n_tok, id, e));
    }
    if (s->first_token_s == 0)
        s->first_token_s = clock_now_s() - s->set_at_s;
    return 0;
}

int session_next(struct session *s, int32_t *id, struct err *e)
{
    int left;
    TRY(check_cancelled(s, e));
    do {
        TRY(left = session_step(s, e));
    } while (left > 0);
    if (s->n_all >= s->kv.max_tok)
        return err_set(e, ERR_LIMIT, "the context of %d tokens is full", s->kv.max_tok);
    TRY(session_sample(s, id, e));
    if (vocab_is_stop(&s->engine->rules, *id) || sampler_is_stop(&s->sampler, *id))
        return 0;
    s->kv.token[s->n_all++] = *id;
    return 1;
}
