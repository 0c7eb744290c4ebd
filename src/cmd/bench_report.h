/* bench_report.h - repeated measurements, and how they are printed. */
#ifndef DS_BENCH_REPORT_H
#define DS_BENCH_REPORT_H

#include "dwarfstar.h"
#include "opts.h"

#define BENCH_MOST_REPEAT 100
#define BENCH_MOST_COLUMN 2
#define BENCH_LONG 256 /* tokens of an answer from which on its rate is shown over time */
enum { BENCH_PARTS = 8 };

struct bench_series {
    double value[BENCH_MOST_REPEAT];
    int n;
};

struct bench_spread {
    double median, least, most;
};

/* One line of the result: what was measured, and a series for each column. */
struct bench_row {
    int at; /* tokens of context; bytes of text */
    struct bench_series column[BENCH_MOST_COLUMN];
    double *token_s; /* [n_token] seconds of each token written, in all repetitions */
    int n_token;     /* 0: nothing was written */
    double part[BENCH_PARTS]; /* of an answer: median rate of each eighth; 0: not long enough */
};

enum bench_form { BENCH_TABLE, BENCH_CSV, BENCH_JSON };

struct bench_report {
    const struct dstar_info *info;
    const char *at_name, *name[BENCH_MOST_COLUMN], *unit; /* "ctx"; "prefill", "decode"; "tok/s" */
    int n_column, n_row;
    const struct bench_row *row;
    int n_gen; /* tokens of an answer; 0: does not apply */
    int n_thread; /* 0: all */
    double taken, memory; /* bytes of a GPU's memory at most, and all of it; 0: no GPU */
    double busy;          /* share of the time of writing in which the GPU was at work */
    const char *experts, *experts_json; /* what reading experts cost, in words; NULL: nothing */
};

void bench_add(struct bench_series *s, double value);
struct bench_spread bench_spread_of(const struct bench_series *s);

/* Fills row->part for answers of n_gen tokens; before tokens are sorted. */
void bench_eighths(struct bench_row *row, int n_gen);

/* What so large a share of the tokens took at most; sorts them. */
double bench_token_s(const struct bench_row *row, double share);

/* On stdout, with the machine, the version and the model. */
void bench_print(const struct bench_report *r, enum bench_form form);

#endif
