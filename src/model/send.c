/* send.c - reads and copies that overlap, in pieces of one size.
 *
 * A thread reads a piece and has it copied before it takes the next one; with a few threads the
 * drive and the bus are both busy. Rejected: copying from the mapped file, where one thread waits
 * for every page in turn and the driver copies what it reads once more. */
#include "send.h"

#include "cpu.h"
#include "file.h"
#include "thread.h"

#include <stdatomic.h>
#include <stdlib.h>

struct sending {
    const struct send_list *list;
    const struct weights *files;
    struct dev *d;
    struct file_in *file; /* [weights_n_file()] */
    const struct report *told;
    void *mem[DEV_LANES]; /* a thread's piece */
    atomic_int n_done;
    atomic_bool stop;
    struct err err;       /* of who set stop */
};

int send_threads(void)
{
    return MIN(cpu_count(), DEV_LANES);
}

/* tidy: heap - while weights are named */
int send_add(struct send_list *l, const struct send_item *i, struct err *e)
{
    if (l->n == l->cap) {
        int cap = l->cap ? 2 * l->cap : 1024;
        struct send_item *more = realloc(l->item, (size_t)cap * sizeof *more);
        if (!more)
            return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", cap);
        l->item = more;
        l->cap = cap;
    }
    l->item[l->n] = *i;
    l->item[l->n++].first = l->n_piece;
    l->n_piece += i->w->counted ? 0 : (int)((i->bytes + SEND_PIECE - 1) / SEND_PIECE);
    return 0;
}

/* tidy: heap - the other end of send_add */
void send_release(struct send_list *l)
{
    free(l->item);
    *l = (struct send_list){ 0 };
}

/* Whose piece it is: the last item that begins with it or before. */
static const struct send_item *item_of(const struct send_list *l, int piece)
{
    int low = 0, high = l->n - 1;
    while (low < high) {
        int mid = low + (high - low + 1) / 2;
        if (l->item[mid].first <= piece)
            low = mid;
        else
            high = mid - 1;
    }
    return &l->item[low];
}

static int send_piece(struct sending *s, int piece, int lane, struct err *e)
{
    const struct send_item *i = item_of(s->list, piece);
    size_t at = (size_t)(piece - i->first) * SEND_PIECE, n = MIN(SEND_PIECE, i->bytes - at);
    TRY(file_in_read_at(&s->file[i->w->file], i->w->offset + (int64_t)(i->at + at),
                        i->is_host ? i->to + at : s->mem[lane], n, e));
    if (!i->is_host)
        TRY(dev_send(s->d, lane, i->to + at, n, e));
    int done = atomic_fetch_add(&s->n_done, 1) + 1;
    return lane == 0 ? report_to(s->told, "weights", (double)done / s->list->n_piece, e) : 0;
}

static void send_task(void *ctx, int task, int worker)
{
    struct sending *s = ctx;
    struct err e = { 0 };
    if (atomic_load(&s->stop) || send_piece(s, task, worker, &e) == 0)
        return;
    if (!atomic_exchange(&s->stop, true))
        s->err = e;
}

static int send_stored(struct sending *s, int n_thread, struct err *e)
{
    struct pool *pool;
    TRY(pool_new(&pool, n_thread, e));
    int code = dev_lanes(s->d, n_thread, SEND_PIECE, s->mem, e);
    if (code == 0) {
        pool_run(pool, send_task, s, s->list->n_piece);
        code = atomic_load(&s->stop) ? err_set(e, s->err.code, "%s", s->err.text) : 0;
    }
    dev_lanes_close(s->d);
    pool_free(pool);
    return code;
}

/* tidy: heap - a descriptor for each file, while they are read */
static int send_files(struct sending *s, struct err *e)
{
    int n = weights_n_file(s->files), code = 0;
    s->file = calloc((size_t)n, sizeof *s->file);
    if (!s->file)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", weights_path(s->files));
    for (int i = 0; code == 0 && i < n; i++)
        code = file_in_open(&s->file[i], weights_file(s->files, i), e);
    if (code == 0)
        code = send_stored(s, send_threads(), e);
    for (int i = 0; i < n; i++)
        file_in_close(&s->file[i]);
    free(s->file);
    return code;
}

static int make_counted(const struct send_list *l, struct dev *d, const struct report *told,
                        struct err *e)
{
    dev_begin(d);
    for (int i = 0; i < l->n; i++) {
        const struct send_item *s = &l->item[i];
        size_t block = (size_t)dtype_info((int)s->w->type)->bytes;
        if (!s->w->counted)
            continue;
        dev_random(d, &s->w->random, s->at / block, s->bytes / block, s->to);
        TRY(report_to(told, "weights", (double)i / l->n, e));
    }
    return dev_wait(d, e);
}

int send_all(struct send_list *l, const struct weights *files, struct dev *d,
             const struct report *told, struct err *e)
{
    struct sending s = { .list = l, .files = files, .d = d, .told = told };
    int code = make_counted(l, d, told, e);
    if (code == 0 && l->n_piece > 0)
        code = send_files(&s, e);
    send_release(l);
    return code;
}
