/* import_plan.c - which tensors the new file has, and that the checkpoint has all of them and
 * nothing else: a name that is silently ignored would be a model that is silently wrong. */
#include "import_impl.h"

#include <stdio.h>
#include <stdlib.h>

const struct weight *import_source(const struct import *im, const struct import_job *job, int x)
{
    char name[DSV4_NAME_MAX];
    return weights_find(im->files, dsv4_official_name(name, job->role, job->block, x));
}

const struct weight *import_scales(const struct import *im, const struct weight *w)
{
    char name[DSV4_NAME_MAX];
    if (!w->scale)
        return NULL;
    snprintf(name, sizeof name, "%.*s.scale", (int)(strlen(w->name) - strlen(".weight")), w->name);
    const struct weight *scales = weights_find(im->files, name);
    CHECK(scales && scales->data == w->scale);
    return scales;
}

static enum dtype type_for(const struct import *im, const struct import_job *job, enum dtype from)
{
    enum dsv4_form form = dsv4_names[job->role].form;
    if (form == DSV4_IDS)
        return DT_I32;
    if (form == DSV4_EXACT)
        return DT_F32;
    if (form == DSV4_DENSE && im->o->dense == IMPORT_DENSE_Q8_0 && job->dim[0] % 32 == 0)
        return DT_Q8_0;
    return from == DT_FP4 ? DT_MXFP4 : from == DT_F8_E4M3 ? DT_BF16 : from;
}

static bool is_source_type(enum dsv4_form form, enum dtype t)
{
    if (form == DSV4_IDS)
        return t == DT_I32 || t == DT_I64;
    return t == DT_F32 || t == DT_F16 || t == DT_BF16 || t == DT_F8_E4M3 || t == DT_FP4;
}

static void mark(struct import *im, const struct weight *w)
{
    const struct weight *first = weights_at(im->files, 0), *scales = import_scales(im, w);
    im->used[w - first] = true;
    if (scales)
        im->used[scales - first] = true;
}

/* One source: there, of a type and the shape that the hyperparameters ask for. */
static int check_source(struct import *im, const struct import_job *job, int expert,
                        const int64_t dim[4], struct err *e)
{
    char name[DSV4_NAME_MAX];
    const struct weight *w = import_source(im, job, expert);
    if (!w)
        return err_set(e, ERR_FORMAT, "%s: tensor %s is missing", weights_path(im->files),
                       dsv4_official_name(name, job->role, job->block, expert));
    const char *file = weights_file(im->files, w->file);
    if (memcmp(w->dim, dim, sizeof w->dim) != 0)
        return err_set(e, ERR_FORMAT, "%s: tensor %s has %lld rows of %lld, expected %lld of %lld",
                       file, w->name, (long long)w->dim[1], (long long)w->dim[0], (long long)dim[1],
                       (long long)dim[0]);
    if (!is_source_type(dsv4_names[job->role].form, w->type))
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s has dtype %s, which it cannot have", file,
                       w->name, dtype_name((int)w->type));
    const struct weight *first = import_source(im, job, 0);
    if (w->type != first->type)
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s has dtype %s, expected %s as expert 0",
                       file, w->name, dtype_name((int)w->type), dtype_name((int)first->type));
    mark(im, w);
    return 0;
}

static int plan_role(struct import *im, enum dsv4_role role, int block, int ratio, struct err *e)
{
    int64_t dim[4];
    if (im->n_job == im->cap_job) {
        im->cap_job = im->cap_job ? im->cap_job * 2 : 256;
        struct import_job *more = realloc(im->job, (size_t)im->cap_job * sizeof *more);
        if (!more)
            return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", im->cap_job);
        im->job = more;
    }
    struct import_job *job = &im->job[im->n_job];
    bool stacked = dsv4_names[role].form == DSV4_EXPERTS;
    *job = (struct import_job){ role, block, stacked ? im->h.n_expert : 1, DT_F32, 0, { 0 } };
    job->n_dim = dsv4_shape_of(&im->h, role, ratio, true, job->dim);
    dsv4_shape_of(&im->h, role, ratio, false, dim);
    for (int x = 0; x < job->n_source; x++)
        TRY(check_source(im, job, x, dim, e));
    job->type = type_for(im, job, import_source(im, job, 0)->type);
    if (dim[0] % dtype_info((int)job->type)->block != 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: rows of %lld, expected whole blocks of %d for %s",
                       import_source(im, job, 0)->name, (long long)dim[0],
                       dtype_info((int)job->type)->block, dtype_name((int)job->type));
    im->row_elements = MAX(im->row_elements, dim[0]);
    im->n_job++;
    return 0;
}

static int plan_block(struct import *im, int block, struct err *e)
{
    bool draft = block >= DSV4_MTP(0);
    int ratio = draft ? 0 : im->h.ratio[block];
    bool hashed = !draft && block < im->h.n_hash_layer;
    for (int r = 0; r < DSV4_N_ROLE; r++) {
        enum dsv4_role role = (enum dsv4_role)r;
        if (dsv4_has(role, ratio, hashed) || (draft && dsv4_names[r].where == DSV4_IN_MTP))
            TRY(plan_role(im, role, block, ratio, e));
    }
    return 0;
}

/* What was not used must be a draft block that is left out. */
static int check_rest(struct import *im, struct err *e)
{
    int n = 0;
    int64_t bytes = 0;
    for (int i = 0; i < weights_count(im->files); i++) {
        const struct weight *w = weights_at(im->files, i);
        struct dsv4_place p = dsv4_place_of(w->name);
        if (im->used[i])
            continue;
        if (p.block < DSV4_MTP(im->has_mtp) || p.role == DSV4_N_ROLE)
            return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s has no place in this model%s",
                           weights_file(im->files, w->file), w->name,
                           strncmp(w->name, "model.", 6) == 0
                               ? ": names are Transformers', expected "
                                 "the vendor's"
                               : "");
        n++;
        bytes += (int64_t)w->bytes;
    }
    if (n > 0)
        log_put(im->o->log, LOG_INFO, "left out: %d tensors of draft blocks, %.1f MB", n,
                (double)bytes * 1e-6);
    return 0;
}

int import_plan(struct import *im, struct err *e)
{
    char name[DSV4_NAME_MAX];
    dsv4_official_name(name, DSV4_MTP_E_PROJ, DSV4_MTP(0), 0);
    im->has_mtp = !im->o->no_mtp && weights_find(im->files, name);
    im->h.n_nextn = im->has_mtp;
    im->used = calloc((size_t)weights_count(im->files), sizeof *im->used);
    if (!im->used)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", weights_count(im->files));
    for (int role = 0; dsv4_names[role].where == DSV4_ONCE; role++)
        TRY(plan_role(im, (enum dsv4_role)role, -1, 0, e));
    for (int l = 0; l < im->h.n_layer; l++)
        TRY(plan_block(im, l, e));
    if (im->has_mtp)
        TRY(plan_block(im, DSV4_MTP(0), e));
    return check_rest(im, e);
}
