/* read_faults.h - a disk that misbehaves on demand, for tests of reading. */
#ifndef DS_READ_FAULTS_H
#define DS_READ_FAULTS_H

#include <errno.h>

#include "aio.h"
#include "clock.h"
#include "rng.h"

/* What is set happens; a zeroed one is a good disk. Reads are counted from 0 as they come back. */
struct read_faults {
    struct aio_fault fault; /* for aio_ask */
    int fail_from, n_fail;  /* reads [fail_from, fail_from + n_fail) fail with `sys` ... */
    int sys;
    bool direct_only;       /* ... if they are direct */
    uint64_t fail_at, fail_bytes; /* and all that touch this range of the file */
    size_t cut_to;          /* > 0: a read returns that many bytes at most, so that ... */
    int n_cut;              /* ... many times */
    struct rng *shuffle;    /* three of four times a read is not delivered yet */
    uint64_t stuck_at;      /* the read of this byte is not delivered ... */
    bool stuck;             /* ... while this is set */
    uint64_t flip_at;       /* this byte of the file is read wrongly, if > 0 */
    double latency_s;       /* each read takes that long, however many there are ... */
    struct { void *dst; double at; } born[64];
    double pace_s;          /* ... or one comes back in that time, however many are asked for */
    double next_s;
    int n;
    uint64_t seen[4096];    /* offset of each read as it came back */
};

static inline bool touches(const struct aio_read *r, uint64_t at, uint64_t n)
{
    return r->offset < at + n && at < r->offset + r->bytes;
}

/* Has the read been under way long enough? */
static inline bool is_due(struct read_faults *f, const struct aio_read *r)
{
    double now = clock_now_s();
    if (f->pace_s > 0) {
        if (now < f->next_s)
            return false;
        f->next_s = MAX(f->next_s, now - 10 * f->pace_s) + f->pace_s;
        return true;
    }
    size_t i = 0, empty = 0;
    while (i < COUNT_OF(f->born) && f->born[i].dst != r->dst) {
        empty = f->born[i].dst ? empty : i;
        i++;
    }
    if (i == COUNT_OF(f->born)) {
        f->born[empty].dst = r->dst;
        f->born[empty].at = now;
        return false;
    }
    if (now < f->born[i].at + f->latency_s)
        return false;
    f->born[i].dst = NULL;
    return true;
}

static inline bool fault_deliver(void *user, const struct aio_read *r, struct aio_done *d)
{
    struct read_faults *f = user;
    if (f->stuck && touches(r, f->stuck_at, 1))
        return false;
    if (f->shuffle && rng_next(f->shuffle) % 4)
        return false;
    if ((f->pace_s > 0 || f->latency_s > 0) && !is_due(f, r))
        return false;
    int n = f->n++;
    f->seen[n % 4096] = r->offset;
    bool fails = n >= f->fail_from && n < f->fail_from + f->n_fail;
    fails |= f->fail_bytes && touches(r, f->fail_at, f->fail_bytes);
    if (fails && !(f->direct_only && r->buffered)) {
        d->code = ERR_IO;
        d->sys = f->sys;
        d->bytes = 0;
        memset(r->dst, 0xee, r->bytes);
        return true;
    }
    if (f->cut_to && f->n_cut > 0 && d->bytes > f->cut_to) {
        memset((uint8_t *)r->dst + f->cut_to, 0xee, r->bytes - f->cut_to);
        d->bytes = f->cut_to;
        f->n_cut--;
    }
    if (f->flip_at && touches(r, f->flip_at, 1))
        ((uint8_t *)r->dst)[f->flip_at - r->offset] ^= 1;
    return true;
}

static inline void faults_init(struct read_faults *f)
{
    memset(f, 0, sizeof *f);
    f->fault = (struct aio_fault){ f, fault_deliver };
    f->sys = EIO;
}

#endif
