/* quantize_plan.c - which tensors the new file has, of which type, and how the work is divided.
 *
 * Work is divided the same way whatever the number of threads, and nothing passes from one unit to
 * another; that is why the result cannot depend on either. */
#include "quantize_impl.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

enum { UNIT_NUMBERS = 1 << 22 };

static const char *source_file(const struct quantize *q, const struct weight *w)
{
    return weights_file(q->im.files, w->file);
}

/* ---- types ---- */

static enum dtype kept_type(const struct quantize *q, const struct quantize_tensor *t)
{
    enum dsv4_form form = dsv4_names[t->role].form;
    if (form == DSV4_IDS)
        return DT_I32;
    if (q->kind == WEIGHTS_GGUF)
        return t->from;
    if (form == DSV4_EXACT)
        return DT_F32;
    return t->from == DT_FP4 ? DT_MXFP4 : t->from == DT_F8_E4M3 ? DT_BF16 : t->from;
}

/* The type its rule asks for; *drop: it is left out. */
static int decide_type(const struct quantize *q, struct quantize_tensor *t, bool *drop,
                       struct err *e)
{
    bool draft = t->block >= DSV4_MTP(0);
    t->rule = recipe_find(&q->recipe, t->name, draft ? -1 : t->block);
    if (!t->rule)
        return err_set(e, ERR_ARGUMENT, "recipe %s: no rule for tensor %s", q->recipe.name,
                       t->name);
    *drop = t->rule->action == RECIPE_DROP;
    if (*drop && !draft)
        return err_set(e, ERR_ARGUMENT, "recipe %s, line %d: drops tensor %s, without which the "
                       "model does not run", q->recipe.name, t->rule->line, t->name);
    t->type = t->rule->action == RECIPE_TYPE ? t->rule->type : kept_type(q, t);
    if (*drop || t->rule->action == RECIPE_KEEP)
        return 0;
    if (dsv4_names[t->role].form == DSV4_IDS)
        return err_set(e, ERR_ARGUMENT, "recipe %s, line %d: tensor %s holds numbers of experts, "
                       "expected keep", q->recipe.name, t->rule->line, t->name);
    int block = dtype_info((int)t->type)->block;
    if (t->n_dim < 2 && block > 1)
        return err_set(e, ERR_ARGUMENT, "recipe %s, line %d: tensor %s is a vector, expected F16, "
                       "BF16 or F32", q->recipe.name, t->rule->line, t->name);
    if (t->dim[0] % block != 0)
        return err_set(e, ERR_UNSUPPORTED, "recipe %s, line %d: tensor %s has rows of %lld, "
                       "expected whole blocks of %d for %s", q->recipe.name, t->rule->line,
                       t->name, (long long)t->dim[0], block, dtype_name((int)t->type));
    return 0;
}

bool quantize_searches(const struct quantize_tensor *t)
{
    bool same = t->from == t->type || (t->from == DT_FP4 && t->type == DT_MXFP4);
    return quant_has_search(t->type) && !same;
}

/* Where the weights of its columns come from. */
int quantize_decide_weights(const struct quantize *q, struct quantize_tensor *t, struct err *e)
{
    enum recipe_weights wish = t->rule->weights;
    t->weights = RECIPE_NONE;
    t->entry = -1;
    if (!quantize_searches(t))
        return 0;
    if (wish == RECIPE_IMATRIX && !q->imatrix)
        return err_set(e, ERR_ARGUMENT, "recipe %s, line %d: tensor %s wants an importance matrix, "
                       "and none is given", q->recipe.name, t->rule->line, t->name);
    if (q->imatrix && (wish == RECIPE_IMATRIX || wish == RECIPE_BEST))
        t->entry = imatrix_find(q->imatrix, t->name);
    bool two_bit = t->type == DT_IQ2_XXS || t->type == DT_Q2_K;
    if (q->imatrix && t->entry < 0 && (wish == RECIPE_IMATRIX || (wish == RECIPE_BEST && two_bit)))
        return err_set(e, ERR_MISMATCH, "%s: has no entry for tensor %s",
                       imatrix_path(q->imatrix), t->name);
    t->weights = t->entry >= 0 ? RECIPE_IMATRIX : wish == RECIPE_NONE ? RECIPE_NONE
                                                                      : RECIPE_COLUMNS;
    if (t->entry < 0)
        return 0;
    return imatrix_check(q->imatrix, t->entry, t->dim[0], t->dim[2], e);
}

/* ---- sources ---- */

static enum dtype vendor_type(enum dsv4_role role)
{
    enum dsv4_form form = dsv4_names[role].form;
    return form == DSV4_EXPERTS ? DT_FP4 : form == DSV4_EXACT ? DT_F32
                                       : form == DSV4_IDS     ? DT_I64
                                                              : DT_BF16;
}

static int find_in_gguf(const struct quantize *q, struct quantize_tensor *t, struct err *e)
{
    const struct weight *w = weights_find(q->im.files, t->name);
    if (!w)
        return err_set(e, ERR_FORMAT, "%s: tensor %s is missing", weights_path(q->im.files),
                       t->name);
    if (memcmp(w->dim, t->dim, sizeof w->dim) != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor %s has the shape %lld x %lld x %lld, expected %lld x %lld x "
                       "%lld (fastest first)",
                       source_file(q, w), w->name, (long long)w->dim[0], (long long)w->dim[1],
                       (long long)w->dim[2], (long long)t->dim[0], (long long)t->dim[1],
                       (long long)t->dim[2]);
    bool ids = dsv4_names[t->role].form == DSV4_IDS;
    bool is_ids = w->type == DT_I32 || w->type == DT_I64;
    if (ids != is_ids || w->type == DT_I8)
        return err_set(e, ERR_FORMAT, "%s: tensor %s has type %s, expected %s", source_file(q, w),
                       w->name, dtype_name((int)w->type), ids ? "I32" : "numbers");
    q->im.used[w - weights_at(q->im.files, 0)] = true;
    t->from = w->type;
    return 0;
}

static int find_source(const struct quantize *q, struct quantize_tensor *t, struct err *e)
{
    if (!q->im.files)
        t->from = vendor_type(t->role);
    else if (q->kind == WEIGHTS_GGUF)
        return find_in_gguf(q, t, e);
    else
        t->from = import_source(&q->im, &q->im.job[t->job], 0)->type;
    return 0;
}

/* ---- tensors ---- */

struct draft {
    int job, kept, dropped;
};

static int add_tensor(struct quantize *q, enum dsv4_role role, int block, struct draft *draft,
                      struct err *e)
{
    if (q->n_tensor == q->cap_tensor) {
        int cap = q->cap_tensor ? 2 * q->cap_tensor : 512;
        struct quantize_tensor *more = realloc(q->tensor, (size_t)cap * sizeof *more);
        if (!more)
            return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors", cap);
        q->tensor = more;
        q->cap_tensor = cap;
    }
    bool drop = false, is_draft = block >= DSV4_MTP(0);
    int ratio = block < 0 || is_draft ? 0 : q->im.h.ratio[block];
    struct quantize_tensor *t = &q->tensor[q->n_tensor];
    *t = (struct quantize_tensor){ .role = role, .block = block, .job = draft->job++ };
    dsv4_gguf_name(t->name, role, block);
    t->n_dim = dsv4_shape_of(&q->im.h, role, ratio, true, t->dim);
    TRY(find_source(q, t, e));
    TRY(decide_type(q, t, &drop, e));
    draft->dropped += drop;
    if (drop)
        return 0;
    draft->kept += is_draft;
    q->n_tensor++;
    TRY(quantize_decide_weights(q, t, e));
    return quantize_find_inputs(q, t, e);
}

static int add_block(struct quantize *q, int block, struct draft *draft, struct err *e)
{
    bool is_draft = block >= DSV4_MTP(0);
    int ratio = is_draft ? 0 : q->im.h.ratio[block];
    bool hashed = !is_draft && block < q->im.h.n_hash_layer;
    for (int r = 0; r < DSV4_N_ROLE; r++) {
        enum dsv4_role role = (enum dsv4_role)r;
        if (dsv4_has(role, ratio, hashed) || (is_draft && dsv4_names[r].where == DSV4_IN_MTP))
            TRY(add_tensor(q, role, block, draft, e));
    }
    return 0;
}

static bool has_draft(const struct quantize *q)
{
    char name[DSV4_NAME_MAX];
    if (!q->im.files || q->kind == WEIGHTS_CHECKPOINT)
        return q->im.has_mtp;
    return weights_find(q->im.files, dsv4_gguf_name(name, DSV4_MTP_E_PROJ, DSV4_MTP(0)));
}

/* In the order of import's jobs. */
static int add_tensors(struct quantize *q, struct err *e)
{
    struct draft draft = { 0 };
    for (int role = 0; dsv4_names[role].where == DSV4_ONCE; role++)
        TRY(add_tensor(q, (enum dsv4_role)role, -1, &draft, e));
    for (int l = 0; l < q->im.h.n_layer; l++)
        TRY(add_block(q, l, &draft, e));
    if (has_draft(q))
        TRY(add_block(q, DSV4_MTP(0), &draft, e));
    if (draft.kept && draft.dropped)
        return err_set(e, ERR_ARGUMENT, "recipe %s: drops %d tensors of the draft block and keeps "
                       "%d, expected all or none", q->recipe.name, draft.dropped, draft.kept);
    q->im.has_mtp = draft.kept > 0;
    q->im.h.n_nextn = q->im.has_mtp;
    if (draft.dropped)
        log_put(q->o->log, LOG_INFO, "left out: %d tensors of the draft block", draft.dropped);
    return 0;
}

/* What was not used of a GGUF must be a draft block. */
static int check_rest(const struct quantize *q, struct err *e)
{
    int n = 0;
    for (int i = 0; i < weights_count(q->im.files); i++) {
        const struct weight *w = weights_at(q->im.files, i);
        struct dsv4_place p = dsv4_place_of(w->name);
        if (q->im.used[i])
            continue;
        if (p.block < DSV4_MTP(0) || p.role == DSV4_N_ROLE)
            return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s has no place in this model",
                           source_file(q, w), w->name);
        n++;
    }
    if (n > 0)
        log_put(q->o->log, LOG_INFO, "left out: %d tensors of other draft blocks", n);
    return 0;
}

/* ---- units ---- */

static int64_t unit_rows(const struct quantize_tensor *t)
{
    return MAX(1, MIN(t->dim[1], UNIT_NUMBERS / t->dim[0]));
}

static void note_most(struct quantize *q, const struct quantize_tensor *t)
{
    size_t n = (size_t)(unit_rows(t) * t->dim[0]), scale = 0;
    if (t->from == DT_FP4)
        scale = n / 32;
    else if (t->from == DT_F8_E4M3) /* rows may touch one tile more at either end */
        scale = (size_t)((unit_rows(t) / 128 + 2) * (t->dim[0] / 128 + 1));
    q->most.src = MAX(q->most.src, dtype_bytes(t->from, n));
    q->most.scale = MAX(q->most.scale, scale);
    q->most.dst = MAX(q->most.dst, dtype_bytes(t->type, n));
    q->most.cols = MAX(q->most.cols, (size_t)t->dim[0]);
    if (t->inputs >= 0) {
        q->most.inputs = MAX(q->most.inputs, (size_t)t->dim[0]);
        q->most.sample = MAX(q->most.sample, dtype_bytes(t->type, (size_t)t->dim[0]));
    }
}

static int divide(struct quantize *q, struct err *e)
{
    int64_t n = 0;
    for (int i = 0; i < q->n_tensor; i++) {
        const struct quantize_tensor *t = &q->tensor[i];
        if (t->dim[0] > INT_MAX)
            return err_set(e, ERR_LIMIT, "tensor %s has rows of %lld", t->name,
                           (long long)t->dim[0]);
        n += t->dim[2] * ((t->dim[1] + unit_rows(t) - 1) / unit_rows(t));
        note_most(q, t);
    }
    if (n > INT_MAX)
        return err_set(e, ERR_LIMIT, "the model has %lld parts of 4 million numbers", (long long)n);
    q->unit = calloc((size_t)n, sizeof *q->unit);
    if (!q->unit)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %lld units", (long long)n);
    for (int i = 0; i < q->n_tensor; i++) {
        const struct quantize_tensor *t = &q->tensor[i];
        int64_t step = unit_rows(t), per_slice = (t->dim[1] + step - 1) / step;
        q->tensor[i].n_part = (int)(t->dim[2] * per_slice);
        for (int64_t k = 0; k < t->dim[2] * per_slice; k++) {
            int64_t row = k % per_slice * step;
            q->unit[q->n_unit++] = (struct quantize_unit){ i, k / per_slice, row,
                                                           MIN(step, t->dim[1] - row) };
        }
    }
    return 0;
}

/* A file of inputs of another model is a mistake. */
static int check_inputs(const struct quantize *q, struct err *e)
{
    int n = 0;
    for (int i = 0; i < q->n_tensor; i++)
        n += q->tensor[i].inputs >= 0;
    return n > 0 ? 0 : err_set(e, ERR_MISMATCH, "%s: has the inputs of no tensor of this model",
                               hessian_path(q->hessian));
}

int quantize_plan(struct quantize *q, struct err *e)
{
    TRY(add_tensors(q, e));
    TRY(quantize_upgrade(q, e));
    if (q->hessian)
        TRY(check_inputs(q, e));
    if (q->im.files && q->kind == WEIGHTS_GGUF)
        TRY(check_rest(q, e));
    TRY(divide(q, e));
    return quantize_divide_inputs(q, e);
}

size_t quantize_unit_bytes(const struct quantize *q, const struct quantize_unit *u)
{
    const struct quantize_tensor *t = &q->tensor[u->tensor];
    return dtype_bytes(t->type, (size_t)(u->n_row * t->dim[0]));
}

size_t quantize_unit_at(const struct quantize *q, const struct quantize_unit *u)
{
    const struct quantize_tensor *t = &q->tensor[u->tensor];
    return dtype_bytes(t->type, (size_t)((u->slice * t->dim[1] + u->row) * t->dim[0]));
}

struct quantize_source quantize_source_of(const struct quantize *q, const struct quantize_unit *u)
{
    const struct quantize_tensor *t = &q->tensor[u->tensor];
    struct quantize_source s = { .row = u->row };
    if (q->kind == WEIGHTS_GGUF) {
        s.w = weights_find(q->im.files, t->name);
        s.row += u->slice * t->dim[1];
    } else {
        s.w = import_source(&q->im, &q->im.job[t->job], (int)u->slice);
        s.scales = import_scales(&q->im, s.w);
    }
    s.row_bytes = dtype_bytes(s.w->type, (size_t)s.w->dim[0]);
    if (s.scales) {
        int64_t tile = s.w->type == DT_FP4 ? 1 : 128;
        s.scale_row = s.row / tile;
        s.n_scale_row = (s.row + u->n_row - 1) / tile - s.scale_row + 1;
    }
    return s;
}

/* Measured on one core of an AMD EPYC with AVX2, rounded; only ratios matter much. */
double quantize_unit_seconds(const struct quantize *q, const struct quantize_unit *u)
{
    const struct quantize_tensor *t = &q->tensor[u->tensor];
    double rate = 3e8; /* numbers per second */
    bool exact = t->rule->effort == QUANT_EXACT;
    if (!quantize_searches(t))
        return (double)(u->n_row * t->dim[0]) / rate;
    if (t->type == DT_IQ2_XXS)
        rate = exact ? 1.6e6 : 8.5e6;
    else if (t->type == DT_Q2_K)
        rate = exact ? 2.4e6 : 11.5e6;
    else if (t->type == DT_Q4_K)
        rate = exact ? 2e6 : 18e6;
    else
        rate = 2e7;
    double n = (double)(u->n_row * t->dim[0]), again = 0;
    /* and once more: with products of all columns before, or with one sum */
    if (t->feedback)
        again = 1e-7 + (double)t->dim[0] * 4e-11 + (t->rule->gain ? 1 / rate : 0);
    else if (quantize_knows_means(q, t))
        again = t->type == DT_IQ2_XXS ? 5e-8 : 2.5e-8;
    return n / rate + n * again;
}
