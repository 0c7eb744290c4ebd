/* hash.c - words in, one word out; the same on every machine (words are little-endian). */
#include "hash.h"

static uint64_t word_of(const uint8_t *p)
{
    uint64_t w = 0;
    for (int i = 7; i >= 0; i--)
        w = w << 8 | p[i];
    return w;
}

static uint64_t step(uint64_t h, uint64_t w)
{
    h ^= w * UINT64_C(0x9e3779b97f4a7c15);
    h = (h << 27 | h >> 37) * UINT64_C(0xbf58476d1ce4e5b9);
    return h ^ (h >> 29);
}

static uint64_t finish(uint64_t h)
{
    h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
    return h ^ (h >> 31);
}

void hash_init(struct hash *s, uint64_t seed)
{
    *s = (struct hash){ .h = finish(seed + UINT64_C(0x9e3779b97f4a7c15)) };
}

void hash_add(struct hash *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t have = s->n % 8;
    s->n += n;
    if (have) {
        size_t take = MIN(n, 8 - have);
        memcpy(s->tail + have, p, take);
        p += take;
        n -= take;
        if (have + take < 8)
            return;
        s->h = step(s->h, word_of(s->tail));
    }
    for (; n >= 8; p += 8, n -= 8)
        s->h = step(s->h, word_of(p));
    if (n)
        memcpy(s->tail, p, n);
}

uint64_t hash_value(const struct hash *s)
{
    uint8_t last[8] = { 0 };
    memcpy(last, s->tail, s->n % 8);
    return finish(step(step(s->h, word_of(last)), s->n));
}

uint64_t hash_of(const void *data, size_t n, uint64_t seed)
{
    struct hash s;
    hash_init(&s, seed);
    hash_add(&s, data, n);
    return hash_value(&s);
}
