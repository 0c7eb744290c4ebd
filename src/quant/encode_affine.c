/* encode_affine.c - steps, scales and minima of a Q2_K or Q4_K block for given weights.
 *
 *   1  each sub-block's best real a and b, from many starts
 *   2  the block's steps d and dmin on a grid, judged by the quadratic forms around these
 *   3  from the best places: whole scales and minima by true error, then d and dmin by least
 *      squares for all codes at once, in turns
 *
 * The wide search has more starts, places and turns. Rejected: every pair of scale and minimum, 30
 * times slower for half a percent; rounding a and b to whole multiples each for itself, as
 * published encoders do: the form's mixed term lets one make up for the other. */
#include "encode_impl.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_PLACES = 8, MAX_GRID = 16 };

struct effort {
    struct affine_starts starts;
    int grid, places, turns, radius;
};

/* Starts also with the range in few codes: numbers that were FP4 lie on multiples of a step, and
 * are found without error where their range is no more than the largest code. */
static const struct effort efforts[2][2] = {
    /* Q2_K */ { [QUANT_FAST] = { { 2, .3f, 10, 0, .12f, 3, 3 }, 12, 3, 3, 1 },
                 [QUANT_EXACT] = { { 2.4f, .25f, 14, -.06f, .06f, 7, 4 }, 16, 8, 6, 2 } },
    /* Q4_K */ { [QUANT_FAST] = { { 6, 1, 12, 0, .03f, 3, 3 }, 6, 2, 2, 1 },
                 [QUANT_EXACT] = { { 6, .5f, 26, 0, .02f, 5, 4 }, 12, 8, 6, 2 } },
};

/* The lowest place of a square grid; it and its neighbours are then out of question. */
static int take_lowest(float *guess, int grid)
{
    int low = 0;
    for (int i = 1; i < grid * grid; i++)
        low = guess[i] < guess[low] ? i : low;
    for (int i = 0; i < grid * grid; i++) {
        if (abs(i / grid - low / grid) <= 1 && abs(i % grid - low % grid) <= 1)
            guess[i] = INFINITY;
    }
    return low;
}

/* Steps with which the largest a and b are between two thirds and all of the largest whole number;
 * the best places of such a grid that are not neighbours. */
static void find_places(const struct affine_search *q, const struct affine_kernels *k,
                        const struct effort *f, float place[][2])
{
    float a = 0, b = 0, by = k->most / (3 * (float)f->grid), guess[MAX_GRID * MAX_GRID];
    for (int s = 0; s < k->n_sub; s++) {
        a = MAX(a, q->fit[s / 8].a[s % 8]);
        b = MAX(b, q->fit[s / 8].b[s % 8]);
    }
    a = MAX(a, 0x1p-60f); /* all sub-blocks flat */
    for (int i = 0; i < f->grid * f->grid; i++)
        guess[i] = k->guess(q->fit, a / (k->most + .5f - by * (float)(i / f->grid)),
                            b / (k->most + .5f - by * (float)(i % f->grid)));
    for (int i = 0; i < f->places; i++) {
        int low = take_lowest(guess, f->grid);
        place[i][0] = a / (k->most + .5f - by * (float)(low / f->grid));
        place[i][1] = b / (k->most + .5f - by * (float)(low % f->grid));
    }
}

/* Steps by least squares, for the codes that pairs and steps imply. */
static void refit(const struct affine_search *q, const struct affine_kernels *k,
                  const struct affine_pair *pair, const float step[2], float next[2])
{
    struct affine_sums s = { 0 };
    for (int v = 0; v < k->n_sub / 8; v++)
        k->add_sums(&q->tile[v], &pair[v], step, &s);
    double det = s.uu * s.vv - s.uv * s.uv;
    bool both = det > 1e-9 * s.uu * s.vv;
    double d = both ? (s.ux * s.vv - s.vx * s.uv) / det : s.uu > 0 ? s.ux / s.uu : 0;
    double m = both ? (s.ux * s.uv - s.vx * s.uu) / det : 0;
    if (!(s.uu > 0) && s.vv > 0)
        m = -s.vx / s.vv;
    next[0] = (float)MAX(d, 0);
    next[1] = (float)MAX(m, 0);
}

/* Pairs for steps, then steps for pairs, in turns; the best of all into *best. */
static void improve(const struct affine_search *q, const struct affine_kernels *k,
                    const struct effort *f, const struct encode_block *blk, const float place[2],
                    struct affine_block *best)
{
    float wish[2] = { place[0], place[1] }, last[2] = { -1, -1 };
    for (int turn = 0; turn < f->turns; turn++) {
        struct affine_block c = { .error = 0 };
        struct affine_pair pair[2];
        for (int i = 0; i < 2; i++)
            c.step[i] = encode_step(blk, wish[i], &c.bits[i]);
        if (c.step[0] == last[0] && c.step[1] == last[1])
            return;
        for (int v = 0; v < k->n_sub / 8; v++)
            k->choose(&q->tile[v], &q->fit[v], c.step, f->radius, &pair[v]);
        for (int s = 0; s < k->n_sub; s++) {
            c.scale[s] = (uint8_t)pair[s / 8].scale[s % 8];
            c.min[s] = (uint8_t)pair[s / 8].min[s % 8];
            c.error += pair[s / 8].error[s % 8];
        }
        if (c.error < best->error)
            *best = c;
        refit(q, k, pair, c.step, wish);
        memcpy(last, c.step, sizeof last);
    }
}

void affine_search_block(struct affine_search *q, const struct affine_kernels *k,
                         const struct encode_block *blk, struct affine_block *best)
{
    const struct effort *f = &efforts[k->n_sub == 8][q->effort];
    float place[MAX_PLACES][2];
    CHECK(f->places <= MAX_PLACES && f->grid <= MAX_GRID);
    for (int s = 0; s < k->n_sub; s++) {
        for (int i = 0; i < k->len; i++) {
            q->tile[s / 8].x[i][s % 8] = blk->x[k->len * s + i];
            q->tile[s / 8].w[i][s % 8] = blk->w[k->len * s + i];
        }
    }
    for (int v = 0; v < k->n_sub / 8; v++)
        k->fit(&q->tile[v], &f->starts, &q->fit[v]);
    find_places(q, k, f, place);
    *best = (struct affine_block){ .error = INFINITY };
    for (int i = 0; i < f->places; i++)
        improve(q, k, f, blk, place[i], best);
}
