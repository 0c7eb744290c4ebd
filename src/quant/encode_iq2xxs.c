/* encode_iq2xxs.c - the best IQ2_XXS block for given weights.
 *
 * A block has one step d and for each of eight sub-blocks of 32 a share n: its scale is
 * s = d (2 n + 1) / 8. What a sub-block gains at scale s is s times the height of the upper
 * envelope of its groups' lines (iq2_lanes_impl.h), so the whole block is a function of d alone:
 * the sum over sub-blocks of the largest gain over n. It is ragged, with a tooth for every share
 * that changes, and is searched on a grid of equal ratios, where a share is a shift of the index.
 *
 *   fast   envelopes from five scales, a grid of 1/32 octave, then least squares from the three
 *          best places
 *   exact  whole envelopes; a bound for every cell of 1/64 octave, and every binary16 step in the
 *          cells whose bound is above the best gain found. Heights are convex in s, so between
 *          two grid points they lie under the chord, and s times the chord exceeds its ends by at
 *          most (h0 - h1)(s1 - s0) / 4.
 *
 * Rejected: alternating codes and scales from many starts, which is slower and stays in the first
 * tooth it finds. */
#include "encode_impl.h"
#include "iq_tables.h"

#include <math.h>

/* round(32 log2(2 n + 1)) and floor(64 log2(2 n + 1)). The fractions of the latter are more than
 * 0.04 away from whole numbers, far more than the grid's own rounding. */
static const int fast_shift[16] = { 0,   51,  74,  90,  101, 111, 118, 125,
                                    131, 136, 141, 145, 149, 152, 155, 159 };
static const int cell_shift[16] = { 0,   101, 148, 179, 202, 221, 236, 250,
                                    261, 271, 281, 289, 297, 304, 310, 317 };

/* No scale above this is of use: the smallest magnitude, 8 s, reaches the block's largest number,
 * which is below 2. */
#define TOP_SCALE .25f

void iq2_search_init(struct iq2_search *q, enum quant_effort effort, unsigned isa)
{
    q->k = iq2_kernels(isa);
    q->effort = effort;
    for (int v = 0; v < 256; v++) {
        for (int j = 0; j < 8; j++) {
            float g = (float)(iq2_xxs_grid[v] >> (8 * j) & 255);
            q->tables.g[j][v] = g;
            q->tables.g2[j][v] = g * g;
        }
    }
    float s = 1.f / 40; /* of the largest scale: its share is then between 6 and 19 */
    for (int i = 0; i < IQ2_FAST_GRID; i++, s *= 1.0218971f)
        q->fast_grid[i] = s;
    s = TOP_SCALE;
    for (int i = IQ2_BELOW + IQ2_CELLS; i >= 0; i--, s *= .98922801f)
        q->grid[i] = s;
    for (int i = IQ2_BELOW + IQ2_CELLS + 1; i < IQ2_BELOW + IQ2_CELLS + 32; i++)
        q->grid[i] = TOP_SCALE;
}

/* ---- envelopes ---- */

/* One group's, with the scales where its lines begin. */
struct group_hull {
    int n;
    float a[IQ2_MAX_LINES / 4], b[IQ2_MAX_LINES / 4], from[IQ2_MAX_LINES / 4];
};

static void hull_add(struct group_hull *e, float a, float b, float from)
{
    e->a[e->n] = a;
    e->b[e->n] = b;
    e->from[e->n++] = from;
}

/* Every line of the envelope for scales from 0 on: between two known lines, either their crossing
 * is a corner of it or a higher line is found there. Stops short only after 48 lines; 7 are
 * usual. */
static void hull_whole(const struct iq2_kernels *k, const struct iq2_lines *l, struct group_hull *e)
{
    int right[IQ2_MAX_LINES / 4], n_right = 1, left = 0;
    right[0] = 0;
    k->highest(l, 0, -INFINITY, &left);
    k->highest(l, TOP_SCALE, -INFINITY, &right[0]);
    e->n = 0;
    hull_add(e, l->a[left], l->b[left], 0);
    while (n_right > 0) {
        int r = right[n_right - 1], found = r;
        float slope = l->a[left] - l->a[r];
        if (!(slope > 0)) {
            n_right--;
            continue;
        }
        float s = (l->b[left] - l->b[r]) / slope;
        float known = MAX(l->b[left] - s * l->a[left], l->b[r] - s * l->a[r]);
        bool higher = k->highest(l, s, known, &found) > known;
        if (higher && l->a[found] < l->a[left] && l->a[found] > l->a[r] &&
            n_right + e->n < (int)COUNT_OF(right)) {
            right[n_right++] = found;
        } else {
            hull_add(e, l->a[r], l->b[r], s);
            left = r;
            n_right--;
        }
    }
}

/* The highest lines at five scales around the one at which a sub-block's largest number `max` is
 * the largest magnitude. */
static void hull_sampled(const struct iq2_kernels *k, const struct iq2_lines *l, float max,
                         struct group_hull *e)
{
    static const float place[IQ2_SAMPLES] = { .5f, .65f, .85f, 1.05f, 1.35f };
    float s[IQ2_SAMPLES], a[IQ2_SAMPLES], b[IQ2_SAMPLES];
    for (int i = 0; i < IQ2_SAMPLES; i++)
        s[i] = place[i] * (max / 43);
    k->sample(l, s, a, b);
    e->n = 0;
    hull_add(e, a[0], b[0], 0);
    for (int i = 1; i < IQ2_SAMPLES; i++) {
        int last = e->n - 1;
        if (a[i] < e->a[last])
            hull_add(e, a[i], b[i], MAX(e->from[last], (e->b[last] - b[i]) / (e->a[last] - a[i])));
    }
}

/* Line k is the highest on [from, to]: is its own maximum there? */
static void note_maximum(struct iq2_sub *u, int k, float from, float to)
{
    float s = u->hull.b[k] / (2 * u->hull.a[k]), gain = u->hull.b[k] * s * .5f;
    if (!(s > 0 && s >= from && s <= to))
        return;
    if (u->last == 0)
        u->first = s;
    u->last = s;
    if (gain > u->gain) {
        u->gain = gain;
        u->s = s;
    }
}

/* Sum of four envelopes. */
static void merge(const struct group_hull e[4], struct iq2_sub *u)
{
    int at[4] = { 0 };
    float a = 0, b = 0, from = 0;
    u->hull.n = 0;
    u->gain = u->s = u->first = u->last = 0;
    for (int g = 0; g < 4; g++) {
        a += e[g].a[0];
        b += e[g].b[0];
    }
    for (;;) {
        int next = -1;
        float to = INFINITY;
        for (int g = 0; g < 4; g++) {
            if (at[g] + 1 < e[g].n && e[g].from[at[g] + 1] < to) {
                next = g;
                to = e[g].from[at[g] + 1];
            }
        }
        int k = u->hull.n++;
        u->hull.a[k] = a;
        u->hull.b[k] = b;
        u->from[k] = from;
        u->from[k + 1] = INFINITY;
        note_maximum(u, k, from, to);
        if (next < 0)
            return;
        a += e[next].a[at[next] + 1] - e[next].a[at[next]];
        b += e[next].b[at[next] + 1] - e[next].b[at[next]];
        at[next]++;
        from = to;
    }
}

static float largest(const float *x, int n)
{
    float max = 0;
    for (int i = 0; i < n; i++)
        max = MAX(max, fabsf(x[i]));
    return max;
}

static void find_hulls(struct iq2_search *q, const struct encode_block *blk)
{
    struct group_hull e[4];
    for (int i = 0; i < 8; i++) {
        float max = largest(blk->x + 32 * i, 32);
        for (int g = 0; g < 4; g++) {
            int at = 32 * i + 8 * g;
            struct iq2_lines *l = &q->lines[4 * i + g];
            q->k->lines(&q->tables, blk->x + at, blk->w + at, l);
            if (q->effort == QUANT_EXACT)
                hull_whole(q->k, l, &e[g]);
            else
                hull_sampled(q->k, l, max, &e[g]);
        }
        merge(e, &q->sub[i]);
    }
}

/* ---- steps ---- */

struct choice {
    float gain, d;
    uint16_t h;                  /* d as the file holds it */
    uint8_t share[8], line[8];   /* line: of the sub-block's envelope */
};

/* The best share for an eighth of a step. Gains rise up to the first local maximum and fall after
 * the last, so only shares between them, and one beyond on either side, can be best. */
static float best_share(const struct iq2_sub *u, float eighth, uint8_t *share, uint8_t *line)
{
    float lo = (u->first / eighth - 1) * .5f, hi = (u->last / eighth - 1) * .5f;
    int from = (int)MAX(0, MIN(15, lo)), to = (int)ceilf(MAX(0, MIN(15, hi))), k = 0;
    float best = -INFINITY;
    for (int n = from; n <= to; n++) {
        float s = eighth * (float)(2 * n + 1);
        while (s >= u->from[k + 1])
            k++;
        float gain = s * (u->hull.b[k] - s * u->hull.a[k]);
        if (gain > best) {
            best = gain;
            *share = (uint8_t)n;
            *line = (uint8_t)k;
        }
    }
    return best;
}

/* The block with step d, which h encodes; replaces `best` if it gains more. */
static struct choice try_step(const struct iq2_search *q, float d, uint16_t h, struct choice *best)
{
    struct choice c = { .d = d, .h = h };
    for (int i = 0; i < 8; i++)
        c.gain += best_share(&q->sub[i], d * .125f, &c.share[i], &c.line[i]);
    if (c.gain > best->gain)
        *best = c;
    return c;
}

/* The best step for the lines and shares of a choice. */
static float refit(const struct iq2_search *q, const struct choice *c)
{
    float a = 0, b = 0;
    for (int i = 0; i < 8; i++) {
        float part = (float)(2 * c->share[i] + 1) * .125f;
        a += part * part * q->sub[i].hull.a[c->line[i]];
        b += part * q->sub[i].hull.b[c->line[i]];
    }
    return b / (2 * a);
}

static int highest_cell(const float *sum, int n)
{
    int top = 0;
    for (int i = 1; i < n; i++)
        top = sum[i] > sum[top] ? i : top;
    return top;
}

/* Steps for which the sub-block that wants the largest scale has a share between 6 and 19. */
static void search_fast(struct iq2_search *q, const struct encode_block *blk, struct choice *best)
{
    float scale = 0, *sum = q->sum;
    for (int i = 0; i < 8; i++)
        scale = MAX(scale, q->sub[i].s);
    for (int i = 0; i < IQ2_FAST_GRID; i++)
        q->at[i] = q->fast_grid[i] * scale;
    memset(sum, 0, IQ2_FAST_CELLS * sizeof *sum);
    for (int i = 0; i < 8; i++) {
        q->k->heights(&q->sub[i].hull, q->at, q->height, IQ2_FAST_GRID);
        for (int j = 0; j < IQ2_FAST_GRID; j++)
            q->height[j] *= q->at[j];
        q->k->add_best(q->height, fast_shift, sum, IQ2_FAST_CELLS);
    }
    for (int place = 0; place < 3; place++) {
        int top = highest_cell(sum, IQ2_FAST_CELLS);
        float wish = 8 * q->at[top], d, done = 0;
        for (int turn = 0; turn < 3; turn++, done = d) {
            uint16_t h;
            d = encode_step(blk, wish, &h);
            if (!(d > 0) || d == done)
                break;
            struct choice c = try_step(q, d, h, best);
            wish = refit(q, &c);
        }
        for (int i = MAX(top - 1, 0); i <= top + 1 && i < IQ2_FAST_CELLS; i++)
            sum[i] = -INFINITY;
    }
}

/* For every cell of steps, the most that a sub-block may gain, added to sum. */
static void add_bounds(struct iq2_search *q, const struct iq2_sub *u)
{
    const float *s = q->grid + IQ2_BELOW;
    float *h = q->height, *bound = q->bound;
    q->k->heights(&u->hull, s, h, IQ2_CELLS + 32);
    for (int i = 0; i < IQ2_BELOW; i++)
        bound[i] = s[0] * u->hull.b[0];
    for (int i = 0; i < IQ2_CELLS; i++)
        bound[IQ2_BELOW + i] = MAX(h[i] * s[i], h[i + 1] * s[i + 1]) +
                               (h[i] - h[i + 1]) * (s[i + 1] - s[i]) * .25f;
    for (int i = IQ2_BELOW + IQ2_CELLS; i < (int)COUNT_OF(q->bound); i++)
        bound[i] = h[IQ2_CELLS] * s[IQ2_CELLS]; /* beyond the top everything falls */
    for (int i = 0; i + 1 < (int)COUNT_OF(q->bound); i++)
        bound[i] = MAX(bound[i], bound[i + 1]); /* a shift is not whole: two cells */
    q->k->add_best(bound, cell_shift, q->sum, IQ2_BELOW + IQ2_CELLS);
}

/* Every step of the file's between those of a cell's ends. */
static void search_cell(const struct iq2_search *q, const struct encode_block *blk, int cell,
                        struct choice *best)
{
    uint16_t from, to;
    encode_step(blk, 8 * q->grid[cell], &from);
    encode_step(blk, 8 * q->grid[cell + 1], &to);
    for (unsigned h = MAX(from, 1); h <= to; h++)
        try_step(q, f16_to_f32((uint16_t)h) * blk->down, (uint16_t)h, best);
}

static void search_exact(struct iq2_search *q, const struct encode_block *blk, struct choice *best)
{
    memset(q->sum, 0, sizeof q->sum);
    for (int i = 0; i < 8; i++)
        add_bounds(q, &q->sub[i]);
    for (;;) {
        int top = highest_cell(q->sum, IQ2_BELOW + IQ2_CELLS);
        if (!(q->sum[top] > best->gain * (1 - 1e-6f))) /* with room for rounding */
            return;
        search_cell(q, blk, top, best);
        q->sum[top] = -INFINITY;
    }
}

/* ---- packing ---- */

/* Seven sign bits of a group coded as entry v; the cheapest sign is wrong if it must be. */
static unsigned signs_of(const struct iq2_tables *t, const float *x, const float *w, int v)
{
    unsigned bits = 0;
    int cheapest = 0, odd = 0;
    float least = INFINITY;
    for (int j = 0; j < 8; j++) {
        float cost = w[j] * fabsf(x[j]) * t->g[j][v];
        odd ^= x[j] < 0;
        bits |= (unsigned)(x[j] < 0) << j;
        if (cost < least) {
            least = cost;
            cheapest = j;
        }
    }
    return (odd ? bits ^ 1u << cheapest : bits) & 127;
}

/* | f16 d | 8 x { u8 entry x 4 | u32: 4 x 7 signs, share in the top 4 bits } |
 * Entries are chosen again, among all: envelopes may be sampled. */
static void pack(const struct iq2_search *q, const struct encode_block *blk, const struct choice *c,
                 uint8_t *dst)
{
    memcpy(dst, &c->h, 2);
    for (int i = 0; i < 8; i++) {
        float s = c->d * .125f * (float)(2 * c->share[i] + 1);
        uint32_t rest = (uint32_t)c->share[i] << 28;
        for (int g = 0; g < 4; g++) {
            int v = 0, at = 32 * i + 8 * g;
            q->k->highest(&q->lines[4 * i + g], s, -INFINITY, &v);
            dst[2 + 8 * i + g] = (uint8_t)v;
            rest |= (uint32_t)signs_of(&q->tables, blk->x + at, blk->w + at, v) << (7 * g);
        }
        memcpy(dst + 2 + 8 * i + 4, &rest, 4);
    }
}

void iq2_xxs_search(struct iq2_search *q, const struct encode_block *b, uint8_t *dst)
{
    struct choice best = { .gain = 0 };
    find_hulls(q, b);
    search_fast(q, b, &best);
    if (q->effort == QUANT_EXACT)
        search_exact(q, b, &best);
    if (best.gain > 0)
        pack(q, b, &best, dst);
    else
        memset(dst, 0, 66); /* all zeros, or below the smallest step */
}

void iq2_xxs_search_group(struct iq2_search *q, uint8_t *block, int at, float *x, const float *w)
{
    uint8_t *sub = block + 2 + 8 * (at / 32);
    int g = at / 8 % 4, v = 0;
    uint32_t rest;
    memcpy(&rest, sub + 4, 4);
    float s = f16_at(block) * .125f * (float)(2 * (rest >> 28) + 1);
    q->k->lines(&q->tables, x, w, &q->lines[0]);
    q->k->highest(&q->lines[0], s, -INFINITY, &v);
    unsigned seven = signs_of(&q->tables, x, w, v), signs = iq2_signs(seven);
    sub[g] = (uint8_t)v;
    rest = (rest & ~(127u << (7 * g))) | seven << (7 * g);
    memcpy(sub + 4, &rest, 4);
    for (int j = 0; j < 8; j++)
        x[j] = signs >> j & 1 ? -s * q->tables.g[j][v] : s * q->tables.g[j][v];
}
