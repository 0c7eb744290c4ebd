/* load_bench.c - what bringing weights to a device could take at best: the reads alone, the copies
 * alone, by the threads and in the pieces that loading has (send.c). */
#include "measure.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "clock.h"
#include "engine.h"
#include "file.h"
#include "pages.h"
#include "send.h"
#include "thread.h"

#define BUS_PIECES 256 /* of a round */
enum { BUS_ROUNDS = 3 };

struct load_times measure_load(dstar_engine *engine)
{
    const struct engine *en = engine_of(engine);
    if (!dev_is_apart(en->dev))
        return (struct load_times){ .open_s = en->load_s };
    size_t bytes = model_info(en->model)->held_bytes + (size_t)en->split.bytes;
    return (struct load_times){ (double)bytes, en->weights_s, en->load_s };
}

/* ---- reads ---- */

struct reading {
    struct file_in *file; /* [n] */
    int64_t *first;       /* [n + 1] pieces of the files before */
    int n;
    char *mem;            /* [threads][SEND_PIECE] */
    atomic_bool stop;
    struct err err;       /* of who set stop */
};

static void close_files(struct reading *r)
{
    for (int i = 0; r->file && i < r->n; i++)
        file_in_close(&r->file[i]);
    free(r->file);
    free(r->first);
}

static int open_files(struct reading *r, const char *path, struct err *e)
{
    struct weights *w;
    *r = (struct reading){ 0 };
    TRY(weights_open(&w, path, e));
    int n = weights_n_file(w), code = 0;
    r->file = calloc((size_t)n, sizeof *r->file);
    r->first = calloc((size_t)n + 1, sizeof *r->first);
    if (!r->file || !r->first)
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    for (; code == 0 && r->n < n; r->n++) {
        struct file_in *f = &r->file[r->n];
        code = file_in_open(f, weights_file(w, r->n), e);
        r->first[r->n + 1] = r->first[r->n] + (f->size + (int64_t)SEND_PIECE - 1) /
                                              (int64_t)SEND_PIECE;
    }
    weights_close(w);
    if (code < 0)
        close_files(r);
    return code;
}

int measure_forget_files(const char *path, struct err *e)
{
    struct reading r;
    TRY(open_files(&r, path, e));
    for (int i = 0; i < r.n; i++)
        file_in_forget(&r.file[i], 0, (size_t)r.file[i].size);
    close_files(&r);
    return 0;
}

static void read_piece(void *ctx, int task, int worker)
{
    struct reading *r = ctx;
    struct err e = { 0 };
    int f = 0;
    while (r->first[f + 1] <= task)
        f++;
    int64_t at = (task - r->first[f]) * (int64_t)SEND_PIECE;
    size_t n = MIN(SEND_PIECE, (size_t)(r->file[f].size - at));
    if (!atomic_load(&r->stop) &&
        file_in_read_at(&r->file[f], at, r->mem + (size_t)worker * SEND_PIECE, n, &e) < 0 &&
        !atomic_exchange(&r->stop, true))
        r->err = e;
}

static int read_all(double *bytes_per_s, struct reading *r, struct err *e)
{
    struct pool *pool;
    void *mem;
    double bytes = 0;
    size_t room = (size_t)send_threads() * SEND_PIECE;
    TRY(pages_map(&mem, room, e));
    int code = pool_new(&pool, send_threads(), e);
    if (code == 0) {
        r->mem = memset(mem, 0, room); /* there before time is taken */
        for (int i = 0; i < r->n; i++)
            bytes += (double)r->file[i].size;
        double start = clock_now_s();
        pool_run(pool, read_piece, r, (int)r->first[r->n]);
        *bytes_per_s = bytes / (clock_now_s() - start);
        code = atomic_load(&r->stop) ? err_set(e, r->err.code, "%s", r->err.text) : 0;
        pool_free(pool);
    }
    pages_unmap(mem, room);
    return code;
}

int measure_files(double *bytes_per_s, const char *path, struct err *e)
{
    struct reading r;
    TRY(open_files(&r, path, e));
    int code = read_all(bytes_per_s, &r, e);
    close_files(&r);
    return code;
}

/* ---- copies ---- */

struct bus {
    struct dev *d;
    char *to; /* [threads][SEND_PIECE] on the device */
    void *mem[DEV_LANES];
    atomic_bool stop;
    struct err err;
};

static void send_piece(void *ctx, int task, int worker)
{
    struct bus *b = ctx;
    struct err e = { 0 };
    (void)task;
    if (!atomic_load(&b->stop) &&
        dev_send(b->d, worker, b->to + (size_t)worker * SEND_PIECE, SEND_PIECE, &e) < 0 &&
        !atomic_exchange(&b->stop, true))
        b->err = e;
}

static int run_copies(double *bytes_per_s, struct bus *b, struct pool *pool, struct err *e)
{
    *bytes_per_s = 0;
    TRY(dev_lanes(b->d, pool_size(pool), SEND_PIECE, b->mem, e));
    for (int i = 0; i < BUS_ROUNDS && !atomic_load(&b->stop); i++) {
        double start = clock_now_s();
        pool_run(pool, send_piece, b, BUS_PIECES);
        double rate = (double)BUS_PIECES * (double)SEND_PIECE / (clock_now_s() - start);
        *bytes_per_s = MAX(*bytes_per_s, rate);
    }
    return atomic_load(&b->stop) ? err_set(e, b->err.code, "%s", b->err.text) : 0;
}

int measure_bus(double *bytes_per_s, dstar_engine *engine, struct err *e)
{
    struct bus b = { .d = engine_of(engine)->dev };
    struct pool *pool;
    void *to;
    TRY(dev_memory_take(b.d, &to, (size_t)send_threads() * SEND_PIECE, e));
    b.to = to;
    int code = pool_new(&pool, send_threads(), e);
    if (code == 0) {
        code = run_copies(bytes_per_s, &b, pool, e);
        dev_lanes_close(b.d);
        pool_free(pool);
    }
    dev_memory_give_back(b.d, to);
    return code;
}
