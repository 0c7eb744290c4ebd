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
    bool has_logits;     /* ... if they were asked for */
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
int session_sample(struct session *s, int32_t *id, struct err *e);
int session_next(struct session *s, int32_t *id, struct err *e);

/* For engine_step: n more tokens are computed. */
void session_computed(struct session *s, int n);

/* True when there are logits after the last of all tokens. */
bool session_ready(const struct session *s);

#endif
