/* eval_report.c - one way to print for all evaluations that end in a table. */
#include "eval_report.h"

#include <stdio.h>
#include <stdlib.h>

#include "base.h"
#include "opts.h"
#include "term.h"

static int cell(char *out, size_t n, const json_t *row, const struct eval_column *c)
{
    const json_t *v = json_object_get(row, c->key);
    if (json_is_string(v))
        return snprintf(out, n, "%s", json_string_value(v));
    if (json_is_integer(v))
        return snprintf(out, n, "%lld", (long long)json_integer_value(v));
    return snprintf(out, n, "%.*f", MAX(c->digits, 0), json_number_value(v));
}

void eval_print_rows(const struct eval_column *column, int n_column, const json_t *rows)
{
    char text[256];
    int width[16];
    CHECK(n_column <= (int)COUNT_OF(width));
    for (int c = 0; c < n_column; c++) {
        width[c] = (int)strlen(column[c].key);
        for (size_t i = 0; i < json_array_size(rows); i++)
            width[c] = MAX(width[c], cell(text, sizeof text, json_array_get(rows, i), &column[c]));
    }
    for (int c = 0; c < n_column; c++)
        printf(c ? "  %*s" : "%-*s", width[c], column[c].key);
    printf("\n");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        for (int c = 0; c < n_column; c++) {
            cell(text, sizeof text, json_array_get(rows, i), &column[c]);
            printf(c ? "  %*s" : "%-*s", width[c], text);
        }
        printf("\n");
    }
}

void eval_print(const struct dstar_info *info, const struct eval_column *column, int n_column,
                const json_t *rows)
{
    printf("%s (%s) on %s\n\n", info->name, info->format, info->device);
    eval_print_rows(column, n_column, rows);
}

json_t *eval_head(const struct dstar_info *info)
{
    return json_pack("{s:s, s:{s:s, s:s, s:s}, s:s}", "version", dstar_version(), "model", "name",
                     info->name, "format", info->format, "path", info->path, "device",
                     info->device);
}

int eval_put_json(json_t *root)
{
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    if (text)
        puts(text);
    else
        term_error("the result cannot be written as JSON");
    free(text);
    json_decref(root);
    return text ? EXIT_DONE : EXIT_ERROR;
}

int eval_print_json(const struct dstar_info *info, json_t *rows)
{
    json_t *root = eval_head(info);
    json_object_set(root, "results", rows);
    return eval_put_json(root);
}

double eval_percent(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}
