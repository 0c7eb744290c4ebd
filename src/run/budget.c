/* budget.c - what the memory is divided into.
 *
 * The scratch of a step is found by running the model on a device that only counts. A model that
 * fits is mapped. One that does not is streamed: what every token needs is read into memory, and
 * experts get what is left. Rejected: mapping it nevertheless, since a fault reads little and stops
 * everything; and growing as needed, because a long conversation would fail in its middle. */
#include "budget.h"

#include "cpu.h"
#include "draw.h"
#include "kv_seq.h"
#include "sampler.h"

#include <stdio.h>
#include <stdlib.h>

#define MIN_CTX 512       /* fewer tokens are of no use to anybody */
#define EVAL_ROWS 16      /* rows with logits that a step has room for at least */
#define KEEP_FREE 10      /* percent of what is available that is left alone */
#define CTX_SHARE 8       /* of the memory for context and experts */

/* Of what a device draws from, behind `n` bytes of others. */
static size_t draw_bytes(size_t n, int n_vocab)
{
    n = round_up(n, ARENA_ALIGN);
    n += round_up((size_t)n_vocab * sizeof(float), ARENA_ALIGN);
    n += round_up(sampler_mask_bytes(n_vocab), ARENA_ALIGN);
    return n + round_up((size_t)draw_groups(n_vocab) * sizeof(struct draw_group), ARENA_ALIGN);
}

struct kv_bytes budget_session_bytes(const struct budget *b, const struct model *m, int ctx)
{
    const struct model_info *info = model_info(m);
    struct kv_pool pool;
    kv_pool_plan(&pool, &b->shape, info->ratio, info->n_kv_layer);
    struct kv_bytes n = kv_seq_bytes(&pool, ctx, b->max_mark);
    n.host += round_up((size_t)info->n_vocab * sizeof(float), ARENA_ALIGN) +
              round_up(sampler_mask_bytes(info->n_vocab), ARENA_ALIGN);
    if (b->draws)
        n.data = draw_bytes(n.data, info->n_vocab);
    return n;
}

static void plan_rows(struct row *row, struct row *next, const struct budget_step *step)
{
    for (int i = 0; i < step->n; i++) {
        row[i] = (struct row){ .pos = MAX(0, step->ctx - step->n) + i };
        row[i].logits = i >= step->n - step->n_logits;
        next[i] = row[i];
    }
}

int budget_scratch(size_t *bytes, const struct budget *b, struct model *m, struct dev *d,
                   const struct budget_step *step, struct err *e)
{
    const struct model_info *info = model_info(m);
    struct kv_view view = { .shape = &b->shape, .n_layer = info->n_kv_layer }, *views = &view;
    struct row *row = calloc((size_t)step->n * 2, sizeof *row);
    struct arena used = d->scratch;
    struct model_out out;
    view.layer = calloc((size_t)info->n_kv_layer, sizeof *view.layer);
    if (!row || !view.layer) {
        free(row);
        free(view.layer);
        return err_set(e, ERR_NO_MEMORY, "out of memory for planning");
    }
    for (int l = 0; l < info->n_kv_layer; l++)
        kv_layer_plan(&view.layer[l], &b->shape, info->ratio[l]);
    plan_rows(row, row + step->n, step);
    struct rows r = { .n = step->n, .host = row, .n_seq = 1, .kv = &views };
    struct rows next = r;
    next.host = row + step->n;
    arena_init(&d->scratch, NULL, 0);
    dev_begin(d);
    model_forward(m, &r, step->with_mtp ? &next : NULL, &out);
    int code = dev_wait(d, e);
    *bytes = d->scratch.peak;
    d->scratch = used;
    free(row);
    free(view.layer);
    return code;
}

/* Kernels choose by the number of rows, so every size of step is tried, in powers of two. */
static int plan_scratch(struct budget *b, struct model *m, struct dev *d, int ctx, struct err *e)
{
    bool with_mtp = model_info(m)->has_mtp;
    b->scratch = 0;
    for (int n = 1;; n = MIN(2 * n, b->max_rows)) {
        struct budget_step step = { n, MIN(n, EVAL_ROWS), ctx, with_mtp };
        size_t bytes;
        TRY(budget_scratch(&bytes, b, m, d, &step, e));
        b->scratch = MAX(b->scratch, bytes);
        if (n == b->max_rows)
            return 0;
    }
}

static int plan_sizes(struct budget *b, struct model *m, struct dev *d, int ctx, struct err *e)
{
    const struct model_info *info = model_info(m);
    TRY(plan_scratch(b, m, d, ctx, e));
    b->ctx = ctx;
    b->n_block = b->n_session * (int)(round_up((size_t)ctx, (size_t)b->shape.block_tok) /
                                      (size_t)b->shape.block_tok);
    struct kv_bytes session = budget_session_bytes(b, m, ctx);
    struct kv_bytes cache = kv_pool_bytes(&b->shape, info->ratio, info->n_kv_layer, b->n_block);
    b->session = session.host + session.data;
    b->cache = cache.host + cache.data;
    b->total = b->converted + b->scratch + b->session * (size_t)b->n_session + b->cache;
    return 0;
}

/* The most tokens, in whole blocks, that stay within the limit; sizes are monotonous in them. */
static int plan_most(struct budget *b, struct model *m, struct dev *d, size_t limit, struct err *e)
{
    int block = b->shape.block_tok, most = (int)MIN(model_info(m)->ctx_trained, INT32_MAX / 2);
    int low = 0, high = most / block;
    TRY(plan_sizes(b, m, d, most, e));
    if (b->total <= limit) {
        snprintf(b->ctx_why, sizeof b->ctx_why, "the most that the model was made for");
        return 0;
    }
    while (low < high) {
        int mid = low + (high - low + 1) / 2;
        TRY(plan_sizes(b, m, d, mid * block, e));
        if (b->total <= limit)
            low = mid;
        else
            high = mid - 1;
    }
    TRY(plan_sizes(b, m, d, MAX(low * block, MIN(MIN_CTX, most)), e));
    snprintf(b->ctx_why, sizeof b->ctx_why, "the most that fits in %s of memory",
             bytes_text((double)limit).s);
    return 0;
}

/* All that the process may take. */
static size_t room_of(const struct budget *b, const struct budget_ask *ask)
{
    if (ask->memory_bytes)
        return ask->memory_bytes;
    return b->available ? b->available / 100 * (100 - KEEP_FREE) + ask->taken : SIZE_MAX / 2;
}

static size_t less(size_t a, size_t b)
{
    return a > b ? a - b : 0;
}

/* For what is planned while the model's files are mapped. Unless told, the files may be evicted:
 * then a quarter of the memory is the most that is taken. */
static size_t limit_mapped(const struct budget *b, const struct budget_ask *ask)
{
    size_t room = less(room_of(b, ask), b->taken), beside = less(room, b->mapped);
    if (ask->memory_bytes)
        return beside;
    return ask->ctx ? room : MAX(beside, room / 4);
}

static int plan_ctx(struct budget *b, const struct budget_ask *ask, struct model *m, struct dev *d,
                    size_t limit, struct err *e)
{
    if (!ask->ctx)
        return plan_most(b, m, d, limit, e);
    TRY(plan_sizes(b, m, d, ask->ctx, e));
    snprintf(b->ctx_why, sizeof b->ctx_why, "as asked for");
    return 0;
}

/* Whether the model with its least context is more than the room. */
static int must_stream(struct budget *b, const struct budget_ask *ask, struct model *m,
                       struct dev *d, bool *must, struct err *e)
{
    int least = (int)MIN(model_info(m)->ctx_trained, MIN_CTX);
    *must = false;
    if (!ask->experts_least)
        return 0;
    TRY(plan_sizes(b, m, d, ask->ctx ? ask->ctx : least, e));
    *must = b->taken + b->mapped + b->total > room_of(b, ask);
    return 0;
}

/* Experts get what the rest leaves. The context, unless it was asked for, gets an eighth: further
 * tokens cost little, and a conversation must not end because experts are cached. */
static int plan_stream(struct budget *b, const struct budget_ask *ask, struct model *m,
                       struct dev *d, struct err *e)
{
    size_t room = less(room_of(b, ask), b->taken);
    size_t held = dev_is_apart(d) ? 0 : model_info(m)->held_bytes; /* they are there already */
    size_t left = less(less(room, held), b->converted + ask->experts_least);
    b->n_session = 1;
    TRY(plan_sizes(b, m, d, (int)MIN(model_info(m)->ctx_trained, MIN_CTX), e));
    size_t one_short = b->total;
    b->n_session = ask->n_session;
    TRY(plan_ctx(b, ask, m, d, b->converted + left / CTX_SHARE, e));
    b->is_streaming = true;
    b->for_ctx = less(b->total, one_short);
    b->held = held;
    b->experts = MAX(ask->experts_least, MIN(less(room, held + b->total), ask->experts_most));
    b->least = b->taken + b->total + held + ask->experts_least;
    b->total += held + b->experts;
    return 0;
}

/* What was asked for in conversations is too much, not the model. */
static bool asks_too_much(const struct budget *b, const struct budget_ask *ask)
{
    return (ask->ctx || ask->n_session > 1) && b->for_ctx > b->least / CTX_SHARE;
}

/* Streamed, a model works with the least, whatever memory it may have: too much can be only the
 * conversations that were asked for, and what the machine does not have. */
static int check_fits(const struct budget *b, const struct budget_ask *ask, size_t limit,
                      struct err *e)
{
    size_t room = b->is_streaming ? less(room_of(b, ask), b->taken) : limit;
    if (b->is_streaming && ask->machine && b->least > ask->machine)
        return err_set(e, ERR_NO_MEMORY, "needs %s of memory at least, the machine has %s",
                       bytes_text((double)b->least).s, bytes_text((double)ask->machine).s);
    if (b->total <= room || (b->is_streaming && !asks_too_much(b, ask)))
        return 0;
    return err_set(e, ERR_NO_MEMORY, "needs %s of memory for %d tokens of context (weights %s, "
                   "scratch %s, %d sessions %s, cache %s, experts %s), %s may be taken",
                   bytes_text((double)b->total).s, b->ctx,
                   bytes_text((double)(b->converted + b->held)).s,
                   bytes_text((double)b->scratch).s, b->n_session,
                   bytes_text((double)b->session * b->n_session).s,
                   bytes_text((double)b->cache).s, bytes_text((double)b->experts).s,
                   bytes_text((double)room).s);
}

int budget_plan(struct budget *b, const struct budget_ask *ask, struct model *m, struct dev *d,
                struct err *e)
{
    const struct model_info *info = model_info(m);
    bool streams;
    *b = (struct budget){
        .max_rows = ask->max_rows,
        .n_session = ask->n_session,
        .max_mark = ask->max_mark,
        .draws = dev_draws(d),
        .mapped = ask->mapped,
        .converted = info->converted_bytes,
        .taken = less(ask->taken, info->converted_bytes),
        .available = ask->memory_bytes ? ask->memory_bytes : cpu_memory_available(),
    };
    model_kv_shape(m, ask->max_rows, ask->slack, &b->shape);
    b->cache_per_tok = (double)kv_rows_bytes(&b->shape, info->ratio, info->n_kv_layer,
                                             b->shape.block_tok) / b->shape.block_tok;
    if (ask->ctx > info->ctx_trained)
        return err_set(e, ERR_LIMIT, "ctx is %d, the model was made for at most %lld tokens",
                       ask->ctx, (long long)info->ctx_trained);
    TRY(must_stream(b, ask, m, d, &streams, e));
    size_t limit = limit_mapped(b, ask);
    if (streams)
        TRY(plan_stream(b, ask, m, d, e));
    else
        TRY(plan_ctx(b, ask, m, d, limit, e));
    return check_fits(b, ask, limit, e);
}
