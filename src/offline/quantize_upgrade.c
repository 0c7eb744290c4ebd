/* quantize_upgrade.c - bytes that are left over, spent on the layers that need them most: their
 * routed experts become MXFP4, which holds the vendor's numbers exactly.
 *
 * Which layers these are is measured, not guessed: a file tells how far the model is from the
 * reference with all layers small, and with one alone of them upgraded. Layers are taken by what
 * they win per byte, each that still fits. Errors of layers taken alone are known to say little
 * about the model's, and their gains add up well enough to put them in order.
 *
 *   # remark
 *   base KL          divergence with no layer upgraded
 *   LAYER KL         with this one alone; layers that are not listed are not upgraded */
#include "quantize_impl.h"

#include "file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_TEXT_BYTES = 1 << 20 };

struct gain {
    int layer;
    double kl;     /* of the model with the layer upgraded; NAN: not told */
    int64_t bytes; /* that the upgrade takes */
};

struct told {
    double base;
    struct gain *of; /* [n_layer] */
    int n_layer;
};

/* ---- the file ---- */

static int wrong(const char *path, int line, const char *what, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s, line %d: %s, expected base KL or LAYER KL", path, line,
                   what);
}

static int read_line(struct told *t, const char *path, int line, const char *text, struct err *e)
{
    char who[16], kl[40], rest[2], *end;
    int n = sscanf(text, " %15s %39s %1s", who, kl, rest);
    if (n <= 0 || who[0] == '#')
        return 0;
    if (n == 1 || (n == 3 && rest[0] != '#'))
        return wrong(path, line, n == 1 ? "one word" : "more than two words", e);
    double x = strtod(kl, &end);
    if (*end || !isfinite(x) || x < 0)
        return wrong(path, line, "KL is no number of at least 0", e);
    if (strcmp(who, "base") == 0) {
        if (!isnan(t->base))
            return wrong(path, line, "a second base", e);
        t->base = x;
        return 0;
    }
    long layer = strtol(who, &end, 10);
    if (*end || layer < 0 || layer >= t->n_layer)
        return err_set(e, ERR_FORMAT, "%s, line %d: layer is %s, the model has 0 to %d", path,
                       line, who, t->n_layer - 1);
    if (!isnan(t->of[layer].kl))
        return wrong(path, line, "a layer for the second time", e);
    t->of[layer].kl = x;
    return 0;
}

static int read_file(struct told *t, const char *path, struct err *e)
{
    struct buf text;
    int line = 0, code;
    buf_init(&text, MAX_TEXT_BYTES);
    code = file_read_all(&text, path, e);
    char *at = text.data;
    while (code == 0 && at && *at) {
        char *end = at + strcspn(at, "\n"), *next = *end ? end + 1 : end;
        *end = 0;
        code = read_line(t, path, ++line, at, e);
        at = next;
    }
    buf_release(&text);
    if (code == 0 && isnan(t->base))
        code = err_set(e, ERR_FORMAT, "%s: has no line base KL", path);
    return code;
}

/* ---- the choice ---- */

static bool is_routed(const struct quantize_tensor *t)
{
    return t->block >= 0 && t->block < DSV4_MTP(0) && dsv4_names[t->role].form == DSV4_EXPERTS;
}

static int64_t upgrade_bytes(const struct quantize_tensor *t)
{
    size_t n = (size_t)(t->dim[0] * t->dim[1] * t->dim[2]);
    if (!is_routed(t) || t->dim[0] % 32 != 0)
        return 0;
    return (int64_t)dtype_bytes(DT_MXFP4, n) - (int64_t)dtype_bytes(t->type, n);
}

/* Most won per byte first; of equals the first layer. */
static int by_gain(const void *a, const void *b)
{
    const struct gain *x = a, *y = b;
    double wx = x->kl / (double)x->bytes, wy = y->kl / (double)y->bytes;
    return wx != wy ? (wx < wy) - (wx > wy) : (x->layer > y->layer) - (x->layer < y->layer);
}

static int upgrade_layer(struct quantize *q, int layer, struct err *e)
{
    for (int i = 0; i < q->n_tensor; i++) {
        struct quantize_tensor *t = &q->tensor[i];
        if (t->block != layer || upgrade_bytes(t) <= 0)
            continue;
        t->type = DT_MXFP4;
        TRY(quantize_decide_weights(q, t, e));
        TRY(quantize_find_inputs(q, t, e));
    }
    return 0;
}

static int choose(struct quantize *q, struct told *t, struct err *e)
{
    int n = 0;
    for (int i = 0; i < q->n_tensor; i++) {
        int64_t more = upgrade_bytes(&q->tensor[i]);
        if (more > 0)
            t->of[q->tensor[i].block].bytes += more;
    }
    for (int l = 0; l < t->n_layer; l++) {
        struct gain g = t->of[l];
        g.kl = t->base - g.kl; /* what is won from here on */
        if (g.kl > 0 && g.bytes > 0)
            t->of[n++] = g;
    }
    qsort(t->of, (size_t)n, sizeof *t->of, by_gain);
    for (int i = 0; i < n; i++) {
        if (q->upgrade.bytes + t->of[i].bytes > q->o->upgrade_bytes)
            continue;
        TRY(upgrade_layer(q, t->of[i].layer, e));
        q->upgrade.bytes += t->of[i].bytes;
        q->upgrade.gain += t->of[i].kl;
        q->upgrade.layer[q->upgrade.n++] = t->of[i].layer;
    }
    q->upgrade.base = t->base;
    return 0;
}

int quantize_upgrade(struct quantize *q, struct err *e)
{
    struct told t = { .base = (double)NAN, .n_layer = q->im.h.n_layer };
    if (!q->o->sensitivity)
        return 0;
    t.of = calloc((size_t)t.n_layer, sizeof *t.of);
    q->upgrade.layer = calloc((size_t)t.n_layer, sizeof *q->upgrade.layer);
    int code = t.of && q->upgrade.layer ? 0 : err_set(e, ERR_NO_MEMORY, "out of memory");
    for (int l = 0; l < t.n_layer && code == 0; l++)
        t.of[l] = (struct gain){ .layer = l, .kl = (double)NAN };
    if (code == 0)
        code = read_file(&t, q->o->sensitivity, e);
    if (code == 0)
        code = choose(q, &t, e);
    free(t.of);
    return code;
}

void quantize_print_upgrade(const struct quantize *q, struct buf *out)
{
    if (!q->o->sensitivity)
        return;
    buf_printf(out, "upgraded to MXFP4: %d layers for %lld of %lld bytes", q->upgrade.n,
               (long long)q->upgrade.bytes, (long long)q->o->upgrade_bytes);
    for (int i = 0; i < q->upgrade.n; i++)
        buf_printf(out, "%s %d", i ? "," : ", the best first:", (int)q->upgrade.layer[i]);
    buf_printf(out, "; divergence by measurement %.5g, less %.5g\n", q->upgrade.base,
               q->upgrade.gain);
}
