/* gguf_bytes.h - GGUF files put together byte by byte, right or deliberately wrong, for tests.
 *
 * Independent of the writer in src/format on purpose: two mistakes must not agree. */
#ifndef DS_GGUF_BYTES_H
#define DS_GGUF_BYTES_H

#include "buf.h"

static inline void put_le(struct buf *b, uint64_t x, int n)
{
    for (int i = 0; i < n; i++)
        buf_putc(b, (char)(x >> 8 * i & 255));
}

static inline void put_str(struct buf *b, const char *s)
{
    put_le(b, strlen(s), 8);
    buf_add(b, s, strlen(s));
}

static inline void put_head(struct buf *b, uint64_t n_tensor, uint64_t n_kv)
{
    buf_init(b, (size_t)1 << 26);
    buf_add(b, "GGUF", 4);
    put_le(b, 3, 4);
    put_le(b, n_tensor, 8);
    put_le(b, n_kv, 8);
}

static inline void put_kv_u32(struct buf *b, const char *key, uint32_t x)
{
    put_str(b, key);
    put_le(b, 4, 4);
    put_le(b, x, 4);
}

static inline void put_kv_str(struct buf *b, const char *key, const char *value)
{
    put_str(b, key);
    put_le(b, 8, 4);
    put_str(b, value);
}

/* n_dim as given, dims a and b. */
static inline void put_tensor(struct buf *b, const char *name, int n_dim, uint64_t d0, uint64_t d1,
                              int type, uint64_t offset)
{
    put_str(b, name);
    put_le(b, (uint64_t)n_dim, 4);
    if (n_dim > 0)
        put_le(b, d0, 8);
    if (n_dim > 1)
        put_le(b, d1, 8);
    for (int i = 2; i < n_dim; i++)
        put_le(b, 1, 8);
    put_le(b, (uint64_t)type, 4);
    put_le(b, offset, 8);
}

/* Fill up to a multiple of the alignment, then n bytes of data: 0, 1, 2 ... */
static inline void put_data(struct buf *b, size_t alignment, size_t n)
{
    while (b->len % alignment)
        buf_putc(b, 0);
    for (size_t i = 0; i < n; i++)
        buf_putc(b, (char)i);
}

#endif
