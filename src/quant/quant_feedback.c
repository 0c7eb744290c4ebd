/* quant_feedback.c - the factor R from the last block to the first, then rows block by block.
 *
 * Per block of 256 columns: what earlier blocks lost, E R, is one product; times the inverse of R's
 * diagonal block it is the shift of all its columns, for which the scales are settled. Within the
 * block each eight columns, once coded, shift the rest through that inverse. So only diagonal
 * blocks are ever inverted, and nearly all work is products of tiles.
 * Rejected: inverting H first, as the method is often told: twice the work and less exact; weights
 * that count what a column does to later ones of its own group of eight: nothing is gained. */
#include "quant_feedback.h"

#include "rng.h"
#include "tile_lanes_impl.h"

#include <math.h>

enum { B = 256, TILE = 16 };

size_t quant_factor_at(int n, int i, int j)
{
    return tile_at(n, i, j);
}

/* ---- the factor ---- */

size_t quant_factor_floats(int n)
{
    size_t m = (size_t)n;
    /* matrix, inverses, gains; then a panel, two blocks of doubles */
    return m * m + m * B + m + m * B + 2 * 2 * B * B;
}

/* Upper R with R R^T = c, over c; *u: the inverse, transposed. */
static bool factor_block(double (*c)[B], double (*u)[B])
{
    for (int j = B - 1; j >= 0; j--) {
        double sum = c[j][j];
        for (int k = j + 1; k < B; k++)
            sum -= c[j][k] * c[j][k];
        if (!(sum > 1e-5) || !isfinite(sum))
            return false;
        c[j][j] = sqrt(sum);
        for (int i = 0; i < j; i++) {
            double x = c[i][j];
            for (int k = j + 1; k < B; k++)
                x -= c[i][k] * c[j][k];
            c[i][j] = x / c[j][j];
        }
    }
    for (int j = 0; j < B; j++) {
        memset(u[j], 0, sizeof u[j]);
        u[j][j] = 1 / c[j][j];
        for (int i = j - 1; i >= 0; i--) {
            double x = 0;
            for (int k = i + 1; k <= j; k++)
                x += c[i][k] * u[j][k];
            u[j][i] = -x / c[i][i];
        }
    }
    return true;
}

struct workspace {
    struct quant_factor *f;
    int b; /* the diagonal block of the turn */
    float *panel;
    double (*c)[B], (*u)[B];
};

/* The diagonal block in place; its inverse into f->u. */
static bool factor_diagonal(const struct workspace *w)
{
    struct quant_factor *f = w->f;
    float *inverse = f->u + (size_t)w->b * B * B;
    int at = w->b * B;
    for (int i = 0; i < B; i++) {
        for (int j = i; j < B; j++)
            w->c[i][j] = (double)f->r[tile_at(f->n, at + i, at + j)];
    }
    if (!factor_block(w->c, w->u))
        return false;
    for (int i = 0; i < B; i++) {
        for (int j = 0; j < B; j++) {
            f->r[tile_at(f->n, at + i, at + j)] = j < i ? 0 : (float)w->c[i][j];
            inverse[tile_at(B, i, j)] = (float)w->u[j][i];
        }
        f->gain[at + i] = (float)(w->c[i][i] * w->c[i][i]);
    }
    return true;
}

/* Rows above the block, one tile of its columns: times the inverse of its transpose. */
static void solve_tile(void *ctx, int t, int worker)
{
    const struct workspace *w = ctx;
    const struct quant_factor *f = w->f;
    size_t m = (size_t)w->b * B;
    float turned[B * TILE], *out = w->panel + (size_t)t * m * TILE;
    (void)worker;
    for (int i = 0; i < B; i++) {
        for (int j = 0; j < TILE; j++)
            turned[i * TILE + j] = (float)w->u[i][t * TILE + j];
    }
    memset(out, 0, m * TILE * sizeof *out);
    tile_kernels(f->isa)->add(out, f->r + tile_at(f->n, 0, w->b * B), (size_t)f->n * TILE, turned,
                              B / TILE, (int)m);
}

/* One tile of the columns before the block, less the panel times itself. */
static void update_tile(void *ctx, int t, int worker)
{
    const struct workspace *w = ctx;
    const struct quant_factor *f = w->f;
    const float *panel = f->r + tile_at(f->n, 0, w->b * B);
    float turned[B * TILE];
    (void)worker;
    for (int i = 0; i < B; i++) {
        for (int j = 0; j < TILE; j++)
            turned[i * TILE + j] = -panel[tile_at(f->n, t * TILE + j, i)];
    }
    tile_kernels(f->isa)->add(f->r + tile_at(f->n, 0, t * TILE), panel, (size_t)f->n * TILE,
                              turned, B / TILE, (t + 1) * TILE);
}

bool quant_factor_make(struct quant_factor *f, float *mem, int n, unsigned isa, struct pool *pool)
{
    size_t m = (size_t)n;
    CHECK(n > 0 && n % B == 0 && (uintptr_t)mem % 64 == 0);
    *f = (struct quant_factor){ n, isa, mem, mem + m * m, mem + m * m + m * B };
    struct workspace w = { .f = f, .panel = f->gain + m };
    w.c = (double(*)[B])(void *)(w.panel + m * B);
    w.u = w.c + B;
    for (w.b = n / B - 1; w.b >= 0; w.b--) {
        size_t above = (size_t)w.b * B * TILE;
        if (!factor_diagonal(&w))
            return false;
        pool_run(pool, solve_tile, &w, B / TILE);
        for (int t = 0; t < B / TILE; t++)
            memcpy(f->r + tile_at(n, 0, w.b * B + t * TILE), w.panel + (size_t)t * above,
                   above * sizeof *f->r);
        pool_run(pool, update_tile, &w, w.b * (B / TILE));
    }
    return true;
}

/* ---- rows ---- */

bool quant_has_feedback(enum dtype type)
{
    return type == DT_IQ2_XXS || type == DT_Q2_K || type == DT_Q4_K;
}

size_t quant_feedback_floats(int n)
{
    return (size_t)QUANT_FEEDBACK_ROWS * ((size_t)n + 2 * B);
}

void quant_feedback_init(struct quant_feedback *b, float *mem, int n, unsigned isa)
{
    CHECK(n > 0 && n % B == 0 && (uintptr_t)mem % 64 == 0);
    *b = (struct quant_feedback){ .n = n, .isa = isa, .error = mem };
    b->sum = mem + (size_t)QUANT_FEEDBACK_ROWS * (size_t)n;
    b->shift = b->sum + QUANT_FEEDBACK_ROWS * B;
}

/* out, 16 tiles of m rows: a B, with a's tiles and B's from k tiles each. */
static void product(const struct tile_kernels *k, float *out, const float *a, const float *b,
                    size_t b_step, int n_tile)
{
    enum { M = QUANT_FEEDBACK_ROWS };
    memset(out, 0, (size_t)M * B * sizeof *out);
    for (int t = 0; t < B / TILE; t++)
        k->add(out + t * M * TILE, a, M * TILE, b + (size_t)t * b_step, n_tile, M);
}

/* For all rows, how far the columns of block b are shifted by what earlier ones lost. */
static void find_shifts(struct quant_feedback *fb, const struct quant_factor *f, int b)
{
    const struct tile_kernels *k = tile_kernels(fb->isa);
    product(k, fb->sum, fb->error, f->r + tile_at(f->n, 0, b * B), (size_t)f->n * TILE,
            b * (B / TILE));
    product(k, fb->shift, fb->sum, f->u + (size_t)b * B * B, B * TILE, B / TILE);
}

/* One row in one block. */
struct run {
    struct quant_search *q;
    enum dtype type;
    const float *u, *root, *weight; /* of the block */
    const float *more; /* added to x where it is searched for */
    uint8_t *block;
    float *x; /* what is to be coded, times root; coded columns are left as they were */
    float *y; /* what they became, times root */
};

/* Eight columns; v: what they lost in units of the factor's rows. */
static void code_eight(const struct run *r, int at, float v[8])
{
    int group = quant_group(r->type);
    float lost[8];
    for (int j = 0; j < 8; j += group) {
        float y[8];
        for (int i = 0; i < group; i++) {
            float x = r->x[at + j + i];
            for (int k = 0; k < j; k++)
                x -= v[k] * r->u[tile_at(B, at + k, at + j + i)];
            lost[j + i] = x;
            y[i] = (x + r->more[at + j + i]) / r->root[at + j + i];
        }
        quant_search_group(r->q, r->type, r->block, at + j, y, r->weight + at + j);
        for (int i = 0; i < group; i++) {
            int c = at + j + i;
            r->y[c] = y[i] * r->root[c];
            float x = lost[j + i] - r->y[c];
            for (int k = j; k < j + i; k++)
                x -= v[k] * r->u[tile_at(B, at + k, c)];
            v[j + i] = x / r->u[tile_at(B, c, c)];
        }
    }
}

static void code_block(const struct run *r, const struct tile_kernels *k)
{
    float y[B];
    for (int j = 0; j < B; j++)
        y[j] = (r->x[j] + r->more[j]) / r->root[j];
    quant_search_row(r->q, r->type, y, r->weight, r->block, B);
    for (int at = 0; at < B; at += 8) {
        float v[8];
        code_eight(r, at, v);
        k->take(r->x, v, r->u + TILE * at, at / TILE);
    }
}

/* All rows in block b. */
static void code_rows(struct quant_feedback *fb, struct quant_search *q,
                      const struct quant_factor *f, const struct quant_rows *rows, int b)
{
    const struct tile_kernels *k = tile_kernels(fb->isa);
    size_t bytes = (size_t)dtype_info((int)rows->type)->bytes;
    float weight[B], x[B], y[B], more[B];
    struct run run = { q, rows->type, f->u + (size_t)b * B * B, NULL, weight, more, NULL, x, y };
    for (int i = 0; i < rows->n_row; i++) {
        const float *row = rows->x + (size_t)i * (size_t)fb->n + b * B;
        const float *root = run.root = rows->root + (size_t)i * rows->root_step + b * B;
        for (int j = 0; j < B; j++)
            weight[j] = f->gain[b * B + j] * root[j] * root[j];
        for (int j = 0; j < B; j++)
            x[j] = row[j] * root[j] + fb->shift[tile_at(QUANT_FEEDBACK_ROWS, i, j)];
        for (int j = 0; j < B; j++)
            more[j] = rows->factor ? row[j] * root[j] * (rows->factor[i] - 1) : 0;
        run.block = (uint8_t *)rows->dst + ((size_t)i * (size_t)(fb->n / B) + (size_t)b) * bytes;
        code_block(&run, k);
        for (int j = 0; j < B; j++)
            fb->error[tile_at(QUANT_FEEDBACK_ROWS, i, b * B + j)] = row[j] * root[j] - y[j];
    }
}

void quant_feedback_rows(struct quant_feedback *b, struct quant_search *q,
                         const struct quant_factor *f, const struct quant_rows *rows)
{
    CHECK(f->n == b->n && quant_has_feedback(rows->type));
    CHECK(rows->n_row > 0 && rows->n_row <= QUANT_FEEDBACK_ROWS);
    memset(b->error, 0, (size_t)QUANT_FEEDBACK_ROWS * (size_t)b->n * sizeof *b->error);
    for (int i = 0; i < b->n / B; i++) {
        find_shifts(b, f, i);
        code_rows(b, q, f, rows, i);
    }
}

void quant_feedback_compare(struct quant_feedback *b, const struct quant_rows *rows)
{
    size_t bytes = dtype_bytes(rows->type, B);
    float y[B];
    memset(b->error, 0, (size_t)QUANT_FEEDBACK_ROWS * (size_t)b->n * sizeof *b->error);
    for (int i = 0; i < rows->n_row; i++) {
        const float *root = rows->root + (size_t)i * rows->root_step;
        for (int at = 0; at < b->n; at += B) {
            const float *x = rows->x + (size_t)i * (size_t)b->n + at;
            size_t block = (size_t)i * (size_t)(b->n / B) + (size_t)(at / B);
            quant_decode(rows->type, (const uint8_t *)rows->dst + block * bytes, NULL, y, B);
            for (int j = 0; j < B; j++)
                b->error[tile_at(QUANT_FEEDBACK_ROWS, i, at + j)] =
                    (x[j] - y[j]) * root[at + j];
        }
    }
}

void quant_feedback_probe(struct quant_feedback *b, const struct quant_factor *f, uint64_t seed)
{
    enum { M = QUANT_FEEDBACK_ROWS };
    const struct tile_kernels *k = tile_kernels(b->isa);
    struct rng r = { seed, 0 };
    CHECK(f->n == b->n);
    memset(b->error, 0, (size_t)M * (size_t)b->n * sizeof *b->error);
    for (int at = 0; at < b->n; at += B) {
        float *e = b->error + tile_at(M, 0, at);
        /* e R = noise R_jj, for one block of columns after the other */
        find_shifts(b, f, at / B);
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < B; j++) {
                float noise = (float)(rng_unit(&r) * 2 - 1);
                b->sum[tile_at(M, i, j)] = noise * sqrtf(f->gain[at + j]);
            }
        }
        product(k, e, b->sum, f->u + (size_t)at * B, B * TILE, B / TILE);
        for (int i = 0; i < M * B; i++)
            e[i] -= b->shift[i];
    }
}

double quant_feedback_loss(const struct quant_feedback *b, const float *h)
{
    enum { M = QUANT_FEEDBACK_ROWS };
    const struct tile_kernels *k = tile_kernels(b->isa);
    double sum = 0;
    for (int t = 0; t < b->n / TILE; t++) {
        const float *e = b->error + (size_t)t * M * TILE;
        memset(b->sum, 0, (size_t)M * TILE * sizeof *b->sum);
        k->add(b->sum, b->error, M * TILE, h + (size_t)t * (size_t)b->n * TILE, b->n / TILE, M);
        for (int i = 0; i < M * TILE; i++)
            sum += (double)e[i] * (double)b->sum[i];
    }
    return sum;
}
