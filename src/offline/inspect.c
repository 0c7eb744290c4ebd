/* inspect.c - sums over the directory of a model, by part and by type.
 *
 * Which part a tensor belongs to follows from its name alone, so a damaged or foreign model still
 * gives a table; only the hyperparameters need a model that states all of them. */
#include "inspect.h"

#include "tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

static void add(struct inspect_sum *s, const struct weight *w, int64_t parameters)
{
    s->n_tensor++;
    s->bytes += (int64_t)w->bytes;
    s->parameters += parameters;
}

static struct inspect_sum *sum_of_type(struct inspect *x, enum dtype type)
{
    int i = 0;
    while (i < x->n_type && x->type[i].type != type)
        i++;
    if (i == x->n_type) {
        CHECK(i < (int)COUNT_OF(x->type));
        x->type[x->n_type++] = (struct inspect_type){ .type = type };
    }
    return &x->type[i].sum;
}

static int by_bytes(const void *a, const void *b)
{
    const struct inspect_type *x = a, *y = b;
    return (x->sum.bytes < y->sum.bytes) - (x->sum.bytes > y->sum.bytes);
}

static bool is_number(const struct dsv4_place *p, const struct weight *w)
{
    bool is_ids = p->role < DSV4_N_ROLE && dsv4_names[p->role].form == DSV4_IDS;
    return !p->is_scale && !is_ids && w->type != DT_F8_E8M0;
}

static void count(struct inspect *x)
{
    for (int i = 0; i < weights_count(x->files); i++) {
        const struct weight *w = weights_at(x->files, i);
        struct dsv4_place p = dsv4_place_of(w->name);
        int64_t n = 0;
        if (is_number(&p, w))
            n = w->dim[0] * w->dim[1] * w->dim[2] * w->dim[3];
        add(&x->total, w, n);
        add(&x->part[p.part], w, n);
        add(sum_of_type(x, w->type), w, n);
        x->has_mtp |= p.role == DSV4_MTP_E_PROJ;
        x->has_dspark |= p.role < DSV4_N_ROLE && dsv4_names[p.role].where == DSV4_IN_DSPARK;
    }
    qsort(x->type, (size_t)x->n_type, sizeof x->type[0], by_bytes);
    for (int i = 0; i < weights_n_file(x->files); i++)
        x->file_bytes += weights_file_bytes(x->files, i);
}

static void read_text(struct inspect *x)
{
    struct tokenizer *t = NULL;
    struct err e = { 0 };
    const char *json = weights_tokenizer_path(x->files);
    const struct meta *m = weights_meta(x->files);
    int code = ERR_NONE;
    if (json)
        code = tokenizer_open_json(&t, json, NULL, &e);
    else if (meta_find(m, "tokenizer.ggml.tokens"))
        code = tokenizer_open_meta(&t, m, meta_file(m), NULL, &e);
    else
        err_set(&e, ERR_FORMAT, "the model has none");
    if (code < 0 || !t) {
        snprintf(x->text.problem, sizeof x->text.problem, "%.255s", e.text);
        return;
    }
    x->text.found = true;
    x->text.n_token = tokenizer_n_vocab(t);
    x->text.n_merge = tokenizer_n_merge(t);
    x->text.rule = tokenizer_pre(t);
    for (int id = 0; id < x->text.n_token; id++)
        x->text.n_added += tokenizer_is_added(t, id);
    tokenizer_close(t);
}

/* What a file says goes to terminals and into JSON. */
static void copy_printable(char *out, size_t size, const char *s)
{
    size_t n = 0;
    for (; s && s[n] && n + 1 < size; n++)
        out[n] = s[n] < 0x20 || s[n] > 0x7e ? '?' : s[n];
    snprintf(out + n, size - n, "%s", n ? "" : "?");
}

int inspect_open(struct inspect *x, const char *path, struct err *e)
{
    struct err problem = { 0 };
    *x = (struct inspect){ 0 };
    TRY(weights_open(&x->files, path, e));
    const struct meta *m = weights_meta(x->files);
    enum weights_kind kind = weights_kind(x->files);
    x->format = kind == WEIGHTS_GGUF ? "GGUF" : "checkpoint";
    copy_printable(x->architecture, sizeof x->architecture,
                   meta_str(m, kind == WEIGHTS_GGUF ? "general.architecture" : "model_type"));
    x->has_hyper = dsv4_hyper_read(&x->hyper, m, kind, &problem) == 0;
    if (!x->has_hyper)
        snprintf(x->problem, sizeof x->problem, "%.255s", problem.text);
    count(x);
    read_text(x);
    return 0;
}

void inspect_close(struct inspect *x)
{
    weights_close(x->files);
    *x = (struct inspect){ 0 };
}
