/* flow.c - the store's counts in words and in JSON.
 *
 * What a larger cache would give is what it would not have waited for: the wait shrinks as the
 * misses do, the rest of a token's time stays. */
#include "flow.h"

#include <jansson.h>
#include <stdlib.h>

#include "engine.h"

static struct flow_part part_of(const struct expert_tally *t)
{
    return (struct flow_part){ t->n_tok, t->n_step, t->lookups, t->hits, t->bytes, t->wait_s,
                               t->model_wait_s };
}

static struct flow_part sum(const struct flow_part *a, const struct flow_part *b)
{
    return (struct flow_part){ MAX(a->n_tok, b->n_tok), MAX(a->n_step, b->n_step),
                               a->lookups + b->lookups, a->hits + b->hits,
                               a->bytes + b->bytes,     a->wait_s + b->wait_s,
                               a->model_wait_s + b->model_wait_s };
}

/* Every shelf sees every token, and its own layers of it. */
static void add_shelf(struct flow *f, const struct expert_shelf *s)
{
    const struct expert_slots *slots = expert_shelf_slots(s);
    const struct expert_reads_stats *reads = expert_reads_stats(expert_shelf_reads(s));
    struct expert_shelf_stats stats;
    expert_shelf_stats(s, &stats);
    struct flow_part decode = part_of(&stats.decode), prefill = part_of(&stats.prefill);
    f->n_slot += slots->n_open;
    f->given_bytes += stats.given_bytes;
    f->decode = sum(&f->decode, &decode);
    f->prefill = sum(&f->prefill, &prefill);
    f->misses += slots->counts.misses;
    f->larger_misses += stats.larger_misses;
    f->larger_bytes += stats.larger_bytes;
    f->read_bytes += reads->bytes_read;
    f->busy_s += reads->busy_s;
    f->drive_bytes_per_s = MAX(f->drive_bytes_per_s, stats.probe_bytes_per_s);
}

/* Experts that a layer's slots did not have. */
static uint64_t fetched(const struct engine *e, const struct far_slots *slots)
{
    struct far_state s = { 0 };
    dev_copy_now(e->dev, &s, slots->state, sizeof s, NULL);
    return s.fetched;
}

/* By what tokens used and where it lies, or by what the slots lacked.
 * tidy: heap - between steps, for whoever measures */
static void add_far(struct flow *f, const struct engine *e)
{
    const struct expert_map *map = model_expert_map(e->model);
    size_t n = (size_t)map->n_layer * (size_t)map->n_expert;
    uint32_t *uses = e->dev->uses ? calloc(n, sizeof *uses) : NULL;
    if (!uses)
        return;
    dev_copy_now(e->dev, uses, e->dev->uses, n * sizeof *uses, NULL);
    for (int k = 0; k < (int)n; k++) {
        const struct far_slots *slots = &model_expert_set(e->model, k / map->n_expert)->slots;
        if (slots->n > 0)
            f->far_read += k % map->n_expert ? 0 : (double)fetched(e, slots) * (double)slots->each;
        else
            f->far_read += e->split.near[k] ? 0 : uses[k] * (double)expert_map_bytes(map, k);
        f->far_tok += k < map->n_expert ? (double)uses[k] / model_info(e->model)->n_used : 0;
    }
    free(uses);
}

void flow_of(dstar_engine *engine, struct flow *f)
{
    const struct engine *e = engine_of(engine);
    *f = (struct flow){ .is_streaming = e->store != NULL, .n_near = e->split.n_near,
                        .n_split = e->split.n,
                        .far_bytes = e->split.far_bytes * model_info(e->model)->n_used };
    if (e->model)
        add_far(f, e);
    if (!e->store)
        return;
    const struct expert_map *map = model_expert_map(e->model);
    f->n_key = map->n_layer * map->n_expert;
    for (int i = 0; i < expert_store_n_shelf(e->store); i++)
        add_shelf(f, expert_store_shelf(e->store, i));
}

static struct flow_part less(const struct flow_part *a, const struct flow_part *b)
{
    return (struct flow_part){ a->n_tok - b->n_tok,     a->n_step - b->n_step,
                               a->lookups - b->lookups, a->hits - b->hits,
                               a->bytes - b->bytes,     a->wait_s - b->wait_s,
                               a->model_wait_s - b->model_wait_s };
}

void flow_since(struct flow *f, const struct flow *before)
{
    f->decode = less(&f->decode, &before->decode);
    f->prefill = less(&f->prefill, &before->prefill);
    f->far_read -= before->far_read;
    f->far_tok -= before->far_tok;
    f->misses -= before->misses;
    f->larger_misses -= before->larger_misses;
    f->read_bytes -= before->read_bytes;
    f->busy_s -= before->busy_s;
}

static double per(double a, double b)
{
    return b > 0 ? a / b : 0;
}

void flow_line(const struct flow *f, double decode_s, struct buf *out)
{
    const struct flow_part *d = f->decode.n_tok ? &f->decode : &f->prefill;
    double wait = per(d->wait_s, decode_s);
    if (f->n_near < f->n_split)
        buf_printf(out, "%d of %d experts (%.0f%%) in the GPU's memory, %s%.3g GB/token from the "
                   "host's", f->n_near, f->n_split, 100. * f->n_near / f->n_split,
                   f->far_tok > 0 ? "" : "about ",
                   (f->far_tok > 0 ? f->far_read / f->far_tok : f->far_bytes) / 1e9);
    if (!f->is_streaming || d->lookups == 0)
        return;
    buf_printf(out, "experts %.0f%% hit, %.2f GB/token, SSD %.1f",
               100 * per((double)d->hits, (double)d->lookups), per((double)d->bytes / 1e9,
               (double)d->n_tok), per((double)f->read_bytes / 1e9, f->busy_s));
    if (f->drive_bytes_per_s > 0)
        buf_printf(out, " of %.1f", f->drive_bytes_per_s / 1e9);
    buf_puts(out, " GB/s");
    if (f->given_bytes)
        buf_printf(out, ", %.1f GiB given back", (double)f->given_bytes / (1 << 30));
    if (d != &f->decode || decode_s <= 0)
        return;
    buf_printf(out, ", waits %.0f%% of time", 100 * MIN(wait, 1));
    double left = 1 - wait + wait * per((double)f->larger_misses, (double)f->misses);
    if (f->larger_bytes >= 1 << 28 && f->misses > 0 && left > 0)
        buf_printf(out, "; +%.1f GiB cache would give about x%.1f",
                   (double)f->larger_bytes / (1 << 30), 1 / MIN(left, 1));
}

static json_t *part_json(const struct flow_part *p)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "tokens", (json_int_t)p->n_tok, "steps",
                     (json_int_t)p->n_step, "lookups", (json_int_t)p->lookups, "hits",
                     (json_int_t)p->hits, "bytes", (json_int_t)p->bytes, "wait_s", p->wait_s,
                     "model_wait_s", p->model_wait_s);
}

static json_t *drive_json(const struct expert_reads *r)
{
    const struct expert_reads_stats *s = expert_reads_stats(r);
    const struct aio_info *io = expert_reads_io(r);
    return json_pack(
        "{s:s, s:s, s:i, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "path",
        aio_path_name(io->path), "refused", io->refused, "depth", io->depth, "bytes_wanted",
        (json_int_t)s->bytes_wanted, "bytes_read", (json_int_t)s->bytes_read, "busy_s", s->busy_s,
        "mean_depth", per(s->depth_s, s->busy_s), "reads", (json_int_t)s->n_read, "short",
        (json_int_t)s->n_short, "errors", (json_int_t)s->n_error, "read_again",
        (json_int_t)s->n_reread, "dropped", (json_int_t)s->n_dropped, "latency_p50_s",
        expert_reads_latency_s(s, 0.5), "latency_p95_s", expert_reads_latency_s(s, 0.95),
        "latency_most_s", s->longest_s);
}

static json_t *policy_json(const struct expert_slots *slots)
{
    const struct expert_policy *p = &slots->policy;
    char decided[20];
    json_t *ruled = json_array();
    for (int i = 0; i < p->shape.n_rule; i++)
        json_array_append_new(ruled, json_pack("{s:i, s:I}", "half_life_tokens",
                                               p->shape.half_life[i], "tokens",
                                               (json_int_t)p->ruled_tok[i]));
    snprintf(decided, sizeof decided, "%016llx", (unsigned long long)slots->decided);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:o, s:s}", "lookups",
                     (json_int_t)slots->counts.lookups, "hits", (json_int_t)slots->counts.hits,
                     "misses", (json_int_t)slots->counts.misses, "passed",
                     (json_int_t)slots->counts.passed, "evictions",
                     (json_int_t)slots->counts.evictions, "half_life_tokens",
                     p->shape.half_life[p->rule], "rule_changes", p->n_switch,
                     "hash_layers_kept_out", p->shape.n_weak, "rules", ruled, "decided", decided);
}

static json_t *shelf_json(const struct expert_shelf *s)
{
    struct expert_shelf_stats stats;
    expert_shelf_stats(s, &stats);
    return json_pack(
        "{s:i, s:i, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:f, s:I, s:I}", "slots",
        expert_shelf_slots(s)->n_slot, "slots_open", expert_shelf_slots(s)->n_open,
        "expert_bytes", (json_int_t)expert_reads_place_bytes(expert_shelf_reads(s)), "policy",
        policy_json(expert_shelf_slots(s)), "drive", drive_json(expert_shelf_reads(s)), "ahead",
        (json_int_t)stats.n_ahead, "ahead_used", (json_int_t)stats.n_ahead_used, "slab_bytes",
        (json_int_t)stats.slab_bytes, "huge_bytes", (json_int_t)stats.huge_bytes, "locked",
        stats.locked, "lock_limit_bytes", (json_int_t)stats.lock_limit, "preload_bytes",
        (json_int_t)stats.preload_bytes, "probe_bytes_per_s", stats.probe_bytes_per_s, "resized",
        (json_int_t)stats.n_resize, "given_back_bytes", (json_int_t)stats.given_bytes);
}

static json_t *layers_json(const struct engine *e)
{
    json_t *out = json_array();
    for (int l = 0; l < model_info(e->model)->n_kv_layer; l++) {
        int i = expert_store_shelf_of(e->store, l);
        struct expert_shelf_stats stats;
        expert_shelf_stats(expert_store_shelf(e->store, i), &stats);
        struct flow_part p = part_of(&stats.layer[l]);
        json_t *one = part_json(&p);
        json_object_set_new(one, "shelf", json_integer(i));
        json_array_append_new(out, one);
    }
    return out;
}

void flow_json(dstar_engine *engine, const struct flow *f, struct buf *out)
{
    const struct engine *e = engine_of(engine);
    json_t *root = json_pack("{s:b}", "streaming", e->store != NULL);
    if (f->n_split)
        json_object_set_new(root, "gpu", json_pack(
            "{s:i, s:i, s:I, s:I, s:f, s:f, s:f}", "experts", f->n_split, "near", f->n_near,
            "bytes", (json_int_t)e->split.bytes, "near_bytes", (json_int_t)e->split.near_bytes,
            "far_bytes_per_token", f->far_bytes, "far_bytes_read", f->far_read, "far_tokens",
            f->far_tok));
    if (e->store) {
        json_t *shelves = json_array();
        for (int i = 0; i < expert_store_n_shelf(e->store); i++)
            json_array_append_new(shelves, shelf_json(expert_store_shelf(e->store, i)));
        json_t *more = json_pack(
            "{s:i, s:i, s:o, s:o, s:I, s:I, s:I, s:o, s:o}", "slots", f->n_slot, "experts",
            f->n_key, "decode", part_json(&f->decode), "prefill", part_json(&f->prefill),
            "misses", (json_int_t)f->misses, "larger_bytes", (json_int_t)f->larger_bytes,
            "larger_misses", (json_int_t)f->larger_misses, "shelves", shelves, "layers",
            layers_json(e));
        if (more)
            json_object_update(root, more);
        json_decref(more);
    }
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    buf_puts(out, text ? text : "{}");
    free(text);
    json_decref(root);
}
