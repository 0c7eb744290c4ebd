/* cmd_bench_load.c - `dstar bench load`: how fast a model comes to a GPU, beside what the drive
 * gives and what the bus takes by themselves. */
#include <stdlib.h>
#include <stdio.h>

#include "bench_lines.h"
#include "commands.h"
#include "engine_opts.h"
#include "measure.h"
#include "term.h"

struct load_opts {
    struct engine_opts model;
    int repeat;
    bool json;
};

#define AT(field) offsetof(struct load_opts, field)

static const struct opt options[] = {
    { "repeat", 'r', OPT_INT, "N", AT(repeat), 1, BENCH_MOST_REPEAT, "3",
      "turns; the median is shown, with the least and the most" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL,
      "print one JSON object with every measurement, the machine, the version and the model" },
};

enum { DRIVE, CACHE, BUS, COLD, WARM, OPEN_COLD, OPEN_WARM, N_LINE };

struct load {
    const struct load_opts *o;
    const char *path;
    dstar_engine *engine;
    double bytes;
    struct bench_line line[N_LINE];
};

/* Rates in GB/s. */
static void add_rate(struct load *b, int line, double bytes_per_s)
{
    bench_add(&b->line[line].series, bytes_per_s / 1e9);
}

/* The engine stays open. Returns 0, or the exit status. */
static int load(struct load *b, int rate, int open)
{
    dstar_close(b->engine);
    b->engine = NULL;
    int status = engine_start(&b->engine, &b->o->model);
    if (status)
        return status;
    struct load_times t = measure_load(b->engine);
    if (t.s <= 0) {
        term_error("%s: nothing is loaded for %s; expected --device cuda", b->path,
                   dstar_engine_info(b->engine)->device);
        return EXIT_ERROR;
    }
    b->bytes = t.bytes;
    add_rate(b, rate, t.bytes / t.s);
    bench_add(&b->line[open].series, t.open_s);
    return 0;
}

static int failed(const struct err *e)
{
    term_error("%s", e->text);
    return EXIT_ERROR;
}

static int forget(struct load *b)
{
    struct err e = { 0 };
    dstar_close(b->engine); /* nobody may have them mapped */
    b->engine = NULL;
    return measure_forget_files(b->path, &e) < 0 ? failed(&e) : 0;
}

static int read_files(struct load *b, int line)
{
    struct err e = { 0 };
    double rate;
    if (measure_files(&rate, b->path, &e) < 0)
        return failed(&e);
    add_rate(b, line, rate);
    return 0;
}

static int copy(struct load *b)
{
    struct err e = { 0 };
    double rate;
    if (measure_bus(&rate, b->engine, &e) < 0)
        return failed(&e);
    add_rate(b, BUS, rate);
    return 0;
}

static int turn(struct load *b)
{
    int status = forget(b);
    if (!status)
        status = load(b, COLD, OPEN_COLD);
    if (!status)
        status = forget(b);
    if (!status)
        status = read_files(b, DRIVE);
    if (!status)
        status = read_files(b, CACHE);
    if (!status)
        status = load(b, WARM, OPEN_WARM);
    return status ? status : copy(b);
}

static double median(const struct load *b, int line)
{
    return bench_spread_of(&b->line[line].series).median;
}

/* A load beside the slower of its two ways. */
static void print_share(const struct load *b, int line, int from, const char *name)
{
    bool bus = median(b, BUS) < median(b, from);
    printf("%s: %.0f %% of %s\n", b->line[line].name,
           100 * median(b, line) / median(b, bus ? BUS : from), bus ? "the bus" : name);
}

static void print_table(const struct load *b)
{
    bench_head_print(dstar_engine_info(b->engine), b->o->model.threads);
    printf("%.1f GB of weights are loaded\n\n", b->bytes / 1e9);
    for (int i = 0; i < N_LINE; i++) {
        struct bench_spread s = bench_spread_of(&b->line[i].series);
        printf("%-28s %8.2f %-4s (%.2f .. %.2f)\n", b->line[i].name, s.median, b->line[i].unit,
               s.least, s.most);
    }
    printf("\n");
    print_share(b, COLD, DRIVE, "the drive");
    print_share(b, WARM, CACHE, "the page cache");
}

static int bench(struct load *b)
{
    static const char *const name[N_LINE] = {
        "drive, reads alone", "page cache, reads alone", "bus, copies alone", "loading, cold",
        "loading, warm", "opening, cold", "opening, warm",
    };
    for (int i = 0; i < N_LINE; i++) {
        snprintf(b->line[i].name, sizeof b->line[i].name, "%s", name[i]);
        b->line[i].more = i < OPEN_COLD;
        b->line[i].unit = i < OPEN_COLD ? "GB/s" : "s";
    }
    for (int i = 0; i < b->o->repeat; i++) {
        int status = turn(b);
        if (status)
            return status;
    }
    if (b->o->json)
        bench_lines_print(bench_head_json(dstar_engine_info(b->engine), b->o->model.threads),
                          b->line, N_LINE);
    else
        print_table(b);
    return EXIT_DONE;
}

int cmd_bench_load(const struct command *command, int n, char **arg)
{
    struct load_opts o = { 0 };
    struct load b = { .o = &o };
    struct opt_group group[] = { { "loading", options, COUNT_OF(options), &o },
                                 engine_group(&o.model) };
    struct words words;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n > 0)
        return opts_wrong(command, "found \"%s\", expected options alone", words.word[0]);
    char *model = engine_model(&o.model);
    if (!model)
        return EXIT_ERROR;
    o.model.model = b.path = model;
    o.model.quiet = true;
    status = bench(&b);
    dstar_close(b.engine);
    free(model);
    return status;
}
