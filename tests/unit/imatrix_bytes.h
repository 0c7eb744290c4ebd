/* imatrix_bytes.h - importance matrices put together byte by byte, in both formats. */
#ifndef DS_IMATRIX_BYTES_H
#define DS_IMATRIX_BYTES_H

#include "unit/gguf_bytes.h"

/* One matrix: n_mat vectors of n_col mean squares, and the tokens of each; value: means or NULL. */
struct imatrix_part {
    const char *name;
    int n_col, n_mat;
    const float *mean, *count, *value;
};

static inline void put_f32(struct buf *b, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    put_le(b, bits, 4);
}

/* The legacy format with n_call calls, as means times calls. */
static inline void put_legacy(struct buf *b, const struct imatrix_part *part, int n, int n_call)
{
    buf_init(b, (size_t)1 << 26);
    put_le(b, (uint64_t)n, 4);
    for (int i = 0; i < n; i++) {
        put_le(b, strlen(part[i].name), 4);
        buf_puts(b, part[i].name);
        put_le(b, (uint64_t)n_call, 4);
        put_le(b, (uint64_t)(part[i].n_col * part[i].n_mat), 4);
        for (int j = 0; j < part[i].n_col * part[i].n_mat; j++)
            put_f32(b, part[i].mean[j] * (float)n_call);
    }
    put_le(b, 17, 4);
    put_le(b, 4, 4);
    buf_puts(b, "text");
}

/* GGUF: all sums of squares first, then all counts, then what values there are. */
static inline void put_gguf_imatrix(struct buf *b, const struct imatrix_part *part, int n)
{
    static const char *const ending[] = { ".in_sum2", ".counts", ".in_sum" };
    char name[256];
    uint64_t at = 0, n_value = 0;
    for (int i = 0; i < n; i++)
        n_value += part[i].value != NULL;
    put_head(b, (uint64_t)(2 * n) + n_value, 3);
    put_kv_str(b, "general.type", "imatrix");
    put_kv_u32(b, "imatrix.chunk_count", 17);
    put_str(b, "imatrix.datasets");
    put_le(b, 9, 4);
    put_le(b, 8, 4);
    put_le(b, 1, 8);
    put_str(b, "text");
    for (int i = 0; i < 3 * n; i++) {
        const struct imatrix_part *p = &part[i % n];
        int cols = i / n == 1 ? 1 : p->n_col;
        if (i / n == 2 && !p->value)
            continue;
        snprintf(name, sizeof name, "%s%s", p->name, ending[i / n]);
        put_tensor(b, name, 2, (uint64_t)cols, (uint64_t)p->n_mat, 0, at);
        at += round_up((size_t)(4 * cols * p->n_mat), 32);
    }
    for (int i = 0; i < 3 * n; i++) {
        const struct imatrix_part *p = &part[i % n];
        const float *mean = i / n == 2 ? p->value : p->mean;
        if (!mean)
            continue;
        put_data(b, 32, 0);
        for (int j = 0; j < (i / n == 1 ? 1 : p->n_col) * p->n_mat; j++)
            put_f32(b, i / n == 1 ? p->count[j] : mean[j] * p->count[j / p->n_col]);
    }
    put_data(b, 32, 0);
}

#endif
