/* kernel_bench.c - products by themselves: one type of weights, some rows of activations.
 *
 * Matrices are cycled through so much memory that they come from there and not from a cache, as in
 * a step of a large model. One thread is timed by the processor's time. */
#include "measure.h"

#include "clock.h"
#include "engine.h"
#include "pages.h"
#include "quant_random.h"

enum { COLS = 4096, ROWS = 2048, MOST_X = 512 };
#define CYCLE_BYTES ((size_t)256 << 20)

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
    size_t bytes; /* of one matrix */
    int n, at;    /* matrices, the next one */
    bool processor_time;
};

static double now_s(const struct kernel_run *r)
{
    return r->processor_time ? clock_processor_s() : clock_now_s();
}

/* Mean seconds of a product over at least least_s. */
static double time_products(struct kernel_run *r, double least_s)
{
    double start = now_s(r), spent;
    int n = 0;
    do {
        r->w.data = r->mem + (size_t)(r->at++ % r->n) * r->bytes;
        dev_begin(r->d);
        op_matmul(r->d, &r->out, &r->w, &r->x);
        n++;
        spent = now_s(r) - start;
    } while (spent < least_s);
    return spent / n;
}

static void fill(struct kernel_run *r, enum dtype type)
{
    struct quant_random q = { .type = type, .key = 1 };
    size_t block = (size_t)dtype_info((int)type)->block;
    q.shift = quant_random_shift(type, 1.0 / 64);
    quant_random(&q, 0, (size_t)r->n * ROWS * COLS / block, r->mem);
    q = (struct quant_random){ .type = DT_F32, .key = 2, .shift = -7 };
    quant_random(&q, 0, (size_t)r->x.rows * COLS, r->x.data);
}

int measure_kernel(struct kernel_bench *b, dstar_engine *engine, struct err *e)
{
    struct engine *en = engine_of(engine);
    struct kernel_run r = { .d = en->dev, .processor_time = dev_n_thread(en->dev) == 1 };
    enum dtype type = types[b->type];
    void *mem;
    CHECK(b->repeat >= 1 && b->repeat <= LAYER_MOST_REPEAT && b->n_x >= 1 && b->n_x <= MOST_X);
    r.bytes = dtype_bytes(type, (size_t)ROWS * COLS);
    r.n = (int)(CYCLE_BYTES / r.bytes);
    size_t x_bytes = (size_t)b->n_x * COLS * sizeof(float);
    size_t out_bytes = (size_t)b->n_x * ROWS * sizeof(float), w_bytes = (size_t)r.n * r.bytes;
    TRY(pages_map(&mem, w_bytes + x_bytes + out_bytes + 4096, e));
    r.mem = mem;
    uint8_t *behind = r.mem + round_up(w_bytes, 64);
    r.w = (struct tensor){ .type = type, .cols = COLS, .rows = ROWS,
                           .pitch = dtype_bytes(type, COLS) };
    r.x = (struct tensor){ behind, DT_F32, COLS, b->n_x, COLS * sizeof(float), NULL, 0 };
    r.out = (struct tensor){ behind + x_bytes, DT_F32, ROWS, b->n_x, ROWS * sizeof(float), NULL,
                             0 };
    fill(&r, type);
    time_products(&r, .02);
    for (int i = 0; i < b->repeat; i++)
        b->s[i] = time_products(&r, .05);
    b->bytes = (double)r.bytes;
    b->of_bytes = dtype_info((int)type)->block > 1;
    b->flops = 2.0 * ROWS * COLS * b->n_x;
    int code = dev_wait(r.d, e);
    pages_unmap(mem, w_bytes + x_bytes + out_bytes + 4096);
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
