/* kernel_bench.c - products by themselves: one type of weights, some rows of activations.
 *
 * Matrices are cycled through so much memory that they come from there and not from a cache, as in
 * a step of a large model. One thread is timed by the processor's time. */
#include "measure.h"

#include "clock.h"
#include "engine.h"
#include "pages.h"
#include "quant_random.h"

enum { COLS = 4096, ROWS = 2048, MOST_X = 512, TILE = 128 };
#define CYCLE_BYTES ((size_t)256 << 20)
#define QUEUED 64    /* products between two marks of a device that is apart */
#define STALL_S 1e-3 /* while they are queued */

static const enum dtype types[] = { DT_IQ2_XXS, DT_Q2_K, DT_Q4_K, DT_Q8_0, DT_MXFP4,
                                    DT_F8_E4M3, DT_F16,  DT_BF16, DT_F32 };

const char *measure_kernel_type(int i)
{
    return i < (int)COUNT_OF(types) ? dtype_name((int)types[i]) : NULL;
}

struct kernel_run {
    struct dev *d;
    struct tensor w, x, out;
    uint8_t *mem;
    size_t bytes, all; /* of one matrix; of all memory */
    int n, at;         /* matrices, the next one */
    bool apart, processor_time;
};

static double now_s(const struct kernel_run *r)
{
    return r->processor_time ? clock_processor_s() : clock_now_s();
}

static void run_product(struct kernel_run *r)
{
    r->w.data = r->mem + (size_t)(r->at++ % r->n) * r->bytes;
    dev_begin(r->d);
    op_matmul(r->d, &r->out, &r->w, &r->x);
}

/* Mean seconds of products in the queue. */
static double time_queue(struct kernel_run *r)
{
    struct err e = { 0 };
    dev_stall(r->d, STALL_S);
    dev_mark(r->d, 0);
    for (int i = 0; i < QUEUED; i++)
        run_product(r);
    dev_mark(r->d, 1);
    return dev_wait(r->d, &e) < 0 ? 0 : dev_between(r->d, 0, 1) / QUEUED;
}

/* Mean seconds of a product over at least least_s. */
static double time_products(struct kernel_run *r, double least_s)
{
    double start = now_s(r), spent;
    int n = 0;
    if (r->apart)
        return time_queue(r);
    do {
        run_product(r);
        n++;
        spent = now_s(r) - start;
    } while (spent < least_s);
    return spent / n;
}

/* Weights, their scales if they have any of their own, activations, results: one behind another. */
static int take(struct kernel_run *r, enum dtype type, int n_x, struct err *e)
{
    size_t tiles = (ROWS / TILE) * (COLS / TILE), x_bytes = (size_t)n_x * COLS * sizeof(float);
    size_t at = round_up((size_t)r->n * r->bytes, 256);
    void *mem;
    r->all = at + tiles + x_bytes + (size_t)n_x * ROWS * sizeof(float);
    TRY(r->apart ? dev_memory_take(r->d, &mem, r->all, e) : pages_map(&mem, r->all, e));
    r->mem = mem;
    r->w = (struct tensor){ r->mem, type, COLS, ROWS, dtype_bytes(type, COLS), NULL, 0 };
    if (type == DT_F8_E4M3) {
        r->w.scale = r->mem + at;
        r->w.scale_pitch = COLS / TILE;
    }
    r->x = (struct tensor){ r->mem + at + tiles, DT_F32, COLS, n_x, COLS * sizeof(float), NULL, 0 };
    r->out = (struct tensor){ r->mem + at + tiles + x_bytes, DT_F32, ROWS, n_x,
                              ROWS * sizeof(float), NULL, 0 };
    return 0;
}

static void give_back(struct kernel_run *r)
{
    if (r->apart)
        dev_memory_give_back(r->d, r->mem);
    else
        pages_unmap(r->mem, r->all);
}

static void fill(struct kernel_run *r)
{
    uint8_t scale[(ROWS / TILE) * (COLS / TILE)];
    struct quant_random q = { .type = r->w.type, .key = 1 };
    size_t block = (size_t)dtype_info((int)q.type)->block;
    q.shift = quant_random_shift(q.type, 1.0 / 64);
    dev_begin(r->d);
    dev_random(r->d, &q, 0, (size_t)r->n * ROWS * COLS / block, r->mem);
    if (r->w.scale) {
        quant_random_scales(&q, 0, sizeof scale, scale);
        dev_copy(r->d, (uint8_t *)(uintptr_t)r->w.scale, scale, sizeof scale);
    }
    q = (struct quant_random){ .type = DT_F32, .key = 2, .shift = -7 };
    dev_random(r->d, &q, 0, (size_t)r->x.rows * COLS, r->x.data);
}

int measure_kernel(struct kernel_bench *b, dstar_engine *engine, struct err *e)
{
    struct engine *en = engine_of(engine);
    struct kernel_run r = { .d = en->dev, .processor_time = dev_n_thread(en->dev) == 1 };
    enum dtype type = types[b->type];
    CHECK(b->repeat >= 1 && b->repeat <= LAYER_MOST_REPEAT && b->n_x >= 1 && b->n_x <= MOST_X);
    r.apart = dev_is_apart(r.d);
    r.bytes = dtype_bytes(type, (size_t)ROWS * COLS);
    r.n = (int)(CYCLE_BYTES / r.bytes);
    TRY(take(&r, type, b->n_x, e));
    fill(&r);
    time_products(&r, .02);
    for (int i = 0; i < b->repeat; i++)
        b->s[i] = time_products(&r, .05);
    b->bytes = (double)r.bytes;
    b->of_bytes = dtype_info((int)type)->block > 1;
    b->flops = 2.0 * ROWS * COLS * b->n_x;
    int code = dev_wait(r.d, e);
    give_back(&r);
    return code;
}

static double peak_of(struct kernel_run *r, bool bytes)
{
    double best = 0;
    for (int i = 0; i < 8; i++) {
        double start = now_s(r);
        double flops = dev_peak(r->d, bytes, 1000000);
        best = MAX(best, flops / (now_s(r) - start));
    }
    return best;
}

void measure_peak(double *float_flops, double *int_flops, dstar_engine *engine)
{
    struct kernel_run r = { .d = engine_of(engine)->dev };
    r.processor_time = dev_n_thread(r.d) == 1;
    *float_flops = peak_of(&r, false);
    *int_flops = peak_of(&r, true);
}
