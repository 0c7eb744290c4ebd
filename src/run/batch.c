/* batch.c - waiting tokens become rows.
 *
 * Steps of a prompt end at multiples of their size, not at its start plus that: blocks of the
 * compressors then seldom straddle two steps, and marks taken there are small. */
#include "batch.h"

#include "draw.h"
#include "session.h"

#include <stdlib.h>

int batch_open(struct batch *b, int max_rows, int max_parts, struct err *e)
{
    *b = (struct batch){ .max_rows = max_rows, .max_parts = max_parts };
    b->row = calloc((size_t)max_rows, sizeof *b->row);
    b->next = calloc((size_t)max_rows, sizeof *b->next);
    b->part = calloc((size_t)max_parts, sizeof *b->part);
    b->kv = calloc((size_t)max_parts, sizeof *b->kv);
    b->draw = calloc((size_t)max_parts, sizeof *b->draw);
    if (b->row && b->next && b->part && b->kv && b->draw)
        return 0;
    batch_close(b);
    return err_set(e, ERR_NO_MEMORY, "out of memory for steps of %d rows", max_rows);
}

void batch_close(struct batch *b)
{
    free(b->row);
    free(b->next);
    free(b->part);
    free(b->kv);
    free(b->draw);
    *b = (struct batch){ 0 };
}

void batch_clear(struct batch *b)
{
    b->n_row = b->n_part = 0;
    b->with_mtp = false;
}

static int count_rows(const struct batch *b, const struct session *s, int max)
{
    int waiting = s->n_all - s->kv.n_tok;
    int to_multiple = b->max_rows - s->kv.n_tok % b->max_rows;
    int n = MIN(MIN(waiting, max), MIN(b->max_rows - b->n_row, kv_max_rows(&s->kv)));
    return n < waiting ? MIN(n, to_multiple) : n;
}

int batch_add(struct batch *b, struct session *s, int max, bool all_logits)
{
    int n = count_rows(b, s, max), pos = s->kv.n_tok;
    if (n <= 0 || b->n_part == b->max_parts)
        return 0;
    struct batch_part part = { s, b->n_row, n };
    for (int i = 0; i < n; i++, pos++) {
        struct row *row = &b->row[b->n_row + i];
        *row = (struct row){ .token = s->kv.token[pos], .pos = pos, .seq = b->n_part };
        row->logits = all_logits || pos + 1 == s->n_all;
        b->next[b->n_row + i] = *row;
        b->next[b->n_row + i].token = s->kv.token[pos + 1 < s->n_all ? pos + 1 : 0];
    }
    b->kv[b->n_part] = &s->kv.view;
    b->part[b->n_part++] = part;
    b->n_row += n;
    return n;
}
