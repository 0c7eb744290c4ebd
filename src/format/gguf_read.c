/* gguf_read.c - a strict reader: every length is compared with what is left before it is used.
 *
 * Counts are bounded by the bytes that so many entries would need at least, so a damaged count
 * fails at once and cannot make the reader allocate more than a small multiple of the file. */
#include "gguf_read.h"

#include "meta_impl.h"
#include "name_index.h"
#include "weights_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_NAME = 1024,
    MAX_COUNT = 1 << 22, /* of tensors, and of metadata entries */
    MAX_ARRAY = 1 << 24, /* elements; the largest known, a list of tokens, has 2^18 */
    MIN_KV_BYTES = 8 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8,
    DEFAULT_ALIGNMENT = 32,
    MAX_ALIGNMENT = 1 << 20,
};

/* Numbers of the file format. */
enum value_type {
    T_U8, T_I8, T_U16, T_I16, T_U32, T_I32, T_F32, T_BOOL, T_STRING, T_ARRAY, T_U64, T_I64, T_F64,
    N_VALUE_TYPE
};

static const struct {
    const char *name;
    enum meta_type type;
    int bytes; /* least on disk */
} value_types[N_VALUE_TYPE] = {
    [T_U8] = { "u8", META_INT, 1 },      [T_I8] = { "i8", META_INT, 1 },
    [T_U16] = { "u16", META_INT, 2 },    [T_I16] = { "i16", META_INT, 2 },
    [T_U32] = { "u32", META_INT, 4 },    [T_I32] = { "i32", META_INT, 4 },
    [T_F32] = { "f32", META_FLOAT, 4 },  [T_BOOL] = { "bool", META_BOOL, 1 },
    [T_STRING] = { "str", META_STR, 8 }, [T_ARRAY] = { "array", META_NONE, 12 },
    [T_U64] = { "u64", META_INT, 8 },    [T_I64] = { "i64", META_INT, 8 },
    [T_F64] = { "f64", META_FLOAT, 8 },
};

/* A place in the bytes of a file; `what` names the field for error texts. */
struct cursor {
    const char *file;
    const uint8_t *data;
    size_t size, at;
    struct err *e;
};

static int bad(struct cursor *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

static int bad(struct cursor *c, const char *fmt, ...)
{
    char text[768];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return err_set(c->e, ERR_FORMAT, "%s: %s", c->file, text);
}

static const uint8_t *take(struct cursor *c, size_t n, const char *what, const char *of)
{
    if (n > c->size - c->at) {
        bad(c, "ends at byte %zu inside %s%s%s, which needs %zu bytes from %zu", c->size, what,
            *of ? " of " : "", of, n, c->at);
        return NULL;
    }
    const uint8_t *p = c->data + c->at;
    c->at += n;
    return p;
}

static uint64_t little(const uint8_t *p, int n)
{
    uint64_t x = 0;
    for (int i = 0; i < n; i++)
        x |= (uint64_t)p[i] << 8 * i;
    return x;
}

static int take_u32(struct cursor *c, uint32_t *out, const char *what, const char *of)
{
    const uint8_t *p = take(c, 4, what, of);
    if (!p)
        return ERR_FORMAT;
    *out = (uint32_t)little(p, 4);
    return 0;
}

static int take_u64(struct cursor *c, uint64_t *out, const char *what, const char *of)
{
    const uint8_t *p = take(c, 8, what, of);
    if (!p)
        return ERR_FORMAT;
    *out = little(p, 8);
    return 0;
}

/* A count of things of at least `each` bytes cannot exceed what is left of the file. */
static int take_count(struct cursor *c, uint64_t *out, size_t each, const char *what,
                      const char *of)
{
    TRY(take_u64(c, out, what, of));
    if (*out > (c->size - c->at) / each)
        return bad(c, "%s%s%s is %llu, expected at most %zu in the %zu bytes left", what,
                   *of ? " of " : "", of, (unsigned long long)*out, (c->size - c->at) / each,
                   c->size - c->at);
    return 0;
}

static int take_string(struct cursor *c, const char **data, size_t *len, const char *what,
                       const char *of)
{
    uint64_t n;
    TRY(take_count(c, &n, 1, what, of));
    *data = (const char *)take(c, (size_t)n, what, of);
    *len = (size_t)n;
    return *data ? 0 : ERR_FORMAT;
}

/* Names and keys: not empty, not huge, no zero inside. */
static int take_name(struct cursor *c, const char **data, size_t *len, const char *what)
{
    size_t at = c->at;
    TRY(take_string(c, data, len, what, ""));
    if (*len == 0 || *len > MAX_NAME || memchr(*data, 0, *len))
        return bad(c, "%s at byte %zu has %zu bytes or a zero inside, expected 1 to %d", what, at,
                   *len, MAX_NAME);
    return 0;
}

static int copy_string(struct cursor *c, struct meta *m, struct meta_str *out, const char *key)
{
    const char *data;
    size_t len;
    TRY(take_string(c, &data, &len, "a string's length", key));
    char *copy = meta_alloc(m, len + 1, 1, c->e);
    if (!copy)
        return ERR_NO_MEMORY;
    memcpy(copy, data, len);
    copy[len] = 0;
    *out = (struct meta_str){ copy, len };
    return 0;
}

static int read_scalar(struct cursor *c, enum value_type t, void *out, const char *key)
{
    int n = value_types[t].bytes;
    const uint8_t *p = take(c, (size_t)n, "the value", key);
    if (!p)
        return ERR_FORMAT;
    uint64_t bits = little(p, n);
    int64_t *i = out;
    if (t == T_F32) {
        uint32_t bits32 = (uint32_t)bits;
        float f;
        memcpy(&f, &bits32, sizeof f);
        *(double *)out = f;
    } else if (t == T_F64) {
        memcpy(out, &bits, sizeof bits);
    } else if (t == T_I8 || t == T_I16 || t == T_I32) {
        uint64_t sign = (uint64_t)1 << (8 * n - 1);
        *i = (int64_t)(bits ^ sign) - (int64_t)sign;
    } else {
        *i = (int64_t)bits;
    }
    if (t == T_U64 && bits > INT64_MAX)
        return bad(c, "key %s is %llu, expected less than 2^63", key, (unsigned long long)bits);
    if (t == T_BOOL && bits > 1)
        return bad(c, "key %s is a bool of value %d, expected 0 or 1", key, (int)bits);
    return 0;
}

static int take_value_type(struct cursor *c, uint32_t *t, const char *key)
{
    TRY(take_u32(c, t, "the value type", key));
    if (*t >= N_VALUE_TYPE)
        return bad(c, "key %s has value type %u, expected 0 to %d", key, (unsigned)*t,
                   N_VALUE_TYPE - 1);
    return 0;
}

static int read_kv(struct cursor *c, struct meta *m)
{
    const char *name;
    size_t len;
    uint32_t t;
    uint64_t n = 1;
    TRY(take_name(c, &name, &len, "a metadata key"));
    char *key = meta_alloc(m, len + 1, 1, c->e);
    if (!key)
        return ERR_NO_MEMORY;
    memcpy(key, name, len);
    key[len] = 0;
    TRY(take_value_type(c, &t, key));
    bool is_array = t == T_ARRAY;
    if (is_array) {
        TRY(take_value_type(c, &t, key));
        if (t == T_ARRAY)
            return err_set(c->e, ERR_UNSUPPORTED, "%s: key %s is an array of arrays", c->file, key);
        TRY(take_count(c, &n, (size_t)value_types[t].bytes, "the array length", key));
        if (n > MAX_ARRAY)
            return err_set(c->e, ERR_LIMIT, "%s: key %s has %llu elements, expected at most %d",
                           c->file, key, (unsigned long long)n, MAX_ARRAY);
    }
    size_t each = t == T_STRING ? sizeof(struct meta_str) : 8;
    char *values = meta_alloc(m, (size_t)n, each, c->e);
    if (!values)
        return ERR_NO_MEMORY;
    for (uint64_t i = 0; i < n; i++) {
        void *value = values + i * each;
        if (t == T_STRING)
            TRY(copy_string(c, m, value, key));
        else
            TRY(read_scalar(c, (enum value_type)t, value, key));
    }
    struct meta_kv kv = { .key = key, .type = value_types[t].type, .is_array = is_array,
                          .n = (int64_t)n };
    if (t == T_STRING)
        kv.v.s = (const struct meta_str *)(void *)values;
    else if (kv.type == META_FLOAT)
        kv.v.f = (const double *)(void *)values;
    else
        kv.v.i = (const int64_t *)(void *)values;
    return meta_add(m, kv, c->e);
}

bool gguf_has_type(int type)
{
    return type >= 0 && type < DT_F8_E4M3 && dtype_info(type);
}

static int unknown_type(struct cursor *c, const char *name, uint32_t type)
{
    char known[256] = "";
    size_t used = 0;
    for (int t = 0; t < DT_F8_E4M3; t++) {
        if (gguf_has_type(t) && used + 16 < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%d %s", used ? ", " : "",
                                     t, dtype_name(t));
    }
    return err_set(c->e, ERR_UNSUPPORTED, "%s: tensor %s has type %u, known are %s", c->file, name,
                   (unsigned)type, known);
}

static int read_tensor(struct cursor *c, struct weight *w, char **names)
{
    const char *name;
    size_t len;
    uint32_t n_dim, type;
    uint64_t offset;
    TRY(take_name(c, &name, &len, "a tensor name"));
    memcpy(*names, name, len);
    (*names)[len] = 0;
    w->name = *names;
    *names += len + 1;
    TRY(take_u32(c, &n_dim, "the number of dimensions", w->name));
    if (n_dim < 1 || n_dim > 4)
        return bad(c, "tensor %s has %u dimensions, expected 1 to 4", w->name, (unsigned)n_dim);
    w->n_dim = (int)n_dim;
    for (int i = 0; i < 4; i++) {
        uint64_t dim = 1;
        if (i < w->n_dim)
            TRY(take_u64(c, &dim, "a dimension", w->name));
        if (dim > INT64_MAX)
            return bad(c, "tensor %s has dimension %llu, expected below 2^63", w->name,
                       (unsigned long long)dim);
        w->dim[i] = (int64_t)dim;
    }
    TRY(take_u32(c, &type, "the type", w->name));
    if (type > INT32_MAX || !gguf_has_type((int)type))
        return unknown_type(c, w->name, type);
    w->type = (enum dtype)type;
    TRY(take_u64(c, &offset, "the offset", w->name));
    if (offset > INT64_MAX)
        return bad(c, "tensor %s has offset %llu, expected below 2^63", w->name,
                   (unsigned long long)offset);
    w->offset = (int64_t)offset;
    return weight_set_bytes(w, c->file, c->e);
}

static int read_header(struct cursor *c, struct gguf *g, uint64_t *n_tensor, uint64_t *n_kv)
{
    uint32_t version;
    const uint8_t *magic = take(c, 4, "the magic number", "");
    if (!magic)
        return ERR_FORMAT;
    if (memcmp(magic, "GGUF", 4) != 0)
        return bad(c, "starts with bytes %02x %02x %02x %02x, expected \"GGUF\"", magic[0],
                   magic[1], magic[2], magic[3]);
    TRY(take_u32(c, &version, "the version", ""));
    if (version == 0x02000000 || version == 0x03000000)
        return err_set(c->e, ERR_UNSUPPORTED, "%s: is big-endian, expected little-endian", c->file);
    if (version != 2 && version != 3)
        return err_set(c->e, ERR_UNSUPPORTED, "%s: is GGUF version %u, expected 2 or 3", c->file,
                       (unsigned)version);
    g->version = (int)version;
    /* The tensors lie behind the metadata, so the second bound is only known later; this one
     * already keeps the allocation sane. */
    TRY(take_count(c, n_tensor, MIN_TENSOR_BYTES, "the number of tensors", ""));
    TRY(take_count(c, n_kv, MIN_KV_BYTES, "the number of metadata entries", ""));
    if (*n_tensor > MAX_COUNT || *n_kv > MAX_COUNT)
        return err_set(c->e, ERR_LIMIT,
                       "%s: %llu tensors and %llu metadata entries, the limit is %d", c->file,
                       (unsigned long long)*n_tensor, (unsigned long long)*n_kv, MAX_COUNT);
    return 0;
}

static int read_alignment(const struct meta *m, const char *file, int64_t *out, struct err *e)
{
    TRY(meta_int_or(m, "general.alignment", DEFAULT_ALIGNMENT, out, e));
    if (*out < 8 || *out > MAX_ALIGNMENT || *out % 8 != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: general.alignment is %lld, expected a multiple of 8 up to %d", file,
                       (long long)*out, MAX_ALIGNMENT);
    return 0;
}

/* Offsets count from the data; make them count from the file and see that they lie inside. */
static int place_tensor(struct gguf *g, struct weight *w, struct cursor *c, int64_t alignment)
{
    size_t room = c->size > g->data_at ? c->size - g->data_at : 0;
    if (w->offset % alignment != 0)
        return bad(c, "tensor %s has offset %lld, expected a multiple of %lld", w->name,
                   (long long)w->offset, (long long)alignment);
    if ((uint64_t)w->offset > room || w->bytes > room - (size_t)w->offset)
        return bad(c,
                   "tensor %s has %zu bytes from byte %lld of the data, expected to end by %zu (is "
                   "the file complete?)",
                   w->name, w->bytes, (long long)w->offset, room);
    w->offset += (int64_t)g->data_at;
    w->data = c->data + w->offset;
    return 0;
}

/* Random tensors whose bytes were left out: four numbers for each tensor (docs/formats.md). */
static int read_counted(struct gguf *g, struct cursor *c)
{
    const struct meta_kv *kv = meta_find(g->meta, GGUF_COUNTED_KEY);
    if (!kv)
        return 0;
    if (kv->type != META_INT || !kv->is_array || kv->n != 4 * (int64_t)g->n_tensor)
        return bad(c, "key %s has %lld values, expected %lld integers", kv->key, (long long)kv->n,
                   4 * (long long)g->n_tensor);
    for (int i = 0; i < g->n_tensor; i++) {
        const int64_t *v = kv->v.i + 4 * i;
        struct weight *w = &g->tensor[i];
        if (v[3] == GGUF_STORED)
            continue;
        w->counted = true;
        w->random.type = w->type;
        w->random.key = (uint64_t)(uint32_t)v[1] << 32 | (uint32_t)v[0];
        w->random.shift = (int)v[2];
        w->random.around_one = v[3] == GGUF_AROUND_ONE;
        if (v[2] != w->random.shift || !quant_random_can(&w->random))
            return bad(c, "tensor %s: no random numbers of type %s with shift %lld", w->name,
                       dtype_name((int)w->type), (long long)v[2]);
    }
    return 0;
}

static int check_names(const struct gguf *g, const char *file, struct err *e)
{
    struct name_index index = { 0 };
    int code = 0, older;
    for (int i = 0; i < g->n_tensor && code == 0; i++) {
        code = name_index_add(&index, g->tensor[i].name, i, &older, e);
        if (code == 0 && older >= 0)
            code = err_set(e, ERR_FORMAT, "%s: tensor %s occurs twice", file, g->tensor[i].name);
    }
    name_index_release(&index);
    return code;
}

static int parse(struct gguf *g, struct cursor *c)
{
    uint64_t n_tensor, n_kv;
    int64_t alignment;
    TRY(read_header(c, g, &n_tensor, &n_kv));
    if (!(g->meta = meta_new(c->file)))
        return err_set(c->e, ERR_NO_MEMORY, "%s: out of memory", c->file);
    for (uint64_t i = 0; i < n_kv; i++)
        TRY(read_kv(c, g->meta));
    TRY(read_alignment(g->meta, c->file, &alignment, c->e));
    if (n_tensor > (c->size - c->at) / MIN_TENSOR_BYTES)
        return bad(c, "%llu tensors, expected at most %zu in the %zu bytes left",
                   (unsigned long long)n_tensor, (c->size - c->at) / MIN_TENSOR_BYTES,
                   c->size - c->at);
    g->n_tensor = (int)n_tensor;
    g->tensor = calloc((size_t)n_tensor + 1, sizeof *g->tensor);
    /* A name and its zero are shorter than its entry in the file. */
    size_t room = MIN(c->size - c->at, (size_t)n_tensor * (MAX_NAME + MIN_TENSOR_BYTES));
    g->names = malloc(room + 1);
    if (!g->tensor || !g->names)
        return err_set(c->e, ERR_NO_MEMORY, "%s: out of memory for %d tensors", c->file,
                       g->n_tensor);
    char *names = g->names;
    for (int i = 0; i < g->n_tensor; i++)
        TRY(read_tensor(c, &g->tensor[i], &names));
    g->data_at = round_up(c->at, (size_t)alignment);
    for (int i = 0; i < g->n_tensor; i++)
        TRY(place_tensor(g, &g->tensor[i], c, alignment));
    TRY(read_counted(g, c));
    TRY(check_names(g, c->file, c->e));
    return weights_check_overlap(g->tensor, g->n_tensor, c->file, c->e);
}

int gguf_parse(struct gguf *g, const char *file, const uint8_t *data, size_t size, struct err *e)
{
    struct cursor c = { file, data, size, 0, e };
    *g = (struct gguf){ 0 };
    int code = parse(g, &c);
    if (code < 0)
        gguf_release(g);
    return code;
}

void gguf_release(struct gguf *g)
{
    meta_free(g->meta);
    free(g->tensor);
    free(g->names);
    *g = (struct gguf){ 0 };
}
