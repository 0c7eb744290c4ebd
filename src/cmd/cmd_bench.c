/* cmd_bench.c - `dstar bench` and `dstar bench model`: how fast prompts are read and answers
 * written, by length of context.
 *
 * A conversation of random tokens grows from one length of the list to the next: the rate of
 * reading is that of the tokens added, the rate of writing that of a few tokens behind them, drawn
 * as in an answer and then taken back. Each repetition has tokens of its own, so that nothing can
 * come from a cache. Random tokens spread over all experts: text is rarely slower. With
 * --fill-cache all but the last tokens before a length are not read: their rows are drawn. */
#include <stdio.h>
#include <stdlib.h>

#include "bench_model.h"
#include "bench_report.h"
#include "clock.h"
#include "commands.h"
#include "rng.h"
#include "term.h"

struct bench_opts {
    struct bench_model model;
    struct opt_ints ctx_list;
    int repeat, n_gen, rows, n_read;
    bool csv, json, fill;
};

#define AT(field) offsetof(struct bench_opts, field)
#define MAX_FLOW_BYTES ((size_t)1 << 20)

static const struct opt options[] = {
    { "ctx-list", 0, OPT_INTS, "N,...", AT(ctx_list), 1, 1 << 24, NULL,
      "lengths of context to measure at; else 512,2048,8192 as far as memory allows" },
    { "repeat", 'r', OPT_INT, "N", AT(repeat), 1, BENCH_MOST_REPEAT, "3",
      "measure N times; the median is shown, with the least and the most" },
    { "gen", 0, OPT_INT, "N", AT(n_gen), 1, 100000, "32", "tokens written at each length" },
    { "rows", 0, OPT_INT, "N", AT(rows), 0, 65536, "0",
      "most tokens read in one step; 0: chosen for the device" },
    { "fill-cache", 0, OPT_FLAG, NULL, AT(fill), 0, 0, NULL,
      "draw the cache of what lies before instead of computing it: long contexts in seconds" },
    { "read", 0, OPT_INT, "N", AT(n_read), 1, 1 << 20, "512",
      "with --fill-cache: tokens read before each length" },
    { "csv", 0, OPT_FLAG, NULL, AT(csv), 0, 0, NULL, "print comma-separated values" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL,
      "print one JSON object with every measurement, the machine, the version and the model" },
};

struct bench {
    const struct bench_opts *o;
    dstar_engine *engine;
    dstar_session *session;
    struct progress progress;
    int done, total; /* tokens, for the progress line */
    int32_t *id;     /* tokens of this repetition */
    double *token_s; /* of all rows */
    struct flow before;
    double write_s, busy_s; /* of answers; and of that, the GPU was at work */
    struct device_memory memory; /* as much of it as was taken at any time */
};

/* Compute all that waits. */
static int compute(struct bench *b, struct dstar_error *error)
{
    int left;
    do {
        left = dstar_session_step(b->session, error);
        progress_show(&b->progress, b->done, b->total);
    } while (left > 0);
    return left;
}

static int read_up_to(struct bench *b, int from, int to, struct dstar_error *error)
{
    TRY(dstar_session_append(b->session, b->id + from, to - from, error));
    TRY(compute(b, error));
    b->done += to - from;
    return 0;
}

/* Draw and append tokens; the end of a turn does not end it. */
static int write_some(struct bench *b, struct bench_row *row, struct dstar_error *error)
{
    for (int i = 0; i < b->o->n_gen; i++) {
        double begin = clock_now_s();
        int32_t id;
        TRY(dstar_sample(b->session, &id, error));
        TRY(dstar_session_append(b->session, &id, 1, error));
        TRY(compute(b, error));
        row->token_s[row->n_token++] = clock_now_s() - begin;
        b->done++;
    }
    return 0;
}

static int measure_row(struct bench *b, int from, struct bench_row *row, struct dstar_error *error)
{
    if (b->o->fill && row->at - b->o->n_read > from) {
        struct err e = { 0 };
        from = row->at - b->o->n_read;
        if (measure_fill_cache(b->session, from, 1, &e) < 0)
            return fault_of(error, &e);
    }
    double begin = clock_now_s();
    TRY(read_up_to(b, from, row->at, error));
    double busy = measure_busy_s(b->engine), middle = clock_now_s();
    TRY(write_some(b, row, error));
    double end = clock_now_s();
    struct device_memory memory = measure_device_memory(b->engine);
    b->write_s += end - middle;
    b->busy_s += measure_busy_s(b->engine) - busy;
    b->memory.taken = MAX(b->memory.taken, memory.taken);
    b->memory.all = memory.all;
    bench_add(&row->column[0], (row->at - from) / (middle - begin));
    bench_add(&row->column[1], b->o->n_gen / (end - middle));
    TRY(dstar_session_truncate(b->session, row->at, error));
    return compute(b, error);
}

static void draw_tokens(struct bench *b, int n, uint64_t seed)
{
    uint64_t n_vocab = (uint64_t)dstar_engine_info(b->engine)->n_vocab;
    for (int i = 0; i < n; i++)
        b->id[i] = (int32_t)(rng_at(seed, (uint64_t)i) % n_vocab);
}

static int measure(struct bench *b, struct bench_row *row, int n_row, struct dstar_error *error)
{
    int longest = row[n_row - 1].at;
    b->total = (longest + n_row * b->o->n_gen) * b->o->repeat;
    size_t n_token = (size_t)b->o->n_gen * (size_t)b->o->repeat;
    b->id = malloc((size_t)longest * sizeof *b->id);
    b->token_s = malloc((size_t)n_row * n_token * sizeof *b->token_s);
    if (!b->id || !b->token_s)
        return fault_set(error, DSTAR_NO_MEMORY, "bench: no memory for %d tokens", longest);
    for (int r = 0; r < n_row; r++)
        row[r].token_s = b->token_s + (size_t)r * n_token;
    TRY(dstar_session_new(&b->session, b->engine, error));
    progress_begin(&b->progress, "measuring", "tokens", 0);
    draw_tokens(b, longest, 0);
    TRY(read_up_to(b, 0, MIN(longest, 64), error)); /* pages and caches are warm from here on */
    b->done = 0;
    flow_of(b->engine, &b->before);
    for (int i = 0; i < b->o->repeat; i++) {
        TRY(dstar_session_set(b->session, &(int32_t){ 0 }, 0, error));
        draw_tokens(b, longest, (uint64_t)i + 1);
        for (int r = 0; r < n_row; r++)
            TRY(measure_row(b, r ? row[r - 1].at : 0, &row[r], error));
    }
    return 0;
}

/* The lengths to measure at, ascending; how many. */
static int choose_rows(const struct bench_opts *o, int ctx, struct bench_row *row)
{
    static const struct opt_ints usual = { { 512, 2048, 8192 }, 3 };
    const struct opt_ints *list = o->ctx_list.n ? &o->ctx_list : &usual;
    int n = 0;
    for (int i = 0; i < list->n; i++)
        if (o->ctx_list.n || list->value[i] <= ctx - o->n_gen)
            row[n++].at = list->value[i];
    if (n == 0)
        row[n++].at = MAX(ctx - o->n_gen, 1);
    return n;
}

/* With what reading experts cost since the first measurement. */
static void print(const struct bench *b, struct bench_report *report)
{
    struct buf line, json;
    struct flow flow;
    buf_init(&line, MAX_FLOW_BYTES);
    buf_init(&json, MAX_FLOW_BYTES);
    flow_of(b->engine, &flow);
    flow_since(&flow, &b->before);
    flow_line(&flow, b->write_s, &line);
    flow_json(b->engine, &flow, &json);
    report->experts = line.data;
    report->experts_json = json.data;
    bench_print(report, b->o->json ? BENCH_JSON : b->o->csv ? BENCH_CSV : BENCH_TABLE);
    buf_release(&line);
    buf_release(&json);
}

static int bench(struct bench *b)
{
    static struct bench_row row[OPT_MOST];
    struct dstar_error error;
    const struct dstar_info *info = dstar_engine_info(b->engine);
    int n_row = choose_rows(b->o, info->ctx, row);
    int code = measure(b, row, n_row, &error);
    progress_end(&b->progress);
    dstar_session_free(b->session);
    free(b->id);
    if (code < 0) {
        free(b->token_s);
        return fault_print(&error);
    }
    for (int i = 0; i < n_row && b->o->n_gen >= BENCH_LONG; i++)
        bench_eighths(&row[i], b->o->n_gen);
    struct bench_report report = { info, "ctx", { "prefill", "decode" }, "tok/s", 2, n_row, row,
                                   b->o->n_gen, b->o->model.opts.threads, (double)b->memory.taken,
                                   (double)b->memory.all, b->busy_s / b->write_s, NULL, NULL };
    print(b, &report);
    free(b->token_s);
    return EXIT_DONE;
}

int cmd_bench(const struct command *command, int n, char **arg)
{
    struct bench_opts o = { 0 };
    struct bench b = { .o = &o };
    struct engine_opts *engine = &o.model.opts;
    struct opt_group group[1 + BENCH_MODEL_GROUPS] = { { "measurement", options,
                                                         COUNT_OF(options), &o } };
    struct words words;
    bench_model_groups(group + 1, &o.model);
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n)
        return opts_wrong(command, "found '%s', expected options only", words.word[0]);
    for (int i = 1; i < o.ctx_list.n; i++)
        if (o.ctx_list.value[i] <= o.ctx_list.value[i - 1])
            return opts_wrong(command, "--ctx-list: found %d after %d, expected ascending lengths",
                              o.ctx_list.value[i], o.ctx_list.value[i - 1]);
    engine->max_rows = o.rows;
    if (engine->ctx == 0) /* room for what is measured, no more */
        engine->ctx = (o.ctx_list.n ? o.ctx_list.value[o.ctx_list.n - 1] : 8192) + o.n_gen;
    status = bench_model_open(&o.model);
    b.engine = o.model.engine;
    if (status == 0)
        status = bench(&b);
    bench_model_close(&o.model);
    return status;
}
