/* expert_place.c - a part begins as far into a unit of memory as it does into one of the file.
 *
 * The tensors of a GGUF file begin at multiples of 32 bytes, direct reads at pages. Copying the
 * parts to where they ought to be would cost as much processor time as a buffered read. */
#include "expert_place.h"

static const struct expert_extent *extent(const struct expert_place *p,
                                          const struct expert_run *run, int i,
                                          enum expert_part part)
{
    return expert_map_at(p->map, run->key + i, part);
}

void expert_place_init(struct expert_place *p, const struct expert_map *map, size_t unit, int run)
{
    *p = (struct expert_place){ .map = map, .unit = unit, .run = run };
    for (int key = 0; key < map->n_layer * map->n_expert; key++) {
        for (int k = 0; k < EXPERT_N_PART; k++) {
            const struct expert_extent *x = expert_map_at(map, key, (enum expert_part)k);
            size_t bytes = (size_t)(x->offset % unit + x->bytes);
            if (x->bytes > 0)
                p->piece[k] = MAX(p->piece[k], round_up(bytes, unit));
        }
    }
    for (int k = 0; k < EXPERT_N_PART; k++) {
        p->segment_at[k] = p->bytes;
        p->bytes += p->piece[k] * (size_t)run;
    }
}

/* Do all experts of the run lie one after another in the file? */
static bool are_neighbours(const struct expert_place *p, const struct expert_run *run,
                           enum expert_part part)
{
    for (int i = 1; i < run->n; i++) {
        const struct expert_extent *a = extent(p, run, i - 1, part), *b = extent(p, run, i, part);
        if (a->file != b->file || a->offset + a->bytes != b->offset)
            return false;
    }
    return true;
}

static uint8_t *piece_at(const struct expert_place *p, const struct expert_run *run, int i,
                         enum expert_part part)
{
    return (uint8_t *)run->mem + p->segment_at[part] + (size_t)i * p->piece[part];
}

const void *expert_place_part(const struct expert_place *p, const struct expert_run *run, int i,
                              enum expert_part part)
{
    CHECK(i >= 0 && i < run->n && part < EXPERT_N_PART);
    const struct expert_extent *x = extent(p, run, i, part);
    if (x->bytes == 0)
        return NULL;
    if (!are_neighbours(p, run, part))
        return piece_at(p, run, i, part) + x->offset % p->unit;
    uint64_t first = extent(p, run, 0, part)->offset;
    return piece_at(p, run, 0, part) + first % p->unit + (x->offset - first);
}

struct expert_span expert_place_span(const struct expert_place *p, const struct expert_run *run,
                                     int i, enum expert_part part, bool direct)
{
    const struct expert_extent *x = extent(p, run, i, part);
    struct expert_span s = { .at = *x, .n = 1, .dst = piece_at(p, run, i, part) };
    if (are_neighbours(p, run, part)) {
        s.n = run->n;
        const struct expert_extent *last = extent(p, run, run->n - 1, part);
        s.at.bytes = last->offset + last->bytes - x->offset;
    }
    uint64_t phase = x->offset % p->unit;
    s.must = (size_t)s.at.bytes;
    if (direct && s.at.bytes > 0) {
        s.must += (size_t)phase;
        s.at.offset -= phase;
        s.at.bytes = round_up(s.must, p->unit);
    } else {
        s.dst += phase;
    }
    return s;
}
