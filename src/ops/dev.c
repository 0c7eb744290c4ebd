/* dev.c - a step's memory and its one remembered failure. */
#include "dev.h"

#include "draw.h"
#include "ops_table.h"

#include <stdarg.h>
#include <stdio.h>

void dev_fail(struct dev *d, enum err_code code, const char *fmt, ...)
{
    if (d->err.code != ERR_NONE)
        return;
    va_list ap;
    va_start(ap, fmt);
    char text[512];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (d->layer >= 0)
        err_set(&d->err, code, "device %s, layer %d: %s", d->name, d->layer, text);
    else
        err_set(&d->err, code, "device %s: %s", d->name, text);
}

void *dev_alloc(struct dev *d, size_t bytes)
{
    if (d->err.code != ERR_NONE)
        return NULL;
    void *p = arena_alloc(&d->scratch, bytes);
    if (!p && !dev_planning(d))
        dev_fail(d, ERR_NO_MEMORY, "scratch of %zu bytes is too small for %zu more",
                 d->scratch.size, bytes);
    return p;
}

struct tensor dev_tensor(struct dev *d, enum dtype type, int cols, int rows)
{
    size_t pitch = dtype_bytes(type, (size_t)cols);
    return (struct tensor){
        .data = dev_alloc(d, pitch * (size_t)rows),
        .type = type,
        .cols = cols,
        .rows = rows,
        .pitch = pitch,
    };
}

bool dev_is_apart(const struct dev *d)
{
    return d->ops->take != NULL;
}

int dev_memory_take(struct dev *d, void **mem, size_t bytes, struct err *e)
{
    CHECK(dev_is_apart(d));
    return d->ops->take(d, mem, bytes, e);
}

void dev_memory_give_back(struct dev *d, void *mem)
{
    if (mem)
        d->ops->give_back(d, mem);
}

size_t dev_memory_left(const struct dev *d)
{
    size_t all;
    return d->ops->left(d, &all);
}

size_t dev_memory_all(const struct dev *d)
{
    size_t all;
    d->ops->left(d, &all);
    return all;
}

int dev_host_take(struct dev *d, void **mem, size_t bytes, struct err *e)
{
    CHECK(dev_is_apart(d));
    return d->ops->take_host(d, mem, bytes, e);
}

void dev_host_give_back(struct dev *d, void *mem)
{
    if (mem)
        d->ops->give_back_host(d, mem);
}

int dev_ahead_take(struct dev *d, size_t bytes, int n, struct err *e)
{
    return d->ops->take_ahead(d, bytes, n, e);
}

int dev_slots_take(struct dev *d, struct expert_set *set, int n, uint64_t each, struct err *e)
{
    n = MIN(n, MAX_SLOT);
    if (n < 1 || each == 0 || set->far_bytes == 0 || set->n > MAX_PLACE)
        return 0;
    return d->ops->take_slots(d, set, n, (size_t)each, e);
}

struct tensor dev_look(struct dev *d, const struct tensor *t)
{
    return d->ops->look ? d->ops->look(d, t) : *t;
}

void dev_copy(struct dev *d, void *to, const void *from, size_t bytes)
{
    if (d->ops->copy)
        d->ops->copy(d, to, from, bytes);
    else
        memcpy(to, from, bytes);
}

int dev_lanes(struct dev *d, int n, size_t bytes, void **mem, struct err *e)
{
    CHECK(dev_is_apart(d) && n >= 1 && n <= DEV_LANES);
    return d->ops->lanes(d, n, bytes, mem, e);
}

int dev_send(struct dev *d, int lane, void *to, size_t bytes, struct err *e)
{
    return d->ops->send(d, lane, to, bytes, e);
}

void dev_lanes_close(struct dev *d)
{
    d->ops->lanes_close(d);
}

void dev_random(struct dev *d, const struct quant_random *q, size_t first, size_t n, void *to)
{
    CHECK(quant_random_can(q) && first % 8 == 0);
    if (d->ops->random)
        d->ops->random(d, q, first, n, to);
    else
        quant_random(q, first, n, to);
}

/* What the last step remembers has been read. */
int dev_copy_now(struct dev *d, void *to, const void *from, size_t bytes, struct err *e)
{
    d->err = (struct err){ 0 };
    dev_copy(d, to, from, bytes);
    return d->err.code == ERR_NONE ? 0 : err_set(e, d->err.code, "%s", d->err.text);
}

void dev_move(struct dev *d, const struct dev_piece *p, int n)
{
    CHECK(n >= 1 && n <= DEV_PIECES);
    d->ops->move(d, p, n);
}

void dev_mark(struct dev *d, int i)
{
    CHECK(dev_is_apart(d) && i >= 0 && i < DEV_MARKS);
    d->ops->mark(d, i);
}

double dev_between(struct dev *d, int from, int to)
{
    return d->ops->between(d, from, to);
}

void dev_stall(struct dev *d, double s)
{
    CHECK(dev_is_apart(d));
    d->ops->stall(d, s);
}

bool dev_replay(struct dev *d, const struct rows *r, const struct rows *next, struct tensor *out)
{
    if (!d->ops->replay || d->on_route || d->on_layer || d->watch || d->on_op)
        return false;
    dev_check_stop(d);
    return d->err.code != ERR_NONE || d->ops->replay(d, r, next, out);
}

bool dev_results(struct dev *d, struct tensor *out)
{
    return !d->ops->results || d->ops->results(d, out);
}

bool dev_draws(const struct dev *d)
{
    return d->ops->draw != NULL;
}

void dev_draw(struct dev *d, const struct draw *draw, int n, int n_vocab)
{
    d->ops->draw(d, draw, n, n_vocab);
}

void dev_begin(struct dev *d)
{
    d->err = (struct err){ 0 };
    d->layer = -1;
    d->scratch.overflow = false;
    arena_rewind(&d->scratch, 0);
    if (d->ops->begin)
        d->ops->begin(d);
}

int dev_wait(struct dev *d, struct err *e)
{
    if (d->ops->wait) /* after a failure too: what was queued before it reads what comes next */
        TRY(d->ops->wait(d, e));
    if (d->err.code == ERR_NONE)
        return 0;
    return err_set(e, d->err.code, "%s", d->err.text);
}
