/* cpu_matmul.c - products: activations are packed once, then threads take slabs of weight rows.
 *
 * A slab is a few tens of kilobytes of weights, so that it stays in a core's cache while all
 * activation rows pass, and so that threads finish together. Weights a kernel cannot read
 * directly are unpacked four rows at a time; so are narrow floats once several rows share the
 * work, which changes no bit. */
#include "cpu_fetch.h"
#include "cpu_ops_impl.h"

#define SLAB_BYTES 65536
#define LONG_BYTES (8 * SLAB_BYTES) /* of one row: little of what is fetched ahead is another's */
#define AHEAD_BYTES 40960 /* rows longer than a quarter of this are fetched well without help */
#define MANY_ROWS 256 /* rows of a slab where activations fill the cache rather than weights */
#define DIRECT_X 4 /* activation rows up to which widening floats on the fly is cheaper */

static void set_weights(struct tile *t, const struct tensor *w, int first, int n)
{
    t->n_w = n;
    t->ahead = w->pitch * TILE_W <= AHEAD_BYTES ? w->pitch * TILE_W : 0;
    for (int j = 0; j < TILE_W; j++) {
        int r = first + MIN(j, n - 1);
        t->w[j] = tensor_row(w, r);
        t->scale[j] = tensor_scale(w, r);
    }
}

/* Pages of the tile that comes two tiles after row r of the slab; at its begin those before too. */
static void fetch_tile(const struct slab *s, int r)
{
    size_t tile = s->w->pitch * TILE_W, from = r > 0 ? 2 * tile : 0;
    fetch_pages((uintptr_t)tensor_row(s->w, s->first + r) + from, 3 * tile - from);
}

/* The same rows as float32. */
static void set_decoded(struct tile *t, const struct slab *s, int first, int n)
{
    int k = s->w->cols;
    t->n_w = n;
    t->ahead = 0;
    for (int j = 0; j < TILE_W; j++) {
        int r = first + MIN(j, n - 1);
        float *row = s->decoded + (size_t)MIN(j, n - 1) * (size_t)(k + APART);
        if (j < n)
            s->k->decode(s->w->type, tensor_row(s->w, r), tensor_scale(s->w, r), row, k);
        t->w[j] = (const uint8_t *)row;
        t->scale[j] = NULL;
    }
}

static void set_activations(struct tile *t, const struct slab *s, int first)
{
    t->n_x = MIN(TILE_X, s->n_x - first);
    memcpy(t->x, s->x + first, (size_t)t->n_x * sizeof *t->x);
    memcpy(t->out, s->out + first, (size_t)t->n_x * sizeof *t->out);
}

/* Rows of the slab from r on, at most BAND_W, times activations i .. i+n_x-1. */
static void run_band(const struct slab *s, band_fn *band, int r, int i, int n_x)
{
    int n = MIN(BAND_W, s->n - r);
    struct band b = {
        .x = s->x + i,
        .out = s->out + i,
        .n_w = n,
        .n_x = n_x,
        .k = s->w->cols,
        .at = s->at + r,
        .ahead = s->w->pitch * BAND_W,
    };
    for (int j = 0; j < BAND_W; j++) {
        b.w[j] = tensor_row(s->w, s->first + r + MIN(j, n - 1));
        b.scale[j] = tensor_scale(s->w, s->first + r + MIN(j, n - 1));
    }
    band(&b);
}

/* Equal parts of the activations, each through all rows of the slab while it is in the cache. */
static bool run_bands(const struct slab *s)
{
    bool many = s->kernel.band && s->n_x >= s->kernel.band_x;
    if (!many && (!s->kernel.few || s->n_x < s->kernel.few_x))
        return false;
    int most = many ? BAND_X : FEW_MAX, n_part = (s->n_x + most - 1) / most;
    int part = (s->n_x + n_part - 1) / n_part;
    for (int i = 0; i < s->n_x; i += part)
        for (int r = 0; r < s->n; r += BAND_W)
            run_band(s, many ? s->kernel.band : s->kernel.few, r, i, MIN(part, s->n_x - i));
    return true;
}

void cpu_slab(const struct slab *s)
{
    if (run_bands(s))
        return;
    tile_fn *f32 = s->k->product[DT_F32].tile;
    bool decode = !s->kernel.tile || (s->kernel.form == ACT_F32 && s->kernel.tile != f32 &&
                                      s->n_x > DIRECT_X);
    struct tile t = { .k = s->w->cols };
    for (int i = 0; i < s->n_x; i += TILE_X) {
        set_activations(&t, s, i);
        for (int r = 0; r < s->n; r += TILE_W) {
            t.at = s->at + r;
            fetch_tile(s, r);
            if (decode)
                set_decoded(&t, s, s->first + r, MIN(TILE_W, s->n - r));
            else
                set_weights(&t, s->w, s->first + r, MIN(TILE_W, s->n - r));
            (decode ? f32 : s->kernel.tile)(&t);
        }
    }
}

/* One op: n_group products of w's row groups with the same groups of x's columns. */
struct product {
    const struct cpu *c;
    const struct tensor *w, *x;
    struct tensor *out;
    struct product_kernel kernel;
    int n_group, slab_rows, n_slab; /* n_slab: of one group */
    uint8_t *packed;                /* [n_group][x->rows] of act_bytes */
    size_t packed_bytes, n_decoded;
    const void **in;                /* [n_group][x->rows] */
    float **to;                     /* [x->rows] */
    float *decoded;                 /* [threads][n_decoded] */
};

static const float *group_input(const struct product *p, int g, int i)
{
    return tensor_f32(p->x, i) + (size_t)g * (size_t)p->w->cols;
}

static void pack_task(void *ctx, int task, int worker)
{
    const struct product *p = ctx;
    (void)worker;
    int g = task / p->x->rows, i = task % p->x->rows;
    p->c->k.pack[p->kernel.form](group_input(p, g, i), p->packed + (size_t)task * p->packed_bytes,
                                 p->w->cols);
}

static void slab_task(void *ctx, int task, int worker)
{
    const struct product *p = ctx;
    int g = task / p->n_slab, rows = p->w->rows / p->n_group;
    int first = task % p->n_slab * p->slab_rows;
    struct slab s = {
        .w = p->w,
        .kernel = p->kernel,
        .k = &p->c->k,
        .x = p->in + (size_t)g * (size_t)p->x->rows,
        .out = p->to,
        .decoded = p->decoded + (size_t)worker * p->n_decoded,
        .first = g * rows + first,
        .n = MIN(p->slab_rows, rows - first),
        .n_x = p->x->rows,
        .at = g * rows + first,
    };
    cpu_slab(&s);
}

int cpu_slab_rows(const struct cpu *c, const struct tensor *w, int rows, int n_x)
{
    size_t bytes = n_x == 1 ? LONG_BYTES : SLAB_BYTES;
    size_t fit = bytes / dtype_bytes(w->type, (size_t)w->cols);
    int fair = rows / (4 * pool_size(c->pool));
    bool band = fair >= BAND_W && c->k.product[TYPE_SLOT(w->type)].band;
    int unit = band ? BAND_W : TILE_W, many = band ? BAND_X : TILE_X;
    int n = MIN(n_x > many ? MANY_ROWS : (int)MIN(fit, 4096), fair);
    return MAX(unit, n / unit * unit);
}

static void take_workspace(struct dev *d, struct product *p)
{
    size_t n = (size_t)p->n_group * (size_t)p->x->rows;
    p->packed_bytes = act_bytes(p->kernel.form, p->w->cols);
    if (p->kernel.form != ACT_F32)
        p->packed = dev_alloc(d, n * p->packed_bytes);
    p->in = dev_alloc(d, n * sizeof *p->in);
    p->to = dev_alloc(d, (size_t)p->x->rows * sizeof *p->to);
    p->n_decoded = TILE_W * (size_t)(p->w->cols + APART);
    p->decoded = dev_alloc(d, (size_t)pool_size(p->c->pool) * p->n_decoded * sizeof *p->decoded);
}

static void run_product(struct product *p)
{
    int n = p->x->rows;
    for (int i = 0; i < n; i++)
        p->to[i] = tensor_f32(p->out, i);
    for (int i = 0; i < p->n_group * n; i++)
        p->in[i] = p->packed ? (const void *)(p->packed + (size_t)i * p->packed_bytes)
                             : group_input(p, i / n, i % n);
    if (p->packed)
        pool_run(p->c->pool, pack_task, p, p->n_group * n);
    pool_run(p->c->pool, slab_task, p, p->n_group * p->n_slab);
}

static void product(struct dev *d, struct tensor *out, const struct tensor *w,
                    const struct tensor *x, int n_group, bool exact)
{
    const struct cpu *c = cpu_of(d);
    int rows = w->rows / n_group;
    struct product p = {
        .c = c,
        .w = w,
        .x = x,
        .out = out,
        .kernel = cpu_product_kernel(c, w->type, exact),
        .n_group = n_group,
        .slab_rows = cpu_slab_rows(c, w, rows, x->rows),
    };
    p.n_slab = (rows + p.slab_rows - 1) / p.slab_rows;
    size_t mark = arena_mark(&d->scratch);
    take_workspace(d, &p);
    if (!dev_planning(d) && d->err.code == ERR_NONE)
        run_product(&p);
    arena_rewind(&d->scratch, mark);
}

void cpu_matmul(struct dev *d, struct tensor *out, const struct tensor *w, const struct tensor *x)
{
    product(d, out, w, x, 1, false);
}

void cpu_matmul_exact(struct dev *d, struct tensor *out, const struct tensor *w,
                      const struct tensor *x)
{
    product(d, out, w, x, 1, true);
}

void cpu_matmul_grouped(struct dev *d, struct tensor *out, const struct tensor *w,
                        const struct tensor *x, int n_group)
{
    product(d, out, w, x, n_group, false);
}
