/* session.h - one conversation being computed. */
#ifndef DS_SESSION_H
#define DS_SESSION_H

#include "buf.h"
#include "dwarfstar.h"
#include "kv_seq.h"
#include "sampler.h"

#include <stdatomic.h>

struct engine;

struct session {
    struct engine *engine;
    struct kv_seq kv;
    struct kv_mem mem;
    struct kv_bytes mem_bytes;
    int n_all;           /* kv.token[0..n_all): first those computed, then those waiting */
    float *logits;       /* [n_vocab] after the last computed token ... */
    bool has_logits;     /* ... if they were asked for ... */
    bool is_far;         /* ... but only in draw.kept as yet */
    struct draw draw;    /* on a device that draws; out NULL: it does not */
    bool is_drawn;       /* behind the last computed token, with the sampler as it is set */
    bool is_told;        /* the device has the sampler's mask */
    bool is_prompt;      /* what waits is a prompt: its end is worth a mark */
    struct sampler sampler;
    atomic_int cancelled; /* the one thing that other threads touch; read between steps */
    struct buf note;
    int n_reused;
    int64_t n_prefill, n_decode;
    double prefill_s, decode_s, first_token_s, set_at_s;
};

/* What stands behind the public handle, for folders that look inside. */
struct session *session_of(dstar_session *handle);

/* ERR_NO_MEMORY, or ERR_LIMIT: more than the engine planned for. */
int session_open(struct session *s, struct engine *e, struct err *err);
void session_close(struct session *s);

/* Contracts: dwarfstar.h. */
int session_set(struct session *s, const int32_t *id, int n, struct err *e);
int session_append(struct session *s, const int32_t *id, int n, struct err *e);
int session_step(struct session *s, struct err *e);
int session_sampling(struct session *s, const struct dstar_sampling *p, struct err *e);
int session_sample(struct session *s, int32_t *id, struct err *e);
int session_next(struct session *s, int32_t *id, struct err *e);

/* For engine_step: n more tokens are computed. */
void session_computed(struct session *s, int n);

/* For engine_step on a device that draws. Before the step: what it needs to know; while the step is
 * queued: the draw from these logits; when it is done, or failed: whether there was one. */
int session_tell(struct session *s, struct err *e);
struct draw session_ask(struct session *s, const float *logits);
void session_drawn(struct session *s, bool drawn);

/* Logits where the host can read them; nothing to do unless they are far. */
int session_bring(struct session *s, struct err *e);

/* True when there are logits after the last of all tokens. */
bool session_ready(const struct session *s);

#endif
