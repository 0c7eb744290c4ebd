/* cmd_bench_layers.c - `dstar bench layers`: milliseconds of each kind of layer, beside what its
 * products and its bytes take alone, and what follows for the whole of a large model. */
#include <stdio.h>
#include <stdlib.h>

#include "bench_lines.h"
#include "bench_model.h"
#include "commands.h"
#include "cpu.h"
#include "interrupt.h"
#include "term.h"

struct layers_opts {
    struct bench_model model;
    struct opt_ints at, rows;
    int repeat;
    bool ops, json;
};

#define AT(field) offsetof(struct layers_opts, field)

static const struct opt options[] = {
    { "at", 0, OPT_INTS, "N,...", AT(at), 1, 1 << 24, NULL,
      "tokens of context, drawn, not computed; else 2048,32768" },
    { "rows", 0, OPT_INTS, "N,...", AT(rows), 1, 4096, NULL,
      "tokens of a step, 1: writing an answer; else 1,256" },
    { "repeat", 'r', OPT_INT, "N", AT(repeat), 1, LAYER_MOST_REPEAT, "9",
      "run each step N times; the median is shown" },
    { "ops", 0, OPT_FLAG, NULL, AT(ops), 0, 0, NULL, "show each op of a layer, too" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL,
      "print one JSON object with every measurement, the machine, the version and the model" },
};

enum { MOST_LINES = OPT_MOST * OPT_MOST * (N_LAYER_KIND + 1) };

static const char *const kind_name[N_LAYER_KIND] = { "window", "sparse", "heavy", "head" };

struct layers {
    const struct layers_opts *o;
    dstar_session *session;
    double read_bytes_s;
    int count[N_LAYER_KIND]; /* layers of the whole model, the head once */
    const char *whole;
    struct bench_line *line;
    int n_line;
};

static double median_of(const struct layer_bench *b, const double *s)
{
    struct bench_series all = { .n = b->repeat };
    memcpy(all.value, s, (size_t)b->repeat * sizeof *s);
    return bench_spread_of(&all).median;
}

static void add_line(struct layers *m, const struct layer_bench *b, const char *what,
                     const double *s)
{
    struct bench_line *l = &m->line[m->n_line++];
    snprintf(l->name, sizeof l->name, "%s, %d rows at %d", what, b->n_tok, b->at);
    l->unit = "ms";
    l->series.n = b->repeat;
    for (int i = 0; i < b->repeat; i++)
        l->series.value[i] = 1e3 * s[i];
}

static void add_lines(struct layers *m, const struct layer_bench *b)
{
    for (int k = 0; k < N_LAYER_KIND; k++)
        if (b->kind[k].n_layer)
            add_line(m, b, kind_name[k], b->kind[k].s);
    add_line(m, b, "step", b->step_s);
}

static void print_ops(const struct layer_times *t)
{
    for (int i = 0; i < t->n_op; i++) {
        const struct layer_op *op = &t->op[i];
        char shape[32] = "", alone[16] = "", rate[16] = "";
        if (op->type)
            snprintf(shape, sizeof shape, "%s %d x %d", op->type, op->rows, op->cols);
        if (op->alone_s > 0) {
            snprintf(alone, sizeof alone, "%.4f", 1e3 * op->alone_s);
            snprintf(rate, sizeof rate, "%.1f", op->bytes / op->alone_s / 1e9);
        }
        printf("    %-14s %-22s %9.3f ms %9s %s %6s %s\n", op->name, shape, 1e3 * op->in_layer_s,
               alone, *alone ? "alone" : "", rate, *alone ? "GB/s" : "");
    }
}

/* A layer cannot be faster than its bytes can be read, nor than its products are alone. */
static double bound_s(const struct layers *m, const struct layer_times *t, int n_tok)
{
    double bytes = t->bytes + (n_tok == 1 ? t->cache_bytes : 0);
    return MAX(bytes / m->read_bytes_s, t->alone_s);
}

static double print_kind(const struct layers *m, const struct layer_bench *b, int kind)
{
    const struct layer_times *t = &b->kind[kind];
    double s = median_of(b, t->s), bound = bound_s(m, t, b->n_tok);
    printf("  %-8s %2d of %2d %9.3f ms %8.1f MB %9.3f ms %9.3f ms %6.2f\n", kind_name[kind],
           t->n_layer, m->count[kind], 1e3 * s, (t->bytes + t->cache_bytes) / 1e6,
           1e3 * (t->bytes + t->cache_bytes) / m->read_bytes_s, 1e3 * t->alone_s, bound / s);
    if (m->o->ops)
        print_ops(t);
    return s * m->count[kind];
}

static void print_bench(const struct layers *m, const struct layer_bench *b)
{
    double sum = 0;
    bool all = true;
    int n_layer = 0;
    printf("%d row%s at %d\n  kind     layers        one         reads      at best   products    "
           "share\n", b->n_tok, b->n_tok == 1 ? "" : "s", b->at);
    for (int k = 0; k < N_LAYER_KIND; k++) {
        n_layer += k == LAYER_HEAD ? 0 : b->kind[k].n_layer;
        if (b->kind[k].n_layer)
            sum += print_kind(m, b, k);
        else
            all = all && m->count[k] == 0;
    }
    if (all)
        printf("  all of %s: %.1f ms, %.2f tokens a second\n", m->whole, 1e3 * sum,
               b->n_tok / sum);
    printf("  a step of %d layers and the head as it runs: %.2f ms\n\n", n_layer,
           1e3 * median_of(b, b->step_s));
}

static int measure_one(struct layers *m, int n_tok, int at, struct err *e)
{
    struct layer_bench *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a measurement");
    b->n_tok = n_tok;
    b->at = at;
    b->repeat = m->o->repeat;
    int code = measure_layers(b, m->session, e);
    if (code == 0)
        add_lines(m, b);
    if (code == 0 && !m->o->json)
        print_bench(m, b);
    free(b);
    return code;
}

static int measure_all(struct layers *m, struct err *e)
{
    static const struct opt_ints at = { { 2048, 32768 }, 2 }, rows = { { 1, 256 }, 2 };
    const struct opt_ints *all_at = m->o->at.n ? &m->o->at : &at;
    const struct opt_ints *all_rows = m->o->rows.n ? &m->o->rows : &rows;
    for (int i = 0; i < all_rows->n * all_at->n; i++)
        TRY(measure_one(m, all_rows->value[i / all_at->n], all_at->value[i % all_at->n], e));
    return 0;
}

/* Layers of all of Flash or Pro, by the width of what was opened; else of the model itself. */
static void choose_whole(struct layers *m, const struct layer_counts *c)
{
    static const int flash[N_LAYER_KIND] = { 2, 21, 20, 1 }, pro[N_LAYER_KIND] = { 0, 30, 31, 1 };
    const int *from = c->n_embd == 4096 ? flash : c->n_embd == 7168 ? pro : c->n;
    m->whole = c->n_embd == 4096 ? "Flash" : c->n_embd == 7168 ? "Pro" : "the model";
    memcpy(m->count, from, sizeof m->count);
}

static int bench_layers(struct layers *m, dstar_engine *engine)
{
    const struct dstar_info *info = dstar_engine_info(engine);
    int n_thread = m->o->model.opts.threads ? m->o->model.opts.threads : cpu_count();
    struct dstar_error error;
    struct err e = { 0 };
    struct layer_counts count = measure_layer_counts(engine);
    choose_whole(m, &count);
    if (measure_memory(&m->read_bytes_s, engine, n_thread, &e) < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    if (dstar_session_new(&m->session, engine, &error) < 0)
        return fault_print(&error);
    if (!m->o->json) {
        bench_head_print(info, n_thread);
        printf("reading  %.1f GB/s\n\n", m->read_bytes_s / 1e9);
    }
    int code = measure_all(m, &e);
    dstar_session_free(m->session);
    if (code < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    if (m->o->json) {
        json_t *head = bench_head_json(info, n_thread);
        json_object_set_new(head, "read_bytes_per_s", json_real(m->read_bytes_s));
        bench_lines_print(head, m->line, m->n_line);
    }
    return EXIT_DONE;
}

static int most(const struct opt_ints *list, int preset)
{
    int value = list->n ? 0 : preset;
    for (int i = 0; i < list->n; i++)
        value = MAX(value, list->value[i]);
    return value;
}

int cmd_bench_layers(const struct command *command, int n, char **arg)
{
    struct layers_opts o = { 0 };
    struct layers m = { .o = &o };
    struct opt_group group[1 + BENCH_MODEL_GROUPS] = { { "measurement", options,
                                                         COUNT_OF(options), &o } };
    struct words words;
    bench_model_groups(group + 1, &o.model);
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n)
        return opts_wrong(command, "found '%s', expected options only", words.word[0]);
    o.model.opts.max_rows = most(&o.rows, 256);
    if (o.model.opts.ctx == 0)
        o.model.opts.ctx = most(&o.at, 32768) + o.model.opts.max_rows;
    m.line = calloc(MOST_LINES, sizeof *m.line);
    status = m.line ? bench_model_open(&o.model) : EXIT_ERROR;
    if (status == 0)
        status = bench_layers(&m, o.model.engine);
    bench_model_close(&o.model);
    free(m.line);
    return status;
}
