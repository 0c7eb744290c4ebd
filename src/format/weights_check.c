/* weights_check.c - the checks of tensor directories that do not depend on the file format. */
#include "weights_impl.h"

#include <stdio.h>
#include <stdlib.h>

int weight_set_bytes(struct weight *w, const char *file, struct err *e)
{
    const struct dtype_info *info = dtype_info((int)w->type);
    char shape[96];
    size_t n = 1;
    CHECK(info);
    for (int i = 0; i < w->n_dim; i++) {
        if (w->dim[i] <= 0)
            return err_set(e, ERR_FORMAT, "%s: tensor %s has shape %s, expected no empty dimension",
                           file, w->name, weight_shape_text(shape, w));
        if (!mul_size(n, (size_t)w->dim[i], &n) || n > INT64_MAX)
            return err_set(e, ERR_FORMAT, "%s: tensor %s has shape %s, more than 2^63 elements",
                           file, w->name, weight_shape_text(shape, w));
    }
    if (w->dim[0] % info->block != 0)
        return err_set(
            e, ERR_FORMAT,
            "%s: tensor %s has rows of %lld elements, expected whole blocks of %d for %s", file,
            w->name, (long long)w->dim[0], info->block, info->name);
    if (!mul_size(n / (size_t)info->block, (size_t)info->bytes, &w->bytes) || w->bytes > INT64_MAX)
        return err_set(e, ERR_FORMAT, "%s: tensor %s has shape %s, more than 2^63 bytes", file,
                       w->name, weight_shape_text(shape, w));
    return 0;
}

struct span {
    int64_t from;
    size_t bytes;
    int i;
};

static int by_place(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->from != y->from ? (x->from < y->from ? -1 : 1) : x->i - y->i;
}

int weights_check_overlap(const struct weight *w, int n, const char *file, struct err *e)
{
    struct span *s = malloc(((size_t)n + 1) * sizeof *s);
    int code = 0;
    if (!s)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for %d tensors", file, n);
    for (int i = 0; i < n; i++)
        s[i] = (struct span){ w[i].offset, w[i].bytes, i };
    qsort(s, (size_t)n, sizeof *s, by_place);
    for (int i = 1; i < n && code == 0; i++) {
        const struct span *a = &s[i - 1], *b = &s[i];
        if (a->bytes > (size_t)(b->from - a->from))
            code = err_set(e, ERR_FORMAT,
                           "%s: tensor %s at byte %lld lies inside tensor %s (%zu bytes from %lld)",
                           file, w[b->i].name, (long long)b->from, w[a->i].name, a->bytes,
                           (long long)a->from);
    }
    free(s);
    return code;
}

const char *weight_shape_text(char out[96], const struct weight *w)
{
    size_t used = 0;
    for (int i = w->n_dim - 1; i >= 0; i--)
        used += (size_t)snprintf(out + used, 96 - used, "%s%lld", used ? ", " : "[",
                                 (long long)w->dim[i]);
    snprintf(out + used, 96 - used, "]");
    return out;
}
