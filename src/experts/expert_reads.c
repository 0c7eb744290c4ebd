/* expert_reads.c - loads in three queues, cut into pieces, of which some are in flight.
 *
 *   start --> queue (demand first halves, demand second halves, ahead)
 *                 --cut--> pieces in flight --come back--> parts complete --> report
 *                              |  short: the rest again; EINTR, EAGAIN: again
 *                              |  error: when nothing of the load is in flight any more, all
 *                              |         that is not complete again; then buffered; then failed
 *
 * A piece is one read of one part. Pieces of a part are of equal size, so that a part slightly
 * larger than a piece is not read as a large one and a crumb. */
#include "expert_reads.h"

#include "clock.h"
#include "expert_place.h"
#include "hash.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define PAGE ((size_t)4096)
#define PIECE_BYTES ((size_t)2 << 20)
#define PIECE_AHEAD_BYTES ((size_t)1 << 20) /* a demand waits for one of these at most */
#define MOST_TRIES 64                       /* of a read that makes no way */
#define WARN_S 10.0
#define FAIL_S 60.0

enum queue { FIRST_HALVES, SECOND_HALVES, AHEAD, N_QUEUE };

/* One load from start to its last report. */
struct loading {
    struct expert_load l;
    bool busy, news, is_queued;
    enum queue queue;
    int part, i;          /* next to be cut: part, expert of the run */
    size_t at;            /* bytes of it that are cut already */
    int n_pending[EXPERT_N_PART]; /* pieces that have not come back */
    unsigned cut, complete;       /* bits of parts */
    int n_flight, attempt;
    bool has_failed;      /* a piece, in this attempt */
    bool is_renewed;      /* wanted again: the next attempt is the first */
    bool is_over;         /* failed for good, or dropped */
    struct err err;
};

struct flight {
    struct expert_extent at;
    uint8_t *dst;
    size_t must;          /* bytes that are wanted; the rest is alignment, or beyond the end */
    int id, tries;
    enum expert_part part;
    bool buffered, warned;
    double since;
};

struct expert_reads {
    const struct expert_map *map;
    struct aio *io;
    struct log log;
    struct expert_place place;
    size_t piece;
    int most_places, most_demand, most_ahead; /* in flight */
    double warn_s, fail_s, last_s, scanned_s;
    struct loading *loading; /* [most_places] */
    int *queue[N_QUEUE];     /* [most_places] ids, in order */
    int n_queue[N_QUEUE];
    int *news;               /* [most_places] ids with something to report */
    int n_news, n_busy;
    struct flight *flight;   /* [depth] */
    int *free_flight;        /* [depth] stack */
    int n_free, depth;
    struct aio_read *batch;  /* [depth] */
    struct aio_done *done;   /* [depth] */
    struct expert_reads_stats stats;
};

static const char *const part_name[EXPERT_N_PART] = { "gate", "up", "gate scale", "up scale",
                                                      "down", "down scale" };

/* ---- places ---------------------------------------------------------------------------------- */

static const struct expert_extent *extent_of(const struct expert_reads *r, int key, int part)
{
    return expert_map_at(r->map, key, (enum expert_part)part);
}

static struct expert_run run_of(const struct expert_load *l)
{
    return (struct expert_run){ l->key, l->n, l->place };
}

size_t expert_reads_place_bytes(const struct expert_reads *r)
{
    return r->place.bytes;
}

size_t expert_reads_align(const struct expert_reads *r)
{
    return r->place.unit;
}

const void *expert_reads_part(const struct expert_reads *r, const struct expert_load *load, int i,
                              enum expert_part part)
{
    struct expert_run run = run_of(load);
    return expert_place_part(&r->place, &run, i, part);
}

uint64_t expert_reads_hash(const struct expert_reads *r, const struct expert_load *load, int i)
{
    struct hash h;
    hash_init(&h, 0);
    for (int p = 0; p < EXPERT_N_PART; p++) {
        const void *part = expert_reads_part(r, load, i, (enum expert_part)p);
        if (part)
            hash_add(&h, part, (size_t)extent_of(r, load->key + i, p)->bytes);
    }
    return hash_value(&h);
}

/* ---- open and close -------------------------------------------------------------------------- */

static int check_extents(const struct expert_reads *r, int n_file, struct err *e)
{
    for (int key = 0; key < r->map->n_layer * r->map->n_expert; key++) {
        for (int p = 0; p < EXPERT_N_PART; p++) {
            const struct expert_extent *x = extent_of(r, key, p);
            if (x->bytes == 0)
                continue;
            CHECK(x->file >= 0 && x->file < n_file);
            uint64_t size = aio_file_bytes(r->io, x->file);
            if (x->bytes > size || x->offset > size - x->bytes)
                return err_set(e, ERR_FORMAT, "%s: layer %d, expert %d, %s: %llu bytes at %llu "
                               "lie beyond the end of the file, which has %llu",
                               aio_file_name(r->io, x->file), key / r->map->n_expert,
                               key % r->map->n_expert, part_name[p],
                               (unsigned long long)x->bytes, (unsigned long long)x->offset,
                               (unsigned long long)size);
        }
    }
    return 0;
}

static void reads_free_close(struct expert_reads *r)
{
    for (int q = 0; q < N_QUEUE; q++)
        free(r->queue[q]);
    free(r->loading);
    free(r->news);
    free(r->flight);
    free(r->free_flight);
    free(r->batch);
    free(r->done);
    free(r);
}

static int reads_tables_open(struct expert_reads *r, struct err *e)
{
    size_t places = (size_t)r->most_places, depth = (size_t)r->depth;
    bool ok = true;
    for (int q = 0; q < N_QUEUE; q++)
        ok = (r->queue[q] = calloc(places, sizeof *r->queue[q])) && ok;
    r->loading = calloc(places, sizeof *r->loading);
    r->news = calloc(places, sizeof *r->news);
    r->flight = calloc(depth, sizeof *r->flight);
    r->free_flight = calloc(depth, sizeof *r->free_flight);
    r->batch = calloc(depth, sizeof *r->batch);
    r->done = calloc(depth, sizeof *r->done);
    if (!ok || !r->loading || !r->news || !r->flight || !r->free_flight || !r->batch || !r->done)
        return err_set(e, ERR_NO_MEMORY, "out of memory for reading %d experts at once",
                       r->most_places);
    for (int i = 0; i < r->depth; i++)
        r->free_flight[r->n_free++] = i;
    return 0;
}

int expert_reads_open(struct expert_reads **out, const struct expert_reads_ask *ask, struct err *e)
{
    CHECK(ask->most_places > 0 && ask->run >= 0);
    *out = NULL;
    struct expert_reads *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, ERR_NO_MEMORY, "out of memory for reading experts");
    r->map = ask->map;
    r->log = ask->log;
    r->most_places = ask->most_places;
    r->warn_s = ask->warn_s > 0 ? ask->warn_s : WARN_S;
    r->fail_s = ask->fail_s > 0 ? ask->fail_s : FAIL_S;
    int code = aio_open(&r->io, &ask->io, e);
    if (code == 0) {
        const struct aio_info *info = aio_info(r->io);
        size_t unit = MAX(PAGE, MAX(info->align_offset, info->align_mem));
        expert_place_init(&r->place, ask->map, unit, MAX(ask->run, 1));
        r->piece = round_up(ask->piece_bytes ? ask->piece_bytes : PIECE_BYTES, unit);
        r->depth = r->most_demand = r->most_ahead = info->depth;
        code = reads_tables_open(r, e);
    }
    if (code == 0)
        code = check_extents(r, ask->io.n_file, e);
    if (code < 0) {
        aio_close(r->io);
        reads_free_close(r);
        return code;
    }
    r->last_s = r->scanned_s = clock_now_s();
    *out = r;
    return 0;
}

int expert_reads_close(struct expert_reads *r)
{
    if (!r)
        return 0;
    int n = aio_close(r->io);
    reads_free_close(r);
    return n;
}

/* ---- queues ---------------------------------------------------------------------------------- */

static void enqueue(struct expert_reads *r, int id, enum queue q)
{
    struct loading *g = &r->loading[id];
    g->queue = q;
    g->is_queued = true;
    r->queue[q][r->n_queue[q]++] = id;
}

static void dequeue(struct expert_reads *r, int id)
{
    struct loading *g = &r->loading[id];
    if (!g->is_queued)
        return;
    int *ids = r->queue[g->queue], n = r->n_queue[g->queue], at = 0;
    while (ids[at] != id)
        at++;
    memmove(ids + at, ids + at + 1, (size_t)(n - at - 1) * sizeof *ids);
    r->n_queue[g->queue]--;
    g->is_queued = false;
}

static void tell(struct expert_reads *r, int id)
{
    if (!r->loading[id].news)
        r->news[r->n_news++] = id;
    r->loading[id].news = true;
}

/* From the beginning, without the parts that are complete. */
static void begin_attempt(struct expert_reads *r, int id)
{
    struct loading *g = &r->loading[id];
    g->part = g->i = 0;
    g->at = 0;
    g->has_failed = false;
    g->cut = g->complete;
    for (int p = 0; p < EXPERT_N_PART; p++)
        g->n_pending[p] = 0;
    enqueue(r, id, g->l.urgency == EXPERT_AHEAD ? AHEAD : FIRST_HALVES);
}

static unsigned absent_parts(const struct expert_reads *r, const struct expert_load *l)
{
    unsigned absent = 0;
    for (int p = 0; p < EXPERT_N_PART; p++) {
        uint64_t bytes = 0;
        for (int i = 0; i < l->n; i++)
            bytes += extent_of(r, l->key + i, p)->bytes;
        absent |= bytes == 0 ? 1u << p : 0;
    }
    return absent;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static bool reads_direct(const struct expert_reads *r, const struct loading *g)
{
    return aio_path_is_direct(aio_info(r->io)->path) && g->attempt < 2;
}

/* To the next expert of the run, and after the last to the next part. */
static void next_span(struct loading *g, int n)
{
    g->at = 0;
    g->i += n;
    if (g->i < g->l.n)
        return;
    g->cut |= 1u << g->part;
    g->i = 0;
    g->part++;
}

/* The first part, from where the load is, that has something to cut; false: there is none in this
 * half. */
static bool find_part(struct loading *g)
{
    int end = g->queue == FIRST_HALVES ? EXPERT_DOWN : EXPERT_N_PART;
    while (g->part < end && g->i == 0 && g->at == 0 && (g->complete >> g->part & 1))
        g->part++;
    return g->part < end;
}

/* Cut the load's next piece into a new flight; false: nothing was left. */
static bool cut_piece(struct expert_reads *r, int id, int *index)
{
    struct loading *g = &r->loading[id];
    bool direct = reads_direct(r, g);
    struct expert_run run = run_of(&g->l);
    struct expert_span s = { 0 };
    for (;; next_span(g, s.n)) {
        if (!find_part(g))
            return false;
        s = expert_place_span(&r->place, &run, g->i, (enum expert_part)g->part, direct);
        if (s.at.bytes > 0)
            break;
    }
    size_t most = g->queue == AHEAD ? MIN(r->piece, PIECE_AHEAD_BYTES) : r->piece;
    size_t total = (size_t)s.at.bytes, n_piece = (total + most - 1) / most;
    size_t bytes = MIN(round_up((total + n_piece - 1) / n_piece, r->place.unit), total - g->at);
    struct flight *f = &r->flight[*index = r->free_flight[--r->n_free]];
    *f = (struct flight){ .at = { s.at.offset + g->at, bytes, s.at.file }, .dst = s.dst + g->at,
                          .must = MIN(s.must - g->at, bytes), .id = id, .buffered = !direct,
                          .part = (enum expert_part)g->part };
    g->n_pending[g->part]++;
    g->n_flight++;
    g->at += bytes;
    if (g->at == total)
        next_span(g, s.n);
    return true;
}

/* The next piece of the most urgent load; false: there is none, or enough is in flight. */
static bool next_piece(struct expert_reads *r, int *index)
{
    int n_flight = r->depth - r->n_free;
    for (int q = 0; q < N_QUEUE; q++) {
        int most = q == AHEAD ? r->most_ahead : r->most_demand;
        while (r->n_queue[q] > 0 && n_flight < most) {
            int id = r->queue[q][0];
            if (cut_piece(r, id, index))
                return true;
            dequeue(r, id);
            if (q == FIRST_HALVES)
                enqueue(r, id, SECOND_HALVES);
        }
    }
    return false;
}

static struct aio_read read_of(const struct flight *f, int index)
{
    return (struct aio_read){ f->at.file, f->buffered, f->at.offset, (size_t)f->at.bytes, f->dst,
                              (uint64_t)index };
}

static void keep_time(struct expert_reads *r, double now)
{
    int n = r->depth - r->n_free;
    if (n > 0) {
        r->stats.busy_s += now - r->last_s;
        r->stats.depth_s += (now - r->last_s) * n;
    }
    r->last_s = now;
}

static void submit_pieces(struct expert_reads *r)
{
    int n = 0, index;
    double now = clock_now_s();
    keep_time(r, now);
    while (next_piece(r, &index)) {
        r->flight[index].since = now;
        r->batch[n++] = read_of(&r->flight[index], index);
    }
    CHECK(aio_submit(r->io, r->batch, n) == n);
}

/* ---- what comes back ------------------------------------------------------------------------- */

static int piece_error(struct expert_reads *r, const struct flight *f, const char *what, int sys)
{
    struct loading *g = &r->loading[f->id];
    int key = g->l.key, n_expert = r->map->n_expert;
    struct err *e = &g->err;
    e->code = ERR_NONE;
    if (aio_check_files(r->io, e) < 0) {
        g->is_over = true; /* reading again would read something else */
        return err_prefix(e, "layer %d, expert %d", key / n_expert, key % n_expert);
    }
    err_set(e, ERR_IO, "%s: layer %d, expert %d, %s, %llu bytes at %llu: %s%s%s",
            aio_file_name(r->io, f->at.file), key / n_expert, key % n_expert, part_name[f->part],
            (unsigned long long)f->at.bytes, (unsigned long long)f->at.offset, what,
            sys ? ": " : "", sys ? strerror(sys) : "");
    return ERR_IO;
}

static void count_latency(struct expert_reads *r, double s)
{
    int bucket = s > 16e-6 ? (int)(4 * log2(s / 16e-6)) : 0;
    r->stats.latency[MIN(bucket, EXPERT_LATENCY_BUCKETS - 1)]++;
    r->stats.longest_s = MAX(r->stats.longest_s, s);
}

double expert_reads_latency_s(const struct expert_reads_stats *s, double share)
{
    uint64_t all = 0, below = 0;
    for (int i = 0; i < EXPERT_LATENCY_BUCKETS; i++)
        all += s->latency[i];
    for (int i = 0; i < EXPERT_LATENCY_BUCKETS; i++) {
        below += s->latency[i];
        if (below > 0 && (double)below >= share * (double)all)
            return MIN(16e-6 * exp2((i + 1) / 4.0), s->longest_s);
    }
    return 0;
}

/* Nothing of the load is in flight: it ends, or begins anew. */
static void settle(struct expert_reads *r, int id)
{
    struct loading *g = &r->loading[id];
    if (g->n_flight > 0)
        return;
    if (g->is_over || g->complete == EXPERT_ALL_PARTS) {
        dequeue(r, id); /* it may be first in the queue with nothing left */
        tell(r, id);
        return;
    }
    if (!g->has_failed)
        return;
    g->attempt = g->is_renewed ? 0 : g->attempt + 1;
    g->is_renewed = false;
    if (g->attempt > 2 || (g->attempt == 2 && !aio_path_is_direct(aio_info(r->io)->path))) {
        g->is_over = true;
        tell(r, id);
        return;
    }
    r->stats.n_reread++;
    r->stats.n_buffered += g->attempt == 2;
    begin_attempt(r, id);
}

static void end_piece(struct expert_reads *r, int index, bool ok, double now)
{
    struct flight *f = &r->flight[index];
    struct loading *g = &r->loading[f->id];
    count_latency(r, now - f->since);
    r->free_flight[r->n_free++] = index;
    g->n_flight--;
    if (ok && --g->n_pending[f->part] == 0 && (g->cut >> f->part & 1)) {
        g->complete |= 1u << f->part;
        tell(r, f->id);
    }
    if (!ok) {
        g->has_failed = true;
        dequeue(r, f->id);
    }
    settle(r, f->id);
}

/* The rest of a piece of which n bytes have come: direct from the page that is incomplete, or
 * buffered when there is no way to be made in whole pages. */
static void go_on(struct expert_reads *r, struct flight *f, size_t n)
{
    size_t step = f->buffered ? n : n - n % r->place.unit;
    if (!f->buffered && step == 0) {
        f->buffered = true;
        step = n;
    }
    f->tries = step > 0 ? 0 : f->tries + 1;
    f->at.offset += step;
    f->at.bytes -= step;
    f->dst += step;
    f->must -= step;
    if (f->buffered)
        f->at.bytes = f->must;
}

/* True: the flight goes on, to be submitted again. */
static bool take_done(struct expert_reads *r, const struct aio_done *d, double now)
{
    int index = (int)d->tag;
    struct flight *f = &r->flight[index];
    r->stats.n_read++;
    r->stats.bytes_read += d->bytes;
    if (d->code == ERR_NONE && d->bytes >= f->must) {
        end_piece(r, index, true, now);
        return false;
    }
    bool again = d->code != ERR_NONE && (d->sys == EINTR || d->sys == EAGAIN);
    if (!r->loading[f->id].is_over && again && ++f->tries < MOST_TRIES) {
        r->stats.n_again++;
        return true;
    }
    if (!r->loading[f->id].is_over && d->code == ERR_NONE && d->bytes > 0) {
        r->stats.n_short++;
        go_on(r, f, d->bytes);
        return true;
    }
    r->stats.n_error++;
    if (!r->loading[f->id].is_over)
        piece_error(r, f, d->code == ERR_NONE ? "the file ends here" : "cannot be read",
                    d->code == ERR_NONE ? 0 : d->sys);
    end_piece(r, index, false, now);
    return false;
}

static int take_all(struct expert_reads *r, double wait_s)
{
    int n = aio_reap(r->io, r->done, r->depth, wait_s), n_again = 0;
    double now = clock_now_s();
    keep_time(r, now);
    for (int i = 0; i < n; i++) {
        if (take_done(r, &r->done[i], now)) {
            int index = (int)r->done[i].tag;
            r->batch[n_again++] = read_of(&r->flight[index], index);
        }
    }
    CHECK(aio_submit(r->io, r->batch, n_again) == n_again);
    return n;
}

/* Reads that do not come back. */
static void scan_hung(struct expert_reads *r, double now)
{
    if (now - r->scanned_s < MIN(1.0, r->warn_s / 4))
        return;
    r->scanned_s = now;
    for (int i = 0; i < r->depth; i++) {
        struct flight *f = &r->flight[i];
        struct loading *g = &r->loading[f->id];
        bool is_free = false;
        for (int k = 0; k < r->n_free; k++)
            is_free |= r->free_flight[k] == i;
        if (is_free || now - f->since < r->warn_s)
            continue;
        if (!f->warned)
            log_put(&r->log, LOG_WARN, "%s: a read of %llu bytes at %llu takes longer than %.0f s",
                    aio_file_name(r->io, f->at.file), (unsigned long long)f->at.bytes,
                    (unsigned long long)f->at.offset, r->warn_s);
        r->stats.n_hung += !f->warned;
        f->warned = true;
        if (now - f->since >= r->fail_s && !g->is_over) {
            piece_error(r, f, "did not come back", ETIMEDOUT);
            g->is_over = true;
            dequeue(r, f->id);
            tell(r, f->id);
        }
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

void expert_reads_start(struct expert_reads *r, const struct expert_load *load, int n)
{
    for (int i = 0; i < n; i++) {
        const struct expert_load *l = &load[i];
        CHECK(l->id >= 0 && l->id < r->most_places && l->n >= 1 && l->n <= r->place.run);
        CHECK(l->key >= 0 && l->key % r->map->n_expert + l->n <= r->map->n_expert &&
              l->key < r->map->n_layer * r->map->n_expert);
        CHECK((uintptr_t)l->place % r->place.unit == 0);
        struct loading *g = &r->loading[l->id];
        CHECK(!g->busy);
        *g = (struct loading){ .l = *l, .busy = true, .complete = absent_parts(r, l) };
        r->n_busy++;
        r->stats.n_load += (uint64_t)l->n;
        for (int k = 0; k < l->n; k++)
            r->stats.bytes_wanted += expert_map_bytes(r->map, l->key + k);
        begin_attempt(r, l->id);
        settle(r, l->id);
    }
    submit_pieces(r);
}

void expert_reads_urge(struct expert_reads *r, int id)
{
    struct loading *g = &r->loading[id];
    if (!g->busy)
        return;
    g->is_renewed = g->attempt > 0 || g->has_failed;
    if (g->l.urgency == EXPERT_DEMAND)
        return;
    g->l.urgency = EXPERT_DEMAND;
    if (g->is_queued) {
        dequeue(r, id);
        enqueue(r, id, g->part < EXPERT_DOWN ? FIRST_HALVES : SECOND_HALVES);
    }
}

void expert_reads_drop(struct expert_reads *r, int id)
{
    struct loading *g = &r->loading[id];
    if (!g->busy || g->is_over)
        return;
    dequeue(r, id);
    g->is_over = true;
    err_set(&g->err, ERR_CANCELLED, "no longer wanted");
    settle(r, id);
}

/* Reports of loads that have news, up to max. */
static int report(struct expert_reads *r, struct expert_arrival *out, int max)
{
    int n = MIN(max, r->n_news);
    for (int i = 0; i < n; i++) {
        struct loading *g = &r->loading[r->news[i]];
        bool is_complete = g->complete == EXPERT_ALL_PARTS;
        bool quiet = g->n_flight == 0 && (g->is_over || is_complete);
        enum err_code code = g->is_over && !is_complete ? g->err.code : ERR_NONE;
        out[i] = (struct expert_arrival){ g->l.id, g->l.key, g->l.n, g->l.generation, g->complete,
                                          quiet, code, code ? g->err.text : "" };
        g->news = false;
        if (quiet) {
            g->busy = false;
            r->n_busy--;
            r->stats.n_failed += code != ERR_NONE && code != ERR_CANCELLED;
            r->stats.n_dropped += code == ERR_CANCELLED;
        }
    }
    r->n_news -= n;
    memmove(r->news, r->news + n, (size_t)r->n_news * sizeof *r->news);
    return n;
}

int expert_reads_poll(struct expert_reads *r, struct expert_arrival *out, int max, double wait_s)
{
    double until = wait_s > 0 ? clock_now_s() + wait_s : 0;
    double slice = MIN(1.0, r->warn_s / 4);
    for (;;) {
        double wait = r->n_news > 0 || wait_s <= 0 ? 0 : MIN(wait_s, slice);
        int n = take_all(r, wait);
        scan_hung(r, r->last_s);
        submit_pieces(r);
        if (r->n_news > 0)
            return report(r, out, max);
        if (n == 0 && (wait_s <= 0 || aio_in_flight(r->io) == 0))
            return 0;
        wait_s = wait_s > 0 ? until - clock_now_s() : 0;
    }
}

int expert_reads_busy(const struct expert_reads *r)
{
    return r->n_busy;
}

void expert_reads_limit(struct expert_reads *r, int n_demand, int n_ahead)
{
    r->most_demand = MAX(1, MIN(n_demand, r->depth));
    r->most_ahead = MAX(1, MIN(n_ahead, r->most_demand));
}

int expert_reads_check(const struct expert_reads *r, struct err *e)
{
    return aio_check_files(r->io, e);
}

const struct expert_reads_stats *expert_reads_stats(const struct expert_reads *r)
{
    return &r->stats;
}

const struct aio_info *expert_reads_io(const struct expert_reads *r)
{
    return aio_info(r->io);
}

const struct expert_map *expert_reads_map(const struct expert_reads *r)
{
    return r->map;
}
