/* vocab_impl.h - the tokens and merges of a tokenizer, whatever file they come from.
 *
 * A file spells base tokens in printable characters, one per byte (GPT-2's map: printable
 * Latin-1 stands for itself, the other 68 bytes in ascending order for U+0100, U+0101, ...).
 * Readers give spellings; everything after that works on bytes and ids. */
#ifndef DS_VOCAB_IMPL_H
#define DS_VOCAB_IMPL_H

#include "buf.h"
#include "error.h"
#include "tokenizer.h"

#define SPELL_END 0x144 /* first code point that spells no byte */

struct vocab_token {
    size_t at; /* in vocab.bytes */
    uint32_t len;
    uint8_t type; /* enum token_type; 0: not set yet */
};

struct merge {
    int32_t left, right, result;
};

struct vocab {
    int n, n_merge;
    struct vocab_token *token; /* [n] */
    struct merge *merge;       /* [n_merge], best rank first */
    struct buf bytes;          /* of all tokens, one after the other */
    int32_t byte_id[256];      /* the base token of each single byte */
    uint16_t spelled[256];     /* byte -> code point */
    int16_t byte_of[SPELL_END];/* code point -> byte, -1: none */
    int32_t *slot;             /* base tokens by bytes; open addressing, -1: free */
    size_t n_slot;             /* a power of two; 0 after vocab_finish() */
};

/* Room for ids 0..n-1 and at most max_merge merges. */
int vocab_init(struct vocab *v, int n, int max_merge, struct err *e);
void vocab_release(struct vocab *v);

/* Give id its token: a base token by its spelling, an added one verbatim. ERR_FORMAT for an id
 * out of range or given before, an empty token, a character that spells no byte, and for two
 * base tokens of the same bytes. The texts are not kept. */
int vocab_set_base(struct vocab *v, int64_t id, const char *spelling, size_t len, struct err *e);
int vocab_set_added(struct vocab *v, int64_t id, const char *literal, size_t len,
                    enum token_type type, struct err *e);

/* `id` stays a hole. */
int vocab_set_unused(struct vocab *v, int64_t id, struct err *e);

/* Is the added token `id` the one that a list of base tokens spells like this? (Files may list
 * an added token in both places.) */
bool vocab_is_same(const struct vocab *v, int id, const char *spelling, size_t len);

/* The next merge, its parts spelled. They and what they make must have been set. */
int vocab_add_merge(struct vocab *v, const char *left, size_t n_left, const char *right,
                    size_t n_right, struct err *e);

/* All tokens and merges are in: checks for holes and missing bytes. */
int vocab_finish(struct vocab *v, struct err *e);

static inline const char *vocab_bytes(const struct vocab *v, int id)
{
    return v->bytes.data + v->token[id].at;
}

#endif
