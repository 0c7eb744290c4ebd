/* detok.c - hold back the beginning of a character until its rest comes.
 *
 * The held bytes are always a valid beginning, so at most three wait, and what follows decides
 * whether they were half a character or garbage. */
#include "detok.h"

#include "tokenizer.h"
#include "utf8.h"

void detok_init(struct detok *d, bool raw)
{
    *d = (struct detok){ .raw = raw };
}

void detok_push(struct detok *d, const struct tokenizer *t, int id, struct buf *out)
{
    size_t n;
    const char *bytes = tokenizer_bytes(t, id, &n);
    if (bytes)
        detok_push_bytes(d, bytes, n, out);
}

/* Feed bytes to the held beginning one by one until it is a whole character or broken; returns
 * how many were taken. A byte that breaks it is not taken: it may begin something itself. */
static size_t complete_held(struct detok *d, const char *bytes, size_t n, struct buf *out)
{
    size_t taken = 0;
    while (d->n_held > 0 && taken < n) {
        d->held[d->n_held] = bytes[taken];
        int step = utf8_step(d->held, (size_t)d->n_held + 1);
        if (step < 0) {
            buf_puts(out, UTF8_REPLACEMENT);
            d->n_held = 0;
            break;
        }
        taken++;
        d->n_held++;
        if (step > 0) {
            buf_add(out, d->held, (size_t)step);
            d->n_held = 0;
        }
    }
    return taken;
}

void detok_push_bytes(struct detok *d, const char *bytes, size_t n, struct buf *out)
{
    if (d->raw) {
        buf_add(out, bytes, n);
        return;
    }
    size_t at = complete_held(d, bytes, n, out);
    while (at < n) {
        size_t good = utf8_valid_len(bytes + at, n - at);
        buf_add(out, bytes + at, good);
        at += good;
        if (at == n)
            break;
        int step = utf8_step(bytes + at, n - at);
        if (step == 0) {
            d->n_held = (int)(n - at);
            memcpy(d->held, bytes + at, n - at);
            break;
        }
        buf_puts(out, UTF8_REPLACEMENT);
        at += (size_t)-step;
    }
}

void detok_finish(struct detok *d, struct buf *out)
{
    if (d->n_held > 0)
        buf_puts(out, UTF8_REPLACEMENT);
    d->n_held = 0;
}
