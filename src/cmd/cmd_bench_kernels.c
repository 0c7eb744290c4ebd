/* cmd_bench_kernels.c - `dstar bench kernels`: products of each type by rows, beside what memory
 * and the processor's multipliers could do. */
#include <stdio.h>
#include <stdlib.h>

#include "bench_lines.h"
#include "bench_model.h"
#include "commands.h"
#include "cpu.h"
#include "term.h"

struct kernels_opts {
    struct engine_opts model;
    struct opt_ints rows;
    const char *type;
    int repeat;
    bool json;
};

#define AT(field) offsetof(struct kernels_opts, field)

static const struct opt options[] = {
    { "rows", 0, OPT_INTS, "N,...", AT(rows), 1, 512, NULL,
      "rows of activations, at most 512; else 1,2,4,8,32,128,512" },
    { "type", 0, OPT_TEXT, "TYPE", AT(type), 0, 0, NULL, "only this type, such as Q2_K" },
    { "repeat", 'r', OPT_INT, "N", AT(repeat), 1, LAYER_MOST_REPEAT, "5",
      "measure N times; the median is shown" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL,
      "print one JSON object with every measurement, the machine and the version" },
};

enum { MOST_LINES = 16 * OPT_MOST };

struct kernels {
    const struct kernels_opts *o;
    dstar_engine *engine;
    double read_bytes_s, float_flops, int_flops;
    struct bench_line *line;
    int n_line;
};

static double median_s(const struct kernel_bench *b)
{
    struct bench_series s = { .n = b->repeat };
    memcpy(s.value, b->s, (size_t)b->repeat * sizeof *s.value);
    return bench_spread_of(&s).median;
}

static int measure_type(struct kernels *m, int type, const struct opt_ints *rows, struct err *e)
{
    const char *name = measure_kernel_type(type);
    for (int i = 0; i < rows->n; i++) {
        struct kernel_bench b = { .type = type, .n_x = rows->value[i],
                                  .repeat = m->o->repeat };
        struct bench_line *l = &m->line[m->n_line++];
        TRY(measure_kernel(&b, m->engine, e));
        snprintf(l->name, sizeof l->name, "%s, %d rows", name, b.n_x);
        l->unit = "GFLOP/s";
        l->more = true;
        for (int k = 0; k < b.repeat; k++)
            bench_add(&l->series, b.flops / b.s[k] / 1e9);
        if (m->o->json)
            continue;
        double s = median_s(&b), most = b.of_bytes ? m->int_flops : m->float_flops;
        printf("%-8s %4d %9.3f ms %7.1f GB/s %6.2f %9.1f GFLOP/s", name, b.n_x,
               1e3 * s, b.bytes / s / 1e9, b.bytes / s / m->read_bytes_s, b.flops / s / 1e9);
        if (most > 0)
            printf(" %6.2f", b.flops / s / most);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}

static int measure_all(struct kernels *m, struct err *e)
{
    static const struct opt_ints usual = { { 1, 2, 4, 8, 32, 128, 512 }, 7 };
    const struct opt_ints *rows = m->o->rows.n ? &m->o->rows : &usual;
    int n_thread = m->o->model.threads ? m->o->model.threads : cpu_count();
    TRY(measure_memory(&m->read_bytes_s, m->engine, n_thread, e));
    measure_peak(&m->float_flops, &m->int_flops, m->engine);
    if (!m->o->json) {
        bench_head_print(dstar_engine_info(m->engine), n_thread);
        printf("reading  %.1f GB/s\n", m->read_bytes_s / 1e9);
        printf("at best  %.0f GFLOP/s of float32, %.0f of bytes\n\n", m->float_flops / 1e9,
               m->int_flops / 1e9);
        printf("weights  rows          one         read  share      computed          share\n");
    }
    for (int i = 0; measure_kernel_type(i); i++)
        if (!m->o->type || strcmp(m->o->type, measure_kernel_type(i)) == 0)
            TRY(measure_type(m, i, rows, e));
    if (m->o->json) {
        json_t *head = bench_head_json(dstar_engine_info(m->engine), n_thread);
        json_object_set_new(head, "read_bytes_per_s", json_real(m->read_bytes_s));
        json_object_set_new(head, "peak_float_flops", json_real(m->float_flops));
        json_object_set_new(head, "peak_byte_flops", json_real(m->int_flops));
        bench_lines_print(head, m->line, m->n_line);
    }
    return 0;
}

static bool is_type(const char *name)
{
    for (int i = 0; measure_kernel_type(i); i++)
        if (strcmp(name, measure_kernel_type(i)) == 0)
            return true;
    return false;
}

int cmd_bench_kernels(const struct command *command, int n, char **arg)
{
    struct kernels_opts o = { 0 };
    struct kernels m = { .o = &o };
    struct opt_group group[2] = { { "measurement", options, COUNT_OF(options), &o },
                                  engine_group(&o.model) };
    struct words words;
    struct err e = { 0 };
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n)
        return opts_wrong(command, "found '%s', expected options only", words.word[0]);
    if (o.type && !is_type(o.type))
        return opts_wrong(command, "--type: found %s, expected IQ2_XXS, Q2_K, Q4_K, Q8_0, MXFP4, "
                          "F8_E4M3, F16, BF16 or F32", o.type);
    o.model.quiet = true;
    o.model.ctx = o.model.ctx ? o.model.ctx : 2048;
    o.model.max_rows = 4096; /* scratch for 512 rows of 4096 numbers, whatever the model */
    m.line = calloc(MOST_LINES, sizeof *m.line);
    status = m.line ? engine_start(&m.engine, &o.model) : EXIT_ERROR;
    if (status == 0 && measure_all(&m, &e) < 0) {
        term_error("%s", e.text);
        status = EXIT_ERROR;
    }
    dstar_close(m.engine);
    free(m.line);
    return status;
}
