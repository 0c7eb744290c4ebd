/* tokenizer_impl.h - the parts of a tokenizer, for the readers of its files. */
#ifndef DS_TOKENIZER_IMPL_H
#define DS_TOKENIZER_IMPL_H

#include "bpe_impl.h"
#include "literal_impl.h"
#include "pretoken_impl.h"
#include "tokenizer.h"
#include "vocab_impl.h"

struct tokenizer {
    struct vocab vocab;
    struct literals literals;
    struct bpe *bpe;
    struct pretoken *split;
};

/* The rest of opening, once a reader has filled t->vocab: `pattern` cuts the text. */
int tokenizer_build(struct tokenizer *t, const char *const *pattern, int n_pattern,
                    const struct log *log, struct err *e);

#endif
