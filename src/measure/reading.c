/* reading.c - how fast memory can be read or copied, for judging everything else by.
 *
 * All threads sum words of a region larger than any cache, fetching ahead; the best of some rounds
 * counts, since neighbours only make it slower. One thread is timed by the processor's time, which
 * neighbours disturb less. */
#include "measure.h"

#include "clock.h"
#include "engine.h"
#include "pages.h"
#include "thread.h"

enum { N_PART = 256 };
#define READ_BYTES ((size_t)512 << 20)
#define ROUNDS 8
#define COPY_BYTES ((size_t)4 << 30) /* of a device that is apart, or a quarter of what is left */

struct reading {
    const uint64_t *mem;
    uint64_t sum[N_PART];
};

static void read_part(void *ctx, int task, int worker)
{
    struct reading *r = ctx;
    const size_t n = READ_BYTES / N_PART / sizeof *r->mem;
    const uint64_t *p = r->mem + (size_t)task * n;
    uint64_t a = 0, b = 0;
    (void)worker;
    for (size_t i = 0; i < n; i += 8) {
        __builtin_prefetch(p + i + 512);
        a += p[i] + p[i + 1] + p[i + 2] + p[i + 3];
        b += p[i + 4] + p[i + 5] + p[i + 6] + p[i + 7];
    }
    r->sum[task] = a + b;
}

int measure_reading(double *bytes_per_s, int n_thread, struct err *e)
{
    struct reading r = { NULL, { 0 } };
    struct pool *pool;
    void *mem;
    TRY(pool_new(&pool, n_thread, e));
    int code = pages_map(&mem, READ_BYTES, e);
    *bytes_per_s = 0;
    if (code == 0) {
        memset(mem, 1, READ_BYTES);
        r.mem = mem;
        for (int i = 0; i < ROUNDS; i++) {
            double start = n_thread == 1 ? clock_processor_s() : clock_now_s();
            pool_run(pool, read_part, &r, N_PART);
            double spent = (n_thread == 1 ? clock_processor_s() : clock_now_s()) - start;
            *bytes_per_s = MAX(*bytes_per_s, (double)READ_BYTES / spent);
        }
        CHECK(r.sum[0] == READ_BYTES / N_PART / 8 * UINT64_C(0x0101010101010101));
        pages_unmap(mem, READ_BYTES);
    }
    pool_free(pool);
    return code;
}

/* ---- of a device that is apart --------------------------------------------------------------- */

static int time_copies(double *bytes_per_s, struct dev *d, void *to, const void *from, size_t n,
                       struct err *e)
{
    for (int i = 0; i < ROUNDS; i++) {
        dev_begin(d);
        dev_mark(d, 0);
        dev_copy(d, to, from, n);
        dev_mark(d, 1);
        TRY(dev_wait(d, e));
        *bytes_per_s = MAX(*bytes_per_s, 2 * (double)n / dev_between(d, 0, 1));
    }
    return 0;
}

static int measure_copying(double *bytes_per_s, struct dev *d, struct err *e)
{
    size_t n = MIN(COPY_BYTES, dev_memory_left(d) / 4) / 256 * 256;
    void *from, *to = NULL;
    *bytes_per_s = 0;
    TRY(dev_memory_take(d, &from, n, e));
    int code = dev_memory_take(d, &to, n, e);
    if (code == 0)
        code = time_copies(bytes_per_s, d, to, from, n, e);
    dev_memory_give_back(d, to);
    dev_memory_give_back(d, from);
    return code;
}

int measure_memory(double *bytes_per_s, dstar_engine *engine, int n_thread, struct err *e)
{
    struct dev *d = engine_of(engine)->dev;
    return dev_is_apart(d) ? measure_copying(bytes_per_s, d, e)
                           : measure_reading(bytes_per_s, n_thread, e);
}

double measure_busy_s(dstar_engine *engine)
{
    struct engine *e = engine_of(engine);
    e->times_steps = dev_is_apart(e->dev);
    return e->busy_s;
}

struct device_memory measure_device_memory(dstar_engine *engine)
{
    const struct dev *d = engine_of(engine)->dev;
    if (!dev_is_apart(d))
        return (struct device_memory){ 0 };
    size_t all = dev_memory_all(d);
    return (struct device_memory){ all - dev_memory_left(d), all };
}
