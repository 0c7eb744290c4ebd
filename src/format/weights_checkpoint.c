/* weights_checkpoint.c - the vendor's checkpoint folder: config.json, shards, and scales.
 *
 * FP8 and packed FP4 weights have their scales in a second tensor; both are paired here, once,
 * so that nobody later has to ask whether a scale exists or fits. */
#include "weights_impl.h"

#include "meta_impl.h"

#include <stdlib.h>

enum {
    MAX_CONFIG_BYTES = 16 << 20,
    MAX_INDEX_BYTES = 256 << 20,
    MAX_SHARD = 4096,
    TILE = 128, /* FP8: one scale for so many rows and columns */
    RUN = 32,   /* FP4: one scale for so many columns */
};

static int read_config(struct weights *w, const char *dir, struct err *e)
{
    char *path = path_join(dir, "config.json");
    struct buf text;
    if (!path)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", dir);
    buf_init(&text, MAX_CONFIG_BYTES);
    int code = file_read_all(&text, path, e);
    if (code == 0)
        code = meta_from_json(&w->config, path, text.data ? text.data : "", text.len, e);
    buf_release(&text);
    free(path);
    return code;
}

static int add_shard(struct weights *w, const char *dir, const char *name, const char *index,
                     struct err *e)
{
    char *path = path_join(dir, name);
    int code;
    if (!path)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", dir);
    if (index && !file_exists(path))
        code = err_set(e, ERR_IO, "%s: is missing, but %s names it", path, index);
    else
        code = weights_add_file(w, path, e);
    free(path);
    return code;
}

/* The index and the shards' own directories must say the same. */
static int check_index(const struct weights *w, const struct shard_index *x, const char *index,
                       struct err *e)
{
    for (int i = 0; i < x->n_tensor; i++) {
        const struct weight *t = weights_find(w, x->name[i]);
        if (!t || strcmp(x->shard[t->file], x->file[i]) != 0)
            return err_set(e, ERR_FORMAT,
                           "%s: names tensor %s in %s, which does not hold it (%s%s)", index,
                           x->name[i], x->file[i], t ? "it is in " : "no file does",
                           t ? x->shard[t->file] : "");
    }
    if (x->n_tensor == w->n_weight)
        return 0;
    struct name_index known = { 0 };
    int code = 0, older;
    for (int i = 0; i < x->n_tensor && code == 0; i++)
        code = name_index_add(&known, x->name[i], i, &older, e);
    for (int i = 0; i < w->n_weight && code == 0; i++) {
        if (name_index_find(&known, w->weight[i].name) < 0)
            code = err_set(e, ERR_FORMAT, "%s: does not name tensor %s, which %s holds", index,
                           w->weight[i].name, w->file[w->weight[i].file].path);
    }
    name_index_release(&known);
    return code;
}

static int open_shards(struct weights *w, const char *dir, const char *index, struct err *e)
{
    struct buf text;
    struct shard_index x = { 0 };
    buf_init(&text, MAX_INDEX_BYTES);
    int code = file_read_all(&text, index, e);
    if (code == 0)
        code = shard_index_parse(&x, index, text.data ? text.data : "", text.len, e);
    buf_release(&text);
    if (code == 0 && x.n_shard > MAX_SHARD)
        code = err_set(e, ERR_LIMIT, "%s: names %d files, the limit is %d", index, x.n_shard,
                       MAX_SHARD);
    if (code == 0 && !(w->file = calloc((size_t)x.n_shard, sizeof *w->file)))
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory", dir);
    for (int i = 0; i < x.n_shard && code == 0; i++)
        code = add_shard(w, dir, x.shard[i], index, e);
    if (code == 0)
        code = weights_join(w, e);
    if (code == 0)
        code = check_index(w, &x, index, e);
    shard_index_release(&x);
    return code;
}

static int open_single(struct weights *w, const char *dir, struct err *e)
{
    char *path = path_join(dir, "model.safetensors");
    int code = 0;
    if (!path || !(w->file = calloc(1, sizeof *w->file)))
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory", dir);
    else if (!file_exists(path))
        code = err_set(e, ERR_IO,
                       "%s: holds neither model.safetensors.index.json nor "
                       "model.safetensors",
                       dir);
    free(path);
    TRY(code);
    TRY(add_shard(w, dir, "model.safetensors", NULL, e));
    return weights_join(w, e);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

/* "X.weight" -> the tensor "X.scale". */
static int find_scale(const struct weights *w, const struct weight *t, const struct weight **out,
                      struct err *e)
{
    char name[1024];
    size_t n = strlen(t->name);
    if (ends_with(t->name, ".weight"))
        n -= strlen(".weight");
    *out = NULL;
    if (n + sizeof ".scale" <= sizeof name) {
        memcpy(name, t->name, n);
        memcpy(name + n, ".scale", sizeof ".scale");
        *out = weights_find(w, name);
    }
    if (!*out)
        return err_set(e, ERR_FORMAT, "%s: tensor %s is %s, but there is no tensor %.*s.scale",
                       w->file[t->file].path, t->name, t->type == DT_I8 ? "packed FP4 (I8)" : "FP8",
                       (int)n, t->name);
    return 0;
}

/* Pair one FP8 or FP4 tensor with its scales; FP4's columns become elements. */
static int pair_scale(const struct weights *w, struct weight *t, struct err *e)
{
    const struct weight *s;
    const char *file = w->file[t->file].path;
    char found[96], wanted[96];
    TRY(find_scale(w, t, &s, e));
    if (t->n_dim != 2)
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s is %s with %d dimensions, expected 2",
                       file, t->name, dtype_name((int)t->type), t->n_dim);
    if (s->type != DT_F8_E8M0)
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s has dtype %s, expected F8_E8M0", file,
                       s->name, dtype_name((int)s->type));
    struct weight want = { .n_dim = 2 };
    if (t->type == DT_I8) {
        t->type = DT_FP4;
        t->dim[0] *= 2;
        if (t->dim[0] % RUN != 0)
            return err_set(e, ERR_FORMAT,
                           "%s: tensor %s has rows of %lld elements, expected whole "
                           "blocks of %d",
                           file, t->name, (long long)t->dim[0], RUN);
        want.dim[0] = t->dim[0] / RUN;
        want.dim[1] = t->dim[1];
    } else {
        want.dim[0] = (t->dim[0] + TILE - 1) / TILE;
        want.dim[1] = (t->dim[1] + TILE - 1) / TILE;
    }
    if (s->n_dim != 2 || s->dim[0] != want.dim[0] || s->dim[1] != want.dim[1])
        return err_set(
            e, ERR_FORMAT, "%s: tensor %s has shape %s, expected %s for the scales of %s", file,
            s->name, weight_shape_text(found, s), weight_shape_text(wanted, &want), t->name);
    t->scale = s->data;
    t->scale_pitch = s->dim[0];
    return 0;
}

static int pair_scales(struct weights *w, struct err *e)
{
    for (int i = 0; i < w->n_weight; i++) {
        struct weight *t = &w->weight[i];
        if (t->type == DT_F8_E4M3 || (t->type == DT_I8 && ends_with(t->name, ".weight")))
            TRY(pair_scale(w, t, e));
    }
    return 0;
}

int weights_open_checkpoint(struct weights *w, const char *dir, struct err *e)
{
    TRY(read_config(w, dir, e));
    char *index = path_join(dir, "model.safetensors.index.json");
    char *tokenizer = path_join(dir, "tokenizer.json");
    int code;
    if (!index || !tokenizer)
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory", dir);
    else if (file_exists(index))
        code = open_shards(w, dir, index, e);
    else
        code = open_single(w, dir, e);
    free(index);
    if (tokenizer && file_exists(tokenizer))
        w->tokenizer = tokenizer;
    else
        free(tokenizer);
    TRY(code);
    return pair_scales(w, e);
}
