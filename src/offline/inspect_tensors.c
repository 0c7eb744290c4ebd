/* inspect_tensors.c - every tensor of a model, one by one. */
#include <jansson.h>
#include <stdio.h>

#include "inspect.h"

/* "256 x 4096" */
static void shape_of(const struct weight *w, char out[96])
{
    int n = 0;
    out[0] = 0;
    for (int i = 0; i < w->n_dim; i++)
        n += snprintf(out + n, 96 - (size_t)n, i ? " x %lld" : "%lld", (long long)w->dim[i]);
}

void inspect_tensors_text(const struct inspect *x, struct buf *out)
{
    buf_printf(out, "\n  %-52s %-8s %-22s %15s  %s\n", "tensor", "type", "shape", "bytes",
               "file at");
    for (int i = 0; i < weights_count(x->files); i++) {
        const struct weight *w = weights_at(x->files, i);
        char shape[96];
        shape_of(w, shape);
        buf_printf(out, "  %-52s %-8s %-22s %15zu  %d %lld\n", w->name, dtype_name((int)w->type),
                   shape, w->bytes, w->file, (long long)w->offset);
    }
}

static int append(const char *data, size_t n, void *user)
{
    buf_add(user, data, n);
    return 0;
}

void inspect_tensors_json(const struct inspect *x, struct buf *out)
{
    json_t *list = json_array();
    for (int i = 0; i < weights_count(x->files); i++) {
        const struct weight *w = weights_at(x->files, i);
        json_t *shape = json_array();
        for (int k = 0; k < w->n_dim; k++)
            json_array_append_new(shape, json_integer((json_int_t)w->dim[k]));
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:o, s:I, s:i, s:I}", "name", w->name, "type",
                            dtype_name((int)w->type), "shape", shape, "bytes",
                            (json_int_t)w->bytes, "file", w->file, "offset",
                            (json_int_t)w->offset));
    }
    if (json_array_size(list) != (size_t)weights_count(x->files) ||
        json_dump_callback(list, append, out, JSON_COMPACT) != 0)
        out->failed = true;
    json_decref(list);
}
