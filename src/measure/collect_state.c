/* collect_state.c - a collection as a file, to go on from after a crash.
 *
 * On disk, in the machine's own byte order, because it never leaves it:
 *   | magic 8 | note 56 | shape 8 | sums of every matrix | products, if any | fingerprint 8 |
 * Sums stay float64: going on gives the bytes that would have come without a stop. Rejected: the
 * importance matrix itself, whose float32 would round what is not finished. */
#include "collect_impl.h"

#include "file.h"
#include "hash.h"

/* What is moved, in either direction. */
struct state_io {
    struct file_out out;
    struct file_in in;
    bool writing;
    int64_t at;
    struct hash sum;
};

static const char magic[8] = "dstcal1";

static int move(struct state_io *io, void *data, size_t n, struct err *e)
{
    if (io->writing)
        TRY(file_out_write(&io->out, data, n, e));
    else
        TRY(file_in_read_at(&io->in, io->at, data, n, e));
    io->at += (int64_t)n;
    hash_add(&io->sum, data, n);
    return 0;
}

static int move_sums(struct state_io *io, const struct collector *c, struct err *e)
{
    for (int i = 0; i < c->n_stat; i++) {
        const struct collect_stat *s = &c->stat[i];
        size_t n = (size_t)s->n_mat * (size_t)s->n_col;
        TRY(move(io, s->square, n * sizeof *s->square, e));
        TRY(move(io, s->value, n * sizeof *s->value, e));
        TRY(move(io, s->count, (size_t)s->n_mat * sizeof *s->count, e));
    }
    int l, x;
    struct collect_products *p;
    for (int i = 0; (p = collect_products_at(c, i / 4, &l, &x)); i++) {
        struct gram *g = &p->gram[i / 2 % 2][i % 2];
        TRY(move(io, &g->n_row, sizeof g->n_row, e));
        for (int r = 0; r < g->n; r++)
            TRY(move(io, g->sum + (size_t)r * (size_t)g->pitch, (size_t)(r + 1) * sizeof *g->sum,
                     e));
    }
    return 0;
}

/* Of this network, these sizes, this kind of collection. */
static uint64_t shape_of(const struct collector *c)
{
    int64_t v[5] = { c->n_layer, c->n_expert, c->n_stat, c->layer != NULL, c->n_used };
    uint64_t hash = hash_of(v, sizeof v, hash_of(c->engine->identity.identity, 32, 0));
    for (int64_t l = 0; c->layer && l < c->n_layer; l++)
        hash = c->layer[l].own ? hash_of(&l, sizeof l, hash) : hash;
    return hash;
}

static int save(struct state_io *io, const struct collector *c, const struct collect_note *note,
                struct err *e)
{
    char head[8];
    struct collect_note copy = *note;
    uint64_t shape = shape_of(c);
    memcpy(head, magic, 8);
    TRY(move(io, head, 8, e));
    TRY(move(io, &copy, sizeof copy, e));
    TRY(move(io, &shape, 8, e));
    TRY(move_sums(io, c, e));
    uint64_t sum = hash_value(&io->sum);
    TRY(file_out_write(&io->out, &sum, 8, e));
    return file_out_commit(&io->out, e);
}

int collect_save(const struct collector *c, const char *path, const struct collect_note *note,
                 struct err *e)
{
    struct state_io io = { .writing = true };
    hash_init(&io.sum, 0);
    TRY(file_out_open(&io.out, path, e));
    int code = save(&io, c, note, e);
    file_out_abort(&io.out);
    return code;
}

static int load(struct state_io *io, struct collector *c, struct collect_note *note, struct err *e)
{
    char head[8];
    uint64_t shape, sum;
    const char *path = io->in.path;
    TRY(move(io, head, 8, e));
    if (memcmp(head, magic, 8) != 0)
        return err_set(e, ERR_FORMAT, "%s: is no unfinished calibration", path);
    uint64_t task = note->task;
    TRY(move(io, note, sizeof *note, e));
    TRY(move(io, &shape, 8, e));
    if (shape != shape_of(c))
        return err_set(e, ERR_MISMATCH, "%s: belongs to another model, or the two have "
                       "not the same sums of products", path);
    if (note->task != task)
        return err_set(e, ERR_MISMATCH, "%s: belongs to other texts or options", path);
    TRY(move_sums(io, c, e));
    TRY(file_in_read_at(&io->in, io->at, &sum, 8, e));
    if (sum != hash_value(&io->sum))
        return err_set(e, ERR_FORMAT, "%s: is damaged: fingerprint %016llx, expected %016llx", path,
                       (unsigned long long)hash_value(&io->sum), (unsigned long long)sum);
    return 0;
}

int collect_load(struct collector *c, const char *path, struct collect_note *note, struct err *e)
{
    struct state_io io = { .writing = false };
    hash_init(&io.sum, 0);
    TRY(file_in_open(&io.in, path, e));
    int code = load(&io, c, note, e);
    file_in_close(&io.in);
    return code < 0 ? code : collect_there_send(c, e);
}
