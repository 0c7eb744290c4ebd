/* cmd_bench_reads.c - `dstar bench reads`: how fast experts come from a drive when a token misses
 * 1, 3 or 6 of a layer. Sizes of a batch take turns, so that a drive that drifts is fair to all. */
#include <stdlib.h>
#include <stdio.h>
#include <time.h>

#include "bench_lines.h"
#include "clock.h"
#include "commands.h"
#include "engine_opts.h"
#include "measure.h"
#include "term.h"

#define MOST_EXPERTS 64

struct reads_opts {
    struct engine_opts model;
    const char *file, *io;
    uint64_t expert_bytes;
    struct opt_ints experts;
    int depth, repeat;
    double seconds;
    bool registered, json;
};

#define AT(field) offsetof(struct reads_opts, field)

static const struct opt options[] = {
    { "file", 0, OPT_TEXT, "FILE", AT(file), 0, 0, NULL,
      "read this file as if it were full of experts, instead of a model's" },
    { "expert-bytes", 0, OPT_BYTES, "SIZE", AT(expert_bytes), 0, 0, "6912K",
      "with --file: size of an expert" },
    { "experts", 0, OPT_INTS, "N,...", AT(experts), 1, MOST_EXPERTS, "1,3,6",
      "missing experts of a batch, that are waited for together" },
    { "io", 0, OPT_TEXT, "PATH", AT(io), 0, 0, "auto",
      "how to read: auto, uring-fixed, uring-direct, uring-buffered, pool-direct, pool-buffered" },
    { "registered", 0, OPT_FLAG, NULL, AT(registered), 0, 0, NULL,
      "register the memory with the kernel, if that is allowed" },
    { "depth", 0, OPT_INT, "N", AT(depth), 0, AIO_MOST_DEPTH, "0",
      "reads in flight, at most; 0: all of a batch, up to 32" },
    { "seconds", 0, OPT_REAL, "S", AT(seconds), 0.01, 3600, "0.5",
      "time for each size of batch, in each turn" },
    { "repeat", 'r', OPT_INT, "N", AT(repeat), 1, BENCH_MOST_REPEAT, "9",
      "turns; the median is shown, with the least and the most" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL,
      "print one JSON object with every measurement, the machine and the version" },
};

/* For one size of batch: a value for each turn. */
struct reads_row {
    struct bench_series rate, ms, cpu; /* bytes per second, of a batch, seconds per GB */
};

static double cpu_now_s(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static int turn(struct read_bench *b, struct reads_row *row, int n_expert, double most_s,
                struct err *e)
{
    double bytes = 0, seconds = 0, cpu = cpu_now_s(), end = clock_now_s() + most_s;
    int n = 0;
    do {
        double some_bytes, some_s;
        TRY(read_bench_batch(b, n_expert, &some_s, &some_bytes, e));
        bytes += some_bytes;
        seconds += some_s;
        n++;
    } while (clock_now_s() < end);
    bench_add(&row->rate, bytes / seconds);
    bench_add(&row->ms, 1e3 * seconds / n);
    bench_add(&row->cpu, (cpu_now_s() - cpu) / (bytes / 1e9));
    return 0;
}

static int measure(struct read_bench *b, struct reads_row *row, const struct reads_opts *o,
                   struct err *e)
{
    for (int t = 0; t < o->repeat; t++)
        for (int i = 0; i < o->experts.n; i++)
            TRY(turn(b, &row[i], o->experts.value[i], o->seconds, e));
    return 0;
}

static void print_table(const struct read_bench_info *info, const struct reads_row *row,
                        const struct reads_opts *o)
{
    char size[16], file[16];
    bench_head_print(NULL, 0);
    printf("reading  %s of %d experts of %s, %s%s%s, %d in flight\n",
           term_bytes(file, (double)info->file_bytes), info->n_expert,
           term_bytes(size, (double)info->expert_bytes), aio_path_name(info->io->path),
           *info->io->ring ? ", " : "", info->io->ring, info->depth);
    if (*info->io->refused)
        printf("refused  %s\n", info->io->refused);
    printf("memory   %.0f %% in huge pages\nprobe   ",
           100 * (double)info->huge_bytes / (double)info->slab_bytes);
    for (int i = 0; i < 6; i++)
        if (info->probe_rate[i] > 0)
            printf(" %d: %.2f", 1 << i, info->probe_rate[i] / 1e9);
    printf(" GB/s by reads in flight\n\nexperts   ms a batch                   GB/s"
           "                    processor s per GB\n");
    for (int i = 0; i < o->experts.n; i++) {
        struct bench_spread ms = bench_spread_of(&row[i].ms), rate = bench_spread_of(&row[i].rate);
        printf("%7d %8.2f [%.2f to %.2f] %8.2f [%.2f to %.2f] %8.4f\n", o->experts.value[i],
               ms.median, ms.least, ms.most, rate.median / 1e9, rate.least / 1e9, rate.most / 1e9,
               bench_spread_of(&row[i].cpu).median);
    }
}

static void print_json(const struct read_bench_info *info, const struct reads_row *row,
                       const struct reads_opts *o)
{
    json_t *head = bench_head_json(NULL, 0), *probe = json_array(), *list = json_array();
    for (int i = 0; i < 6; i++)
        json_array_append_new(probe, json_real(info->probe_rate[i]));
    for (int i = 0; i < o->experts.n; i++)
        json_array_append_new(list, json_pack(
            "{s:i, s:o, s:o, s:o}", "experts", o->experts.value[i], "ms",
            bench_series_json(&row[i].ms), "bytes_per_s", bench_series_json(&row[i].rate),
            "cpu_s_per_gb", bench_series_json(&row[i].cpu)));
    json_t *reads = json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:f, s:o, s:o}", "path",
                              aio_path_name(info->io->path), "ring", info->io->ring, "refused",
                              info->io->refused, "depth", info->depth, "file_bytes",
                              (json_int_t)info->file_bytes, "expert_bytes",
                              (json_int_t)info->expert_bytes, "huge_share",
                              (double)info->huge_bytes / (double)info->slab_bytes,
                              "probe_bytes_per_s", probe, "batches", list);
    json_object_set_new(head, "reads", reads);
    bench_json_print(head);
}

static int bench(const struct read_bench_ask *ask, const struct reads_opts *o)
{
    struct read_bench *b;
    struct read_bench_info info;
    struct err e = { 0 };
    struct reads_row *row = calloc(OPT_MOST, sizeof *row);
    int code = row ? read_bench_open(&b, ask, &e)
                   : err_set(&e, ERR_NO_MEMORY, "out of memory for a bench");
    if (code == 0) {
        read_bench_info(b, &info);
        code = measure(b, row, o, &e);
        if (code == 0)
            (o->json ? print_json : print_table)(&info, row, o);
        read_bench_close(b);
    }
    free(row);
    if (code < 0)
        term_error("%s", e.text);
    return code < 0 ? EXIT_ERROR : EXIT_DONE;
}

int cmd_bench_reads(const struct command *command, int n, char **arg)
{
    struct reads_opts o = { 0 };
    struct opt_group group[] = { { "reads", options, COUNT_OF(options), &o },
                                 tokens_group(&o.model) };
    struct words words;
    struct read_bench_ask ask = { .most = 1 };
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n > 0)
        return opts_wrong(command, "found \"%s\", expected options alone", words.word[0]);
    if (!aio_path_named(&ask.io, o.io))
        return opts_wrong(command, "--io: found %s, expected auto, uring-fixed, uring-direct, "
                          "uring-buffered, pool-direct or pool-buffered", o.io);
    for (int i = 0; i < o.experts.n; i++)
        ask.most = MAX(ask.most, o.experts.value[i]);
    ask.depth = o.depth;
    ask.fixed = o.registered || ask.io == AIO_URING_FIXED;
    ask.expert_bytes = o.file ? o.expert_bytes : 0;
    char *model = o.file ? NULL : engine_model(&o.model);
    ask.path = o.file ? o.file : model;
    status = ask.path ? bench(&ask, &o) : EXIT_ERROR;
    free(model);
    return status;
}
