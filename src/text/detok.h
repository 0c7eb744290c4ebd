/* detok.h - tokens to text, piece by piece.
 *
 * A token may end inside a character. The text mode hands on whole characters only, so what it
 * appends is always valid UTF-8; the raw mode hands on every byte at once. */
#ifndef DS_DETOK_H
#define DS_DETOK_H

#include "buf.h"

struct tokenizer;

struct detok {
    bool raw;
    int n_held; /* 0..3 */
    char held[4]; /* beginning of a character whose rest has not come yet */
};

void detok_init(struct detok *d, bool raw);

/* Append the text that token `id` completes; bytes that are no UTF-8 become U+FFFD, one per
 * maximal subpart. An id that does not exist adds nothing. */
void detok_push(struct detok *d, const struct tokenizer *t, int id, struct buf *out);

/* The same for bytes that do not come from a token. */
void detok_push_bytes(struct detok *d, const char *bytes, size_t n, struct buf *out);

/* The stream ends: a held beginning becomes one U+FFFD. The decoder is then as after init. */
void detok_finish(struct detok *d, struct buf *out);

#endif
