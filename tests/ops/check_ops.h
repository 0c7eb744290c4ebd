/* check_ops.h - runs one op on every table and compares it with the scalar definition.
 *
 * For each case: the scratch that planning counted is all the op gets; outputs stand between
 * guard bytes, at addresses aligned to no more than a float; the result must be within tolerance
 * of the definition, have the same bits when run again and with 1, 2 or 3 threads, and every row
 * alone must give the bits that it has among many. */
#ifndef CHECK_OPS_H
#define CHECK_OPS_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend.h"
#include "cpu.h"
#include "half.h"
#include "ops.h"
#include "rng.h"
#include "ops/tolerance.h"
#include "ops/check_memory.h"

#define GUARD 64
#define MAX_OUT 4
#define FEW_ROWS 8

/* ---- devices ------------------------------------------------------------------------------- */

enum table { TABLE_REF, TABLE_PLAIN, TABLE_AVX2, TABLE_AVX512, TABLE_AMX,
             TABLE_NEON, TABLE_DOTPROD, TABLE_I8MM, TABLE_CUDA, TABLE_EXACT, N_TABLE };
static const char *const table_name[] = { "ref", "cpu plain C", "cpu AVX2", "cpu AVX-512",
                                          "cpu AMX", "cpu NEON", "cpu NEON with dotprod",
                                          "cpu NEON with i8mm", "cuda", "cpu exact" };
static const unsigned table_isa[N_TABLE] = {
    [TABLE_AVX2] = CPU_AVX2,
    [TABLE_AVX512] = CPU_AVX2 | CPU_AVX512VNNI,
    [TABLE_AMX] = CPU_AVX2 | CPU_AVX512VNNI | CPU_AMX_INT8,
    [TABLE_NEON] = CPU_NEON,
    [TABLE_DOTPROD] = CPU_NEON | CPU_DOTPROD,
    [TABLE_I8MM] = CPU_NEON | CPU_DOTPROD | CPU_I8MM,
    [TABLE_EXACT] = ~0u,
};
static struct dev *table_dev[N_TABLE][4]; /* by number of threads */

static struct dev *open_table(enum table table, int n_thread)
{
    struct backend_options opt = {
        .n_thread = n_thread,
        .isa = table_isa[table],
        .exact = table == TABLE_EXACT,
    };
    struct err e = { 0 };
    struct dev *d = NULL;
    const char *name = table == TABLE_REF ? "ref" : table == TABLE_CUDA ? "cuda" : "cpu";
    if (open_device(&d, name, &opt, &e) < 0)
        fail_msg("%s", e.text);
    return d;
}

static struct dev *table_at(enum table table, int n_thread)
{
    struct dev **d = &table_dev[table][n_thread];
    if (!*d)
        *d = open_table(table, n_thread);
    if (table == TABLE_CUDA)
        set_order(n_thread);
    return *d;
}

/* The program for GPUs leaves the processor's tables to the other one. */
static bool table_exists(enum table table)
{
    if (ON_GPU || table == TABLE_CUDA)
        return ON_GPU && (table == TABLE_CUDA || table == TABLE_REF);
    return table == TABLE_EXACT || !(table_isa[table] & ~cpu_isa_detect());
}

static void close_tables(void)
{
    for (int t = 0; t < N_TABLE; t++)
        for (int n = 0; n < 4; n++)
            if (table_dev[t][n])
                close_device(table_dev[t][n]);
}

/* ---- data ---------------------------------------------------------------------------------- */

static struct rng dice;
static const int *row_counts; /* of the cases */
static size_t n_row_count;

/* Before every test, so that one by name sees what it sees among all. */
static int reset_dice(void **state)
{
    static const int all[] = { 1, 2, 3, 7, 8, 64 }, some[] = { 1, 7, 17 };
    bool in_short = getenv("DSTAR_SHORT") != NULL;
    (void)state;
    row_counts = in_short ? some : all;
    n_row_count = in_short ? COUNT_OF(some) : COUNT_OF(all);
    dice = (struct rng){ 42, 0 };
    return 0;
}

static int roll(int n) /* 0 .. n-1 */
{
    return (int)(rng_next(&dice) % (uint64_t)n);
}

static float noise(void) /* roughly normal */
{
    double sum = 0;
    for (int i = 0; i < 4; i++)
        sum += rng_unit(&dice) * 2 - 1;
    return (float)sum;
}

enum fill { FILL_RANDOM, FILL_EXTREME, FILL_ZERO, FILL_INFINITE, N_FILL };

/* Memory is freed by drop_memory() at the end of a case. */
static void *kept[4096];
static int n_kept;

static void *take(size_t n)
{
    void *p = new_memory(n + 64);
    memset(p, 0, n + 64);
    assert_true(n_kept < (int)COUNT_OF(kept));
    kept[n_kept++] = p;
    return p;
}

static void drop_memory(void)
{
    while (n_kept > 0)
        free_memory(kept[--n_kept]);
}

/* Activations: rows further apart than they are wide, beginning at an odd multiple of 4, or as a
 * device's scratch memory has them. */
static struct tensor random_tensor(int cols, int rows, enum fill fill)
{
    bool odd = roll(2);
    size_t pitch = odd ? ((size_t)cols + 3) * 4 : round_up((size_t)cols * 4, 64);
    uint8_t *mem = take(pitch * (size_t)rows + 8);
    struct tensor t = { mem + 4 * odd, DT_F32, cols, rows, pitch, NULL, 0 };
    for (int i = 0; i < rows; i++) {
        float size = fill == FILL_ZERO ? 0 : fill == FILL_EXTREME ? ldexpf(1, roll(60) - 30) : 1;
        for (int j = 0; j < cols; j++)
            tensor_f32(&t, i)[j] = noise() * size;
    }
    if (fill == FILL_INFINITE && rows > 0)
        tensor_f32(&t, rows / 2)[roll(cols)] = roll(2) ? INFINITY : -INFINITY;
    return t;
}

static float *random_floats(int n, float around)
{
    float *x = take((size_t)n * sizeof *x);
    for (int i = 0; i < n; i++)
        x[i] = around + noise();
    return x;
}

/* ---- cases --------------------------------------------------------------------------------- */

struct out_shape {
    enum dtype type;
    int cols, per_row; /* per_row: rows of the output for one row of the step; 0: one in all */
};

struct op_case {
    char name[128];
    const void *in;
    /* Rows first .. first+n-1 of the case to `out`. */
    void (*call)(struct dev *d, const void *in, struct tensor *out, int first, int n);
    int n, n_out;
    struct out_shape shape[MAX_OUT];
    const struct tensor *start[MAX_OUT]; /* what an output holds before: ops that work in place */
    double tol[N_TABLE];
    double energy;    /* expected square of the output, for errors to be seen against; 0: its own */
    bool has_products; /* of packed weights: all that NEON's tables differ in */
    bool not_alone;   /* a row by itself means something else */
    bool few_differ;  /* on a GPU sums of few rows have another order than those of many */
    uint8_t *state;   /* memory the op changes, put back before every run; compared as bits only */
    size_t state_bytes;
    void (*check)(const struct op_case *c, enum table table, const struct tensor *out,
                  const struct tensor *want); /* instead of the tolerance */
    /* The state as numbers, compared within tolerance. */
    int (*read_state)(const struct op_case *c, float *x); /* x NULL: how many */
};

static void set_tol(struct op_case *c, double tol)
{
    for (int t = 0; t < N_TABLE; t++)
        c->tol[t] = tol;
}

struct result {
    struct tensor out[MAX_OUT];
    uint8_t *mem[MAX_OUT];
    size_t bytes[MAX_OUT];
    uint8_t *state;
};

static size_t elem_bytes(enum dtype type)
{
    return dtype_bytes(type, 1);
}

static void new_outputs(const struct op_case *c, struct result *r, int first, int n)
{
    for (int o = 0; o < c->n_out; o++) {
        const struct out_shape *s = &c->shape[o];
        int rows = s->per_row ? s->per_row * n : 1;
        size_t pitch = (size_t)s->cols * elem_bytes(s->type);
        r->bytes[o] = pitch * (size_t)rows;
        r->mem[o] = new_memory(r->bytes[o] + 2 * GUARD + 4);
        memset(r->mem[o], 0xa5, r->bytes[o] + 2 * GUARD + 4);
        r->out[o] = (struct tensor){ r->mem[o] + GUARD + 4, s->type, s->cols, rows, pitch, NULL,
                                     0 };
        for (int i = 0; c->start[o] && i < rows; i++)
            memcpy(tensor_row(&r->out[o], i), tensor_row(c->start[o], first * s->per_row + i),
                   pitch);
    }
}

static void check_guards(const struct op_case *c, const struct result *r, const char *who)
{
    for (int o = 0; o < c->n_out; o++)
        for (size_t i = 0; i < GUARD; i++)
            if (r->mem[o][4 + i] != 0xa5 || r->mem[o][GUARD + 4 + r->bytes[o] + i] != 0xa5)
                fail_msg("%s, %s: written outside output %d", c->name, who, o);
}

static void free_result(const struct op_case *c, struct result *r)
{
    for (int o = 0; o < c->n_out; o++)
        free_memory(r->mem[o]);
    free(r->state);
}

/* One run, with exactly the scratch that planning asked for. */
static struct result run_case(const struct op_case *c, enum table table, int n_thread, int first,
                              int n)
{
    struct dev *d = table_at(table, n_thread);
    struct result r = { 0 };
    new_outputs(c, &r, first, n);
    arena_init(&d->scratch, NULL, 0);
    dev_begin(d);
    c->call(d, c->in, r.out, first, n);
    size_t need = d->scratch.peak;
    uint8_t *mem = new_memory(need + 2 * ARENA_ALIGN);
    memset(mem, 0xff, need + 2 * ARENA_ALIGN); /* NaN: nothing may be used unset */
    arena_init(&d->scratch, mem, need);
    dev_begin(d);
    c->call(d, c->in, r.out, first, n);
    struct err e = { 0 };
    if (dev_wait(d, &e) < 0)
        fail_msg("%s, %s: %s", c->name, table_name[table], e.text);
    assert_int_equal(d->scratch.used, 0);
    for (size_t i = 0; i < ARENA_ALIGN; i++)
        assert_int_equal(mem[need + i], 0xff);
    check_guards(c, &r, table_name[table]);
    arena_init(&d->scratch, NULL, 0);
    free_memory(mem);
    return r;
}

static void take_state(const struct op_case *c, struct result *r, const uint8_t *pristine)
{
    if (!c->state)
        return;
    r->state = malloc(c->state_bytes);
    assert_non_null(r->state);
    memcpy(r->state, c->state, c->state_bytes);
    memcpy(c->state, pristine, c->state_bytes);
}

/* ---- comparing ----------------------------------------------------------------------------- */

static void compare_floats(const struct op_case *c, const char *who, const float *got,
                           const float *want, int n, double tol, double sum[2])
{
    for (int j = 0; j < n; j++) {
        if (tol == 0 && memcmp(got + j, want + j, 4) != 0 && !(isnan(got[j]) && isnan(want[j])))
            fail_msg("%s, %s: [%d] %.9g, want exactly %.9g", c->name, who, j, (double)got[j],
                     (double)want[j]);
        if (!isfinite(want[j]) != !isfinite(got[j]))
            fail_msg("%s, %s: [%d] %g, want %g", c->name, who, j, (double)got[j],
                     (double)want[j]);
        if (!isfinite(want[j]))
            continue;
        sum[0] += ((double)got[j] - (double)want[j]) * ((double)got[j] - (double)want[j]);
        sum[1] += (double)want[j] * (double)want[j];
    }
}

static void compare_sum(const struct op_case *c, const char *who, const double sum[2], double tol)
{
    double size = fmax(sum[1], c->energy);
    if (!(sum[0] <= tol * size))
        fail_msg("%s, %s: normalised error %.3g, allowed %.3g", c->name, who, sum[0] / size, tol);
}

static void compare_with_ref(const struct op_case *c, enum table table, const struct result *got,
                             const struct result *want)
{
    for (int o = 0; o < c->n_out; o++) {
        double sum[2] = { 0 };
        const struct tensor *g = &got->out[o], *w = &want->out[o];
        if (g->type == DT_I32) {
            assert_memory_equal(g->data, w->data, got->bytes[o]);
            continue;
        }
        for (int i = 0; i < g->rows; i++)
            compare_floats(c, table_name[table], tensor_f32(g, i), tensor_f32(w, i), g->cols,
                           c->tol[table], sum);
        compare_sum(c, table_name[table], sum, c->tol[table]);
    }
}

static void compare_states(const struct op_case *c, enum table table, const struct result *got,
                           const struct result *want)
{
    int n = c->read_state(c, NULL);
    float *g = malloc((size_t)n * sizeof *g), *w = malloc((size_t)n * sizeof *w);
    double sum[2] = { 0 };
    uint8_t *keep = malloc(c->state_bytes);
    assert_true(g && w && keep);
    memcpy(keep, c->state, c->state_bytes);
    memcpy(c->state, got->state, c->state_bytes);
    c->read_state(c, g);
    memcpy(c->state, want->state, c->state_bytes);
    c->read_state(c, w);
    memcpy(c->state, keep, c->state_bytes);
    compare_floats(c, table_name[table], g, w, n, c->tol[table], sum);
    compare_sum(c, table_name[table], sum, c->tol[table]);
    free(g);
    free(w);
    free(keep);
}

/* NaN differs from NaN only in payload. */
static void same_bits(const struct op_case *c, enum table table, const char *what,
                      const struct tensor *a, const struct tensor *b, int n_row)
{
    for (int i = 0; i < n_row; i++)
        for (int j = 0; j < a->cols; j++) {
            uint32_t x = (uint32_t)tensor_i32(a, i)[j], y = (uint32_t)tensor_i32(b, i)[j];
            bool nan = a->type == DT_F32 && isnan(f32_of_bits(x)) && isnan(f32_of_bits(y));
            if (x != y && !nan)
                fail_msg("%s, %s: %s differs at [%d][%d]: %08x %08x", c->name, table_name[table],
                         what, i, j, x, y);
        }
}

static void same_result(const struct op_case *c, enum table table, const char *what,
                        const struct result *a, const struct result *b)
{
    for (int o = 0; o < c->n_out; o++)
        same_bits(c, table, what, &a->out[o], &b->out[o], a->out[o].rows);
    if (a->state && memcmp(a->state, b->state, c->state_bytes) != 0)
        fail_msg("%s, %s: %s: the cache differs", c->name, table_name[table], what);
}

/* Where few rows are summed otherwise than many: fewer rows, still many. */
static void check_part(const struct op_case *c, enum table table, const struct result *all)
{
    int first = c->n / 3, n = FEW_ROWS + 1;
    struct result part = run_case(c, table, 2, first, n);
    for (int o = 0; o < c->n_out; o++) {
        struct tensor rows = tensor_rows(&all->out[o], first * c->shape[o].per_row,
                                         part.out[o].rows);
        if (c->shape[o].per_row)
            same_bits(c, table, "a part of the rows", &part.out[o], &rows, rows.rows);
    }
    free_result(c, &part);
}

/* Every row by itself, and the state it leaves when they come one after another. */
static void check_alone(const struct op_case *c, enum table table, const struct result *all,
                        const uint8_t *pristine)
{
    struct result last = { 0 };
    int step = c->n <= FEW_ROWS || c->state ? 1 : 9; /* a cache is built by all rows in order */
    if (table == TABLE_CUDA && c->few_differ && c->n > FEW_ROWS) {
        check_part(c, table, all);
        return;
    }
    for (int i = 0; i < c->n; i += step) {
        struct result one = run_case(c, table, 2, i, 1);
        for (int o = 0; o < c->n_out; o++) {
            struct tensor rows = tensor_rows(&all->out[o], i * c->shape[o].per_row,
                                             one.out[o].rows);
            if (c->shape[o].per_row)
                same_bits(c, table, "a row alone", &one.out[o], &rows, rows.rows);
        }
        free_result(c, &one);
    }
    take_state(c, &last, pristine);
    if (c->state && memcmp(last.state, all->state, c->state_bytes) != 0)
        fail_msg("%s, %s: row by row the cache differs", c->name, table_name[table]);
    free(last.state);
}

static void check_table(const struct op_case *c, enum table table, const struct result *want,
                        const uint8_t *pristine)
{
    struct result first = run_case(c, table, 1, 0, c->n);
    take_state(c, &first, pristine);
    if (c->check)
        c->check(c, table, first.out, want->out);
    else
        compare_with_ref(c, table, &first, want);
    if (c->read_state)
        compare_states(c, table, &first, want);
    bool gpu = table == TABLE_CUDA; /* there it is the order in which threads take turns */
    for (int n_thread = gpu ? 2 : 1; n_thread <= (gpu && c->n > FEW_ROWS ? 2 : 3); n_thread++) {
        struct result again = run_case(c, table, n_thread, 0, c->n);
        take_state(c, &again, pristine);
        same_result(c, table, n_thread == 1 ? "the same again" : "more threads", &first, &again);
        free_result(c, &again);
    }
    if (!c->not_alone)
        check_alone(c, table, &first, pristine);
    free_result(c, &first);
}

/* NEON alone is plain C for products and i8mm adds nothing but products: once is enough. */
static bool table_matters(enum table table, const struct op_case *c)
{
    return table_exists(table) && table != TABLE_NEON && (table != TABLE_I8MM || c->has_products);
}

static void check_case(const struct op_case *c)
{
    uint8_t *pristine = NULL;
    if (c->state) {
        pristine = malloc(c->state_bytes);
        assert_non_null(pristine);
        memcpy(pristine, c->state, c->state_bytes);
    }
    struct result want = run_case(c, TABLE_REF, 1, 0, c->n);
    take_state(c, &want, pristine);
    if (c->check)
        c->check(c, TABLE_REF, want.out, want.out);
    for (int t = TABLE_PLAIN; t < N_TABLE; t++)
        if (table_matters((enum table)t, c))
            check_table(c, (enum table)t, &want, pristine);
    free_result(c, &want);
    free(pristine);
    drop_memory();
}

#endif
