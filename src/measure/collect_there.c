/* collect_there.c - sums in the memory of a device, which adds up what its products are given: of
 * millions of inputs nothing but the sums comes over the bus, and only when they are wanted. */
#include "collect_impl.h"

#include "report.h"

#include <math.h>
#include <stdlib.h>

static size_t n_sum(const struct collect_stat *s)
{
    return (size_t)s->n_mat * (size_t)s->n_col;
}

static size_t bytes_of(const struct collect_stat *s)
{
    return 2 * n_sum(s) * sizeof *s->square + (size_t)s->n_mat * sizeof *s->count;
}

/* The host's numbers there, or those there here. */
static int copy(struct collector *c, bool here, struct err *e)
{
    for (int i = 0; i < c->n_stat; i++) {
        const struct collect_stat *s = &c->stat[i];
        const struct dev_sums *t = &c->there.sums[i];
        struct {
            void *host, *there;
            size_t bytes;
        } part[] = { { s->square, t->square, n_sum(s) * sizeof *s->square },
                     { s->value, t->value, n_sum(s) * sizeof *s->value },
                     { s->count, t->count, (size_t)s->n_mat * sizeof *s->count } };
        for (size_t k = 0; k < COUNT_OF(part); k++)
            TRY(dev_copy_now(c->engine->dev, here ? part[k].host : part[k].there,
                             here ? part[k].there : part[k].host, part[k].bytes, e));
    }
    return 0;
}

int collect_there_open(struct collector *c, struct err *e)
{
    struct dev *d = c->engine->dev;
    size_t bytes = 0, left = dev_memory_left(d);
    for (int i = 0; i < c->n_stat; i++)
        bytes += bytes_of(&c->stat[i]);
    if (bytes > left)
        return err_set(e, ERR_NO_MEMORY, "%s: device %s: its sums need %s of memory, %s are left; "
                       "a smaller --ctx or --gpu-memory leaves more", c->engine->path, d->name,
                       bytes_text((double)bytes).s, bytes_text((double)left).s);
    c->there.sums = calloc((size_t)c->n_stat, sizeof *c->there.sums);
    if (!c->there.sums)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d sums", c->n_stat);
    TRY(dev_memory_take(d, &c->there.mem, bytes, e));
    char *at = c->there.mem;
    for (int i = 0; i < c->n_stat; i++) {
        size_t n = n_sum(&c->stat[i]);
        c->there.sums[i].square = (double *)(void *)at;
        c->there.sums[i].value = c->there.sums[i].square + n;
        c->there.sums[i].count = (int64_t *)(void *)(c->there.sums[i].value + n);
        at += bytes_of(&c->stat[i]);
    }
    return collect_there_send(c, e);
}

int collect_there_send(struct collector *c, struct err *e)
{
    return c->there.mem ? copy(c, false, e) : 0;
}

void collect_there_close(struct collector *c)
{
    dev_memory_give_back(c->engine->dev, c->there.mem);
    free(c->there.sums);
    c->there = (struct collect_there){ 0 };
}

/* What is no number, or infinite, makes its column's sum so for good. */
static int check(const struct collector *c, const struct collect_stat *s, struct err *e)
{
    for (size_t i = 0; i < n_sum(s); i++)
        if (!isfinite(s->square[i]))
            return collect_no_number(c, s, (int)(i / (size_t)s->n_col), e);
    return 0;
}

int collect_fetch(struct collector *c, struct err *e)
{
    if (!c->there.mem)
        return 0;
    TRY(copy(c, true, e));
    for (int i = 0; i < c->n_stat; i++)
        TRY(check(c, &c->stat[i], e));
    return 0;
}
