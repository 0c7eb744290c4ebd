/* weights.c - a model's files joined to one list of tensors with an index.
 *
 * Nothing here reads data: files are mapped, and only the directories at their fronts are
 * touched. What belongs to one kind of file is in weights_gguf.c and weights_checkpoint.c. */
#include "weights_impl.h"

#include "meta_impl.h"

#include <stdlib.h>

static char *copy_text(const char *s)
{
    size_t bytes = strlen(s) + 1;
    char *copy = malloc(bytes);
    return copy ? memcpy(copy, s, bytes) : NULL;
}

int weights_add_file(struct weights *w, const char *path, struct err *e)
{
    struct weights_file *f = &w->file[w->n_file];
    f->path = copy_text(path);
    if (!f->path)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    w->n_file++; /* from here on weights_close() takes care of it */
    TRY(file_map_open(&f->map, path, e));
    if (w->kind == WEIGHTS_GGUF)
        return gguf_parse(&f->gguf, path, f->map.data, f->map.size, e);
    return safetensors_parse(&f->st, path, f->map.data, f->map.size, e);
}

static int add_weight(struct weights *w, const struct weight *from, int file, struct err *e)
{
    int older;
    w->weight[w->n_weight] = *from;
    w->weight[w->n_weight].file = file;
    TRY(name_index_add(&w->index, from->name, w->n_weight, &older, e));
    if (older >= 0)
        return err_set(e, ERR_FORMAT, "%s: tensor %s is also in %s", w->file[file].path, from->name,
                       w->file[w->weight[older].file].path);
    w->n_weight++;
    return 0;
}

int weights_join(struct weights *w, struct err *e)
{
    int64_t n = 0;
    for (int i = 0; i < w->n_file; i++)
        n += w->file[i].gguf.n_tensor + w->file[i].st.n_tensor;
    if (n == 0 || n > INT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: holds %lld tensors, expected at least one", w->path,
                       (long long)n);
    w->weight = calloc((size_t)n, sizeof *w->weight);
    if (!w->weight)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for %lld tensors", w->path,
                       (long long)n);
    for (int i = 0; i < w->n_file; i++) {
        const struct weights_file *f = &w->file[i];
        for (int k = 0; k < f->gguf.n_tensor; k++)
            TRY(add_weight(w, &f->gguf.tensor[k], i, e));
        for (int k = 0; k < f->st.n_tensor; k++)
            TRY(add_weight(w, &f->st.tensor[k], i, e));
    }
    return 0;
}

int weights_open(struct weights **out, const char *path, struct err *e)
{
    struct weights *w = calloc(1, sizeof *w);
    *out = NULL;
    if (w)
        w->path = copy_text(path);
    if (!w || !w->path) {
        free(w);
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    }
    bool is_dir = file_is_dir(path);
    w->kind = is_dir ? WEIGHTS_CHECKPOINT : WEIGHTS_GGUF;
    int code = is_dir ? weights_open_checkpoint(w, path, e) : weights_open_gguf(w, path, e);
    if (code < 0) {
        weights_close(w);
        return code;
    }
    *out = w;
    return 0;
}

void weights_close(struct weights *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->n_file; i++) {
        struct weights_file *f = &w->file[i];
        gguf_release(&f->gguf);
        safetensors_release(&f->st);
        file_map_close(&f->map);
        free(f->path);
    }
    meta_free(w->config);
    name_index_release(&w->index);
    free(w->weight);
    free(w->file);
    free(w->tokenizer);
    free(w->path);
    free(w);
}

enum weights_kind weights_kind(const struct weights *w)
{
    return w->kind;
}

const char *weights_path(const struct weights *w)
{
    return w->path;
}

const struct meta *weights_meta(const struct weights *w)
{
    return w->kind == WEIGHTS_GGUF ? w->file[0].gguf.meta : w->config;
}

int weights_count(const struct weights *w)
{
    return w->n_weight;
}

const struct weight *weights_at(const struct weights *w, int i)
{
    CHECK(i >= 0 && i < w->n_weight);
    return &w->weight[i];
}

const struct weight *weights_find(const struct weights *w, const char *name)
{
    int i = name_index_find(&w->index, name);
    return i < 0 ? NULL : &w->weight[i];
}

int weights_n_file(const struct weights *w)
{
    return w->n_file;
}

const char *weights_file(const struct weights *w, int i)
{
    CHECK(i >= 0 && i < w->n_file);
    return w->file[i].path;
}

int64_t weights_file_bytes(const struct weights *w, int i)
{
    CHECK(i >= 0 && i < w->n_file);
    return (int64_t)w->file[i].map.size;
}

void weights_forget(const struct weights *w)
{
    for (int i = 0; i < w->n_file; i++)
        file_map_forget(&w->file[i].map, w->file[i].path);
}

const char *weights_tokenizer_path(const struct weights *w)
{
    return w->tokenizer;
}
