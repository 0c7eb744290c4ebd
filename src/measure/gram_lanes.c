/* gram_lanes.c - a symmetric update of rank GRAM_ROWS: tiles of the lower triangle, a task each.
 *
 * Columns lie in panels of 64, so that a tile reads two runs of memory however wide the rows are.
 * Four rows by sixteen columns of a tile are held in registers over all rows of a block. Products
 * and sums are separate operations in a stated order: every machine finds the same bits. */
#include "gram.h"

#include "cpu.h"

#include <stdlib.h>

typedef float f32x8 __attribute__((vector_size(32)));

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))
#else
#define AVX2
#endif

int gram_open(struct gram *g, int n, struct err *e)
{
    *g = (struct gram){ .n = n, .pitch = (int)round_up((size_t)n, GRAM_PANEL) };
    g->sum = calloc((size_t)g->pitch * (size_t)g->pitch, sizeof *g->sum);
    if (!g->sum)
        return err_set(e, ERR_NO_MEMORY, "out of memory for sums of %d x %d", n, n);
    return 0;
}

void gram_close(struct gram *g)
{
    free(g->sum);
    g->sum = NULL;
}

int gram_rows_open(struct gram_rows *r, int cap_cols, struct err *e)
{
    size_t cols = round_up((size_t)cap_cols, GRAM_PANEL);
    *r = (struct gram_rows){ .cap_cols = (int)cols };
    r->panel = aligned_alloc(64, MAX(cols * GRAM_ROWS * sizeof *r->panel, 64));
    if (!r->panel)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d rows of %d", GRAM_ROWS, cap_cols);
    return 0;
}

void gram_rows_close(struct gram_rows *r)
{
    free(r->panel);
    r->panel = NULL;
}

/* sum[i * pitch + j] += sum over k of a[k][i] b[k][j] for i < 4, j < 16. Eight names, not an array:
 * compilers keep those in registers. */
INLINE void corner(double *sum, size_t pitch, const float *a, const float *b, int n)
{
    f32x8 p0 = { 0 }, p1 = p0, q0 = p0, q1 = p0, r0 = p0, r1 = p0, s0 = p0, s1 = p0;
    float part[4][2][8];
    for (int k = 0; k < n; k++, a += GRAM_PANEL, b += GRAM_PANEL) {
        f32x8 y0, y1;
        memcpy(&y0, b, sizeof y0);
        memcpy(&y1, b + 8, sizeof y1);
        p0 += a[0] * y0;
        p1 += a[0] * y1;
        q0 += a[1] * y0;
        q1 += a[1] * y1;
        r0 += a[2] * y0;
        r1 += a[2] * y1;
        s0 += a[3] * y0;
        s1 += a[3] * y1;
    }
    memcpy(part[0][0], &p0, sizeof p0);
    memcpy(part[0][1], &p1, sizeof p1);
    memcpy(part[1][0], &q0, sizeof q0);
    memcpy(part[1][1], &q1, sizeof q1);
    memcpy(part[2][0], &r0, sizeof r0);
    memcpy(part[2][1], &r1, sizeof r1);
    memcpy(part[3][0], &s0, sizeof s0);
    memcpy(part[3][1], &s1, sizeof s1);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 16; j++)
            sum[(size_t)i * pitch + (size_t)j] += (double)part[i][j / 8][j % 8];
}

INLINE void tile(double *sum, size_t pitch, const float *a, const float *b, int n)
{
    for (int i = 0; i < GRAM_PANEL; i += 4)
        for (int j = 0; j < GRAM_PANEL; j += 16)
            corner(sum + (size_t)i * pitch + j, pitch, a + i, b + j, n);
}

typedef void tile_fn(double *sum, size_t pitch, const float *a, const float *b, int n);

static void tile_any(double *sum, size_t pitch, const float *a, const float *b, int n)
{
    tile(sum, pitch, a, b, n);
}

AVX2 static void tile_avx2(double *sum, size_t pitch, const float *a, const float *b, int n)
{
    tile(sum, pitch, a, b, n);
}

struct update {
    struct gram *g;
    const struct gram_rows *r;
    tile_fn *fn;
};

static const float *panel(const struct gram_rows *r, int i)
{
    return r->panel + (size_t)i * GRAM_ROWS * GRAM_PANEL;
}

/* Task t is tile (i, j <= i), counted by rows. */
static void update_task(void *ctx, int t, int worker)
{
    const struct update *u = ctx;
    (void)worker;
    int i = 0;
    while (t > i)
        t -= ++i;
    size_t pitch = (size_t)u->g->pitch;
    u->fn(u->g->sum + (size_t)i * GRAM_PANEL * pitch + (size_t)t * GRAM_PANEL, pitch,
          panel(u->r, i), panel(u->r, t), u->r->n);
}

void gram_flush(struct gram *g, struct gram_rows *r, struct pool *pool)
{
    int n = g->pitch / GRAM_PANEL;
    struct update u = { g, r, cpu_isa_detect() & CPU_AVX2 ? tile_avx2 : tile_any };
    if (r->n > 0)
        pool_run(pool, update_task, &u, n * (n + 1) / 2);
    g->n_row += r->n;
    r->n = 0;
}

void gram_put(struct gram *g, struct gram_rows *r, const float *x, struct pool *pool)
{
    CHECK(g->pitch <= r->cap_cols);
    for (int i = 0; i < g->pitch; i += GRAM_PANEL) {
        float *to = r->panel + ((size_t)i * GRAM_ROWS + (size_t)r->n * GRAM_PANEL);
        int n = MIN(GRAM_PANEL, g->n - i);
        memcpy(to, x + i, (size_t)n * sizeof *to);
        memset(to + n, 0, (size_t)(GRAM_PANEL - n) * sizeof *to);
    }
    if (++r->n == GRAM_ROWS)
        gram_flush(g, r, pool);
}
