/* gguf_write.c - metadata is gathered in memory, data goes straight to its place in the file.
 *
 * Gaps that align tensors are never written: the file system gives zeros. Rejected: writing
 * tensors in order only, which would keep several threads from converting at once. */
#include "gguf_write.h"

#include "hash.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_ALIGNMENT = 32 };
#define MAX_KV_BYTES ((size_t)1 << 30)

/* Numbers of the file format. */
enum {
    T_U32 = 4, T_I32 = 5, T_F32 = 6, T_BOOL = 7, T_STRING = 8, T_ARRAY = 9, T_U64 = 10, T_I64 = 11
};

struct gguf_out {
    char *name;
    enum dtype type;
    int n_dim;
    int64_t dim[4];
    int64_t offset; /* in the data */
    size_t bytes;
    _Atomic size_t written;
};

static void put_int(struct buf *b, uint64_t x, int bytes)
{
    char le[8];
    for (int i = 0; i < bytes; i++)
        le[i] = (char)(x >> 8 * i & 255);
    buf_add(b, le, (size_t)bytes);
}

static void put_float(struct buf *b, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    put_int(b, bits, 4);
}

static void put_text(struct buf *b, const char *data, size_t len)
{
    put_int(b, len, 8);
    buf_add(b, data, len);
}

static void put_key(struct gguf_writer *w, const char *key, int type)
{
    put_text(&w->kv, key, strlen(key));
    put_int(&w->kv, (uint64_t)type, 4);
    w->n_kv++;
}

static void put_array(struct gguf_writer *w, const char *key, int type, int64_t n)
{
    put_key(w, key, T_ARRAY);
    put_int(&w->kv, (uint64_t)type, 4);
    put_int(&w->kv, (uint64_t)n, 8);
}

void gguf_write_plan(struct gguf_writer *w)
{
    *w = (struct gguf_writer){ .file = { .fd = -1 }, .alignment = DEFAULT_ALIGNMENT };
    buf_init(&w->kv, MAX_KV_BYTES);
}

int gguf_write_to(struct gguf_writer *w, const char *path, bool keep, struct err *e)
{
    return keep ? file_out_reopen(&w->file, path, &w->kept, e) : file_out_open(&w->file, path, e);
}

int gguf_write_to_memory(struct gguf_writer *w, struct file_memory *m, struct err *e)
{
    return file_out_memory(&w->file, m, e);
}

int gguf_write_open(struct gguf_writer *w, const char *path, struct err *e)
{
    gguf_write_plan(w);
    return gguf_write_to(w, path, false, e);
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    put_key(w, key, T_U32);
    put_int(&w->kv, value, 4);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float value)
{
    put_key(w, key, T_F32);
    put_float(&w->kv, value);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool value)
{
    put_key(w, key, T_BOOL);
    put_int(&w->kv, value, 1);
}

void gguf_put_str(struct gguf_writer *w, const char *key, const char *value)
{
    put_key(w, key, T_STRING);
    put_text(&w->kv, value, strlen(value));
}

void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *value, int n)
{
    put_array(w, key, T_I32, n);
    for (int i = 0; i < n; i++)
        put_int(&w->kv, (uint32_t)value[i], 4);
}

int64_t gguf_i32s_at(const struct gguf_writer *w, int n)
{
    enum { HEAD_BYTES = 24 };
    CHECK(w->kv.failed || w->kv.len >= 4 * (size_t)n);
    return HEAD_BYTES + (int64_t)w->kv.len - 4 * n;
}

int gguf_write_i32s(struct gguf_writer *w, int64_t at, const int32_t *value, int n, struct err *e)
{
    struct buf bytes;
    CHECK(w->data_at > 0 && at > 0 && at + 4 * n <= w->data_at);
    buf_init(&bytes, MAX_KV_BYTES);
    for (int i = 0; i < n; i++)
        put_int(&bytes, (uint32_t)value[i], 4);
    int code = bytes.failed ? err_set(e, ERR_NO_MEMORY, "%s: out of memory", w->file.path)
                            : file_out_write_at(&w->file, at, bytes.data, bytes.len, e);
    buf_release(&bytes);
    return code;
}

void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *value, int n)
{
    put_array(w, key, T_F32, n);
    for (int i = 0; i < n; i++)
        put_float(&w->kv, value[i]);
}

void gguf_put_strs(struct gguf_writer *w, const char *key, int n)
{
    put_array(w, key, T_STRING, n);
}

void gguf_put_item(struct gguf_writer *w, const char *data, size_t len)
{
    put_text(&w->kv, data, len);
}

static int int_type(const struct meta_kv *kv)
{
    int64_t least = 0, most = 0;
    for (int64_t i = 0; i < kv->n; i++) {
        least = MIN(least, kv->v.i[i]);
        most = MAX(most, kv->v.i[i]);
    }
    if (least < 0)
        return least >= INT32_MIN && most <= INT32_MAX ? T_I32 : T_I64;
    return most <= UINT32_MAX ? T_U32 : T_U64;
}

void gguf_put_kv(struct gguf_writer *w, const struct meta_kv *kv)
{
    static const int plain[] = {
        [META_FLOAT] = T_F32, [META_BOOL] = T_BOOL, [META_STR] = T_STRING
    };
    if (kv->type == META_NONE)
        return;
    int type = kv->type == META_INT ? int_type(kv) : plain[kv->type];
    if (kv->is_array)
        put_array(w, kv->key, type, kv->n);
    else
        put_key(w, kv->key, type);
    for (int64_t i = 0; i < kv->n; i++) {
        if (type == T_STRING)
            put_text(&w->kv, kv->v.s[i].data, kv->v.s[i].len);
        else if (type == T_F32)
            put_float(&w->kv, (float)kv->v.f[i]);
        else
            put_int(&w->kv, (uint64_t)kv->v.i[i], type == T_BOOL ? 1 : type >= T_U64 ? 8 : 4);
    }
}

static int grow(struct gguf_writer *w, struct err *e)
{
    int cap = w->cap_tensor ? w->cap_tensor * 2 : 256;
    struct gguf_out *more = realloc(w->tensor, (size_t)cap * sizeof *more);
    if (!more)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for %d tensors", w->file.path, cap);
    w->tensor = more;
    w->cap_tensor = cap;
    return 0;
}

int gguf_add_tensor(struct gguf_writer *w, const char *name, enum dtype type, int n_dim,
                    const int64_t *dim, struct err *e)
{
    size_t n = 1, name_bytes = strlen(name) + 1;
    CHECK(w->data_at == 0 && n_dim >= 1 && n_dim <= 4 && type < DT_F8_E4M3);
    if (w->n_tensor == w->cap_tensor)
        TRY(grow(w, e));
    struct gguf_out *t = &w->tensor[w->n_tensor];
    *t = (struct gguf_out){ .type = type, .n_dim = n_dim, .offset = w->data_bytes };
    for (int i = 0; i < n_dim; i++) {
        CHECK(dim[i] > 0 && mul_size(n, (size_t)dim[i], &n));
        t->dim[i] = dim[i];
    }
    CHECK(dim[0] % dtype_info((int)type)->block == 0);
    t->bytes = dtype_bytes(type, n);
    t->name = malloc(name_bytes);
    if (!t->name)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", w->file.path);
    memcpy(t->name, name, name_bytes);
    w->data_bytes += (int64_t)round_up(t->bytes, w->alignment);
    return w->n_tensor++;
}

size_t gguf_tensor_bytes(const struct gguf_writer *w, int tensor)
{
    CHECK(tensor >= 0 && tensor < w->n_tensor);
    return w->tensor[tensor].bytes;
}

/* Everything before the data. */
static void put_head(const struct gguf_writer *w, struct buf *b)
{
    buf_add(b, "GGUF", 4);
    put_int(b, 3, 4);
    put_int(b, (uint64_t)w->n_tensor, 8);
    put_int(b, w->n_kv, 8);
    buf_add(b, w->kv.data, w->kv.len);
    for (int i = 0; i < w->n_tensor; i++) {
        const struct gguf_out *t = &w->tensor[i];
        put_text(b, t->name, strlen(t->name));
        put_int(b, (uint64_t)t->n_dim, 4);
        for (int d = 0; d < t->n_dim; d++)
            put_int(b, (uint64_t)t->dim[d], 8);
        put_int(b, (uint64_t)t->type, 4);
        put_int(b, (uint64_t)t->offset, 8);
    }
    while (b->len % w->alignment && !b->failed)
        buf_putc(b, 0);
}

/* With the key that says how tensors are aligned, where that is not usual. */
static void head_of(struct gguf_writer *w, struct buf *head)
{
    if (w->alignment != DEFAULT_ALIGNMENT)
        gguf_put_u32(w, "general.alignment", (uint32_t)w->alignment);
    buf_init(head, MAX_KV_BYTES + ((size_t)1 << 30));
    put_head(w, head);
    head->failed |= w->kv.failed;
}

int64_t gguf_write_bytes(const struct gguf_writer *w)
{
    struct buf head;
    CHECK(w->alignment == DEFAULT_ALIGNMENT && w->data_at == 0);
    buf_init(&head, MAX_KV_BYTES + ((size_t)1 << 30));
    put_head(w, &head);
    int64_t bytes = head.failed || w->kv.failed ? -1 : (int64_t)head.len + w->data_bytes;
    buf_release(&head);
    return bytes;
}

uint64_t gguf_write_hash(const struct gguf_writer *w)
{
    struct buf head;
    CHECK(w->data_at == 0);
    buf_init(&head, MAX_KV_BYTES + ((size_t)1 << 30));
    put_head(w, &head);
    uint64_t hash = hash_of(head.data, head.len, w->alignment);
    buf_release(&head);
    return hash;
}

int gguf_write_begin(struct gguf_writer *w, struct err *e)
{
    struct buf head;
    CHECK(w->data_at == 0);
    head_of(w, &head);
    int code = 0;
    int64_t room = w->file.part ? file_space_free(w->file.part) : -1;
    int64_t need = (int64_t)head.len + w->data_bytes - w->kept;
    if (head.failed)
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory for metadata", w->file.path);
    else if (room >= 0 && room < need)
        code = err_set(e, ERR_NO_MEMORY, "%s: needs %lld bytes, its file system has %lld free",
                       w->file.path, (long long)need, (long long)room);
    else
        code = file_out_write(&w->file, head.data, head.len, e);
    w->data_at = (int64_t)head.len;
    buf_release(&head);
    return code;
}

int gguf_write_data(struct gguf_writer *w, int tensor, size_t at, const void *data, size_t n,
                    struct err *e)
{
    CHECK(w->data_at > 0 && tensor >= 0 && tensor < w->n_tensor);
    struct gguf_out *t = &w->tensor[tensor];
    CHECK(at <= t->bytes && n <= t->bytes - at);
    atomic_fetch_add(&t->written, n);
    return file_out_write_at(&w->file, w->data_at + t->offset + (int64_t)at, data, n, e);
}

int gguf_write_read(const struct gguf_writer *w, int tensor, size_t at, void *dst, size_t n,
                    struct err *e)
{
    CHECK(w->data_at > 0 && tensor >= 0 && tensor < w->n_tensor);
    const struct gguf_out *t = &w->tensor[tensor];
    CHECK(at <= t->bytes && n <= t->bytes - at);
    return file_out_read_at(&w->file, w->data_at + t->offset + (int64_t)at, dst, n, e);
}

void gguf_write_kept(struct gguf_writer *w, int tensor, size_t n)
{
    CHECK(tensor >= 0 && tensor < w->n_tensor);
    atomic_fetch_add(&w->tensor[tensor].written, n);
}

/* The last tensor is padded like the others, which some readers insist on. */
static int pad_end(struct gguf_writer *w, struct err *e)
{
    const struct gguf_out *last = &w->tensor[w->n_tensor - 1];
    static const char zero[1];
    if (w->data_bytes == last->offset + (int64_t)last->bytes)
        return 0;
    return file_out_write_at(&w->file, w->data_at + w->data_bytes - 1, zero, 1, e);
}

int gguf_write_finish(struct gguf_writer *w, struct err *e)
{
    int code = 0;
    CHECK(w->data_at > 0);
    for (int i = 0; i < w->n_tensor; i++)
        CHECK(w->tensor[i].written == w->tensor[i].bytes);
    if (w->n_tensor > 0)
        code = pad_end(w, e);
    if (code == 0)
        code = file_out_commit(&w->file, e);
    gguf_write_abort(w);
    return code;
}

void gguf_write_abort(struct gguf_writer *w)
{
    file_out_abort(&w->file);
    buf_release(&w->kv);
    for (int i = 0; i < w->n_tensor; i++)
        free(w->tensor[i].name);
    free(w->tensor);
    *w = (struct gguf_writer){ 0 };
}

void gguf_write_leave(struct gguf_writer *w)
{
    file_out_leave(&w->file);
    gguf_write_abort(w);
}
