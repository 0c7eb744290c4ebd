/* collect.c - a watch on a device, and what it has seen.
 *
 * Rows are added one after another in the order of tokens, so that sums are the same however steps
 * were cut. The hidden rows of experts come expert by expert: for their products, whose sums are
 * not kept for each expert, they are first put in the order of tokens. A device that is apart adds
 * up by itself (collect_there.c), unless products are wanted: then it shows the host all rows. */
#include "collect_impl.h"

#include "cpu.h"
#include "deepseek4.h"

#include <stdlib.h>

/* Sums of one row; false when it has an element that is no number. */
static bool add_row(struct collect_stat *s, int mat, const float *x)
{
    double *square = s->square + (size_t)mat * (size_t)s->n_col;
    double *value = s->value + (size_t)mat * (size_t)s->n_col;
    uint32_t bad = 0;
    for (int j = 0; j < s->n_col; j++) {
        uint32_t bits;
        memcpy(&bits, &x[j], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u; /* infinite or not a number */
        square[j] += (double)x[j] * (double)x[j];
        value[j] += (double)x[j];
    }
    s->count[mat]++;
    return !bad;
}

int collect_no_number(const struct collector *c, const struct collect_stat *s, int mat,
                      struct err *e)
{
    if (s->n_mat > 1)
        return err_set(e, ERR_FORMAT, "%s: an input of tensor %s, expert %d, is infinite or not a "
                       "number", c->engine->path, s->name, mat);
    return err_set(e, ERR_FORMAT, "%s: an input of tensor %s is infinite or not a number",
                   c->engine->path, s->name);
}

static void add(struct collector *c, struct collect_stat *s, int mat, const float *x)
{
    if (!add_row(s, mat, x) && !c->err.code)
        collect_no_number(c, s, mat, &c->err);
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)(*(struct collect_stat *const *)a)->data;
    uintptr_t y = (uintptr_t)(*(struct collect_stat *const *)b)->data;
    return (x > y) - (x < y);
}

static struct collect_stat *stat_of(const struct collector *c, const struct tensor *w)
{
    struct collect_stat of = { .data = w->data }, *key = &of;
    struct collect_stat **s = bsearch(&key, c->by_data, (size_t)c->n_dense, sizeof key, by_address);
    CHECK(s && (*s)->n_col == w->cols);
    return *s;
}

static void see_input(void *user, const struct tensor *w, const struct tensor *x)
{
    struct collector *c = user;
    struct collect_stat *s = stat_of(c, w);
    for (int i = 0; i < x->rows; i++)
        add(c, s, 0, tensor_f32(x, i));
}

static const struct dev_sums *sums_of(void *user, const struct tensor *w)
{
    const struct collector *c = user;
    return &c->there.sums[stat_of(c, w) - c->stat];
}

static const struct dev_sums *expert_sums_of(void *user, int layer)
{
    const struct collector *c = user;
    if (layer == c->n_layer) /* the draft block */
        return NULL;
    CHECK(layer >= 0 && layer < c->n_layer);
    return &c->there.sums[collect_experts(c, layer, false) - c->stat];
}

static void put(struct collector *c, struct collect_products *p, bool down, const float *x)
{
    gram_put(&p->gram[down][c->held], &p->rows[down], x, c->pool);
}

/* All pairs of the layer's rows are there. */
static void put_products(struct collector *c, const struct dev_pairs *p)
{
    struct collect_products *all = &c->layer[p->layer].all;
    for (int i = 0; i < p->x->rows; i++)
        put(c, all, false, tensor_f32(p->x, i));
    for (int i = 0; i < c->n_mid; i++)
        put(c, all, true, c->mid + (size_t)i * (size_t)c->n_ff);
    c->n_mid = 0;
}

/* Row i of those the expert computes. */
static void put_pair(struct collector *c, const struct dev_pairs *p, int i)
{
    const float *x = tensor_f32(p->x, p->pair[i] / p->n_used), *mid = tensor_f32(p->mid, i);
    struct collect_products *own = c->layer[p->layer].own;
    memcpy(c->mid + (size_t)p->pair[i] * (size_t)c->n_ff, mid, (size_t)c->n_ff * sizeof *mid);
    if (!own)
        return;
    put(c, &own[p->expert], false, x);
    put(c, &own[p->expert], true, mid);
}

static void see_expert(void *user, const struct dev_pairs *p)
{
    struct collector *c = user;
    if (p->layer == c->n_layer) /* the draft block */
        return;
    CHECK(p->layer >= 0 && p->layer < c->n_layer && p->expert < c->n_expert);
    for (int i = 0; i < p->n; i++) {
        add(c, collect_experts(c, p->layer, false), p->expert,
            tensor_f32(p->x, p->pair[i] / p->n_used));
        add(c, collect_experts(c, p->layer, true), p->expert, tensor_f32(p->mid, i));
        if (c->layer)
            put_pair(c, p, i);
    }
    c->n_mid += c->layer ? p->n : 0;
    if (c->layer && c->n_mid == p->x->rows * p->n_used)
        put_products(c, p);
}

/* ---- opening ------------------------------------------------------------------------------ */

static int open_stat(struct collect_stat *s, int n_col, int n_mat, struct err *e)
{
    size_t n = (size_t)n_col * (size_t)n_mat;
    s->n_col = n_col;
    s->n_mat = n_mat;
    s->square = calloc(n, sizeof *s->square);
    s->value = calloc(n, sizeof *s->value);
    s->count = calloc((size_t)n_mat, sizeof *s->count);
    if (!s->square || !s->value || !s->count)
        return err_set(e, ERR_NO_MEMORY, "out of memory for the sums of %s", s->name);
    return 0;
}

static int open_dense(struct collector *c, const struct model_matrix *matrix, struct err *e)
{
    for (int i = 0; i < c->n_dense; i++) {
        memcpy(c->stat[i].name, matrix[i].name, sizeof c->stat[i].name);
        c->stat[i].data = matrix[i].w->data;
        TRY(open_stat(&c->stat[i], matrix[i].w->cols, 1, e));
        c->by_data[i] = &c->stat[i];
    }
    qsort(c->by_data, (size_t)c->n_dense, sizeof *c->by_data, by_address);
    return 0;
}

static int open_stats(struct collector *c, struct err *e)
{
    const struct model *m = c->engine->model;
    c->n_dense = model_matrices(m, NULL, 0);
    c->n_stat = c->n_dense + 2 * c->n_layer;
    c->stat = calloc((size_t)c->n_stat, sizeof *c->stat);
    c->by_data = calloc((size_t)c->n_dense, sizeof *c->by_data);
    struct model_matrix *matrix = calloc((size_t)c->n_dense, sizeof *matrix);
    int code = 0;
    if (c->stat && c->by_data && matrix) {
        model_matrices(m, matrix, c->n_dense);
        code = open_dense(c, matrix, e);
    } else {
        code = err_set(e, ERR_NO_MEMORY, "out of memory for %d sums", c->n_stat);
    }
    free(matrix);
    for (int l = 0; l < c->n_layer && code == 0; l++) {
        struct collect_stat *gate = collect_experts(c, l, false);
        struct collect_stat *down = collect_experts(c, l, true);
        dsv4_gguf_name(gate->name, DSV4_GATE_EXPS, l);
        dsv4_gguf_name(gate->twin, DSV4_UP_EXPS, l);
        dsv4_gguf_name(down->name, DSV4_DOWN_EXPS, l);
        code = open_stat(gate, c->n_embd, c->n_expert, e);
        if (code == 0)
            code = open_stat(down, c->n_ff, c->n_expert, e);
    }
    return code;
}

static int open_gram(const struct collector *c, struct collect_products *p, struct err *e)
{
    for (int down = 0; down < 2; down++) {
        int n = down ? c->n_ff : c->n_embd;
        TRY(gram_rows_open(&p->rows[down], n, e));
        TRY(gram_open(&p->gram[down][0], n, e));
        TRY(gram_open(&p->gram[down][1], n, e));
    }
    return 0;
}

/* Of each expert of the layer alone. */
static int open_own(struct collector *c, int layer, struct err *e)
{
    if (layer < 0 || layer >= c->n_layer)
        return err_set(e, ERR_ARGUMENT, "products of the experts of layer %d: the model has %d "
                       "layers", layer, c->n_layer);
    struct collect_layer *l = &c->layer[layer];
    if (!l->own && !(l->own = calloc((size_t)c->n_expert, sizeof *l->own)))
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d experts", c->n_expert);
    for (int i = 0; i < c->n_expert && !l->own[i].rows[0].panel; i++)
        TRY(open_gram(c, &l->own[i], e));
    return 0;
}

static int open_products(struct collector *c, const struct collect_want *want, struct err *e)
{
    size_t n_pair = (size_t)c->engine->budget.max_rows * (size_t)c->n_used;
    TRY(pool_new(&c->pool, want->threads > 0 ? want->threads : cpu_count(), e));
    c->mid = calloc(n_pair * (size_t)c->n_ff, sizeof *c->mid);
    c->layer = calloc((size_t)c->n_layer, sizeof *c->layer);
    if (!c->mid || !c->layer)
        return err_set(e, ERR_NO_MEMORY, "out of memory for the rows of a step");
    for (int i = 0; i < c->n_layer; i++)
        TRY(open_gram(c, &c->layer[i].all, e));
    for (int i = 0; i < want->n_own; i++)
        TRY(open_own(c, want->own[i], e));
    return 0;
}

struct collect_products *collect_products_at(const struct collector *c, int i, int *l, int *x)
{
    for (*l = 0; c->layer && *l < c->n_layer; ++*l) {
        struct collect_layer *layer = &c->layer[*l];
        int n = layer->own ? 1 + c->n_expert : 1;
        *x = i - 1;
        if (i < n)
            return i == 0 ? &layer->all : &layer->own[*x];
        i -= n;
    }
    return NULL;
}

int collect_begin(struct collector **out, dstar_engine *engine, const struct collect_want *want,
                  struct err *e)
{
    struct engine *en = engine_of(engine);
    *out = NULL;
    if (!en->model || !en->scratch)
        return err_set(e, ERR_ARGUMENT, "%s: only a part of the model is open", en->path);
    CHECK(!en->dev->watch);
    struct collector *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a collection");
    const struct dsv4_hyper *s = &en->model->s;
    c->engine = en;
    c->n_layer = s->n_layer;
    c->n_expert = s->n_expert;
    c->n_used = s->n_used;
    c->n_embd = s->n_embd;
    c->n_ff = s->n_ff;
    int code = open_stats(c, e);
    if (code == 0 && want->products)
        code = open_products(c, want, e);
    bool there = dev_is_apart(en->dev) && !want->products;
    if (code == 0 && there)
        code = collect_there_open(c, e);
    if (code < 0) {
        collect_end(c);
        return code;
    }
    c->watch = (struct dev_watch){ .input = see_input, .expert = see_expert, .user = c };
    if (there) {
        c->watch.sums = sums_of;
        c->watch.expert_sums = expert_sums_of;
    }
    en->dev->watch = &c->watch;
    *out = c;
    return 0;
}

void collect_end(struct collector *c)
{
    if (!c)
        return;
    if (c->engine->dev->watch == &c->watch)
        c->engine->dev->watch = NULL;
    collect_there_close(c);
    for (int i = 0; c->stat && i < c->n_stat; i++) {
        free(c->stat[i].square);
        free(c->stat[i].value);
        free(c->stat[i].count);
    }
    int l, x;
    struct collect_products *p;
    for (int i = 0; (p = collect_products_at(c, i, &l, &x)); i++) {
        for (int k = 0; k < 4; k++)
            gram_close(&p->gram[k / 2][k % 2]);
        gram_rows_close(&p->rows[0]);
        gram_rows_close(&p->rows[1]);
    }
    for (l = 0; c->layer && l < c->n_layer; l++)
        free(c->layer[l].own);
    pool_free(c->pool);
    free(c->layer);
    free(c->by_data);
    free(c->stat);
    free(c->mid);
    free(c);
}

int collect_document(struct collector *c, bool held, struct err *e)
{
    int l, x;
    struct collect_products *p;
    for (int i = 0; (p = collect_products_at(c, i, &l, &x)); i++) {
        for (int k = 0; k < 2; k++)
            gram_flush(&p->gram[k][c->held], &p->rows[k], c->pool);
    }
    c->n_mid = 0;
    c->held = held;
    return c->err.code ? err_set(e, c->err.code, "%s", c->err.text) : 0;
}
