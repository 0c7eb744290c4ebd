/* cases_product.h - products with every type of weight. */
#ifndef CASES_PRODUCT_H
#define CASES_PRODUCT_H

#include "ops/check_ops.h"

static const enum dtype weight_types[] = {
    DT_F32, DT_F16, DT_BF16, DT_Q4_0, DT_Q8_0, DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K,
    DT_IQ2_XXS, DT_IQ2_XS, DT_MXFP4, DT_F8_E4M3, DT_FP4,
};

static bool rounds_activations(enum dtype type)
{
    return type == DT_Q8_0 || type == DT_MXFP4 || type == DT_FP4 || type == DT_Q2_K ||
           type == DT_Q4_K || type == DT_IQ2_XXS;
}

static void put_f16(uint8_t *p, float x)
{
    uint16_t h = f32_to_f16(x);
    memcpy(p, &h, 2);
}

/* The f16 fields of a block: the step and, for some types, the minimum's. */
static void set_steps(enum dtype type, uint8_t *block, float d, float dmin)
{
    switch (type) {
    case DT_Q4_0:
    case DT_Q8_0:
    case DT_IQ2_XXS:
    case DT_IQ2_XS: put_f16(block, d); return;
    case DT_Q4_K:
    case DT_Q5_K:
        put_f16(block, d);
        put_f16(block + 2, dmin);
        return;
    case DT_Q2_K:
        put_f16(block + 80, d);
        put_f16(block + 82, dmin);
        return;
    case DT_Q3_K: put_f16(block + 108, d); return;
    case DT_Q6_K: put_f16(block + 208, d); return;
    default: return;
    }
}

static void random_row(enum dtype type, uint8_t *row, int cols)
{
    const struct dtype_info *info = dtype_info((int)type);
    float x[4];
    for (int b = 0; b < cols / info->block; b++) {
        uint8_t *block = row + (size_t)b * (size_t)info->bytes;
        for (int i = 0; i < info->bytes; i++)
            block[i] = (uint8_t)rng_next(&dice);
        x[0] = noise();
        if (type == DT_F32 || type == DT_F16 || type == DT_BF16)
            quant_encode(type, x, block, 1);
        else if (type == DT_F8_E4M3 && (block[0] & 127) == 127)
            block[0] = 0;
        else if (type == DT_MXFP4)
            block[0] = (uint8_t)(118 + roll(6));
        else
            set_steps(type, block, noise() / 16, noise() / 16);
    }
}

static uint8_t *random_scales(size_t n)
{
    uint8_t *scale = take(n);
    for (size_t i = 0; i < n; i++)
        scale[i] = (uint8_t)(118 + roll(6));
    return scale;
}

/* Rows follow each other at odd addresses, or as in a file. */
static struct tensor random_weights(enum dtype type, int cols, int rows)
{
    size_t odd = (size_t)roll(2), bytes = dtype_bytes(type, (size_t)cols) + odd;
    struct tensor w = { (uint8_t *)take(bytes * (size_t)rows + 1) + odd, type, cols, rows, bytes,
                        NULL, 0 };
    for (int r = 0; r < rows; r++)
        random_row(type, tensor_row(&w, r), cols);
    if (type == DT_F8_E4M3) {
        w.scale_pitch = ((size_t)cols + 127) / 128;
        w.scale = random_scales(w.scale_pitch * (((size_t)rows + 127) / 128));
    } else if (type == DT_FP4) {
        w.scale_pitch = (size_t)cols / 32;
        w.scale = random_scales(w.scale_pitch * (size_t)rows);
    }
    return w;
}

/* Sum of all squared terms of all dot products. */
static double product_energy(const struct tensor *w, const struct tensor *x, int n_group)
{
    double sum = 0;
    float *row = take((size_t)w->cols * sizeof *row);
    for (int r = 0; r < w->rows; r++) {
        int at = r / (w->rows / n_group) * w->cols;
        tensor_decode(w, r, row);
        for (int i = 0; i < x->rows; i++)
            for (int k = 0; k < w->cols; k++) {
                double t = (double)row[k] * (double)tensor_f32(x, i)[at + k];
                sum += isfinite(t) ? t * t : 0;
            }
    }
    return sum;
}

/* ---- matmul, matmul_exact, matmul_grouped --------------------------------------------------- */

struct product_in {
    struct tensor w, x;
    int n_group;
    bool exact;
};

static void call_product(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct product_in *p = in;
    struct tensor x = tensor_rows(&p->x, first, n);
    if (p->exact)
        op_matmul_exact(d, out, &p->w, &x);
    else if (p->n_group)
        op_matmul_grouped(d, out, &p->w, &x, p->n_group);
    else
        op_matmul(d, out, &p->w, &x);
}

static struct op_case product_case(const struct product_in *p, const char *what)
{
    struct op_case c = { .in = p, .call = call_product, .n = p->x.rows, .n_out = 1 };
    snprintf(c.name, sizeof c.name, "%s %s %dx%d, %d rows", what, dtype_name((int)p->w.type),
             p->w.rows, p->w.cols, p->x.rows);
    c.shape[0] = (struct out_shape){ DT_F32, p->w.rows, 1 };
    c.energy = product_energy(&p->w, &p->x, MAX(1, p->n_group));
    set_tol(&c, TOL_F32);
    c.few_differ = true;
    c.has_products = !p->exact && rounds_activations(p->w.type);
    if (c.has_products)
        for (int t = TABLE_PLAIN; t < TABLE_EXACT; t++)
            c.tol[t] = TOL_Q8_ACT;
    return c;
}

static void test_product(const char *what, bool exact, int n_group)
{
    static const int blocks[] = { 1, 3, 16, 72 }, odd[] = { 1, 33, 515, 4104 };
    static const int widths[] = { 1, 6, 130, 31 };
    for (size_t t = 0; t < COUNT_OF(weight_types); t++)
        for (size_t n = 0; n < n_row_count; n++)
            for (int fill = 0; fill < N_FILL; fill++) {
                enum dtype type = weight_types[t];
                int block = type == DT_FP4 ? 32 : dtype_info((int)type)->block;
                int k = roll(4), rows = widths[roll(4)] * MAX(1, n_group);
                int cols = block == 1 ? odd[k] : block * MIN(blocks[k], 2304 / block);
                struct product_in p = { .exact = exact, .n_group = n_group };
                p.w = random_weights(type, cols, rows);
                p.x = random_tensor(cols * MAX(1, n_group), row_counts[n], (enum fill)fill);
                struct op_case c = product_case(&p, what);
                check_case(&c);
            }
}

/* Rows of weights at even addresses. */
static void test_many_rows(enum dtype type, int rows, int n, bool exact)
{
    struct product_in p = { .w = random_weights(type, 768, rows), .exact = exact };
    size_t pitch = (dtype_bytes(type, 768) + 15) / 16 * 16;
    uint8_t *even = take(pitch * (size_t)rows);
    for (int r = 0; r < rows; r++)
        memcpy(even + pitch * (size_t)r, tensor_row(&p.w, r), dtype_bytes(type, 768));
    p.w.data = even;
    p.w.pitch = pitch;
    p.x = random_tensor(768, n, FILL_EXTREME);
    struct op_case c = product_case(&p, "many rows");
    check_case(&c);
}

static void test_matmul(void **state)
{
    (void)state;
    test_product("matmul", false, 0);
    for (size_t t = 0; t < COUNT_OF(weight_types); t++)
        test_many_rows(weight_types[t], 150, 133, false); /* more on both sides than a tile has */
}

static void test_matmul_exact(void **state)
{
    (void)state;
    test_product("matmul_exact", true, 0);
    for (size_t t = 0; t < COUNT_OF(weight_types); t++)
        test_many_rows(weight_types[t], 150, 133, true);
    test_many_rows(DT_F16, 4098, 7, true); /* for which few rows have another way */
}

static void test_matmul_grouped(void **state)
{
    (void)state;
    test_product("matmul_grouped", false, 3);
}

/* ---- products ------------------------------------------------------------------------------- */

#define N_PRODUCT MAX_OUT

struct products_in {
    struct product_in p[N_PRODUCT]; /* all of the same x */
    int n;
};

static void call_products(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct products_in *all = in;
    struct tensor x = tensor_rows(&all->p[0].x, first, n);
    struct matmul p[N_PRODUCT];
    for (int i = 0; i < all->n; i++)
        p[i] = (struct matmul){ .out = out[i], .w = &all->p[i].w, .exact = all->p[i].exact };
    op_products(d, p, all->n, &x);
}

/* Within each product's tolerance, and its very bits when it is computed by itself. */
static void check_products(const struct op_case *c, enum table table, const struct tensor *out,
                           const struct tensor *want)
{
    const struct products_in *all = c->in;
    for (int i = 0; i < all->n; i++) {
        struct op_case one = product_case(&all->p[i], "one of several,");
        struct result alone = run_case(&one, table, 1, 0, c->n);
        struct result got = { .out = { out[i] } }, ref = { .out = { want[i] } };
        same_bits(&one, table, "alone it", &out[i], &alone.out[0], c->n);
        compare_with_ref(&one, table, &got, &ref);
        free_result(&one, &alone);
    }
}

static void products_case(int n_row, int n, enum fill fill)
{
    struct products_in all = { .n = n };
    struct tensor x = random_tensor(roll(2) ? 768 : 4608, n_row, fill);
    struct op_case c = { .in = &all, .call = call_products, .n = n_row, .n_out = n };
    for (int i = 0; i < n; i++) {
        enum dtype type = weight_types[roll((int)COUNT_OF(weight_types))];
        int rows = 1 + roll(70);
        all.p[i] = (struct product_in){ .w = random_weights(type, x.cols, rows), .x = x,
                                        .exact = roll(2) };
        c.shape[i] = (struct out_shape){ DT_F32, rows, 1 };
        c.has_products |= !all.p[i].exact && rounds_activations(type);
    }
    snprintf(c.name, sizeof c.name, "%d products, %d rows", n, n_row);
    c.check = check_products;
    c.few_differ = true;
    check_case(&c);
}

static void test_products(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_row_count; n++)
        for (int fill = 0; fill < N_FILL; fill++)
            products_case(row_counts[n], 1 + roll(N_PRODUCT), (enum fill)fill);
}

/* ---- integer sums --------------------------------------------------------------------------- */

/* Steps of one and activations that are whole numbers up to 127 make every product a whole number:
 * any error in a block's sum shows, whatever the order. */
static void test_integer_sums(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT_OF(weight_types); t++) {
        enum dtype type = weight_types[t];
        if (!rounds_activations(type))
            continue;
        const struct dtype_info *info = dtype_info((int)type);
        struct product_in p = { .w = random_weights(type, 512, 37) };
        p.x = random_tensor(512, 5, FILL_ZERO);
        for (int r = 0; r < 37; r++)
            for (int b = 0; b < 512 / info->block; b++) {
                uint8_t *block = (uint8_t *)tensor_row(&p.w, r) + (size_t)b * (size_t)info->bytes;
                set_steps(type, block, type == DT_IQ2_XXS ? 8 : 1, 1);
                if (type == DT_MXFP4)
                    block[0] = 128;
            }
        if (type == DT_FP4) {
            uint8_t *scale = take(16 * 37);
            memset(scale, 128, 16 * 37);
            p.w.scale = scale;
        }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 512; k++)
                tensor_f32(&p.x, i)[k] = (float)(k % 32 == roll(32) || k % 32 == 5
                                                     ? 127 - 254 * roll(2)
                                                     : roll(31) - 15);
        struct op_case c = product_case(&p, "integer sums");
        set_tol(&c, TOL_BITS);
        check_case(&c);
    }
}

#if !ON_GPU
static void same_tables(const struct product_in *p)
{
    struct op_case c = product_case(p, "the same on all");
    struct result plain = run_case(&c, TABLE_PLAIN, 1, 0, c.n);
    for (int table = TABLE_AVX2; table < TABLE_EXACT; table++) {
        if (!table_exists((enum table)table))
            continue;
        struct result other = run_case(&c, (enum table)table, 2, 0, c.n);
        same_result(&c, (enum table)table, "another instruction set", &plain, &other);
        free_result(&c, &other);
    }
    free_result(&c, &plain);
    drop_memory();
}

/* Rounded activations give the same bits on every instruction set. */
static void test_same_on_all(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT_OF(weight_types); t++) {
        if (!rounds_activations(weight_types[t]))
            continue;
        struct product_in p = { .w = random_weights(weight_types[t], 1024, 45) };
        p.x = random_tensor(1024, 135, FILL_EXTREME);
        same_tables(&p);
    }
}

/* The same where sums are as large as they can be: weights of one code, activations of 127 and
 * the weight's sign, or the other one. */
static void test_same_at_limits(void **state)
{
    (void)state;
    float *row = malloc(512 * sizeof *row);
    assert_non_null(row);
    for (size_t t = 0; t < COUNT_OF(weight_types); t++) {
        enum dtype type = weight_types[t];
        if (!rounds_activations(type))
            continue;
        struct product_in p = { .w = random_weights(type, 512, 256) };
        for (int r = 0; r < 256; r++) {
            memset(tensor_row(&p.w, r), r, dtype_bytes(type, 512));
            for (int b = 0; b < 512 / dtype_info((int)type)->block; b++)
                set_steps(type, (uint8_t *)tensor_row(&p.w, r) +
                                    (size_t)b * (size_t)dtype_info((int)type)->bytes, 1, 1);
        }
        p.x = random_tensor(512, 128, FILL_ZERO);
        for (int i = 0; i < 128; i++) {
            tensor_decode(&p.w, 2 * i, row);
            for (int k = 0; k < 512; k++)
                tensor_f32(&p.x, i)[k] = (row[k] < 0) == (i % 2 == 0) ? -127 : 127;
        }
        same_tables(&p);
    }
    free(row);
}

#endif

/* ---- gated ---------------------------------------------------------------------------------- */

struct gated_in {
    struct tensor gate, up, x;
    struct tensor first; /* another product, before it */
    float clamp;
    bool in_turn;
};

static void call_gated(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct gated_in *p = in;
    struct tensor x = tensor_rows(&p->x, first, n);
    size_t mark = arena_mark(&d->scratch);
    if (!p->in_turn) {
        struct matmul m[] = { { .out = out[1], .w = &p->first, .exact = true },
                              { .out = out[0], .w = &p->gate, .up = &p->up, .clamp = p->clamp } };
        int done = op_first_products(d, m, 2, &x);
        op_products(d, m + done, 2 - done, &x);
        return;
    }
    op_matmul_exact(d, &out[1], &p->first, &x);
    struct tensor up = dev_tensor(d, DT_F32, p->up.rows, n);
    op_matmul(d, out, &p->gate, &x);
    op_matmul(d, &up, &p->up, &x);
    op_swiglu(d, out, out, &up, p->clamp);
    arena_rewind(&d->scratch, mark);
}

/* Within tolerance, and the very bits of one op after another. */
static void check_gated(const struct op_case *c, enum table table, const struct tensor *out,
                        const struct tensor *want)
{
    struct gated_in in = *(const struct gated_in *)c->in;
    struct op_case one = *c;
    struct result got = { .out = { out[0], out[1] } }, ref = { .out = { want[0], want[1] } };
    in.in_turn = true;
    one.in = &in;
    struct result turns = run_case(&one, table, 1, 0, c->n);
    for (int o = 0; o < c->n_out; o++)
        same_bits(c, table, "in turn it", &out[o], &turns.out[o], c->n);
    compare_with_ref(c, table, &got, &ref);
    free_result(&one, &turns);
}

/* Gates of ordinary size: far beyond the clamp only rounding at the edges would be seen. */
static void set_size(struct tensor *x, const struct tensor *w, double size)
{
    double rms = sqrt(product_energy(w, x, 1) / ((double)w->rows * x->rows));
    for (int i = 0; i < x->rows && rms > 0; i++)
        for (int k = 0; k < x->cols; k++)
            tensor_f32(x, i)[k] *= (float)(size / rms);
}

static void gated_case(enum dtype type, enum dtype other, int n, enum fill fill)
{
    int cols = n % 2 ? 768 : 2304, rows = 1 + roll(140);
    struct gated_in p = { .gate = random_weights(type, cols, rows),
                          .up = random_weights(other, cols, rows),
                          .first = random_weights(roll(2) ? DT_F16 : DT_Q8_0, cols, 40),
                          .clamp = 2.5f };
    p.x = random_tensor(cols, n, fill);
    set_size(&p.x, &p.gate, 1.5);
    struct op_case c = { .in = &p, .call = call_gated, .n = n, .n_out = 2 };
    snprintf(c.name, sizeof c.name, "gated %s %s, %d rows", dtype_name((int)type),
             dtype_name((int)other), n);
    c.shape[0] = (struct out_shape){ DT_F32, rows, 1 };
    c.shape[1] = (struct out_shape){ DT_F32, 40, 1 };
    c.check = check_gated;
    set_tol(&c, TOL_F32);
    c.few_differ = true;
    c.has_products = rounds_activations(type) || rounds_activations(other);
    if (c.has_products)
        for (int t = TABLE_PLAIN; t < TABLE_EXACT; t++)
            c.tol[t] = TOL_Q8_CHAIN;
    check_case(&c);
}

/* No infinities: where activations are rounded they become NaN, elsewhere the clamp hides them. */
static void test_gated(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT_OF(weight_types); t++)
        for (size_t n = 0; n < n_row_count; n++)
            gated_case(weight_types[t], weight_types[t], row_counts[n],
                       (enum fill)((t + n) % FILL_INFINITE));
    gated_case(DT_Q8_0, DT_Q4_K, 3, FILL_RANDOM);
}

/* ---- experts -------------------------------------------------------------------------------- */

#define N_USED 3

struct experts_in {
    struct expert_set some;
    struct tensor x, id, weight;
    float clamp;
};

static void call_experts(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct experts_in *p = in;
    struct tensor x = tensor_rows(&p->x, first, n);
    struct route route = { tensor_rows(&p->id, first, n), tensor_rows(&p->weight, first, n) };
    op_experts(d, out, &p->some, &route, &x, p->clamp);
}

static struct tensor int_tensor(int cols, int rows)
{
    struct tensor t = { take((size_t)cols * (size_t)rows * 4), DT_I32, cols, rows,
                        (size_t)cols * 4, NULL, 0 };
    return t;
}

/* Experts 1, 4, 7 ... are at hand, the others' parts stay as they were. */
static void experts_case(enum dtype half, enum dtype down, int n, enum fill fill)
{
    int n_embd = n % 2 ? 256 : 2304, n_mid = 512, n_expert = 9;
    struct expert e[3];
    struct experts_in p = { .some = { .n = 3, .e = e }, .clamp = 2.5f };
    for (int i = 0; i < 3; i++)
        e[i] = (struct expert){ 3 * i + 1, random_weights(half, n_embd, n_mid),
                                random_weights(half, n_embd, n_mid),
                                random_weights(down, n_mid, n_embd) };
    p.x = random_tensor(n_embd, n, fill);
    set_size(&p.x, &e[0].gate, 1.5);
    p.weight = random_tensor(N_USED, n, FILL_RANDOM);
    p.id = int_tensor(N_USED, n);
    for (int i = 0; i < n * N_USED; i++)
        ((int32_t *)p.id.data)[i] = i % 5 == 0 ? 4 : roll(n_expert);
    struct tensor before = random_tensor(n_embd, n * N_USED, FILL_RANDOM);
    struct op_case c = { .in = &p, .call = call_experts, .n = n, .n_out = 1 };
    snprintf(c.name, sizeof c.name, "experts %s %s, %d rows", dtype_name((int)half),
             dtype_name((int)down), n);
    c.shape[0] = (struct out_shape){ DT_F32, n_embd, N_USED };
    c.start[0] = &before;
    set_tol(&c, TOL_F32);
    c.few_differ = true;
    c.has_products = rounds_activations(half) || rounds_activations(down);
    if (c.has_products)
        for (int t = TABLE_PLAIN; t < TABLE_EXACT; t++)
            c.tol[t] = TOL_Q8_CHAIN;
    check_case(&c);
}

static void test_experts(void **state)
{
    (void)state;
    static const enum dtype pairs[][2] = {
        { DT_IQ2_XXS, DT_Q2_K }, { DT_MXFP4, DT_MXFP4 }, { DT_Q4_K, DT_Q4_K }, { DT_FP4, DT_FP4 },
        { DT_F32, DT_F32 }, { DT_Q8_0, DT_F16 }, { DT_F8_E4M3, DT_Q6_K },
    };
    for (size_t t = 0; t < COUNT_OF(pairs); t++)
        for (size_t n = 0; n < n_row_count; n++)
            experts_case(pairs[t][0], pairs[t][1], row_counts[n], (enum fill)((t + n) % N_FILL));
    experts_case(DT_IQ2_XXS, DT_Q2_K, 170, FILL_RANDOM);
}

#endif
