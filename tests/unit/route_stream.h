/* route_stream.h - made-up routes: a working set in each layer that moves, now slowly, now fast.
 *
 * `stay`: the chance that an expert is one of the layer's popular ones, else one of the last few
 * tokens'. Popular ones favour recency-blind counting, the others recency. */
#ifndef DS_ROUTE_STREAM_H
#define DS_ROUTE_STREAM_H

#include "rng.h"

struct route_stream {
    struct rng rng;
    int n_expert, n_used;
    double stay;
};

static inline int route_draw(struct route_stream *s, int tok, int layer)
{
    double u = rng_unit(&s->rng);
    if (rng_unit(&s->rng) < s->stay) /* a steep distribution that never changes */
        return (int)(u * u * u * s->n_expert) * 7 % s->n_expert;
    int window = tok / 12 * 31 + layer * 5; /* another handful every 12 tokens */
    return (window + (int)(u * 3 * s->n_used)) % s->n_expert;
}

/* n_used different experts. */
static inline void route_next(struct route_stream *s, int tok, int layer, int32_t *expert)
{
    for (int i = 0; i < s->n_used; i++) {
        int e = route_draw(s, tok, layer);
        for (int j = 0; j < i; j++)
            if (expert[j] == e) {
                e = (e + 1) % s->n_expert;
                j = -1;
            }
        expert[i] = e;
    }
}

#endif
