/* bpe_impl.h - merge the bytes of one piece of text into tokens. */
#ifndef DS_BPE_IMPL_H
#define DS_BPE_IMPL_H

#include "tokenizer.h"
#include "vocab_impl.h"

struct bpe;

/* Keeps a pointer to the vocabulary's merges and bytes. ERR_FORMAT when a pair occurs twice. */
int bpe_new(struct bpe **b, const struct vocab *v, struct err *e);
void bpe_free(struct bpe *b);

/* Append the tokens of a piece: start from single bytes, join the adjacent pair of the best rank,
 * the leftmost among equals, until no pair has one. O(n log n). len < 2^31. */
int bpe_encode(struct bpe *b, const char *piece, size_t len, struct ids *out, struct err *e);

#endif
