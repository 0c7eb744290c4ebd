/* quantize.c - open, plan, see what an earlier try has finished, do the rest on all processors.
 *
 * Units are independent and know their places in the file, so they are done in any order. What a
 * unit was made of is noted as a fingerprint; going on begins with reading that again, since a
 * model of which half is another model's would look finished. */
#include "quantize_impl.h"

#include "clock.h"
#include "cpu.h"
#include "hash.h"

#include <stdlib.h>

/* ---- open and close ---- */

static int open_model(struct quantize *q, const char *src, struct err *e)
{
    q->import_options = (struct import_options){ .dir = src, .log = q->o->log };
    q->im.o = &q->import_options;
    TRY(weights_open(&q->im.files, src, e));
    q->kind = weights_kind(q->im.files);
    TRY(dsv4_hyper_read(&q->im.h, weights_meta(q->im.files), q->kind, e));
    if (q->kind == WEIGHTS_CHECKPOINT)
        TRY(import_plan(&q->im, e));
    else if (!(q->im.used = calloc((size_t)weights_count(q->im.files), sizeof *q->im.used)))
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d tensors",
                       weights_count(q->im.files));
    int n = weights_n_file(q->im.files);
    if (!(q->im.in = calloc((size_t)n, sizeof *q->im.in)))
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d files", n);
    for (int i = 0; i < n; i++)
        TRY(file_in_open(&q->im.in[i], weights_file(q->im.files, i), e));
    return 0;
}

int quantize_open(struct quantize *q, const struct quantize_options *o, struct err *e)
{
    *q = (struct quantize){ .o = o, .kind = WEIGHTS_CHECKPOINT };
    TRY(recipe_open(&q->recipe, o->recipe, e));
    for (int i = 0; o->exact && i < q->recipe.n_rule; i++)
        q->recipe.rule[i].effort = QUANT_EXACT;
    if (o->imatrix)
        TRY(imatrix_open(&q->imatrix, o->imatrix, e));
    q->inputs.entry = -1;
    if (o->hessian) {
        TRY(hessian_open(&q->hessian, o->hessian, e));
        q->told = calloc((size_t)hessian_count(q->hessian), sizeof *q->told);
        if (!q->told)
            return err_set(e, ERR_NO_MEMORY, "out of memory for %s", o->hessian);
    }
    q->n_thread = o->n_thread > 0 ? o->n_thread : cpu_count();
    if (!o->shape)
        return open_model(q, o->src, e);
    q->im.has_mtp = true;
    return quantize_shape(&q->im.h, o->shape, e);
}

static void free_workers(struct quantize *q)
{
    for (int i = 0; q->worker && i < q->n_thread; i++) {
        struct quantize_worker *w = &q->worker[i];
        free(w->search_mem);
        free(w->src);
        free(w->scale);
        free(w->dst);
        free(w->num);
        free(w->weight);
        free(w->importance);
        free(w->means.mean);
        free(w->means.shift);
        free(w->means.weight);
        free(w->sum);
        quantize_close_feedback(w);
    }
    free(q->worker);
    pool_free(q->pool);
}

void quantize_close(struct quantize *q)
{
    free_workers(q);
    journal_close(q, q->begun);
    if (q->begun)
        gguf_write_leave(&q->im.out);
    else
        gguf_write_abort(&q->im.out);
    for (int i = 0; q->im.in && i < weights_n_file(q->im.files); i++)
        file_in_close(&q->im.in[i]);
    free(q->im.in);
    free(q->im.used);
    free(q->im.job);
    weights_close(q->im.files);
    imatrix_close(q->imatrix);
    quantize_drop_inputs(q);
    hessian_close(q->hessian);
    free(q->told);
    free(q->upgrade.layer);
    recipe_close(&q->recipe);
    free(q->tensor);
    free(q->unit);
    free(q->unit_inputs);
    free(q->unit_feeds);
    free(q->note);
    free(q->done);
    free(q->fed);
    free(q->todo);
    *q = (struct quantize){ 0 };
}

/* ---- threads ---- */

static int open_worker(struct quantize *q, struct quantize_worker *w, struct err *e)
{
    size_t search = round_up(quant_search_bytes(), 64), n = q->most.cols;
    *w = (struct quantize_worker){ .q = q, .search_mem = aligned_alloc(64, 2 * search) };
    w->src = malloc(MAX(q->most.src, q->most.dst)); /* also read back into, to compare */
    w->scale = malloc(MAX(q->most.scale, 1));
    w->dst = malloc(q->most.dst);
    w->num = malloc(n * sizeof *w->num);
    w->weight = malloc(n * sizeof *w->weight);
    w->importance = malloc(n * sizeof *w->importance);
    w->means.mean = malloc(n * sizeof *w->means.mean);
    w->means.shift = malloc(n * sizeof *w->means.shift);
    w->means.weight = malloc(n * sizeof *w->means.weight);
    w->sum = malloc(n * sizeof *w->sum);
    if (!w->search_mem || !w->src || !w->scale || !w->dst || !w->num || !w->weight ||
        !w->importance || !w->means.mean || !w->means.shift || !w->means.weight || !w->sum)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d threads", q->n_thread);
    for (int i = 0; i < 2; i++)
        w->search[i] = quant_search_init((char *)w->search_mem + (size_t)i * search,
                                         i ? QUANT_EXACT : QUANT_FAST, cpu_isa_detect());
    return quantize_open_feedback(q, w, e);
}

int quantize_open_workers(struct quantize *q, struct err *e)
{
    q->worker = calloc((size_t)q->n_thread, sizeof *q->worker);
    q->done = calloc((size_t)q->n_unit, sizeof *q->done);
    q->todo = calloc((size_t)q->n_unit, sizeof *q->todo);
    q->fed = calloc((size_t)q->n_unit, sizeof *q->fed);
    if (!q->worker || !q->done || !q->todo || !q->fed)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d units", q->n_unit);
    for (int i = 0; i < q->n_thread; i++)
        TRY(open_worker(q, &q->worker[i], e));
    return pool_new(&q->pool, q->n_thread, e);
}

struct loop {
    struct quantize *q;
    quantize_fn *fn;
    bool cancelled;
};

static double micros(const struct quantize *q, int unit)
{
    return 1e6 * quantize_unit_seconds(q, &q->unit[unit]) + 1;
}

static void take_unit(void *ctx, int task, int worker)
{
    struct loop *loop = ctx;
    struct quantize *q = loop->q;
    struct quantize_worker *w = &q->worker[worker];
    int unit = q->todo[task];
    if (atomic_load(&q->stop))
        return;
    if (loop->fn(w, unit, &w->err) < 0) {
        w->failed = unit;
        atomic_store(&q->stop, true);
        return;
    }
    double micro = micros(q, unit);
    double done = (double)atomic_fetch_add(&q->finished, (unsigned long long)micro) + micro;
    /* the caller's own thread is worker 0 */
    if (worker == 0 && q->o->progress &&
        q->o->progress(q->o->user, q->what, MIN((q->past + done) / q->work, 1))) {
        loop->cancelled = true;
        atomic_store(&q->stop, true);
    }
}

/* fn for the units of todo[], which are all or some of q->work. */
static int each(struct quantize *q, quantize_fn *fn, struct err *e)
{
    struct loop loop = { q, fn, false };
    const struct quantize_worker *first = NULL;
    atomic_store(&q->finished, 0);
    atomic_store(&q->stop, false);
    for (int i = 0; i < q->n_thread; i++)
        q->worker[i].failed = -1;
    pool_run(q->pool, take_unit, &loop, q->n_todo);
    for (int i = 0; i < q->n_thread; i++) {
        const struct quantize_worker *w = &q->worker[i];
        if (w->failed >= 0 && (!first || w->failed < first->failed))
            first = w;
    }
    if (first)
        return err_set(e, first->err.code, "%s", first->err.text);
    if (loop.cancelled)
        return err_set(e, ERR_CANCELLED, "%s: interrupted; the same call goes on", q->o->out);
    q->past += (double)atomic_load(&q->finished);
    return 0;
}

int quantize_each(struct quantize *q, const char *what, quantize_fn *fn, struct err *e)
{
    q->what = what;
    q->work = 1;
    q->past = 0;
    for (int i = 0; i < q->n_todo; i++)
        q->work += micros(q, q->todo[i]);
    return each(q, fn, e);
}

int quantize_each_undone(struct quantize *q, const char *what, quantize_fn *fn, bool factor,
                         struct err *e)
{
    q->what = what;
    q->work = 1;
    q->past = 0;
    for (int i = 0; i < q->n_unit; i++)
        q->work += q->done[i] ? 0 : micros(q, i);
    for (int entry = -1; entry < (q->hessian ? hessian_count(q->hessian) : 0); entry++) {
        q->n_todo = 0;
        for (int i = 0; i < q->n_unit; i++) {
            bool wanted = q->unit_feeds[i] || !factor;
            if (!q->done[i] && entry == (wanted ? q->unit_inputs[i] : -1))
                q->todo[q->n_todo++] = i;
        }
        if (q->n_todo == 0)
            continue;
        TRY(quantize_load_inputs(q, entry, factor, e));
        TRY(each(q, fn, e));
    }
    return 0;
}

/* ---- units ---- */

static int write_unit(struct quantize_worker *w, int i, struct err *e)
{
    struct quantize *q = w->q;
    const struct quantize_unit *u = &q->unit[i];
    struct quantize_note note = { .valid = true };
    size_t n = quantize_unit_bytes(q, u);
    TRY(quantize_read(w, u, &note.src, e));
    TRY(quantize_encode(w, u, &note.fed, e));
    q->fed[i] = note.fed;
    note.dst = hash_of(w->dst, n, 0);
    TRY(gguf_write_data(&q->im.out, u->tensor, quantize_unit_at(q, u), w->dst, n, e));
    return journal_add(q, i, &note, e);
}

/* A unit of an earlier try: the same source, or none of this; the same bytes, or once more. */
static int check_unit(struct quantize_worker *w, int i, struct err *e)
{
    struct quantize *q = w->q;
    const struct quantize_unit *u = &q->unit[i];
    const struct quantize_note *note = &q->note[i];
    size_t n = quantize_unit_bytes(q, u);
    uint64_t src;
    struct err lost = { 0 };
    TRY(quantize_read(w, u, &src, e));
    if (src != note->src)
        return err_set(e, ERR_MISMATCH,
                       "%s: tensor %s has changed since %s.part was begun; start again (--restart)",
                       weights_path(q->im.files), quantize_source_of(q, u).w->name, q->o->out);
    if (gguf_write_read(&q->im.out, u->tensor, quantize_unit_at(q, u), w->src, n, &lost) == 0 &&
        hash_of(w->src, n, 0) == note->dst) {
        gguf_write_kept(&q->im.out, u->tensor, n);
        q->done[i] = true;
        q->fed[i] = note->fed;
    }
    return 0;
}

static int go_on(struct quantize *q, struct err *e)
{
    q->n_todo = 0;
    for (int i = 0; i < q->n_unit; i++) {
        if (q->note[i].valid)
            q->todo[q->n_todo++] = i;
    }
    TRY(quantize_each(q, "checking", check_unit, e));
    int n = 0;
    for (int i = 0; i < q->n_unit; i++)
        n += q->done[i];
    log_put(q->o->log, LOG_INFO, "going on: %d of %d parts were finished", n, q->n_unit);
    return 0;
}

/* ---- everything ---- */

static void remark(const struct quantize *q)
{
    struct buf text;
    buf_init(&text, 1 << 16);
    quantize_print_upgrade(q, &text);
    if (text.len > 0)
        log_put(q->o->log, LOG_INFO, "%.*s", (int)text.len - 1, text.data);
    buf_release(&text);
    int two_bit = 0, n = 0;
    for (int i = 0; i < q->n_tensor; i++) {
        const struct quantize_tensor *t = &q->tensor[i];
        bool columns = t->weights == RECIPE_COLUMNS;
        two_bit += columns && (t->type == DT_IQ2_XXS || t->type == DT_Q2_K);
        n += columns;
    }
    if (two_bit && !q->imatrix)
        log_put(q->o->log, LOG_WARN, "%d tensors of two bits without an importance matrix: expect "
                "a worse model", two_bit);
    else if (n && q->imatrix)
        log_put(q->o->log, LOG_INFO, "%d tensors have no entry in %s: columns weigh by their own "
                "numbers", n, imatrix_path(q->imatrix));
}

static int run(struct quantize *q, const struct quantize_options *o, struct err *e)
{
    TRY(quantize_open(q, o, e));
    TRY(quantize_plan(q, e));
    TRY(quantize_check_importance(q, e));
    TRY(quantize_open_workers(q, e));
    gguf_write_plan(&q->im.out);
    TRY(quantize_keys(q, e));
    TRY(journal_open(q, &q->note, e));
    TRY(gguf_write_to(&q->im.out, o->out, q->note != NULL, e));
    TRY(gguf_write_begin(&q->im.out, e));
    q->begun = true;
    remark(q);
    if (q->note)
        TRY(go_on(q, e));
    TRY(quantize_each_undone(q, "quantising", write_unit, true, e));
    TRY(quantize_write_fed(q, e));
    TRY(gguf_write_finish(&q->im.out, e));
    journal_close(q, false);
    return 0;
}

int quantize_run(const struct quantize_options *o, struct err *e)
{
    struct quantize q;
    CHECK(o->src && o->out && o->recipe);
    int code = run(&q, o, e);
    quantize_close(&q);
    return code;
}
