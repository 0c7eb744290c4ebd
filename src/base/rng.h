/* rng.h - random numbers from a counter: the same (seed, n) gives the same number on every
 * machine, in any order. Mixing function: splitmix64 (Steele, Lea, Flood 2014). */
#ifndef DS_RNG_H
#define DS_RNG_H

#include "base.h"

struct rng {
    uint64_t seed, n;
};

ON_DEVICES static inline uint64_t rng_at(uint64_t seed, uint64_t n)
{
    uint64_t z = seed + (n + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint64_t rng_next(struct rng *r)
{
    return rng_at(r->seed, r->n++);
}

/* Uniform in [0, 1), 53 bits. */
static inline double rng_unit(struct rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

#endif
