/* session_file.c - what a session adds to its cache's file.
 *
 * The logits are saved too: computing the last token again would be possible, but would need a
 * step back in the cache, and loading must not depend on the device. */
#include "session_file.h"

#include "clock.h"
#include "engine.h"
#include "stream.h"

#define VERSION 2 /* 1 knew no experts */

/* The cache's extra data:
 *   | tail | waiting tokens, 4 x n_wait | logits, 4 x n_logits | experts, 8 x n_used | note | */
struct tail {
    uint32_t version;
    int32_t n_wait, n_logits; /* n_logits: n_vocab or 0 */
    uint32_t is_prompt;
    uint64_t seed, n_drawn; /* random numbers */
    uint64_t note_bytes;
    uint32_t n_used, zero; /* not in version 1 */
};

_Static_assert(sizeof(struct tail) == 48 && sizeof(struct stream_used) == 8, "no gaps");

static size_t tail_bytes(uint32_t version)
{
    return version == 1 ? offsetof(struct tail, n_used) : sizeof(struct tail);
}

static size_t n_expert(const struct session *s)
{
    const struct expert_map *map = model_expert_map(s->engine->model);
    return (size_t)map->n_layer * (size_t)map->n_expert;
}

/* As many bytes as a valid file can have here. */
static size_t max_extra(const struct session *s)
{
    return sizeof(struct tail) + 4 * ((size_t)s->kv.max_tok + (size_t)s->sampler.n_vocab) +
           sizeof(struct stream_used) * n_expert(s) + s->note.max;
}

int session_save(struct session *s, const char *path, struct err *e)
{
    struct tail t = {
        .version = VERSION,
        .n_wait = s->n_all - s->kv.n_tok,
        .n_logits = s->has_logits ? s->sampler.n_vocab : 0,
        .is_prompt = s->is_prompt,
        .seed = s->sampler.rng.seed,
        .n_drawn = s->sampler.rng.n,
        .note_bytes = s->note.len,
    };
    struct buf extra, used;
    TRY(session_bring(s, e));
    buf_init(&extra, max_extra(s));
    buf_init(&used, sizeof(struct stream_used) * n_expert(s));
    stream_list_used(s->engine, &used);
    t.n_used = (uint32_t)(used.len / sizeof(struct stream_used));
    buf_add(&extra, &t, sizeof t);
    buf_add(&extra, s->kv.token + s->kv.n_tok, 4 * (size_t)t.n_wait);
    buf_add(&extra, s->logits, 4 * (size_t)t.n_logits);
    buf_add(&extra, used.data, used.len);
    buf_add(&extra, s->note.data, s->note.len);
    int code = extra.failed || used.failed
                   ? err_set(e, ERR_NO_MEMORY, "%s: out of memory to save", path)
                   : kv_disk_save(&s->kv, path, &s->engine->identity, extra.data, extra.len, e);
    buf_release(&extra);
    buf_release(&used);
    return code;
}

static int check_waiting(const struct session *s, const struct tail *t, const char *at,
                         const char *path, struct err *e)
{
    for (int i = 0; i < t->n_wait; i++) {
        int32_t id;
        memcpy(&id, at + 4 * (size_t)i, 4);
        if (id < 0 || id >= s->sampler.n_vocab)
            return err_set(e, ERR_FORMAT, "%s: waiting token %d is %d, expected 0 to %d", path, i,
                           id, s->sampler.n_vocab - 1);
    }
    return 0;
}

/* Ascending, so each once. */
static int check_used(const struct session *s, const struct tail *t, const char *at,
                      const char *path, struct err *e)
{
    const struct expert_map *map = model_expert_map(s->engine->model);
    int last = -1;
    for (uint32_t i = 0; i < t->n_used; i++) {
        struct stream_used u;
        memcpy(&u, at + sizeof u * i, sizeof u);
        int key = u.layer * map->n_expert + u.expert;
        if (u.layer >= map->n_layer || u.expert >= map->n_expert || key <= last)
            return err_set(e, ERR_FORMAT, "%s: used expert %u: found layer %u, expert %u, expected "
                           "less than %d and %d, ascending", path, i, u.layer, u.expert,
                           map->n_layer, map->n_expert);
        last = key;
    }
    return 0;
}

static int read_tail(struct tail *t, const struct buf *extra, const char *path, struct err *e)
{
    *t = (struct tail){ 0 };
    if (extra->len < sizeof t->version)
        return err_set(e, ERR_FORMAT, "%s: %zu bytes of session data, expected at least %zu", path,
                       extra->len, tail_bytes(1));
    memcpy(&t->version, extra->data, sizeof t->version);
    if (t->version < 1 || t->version > VERSION)
        return err_set(e, ERR_UNSUPPORTED, "%s: session data of version %u, expected 1 to %d",
                       path, t->version, VERSION);
    if (extra->len < tail_bytes(t->version))
        return err_set(e, ERR_FORMAT, "%s: %zu bytes of session data, expected at least %zu", path,
                       extra->len, tail_bytes(t->version));
    memcpy(t, extra->data, tail_bytes(t->version));
    return 0;
}

static int check_tail(const struct session *s, const struct kv_disk *d, const struct buf *extra,
                      struct tail *t, struct err *e)
{
    const char *path = d->file.path;
    TRY(read_tail(t, extra, path, e));
    if (t->n_wait < 0 || t->n_wait > s->kv.max_tok - d->head.n_tok)
        return err_set(e, ERR_LIMIT, "%s: %d tokens and %d that wait, the context has %d", path,
                       d->head.n_tok, t->n_wait, s->kv.max_tok);
    if (t->n_logits != 0 && t->n_logits != s->sampler.n_vocab)
        return err_set(e, ERR_FORMAT, "%s: %d logits, expected 0 or %d", path, t->n_logits,
                       s->sampler.n_vocab);
    if (t->n_used > n_expert(s))
        return err_set(e, ERR_FORMAT, "%s: %u used experts, expected at most %zu", path, t->n_used,
                       n_expert(s));
    size_t waiting = tail_bytes(t->version);
    size_t used = waiting + 4 * ((size_t)t->n_wait + (size_t)t->n_logits);
    size_t fixed = used + sizeof(struct stream_used) * t->n_used;
    if (extra->len < fixed || extra->len - fixed != t->note_bytes)
        return err_set(e, ERR_FORMAT, "%s: %zu bytes of session data, expected %zu and a note of "
                       "%llu", path, extra->len, fixed, (unsigned long long)t->note_bytes);
    TRY(check_waiting(s, t, extra->data + waiting, path, e));
    return check_used(s, t, extra->data + used, path, e);
}

/* Everything was checked; only memory for the note can be short. */
static void take_tail(struct session *s, const struct tail *t, const struct buf *extra)
{
    const char *at = extra->data + tail_bytes(t->version);
    memcpy(s->kv.token + s->kv.n_tok, at, 4 * (size_t)t->n_wait);
    at += 4 * (size_t)t->n_wait;
    memcpy(s->logits, at, 4 * (size_t)t->n_logits);
    at += 4 * (size_t)t->n_logits;
    stream_restore(s->engine, at, (int)t->n_used, &s->cancelled);
    at += sizeof(struct stream_used) * t->n_used;
    buf_clear(&s->note);
    buf_add(&s->note, at, (size_t)t->note_bytes);
    s->has_logits = t->n_logits > 0;
    s->is_far = s->is_drawn = false;
    s->n_all = s->kv.n_tok + t->n_wait;
    s->n_reused = s->kv.n_tok;
    s->is_prompt = t->is_prompt != 0;
    s->sampler.rng = (struct rng){ t->seed, t->n_drawn };
    s->first_token_s = 0;
    s->set_at_s = clock_now_s();
}

int session_load(struct session *s, const char *path, struct err *e)
{
    struct kv_disk d;
    struct buf extra;
    struct tail t;
    buf_init(&extra, max_extra(s));
    int code = kv_disk_open(&d, path, &s->kv, &s->engine->identity, &extra, e);
    if (code == 0) {
        code = check_tail(s, &d, &extra, &t, e);
        if (code == 0) {
            s->has_logits = false;
            s->n_all = 0;
            code = kv_disk_load(&d, &s->kv, e);
        }
        if (code == 0)
            take_tail(s, &t, &extra);
        kv_disk_close(&d);
    }
    buf_release(&extra);
    if (code == 0 && s->note.failed)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for its note", path);
    return code;
}
