/* weights_gguf.c - a GGUF model of one file, or of parts that are found beside the given one.
 *
 * Two kinds of parts are in circulation. llama.cpp numbers them in the name and in the metadata.
 * The other kind ("…-Layers00-30.gguf" and "…-Layers-31-output.gguf") are files cut by layers
 * without any mark inside, so the names alone must tell that nothing is missing. */
#include "weights_impl.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_PART = 4096 };

/* Paths of all parts in order. */
struct parts {
    char **path;
    int n;
    bool numbered;
};

static void parts_release(struct parts *p)
{
    for (int i = 0; i < p->n; i++)
        free(p->path[i]);
    free(p->path);
    *p = (struct parts){ 0 };
}

static int parts_add(struct parts *p, const char *dir, const char *name, struct err *e)
{
    char **more = realloc(p->path, ((size_t)p->n + 1) * sizeof *more);
    if (more)
        p->path = more;
    if (!more || !(p->path[p->n] = path_join(dir, name)))
        return err_set(e, ERR_NO_MEMORY, "%s/%s: out of memory", dir, name);
    p->n++;
    return 0;
}

/* digits at s, moving it on; -1 when there is none or the number is large. */
static int number_at(const char **s)
{
    int n = -1;
    for (; **s >= '0' && **s <= '9'; ++*s) {
        n = (n < 0 ? 0 : n) * 10 + (**s - '0');
        if (n > 99999)
            return -1;
    }
    return n;
}

/* "NAME-00002-of-00003.gguf": the length of NAME, *no from 1, *count; 0: no such name. */
static size_t numbered_name(const char *name, int *no, int *count)
{
    static const char shape[] = "-00000-of-00000.gguf";
    size_t len = strlen(name), n = sizeof shape - 1;
    if (len <= n)
        return 0;
    const char *tail = name + len - n;
    for (size_t i = 0; i < n; i++) {
        bool digit = tail[i] >= '0' && tail[i] <= '9';
        if (shape[i] == '0' ? !digit : tail[i] != shape[i])
            return 0;
    }
    const char *a = tail + 1, *b = tail + 10;
    *no = number_at(&a);
    *count = number_at(&b);
    return len - n;
}

/* "NAME-Layers00-30.gguf", "NAME-Layers-31-output.gguf": the length of NAME, *first and *last
 * (INT32_MAX for output); 0: no such name, as of files that only mention layers. */
static size_t layers_name(const char *name, int *first, int *last)
{
    const char *s = NULL;
    for (const char *t = name; (t = strstr(t, "-Layers")); t++)
        s = t;
    if (!s || s == name)
        return 0;
    size_t n = (size_t)(s - name);
    s += strlen("-Layers");
    s += *s == '-';
    *first = number_at(&s);
    if (*first < 0 || *s++ != '-')
        return 0;
    if (strcmp(s, "output.gguf") == 0) {
        *last = INT32_MAX;
        return n;
    }
    *last = number_at(&s);
    return *last >= *first && strcmp(s, ".gguf") == 0 ? n : 0;
}

static int numbered_parts(struct parts *p, const char *dir, const char *name, struct err *e)
{
    int no, count;
    size_t n = numbered_name(name, &no, &count);
    if (count < 1 || count > MAX_PART || no < 1 || no > count)
        return err_set(e, ERR_FORMAT, "%s/%s: is part %d of %d by its name, expected 1 to %d", dir,
                       name, no, count, MAX_PART);
    p->numbered = true;
    for (int i = 1; i <= count; i++) {
        size_t bytes = n + sizeof "-00000-of-00000.gguf";
        char *full = malloc(bytes);
        if (!full)
            return err_set(e, ERR_NO_MEMORY, "%s/%s: out of memory", dir, name);
        snprintf(full, bytes, "%.*s-%05d-of-%05d.gguf", (int)n, name, i, count);
        int code = parts_add(p, dir, full, e);
        free(full);
        TRY(code);
        if (!file_exists(p->path[p->n - 1]))
            return err_set(e, ERR_IO, "%s: is missing, part %d of %d", p->path[p->n - 1], i, count);
    }
    return 0;
}

/* From layer 0 on, take the file that begins where the last one ended. */
static int chain_layers(struct parts *p, const char *dir, const char *name, size_t stem,
                        const struct dir_list *list, struct err *e)
{
    for (int next = 0; next != INT32_MAX;) {
        int found = -1, found_last = 0;
        for (int i = 0; i < list->n; i++) {
            int first, last;
            if (layers_name(list->name[i], &first, &last) != stem || first != next ||
                strncmp(list->name[i], name, stem) != 0)
                continue;
            if (found >= 0)
                return err_set(e, ERR_FORMAT, "%s: both %s and %s hold layer %d", dir,
                               list->name[found], list->name[i], next);
            found = i;
            found_last = last;
        }
        if (found < 0)
            return err_set(e, ERR_IO, "%s/%s: the part with layer %d is missing beside it", dir,
                           name, next);
        TRY(parts_add(p, dir, list->name[found], e));
        next = found_last == INT32_MAX ? INT32_MAX : found_last + 1;
    }
    return 0;
}

static int layer_parts(struct parts *p, const char *dir, const char *name, size_t stem,
                       struct err *e)
{
    struct dir_list list;
    TRY(dir_list_open(&list, dir, e));
    int code = chain_layers(p, dir, name, stem, &list, e);
    dir_list_close(&list);
    return code;
}

static int find_parts(struct parts *p, const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t dir_len = slash ? (size_t)(slash - path) : 0, stem;
    bool root = slash == path;
    char *dir = malloc(dir_len + 2);
    int a, b, code;
    if (!dir)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    snprintf(dir, dir_len + 2, "%.*s%s", (int)dir_len, path, root ? "/" : slash ? "" : ".");
    if (numbered_name(name, &a, &b) > 0)
        code = numbered_parts(p, dir, name, e);
    else if ((stem = layers_name(name, &a, &b)) > 0)
        code = layer_parts(p, dir, name, stem, e);
    else
        code = parts_add(p, dir, name, e);
    free(dir);
    return code;
}

/* What the metadata says about parts must agree with what was found. */
static int check_split(const struct weights *w, bool numbered, struct err *e)
{
    int64_t total = 0, stated;
    for (int i = 0; i < w->n_file; i++) {
        const struct weights_file *f = &w->file[i];
        int64_t no, count;
        TRY(meta_int_or(f->gguf.meta, "split.no", 0, &no, e));
        TRY(meta_int_or(f->gguf.meta, "split.count", 0, &count, e));
        if (numbered && (count != w->n_file || no != i))
            return err_set(e, ERR_FORMAT,
                           "%s: states split.no %lld of split.count %lld, expected %d of %d",
                           f->path, (long long)no, (long long)count, i, w->n_file);
        if (!numbered && count > 1)
            return err_set(e, ERR_FORMAT,
                           "%s: is part %lld of %lld, but is not named "
                           "NAME-%05lld-of-%05lld.gguf",
                           f->path, (long long)no + 1, (long long)count, (long long)no + 1,
                           (long long)count);
        total += f->gguf.n_tensor;
    }
    TRY(meta_int_or(w->file[0].gguf.meta, "split.tensors.count", total, &stated, e));
    if (numbered && stated != total)
        return err_set(e, ERR_FORMAT, "%s: states split.tensors.count %lld, the parts hold %lld",
                       w->file[0].path, (long long)stated, (long long)total);
    return 0;
}

static int check_architecture(const struct weights *w, struct err *e)
{
    const char *first = meta_str(w->file[0].gguf.meta, "general.architecture");
    for (int i = 0; i < w->n_file; i++) {
        const char *own = meta_str(w->file[i].gguf.meta, "general.architecture");
        if (own && first && strcmp(own, first) != 0)
            return err_set(e, ERR_MISMATCH, "%s: has architecture %s, expected %s as in %s",
                           w->file[i].path, own, first, w->file[0].path);
    }
    return 0;
}

int weights_open_gguf(struct weights *w, const char *path, struct err *e)
{
    struct parts p = { 0 };
    size_t len = strlen(path);
    if (len > 12 && strcmp(path + len - 12, ".safetensors") == 0)
        return err_set(e, ERR_ARGUMENT, "%s: give the folder with config.json instead", path);
    int code = find_parts(&p, path, e);
    bool numbered = p.numbered;
    if (code == 0 && !(w->file = calloc((size_t)p.n, sizeof *w->file)))
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    for (int i = 0; i < p.n && code == 0; i++)
        code = weights_add_file(w, p.n > 1 ? p.path[i] : path, e);
    parts_release(&p);
    TRY(code);
    TRY(check_split(w, numbered, e));
    TRY(check_architecture(w, e));
    return weights_join(w, e);
}
