/* published_search.h - the searches of published IQ2_XXS and Q2_K encoders, from descriptions of
 * what they compute, for comparison only.
 *
 * IQ2_XXS: magnitudes; where an odd number is negative, the cheapest, by w x^2, counts as negative.
 * Per 32: a least-squares fit of whole multiples tells where to look, 13 scales around it are
 * tried; numbers are rounded to levels 1 3 5, and a group of eight that is not in the codebook
 * takes the best, by sqrt(w), of the two nearest shells of entries. The scale is then fitted;
 * groups that were not in the codebook are chosen once more. d is the largest scale / 31, the
 * others are rounded to shares of it. (They decode 1 3 5 as 1 3.125 5.375.)
 *
 * Q2_K: per 16, 37 inverse scales around 3 / range with a fit of scale and minimum each, where a
 * minimum that was better is also the one from which later ones round; both are then rounded to
 * four bits by weighted fits of whole numbers, each for itself; codes again. */
#ifndef DS_PUBLISHED_SEARCH_H
#define DS_PUBLISHED_SEARCH_H

#include <math.h>
#include <string.h>

#include "half.h"
#include "iq_tables.h"

/* Levels 0 1 2 of eight magnitudes as a number to base 3, and for each what to do with it. */
struct published_grid {
    int level[256][8];
    int16_t entry[6561];       /* -1: not in the codebook */
    int16_t near[6561][256];   /* the two nearest shells, ended by -1 */
    bool known[6561];
};

static inline int published_code(const int *level)
{
    int code = 0;
    for (int j = 0; j < 8; j++)
        code = 3 * code + level[j];
    return code;
}

static inline void published_init(struct published_grid *g)
{
    memset(g, 0, sizeof *g);
    memset(g->entry, 0xff, sizeof g->entry);
    for (int v = 0; v < 256; v++) {
        for (int j = 0; j < 8; j++)
            g->level[v][j] = (int)(iq2_xxs_grid[v] >> (8 * j) & 255) / 17;
        g->entry[published_code(g->level[v])] = (int16_t)v;
    }
}

static inline const int16_t *published_near(struct published_grid *g, const int *level)
{
    int code = published_code(level), distance[256], first = 1 << 20, second = 1 << 20, n = 0;
    if (g->known[code])
        return g->near[code];
    for (int v = 0; v < 256; v++) {
        distance[v] = 0;
        for (int j = 0; j < 8; j++)
            distance[v] += (g->level[v][j] - level[j]) * (g->level[v][j] - level[j]);
        first = MIN(first, distance[v]);
    }
    for (int v = 0; v < 256; v++) {
        if (distance[v] > first)
            second = MIN(second, distance[v]);
    }
    for (int v = 0; v < 256; v++) {
        if (distance[v] <= second)
            g->near[code][n++] = (int16_t)v;
    }
    g->near[code][n] = -1;
    g->known[code] = true;
    return g->near[code];
}

/* The entry for eight magnitudes at a scale; *on: it needed no neighbour. */
static inline int published_entry(struct published_grid *g, const float *x, const float *w,
                                  float scale, bool *on)
{
    int level[8], best = 0;
    for (int j = 0; j < 8; j++)
        level[j] = (int)fmaxf(0, fminf(2, rintf((x[j] / scale - 1) * .5f)));
    int entry = g->entry[published_code(level)];
    *on = entry >= 0;
    if (*on)
        return entry;
    float least = INFINITY;
    for (const int16_t *v = published_near(g, level); *v >= 0; v++) {
        float sum = 0;
        for (int j = 0; j < 8; j++) {
            float r = scale * (float)(2 * g->level[*v][j] + 1) - x[j];
            sum += sqrtf(w[j]) * r * r;
        }
        if (sum < least) {
            least = sum;
            best = *v;
        }
    }
    return best;
}

struct published_sub {
    float scale;
    int entry[4];
    unsigned signs[4];
    bool on[4];
};

static inline void published_fit(const struct published_grid *g, const float *x, const float *w,
                                 const int *entry, float *xq, float *qq)
{
    *xq = *qq = 0;
    for (int i = 0; i < 32; i++) {
        float q = (float)(2 * g->level[entry[i / 8]][i % 8] + 1);
        *xq += w[i] * x[i] * q;
        *qq += w[i] * q * q;
    }
}

/* Where to look: the scale of the best fit of whole multiples 0 to 4. */
static inline float published_start(const float *x, const float *w, float max)
{
    float best = 0, scale = max / 4;
    for (int t = -9; t <= 9; t++) {
        float inv = (4 + .1f * (float)t) / max, xq = 0, qq = 0;
        for (int i = 0; i < 32; i++) {
            float q = fmaxf(0, fminf(4, rintf(inv * x[i])));
            xq += w[i] * x[i] * q;
            qq += w[i] * q * q;
        }
        if (qq > 0 && xq * xq > best * qq) {
            best = xq * xq / qq;
            scale = xq / qq;
        }
    }
    return scale;
}

static inline void published_iq2_sub(struct published_grid *g, const float *x0, const float *w,
                                     struct published_sub *s)
{
    float x[32], max = 0, best = 0, xq, qq;
    memset(s, 0, sizeof *s);
    for (int i = 0; i < 32; i += 8) {
        int cheapest = i;
        for (int j = i; j < i + 8; j++) {
            x[j] = fabsf(x0[j]);
            s->signs[i / 8] |= (unsigned)(x0[j] < 0) << (j - i);
            if (w[j] * x[j] * x[j] < w[cheapest] * x[cheapest] * x[cheapest])
                cheapest = j;
        }
        if (__builtin_popcount(s->signs[i / 8]) & 1) {
            s->signs[i / 8] ^= 1u << (cheapest - i);
            x[cheapest] = -x[cheapest];
        }
    }
    for (int i = 0; i < 32; i++)
        max = fmaxf(max, x[i]);
    if (max < 1e-15f)
        return;
    float start = 3 * published_start(x, w, max);
    for (int t = -6; t <= 6; t++) {
        int entry[4];
        bool on[4];
        for (int i = 0; i < 4; i++)
            entry[i] = published_entry(g, x + 8 * i, w + 8 * i, start / (5 + .1f * (float)t),
                                       &on[i]);
        published_fit(g, x, w, entry, &xq, &qq);
        if (qq > 0 && xq * xq > best * qq) {
            best = xq * xq / qq;
            s->scale = xq / qq;
            memcpy(s->entry, entry, sizeof entry);
            memcpy(s->on, on, sizeof on);
        }
    }
    for (int i = 0; i < 4 && s->scale > 0; i++) {
        bool on;
        if (!s->on[i])
            s->entry[i] = published_entry(g, x + 8 * i, w + 8 * i, s->scale, &on);
    }
    published_fit(g, x, w, s->entry, &xq, &qq);
    s->scale = qq > 0 ? xq / qq : 0;
    if (s->scale < 0) {
        s->scale = -s->scale;
        for (int i = 0; i < 4; i++)
            s->signs[i] = ~s->signs[i];
    }
}

static inline void published_iq2_xxs(struct published_grid *g, const float *x, const float *w,
                                     uint8_t *dst)
{
    struct published_sub sub[8];
    float max = 0;
    for (int i = 0; i < 8; i++) {
        published_iq2_sub(g, x + 32 * i, w + 32 * i, &sub[i]);
        max = fmaxf(max, sub[i].scale);
    }
    uint16_t h = f32_to_f16(max / 31);
    memset(dst, 0, 66);
    memcpy(dst, &h, 2);
    for (int i = 0; i < 8 && max > 0; i++) {
        float share = fmaxf(0, fminf(15, rintf((sub[i].scale * 31 / max - 1) * .5f)));
        uint32_t rest = (uint32_t)share << 28;
        for (int j = 0; j < 4; j++) {
            dst[2 + 8 * i + j] = (uint8_t)sub[i].entry[j];
            rest |= (uint32_t)(sub[i].signs[j] & 127) << (7 * j);
        }
        memcpy(dst + 2 + 8 * i + 4, &rest, 4);
    }
}

/* Weighted whole numbers 0 to 15 for 16 positive values; returns the step. */
static inline float published_whole(const float *v, const float *w, int *q)
{
    float max = 0, best = INFINITY, inv = 0, vq = 0, qq = 0;
    memset(q, 0, 16 * sizeof *q);
    for (int s = 0; s < 16; s++)
        max = fmaxf(max, v[s]);
    if (max <= 0)
        return 0;
    for (int t = -4; t <= 4; t++) {
        float trial = (15 + .1f * (float)t) / max, sum = 0;
        for (int s = 0; s < 16; s++) {
            float r = v[s] - fminf(15, rintf(v[s] * trial)) / trial;
            sum += w[s] * r * r;
        }
        if (sum < best) {
            best = sum;
            inv = trial;
        }
    }
    for (int s = 0; s < 16; s++) {
        q[s] = (int)fminf(15, rintf(v[s] * inv));
        vq += w[s] * v[s] * (float)q[s];
        qq += w[s] * (float)(q[s] * q[s]);
    }
    for (int pass = 0; pass < 5; pass++) {
        for (int s = 0; s < 16; s++) {
            float a = vq - w[s] * v[s] * (float)q[s], b = qq - w[s] * (float)(q[s] * q[s]);
            int next = a > 0 && b > 0 ? (int)fminf(15, rintf(v[s] * b / a)) : q[s];
            float na = a + w[s] * v[s] * (float)next, nb = b + w[s] * (float)(next * next);
            if (na * na * qq > vq * vq * nb) {
                q[s] = next;
                vq = na;
                qq = nb;
            }
        }
    }
    return qq > 0 ? vq / qq : 0;
}

/* Scale and minimum of 16 numbers. */
static inline void published_q2_sub(const float *x, const float *w, float *scale, float *min)
{
    float low = 0, high = x[0], sw = 0, sx = 0, sxx = 0, best = INFINITY;
    for (int i = 0; i < 16; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
        sw += w[i];
        sx += w[i] * x[i];
        sxx += w[i] * x[i] * x[i];
    }
    *scale = 0;
    *min = -low;
    if (high > low) {
        *scale = (high - low) / 3;
        best = 0;
    }
    for (int i = 0; i < 16 && high > low; i++) {
        float r = *scale * rintf((x[i] - low) / *scale) + low - x[i];
        best += w[i] * r * r;
    }
    for (int t = 0; t < 37 && high > low; t++) {
        float inv = (2.1f + .05f * (float)t) / (high - low), wq = 0, wqq = 0, wqx = 0;
        for (int i = 0; i < 16; i++) {
            float q = fmaxf(0, fminf(3, rintf((x[i] - low) * inv)));
            wq += w[i] * q;
            wqq += w[i] * q * q;
            wqx += w[i] * q * x[i];
        }
        float det = wqq * sw - wq * wq;
        if (!(det > 0))
            continue;
        float a = (wqx * sw - sx * wq) / det, b = (wqx * wq - sx * wqq) / det;
        if (b < 0) {
            b = 0;
            a = wqx / wqq;
        }
        float e = sxx - 2 * a * wqx + 2 * b * sx + a * a * wqq - 2 * a * b * wq + b * b * sw;
        if (e < best) {
            best = e;
            *scale = a;
            *min = b;
            low = -b;
        }
    }
}

static inline void published_q2_k(const float *x, const float *w, uint8_t *dst)
{
    float scale[16], min[16], sum[16];
    int q[2][16];
    for (int s = 0; s < 16; s++) {
        published_q2_sub(x + 16 * s, w + 16 * s, &scale[s], &min[s]);
        sum[s] = 0;
        for (int i = 0; i < 16; i++)
            sum[s] += w[16 * s + i];
    }
    uint16_t h[2] = { f32_to_f16(published_whole(scale, sum, q[0])),
                      f32_to_f16(published_whole(min, sum, q[1])) };
    memset(dst, 0, 84);
    memcpy(dst + 80, h, 4);
    for (int e = 0; e < 256; e++) {
        float a = f16_to_f32(h[0]) * (float)q[0][e / 16];
        float b = f16_to_f32(h[1]) * (float)q[1][e / 16];
        int code = a > 0 ? (int)fmaxf(0, fminf(3, rintf((x[e] + b) / a))) : 0;
        dst[e / 16] = (uint8_t)(q[0][e / 16] | q[1][e / 16] << 4);
        dst[16 + 32 * (e / 128) + e % 32] |= (uint8_t)(code << (e / 32 % 4 * 2));
    }
}

#endif
