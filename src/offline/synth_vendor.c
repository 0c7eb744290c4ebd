/* synth_vendor.c - the random model as a checkpoint folder.
 *
 * Experts hold the very numbers of the GGUF file in MXFP4; what the vendor keeps in FP8 has bytes
 * and scales of its own. Shards are planned whole, then written tensor by tensor on all threads.
 * config.json comes last: without it a folder is no model. */
#include "synth_impl.h"

#include "file.h"
#include "host.h"
#include "rng.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define SHARD_BYTES INT64_C(5000000000)
#define PIECE_BYTES ((int64_t)4 << 20)

/* One tensor of a shard. */
struct piece {
    char name[DSV4_NAME_MAX];
    int tensor, expert; /* of the plan; expert 0 where there is one */
    enum dtype type;    /* as in the file: packed FP4 is DT_I8 */
    bool is_scale;
    int64_t dim[2];     /* fastest first, as numbers are counted in the file */
    int n_dim;
    int64_t at, bytes;  /* in the shard's data */
};

struct vendor {
    struct synth *s;
    struct piece *piece;
    int n_piece, cap_piece;
    int *first;         /* [n_shard + 1] into piece */
    int n_shard;
    struct file_out out;
    int64_t data_at;
    struct pool *pool;
    uint8_t *buffer;    /* [threads][PIECE_BYTES] and a row */
    size_t buffer_bytes;
    const struct piece *now;
    struct err err;
    int code;
};

/* ---- the plan ---- */

static enum dtype vendor_type(const struct quantize_tensor *t)
{
    enum dsv4_form form = dsv4_names[t->role].form;
    return form == DSV4_EXPERTS                            ? DT_FP4
           : form == DSV4_DENSE && t->role != DSV4_OUTPUT ? DT_F8_E4M3
           : form == DSV4_EXACT                            ? DT_F32
           : form == DSV4_IDS                              ? DT_I64
                                                           : DT_BF16;
}

static int add(struct vendor *v, const struct piece *p, struct err *e)
{
    if (v->n_piece == v->cap_piece) {
        int cap = v->cap_piece ? 2 * v->cap_piece : 1024;
        struct piece *more = realloc(v->piece, (size_t)cap * sizeof *more);
        if (!more)
            return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", cap);
        v->piece = more;
        v->cap_piece = cap;
    }
    v->piece[v->n_piece] = *p;
    struct piece *q = &v->piece[v->n_piece++];
    q->bytes = (int64_t)dtype_bytes(q->type, (size_t)(q->dim[0] * q->dim[1]));
    return 0;
}

/* "….weight" to "….scale". */
static void rename_scale(char name[DSV4_NAME_MAX])
{
    size_t n = strlen(name);
    CHECK(n > 6 && strcmp(name + n - 6, "weight") == 0);
    memcpy(name + n - 6, "scale", 6);
}

static int add_matrix(struct vendor *v, int tensor, int expert, struct err *e)
{
    const struct quantize_tensor *t = &v->s->q.tensor[tensor];
    enum dtype type = vendor_type(t);
    struct piece p = { .tensor = tensor, .expert = expert, .type = type };
    dsv4_official_name(p.name, t->role, t->block, expert);
    p.dim[0] = type == DT_FP4 ? t->dim[0] / 2 : t->dim[0];
    p.dim[1] = t->dim[1];
    p.type = type == DT_FP4 ? DT_I8 : type;
    p.n_dim = type == DT_FP4 ? 2 : t->n_dim;
    TRY(add(v, &p, e));
    if (type != DT_FP4 && type != DT_F8_E4M3)
        return 0;
    rename_scale(p.name);
    p.is_scale = true;
    p.type = DT_F8_E8M0;
    p.dim[0] = type == DT_FP4 ? t->dim[0] / 32 : (t->dim[0] + 127) / 128;
    p.dim[1] = type == DT_FP4 ? t->dim[1] : (t->dim[1] + 127) / 128;
    return add(v, &p, e);
}

static int plan(struct vendor *v, struct err *e)
{
    const struct quantize *q = &v->s->q;
    int64_t at = 0;
    for (int i = 0; i < q->n_tensor; i++) {
        bool stacked = dsv4_names[q->tensor[i].role].form == DSV4_EXPERTS;
        for (int x = 0; x < (stacked ? q->im.h.n_expert : 1); x++)
            TRY(add_matrix(v, i, x, e));
    }
    v->first = calloc((size_t)v->n_piece + 1, sizeof *v->first);
    if (!v->first)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", v->n_piece);
    for (int i = 0; i < v->n_piece; i++) {
        if (i == 0 || at + v->piece[i].bytes > SHARD_BYTES) {
            v->first[v->n_shard++] = i;
            at = 0;
        }
        v->piece[i].at = at;
        at += v->piece[i].bytes;
    }
    v->first[v->n_shard] = v->n_piece;
    return 0;
}

/* ---- data ---- */

/* Rows first .. first+n-1 of a piece. */
static void make_rows(const struct vendor *v, const struct piece *p, int64_t first, int64_t n,
                      uint8_t *dst)
{
    const struct synth *s = v->s;
    const struct quantize_tensor *t = &s->q.tensor[p->tensor];
    enum dtype type = vendor_type(t);
    if (type == DT_I64) {
        int32_t id[64];
        CHECK(t->dim[0] <= (int64_t)COUNT_OF(id));
        for (int64_t r = first; r < first + n; r++) {
            synth_ids(s, s->random[p->tensor].key, r, 1, id);
            for (int64_t i = 0; i < t->dim[0]; i++, dst += 8)
                memcpy(dst, &(int64_t){ id[i] }, 8);
        }
        return;
    }
    struct quant_random r = synth_random(s, t->role, t->name, type, t->dim[0]);
    int64_t row = p->expert * t->dim[1] + first; /* of the stack */
    if (type == DT_FP4) {
        uint64_t at = (uint64_t)(row * (t->dim[0] / 32));
        size_t blocks = (size_t)(n * (t->dim[0] / 32));
        (p->is_scale ? quant_random_scales : quant_random)(&r, at, blocks, dst);
    } else if (p->is_scale) {
        r.key = rng_at(r.key, 0); /* bytes take words from 0 up */
        quant_random_scales(&r, (uint64_t)(first * p->dim[0]), (size_t)(n * p->dim[0]), dst);
    } else {
        quant_random(&r, (uint64_t)(first * t->dim[0]), (size_t)(n * t->dim[0]), dst);
    }
}

static int64_t rows_at_once(const struct piece *p)
{
    return MAX(1, PIECE_BYTES / (p->bytes / p->dim[1]));
}

static void write_rows(void *ctx, int task, int worker)
{
    struct vendor *v = ctx;
    const struct piece *p = v->now;
    int64_t step = rows_at_once(p), first = task * step, n = MIN(step, p->dim[1] - first);
    int64_t row_bytes = p->bytes / p->dim[1];
    uint8_t *buffer = v->buffer + (size_t)worker * v->buffer_bytes;
    struct err e = { 0 };
    make_rows(v, p, first, n, buffer);
    if (file_out_write_at(&v->out, v->data_at + p->at + first * row_bytes, buffer,
                          (size_t)(n * row_bytes), &e) < 0 && worker == 0) {
        v->err = e;
        v->code = e.code;
    }
}

/* ---- files ---- */

static char *shard_name(char out[64], int i, int n)
{
    snprintf(out, 64, "model-%05d-of-%05d.safetensors", i + 1, n);
    return out;
}

static json_t *header_of(const struct vendor *v, int shard)
{
    json_t *header = json_object();
    for (int i = v->first[shard]; i < v->first[shard + 1]; i++) {
        const struct piece *p = &v->piece[i];
        json_t *shape = p->n_dim == 1 ? json_pack("[I]", (json_int_t)p->dim[0])
                                      : json_pack("[II]", (json_int_t)p->dim[1],
                                                  (json_int_t)p->dim[0]);
        json_object_set_new(header, p->name,
                            json_pack("{s:s, s:o, s:[II]}", "dtype", dtype_name((int)p->type),
                                      "shape", shape, "data_offsets", (json_int_t)p->at,
                                      (json_int_t)(p->at + p->bytes)));
    }
    return header;
}

/* A text in the folder. */
static int write_text(const struct vendor *v, const char *name, const char *text, struct err *e)
{
    struct file_out f;
    char *path = path_join(v->s->o.out, name);
    if (!path || !text) {
        free(path);
        return err_set(e, ERR_NO_MEMORY, "out of memory for %s", name);
    }
    int code = file_out_open(&f, path, e);
    free(path);
    if (code == 0)
        code = file_out_write(&f, text, strlen(text), e);
    if (code == 0)
        code = file_out_commit(&f, e);
    file_out_abort(&f);
    return code;
}

static int write_json(const struct vendor *v, const char *name, json_t *root, struct err *e)
{
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    int code = write_text(v, name, text, e);
    free(text);
    json_decref(root);
    return code;
}

static int write_header(struct vendor *v, int shard, struct err *e)
{
    json_t *header = header_of(v, shard);
    char *text = header ? json_dumps(header, JSON_COMPACT) : NULL;
    size_t n = text ? round_up(strlen(text), 8) : 0, len = text ? strlen(text) : 0;
    uint64_t size = n;
    int code = text ? 0 : err_set(e, ERR_NO_MEMORY, "out of memory for a header");
    v->data_at = (int64_t)n + 8;
    if (code == 0)
        code = file_out_write(&v->out, &size, sizeof size, e);
    if (code == 0)
        code = file_out_write(&v->out, text, len, e);
    for (size_t i = len; i < n && code == 0; i++)
        code = file_out_write(&v->out, " ", 1, e);
    free(text);
    json_decref(header);
    return code;
}

static bool cancelled(const struct vendor *v, int piece)
{
    const struct synth_options *o = &v->s->o;
    return o->progress && o->progress(o->user, "writing", (double)piece / v->n_piece);
}

static int write_shard(struct vendor *v, int shard, struct err *e)
{
    char name[64], *path = path_join(v->s->o.out, shard_name(name, shard, v->n_shard));
    if (!path)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %s", name);
    int code = file_out_open(&v->out, path, e);
    free(path);
    if (code == 0)
        code = write_header(v, shard, e);
    for (int i = v->first[shard]; i < v->first[shard + 1] && code == 0; i++) {
        v->now = &v->piece[i];
        int64_t step = rows_at_once(v->now);
        pool_run(v->pool, write_rows, v, (int)((v->now->dim[1] + step - 1) / step));
        code = v->code < 0        ? err_set(e, v->err.code, "%s", v->err.text)
               : cancelled(v, i) ? err_set(e, ERR_CANCELLED, "%s: interrupted", v->s->o.out)
                                 : 0;
    }
    if (code == 0)
        code = file_out_commit(&v->out, e);
    file_out_abort(&v->out);
    return code;
}

static int write_index(const struct vendor *v, struct err *e)
{
    json_t *map = json_object();
    char name[64];
    int64_t total = 0;
    for (int s = 0; s < v->n_shard; s++)
        for (int i = v->first[s]; i < v->first[s + 1]; i++) {
            total += v->piece[i].bytes;
            json_object_set_new(map, v->piece[i].name,
                                json_string(shard_name(name, s, v->n_shard)));
        }
    return write_json(v, "model.safetensors.index.json",
                      json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total,
                                "weight_map", map), e);
}

/* ---- config.json ---- */

static json_t *value_of(const struct dsv4_key *k, const struct dsv4_hyper *h)
{
    const char *field = (const char *)h + k->offset;
    if (k->type == META_FLOAT) {
        char text[32]; /* 1e-6f is meant as 1e-6 */
        snprintf(text, sizeof text, "%.7g", (double)*(const float *)(const void *)field);
        return json_real(strtod(text, NULL));
    }
    if (k->type == META_BOOL)
        return json_boolean(*(const bool *)(const void *)field);
    return json_integer(*(const int *)(const void *)field);
}

static json_t *config_of(const struct dsv4_hyper *h)
{
    json_t *c = json_pack("{s:[s], s:s, s:i, s:s, s:s, s:s, s:b, s:b, s:s}", "architectures",
                          "DeepseekV4ForCausalLM", "model_type", "deepseek_v4",
                          "num_key_value_heads", 1, "scoring_func", "sqrtsoftplus", "topk_method",
                          "noaux_tc", "hidden_act", "silu", "attention_bias", 0,
                          "tie_word_embeddings", 0, "expert_dtype", "fp4");
    json_t *rope = json_pack("{s:s}", "type", "yarn"), *ratio = json_array();
    for (int i = 0; i < dsv4_n_keys; i++) {
        const struct dsv4_key *k = &dsv4_keys[i];
        if (!k->config || strncmp(k->config, "dspark", 6) == 0)
            continue;
        bool scaling = strncmp(k->config, "rope_scaling.", 13) == 0;
        json_object_set_new(scaling ? rope : c, k->config + (scaling ? 13 : 0), value_of(k, h));
    }
    for (int l = 0; l < h->n_layer; l++)
        json_array_append_new(ratio, json_integer(h->ratio[l]));
    json_array_append_new(ratio, json_integer(0)); /* the draft block's */
    json_object_set_new(c, "rope_scaling", rope);
    json_object_set_new(c, "compress_ratios", ratio);
    json_object_set_new(c, "quantization_config",
                        json_pack("{s:s, s:s, s:s, s:s, s:[ii]}", "quant_method", "fp8", "fmt",
                                  "e4m3", "activation_scheme", "dynamic", "scale_fmt", "ue8m0",
                                  "weight_block_size", 128, 128));
    return c;
}

/* ---- everything ---- */

static int write_tokenizer(const struct vendor *v, struct err *e)
{
    const char *from = v->s->o.tokenizer;
    struct buf text;
    if (!from || (!file_is_dir(from) && !strstr(from, ".json"))) {
        log_put(v->s->o.log, LOG_INFO, "no tokenizer.json is known: the model has no texts");
        return 0;
    }
    char *inside = file_is_dir(from) ? path_join(from, "tokenizer.json") : NULL;
    buf_init(&text, (size_t)1 << 28);
    int code = file_read_all(&text, inside ? inside : from, e);
    if (code == 0)
        code = write_text(v, "tokenizer.json", text.data, e);
    buf_release(&text);
    free(inside);
    return code;
}

static int write_all(struct vendor *v, struct err *e)
{
    const struct synth_options *o = &v->s->o;
    if (file_exists(o->out) || file_is_dir(o->out))
        return err_set(e, ERR_ARGUMENT, "%s: exists, expected the name of a new folder", o->out);
    TRY(plan(v, e));
    TRY(pool_new(&v->pool, v->s->q.n_thread, e));
    for (int i = 0; i < v->n_piece; i++) {
        const struct piece *p = &v->piece[i];
        size_t most = (size_t)(rows_at_once(p) * (p->bytes / p->dim[1]));
        v->buffer_bytes = MAX(v->buffer_bytes, round_up(most, 64));
    }
    v->buffer = malloc((size_t)v->s->q.n_thread * v->buffer_bytes);
    if (!v->buffer)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d threads", v->s->q.n_thread);
    TRY(host_make_dirs(o->out, e));
    for (int i = 0; i < v->n_shard; i++)
        TRY(write_shard(v, i, e));
    TRY(write_index(v, e));
    TRY(write_tokenizer(v, e));
    return write_json(v, "config.json", config_of(&v->s->q.im.h), e);
}

int synth_write_vendor(struct synth *s, struct err *e)
{
    struct vendor v = { .s = s };
    int code = write_all(&v, e);
    free(v.piece);
    free(v.first);
    free(v.buffer);
    pool_free(v.pool);
    return code;
}
