/* literal_impl.h - the added tokens' texts, and finding them in a prompt. */
#ifndef DS_LITERAL_IMPL_H
#define DS_LITERAL_IMPL_H

#include "vocab_impl.h"

struct literal {
    const char *bytes; /* borrowed from the vocabulary */
    size_t len;
    int id;
};

struct literals {
    struct literal *item; /* sorted by bytes */
    int n;
    bool starts[256]; /* bytes that some literal begins with */
};

/* ERR_FORMAT when two added tokens have the same text. */
int literals_init(struct literals *l, const struct vocab *v, struct err *e);
void literals_release(struct literals *l);

/* The longest literal that the n bytes at s begin with, or NULL. */
const struct literal *literals_match(const struct literals *l, const char *s, size_t n);

/* The one that is exactly these bytes, or NULL. */
const struct literal *literals_find(const struct literals *l, const char *s, size_t n);

#endif
