/* bootstrap.c - intervals by drawing texts again.
 *
 * Texts are drawn, not rows: predictions within a text are not independent. Rejected: a normal
 * approximation, because a few texts hold most of a divergence. */
#include "bootstrap.h"

#include <stdlib.h>

#include "rng.h"

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between two neighbours the quantile is the line between them. */
static double quantile(const double *sorted, int n, double share)
{
    double at = share * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static void set_interval(struct interval *out, double value, double *drawn, int n)
{
    qsort(drawn, (size_t)n, sizeof *drawn, by_value);
    *out = (struct interval){ value, quantile(drawn, n, 0.025), quantile(drawn, n, 0.975) };
}

static double ratio_of(double b, double a)
{
    return a > 0 ? b / a : 0;
}

static void draw(const struct paired_sums *s, struct rng *rng, double *a, double *b)
{
    double rows = 0;
    *a = *b = 0;
    while (rows <= 0) { /* never again in practice: only texts without rows were drawn */
        for (int i = 0; i < s->n; i++) {
            int t = (int)(rng_unit(rng) * s->n);
            *a += s->a[t];
            *b += s->b[t];
            rows += s->rows[t];
        }
    }
    *a /= rows;
    *b /= rows;
}

int bootstrap_paired(struct paired *out, const struct paired_sums *s, int n_draw, uint64_t seed,
                     struct err *e)
{
    struct rng rng = { seed, 0 };
    double a = 0, b = 0, rows = 0;
    for (int i = 0; i < s->n; i++) {
        a += s->a[i];
        b += s->b[i];
        rows += s->rows[i];
    }
    if (!(rows > 0) || n_draw < 40)
        return err_set(e, ERR_ARGUMENT, "bootstrap: %d texts with %.0f rows, %d draws, expected "
                       "rows and at least 40 draws", s->n, rows, n_draw);
    size_t n = (size_t)n_draw;
    double *drawn = calloc(n, 4 * sizeof *drawn);
    if (!drawn)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d draws", n_draw);
    for (size_t i = 0; i < n; i++) {
        draw(s, &rng, &drawn[i], &drawn[n + i]);
        drawn[2 * n + i] = drawn[n + i] - drawn[i];
        drawn[3 * n + i] = ratio_of(drawn[n + i], drawn[i]);
    }
    set_interval(&out->a, a / rows, drawn, n_draw);
    set_interval(&out->b, b / rows, drawn + n, n_draw);
    set_interval(&out->difference, (b - a) / rows, drawn + 2 * n, n_draw);
    set_interval(&out->ratio, ratio_of(b, a), drawn + 3 * n, n_draw);
    free(drawn);
    return 0;
}
