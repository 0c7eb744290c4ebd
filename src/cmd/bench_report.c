/* bench_report.c - medians with their spread: a single number hides a noisy machine. */
#include "bench_report.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench_lines.h"

void bench_add(struct bench_series *s, double value)
{
    CHECK(s->n < BENCH_MOST_REPEAT);
    s->value[s->n++] = value;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct bench_spread bench_spread_of(const struct bench_series *s)
{
    double v[BENCH_MOST_REPEAT];
    if (s->n == 0)
        return (struct bench_spread){ 0 };
    memcpy(v, s->value, (size_t)s->n * sizeof *v);
    qsort(v, (size_t)s->n, sizeof *v, ascending);
    return (struct bench_spread){ (v[(s->n - 1) / 2] + v[s->n / 2]) / 2, v[0], v[s->n - 1] };
}

void bench_eighths(struct bench_row *row, int n_gen)
{
    double *v = malloc((size_t)row->n_token * sizeof *v);
    for (int p = 0; p < BENCH_PARTS && v; p++) {
        int first = (int)((int64_t)n_gen * p / BENCH_PARTS), n = 0;
        int last = (int)((int64_t)n_gen * (p + 1) / BENCH_PARTS);
        for (int from = 0; from < row->n_token; from += n_gen)
            for (int i = first; i < last; i++)
                v[n++] = row->token_s[from + i];
        qsort(v, (size_t)n, sizeof *v, ascending);
        row->part[p] = 2 / (v[(n - 1) / 2] + v[n / 2]);
    }
    free(v);
}

double bench_token_s(const struct bench_row *row, double share)
{
    if (row->n_token == 0)
        return 0;
    qsort(row->token_s, (size_t)row->n_token, sizeof *row->token_s, ascending);
    return row->token_s[MIN((int)(row->n_token * share), row->n_token - 1)];
}

/* Does the rate drift? */
static void print_parts(const struct bench_report *r)
{
    if (r->n_gen < BENCH_LONG)
        return;
    printf("\nof an answer's eighths, %s by the median token:\n", r->unit);
    for (int i = 0; i < r->n_row; i++) {
        printf("%9d", r->row[i].at);
        for (int p = 0; p < BENCH_PARTS; p++)
            printf(" %8.1f", r->row[i].part[p]);
        printf("  (last / first %.3f)\n", r->row[i].part[BENCH_PARTS - 1] / r->row[i].part[0]);
    }
}

static void print_table(const struct bench_report *r)
{
    char unit[32];
    bench_head_print(r->info, r->n_thread);
    printf("%9s", r->at_name);
    for (int c = 0; c < r->n_column; c++) {
        snprintf(unit, sizeof unit, "%s %s", r->name[c], r->unit);
        printf("  %14s  %-19s", unit, "(least .. most)");
    }
    printf(r->n_gen ? "token p95   p99 ms\n" : "\n");
    for (int i = 0; i < r->n_row; i++) {
        printf("%9d", r->row[i].at);
        for (int c = 0; c < r->n_column; c++) {
            struct bench_spread s = bench_spread_of(&r->row[i].column[c]);
            char range[64];
            int digits = s.median < 1000;
            snprintf(range, sizeof range, "(%.*f .. %.*f)", digits, s.least, digits, s.most);
            printf("  %14.*f  %-19s", digits, s.median, range);
        }
        if (r->n_gen)
            printf("%9.1f %8.1f", bench_token_s(&r->row[i], .95) * 1e3,
                   bench_token_s(&r->row[i], .99) * 1e3);
        printf("\n");
    }
    print_parts(r);
    if (r->memory > 0)
        printf("\n%.1f of the GPU's %.1f GB are taken; it was at work in %.1f %% of the time of "
               "writing\n", r->taken / 1e9, r->memory / 1e9, 100 * r->busy);
    if (r->experts)
        printf("\n%s\n", r->experts);
}

static void print_csv(const struct bench_report *r)
{
    printf("%s", r->at_name);
    for (int c = 0; c < r->n_column; c++)
        printf(",%s,%s_least,%s_most", r->name[c], r->name[c], r->name[c]);
    printf(r->n_gen ? ",token_p95_s,token_p99_s\n" : "\n");
    for (int i = 0; i < r->n_row; i++) {
        printf("%d", r->row[i].at);
        for (int c = 0; c < r->n_column; c++) {
            struct bench_spread s = bench_spread_of(&r->row[i].column[c]);
            printf(",%.3f,%.3f,%.3f", s.median, s.least, s.most);
        }
        if (r->n_gen)
            printf(",%.4f,%.4f", bench_token_s(&r->row[i], .95), bench_token_s(&r->row[i], .99));
        printf("\n");
    }
}

static json_t *row_json(const struct bench_report *r, const struct bench_row *row)
{
    json_t *out = json_pack("{s:i}", r->at_name, row->at);
    for (int c = 0; c < r->n_column; c++) {
        json_object_set_new(out, r->name[c], bench_series_json(&row->column[c]));
    }
    json_t *last = json_object_get(out, r->name[r->n_column - 1]);
    if (r->n_gen) {
        json_object_set_new(last, "token_p95_s", json_real(bench_token_s(row, .95)));
        json_object_set_new(last, "token_p99_s", json_real(bench_token_s(row, .99)));
    }
    if (r->n_gen >= BENCH_LONG) {
        json_t *parts = json_array();
        for (int p = 0; p < BENCH_PARTS; p++)
            json_array_append_new(parts, json_real(row->part[p]));
        json_object_set_new(last, "eighths", parts);
    }
    return out;
}

static void print_json(const struct bench_report *r)
{
    json_t *rows = json_array(), *root = bench_head_json(r->info, r->n_thread);
    for (int i = 0; i < r->n_row; i++)
        json_array_append_new(rows, row_json(r, &r->row[i]));
    json_object_set_new(root, "unit", json_string(r->unit));
    json_object_set_new(root, "answer_tokens", json_integer(r->n_gen));
    json_object_set_new(root, "results", rows);
    if (r->memory > 0)
        json_object_set_new(root, "gpu", json_pack("{s:f, s:f, s:f}", "taken_bytes", r->taken,
                                                   "bytes", r->memory, "busy_share", r->busy));
    if (r->experts_json)
        json_object_set_new(root, "experts", json_loads(r->experts_json, 0, NULL));
    bench_json_print(root);
}

void bench_print(const struct bench_report *r, enum bench_form form)
{
    (form == BENCH_TABLE ? print_table : form == BENCH_CSV ? print_csv : print_json)(r);
}
