/* synth.c - a quantisation without a source: the plan is quantize's, the bytes are counted.
 *
 * How large numbers are: matrices 1/sqrt(inputs), so that a normed input gives outputs of size 1;
 * gates and biases small enough that no unit is always on or off; norms around one. Attention's
 * output counts twice, or the mean over hundreds of rows would vanish beside the experts; the head
 * four times, so that some tokens are likelier than others. */
#include "synth_impl.h"

#include "file.h"
#include "gguf_read.h"
#include "rng.h"
#include "tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- numbers ---- */

/* FNV-1a. */
static uint64_t hash_name(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return h;
}

uint64_t synth_key(uint64_t seed, const char *name)
{
    return rng_at(seed, hash_name(name));
}

/* Root mean square of a tensor's numbers; 0: around one. */
static double size_of(enum dsv4_role role, int64_t inputs)
{
    if (dsv4_names[role].part == DSV4_PART_NORM)
        return 0;
    switch (role) {
    case DSV4_MTP_ENORM:
    case DSV4_MTP_HNORM:
    case DSV4_MTP_NORM: return 0;
    case DSV4_TOKEN_EMBD:
    case DSV4_SINKS: return 1;
    case DSV4_HC_HEAD_BASE:
    case DSV4_HC_ATTN_BASE:
    case DSV4_HC_FFN_BASE:
    case DSV4_MTP_HC_HEAD_BASE:
    case DSV4_COMP_APE:
    case DSV4_INDEX_COMP_APE: return .5;
    case DSV4_HC_HEAD_SCALE:
    case DSV4_HC_ATTN_SCALE:
    case DSV4_HC_FFN_SCALE:
    case DSV4_MTP_HC_HEAD_SCALE: return .25;
    case DSV4_ROUTER_BIAS: return 1.0 / 64;
    case DSV4_O_B: return 2 / sqrt((double)inputs);
    case DSV4_OUTPUT: return 4 / sqrt((double)inputs);
    default: return 1 / sqrt((double)inputs);
    }
}

struct quant_random synth_random(const struct synth *s, enum dsv4_role role, const char *name,
                                 enum dtype type, int64_t inputs)
{
    double size = size_of(role, inputs);
    struct quant_random r = { .type = type, .key = synth_key(s->o.seed, name) };
    r.around_one = size == 0;
    if (!r.around_one)
        r.shift = quant_random_shift(type, size);
    return r;
}

void synth_ids(const struct synth *s, uint64_t key, int64_t first, int64_t n, int32_t *id)
{
    uint64_t n_expert = (uint64_t)s->q.im.h.n_expert;
    int n_used = s->q.im.h.n_used;
    uint64_t most = n_used > 1 ? (n_expert - 1) / (uint64_t)(n_used - 1) : 1;
    for (int64_t t = first; t < first + n; t++) {
        uint64_t w = rng_at(key, (uint64_t)t), step = 1 + (w >> 32) % most;
        for (int i = 0; i < n_used; i++)
            *id++ = (int32_t)(((w & UINT32_MAX) + (uint64_t)i * step) % n_expert);
    }
}

void synth_rows(const struct synth *s, int i, int64_t first, int64_t n, void *dst)
{
    const struct quantize_tensor *t = &s->q.tensor[i];
    const struct quant_random *r = &s->random[i];
    CHECK(first >= 0 && n >= 0 && first + n <= t->dim[1] * t->dim[2]);
    if (t->type == DT_I32) {
        synth_ids(s, r->key, first, n, dst);
        return;
    }
    int64_t block = dtype_info((int)t->type)->block, per_row = t->dim[0] / block;
    quant_random(r, (uint64_t)(first * per_row), (size_t)(n * per_row), dst);
}

/* ---- the plan ---- */

static int take_sizes(struct synth *s, struct err *e)
{
    struct dsv4_hyper *h = &s->q.im.h;
    const struct synth_options *o = &s->o;
    if (o->n_layer < 0 || o->n_layer > DSV4_MAX_LAYER)
        return err_set(e, ERR_ARGUMENT, "layers is %d, expected 1 to %d", o->n_layer,
                       DSV4_MAX_LAYER);
    if (o->n_expert != 0 && (o->n_expert < h->n_used || o->n_expert > 8192))
        return err_set(e, ERR_ARGUMENT, "experts is %d, expected %d to 8192", o->n_expert,
                       h->n_used);
    h->n_layer = o->n_layer ? o->n_layer : h->n_layer;
    h->n_expert = o->n_expert ? o->n_expert : h->n_expert;
    h->n_hash_layer = MIN(h->n_hash_layer, h->n_layer);
    return 0;
}

static int check_types(const struct synth *s, struct err *e)
{
    for (int i = 0; i < s->q.n_tensor; i++) {
        const struct quantize_tensor *t = &s->q.tensor[i];
        if (t->type != DT_I32 && quant_random_unit(t->type) == 0)
            return err_set(e, ERR_UNSUPPORTED, "tensor %s: no random numbers of type %s", t->name,
                           dtype_name((int)t->type));
    }
    return 0;
}

static int plan(struct synth *s, struct err *e)
{
    struct quantize *q = &s->q;
    s->plan = (struct quantize_options){
        .shape = s->o.shape,
        .recipe = s->o.recipe,
        .out = s->o.out,
        .n_thread = s->o.n_thread,
        .log = s->o.log,
        .progress = s->o.progress,
        .user = s->o.user,
    };
    TRY(quantize_open(q, &s->plan, e));
    s->keys = (struct import_options){ .dir = s->o.shape, .log = s->o.log };
    q->im.o = &s->keys;
    TRY(take_sizes(s, e));
    TRY(quantize_plan(q, e));
    TRY(check_types(s, e));
    CHECK(q->n_tensor > 0);
    s->random = calloc((size_t)q->n_tensor, sizeof *s->random);
    if (!s->random)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", q->n_tensor);
    for (int i = 0; i < q->n_tensor; i++) {
        const struct quantize_tensor *t = &q->tensor[i];
        if (t->type == DT_I32)
            s->random[i].key = synth_key(s->o.seed, t->name);
        else
            s->random[i] = synth_random(s, t->role, t->name, t->type, t->dim[0]);
    }
    return 0;
}

int synth_open(struct synth **out, const struct synth_options *o, struct err *e)
{
    struct synth *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a plan");
    s->o = *o;
    int code = plan(s, e);
    if (code < 0) {
        synth_close(s);
        return code;
    }
    *out = s;
    return 0;
}

void synth_close(struct synth *s)
{
    if (!s)
        return;
    if (s->q.o) /* quantize_open() was reached */
        quantize_close(&s->q);
    free(s->random);
    free(s);
}

int synth_n_tensor(const struct synth *s)
{
    return s->q.n_tensor;
}

struct synth_tensor synth_tensor_at(const struct synth *s, int i)
{
    CHECK(i >= 0 && i < s->q.n_tensor);
    const struct quantize_tensor *t = &s->q.tensor[i];
    struct synth_tensor out = { .name = t->name, .type = t->type, .n_dim = t->n_dim };
    memcpy(out.dim, t->dim, sizeof out.dim);
    return out;
}

/* ---- one GGUF file ---- */

/* Of a model of either kind, or of a tokenizer.json. */
static int open_text(struct tokenizer **t, const struct synth_options *o, struct err *e)
{
    const char *path = o->tokenizer;
    size_t n = strlen(path);
    if (file_is_dir(path)) {
        char *inside = path_join(path, "tokenizer.json");
        int code = inside ? tokenizer_open_json(t, inside, o->log, e)
                          : err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
        free(inside);
        return code;
    }
    if (n > 5 && strcmp(path + n - 5, ".json") == 0)
        return tokenizer_open_json(t, path, o->log, e);
    struct weights *w;
    TRY(weights_open(&w, path, e));
    int code = tokenizer_open_meta(t, weights_meta(w), path, o->log, e);
    weights_close(w);
    return code;
}

/* Tables of ids are stored: they are small, and checked when a model is opened. */
static bool is_counted(const struct synth *s, int i)
{
    return s->o.counted && s->q.tensor[i].type != DT_I32;
}

/* What the bytes are made from. */
static int put_counted(struct synth *s, struct err *e)
{
    int n = s->q.n_tensor;
    int32_t(*v)[4] = calloc((size_t)n, sizeof *v);
    if (!v)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", n);
    for (int i = 0; i < n; i++) {
        const struct quant_random *r = &s->random[i];
        v[i][0] = (int32_t)(uint32_t)r->key;
        v[i][1] = (int32_t)(uint32_t)(r->key >> 32);
        v[i][2] = r->shift;
        v[i][3] = !is_counted(s, i) ? GGUF_STORED
                  : r->around_one   ? GGUF_AROUND_ONE
                                    : GGUF_COUNTED;
    }
    gguf_put_i32s(&s->q.im.out, GGUF_COUNTED_KEY, v[0], 4 * n);
    free(v);
    return 0;
}

static int put_keys(struct synth *s, struct err *e)
{
    struct gguf_writer *w = &s->q.im.out;
    struct tokenizer *text = NULL;
    char name[96];
    snprintf(name, sizeof name, "random %s, seed %llu", s->o.shape, (unsigned long long)s->o.seed);
    gguf_write_plan(w);
    if (s->o.tokenizer)
        TRY(open_text(&text, &s->o, e));
    int code = import_keys_made(&s->q.im, name, text, s->o.tokenizer, e);
    tokenizer_close(text);
    /* Rows of pages, as in the shapes that are larger, want an address to match. */
    w->alignment = strcmp(s->o.shape, "small") == 0 ? 4096 : w->alignment;
    if (code == 0 && s->o.counted)
        code = put_counted(s, e);
    return code < 0 ? code : quantize_keys(&s->q, e);
}

static int write_unit(struct quantize_worker *w, int i, struct err *e)
{
    const struct synth *s = (const struct synth *)w->q; /* its first member */
    const struct quantize_unit *u = &w->q->unit[i];
    const struct quantize_tensor *t = &w->q->tensor[u->tensor];
    synth_rows(s, u->tensor, u->slice * t->dim[1] + u->row, u->n_row, w->dst);
    return gguf_write_data(&w->q->im.out, u->tensor, quantize_unit_at(w->q, u), w->dst,
                           quantize_unit_bytes(w->q, u), e);
}

/* All but the last byte, which makes the file as long as it would be. */
static int leave_out(struct synth *s, int i, struct err *e)
{
    struct gguf_writer *w = &s->q.im.out;
    size_t n = gguf_tensor_bytes(w, i) - 1;
    gguf_write_kept(w, i, n);
    return gguf_write_data(w, i, n, "", 1, e);
}

/* m NULL: to the disk. */
static int write_gguf(struct synth *s, struct file_memory *m, struct err *e)
{
    struct quantize *q = &s->q;
    TRY(quantize_open_workers(q, e));
    TRY(put_keys(s, e));
    TRY(m ? gguf_write_to_memory(&q->im.out, m, e)
          : gguf_write_to(&q->im.out, s->o.out, false, e));
    TRY(gguf_write_begin(&q->im.out, e));
    for (int i = 0; i < q->n_tensor; i++)
        if (is_counted(s, i))
            TRY(leave_out(s, i, e));
    for (int i = 0; i < q->n_unit; i++)
        if (!is_counted(s, q->unit[i].tensor))
            q->todo[q->n_todo++] = i;
    TRY(quantize_each(q, "writing", write_unit, e));
    return gguf_write_finish(&q->im.out, e);
}

int synth_run(const struct synth_options *o, struct err *e)
{
    struct synth *s;
    CHECK(o->out && o->shape && o->recipe);
    if (o->format == SYNTH_VENDOR && strcmp(o->recipe, "lossless") != 0)
        return err_set(e, ERR_ARGUMENT, "a checkpoint has the vendor's types: recipe is %.40s, "
                       "expected lossless", o->recipe);
    TRY(synth_open(&s, o, e));
    int code = o->format == SYNTH_VENDOR ? synth_write_vendor(s, e) : write_gguf(s, NULL, e);
    synth_close(s);
    return code;
}

int synth_memory(const struct synth_options *o, struct file_memory *m, struct err *e)
{
    struct synth *s;
    CHECK(o->shape && o->recipe);
    *m = (struct file_memory){ .fd = -1 };
    TRY(synth_open(&s, o, e));
    int code = write_gguf(s, m, e);
    synth_close(s);
    if (code < 0)
        file_memory_close(m);
    return code;
}
