/* safetensors.c - directories of safetensors files, their JSON taken apart by jansson.
 *
 * The headers of the largest checkpoint (145 thousand tensors in 64 files, 20 MB of JSON) are
 * parsed in half a second on one core, so a reader of our own for this small grammar was
 * rejected. */
#include "safetensors.h"

#include "weights_impl.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_HEADER = 100 << 20, /* the limit of the vendor's own library */
};

static const struct {
    const char *name;
    enum dtype type;
} file_types[] = {
    { "BF16", DT_BF16 },       { "F16", DT_F16 },         { "F32", DT_F32 }, { "I8", DT_I8 },
    { "F8_E4M3", DT_F8_E4M3 }, { "F8_E8M0", DT_F8_E8M0 }, { "I32", DT_I32 }, { "I64", DT_I64 },
};

static int read_type(struct weight *w, const char *file, const json_t *entry, struct err *e)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    for (size_t i = 0; name && i < COUNT_OF(file_types); i++) {
        if (strcmp(file_types[i].name, name) == 0) {
            w->type = file_types[i].type;
            return 0;
        }
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: tensor %s has dtype %s, expected BF16, F16, F32, F8_E4M3, "
                   "F8_E8M0, I8, I32 or I64",
                   file, w->name, name ? name : "missing");
}

static int read_shape(struct weight *w, const char *file, const json_t *entry, struct err *e)
{
    const json_t *shape = json_object_get(entry, "shape");
    size_t n = json_array_size(shape);
    if (!json_is_array(shape) || n > 4)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor %s has a shape of %zu dimensions, expected 0 to 4", file,
                       w->name, n);
    w->n_dim = n ? (int)n : 1;
    for (size_t i = 0; i < 4; i++)
        w->dim[i] = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *dim = json_array_get(shape, n - 1 - i);
        if (!json_is_integer(dim))
            return err_set(e, ERR_FORMAT, "%s: tensor %s has a shape that is not all integers",
                           file, w->name);
        w->dim[i] = json_integer_value(dim);
    }
    return weight_set_bytes(w, file, e);
}

static int read_place(struct weight *w, const char *file, const json_t *entry, size_t room,
                      struct err *e)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *a = json_array_get(offsets, 0), *b = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(a) || !json_is_integer(b))
        return err_set(e, ERR_FORMAT, "%s: tensor %s: data_offsets are not two integers", file,
                       w->name);
    long long from = json_integer_value(a), to = json_integer_value(b);
    if (from < 0 || to < from || (unsigned long long)to > room)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor %s has data_offsets %lld to %lld, expected inside the "
                       "%zu bytes of data (is the file complete?)",
                       file, w->name, from, to, room);
    if ((size_t)(to - from) != w->bytes) {
        char shape[96];
        return err_set(e, ERR_FORMAT, "%s: tensor %s has %lld bytes, expected %zu for %s %s", file,
                       w->name, to - from, w->bytes, dtype_name((int)w->type),
                       weight_shape_text(shape, w));
    }
    w->offset = from;
    return 0;
}

static int read_entries(struct safetensors *s, const char *file, json_t *header, size_t room,
                        struct err *e)
{
    size_t n = json_object_size(header), names_bytes = 1;
    const char *name;
    json_t *entry;
    json_object_foreach (header, name, entry)
        names_bytes += strlen(name) + 1;
    s->tensor = calloc(n + 1, sizeof *s->tensor);
    s->names = malloc(names_bytes);
    if (!s->tensor || !s->names)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for %zu tensors", file, n);
    char *names = s->names;
    json_object_foreach (header, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        struct weight *w = &s->tensor[s->n_tensor++];
        size_t bytes = strlen(name) + 1;
        memcpy(names, name, bytes);
        w->name = names;
        names += bytes;
        TRY(read_type(w, file, entry, e));
        TRY(read_shape(w, file, entry, e));
        TRY(read_place(w, file, entry, room, e));
    }
    return weights_check_overlap(s->tensor, s->n_tensor, file, e);
}

static json_t *read_json(const char *file, const char *text, size_t len, struct err *e)
{
    json_error_t je;
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    if (json && json_is_object(json))
        return json;
    if (json)
        err_set(e, ERR_FORMAT, "%s: the header is not a JSON object", file);
    else
        err_set(e, ERR_FORMAT, "%s: header, byte %d: %s", file, je.position, je.text);
    json_decref(json);
    return NULL;
}

int safetensors_parse(struct safetensors *s, const char *file, const uint8_t *data, size_t size,
                      struct err *e)
{
    uint64_t n = 0;
    *s = (struct safetensors){ 0 };
    if (size < 8)
        return err_set(e, ERR_FORMAT, "%s: has %zu bytes, expected a header of at least 8", file,
                       size);
    for (int i = 0; i < 8; i++)
        n |= (uint64_t)data[i] << 8 * i;
    if (n > MAX_HEADER || n > size - 8)
        return err_set(e, ERR_FORMAT, "%s: states a header of %llu bytes, expected at most %zu",
                       file, (unsigned long long)n, MIN((size_t)MAX_HEADER, size - 8));
    json_t *header = read_json(file, (const char *)data + 8, (size_t)n, e);
    if (!header)
        return ERR_FORMAT;
    size_t data_at = 8 + (size_t)n;
    int code = read_entries(s, file, header, size - data_at, e);
    json_decref(header);
    for (int i = 0; i < s->n_tensor && code == 0; i++) {
        s->tensor[i].offset += (int64_t)data_at;
        s->tensor[i].data = data + s->tensor[i].offset;
    }
    if (code < 0)
        safetensors_release(s);
    return code;
}

void safetensors_release(struct safetensors *s)
{
    free(s->tensor);
    free(s->names);
    *s = (struct safetensors){ 0 };
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A shard lies beside the index: its name must not lead anywhere else. */
static bool is_plain_name(const char *name)
{
    return name && *name && *name != '.' && !strpbrk(name, "/\\");
}

static int read_index(struct shard_index *x, const char *file, struct err *e)
{
    json_t *map = json_object_get(x->json, "weight_map"), *value;
    const char *name;
    size_t n = json_object_size(map);
    if (!json_is_object(map) || n == 0 || n > INT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: weight_map is missing or empty", file);
    x->name = calloc(n, sizeof *x->name);
    x->file = calloc(n, sizeof *x->file);
    x->shard = calloc(n, sizeof *x->shard);
    if (!x->name || !x->file || !x->shard)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for %zu tensors", file, n);
    json_object_foreach (map, name, value) {
        const char *shard = json_string_value(value);
        if (!is_plain_name(shard))
            return err_set(e, ERR_FORMAT,
                           "%s: weight_map gives tensor %s the file \"%s\", expected a "
                           "name without a path",
                           file, name, shard ? shard : "");
        x->name[x->n_tensor] = name;
        x->file[x->n_tensor] = x->shard[x->n_tensor] = shard;
        x->n_tensor++;
    }
    qsort(x->shard, n, sizeof *x->shard, by_text);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(x->shard[i], x->shard[x->n_shard - 1]) != 0)
            x->shard[x->n_shard++] = x->shard[i];
    }
    return 0;
}

int shard_index_parse(struct shard_index *x, const char *file, const char *text, size_t len,
                      struct err *e)
{
    *x = (struct shard_index){ 0 };
    x->json = read_json(file, text, len, e);
    int code = x->json ? read_index(x, file, e) : ERR_FORMAT;
    if (code < 0)
        shard_index_release(x);
    return code;
}

void shard_index_release(struct shard_index *x)
{
    json_decref(x->json);
    free(x->name);
    free(x->file);
    free(x->shard);
    *x = (struct shard_index){ 0 };
}
