/* pretoken_impl.h - cut a text into the pieces within which tokens may form.
 *
 * A rule is a list of patterns. Each cuts every piece that the one before has left: matches and
 * the gaps between them both become pieces, and a pattern sees nothing outside its piece. */
#ifndef DS_PRETOKEN_IMPL_H
#define DS_PRETOKEN_IMPL_H

#include "tokenizer.h"

#define PRETOKEN_MAX_STAGE 8

struct pretoken;

/* The rule of DeepSeek V3 and V4, whose GGUF name is "joyai-llm". */
#define PRETOKEN_N_JOYAI 3
extern const char *const pretoken_joyai[PRETOKEN_N_JOYAI];

/* Patterns are regular expressions as tokenizer.json has them (Oniguruma's language). What PCRE2
 * would read differently is translated or refused: ERR_UNSUPPORTED. */
int pretoken_new(struct pretoken **p, const char *const *pattern, int n, const struct log *log,
                 struct err *e);
void pretoken_free(struct pretoken *p);

/* Its GGUF name, or NULL. */
const char *pretoken_name(const struct pretoken *p);

/* Begin a text of valid UTF-8, which stays the caller's and in place. */
void pretoken_start(struct pretoken *p, const char *text, size_t len);

/* The next piece: 1, or 0 at the end. Pieces are adjacent and not empty. ERR_LIMIT when the
 * search for a match takes unreasonably long. */
int pretoken_next(struct pretoken *p, struct text_span *piece, struct err *e);

#endif
