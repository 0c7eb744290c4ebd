/* hash.h - fingerprints against accidents, not against attackers.
 *
 * 64 bits over 8-byte words: multiply, rotate, and the finishing mix of splitmix64. Any flipped
 * bit changes a word and so the sum; the chance that damage goes unseen is 2^-64. */
#ifndef DS_HASH_H
#define DS_HASH_H

#include "base.h"

struct hash {
    uint64_t h, n;   /* state, bytes so far */
    uint8_t tail[8]; /* bytes that do not fill a word yet */
};

void hash_init(struct hash *s, uint64_t seed);
void hash_add(struct hash *s, const void *data, size_t n);
uint64_t hash_value(const struct hash *s); /* may be asked at any time */

/* All at once. */
uint64_t hash_of(const void *data, size_t n, uint64_t seed);

#endif
