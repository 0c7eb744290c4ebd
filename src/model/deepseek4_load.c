/* deepseek4_load.c - from a file's tensors to the weights the layer code names.
 *
 * Matrices stay where they are mapped, whatever their type. Vectors become float32 and hash tables
 * int32; those and the rare matrix at an odd address are copied at open. The first missing or
 * misshapen tensor is remembered and stops the rest, so that loading reads as a list. */
#define _GNU_SOURCE
#include "deepseek4.h"

#include "file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_HC = 8 }; /* streams; the vendor's models have 4 */

struct dsv4_copy {
    struct dsv4_copy *next;
    void *data;
    struct dev *dev; /* which it was taken from; NULL: the heap */
    bool is_host;    /* memory of the host that it reads */
};

/* Memory that is taken in large pieces and handed out in small ones: the device's by the gigabyte,
 * the host's by layer. */
#define POOL_BYTES ((size_t)1 << 30)
struct pieces {
    bool is_host;
    uint8_t *mem; /* the last one */
    size_t size, used;
    size_t left;  /* bytes that will still be wanted, of this layer */
};

/* What is being loaded. */
struct loader {
    struct model *m;
    int block, ratio; /* of dsv4_gguf_name(); DSV4_INDEX_RATIO ... */
    bool hashed;
    struct err *e;
    bool failed;
    struct arena hold;    /* no memory: weights stay mapped */
    const struct report *told;
    struct file_in *file; /* [weights_n_file()] to read them from, else NULL */
    struct {
        const struct weight *w;
        struct tensor t;
    } stack[3]; /* of the last layer: all experts of a role in one tensor */
    const struct expert_split *split; /* NULL: experts do not come yet */
    struct pieces pieces[2];          /* far, near */
};

/* tidy: heap - weights are converted once, at open */
static void *keep(struct loader *ld, size_t bytes)
{
    struct dsv4_copy *c = ld->failed ? NULL : malloc(sizeof *c);
    void *data = c ? aligned_alloc(ARENA_ALIGN, round_up(MAX(bytes, 1), ARENA_ALIGN)) : NULL;
    if (!data) {
        free(c);
        err_set(ld->e, ERR_NO_MEMORY, "%s: no memory for %zu bytes of weights",
                weights_path(ld->m->files), bytes);
        ld->failed = true;
        return NULL;
    }
    *c = (struct dsv4_copy){ .next = ld->m->copies, .data = data };
    ld->m->copies = c;
    ld->m->info.converted_bytes += bytes;
    return data;
}

/* Memory of a device that is apart, or of the host for it.
 * tidy: heap - weights are placed once, at open */
static void *take_for(struct loader *ld, size_t bytes, bool is_host)
{
    struct dev *d = ld->m->dev;
    void *mem = NULL;
    struct dsv4_copy *c = ld->failed ? NULL : malloc(sizeof *c);
    if (!c || (is_host ? dev_host_take : dev_memory_take)(d, &mem, bytes, ld->e) < 0) {
        free(c);
        err_set(ld->e, ERR_NO_MEMORY, "%s: out of memory", weights_path(ld->m->files));
        ld->failed = true;
        return NULL;
    }
    *c = (struct dsv4_copy){ ld->m->copies, mem, d, is_host };
    ld->m->copies = c;
    return mem;
}

/* A piece of what split->bytes counted. */
static void *take_piece(struct loader *ld, struct pieces *p, size_t bytes)
{
    bytes = expert_part_room(bytes);
    if (p->used + bytes > p->size) {
        CHECK(bytes <= p->left);
        p->size = p->is_host ? p->left : MIN(p->left, MAX(bytes, POOL_BYTES));
        p->mem = take_for(ld, p->size, p->is_host);
        p->used = 0;
    }
    p->used += bytes;
    p->left -= bytes;
    return p->mem ? p->mem + p->used - bytes : NULL;
}

/* What ops will read, where the device can: a copy there, if its memory is apart. */
static const void *place(struct loader *ld, const void *data, size_t bytes)
{
    struct dev *d = ld->m->dev;
    if (ld->failed || !data || !dev_is_apart(d))
        return data;
    void *mem = take_for(ld, bytes, false);
    if (!mem)
        return NULL;
    if (dev_copy_now(d, mem, data, bytes, ld->e) < 0)
        ld->failed = true;
    return mem;
}

static size_t n_block(const struct weight *w)
{
    return w->bytes / (size_t)dtype_info((int)w->type)->bytes;
}

static void fail_shape(struct loader *ld, const struct weight *w, int n, const int64_t dim[4])
{
    char want[96] = "";
    size_t len = 0;
    for (int i = 0; i < n; i++)
        len += (size_t)snprintf(want + len, sizeof want - len, "%s%lld", i ? " x " : "",
                                (long long)dim[i]);
    err_set(ld->e, ERR_FORMAT,
            "%s: tensor %s has the shape %lld x %lld x %lld of type %s, expected %s (fastest "
            "dimension first)",
            weights_file(ld->m->files, w->file), w->name, (long long)w->dim[0],
            (long long)w->dim[1], (long long)w->dim[2], dtype_name(w->type), want);
    ld->failed = true;
}

static bool is_expert(enum dsv4_role role)
{
    return role == DSV4_GATE_EXPS || role == DSV4_UP_EXPS || role == DSV4_DOWN_EXPS;
}

static size_t scale_size(const struct weight *w)
{
    int64_t n = w->dim[1] * w->dim[2];
    if (!w->scale)
        return 0;
    return (size_t)((w->type == DT_F8_E4M3 ? (n + 127) / 128 : n) * w->scale_pitch);
}

/* Bytes of all weights that every token may need: routed experts, what is converted anyway, and
 * draft blocks that are not loaded do not count. */
static size_t count_held(const struct model *m)
{
    size_t sum = 0;
    for (int i = 0; i < weights_count(m->files); i++) {
        const struct weight *w = weights_at(m->files, i);
        struct dsv4_place p = dsv4_place_of(w->name);
        bool is_draft = p.block >= DSV4_MAX_LAYER && !(m->info.has_mtp && p.block == DSV4_MTP(0));
        if (p.role < DSV4_N_ROLE && !p.is_scale && !is_expert(p.role) && !is_draft &&
            p.role != DSV4_TID2EID)
            sum += round_up(w->bytes, ARENA_ALIGN) + round_up(scale_size(w), ARENA_ALIGN);
    }
    return sum;
}

/* Before anything is taken: whether a device with memory of its own has room for all weights but
 * routed experts. */
static int check_room(struct model *m, size_t room, struct err *e)
{
    size_t left = dev_is_apart(m->dev) ? dev_memory_left(m->dev) : SIZE_MAX;
    left = room ? MIN(room, left) : left;
    if (m->info.held_bytes <= left)
        return 0;
    return err_set(e, ERR_NO_MEMORY, "%s: the weights that every token needs are %.2f GB, device "
                   "%s has %.2f GB left for them", weights_path(m->files),
                   (double)m->info.held_bytes / 1e9, m->dev->name, (double)left / 1e9);
}

/* A copy of a weight that is read, not faulted in: its pages are nobody else's. */
static struct tensor hold(struct loader *ld, const struct weight *w, struct tensor t)
{
    const struct file_in *f = &ld->file[w->file];
    uint8_t *scale = w->scale ? arena_alloc(&ld->hold, scale_size(w)) : NULL;
    t.data = arena_alloc(&ld->hold, w->bytes);
    CHECK(t.data && !scale == !w->scale);
    if (scale)
        t.scale = memcpy(scale, w->scale, scale_size(w));
    double done = (double)ld->hold.used / (double)ld->hold.size;
    if (report_to(ld->told, "weights", done, ld->e) < 0 ||
        file_in_read_at(f, w->offset, t.data, w->bytes, ld->e) < 0)
        ld->failed = true;
    file_in_forget(f, w->offset, w->bytes);
    return t;
}

/* The tensor of a role in the current block, its shape checked; NULL after a failure. */
static const struct weight *need(struct loader *ld, enum dsv4_role role, int expert)
{
    const struct weights *files = ld->m->files;
    bool stacked = weights_kind(files) == WEIGHTS_GGUF;
    char name[DSV4_NAME_MAX];
    if (ld->failed)
        return NULL;
    if (stacked)
        dsv4_gguf_name(name, role, ld->block);
    else
        dsv4_official_name(name, role, ld->block, expert);
    const struct weight *w = weights_find(files, name);
    if (!w) {
        err_set(ld->e, ERR_FORMAT, "%s: tensor %s is missing", weights_path(files), name);
        ld->failed = true;
        return NULL;
    }
    int64_t dim[4];
    int n = dsv4_shape_of(&ld->m->s, role, ld->ratio, stacked, dim);
    for (int i = 0; i < 4; i++)
        if (w->dim[i] != dim[i]) {
            fail_shape(ld, w, n, dim);
            return NULL;
        }
    return w;
}

static bool is_number(enum dtype t)
{
    return t != DT_I8 && t != DT_I32 && t != DT_I64 && t != DT_F8_E8M0;
}

static bool is_aligned(const struct weight *w)
{
    size_t unit = w->type == DT_F32 ? 4 : w->type == DT_F16 || w->type == DT_BF16 ? 2 : 1;
    return (uintptr_t)w->data % unit == 0;
}

static void fail_type(struct loader *ld, const struct weight *w, const char *want)
{
    err_set(ld->e, ERR_FORMAT, "%s: tensor %s has type %s, expected %s",
            weights_file(ld->m->files, w->file), w->name, dtype_name(w->type), want);
    ld->failed = true;
}

static struct tensor tensor_in_file(struct loader *ld, const struct weight *w)
{
    struct tensor t = { 0 };
    if (!w)
        return t;
    if (!is_number(w->type)) {
        fail_type(ld, w, "numbers");
        return t;
    }
    return (struct tensor){
        .data = (void *)(uintptr_t)w->data,
        .type = w->type,
        .cols = (int)w->dim[0],
        .rows = (int)(w->dim[1] * w->dim[2]),
        .pitch = dtype_bytes(w->type, (size_t)w->dim[0]),
        .scale = w->scale,
        .scale_pitch = (size_t)w->scale_pitch,
    };
}

/* In memory of the host. */
static struct tensor tensor_near(struct loader *ld, const struct weight *w)
{
    struct tensor t = tensor_in_file(ld, w);
    if (ld->failed)
        return t;
    if (w->counted) {
        t.data = keep(ld, w->bytes);
        if (t.data)
            quant_random(&w->random, 0, n_block(w), t.data);
    } else if (ld->hold.mem) {
        t = hold(ld, w, t);
    } else if (!is_aligned(w)) {
        t.data = keep(ld, w->bytes);
        if (t.data)
            memcpy(t.data, w->data, w->bytes);
    }
    return t;
}

/* The vendor's "X.scale" of "X.weight"; NULL when the type needs none. */
static const struct weight *scale_of(const struct loader *ld, const struct weight *w)
{
    char name[DSV4_NAME_MAX];
    if (!w->scale)
        return NULL;
    snprintf(name, sizeof name, "%.*s.scale", (int)(strlen(w->name) - strlen(".weight")), w->name);
    const struct weight *scale = weights_find(ld->m->files, name);
    CHECK(scale && scale->data == w->scale);
    return scale;
}

static void send(struct loader *ld, const struct send_item *i)
{
    if (!ld->failed && send_add(&ld->m->sends, i, ld->e) < 0)
        ld->failed = true;
}

/* Where a device that is apart will have it. */
static struct tensor tensor_there(struct loader *ld, const struct weight *w)
{
    struct tensor t = tensor_in_file(ld, w);
    const struct weight *scale = ld->failed ? NULL : scale_of(ld, w);
    t.data = take_for(ld, w->bytes, false);
    t.scale = scale ? take_for(ld, scale->bytes, false) : NULL;
    send(ld, &(struct send_item){ .w = w, .bytes = w->bytes, .to = t.data });
    if (scale)
        send(ld, &(struct send_item){ .w = scale, .bytes = scale->bytes,
                                      .to = (uint8_t *)(uintptr_t)t.scale });
    return t;
}

static struct tensor tensor_of(struct loader *ld, const struct weight *w)
{
    return w && dev_is_apart(ld->m->dev) ? tensor_there(ld, w) : tensor_near(ld, w);
}

static struct tensor matrix(struct loader *ld, enum dsv4_role role)
{
    return tensor_of(ld, need(ld, role, 0));
}

static const float *vector(struct loader *ld, enum dsv4_role role)
{
    const struct weight *w = need(ld, role, 0);
    struct tensor t = tensor_near(ld, w);
    size_t bytes = (size_t)t.cols * (size_t)t.rows * sizeof(float);
    if (ld->failed || t.type == DT_F32)
        return place(ld, t.data, bytes);
    float *x = keep(ld, bytes);
    for (int r = 0; r < t.rows && x; r++)
        tensor_decode(&t, r, x + (size_t)r * t.cols);
    return place(ld, x, bytes);
}

static const int32_t *hash_table(struct loader *ld)
{
    const struct weight *w = need(ld, DSV4_TID2EID, 0);
    if (!w)
        return NULL;
    size_t n = (size_t)w->dim[0] * (size_t)w->dim[1];
    if (w->type != DT_I32 && w->type != DT_I64) {
        fail_type(ld, w, "I32 or I64");
        return NULL;
    }
    int32_t *id = keep(ld, n * sizeof *id);
    for (size_t i = 0; i < n && id; i++) {
        int64_t wide = 0;
        int32_t narrow;
        if (w->type == DT_I64) {
            memcpy(&wide, w->data + i * 8, 8);
        } else {
            memcpy(&narrow, w->data + i * 4, 4);
            wide = narrow;
        }
        if (wide < 0 || wide >= ld->m->s.n_expert) {
            err_set(ld->e, ERR_FORMAT, "%s: tensor %s names expert %lld, expected 0 to %d",
                    weights_file(ld->m->files, w->file), w->name, (long long)wide,
                    ld->m->s.n_expert - 1);
            ld->failed = true;
            return NULL;
        }
        id[i] = (int32_t)wide;
    }
    return place(ld, id, n * sizeof *id);
}

static bool is_stacked(const struct loader *ld)
{
    return weights_kind(ld->m->files) == WEIGHTS_GGUF;
}

/* Whether all of a layer's experts lie as in the file, and need no table. */
static bool is_whole(const struct loader *ld)
{
    return is_stacked(ld) && expert_split_all(ld->split);
}

static int layer_of(const struct loader *ld)
{
    return ld->block == DSV4_MTP(0) ? ld->m->s.n_layer : ld->block;
}

/* Where a device that is apart will read expert e's part, which is still in the file. */
static void place_part(struct loader *ld, const struct weight *w, int e, struct tensor *t)
{
    size_t at = (size_t)((const uint8_t *)t->data - w->data), bytes = t->pitch * (size_t)t->rows;
    const struct weight *scale = scale_of(ld, w);
    struct pieces *p = &ld->pieces[ld->split->near[layer_of(ld) * ld->m->s.n_expert + e]];
    t->data = take_piece(ld, p, bytes);
    send(ld, &(struct send_item){ w, at, bytes, t->data, p->is_host, 0 });
    if (!scale)
        return;
    uint8_t *to = take_piece(ld, p, scale->bytes);
    t->scale = to;
    send(ld, &(struct send_item){ scale, 0, scale->bytes, to, p->is_host, 0 });
}

/* Expert e of one of the three roles: a tensor of its own or a slice of a stacked one. */
static struct tensor expert_part(struct loader *ld, enum dsv4_role role, int e)
{
    const struct weight *w = need(ld, role, e);
    int i = role == DSV4_GATE_EXPS ? 0 : role == DSV4_UP_EXPS ? 1 : 2;
    bool in_file = ld->split ? !is_whole(ld) : ld->hold.mem || dev_is_apart(ld->m->dev);
    if (!w || ld->stack[i].w != w) {
        ld->stack[i].w = w;
        ld->stack[i].t = in_file ? tensor_in_file(ld, w) : tensor_of(ld, w);
    }
    struct tensor t = ld->stack[i].t;
    if (ld->failed)
        return t;
    if (is_stacked(ld))
        t = tensor_rows(&t, e * (int)w->dim[1], (int)w->dim[1]);
    if (ld->split && in_file)
        place_part(ld, w, e, &t);
    return t;
}

static void fill_experts(struct loader *ld, struct expert *x)
{
    for (int e = 0; e < ld->m->s.n_expert && !ld->failed; e++) {
        x[e].id = e;
        x[e].gate = expert_part(ld, DSV4_GATE_EXPS, e);
        x[e].up = expert_part(ld, DSV4_UP_EXPS, e);
        x[e].down = expert_part(ld, DSV4_DOWN_EXPS, e);
    }
}

static struct expert_set experts(struct loader *ld)
{
    size_t n = (size_t)ld->m->s.n_expert;
    struct expert *x = keep(ld, n * sizeof *x);
    if (x)
        fill_experts(ld, memset(x, 0, n * sizeof *x));
    return (struct expert_set){ .n = (int)n, .e = x };
}

/* The second time, for a device that is apart: now they have places. */
static void place_experts(struct loader *ld, struct dsv4_layer *w, int block)
{
    size_t bytes = (size_t)w->experts.n * sizeof *w->experts.e;
    struct pieces *far = &ld->pieces[0];
    ld->block = block;
    ld->ratio = w->ratio;
    w->experts.far_bytes = expert_split_far(ld->split, &ld->m->map, layer_of(ld));
    *far = (struct pieces){ .is_host = true, .left = w->experts.far_bytes };
    fill_experts(ld, (struct expert *)(uintptr_t)w->experts.e);
    w->experts.far = far->mem;
    if (!is_whole(ld))
        w->experts.there = place(ld, w->experts.e, bytes);
    if (!ld->failed && dev_slots_take(ld->m->dev, &w->experts, ld->split->n_slot,
                                      expert_split_each(&ld->m->map, layer_of(ld)), ld->e) < 0)
        ld->failed = true;
}

static struct expert_extent extent_of(const struct weight *w)
{
    return (struct expert_extent){ (uint64_t)w->offset, w->bytes, w->file };
}

/* Where the bytes of a role's experts are. */
static void map_role(struct loader *ld, int l, enum dsv4_role role, enum expert_part part,
                     enum expert_part scale_part)
{
    struct expert_map *map = &ld->m->map;
    bool stacked = weights_kind(ld->m->files) == WEIGHTS_GGUF;
    for (int e = 0; e < (stacked ? 1 : map->n_expert); e++) {
        const struct weight *w = need(ld, role, e), *scale = w ? scale_of(ld, w) : NULL;
        struct expert_extent x = w ? extent_of(w) : (struct expert_extent){ 0 };
        if (!w)
            return;
        if (stacked) {
            x.bytes /= (uint64_t)map->n_expert;
            expert_map_stack(map, l, part, &x);
            continue;
        }
        expert_map_set(map, l * map->n_expert + e, part, &x);
        x = scale ? extent_of(scale) : x;
        if (scale)
            expert_map_set(map, l * map->n_expert + e, scale_part, &x);
    }
}

static void map_experts(struct loader *ld)
{
    int l = layer_of(ld);
    map_role(ld, l, DSV4_GATE_EXPS, EXPERT_GATE, EXPERT_GATE_SCALE);
    map_role(ld, l, DSV4_UP_EXPS, EXPERT_UP, EXPERT_UP_SCALE);
    map_role(ld, l, DSV4_DOWN_EXPS, EXPERT_DOWN, EXPERT_DOWN_SCALE);
}

static struct hc hyper(struct loader *ld, enum dsv4_role fn)
{
    const struct dsv4_hyper *s = &ld->m->s;
    /* base and scale follow fn in the list of roles, for all four kinds */
    return (struct hc){
        .fn = matrix(ld, fn),
        .base = vector(ld, fn + 1),
        .scale = vector(ld, fn + 2),
        .n_stream = s->n_hc,
        .n_iter = s->hc_iters,
        .eps = s->hc_eps,
        .norm_eps = s->rms_eps,
    };
}

static void compressors(struct loader *ld, struct dsv4_layer *w)
{
    const struct dsv4_hyper *s = &ld->m->s;
    if (w->ratio == 0)
        return;
    w->comp_kv = matrix(ld, DSV4_COMP_KV);
    w->comp_gate = matrix(ld, DSV4_COMP_GATE);
    w->comp = (struct compressor){
        .ape = vector(ld, DSV4_COMP_APE),
        .norm = vector(ld, DSV4_COMP_NORM),
        .ratio = w->ratio,
        .dim = s->head_dim,
        .width = (int)dsv4_size(s, DSV4_D_COMP, w->ratio),
        .eps = s->rms_eps,
    };
    if (w->ratio != DSV4_INDEX_RATIO)
        return;
    w->index_q = matrix(ld, DSV4_INDEX_Q_B);
    w->index_proj = matrix(ld, DSV4_INDEX_PROJ);
    w->index_comp_kv = matrix(ld, DSV4_INDEX_COMP_KV);
    w->index_comp_gate = matrix(ld, DSV4_INDEX_COMP_GATE);
    w->index_comp = (struct compressor){
        .ape = vector(ld, DSV4_INDEX_COMP_APE),
        .norm = vector(ld, DSV4_INDEX_COMP_NORM),
        .ratio = w->ratio,
        .dim = s->index_dim,
        .width = (int)dsv4_size(s, DSV4_D_INDEX_COMP, w->ratio),
        .eps = s->rms_eps,
        .index = true,
    };
}

static void attention(struct loader *ld, struct dsv4_layer *w)
{
    const struct dsv4_hyper *s = &ld->m->s;
    w->q_a = matrix(ld, DSV4_Q_A);
    w->q_norm = vector(ld, DSV4_Q_A_NORM);
    w->q_b = matrix(ld, DSV4_Q_B);
    w->kv = matrix(ld, DSV4_KV);
    w->kv_norm = vector(ld, DSV4_KV_NORM);
    w->at = (struct attention){
        .n_head = s->n_head,
        .scale = (float)(1 / sqrt(s->head_dim)),
        .sink = vector(ld, DSV4_SINKS),
        .picked = w->ratio == DSV4_INDEX_RATIO,
        .back = w->rope,
    };
    w->o_a = matrix(ld, DSV4_O_A);
    w->o_b = matrix(ld, DSV4_O_B);
    compressors(ld, w);
}

static void layer(struct loader *ld, struct dsv4_layer *w, int block, int ratio, bool hashed)
{
    const struct dsv4_hyper *s = &ld->m->s;
    ld->block = block;
    ld->ratio = w->ratio = ratio;
    w->rope = ratio ? &ld->m->rope_compress : &ld->m->rope_main;
    w->hc_attn = hyper(ld, DSV4_HC_ATTN_FN);
    w->hc_ffn = hyper(ld, DSV4_HC_FFN_FN);
    w->attn_norm = vector(ld, DSV4_ATTN_NORM);
    w->ffn_norm = vector(ld, DSV4_FFN_NORM);
    attention(ld, w);
    w->route = (struct router){
        .bias = hashed ? NULL : vector(ld, DSV4_ROUTER_BIAS),
        .by_token = hashed ? hash_table(ld) : NULL,
        .n_vocab = s->n_vocab,
        .n_expert = s->n_expert,
        .n_used = s->n_used,
        .scale = s->route_scale,
    };
    w->router = matrix(ld, DSV4_ROUTER);
    w->sh_gate = matrix(ld, DSV4_GATE_SHEXP);
    w->sh_up = matrix(ld, DSV4_UP_SHEXP);
    w->sh_down = matrix(ld, DSV4_DOWN_SHEXP);
    w->experts = experts(ld);
    map_experts(ld);
    w->clamp = s->swiglu_limit > 0 ? s->swiglu_limit : INFINITY;
}

/* A checkpoint may say it has a draft block and hold DSpark blocks instead: ask the tensors. */
static bool has_mtp(const struct model *m)
{
    char name[DSV4_NAME_MAX];
    if (weights_kind(m->files) == WEIGHTS_GGUF)
        dsv4_gguf_name(name, DSV4_MTP_E_PROJ, DSV4_MTP(0));
    else
        dsv4_official_name(name, DSV4_MTP_E_PROJ, DSV4_MTP(0), 0);
    return weights_find(m->files, name) != NULL;
}

static void draft(struct loader *ld)
{
    struct dsv4_mtp *w = keep(ld, sizeof *w);
    if (!w)
        return;
    *w = (struct dsv4_mtp){ 0 };
    ld->m->mtp = w;
    layer(ld, &w->layer, DSV4_MTP(0), 0, false);
    w->e_proj = matrix(ld, DSV4_MTP_E_PROJ);
    w->h_proj = matrix(ld, DSV4_MTP_H_PROJ);
    w->enorm = vector(ld, DSV4_MTP_ENORM);
    w->hnorm = vector(ld, DSV4_MTP_HNORM);
    w->norm = vector(ld, DSV4_MTP_NORM);
    w->head = hyper(ld, DSV4_MTP_HC_HEAD_FN);
}

/* Frequencies of one table; with `yarn` the slow ones are stretched to a longer context. */
static struct rope rope_table(struct loader *ld, double base, bool yarn)
{
    const struct dsv4_hyper *s = &ld->m->s;
    int n = s->n_rope / 2;
    float *freq = keep(ld, (size_t)n * sizeof *freq);
    double low = 0, high = 0;
    if (yarn) {
        double per_turn = s->n_rope / (2 * log(base));
        low = floor(per_turn * log(s->yarn_context / (s->yarn_beta_fast * 2 * M_PI)));
        high = ceil(per_turn * log(s->yarn_context / (s->yarn_beta_slow * 2 * M_PI)));
        low = fmax(low, 0);
        high = fmin(high, s->n_rope - 1);
        if (low == high)
            high += 0.001;
    }
    for (int i = 0; i < n && freq; i++) {
        double f = pow(base, -2.0 * i / s->n_rope);
        double t = yarn ? fmin(fmax((i - low) / (high - low), 0), 1) : 0;
        freq[i] = (float)(f / s->yarn_factor * t + f * (1 - t));
    }
    return (struct rope){ place(ld, freq, (size_t)n * sizeof *freq), n };
}

static int check_model(const struct model *m, struct err *e)
{
    const struct dsv4_hyper *s = &m->s;
    const char *path = weights_path(m->files);
    if (s->n_hc > MAX_HC)
        return err_set(e, ERR_UNSUPPORTED, "%s: %d residual streams, expected at most %d", path,
                       s->n_hc, MAX_HC);
    if (!s->norm_topk)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: expert weights are not normalised, expected that they are", path);
    if (m->info.simulate && (s->index_dim % 32 != 0 || (s->index_dim & (s->index_dim - 1)) != 0))
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: index head size %d, expected a power of two from 32 on", path,
                       s->index_dim);
    return 0;
}

static void load_all(struct loader *ld)
{
    struct model *m = ld->m;
    const struct dsv4_hyper *s = &m->s;
    ld->block = -1;
    m->rope_main = rope_table(ld, s->rope_base, false);
    m->rope_compress = rope_table(ld, s->compress_rope_base, true);
    m->embd = matrix(ld, DSV4_TOKEN_EMBD);
    m->output = matrix(ld, DSV4_OUTPUT);
    m->output_norm = vector(ld, DSV4_OUTPUT_NORM);
    m->head = hyper(ld, DSV4_HC_HEAD_FN);
    m->indexer = (struct indexer){
        .n_head = s->index_heads,
        .dim = s->index_dim,
        .top_k = s->index_top_k,
        .scale = (float)(1 / sqrt((double)s->index_dim * s->index_heads)),
    };
    m->layer = keep(ld, (size_t)s->n_layer * sizeof *m->layer);
    if (m->layer)
        memset(m->layer, 0, (size_t)s->n_layer * sizeof *m->layer);
    for (int l = 0; l < s->n_layer && !ld->failed; l++) {
        m->kv_ratio[l] = s->ratio[l];
        layer(ld, &m->layer[l], l, s->ratio[l], l < s->n_hash_layer);
    }
    if (m->info.has_mtp)
        draft(ld);
}

static int check_stored(const struct weights *w, struct err *e)
{
    for (int i = 0; i < weights_count(w); i++)
        if (weights_at(w, i)->counted)
            return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s is not stored, so that its experts "
                           "cannot be read", weights_path(w), weights_at(w, i)->name);
    return 0;
}

/* tidy: heap - a descriptor for each file, while weights are read */
static int load_held(struct loader *ld, struct err *e)
{
    const struct weights *files = ld->m->files;
    int n = weights_n_file(files), code = slab_open(&ld->m->held, ld->m->info.held_bytes, NULL, e);
    struct file_in *file = calloc((size_t)n, sizeof *file);
    if (code == 0 && !file)
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory", weights_path(files));
    for (int i = 0; code == 0 && i < n; i++)
        code = file_in_open(&file[i], weights_file(files, i), e);
    ld->file = file;
    arena_init(&ld->hold, ld->m->held.mem, ld->m->held.size);
    if (code == 0)
        load_all(ld);
    for (int i = 0; file && i < n; i++)
        file_in_close(&file[i]);
    free(file);
    return code;
}

/* tidy: heap - the model itself */
int model_open(struct model **out, const struct weights *w, struct dev *d,
               const struct model_options *opt, struct err *e)
{
    *out = NULL;
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_NO_MEMORY, "%s: no memory for a model", weights_path(w));
    m->dev = d;
    m->files = w;
    struct loader ld = { .m = m, .e = e, .told = opt->told };
    int code = dsv4_hyper_read(&m->s, weights_meta(w), weights_kind(w), e);
    if (code == 0) {
        m->info.simulate = opt->simulate < 0 ? m->s.cache_simulation == DSV4_CACHE_VENDOR
                                             : opt->simulate > 0;
        code = check_model(m, e);
    }
    if (code == 0) {
        m->info.has_mtp = opt->with_mtp && has_mtp(m);
        m->info.held_bytes = count_held(m);
        code = expert_map_open(&m->map, m->s.n_layer + m->info.has_mtp, m->s.n_expert, e);
    }
    if (code == 0)
        code = check_room(m, opt->room, e);
    if (code == 0 && opt->hold)
        code = check_stored(w, e);
    if (code == 0) {
        if (opt->hold)
            code = load_held(&ld, e);
        else
            load_all(&ld);
        if (ld.failed)
            code = (int)e->code;
    }
    if (code < 0) {
        model_close(m);
        return code;
    }
    m->info.n_layer = m->s.n_layer;
    m->info.n_embd = m->s.n_embd;
    m->info.n_vocab = m->s.n_vocab;
    m->info.n_expert = m->s.n_expert;
    m->info.n_used = m->s.n_used;
    m->info.window = m->s.window;
    m->info.ctx_trained = m->s.context;
    m->info.n_kv_layer = m->s.n_layer + (m->mtp != NULL);
    m->info.ratio = m->kv_ratio;
    *out = m;
    return 0;
}

int model_load(struct model *m, const struct expert_split *split, const struct report *told,
               struct err *e)
{
    struct loader ld = { .m = m, .e = e, .told = told, .split = split };
    ld.pieces[1].left = split->near_bytes;
    if (split->ahead_bytes > 0)
        TRY(dev_ahead_take(m->dev, split->ahead_bytes, m->s.n_expert, e));
    for (int l = 0; dev_is_apart(m->dev) && l < m->s.n_layer; l++)
        place_experts(&ld, &m->layer[l], l);
    if (dev_is_apart(m->dev) && m->mtp)
        place_experts(&ld, &m->mtp->layer, DSV4_MTP(0));
    if (ld.failed)
        return (int)e->code;
    return m->sends.n ? send_all(&m->sends, m->files, m->dev, told, e) : 0;
}

/* tidy: heap - the other end of model_open */
void model_close(struct model *m)
{
    if (!m)
        return;
    send_release(&m->sends);
    slab_close(&m->held);
    expert_map_close(&m->map);
    while (m->copies) {
        struct dsv4_copy *c = m->copies;
        m->copies = c->next;
        if (c->is_host)
            dev_host_give_back(c->dev, c->data);
        else if (c->dev)
            dev_memory_give_back(c->dev, c->data);
        else
            free(c->data);
        free(c);
    }
    free(m);
}
