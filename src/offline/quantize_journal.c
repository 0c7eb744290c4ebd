/* quantize_journal.c - what of OUT.part is finished, kept beside it in OUT.journal.part.
 *
 * On disk:  | magic 8 | plan 8 | imatrix 8 | sum 8 |  then for each finished unit, in any order,
 *           | unit + 1, 4 | with feedback 4 | source 8 | bytes 8 | sum 8 |
 * A note is written after its unit's bytes. It is believed when its sum fits and, at the time of
 * going on, source and bytes still have these fingerprints; so neither a torn note nor a disk that
 * forgot the last seconds does harm, and nothing needs to be flushed while working. */
#include "quantize_impl.h"

#include "hash.h"

#include <stdio.h>
#include <stdlib.h>

static const char magic[8] = "dstar-q2";

struct quantize_journal {
    struct file_out file;
    atomic_llong next; /* number of the next note */
};

static void seal(uint64_t block[4])
{
    block[3] = hash_of(block, 24, 7);
}

/* Everything the bytes follow from, but for the sources' data. */
static void head_of(const struct quantize *q, uint64_t head[4])
{
    uint64_t plan = gguf_write_hash(&q->im.out);
    memcpy(&head[0], magic, 8);
    for (int i = 0; i < q->n_tensor; i++) {
        const struct quantize_tensor *t = &q->tensor[i];
        const uint64_t rule[] = { (uint64_t)t->weights, (uint64_t)(t->rule->power * 4),
                                  (uint64_t)t->rule->effort, (uint64_t)t->from,
                                  (uint64_t)t->rule->ldlq };
        plan = hash_of(rule, sizeof rule, plan);
    }
    if (q->hessian)
        plan += hessian_hash(q->hessian);
    head[1] = plan;
    head[2] = q->imatrix ? imatrix_hash(q->imatrix) : 0;
    seal(head);
}

static char *journal_path(const struct quantize *q)
{
    size_t n = strlen(q->o->out) + sizeof ".journal";
    char *path = malloc(n);
    if (path)
        snprintf(path, n, "%s.journal", q->o->out);
    return path;
}

/* Notes of an earlier try into note[]; where the next one goes. */
static int read_notes(struct quantize *q, struct quantize_note *note, struct err *e)
{
    int64_t n = 0;
    uint64_t b[4];
    for (;; n++) {
        struct err end = { 0 };
        int code = file_out_read_at(&q->journal->file, 32 * (n + 1), b, sizeof b, &end);
        if (code == ERR_FORMAT)
            break; /* the end, perhaps within a note */
        if (code < 0)
            return err_set(e, end.code, "%s", end.text);
        uint64_t sum = b[3], unit = (b[0] & UINT32_MAX) - 1;
        seal(b);
        if (sum == b[3] && unit < (uint64_t)q->n_unit)
            note[unit] = (struct quantize_note){ b[1], b[2], true, b[0] >> 32 };
    }
    atomic_store(&q->journal->next, n);
    return 0;
}

static int other_plan(const struct quantize *q, const char *what, struct err *e)
{
    return err_set(e, ERR_MISMATCH, "%s.part: was begun with another %s; go on with the same, or "
                   "start again (--restart)", q->o->out, what);
}

/* An earlier journal, if there is one and its part: note[] stays NULL when not. */
static int resume(struct quantize *q, const uint64_t head[4], struct quantize_note **note,
                  struct err *e)
{
    uint64_t old[4], sum;
    if (file_out_read_at(&q->journal->file, 0, old, sizeof old, NULL) < 0)
        return 0;
    sum = old[3];
    seal(old);
    if (sum != old[3] || memcmp(old, magic, 8) != 0)
        return 0;
    if (old[2] != head[2])
        return other_plan(q, "importance matrix", e);
    if (old[1] != head[1])
        return other_plan(q, q->hessian ? "model, recipe or Hessian" : "model or recipe", e);
    *note = calloc((size_t)q->n_unit, sizeof **note);
    if (!*note)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d units", q->n_unit);
    return read_notes(q, *note, e);
}

static bool has_part(const struct quantize *q)
{
    size_t n = strlen(q->o->out) + sizeof ".part";
    char *part = malloc(n);
    if (!part)
        return false;
    snprintf(part, n, "%s.part", q->o->out);
    bool there = file_exists(part);
    free(part);
    return there;
}

int journal_open(struct quantize *q, struct quantize_note **note, struct err *e)
{
    uint64_t head[4];
    int64_t kept;
    int code;
    bool go_on = !q->o->restart && has_part(q);
    q->begun = go_on;
    char *path = journal_path(q);
    *note = NULL;
    q->journal = calloc(1, sizeof *q->journal);
    if (!path || !q->journal)
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory", q->o->out);
    else
        code = go_on ? file_out_reopen(&q->journal->file, path, &kept, e)
                     : file_out_open(&q->journal->file, path, e);
    free(path);
    TRY(code);
    head_of(q, head);
    if (go_on)
        TRY(resume(q, head, note, e));
    return *note ? 0 : file_out_write_at(&q->journal->file, 0, head, sizeof head, e);
}

int journal_add(struct quantize *q, int unit, const struct quantize_note *n, struct err *e)
{
    uint64_t b[4] = { ((uint64_t)unit + 1) | (uint64_t)n->fed << 32, n->src, n->dst, 0 };
    long long at = atomic_fetch_add(&q->journal->next, 1);
    seal(b);
    return file_out_write_at(&q->journal->file, 32 * (at + 1), b, sizeof b, e);
}

void journal_close(struct quantize *q, bool keep)
{
    if (!q->journal)
        return;
    if (keep)
        file_out_leave(&q->journal->file);
    else
        file_out_abort(&q->journal->file);
    free(q->journal);
    q->journal = NULL;
}
