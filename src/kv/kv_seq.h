/* kv_seq.h - what the model remembers of one conversation.
 *
 * Compressed rows lie in blocks of the pool. Everything else (window rings, compressor frontiers)
 * is overwritten as the conversation grows and cannot be rebuilt from the blocks: going back far
 * needs a mark, a copy of it at one position.
 *
 * A step is: kv_reserve(), the ops write through `view`, then kv_commit() or kv_abort(). Where the
 * data lies on a device, copies of it are queued there between the steps; marks stay there too, so
 * that no step of a long prompt waits for the way to the host. */
#ifndef DS_KV_SEQ_H
#define DS_KV_SEQ_H

#include "kv_pool.h"

/* A place to go back to. The copy holds what the ops read when the conversation stands at any
 * position floor..pos. */
struct kv_mark {
    int pos, floor;
    int top;       /* the copy was made here; > pos after a cut in between */
    bool chosen;   /* worth more than one taken in passing */
    size_t bytes;  /* of the copy */
    uint8_t *copy; /* data: a slot of fixed size, also when unused */
};

struct kv_seq {
    struct kv_pool *pool;
    struct kv_view view;
    struct kv_block **block; /* [n_block] all full but the last */
    int n_block, max_block;
    int32_t *token;      /* [max_tok]; the first n_tok are computed, the only truth about the past;
                            what lies behind them belongs to the caller */
    int n_tok, max_tok;
    int floor;           /* least position where the rings and frontiers allow to stand */
    int n_reserved;      /* rows of the running step */
    struct kv_mark *mark; /* [max_mark] by ascending pos, the first n_mark in use */
    int n_mark, max_mark;
    struct kv_mark undo; /* as it was before the running step; between steps free for others */
};

/* Memory for a conversation of at most max_tok tokens, apart from its blocks. */
struct kv_bytes kv_seq_bytes(const struct kv_pool *p, int max_tok, int max_mark);

/* mem: kv_seq_bytes() bytes, aligned to 64, the caller's. Pages become needed as tokens come and
 * marks are taken. */
void kv_seq_init(struct kv_seq *s, struct kv_pool *p, struct kv_mem mem, int max_tok, int max_mark);

/* Forget everything and give the blocks back to the pool. It can be used again. */
void kv_seq_release(struct kv_seq *s);

/* A layer's place in a view without memory: what planning needs. */
void kv_layer_plan(struct kv_layer *l, const struct kv_shape *s, int ratio);

/* Most rows one step may have. */
int kv_max_rows(const struct kv_seq *s);

/* Room for the n tokens at token[n_tok]. ERR_LIMIT: more than max_tok; ERR_NO_MEMORY: the pool is
 * used up. Then nothing changed. */
int kv_reserve(struct kv_seq *s, int n, struct err *e);

/* The step's rows are written: its tokens are part of the past. */
void kv_commit(struct kv_seq *s);

/* The step failed, whatever it has written: everything is as it was before kv_reserve(). */
void kv_abort(struct kv_seq *s);

/* Remember this position and those up to `back` before it (as far as they can be stood at).
 * Replaces a mark of the same position; when all marks are used one of the others goes, those far
 * back and close together first. */
void kv_mark(struct kv_seq *s, int back, bool chosen);

/* Forget the tokens from position p on. Returns where the conversation stands now, at most p:
 * the tokens from there to p stay in token[] and must be computed again. */
int kv_truncate(struct kv_seq *s, int p);

/* For kv_disk: forget everything and take the blocks of n_tok tokens; the caller writes them, then
 * sets n_tok. */
int kv_seq_refill(struct kv_seq *s, int n_tok, struct err *e);

/* For kv_disk: rings and frontiers as they are now, for standing at floor..n_tok, into m->copy; and
 * back, which sets the floor. bytes_of: what a copy for floor..top takes. */
size_t kv_copy_bytes_of(const struct kv_seq *s, int floor, int top);
void kv_copy_save(const struct kv_seq *s, struct kv_mark *m, int floor);
void kv_copy_restore(struct kv_seq *s, const struct kv_mark *m);

/* Bytes of memory this conversation holds. */
struct kv_use {
    size_t blocks, state, marks;
};
struct kv_use kv_use_of(const struct kv_seq *s);

#endif
