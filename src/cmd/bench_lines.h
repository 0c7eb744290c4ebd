/* bench_lines.h - measurements by name, as JSON that tools/compare_bench reads. */
#ifndef DS_BENCH_LINES_H
#define DS_BENCH_LINES_H

#include <jansson.h>

#include "bench_report.h"

struct bench_line {
    char name[96];    /* "sparse layer, 1 row at 2048" */
    const char *unit; /* "ms", "GB/s" */
    bool more;        /* more is better */
    struct bench_series series;
};

/* Where and with what it was measured: version, machine with its load, threads; info NULL: no
 * model. NULL when memory is exhausted. */
json_t *bench_head_json(const struct dstar_info *info, int n_thread);

/* One measurement: median, least, most, all. */
json_t *bench_series_json(const struct bench_series *s);

/* A result, printed and given away. */
void bench_json_print(json_t *root);

/* The lines under "lines" of a head, printed; head is given away. */
void bench_lines_print(json_t *head, const struct bench_line *line, int n);

/* The same at the top of a table. */
void bench_head_print(const struct dstar_info *info, int n_thread);

#endif
