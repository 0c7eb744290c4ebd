/* cases_plain.h - ops on rows, hyper-connections, routing. */
#ifndef CASES_PLAIN_H
#define CASES_PLAIN_H

#include "ops/cases_product.h"

static const int odd_cols[] = { 1, 7, 16, 33, 260 };

struct plain_in {
    struct tensor x, y, more;
    const float *weight;
    struct rows r; /* of all rows; host is shifted by `first` */
    int n_head;
    float eps, clamp;
    struct rope rope;
    bool inverse;
    struct hc hc;
    struct router router;
    int op;
};

static struct rows rows_from(const struct rows *all, int first, int n)
{
    struct rows r = *all;
    r.host += first;
    r.n = n;
    return r;
}

static struct op_case plain_case(const char *name, const struct plain_in *p, int cols)
{
    struct op_case c = { .in = p, .n = p->x.rows, .n_out = 1 };
    snprintf(c.name, sizeof c.name, "%s %d columns, %d rows", name, cols, p->x.rows);
    c.shape[0] = (struct out_shape){ DT_F32, cols, 1 };
    set_tol(&c, TOL_F32);
    return c;
}

/* Calls fn(columns, rows, fill) for the usual sizes. */
static void for_sizes(void (*fn)(int cols, int n, enum fill fill))
{
    int turn = 0;
    for (size_t n = 0; n < n_row_count; n++)
        for (int fill = 0; fill < N_FILL; fill++)
            for (int k = 0; k < 2; k++)
                fn(odd_cols[turn++ % 5], row_counts[n], (enum fill)fill);
}

static const struct row *random_rows(int n, int n_vocab)
{
    struct row *row = take((size_t)n * sizeof *row);
    for (int i = 0; i < n; i++)
        row[i] = (struct row){ .token = roll(n_vocab), .pos = roll(1 << 20) };
    return row;
}

/* ---- embed, gather -------------------------------------------------------------------------- */

static void call_embed(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct plain_in *p = in;
    struct rows r = rows_from(&p->r, first, n);
    op_embed(d, out, &p->y, &r);
}

static void test_embed(void **state)
{
    (void)state;
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_Q8_0 };
    for (size_t t = 0; t < 4; t++)
        for (size_t n = 0; n < n_row_count; n++) {
            struct plain_in p = { .y = random_weights(types[t], 96, 50) };
            p.x = random_tensor(96, row_counts[n], FILL_ZERO);
            p.r = (struct rows){ .n = row_counts[n], .host = random_rows(row_counts[n], 50) };
            struct op_case c = plain_case("embed", &p, 96 * 4);
            c.call = call_embed;
            set_tol(&c, TOL_BITS);
            check_case(&c);
        }
}

/* Every code of the narrow floats, NaN too, through the table's own unpacking. */
static void test_all_codes(void **state)
{
    (void)state;
    static const enum dtype types[] = { DT_F16, DT_BF16, DT_F8_E4M3 };
    for (size_t t = 0; t < 3; t++) {
        int n = types[t] == DT_F8_E4M3 ? 1024 : 65536;
        struct plain_in p = { .y = random_weights(types[t], n, 1) };
        uint8_t *data = p.y.data;
        for (int i = 0; i < n; i++)
            memcpy(data + (size_t)i * elem_bytes(types[t]), &i, elem_bytes(types[t]));
        p.x = random_tensor(n, 1, FILL_ZERO);
        p.r = (struct rows){ .n = 1, .host = random_rows(1, 1) };
        struct op_case c = plain_case("all codes", &p, n);
        c.call = call_embed;
        set_tol(&c, TOL_BITS);
        check_case(&c);
    }
}

/* A token the table does not have is the step's error, not a read outside. */
static void test_embed_bad_token(void **state)
{
    (void)state;
    for (int t = 0; t < N_TABLE; t++) {
        if (!table_exists((enum table)t))
            continue;
        struct dev *d = table_at((enum table)t, 1);
        struct tensor table = random_weights(DT_F32, 4, 3), out = random_tensor(4, 1, FILL_ZERO);
        static const int bad[] = { -1, 3, INT32_MAX };
        uint8_t *mem = new_memory(ARENA_ALIGN);
        for (int i = 0; i < 3; i++) {
            struct row row = { .token = bad[i] };
            struct rows r = { .n = 1, .host = &row };
            struct err e = { 0 };
            arena_init(&d->scratch, mem, ARENA_ALIGN);
            dev_begin(d);
            op_embed(d, &out, &table, &r);
            assert_int_equal(dev_wait(d, &e), ERR_ARGUMENT);
            assert_non_null(strstr(e.text, "outside the vocabulary of 3"));
        }
        arena_init(&d->scratch, NULL, 0);
        free_memory(mem);
        drop_memory();
    }
}

/* ---- norm, norm_heads, swiglu, add, rope ---------------------------------------------------- */

static void call_plain(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct plain_in *p = in;
    struct tensor x = tensor_rows(&p->x, first, n), y = tensor_rows(&p->y, first, n);
    struct rows r = rows_from(&p->r, first, n);
    switch (p->op) {
    case 0: op_norm(d, out, &x, p->weight, p->eps); return;
    case 1: op_norm(d, out, out, p->weight, p->eps); return;
    case 2: op_norm_heads(d, out, p->n_head, p->eps); return;
    case 3: op_swiglu(d, out, &x, &y, p->clamp); return;
    case 4: op_swiglu(d, out, out, &y, p->clamp); return;
    case 5: op_swiglu(d, out, &x, out, p->clamp); return;
    case 6: op_add(d, out, &x); return;
    default: op_rope(d, out, p->n_head, &p->rope, p->inverse, &r); return;
    }
}

static void check_plain(struct plain_in *p, const char *name, double tol)
{
    struct op_case c = plain_case(name, p, p->x.cols);
    c.call = call_plain;
    bool second = p->op == 5 || p->op == 6;
    c.start[0] = p->op == 0 || p->op == 3 ? NULL : second ? &p->y : &p->x;
    set_tol(&c, tol);
    check_case(&c);
}

static void norm_case(int cols, int n, enum fill fill)
{
    for (int op = 0; op < 2; op++) {
        struct plain_in p = { .op = op, .eps = 1e-6f };
        p.x = p.y = random_tensor(cols, n, fill);
        p.weight = random_floats(cols, 1);
        check_plain(&p, "norm", TOL_F32);
    }
}

static void test_norm(void **state)
{
    (void)state;
    for_sizes(norm_case);
}

static void norm_heads_case(int cols, int n, enum fill fill)
{
    struct plain_in p = { .op = 2, .eps = 1e-6f, .n_head = 3 };
    p.x = p.y = random_tensor(cols * 3, n, fill);
    check_plain(&p, "norm_heads", TOL_F32);
}

static void test_norm_heads(void **state)
{
    (void)state;
    for_sizes(norm_heads_case);
}

static void swiglu_case(int cols, int n, enum fill fill)
{
    for (int op = 3; op < 6; op++) {
        struct plain_in p = { .op = op, .clamp = 1.5f };
        p.x = random_tensor(cols, n, fill);
        p.y = random_tensor(cols, n, fill);
        check_plain(&p, "swiglu", TOL_F32);
    }
}

static void test_swiglu(void **state)
{
    (void)state;
    for_sizes(swiglu_case);
}

static void add_case(int cols, int n, enum fill fill)
{
    struct plain_in p = { .op = 6 };
    p.x = random_tensor(cols, n, fill);
    p.y = random_tensor(cols, n, fill);
    check_plain(&p, "add", TOL_BITS);
}

static void test_add(void **state)
{
    (void)state;
    for_sizes(add_case);
}

static struct rope random_rope(int n_pair)
{
    float *freq = take((size_t)n_pair * sizeof *freq);
    for (int i = 0; i < n_pair; i++)
        freq[i] = powf(10000, -(float)i / (float)n_pair);
    return (struct rope){ freq, n_pair };
}

static void rope_case(int cols, int n, enum fill fill)
{
    struct plain_in p = { .op = 7, .n_head = 5, .inverse = roll(2) };
    p.rope = random_rope((cols + 1) / 2);
    p.x = p.y = random_tensor((cols + 3) * 5, n, fill);
    p.r = (struct rows){ .n = n, .host = random_rows(n, 1) };
    check_plain(&p, "rope", TOL_F32);
}

static void test_rope(void **state)
{
    (void)state;
    for_sizes(rope_case);
}

/* ---- hyper-connections ---------------------------------------------------------------------- */

/* The same where a kernel may read several at once. */
static struct tensor aligned(const struct tensor *w)
{
    struct tensor t = *w;
    t.pitch = round_up(dtype_bytes(w->type, (size_t)w->cols), 16);
    t.data = take(t.pitch * (size_t)w->rows);
    for (int i = 0; i < w->rows; i++)
        memcpy(tensor_row(&t, i), tensor_row(w, i), dtype_bytes(w->type, (size_t)w->cols));
    return t;
}

static struct hc random_hc(enum dtype type, int n_stream, int n_embd, bool head)
{
    int m = head ? n_stream : 2 * n_stream + n_stream * n_stream;
    return (struct hc){
        .fn = random_weights(type, n_stream * n_embd, m),
        .base = random_floats(m, 0),
        .scale = random_floats(3, 0),
        .n_stream = n_stream,
        .n_iter = 20,
        .eps = 1e-6f,
        .norm_eps = 1e-6f,
    };
}

static void call_hc(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct plain_in *p = in;
    struct tensor x = tensor_rows(&p->x, first, n), y = tensor_rows(&p->y, first, n);
    if (p->op == 0)
        op_hc_mix(d, &out[0], &out[1], &x, &p->hc);
    else if (p->op == 1)
        op_hc_head(d, &out[0], &x, &p->hc);
    else if (p->op == 3)
        op_hc_mix_norm(d, &out[0], &out[1], &x, &p->hc, p->weight, p->eps);
    else
        op_hc_spread(d, &out[0], &x, &y, &p->hc);
}

static void hc_mix_case(int cols, int n, enum fill fill)
{
    static const char *const names[] = { "hc_mix", "hc_head", "hc_mix_norm" };
    int n_stream = 1 + roll(4);
    for (int i = 0; i < 3; i++) {
        int op = i == 2 ? 3 : i;
        struct plain_in p = { .op = op, .weight = random_floats(cols, 1), .eps = 1e-6f };
        p.hc = random_hc(roll(2) ? DT_F32 : DT_F16, n_stream, cols, op == 1);
        if (roll(2))
            p.hc.fn = aligned(&p.hc.fn);
        p.x = p.y = random_tensor(n_stream * cols, n, fill);
        struct op_case c = plain_case(names[i], &p, cols);
        c.call = call_hc;
        c.few_differ = true;
        c.n_out = op == 1 ? 1 : 2;
        c.shape[1] = (struct out_shape){ DT_F32, 2 * n_stream + n_stream * n_stream, 1 };
        check_case(&c);
    }
}

static void test_hc_mix(void **state)
{
    (void)state;
    for_sizes(hc_mix_case);
    for (int k = 0; k < 4; k++)
        hc_mix_case(1100, k % 2 ? 64 : 5, FILL_RANDOM); /* summed in pieces on a GPU */
}

static void hc_spread_case(int cols, int n, enum fill fill)
{
    int n_stream = 1 + roll(4);
    struct plain_in p = { .op = 2, .hc = { .n_stream = n_stream } };
    struct tensor streams = random_tensor(n_stream * cols, n, fill);
    p.x = random_tensor(cols, n, fill);
    p.y = random_tensor(2 * n_stream + n_stream * n_stream, n, FILL_RANDOM);
    struct op_case c = plain_case("hc_spread", &p, n_stream * cols);
    c.call = call_hc;
    c.start[0] = &streams;
    check_case(&c);
}

static void test_hc_spread(void **state)
{
    (void)state;
    for_sizes(hc_spread_case);
}

static void call_hc_turn(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct plain_in *p = in;
    int n_used = p->router.n_used;
    struct hc_turn t = { .y = tensor_rows(&p->x, first, n), .hc = &p->hc, .weight = p->weight,
                         .eps = p->eps, .next = p->op ? &p->hc : NULL };
    if (n_used > 0) {
        t.part = tensor_rows(&p->more, first * n_used, n * n_used);
        t.route.id = tensor_rows(&p->y, first, n);
    }
    op_hc_turn(d, &out[2], &out[1], &out[0], &t);
}

static void hc_turn_case(int cols, int n, enum fill fill)
{
    int n_stream = 1 + roll(4), n_gate = 2 * n_stream + n_stream * n_stream;
    struct plain_in p = { .op = roll(4), .weight = random_floats(cols, 1), .eps = 1e-6f,
                          .router = { .n_used = roll(3) ? roll(10) : 0 } };
    struct tensor streams = random_tensor(n_stream * cols, n, fill);
    struct tensor gates = random_tensor(n_gate, n, FILL_RANDOM);
    struct tensor x = random_tensor(cols, n, FILL_RANDOM);
    p.hc = random_hc(roll(2) ? DT_F32 : DT_F16, n_stream, cols, false);
    if (roll(2))
        p.hc.fn = aligned(&p.hc.fn);
    p.x = random_tensor(cols, n, fill);
    p.more = random_tensor(cols, n * p.router.n_used, fill);
    p.y = int_tensor(MAX(p.router.n_used, 1), n);
    for (int i = 0; i < p.router.n_used * n; i++)
        ((int32_t *)p.y.data)[i] = roll(12);
    p.y.cols = p.router.n_used;
    struct op_case c = plain_case("hc_turn", &p, n_stream * cols);
    c.call = call_hc_turn;
    c.few_differ = true;
    c.n_out = 3;
    c.shape[1] = (struct out_shape){ DT_F32, n_gate, 1 };
    c.shape[2] = (struct out_shape){ DT_F32, cols, 1 };
    c.start[0] = &streams;
    c.start[1] = &gates;
    c.start[2] = &x;
    check_case(&c);
}

static void test_hc_turn(void **state)
{
    (void)state;
    for_sizes(hc_turn_case);
    for (int k = 0; k < 4; k++)
        hc_turn_case(1100, 1 + roll(8), FILL_RANDOM);
}

/* ---- route, sum_experts --------------------------------------------------------------------- */

static void call_route(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct plain_in *p = in;
    struct tensor x = tensor_rows(&p->x, first, n);
    struct rows r = rows_from(&p->r, first, n);
    struct route route = { out[0], out[1] };
    op_route(d, &route, &x, &p->router, &r);
}

static void route_case(int n, enum fill fill, bool by_token)
{
    int n_expert = 8 + roll(300), n_used = 1 + roll(8);
    struct plain_in p = { .router = { .n_vocab = 20, .n_expert = n_expert, .n_used = n_used,
                                      .scale = 1.5f } };
    if (by_token) {
        int32_t *table = take((size_t)(20 * n_used) * sizeof *table);
        for (int i = 0; i < 20 * n_used; i++)
            table[i] = roll(n_expert);
        p.router.by_token = table;
    } else if (roll(3)) {
        p.router.bias = random_floats(n_expert, 0);
    }
    p.x = random_tensor(n_expert, n, fill);
    if (fill == FILL_RANDOM) /* ties */
        for (int i = 0; i < n; i++)
            for (int e = 0; e < n_expert; e++)
                tensor_f32(&p.x, i)[e] = (float)(roll(9) - 4);
    p.r = (struct rows){ .n = n, .host = random_rows(n, 20) };
    struct op_case c = plain_case("route", &p, n_used);
    c.call = call_route;
    c.n_out = 2;
    c.shape[0] = (struct out_shape){ DT_I32, n_used, 1 };
    c.shape[1] = (struct out_shape){ DT_F32, n_used, 1 };
    check_case(&c);
}

static void test_route(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_row_count; n++)
        for (int fill = 0; fill < N_FILL; fill++)
            for (int k = 0; k < 4; k++)
                route_case(row_counts[n], (enum fill)fill, k == 0);
}

static void call_sum_experts(struct dev *d, const void *in, struct tensor *out, int first, int n)
{
    const struct plain_in *p = in;
    int n_used = p->router.n_used;
    struct tensor part = tensor_rows(&p->x, first * n_used, n * n_used);
    struct route route = { tensor_rows(&p->y, first, n), { 0 } };
    struct tensor more = tensor_rows(&p->more, first, n);
    if (p->op)
        op_sum_experts_add(d, out, &part, &route, &more);
    else
        op_sum_experts(d, out, &part, &route);
}

static void sum_experts_case(int cols, int n, enum fill fill)
{
    int n_used = 1 + roll(8);
    struct plain_in p = { .router = { .n_used = n_used } };
    p.x = random_tensor(cols, n * n_used, fill);
    p.y = int_tensor(n_used, n);
    for (int i = 0; i < n * n_used; i++)
        ((int32_t *)p.y.data)[i] = roll(12); /* an expert may come twice */
    p.more = random_tensor(cols, n, fill);
    p.op = roll(2);
    struct op_case c = plain_case(p.op ? "sum_experts_add" : "sum_experts", &p, cols);
    c.n = n;
    c.call = call_sum_experts;
    set_tol(&c, TOL_BITS);
    check_case(&c);
}

static void test_sum_experts(void **state)
{
    (void)state;
    for_sizes(sum_experts_case);
}

#endif
