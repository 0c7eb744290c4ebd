/* eval_report.h - rows of results, as a table for people or as one JSON object. */
#ifndef DS_EVAL_REPORT_H
#define DS_EVAL_REPORT_H

#include <jansson.h>

#include "dwarfstar.h"

struct eval_column {
    const char *key; /* in each row's object, and the heading */
    int digits;      /* of a real number behind the point; -1: text or a whole number */
};

/* On stdout: rows is an array of objects that have the columns' keys; a table shows the columns,
 * JSON everything. The first column is text. */
void eval_print(const struct dstar_info *info, const struct eval_column *column, int n_column,
                const json_t *rows);
int eval_print_json(const struct dstar_info *info, json_t *rows);

/* The table without the line that names the model. */
void eval_print_rows(const struct eval_column *column, int n_column, const json_t *rows);

/* What every JSON object begins with: the program's version, and the model. */
json_t *eval_head(const struct dstar_info *info);

/* Print root, of which a reference is taken over; the exit status. */
int eval_put_json(json_t *root);

/* part of whole in percent; 100 for nothing of nothing would mislead: 0. */
double eval_percent(double part, double whole);

#endif
