/* quantize_report.c - what a recipe makes of a model, from its directory or its sizes alone. */
#include "quantize_impl.h"

#include <stdio.h>

/* 1234567 -> "1,234,567" */
static const char *grouped(char out[32], int64_t n)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%lld", (long long)n), at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

struct sum {
    int n_tensor;
    int64_t bytes, numbers;
};

static enum dsv4_part part_of(const struct quantize_tensor *t)
{
    return dsv4_place_of(t->name).part;
}

static void add(struct sum *s, const struct quantize_tensor *t)
{
    int64_t n = t->dim[0] * t->dim[1] * t->dim[2];
    s->n_tensor++;
    s->numbers += n;
    s->bytes += (int64_t)dtype_bytes(t->type, (size_t)n);
}

static void print_sum(struct buf *out, const char *part, const char *type, const struct sum *s,
                      int64_t total)
{
    char bytes[32];
    buf_printf(out, "  %-24s %-8s %8d %20s %7.2f %% %8.4f\n", part, type, s->n_tensor,
               grouped(bytes, s->bytes), total ? 100.0 * (double)s->bytes / (double)total : 0.0,
               8.0 * (double)s->bytes / (double)s->numbers);
}

/* A part's types in the order in which they first occur. */
static void print_part(const struct quantize *q, enum dsv4_part part, int64_t total,
                       struct buf *out)
{
    bool shown[64] = { false };
    for (int i = 0; i < q->n_tensor; i++) {
        enum dtype type = q->tensor[i].type;
        struct sum s = { 0 };
        if (part_of(&q->tensor[i]) != part || shown[type])
            continue;
        for (int k = i; k < q->n_tensor; k++) {
            if (part_of(&q->tensor[k]) == part && q->tensor[k].type == type)
                add(&s, &q->tensor[k]);
        }
        shown[type] = true;
        print_sum(out, dsv4_part_name(part), dtype_name((int)type), &s, total);
    }
}

static void print_effort(const struct quantize *q, struct buf *out)
{
    double seconds = 0;
    for (int i = 0; i < q->n_unit; i++)
        seconds += quantize_unit_seconds(q, &q->unit[i]);
    size_t n = q->most.inputs;
    double memory = (double)(q->most.src + q->most.dst + q->most.scale + 20 * q->most.cols) +
                    2 * (double)quant_search_bytes();
    double shared = n ? 4 * (2 * (double)n * (double)n + (double)quant_factor_floats((int)n)) : 0;
    if (n)
        memory += (double)(4 * quant_feedback_floats((int)n) +
                           QUANT_FEEDBACK_ROWS * (4 * n + q->most.sample) + 4 * n);
    buf_printf(out, "\nabout %.1f hours on one processor with AVX2, %.0f MB of memory for each "
               "of %d", seconds / 3600, memory * 1e-6, q->n_thread);
    if (n)
        buf_printf(out, " and %.0f MB for inputs", shared * 1e-6);
    buf_putc(out, '\n');
}

static int print(struct quantize *q, struct buf *out, struct err *e)
{
    struct sum all = { 0 };
    char bytes[32];
    for (int i = 0; i < q->n_tensor; i++)
        add(&all, &q->tensor[i]);
    buf_printf(out, "recipe %s for %s\n\n  %-24s %-8s %8s %20s %9s %8s\n", q->recipe.name,
               q->o->shape ? q->o->shape : weights_path(q->im.files), "part", "type", "tensors",
               "bytes", "share", "bits");
    for (int p = 0; p < DSV4_N_PART; p++)
        print_part(q, (enum dsv4_part)p, all.bytes, out);
    print_sum(out, "all", "", &all, all.bytes);
    int64_t file = gguf_write_bytes(&q->im.out);
    if (file < 0)
        return err_set(e, ERR_NO_MEMORY, "out of memory for metadata");
    if (q->o->shape)
        buf_printf(out, "\nand some MB of names and tokens\n");
    else
        buf_printf(out, "\nthe file will have %s bytes (%.2f GB, %.2f GiB)\n",
                   grouped(bytes, file), (double)file * 1e-9, (double)file / 1073741824.0);
    quantize_print_upgrade(q, out);
    print_effort(q, out);
    return out->failed ? err_set(e, ERR_NO_MEMORY, "out of memory for a table") : 0;
}

static int plan_text(struct quantize *q, const struct quantize_options *o, struct buf *out,
                     struct err *e)
{
    TRY(quantize_open(q, o, e));
    TRY(quantize_plan(q, e));
    TRY(quantize_check_importance(q, e));
    gguf_write_plan(&q->im.out);
    TRY(quantize_keys(q, e));
    return print(q, out, e);
}

int quantize_plan_text(const struct quantize_options *o, struct buf *out, struct err *e)
{
    struct quantize q;
    CHECK(o->recipe && (o->src || o->shape));
    int code = plan_text(&q, o, out, e);
    quantize_close(&q);
    return code;
}
