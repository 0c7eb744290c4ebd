/* tokenizer.h - text to token ids and back: byte-level BPE as DeepSeek V4 uses it.
 *
 * A vocabulary has base tokens (single bytes, and what merges make of them) and added tokens:
 * literals such as <think> that stand for one id wherever the caller allows them. Encoding
 * prepends and appends nothing; the chat template writes its own control tokens.
 * One tokenizer is used by one thread at a time (it caches); different ones are independent. */
#ifndef DS_TOKENIZER_H
#define DS_TOKENIZER_H

#include "buf.h"
#include "error.h"
#include "log.h"
#include "meta.h"
#include "text_span.h"

struct tokenizer;

/* A growing list of token ids. Zeroed = empty. */
struct ids {
    int32_t *id;
    int n, cap;
};

/* Append one; false when memory is exhausted or the count would pass INT_MAX. */
bool ids_add(struct ids *list, int32_t id);
void ids_release(struct ids *list);

/* From a tokenizer.json (file, or text in memory with `name` for messages), or from a GGUF
 * file's tokenizer.ggml.* keys (`file` for messages). The whole vocabulary is checked: byte-level
 * BPE without normaliser, every id 0..n-1 present once, all 256 single bytes present, every merge
 * made of known tokens. `log` (may be NULL) hears remarks. On failure *t is NULL. */
int tokenizer_open_json(struct tokenizer **t, const char *path, const struct log *log,
                        struct err *e);
int tokenizer_open_json_text(struct tokenizer **t, const char *data, size_t len, const char *name,
                             const struct log *log, struct err *e);
int tokenizer_open_meta(struct tokenizer **t, const struct meta *m, const char *file,
                        const struct log *log, struct err *e);
void tokenizer_close(struct tokenizer *t); /* NULL is fine */

/* Ids are 0..n-1. */
int tokenizer_n_vocab(const struct tokenizer *t);

/* Id of the added token with exactly this text, else -1. */
int tokenizer_find(const struct tokenizer *t, const char *literal, size_t len);

/* Raw bytes of any id (not zero-terminated; may be half a character); for an added token its
 * literal. NULL for an id that does not exist. Valid until the tokenizer is closed. */
const char *tokenizer_bytes(const struct tokenizer *t, int id, size_t *len);
bool tokenizer_is_added(const struct tokenizer *t, int id);

/* Append the ids of `text` to `out`. Any bytes are allowed, and the tokens' bytes together always
 * give them back: a byte that is not part of a valid UTF-8 character becomes its single-byte token
 * and separates the text around it.
 * special: places in which literals of added tokens become their ids (leftmost, then longest);
 * ascending, disjoint. A literal counts only if it lies wholly inside one span, and spans do not
 * split the text otherwise. One span over everything: a raw prompt. None: plain text of a user.
 * On failure (ERR_NO_MEMORY, ERR_LIMIT) `out` keeps what it had. */
int tokenizer_encode(struct tokenizer *t, const char *text, size_t len,
                     const struct text_span *special, int n_special, struct ids *out,
                     struct err *e);

/* For writing the vocabulary into a GGUF file. */
enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_CONTROL = 3,      /* added, marked special */
    TOKEN_USER_DEFINED = 4, /* added, not special */
    TOKEN_UNUSED = 5,       /* a hole in the numbering; only GGUF files can have it */
};

enum token_type tokenizer_type(const struct tokenizer *t, int id);

/* Append the token as GGUF and tokenizer.json spell it: bytes mapped to printable characters
 * (space = U+0120), added tokens verbatim, TOKEN_UNUSED as [PADid]. */
void tokenizer_spelling(const struct tokenizer *t, int id, struct buf *out);

/* Merges in rank order: `left` and `right` are the ids of the parts. */
int tokenizer_n_merge(const struct tokenizer *t);
void tokenizer_merge(const struct tokenizer *t, int i, int *left, int *right);

/* Name for tokenizer.ggml.pre ("joyai-llm"), or NULL when the text is split by rules that have
 * no such name. */
const char *tokenizer_pre(const struct tokenizer *t);

#endif
