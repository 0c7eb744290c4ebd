/* inspect_print.c - the table of a model for people and as JSON. */
#include "inspect.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* 1234567 -> "1,234,567" */
static const char *grouped(char out[32], int64_t n)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%lld", (long long)n), at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && digits[i - 1] != '-' && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

static void print_sum(struct buf *out, const char *name, const struct inspect_sum *s, int64_t total)
{
    char bytes[32], parameters[32];
    buf_printf(out, "  %-24s %9d %20s %6.2f %% %20s\n", name, s->n_tensor, grouped(bytes, s->bytes),
               total ? 100.0 * (double)s->bytes / (double)total : 0.0,
               grouped(parameters, s->parameters));
}

static void print_sums(const struct inspect *x, struct buf *out)
{
    buf_printf(out, "\n  %-24s %9s %20s %8s %20s\n", "part", "tensors", "bytes", "share",
               "parameters");
    for (int i = 0; i < DSV4_N_PART; i++) {
        if (x->part[i].n_tensor > 0)
            print_sum(out, dsv4_part_name((enum dsv4_part)i), &x->part[i], x->total.bytes);
    }
    print_sum(out, "all", &x->total, x->total.bytes);
    buf_printf(out, "\n  %-24s %9s %20s %8s %20s\n", "type", "tensors", "bytes", "share",
               "parameters");
    for (int i = 0; i < x->n_type; i++)
        print_sum(out, dtype_name((int)x->type[i].type), &x->type[i].sum, x->total.bytes);
}

/* How many of the first n layers have this ratio. */
static int count_ratio(const struct dsv4_hyper *h, int l, int ratio)
{
    int n = 0;
    for (; l < h->n_layer; l++)
        n += h->ratio[l] == ratio;
    return n;
}

static bool seen_before(const struct dsv4_hyper *h, int l)
{
    for (int k = 0; k < l; k++) {
        if (h->ratio[k] == h->ratio[l])
            return true;
    }
    return false;
}

static double value_of(const struct dsv4_hyper *h, const struct dsv4_key *k)
{
    const char *field = (const char *)h + k->offset;
    if (k->type == META_FLOAT) {
        /* 1e-6, not the nearest float's 17 digits */
        char digits[32];
        snprintf(digits, sizeof digits, "%.7g", (double)*(const float *)(const void *)field);
        return strtod(digits, NULL);
    }
    if (k->type == META_BOOL)
        return *(const bool *)(const void *)field;
    return *(const int *)(const void *)field;
}

static void print_hyper(const struct dsv4_hyper *h, struct buf *out)
{
    buf_puts(out, "\nhyperparameters, named as in config.json\n");
    for (int i = 0; i < dsv4_n_keys; i++)
        buf_printf(out, "  %-46s %.10g\n", dsv4_keys[i].config, value_of(h, &dsv4_keys[i]));
    buf_printf(out, "  %-46s", "compress_ratios");
    for (int l = 0; l < h->n_layer; l++) {
        if (!seen_before(h, l))
            buf_printf(out, " %d x %d", count_ratio(h, l, h->ratio[l]), h->ratio[l]);
    }
    buf_printf(out, "\n  %-46s %s\n", "cache_simulation",
               h->cache_simulation == DSV4_CACHE_NONE ? "none" : "vendor");
}

void inspect_text(const struct inspect *x, struct buf *out)
{
    char bytes[32];
    buf_printf(out, "%s\n", weights_path(x->files));
    buf_printf(out, "  %-14s %s in %d file%s, %s bytes\n", "format", x->format,
               weights_n_file(x->files), weights_n_file(x->files) == 1 ? "" : "s",
               grouped(bytes, x->file_bytes));
    buf_printf(out, "  %-14s %s\n", "architecture", x->architecture);
    buf_printf(out, "  %-14s %s\n", "draft block",
               x->has_mtp      ? "next token"
               : x->has_dspark ? "DSpark"
                               : "none");
    if (x->text.found)
        buf_printf(out, "  %-14s %d tokens, %d of them added, %d merges, split by %s\n",
                   "tokenizer", x->text.n_token, x->text.n_added, x->text.n_merge,
                   x->text.rule ? x->text.rule : "rules without a name");
    else
        buf_printf(out, "  %-14s %s\n", "tokenizer", x->text.problem);
    print_sums(x, out);
    if (x->has_hyper)
        print_hyper(&x->hyper, out);
    else
        buf_printf(out, "\nno hyperparameters: %s\n", x->problem);
}

/* A path or a name from a file need not be UTF-8, JSON must be. */
static json_t *text_value(const char *s)
{
    json_t *v = json_string(s);
    char ascii[1024];
    size_t n = 0;
    if (v || !s)
        return v ? v : json_null();
    for (; s[n] && n + 1 < sizeof ascii; n++)
        ascii[n] = (unsigned char)s[n] < 0x80 ? s[n] : '?';
    ascii[n] = 0;
    return json_string(ascii);
}

static json_t *sum_json(const struct inspect_sum *s)
{
    return json_pack("{s:i,s:I,s:I}", "tensors", s->n_tensor, "bytes", (json_int_t)s->bytes,
                     "parameters", (json_int_t)s->parameters);
}

static json_t *sums_json(const struct inspect *x)
{
    json_t *parts = json_object();
    for (int i = 0; i < DSV4_N_PART; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s", dsv4_part_name((enum dsv4_part)i));
        for (char *c = key; *c; c++)
            *c = *c == ' ' || *c == '-' ? '_' : *c;
        json_object_set_new(parts, key, sum_json(&x->part[i]));
    }
    return parts;
}

static json_t *types_json(const struct inspect *x)
{
    json_t *types = json_object();
    for (int i = 0; i < x->n_type; i++)
        json_object_set_new(types, dtype_name((int)x->type[i].type), sum_json(&x->type[i].sum));
    return types;
}

static json_t *hyper_json(const struct inspect *x)
{
    const struct dsv4_hyper *h = &x->hyper;
    if (!x->has_hyper)
        return json_pack("{s:o}", "problem", text_value(x->problem));
    json_t *o = json_object(), *ratios = json_array();
    for (int i = 0; i < dsv4_n_keys; i++) {
        const struct dsv4_key *k = &dsv4_keys[i];
        double v = value_of(h, k);
        json_object_set_new(o, k->config,
                            k->type == META_FLOAT  ? json_real(v)
                            : k->type == META_BOOL ? json_boolean(v != 0)
                                                   : json_integer((json_int_t)v));
    }
    for (int l = 0; l < h->n_layer; l++)
        json_array_append_new(ratios, json_integer(h->ratio[l]));
    json_object_set_new(o, "compress_ratios", ratios);
    json_object_set_new(o, "cache_simulation",
                        json_string(h->cache_simulation == DSV4_CACHE_NONE ? "none" : "vendor"));
    return o;
}

static json_t *text_json(const struct inspect *x)
{
    if (!x->text.found)
        return json_pack("{s:o}", "problem", text_value(x->text.problem));
    return json_pack("{s:i,s:i,s:i,s:o}", "tokens", x->text.n_token, "added", x->text.n_added,
                     "merges", x->text.n_merge, "rule", text_value(x->text.rule));
}

static int append(const char *data, size_t n, void *user)
{
    buf_add(user, data, n);
    return 0;
}

void inspect_json(const struct inspect *x, struct buf *out)
{
    json_t *o = json_pack(
        "{s:o,s:s,s:s,s:i,s:I,s:b,s:b,s:o,s:o,s:o,s:o,s:o}", "path",
        text_value(weights_path(x->files)), "format", x->format, "architecture", x->architecture,
        "files", weights_n_file(x->files), "file_bytes", (json_int_t)x->file_bytes, "mtp",
        x->has_mtp, "dspark", x->has_dspark, "total", sum_json(&x->total), "parts", sums_json(x),
        "types", types_json(x), "hyperparameters", hyper_json(x), "tokenizer", text_json(x));
    if (!o || json_dump_callback(o, append, out, JSON_INDENT(2)) != 0)
        out->failed = true;
    json_decref(o);
}
