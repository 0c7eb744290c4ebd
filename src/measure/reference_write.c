/* reference_write.c - run a model over texts and keep what it says.
 *
 * The number of rows is known before the first is computed, so the file has its size at once and
 * rows go straight to their places. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "gguf_write.h"
#include "half.h"
#include "reference_impl.h"

int reference_tensors(struct reference_tensor out[REF_N_PART], const struct reference_sizes *s)
{
    const struct observe_shape *h = &s->shape;
    int64_t routes = (int64_t)h->n_layer * h->n_used, width = (int64_t)h->n_layer * h->width;
    const struct reference_tensor all[REF_N_PART] = {
        [REF_TOKENS] = { "text.tokens", DT_I32, 1, { s->n_tok, 1 } },
        [REF_SCORED] = { "text.scored", DT_I8, 1, { s->n_tok, 1 } },
        [REF_LOGPROB] = { "row.logprob", DT_F16, 2, { h->n_vocab, s->n_row } },
        [REF_ROUTE] = { "row.route", DT_I32, 2, { routes, s->n_row } },
        [REF_BEST] = { "row.best", DT_I32, 1, { s->n_row, 1 } },
        [REF_NLL] = { "row.nll", DT_F32, 1, { s->n_row, 1 } },
        [REF_CHECK] = { "row.check", DT_I32, 2, { 2, s->n_row } },
        [REF_STREAM] = { "stream.value", DT_F32, 2, { width, s->n_sample } },
        [REF_STREAM_CHECK] = { "stream.check", DT_I32, 2, { 2, s->n_sample } },
    };
    memcpy(out, all, sizeof all);
    return s->n_sample > 0 ? REF_N_PART : REF_STREAM;
}

uint64_t reference_hash_row(const struct observe_shape *s, const uint16_t *logprob,
                            const int32_t *route, int32_t best, float nll)
{
    struct hash h;
    hash_init(&h, REFERENCE_VERSION);
    hash_add(&h, logprob, (size_t)s->n_vocab * sizeof *logprob);
    hash_add(&h, route, (size_t)s->n_layer * (size_t)s->n_used * sizeof *route);
    hash_add(&h, &best, sizeof best);
    hash_add(&h, &nll, sizeof nll);
    return hash_value(&h);
}

uint64_t reference_hash_vocab(const dstar_engine *engine, int n_vocab)
{
    struct hash h;
    hash_init(&h, (uint64_t)n_vocab);
    for (int32_t id = 0; id < n_vocab; id++) {
        size_t len = 0;
        const char *bytes = dstar_token_bytes(engine, id, &len);
        uint64_t n = bytes ? len : 0;
        hash_add(&h, &n, sizeof n);
        hash_add(&h, bytes ? bytes : "", (size_t)n);
    }
    return hash_value(&h);
}

/* One reference being written. */
struct writer {
    const struct reference_plan *plan;
    struct reference_sizes sizes;
    struct gguf_writer file;
    struct reference_tensor tensor[REF_N_PART];
    const struct text_doc *doc; /* being computed */
    int64_t first_row, n_sample_done, tokens_before, tokens_all;
    uint16_t *logprob;          /* [n_vocab] */
    int32_t *route, *best;      /* [n_layer * n_used] [n_row] */
    float *nll;                 /* [n_row] */
    uint64_t *check, *stream_check; /* [n_row] [n_sample] */
};

static int not_a_number(const struct writer *w, const struct observed *o, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: after token %d: the logits are not finite", w->doc->name,
                   o->pos);
}

/* log softmax; what F16 cannot hold has a probability of 0. */
static int put_row(struct writer *w, const struct observed *o, struct err *e)
{
    int n = w->sizes.shape.n_vocab, best = 0;
    double sum = 0;
    for (int i = 1; i < n; i++) {
        if (o->logits[i] > o->logits[best])
            best = i;
    }
    double max = o->logits[best];
    for (int i = 0; i < n; i++)
        sum += exp(o->logits[i] - max);
    if (!isfinite(sum) || !isfinite(max))
        return not_a_number(w, o, e);
    double whole = max + log(sum);
    for (int i = 0; i < n; i++)
        w->logprob[i] = f32_to_f16((float)fmax(o->logits[i] - whole, -65504));
    int64_t row = w->first_row + o->row;
    for (int i = 0; i < w->sizes.shape.n_layer * w->sizes.shape.n_used; i++)
        w->route[i] = o->route[i];
    w->best[row] = best;
    w->nll[row] = (float)(whole - o->logits[o->next]);
    w->check[row] = reference_hash_row(&w->sizes.shape, w->logprob, w->route, best, w->nll[row]);
    size_t bytes = (size_t)n * sizeof *w->logprob;
    TRY(gguf_write_data(&w->file, REF_LOGPROB, (size_t)row * bytes, w->logprob, bytes, e));
    bytes = (size_t)w->tensor[REF_ROUTE].dim[0] * sizeof *w->route;
    return gguf_write_data(&w->file, REF_ROUTE, (size_t)row * bytes, w->route, bytes, e);
}

static int on_row(void *user, const struct observed *o, struct err *e)
{
    struct writer *w = user;
    TRY(put_row(w, o, e));
    if (o->streams) {
        size_t bytes = (size_t)w->tensor[REF_STREAM].dim[0] * sizeof(float);
        int64_t at = w->n_sample_done++;
        w->stream_check[at] = hash_of(o->streams, bytes, REFERENCE_VERSION);
        TRY(gguf_write_data(&w->file, REF_STREAM, (size_t)at * bytes, o->streams, bytes, e));
    }
    if (w->plan->progress &&
        w->plan->progress(w->plan->user, w->tokens_before + o->pos, w->tokens_all))
        return err_set(e, ERR_CANCELLED, "interrupted");
    return 0;
}

static void put_hash(struct gguf_writer *w, const char *key, uint64_t value)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    gguf_put_str(w, key, text);
}

/* Metadata of the texts. */
static int announce_texts(struct writer *w, struct err *e)
{
    const struct reference_plan *p = w->plan;
    struct hash h;
    int32_t *count = calloc((size_t)p->n_doc, sizeof *count);
    if (!count)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d texts", p->n_doc);
    hash_init(&h, REFERENCE_VERSION);
    gguf_put_strs(&w->file, "reference.text.name", p->n_doc);
    for (int i = 0; i < p->n_doc; i++) {
        gguf_put_item(&w->file, p->doc[i].name, strlen(p->doc[i].name));
        count[i] = p->doc[i].n_tok;
        hash_add(&h, p->doc[i].id, (size_t)p->doc[i].n_tok * sizeof(int32_t));
        hash_add(&h, p->doc[i].scored, (size_t)p->doc[i].n_tok);
    }
    gguf_put_strs(&w->file, "reference.text.set", p->n_doc);
    for (int i = 0; i < p->n_doc; i++)
        gguf_put_item(&w->file, p->doc[i].set, strlen(p->doc[i].set));
    gguf_put_i32s(&w->file, "reference.text.tokens", count, p->n_doc);
    put_hash(&w->file, "reference.text.hash", p->text_hash);
    put_hash(&w->file, "reference.text.tokens_hash", hash_value(&h));
    free(count);
    return 0;
}

static int announce(struct writer *w, dstar_engine *engine, struct err *e)
{
    const struct dstar_info *info = dstar_engine_info(engine);
    const struct observe_shape *s = &w->sizes.shape;
    int32_t learned[256];
    CHECK(s->n_layer <= (int)COUNT_OF(learned));
    for (int l = 0; l < s->n_layer; l++)
        learned[l] = s->learned[l];
    gguf_put_str(&w->file, "general.type", "reference");
    gguf_put_u32(&w->file, "reference.version", REFERENCE_VERSION);
    gguf_put_str(&w->file, "reference.model", info->name);
    gguf_put_str(&w->file, "reference.device", info->device);
    gguf_put_u32(&w->file, "reference.width", (uint32_t)s->width);
    gguf_put_u32(&w->file, "reference.used", (uint32_t)s->n_used);
    gguf_put_u32(&w->file, "reference.every", (uint32_t)MAX(w->plan->every, 0));
    gguf_put_i32s(&w->file, "reference.learned_routes", learned, s->n_layer);
    put_hash(&w->file, "reference.vocab_hash", reference_hash_vocab(engine, s->n_vocab));
    TRY(announce_texts(w, e));
    int n = reference_tensors(w->tensor, &w->sizes);
    for (int i = 0; i < n; i++) {
        const struct reference_tensor *t = &w->tensor[i];
        TRY(gguf_add_tensor(&w->file, t->name, (enum dtype)t->type, t->n_dim, t->dim, e));
    }
    return gguf_write_begin(&w->file, e);
}

static int count_rows(struct writer *w, struct err *e)
{
    const struct reference_plan *p = w->plan;
    struct reference_sizes *s = &w->sizes;
    for (int i = 0; i < p->n_doc; i++) {
        s->n_tok += p->doc[i].n_tok;
        s->n_row += text_doc_rows(&p->doc[i]);
    }
    w->tokens_all = s->n_tok;
    if (s->n_row == 0)
        return err_set(e, ERR_ARGUMENT, "reference: %d texts without a prediction that counts",
                       p->n_doc);
    if (s->n_tok > INT32_MAX)
        return err_set(e, ERR_LIMIT, "reference: %lld tokens, expected fewer than 2^31",
                       (long long)s->n_tok);
    s->n_sample = p->every > 0 ? (s->n_row + p->every - 1) / p->every : 0;
    size_t n_row = (size_t)s->n_row;
    w->logprob = calloc((size_t)s->shape.n_vocab, sizeof *w->logprob);
    w->route = calloc((size_t)s->shape.n_layer * (size_t)s->shape.n_used, sizeof *w->route);
    w->best = calloc(n_row, sizeof *w->best);
    w->nll = calloc(n_row, sizeof *w->nll);
    w->check = calloc(n_row, sizeof *w->check);
    w->stream_check = calloc((size_t)s->n_sample + 1, sizeof *w->stream_check);
    if (w->logprob && w->route && w->best && w->nll && w->check && w->stream_check)
        return 0;
    return err_set(e, ERR_NO_MEMORY, "out of memory for %zu rows of a reference", n_row);
}

/* What is small is written at the end, each in one piece. */
static int write_rest(struct writer *w, struct err *e)
{
    size_t at = 0, n_row = (size_t)w->sizes.n_row, n_sample = (size_t)w->sizes.n_sample;
    for (int i = 0; i < w->plan->n_doc; i++) {
        const struct text_doc *d = &w->plan->doc[i];
        size_t n = (size_t)d->n_tok;
        TRY(gguf_write_data(&w->file, REF_TOKENS, at * sizeof *d->id, d->id, n * sizeof *d->id, e));
        TRY(gguf_write_data(&w->file, REF_SCORED, at, d->scored, n, e));
        at += n;
    }
    TRY(gguf_write_data(&w->file, REF_BEST, 0, w->best, n_row * sizeof *w->best, e));
    TRY(gguf_write_data(&w->file, REF_NLL, 0, w->nll, n_row * sizeof *w->nll, e));
    TRY(gguf_write_data(&w->file, REF_CHECK, 0, w->check, n_row * sizeof *w->check, e));
    if (n_sample > 0)
        TRY(gguf_write_data(&w->file, REF_STREAM_CHECK, 0, w->stream_check,
                            n_sample * sizeof *w->stream_check, e));
    return 0;
}

static int compute(struct writer *w, struct observer *o, struct err *e)
{
    for (int i = 0; i < w->plan->n_doc; i++) {
        w->doc = &w->plan->doc[i];
        struct observation what = { w->doc, w->plan->chunk, w->plan->every, w->first_row, on_row,
                                    w };
        TRY(observe(o, &what, e));
        w->first_row += text_doc_rows(w->doc);
        w->tokens_before += w->doc->n_tok;
    }
    return write_rest(w, e);
}

int reference_write(dstar_engine *engine, const char *path, const struct reference_plan *plan,
                    struct err *e)
{
    struct writer w = { .plan = plan };
    struct observer *o;
    TRY(observer_begin(&o, engine, e));
    w.sizes.shape = *observer_shape(o);
    int code = count_rows(&w, e);
    if (code == 0)
        code = gguf_write_open(&w.file, path, e);
    if (code == 0)
        code = announce(&w, engine, e);
    if (code == 0)
        code = compute(&w, o, e);
    if (code == 0)
        code = gguf_write_finish(&w.file, e);
    gguf_write_abort(&w.file);
    observer_end(o);
    free(w.logprob);
    free(w.route);
    free(w.best);
    free(w.nll);
    free(w.check);
    free(w.stream_check);
    return code;
}
