/* collect_files.c - what a collector writes for others: importance matrix, products, profile. */
#include "collect_impl.h"

#include "expert_profile.h"
#include "file.h"
#include "gguf_write.h"
#include "hessian.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_PROFILE_BYTES ((size_t)1 << 28)

static void hex_of(const uint8_t id[32], char out[65])
{
    for (int i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", id[i]);
}

/* ---- importance matrix ---- */

/* One tensor of the file. */
struct part {
    const struct collect_stat *stat;
    enum { SQUARES, VALUES, COUNTS } what;
};

struct parts {
    struct gguf_writer out;
    struct part *part;
    int n;
};

static int64_t tokens_of(const struct collect_stat *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->n_mat; i++)
        n += s->count[i];
    return n;
}

static int add_part(struct parts *p, const struct collect_stat *s, const char *name, int what,
                    struct err *e)
{
    static const char *const ending[] = { "in_sum2", "in_sum", "counts" };
    char full[DSV4_NAME_MAX + 16];
    int64_t dim[2] = { what == COUNTS ? 1 : s->n_col, s->n_mat };
    snprintf(full, sizeof full, "%s.%s", name, ending[what]);
    int at = gguf_add_tensor(&p->out, full, DT_F32, 2, dim, e);
    TRY(at);
    CHECK(at == p->n);
    p->part[p->n++] = (struct part){ s, what };
    return 0;
}

/* Matrices that nothing went through are left out; experts never are, the zeros are the news. */
static int add_parts(struct parts *p, const struct collector *c, bool sums, struct err *e)
{
    for (int i = 0; i < c->n_stat; i++) {
        const struct collect_stat *s = &c->stat[i];
        const char *const name[2] = { s->name, s->twin };
        for (int k = 0; k < 2 && *name[k] && (i >= c->n_dense || tokens_of(s) > 0); k++) {
            TRY(add_part(p, s, name[k], SQUARES, e));
            if (sums)
                TRY(add_part(p, s, name[k], VALUES, e));
            TRY(add_part(p, s, name[k], COUNTS, e));
        }
    }
    return 0;
}

static int put_part(struct parts *p, int at, struct err *e)
{
    const struct part *x = &p->part[at];
    const struct collect_stat *s = x->stat;
    size_t n = (size_t)s->n_mat * (size_t)(x->what == COUNTS ? 1 : s->n_col);
    float *to = malloc(n * sizeof *to);
    int code = to ? 0 : err_set(e, ERR_NO_MEMORY, "out of memory for the sums of %s", s->name);
    for (size_t i = 0; i < n && code == 0; i++) {
        to[i] = (float)(x->what == COUNTS ? (double)s->count[i]
                        : x->what == SQUARES ? s->square[i] : s->value[i]);
        if (!isfinite(to[i]))
            code = err_set(e, ERR_FORMAT, "%s: sum %zu of tensor %s is %g", p->out.file.path, i,
                           s->name, (double)to[i]);
    }
    if (code == 0)
        code = gguf_write_data(&p->out, at, 0, to, n * sizeof *to, e);
    free(to);
    return code;
}

static int write_parts(struct parts *p, const struct collector *c, bool sums,
                       const struct collect_source *from, struct err *e)
{
    struct gguf_writer *w = &p->out;
    char id[65];
    int64_t size = from->n_document ? (from->n_token + from->n_document - 1) / from->n_document : 0;
    hex_of(c->engine->identity.identity, id);
    gguf_put_str(w, "general.type", "imatrix");
    gguf_put_strs(w, "imatrix.datasets", from->n_dataset);
    for (int i = 0; i < from->n_dataset; i++)
        gguf_put_item(w, from->dataset[i], strlen(from->dataset[i]));
    gguf_put_u32(w, "imatrix.chunk_count", (uint32_t)MIN(from->n_document, UINT32_MAX));
    gguf_put_u32(w, "imatrix.chunk_size", (uint32_t)MIN(size, UINT32_MAX));
    gguf_put_u32(w, "dwarfstar.calibrate.tokens", (uint32_t)MIN(from->n_token, UINT32_MAX));
    gguf_put_str(w, "dwarfstar.calibrate.model", id);
    TRY(add_parts(p, c, sums, e));
    TRY(gguf_write_begin(w, e));
    for (int i = 0; i < p->n; i++)
        TRY(put_part(p, i, e));
    return 0;
}

int collect_write_imatrix(const struct collector *c, const char *path, bool sums,
                          const struct collect_source *from, struct err *e)
{
    struct parts p = { .part = calloc((size_t)c->n_stat * 6, sizeof *p.part) };
    int code = p.part ? gguf_write_open(&p.out, path, e)
                      : err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    if (code == 0) {
        code = write_parts(&p, c, sums, from, e);
        if (code == 0)
            code = gguf_write_finish(&p.out, e);
        gguf_write_abort(&p.out);
    }
    free(p.part);
    return code;
}

/* ---- products ---- */

/* Number i of the products that have a place in the file: gate and down of each. An expert's own
 * are left out when it saw fewer tokens than columns, since such say nothing of others. *g: to
 * learn from, and held. False: past the last. */
static bool product_at(const struct collector *c, int i, char name[DSV4_NAME_MAX],
                       const struct gram **g)
{
    int l, x;
    const struct collect_products *p = collect_products_at(c, i / 2, &l, &x);
    *g = NULL;
    if (!p)
        return false;
    if (x >= 0 && p->gram[i % 2][0].n_row < p->gram[i % 2][0].n)
        return true;
    const char *tensor = collect_experts(c, l, i % 2)->name;
    int stem = (int)(strstr(tensor, ".weight") - tensor);
    if (x < 0)
        snprintf(name, DSV4_NAME_MAX, "%.*s", stem, tensor);
    else
        snprintf(name, DSV4_NAME_MAX, "%.*s.%d", stem, tensor, x);
    *g = p->gram[i % 2];
    return true;
}

static int write_products(struct hessian_writer *w, const struct collector *c, struct err *e)
{
    char id[65], name[DSV4_NAME_MAX];
    const struct gram *g;
    hex_of(c->engine->identity.identity, id);
    gguf_put_str(&w->out, "dwarfstar.calibrate.model", id);
    for (int i = 0; product_at(c, i, name, &g); i++) {
        if (g)
            TRY(hessian_write_add(w, name, g[0].n, g[1].n_row > 0, e));
    }
    TRY(hessian_write_begin(w, e));
    for (int i = 0, n = 0; product_at(c, i, name, &g); i++) {
        if (!g)
            continue;
        struct hessian_sums learn = { g[0].sum, (size_t)g[0].pitch, g[0].n_row };
        struct hessian_sums held = { g[1].sum, (size_t)g[1].pitch, g[1].n_row };
        TRY(hessian_write_put(w, n++, &learn, g[1].n_row > 0 ? &held : NULL, e));
    }
    return 0;
}

int collect_write_products(const struct collector *c, const char *path, struct err *e)
{
    struct hessian_writer w;
    CHECK(c->layer);
    TRY(hessian_write_open(&w, path, e));
    int code = write_products(&w, c, e);
    if (code == 0)
        code = hessian_write_finish(&w, e);
    hessian_write_abort(&w);
    return code;
}

/* ---- profile ---- */

static int write_text(const struct buf *text, const char *path, struct err *e)
{
    struct file_out f;
    if (text->failed)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    TRY(file_out_open(&f, path, e));
    int code = file_out_write(&f, text->data, text->len, e);
    if (code == 0)
        code = file_out_commit(&f, e);
    file_out_abort(&f);
    return code;
}

int collect_write_profile(const struct collector *c, const char *path, struct err *e)
{
    struct expert_profile p = { .n_layer = c->n_layer, .n_expert = c->n_expert };
    struct buf text;
    size_t n = (size_t)c->n_layer * (size_t)c->n_expert;
    _Static_assert(sizeof p.model == 65, "a hash of 32 bytes fits");
    hex_of(c->engine->identity.identity, p.model);
    p.count = calloc(n, sizeof *p.count);
    if (!p.count)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    for (size_t i = 0; i < n; i++)
        p.count[i] = (uint32_t)MIN(collect_experts(c, (int)(i / (size_t)c->n_expert), false)
                                       ->count[i % (size_t)c->n_expert], UINT32_MAX);
    buf_init(&text, MAX_PROFILE_BYTES);
    expert_profile_write(&p, &text);
    int code = write_text(&text, path, e);
    buf_release(&text);
    free(p.count);
    return code;
}

/* ---- coverage ---- */

_Static_assert(COLLECT_FEW_TOKENS == 256, "the table says so");

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

struct cover {
    int64_t least, median, most;
    int n_none, n_few;
};

static struct cover cover_of(int64_t *count, int n)
{
    struct cover v = { 0 };
    qsort(count, (size_t)n, sizeof *count, ascending);
    for (int i = 0; i < n; i++) {
        v.n_none += count[i] == 0;
        v.n_few += count[i] < COLLECT_FEW_TOKENS;
    }
    v.least = count[0];
    v.median = count[n / 2];
    v.most = count[n - 1];
    return v;
}

static void put_cover(struct buf *out, const char *name, const struct cover *v)
{
    buf_printf(out, "%5s %10lld %10lld %10lld %6d %10d\n", name, (long long)v->least,
               (long long)v->median, (long long)v->most, v->n_none, v->n_few);
}

/* tidy: heap - a report, after the last step */
int collect_coverage(const struct collector *c, struct buf *out, int *n_expert)
{
    size_t n = (size_t)c->n_expert;
    int64_t *count = calloc(n * (size_t)c->n_layer * 2, sizeof *count);
    int64_t *all = count ? count + n * (size_t)c->n_layer : NULL;
    *n_expert = c->n_expert * c->n_layer;
    if (!count) {
        out->failed = true;
        return 0;
    }
    buf_printf(out, "%5s %10s %10s %10s %6s %10s\n", "layer", "least", "median", "most", "none",
               "below 256");
    for (int l = 0; l < c->n_layer; l++) {
        char name[16];
        memcpy(count, collect_experts(c, l, false)->count, n * sizeof *count);
        memcpy(all + n * (size_t)l, count, n * sizeof *count);
        struct cover v = cover_of(count, c->n_expert);
        snprintf(name, sizeof name, "%d", l);
        put_cover(out, name, &v);
    }
    struct cover v = cover_of(all, *n_expert);
    put_cover(out, "all", &v);
    free(count);
    return v.n_few;
}
