/* engine.c - opening in the order of need, and the step.
 *
 * Files, device, network, tokenizer; then the plan; then all memory that steps will ever use. A
 * step itself allocates nothing. */
#define _GNU_SOURCE
#include "engine.h"

#include "clock.h"
#include "cpu.h"
#include "draw.h"
#include "file.h"
#include "pages.h"
#include "session.h"
#include "stream.h"

#include <stdlib.h>

#define MAX_SESSIONS 4096
#define MAX_ROWS 65536

/* Rows of a step unless asked for. A cancelled prompt waits for the end of its step: a model that
 * fits in any memory takes small ones; a large one takes large ones, since every step reads nearly
 * all of its experts. */
#define ROWS_REF 16
#define ROWS_SMALL 64
#define ROWS_LARGE 256
#define LARGE_BYTES ((size_t)4 << 30)
#define ROWS_STREAM 512 /* experts that are read serve twice as many */
#define SCRATCH_SHARE 8 /* if scratch then takes at most so much of the experts' memory */
#define ROWS_GPU 4096   /* an expert then has rows enough for a tile; halved while scratch takes */
#define ROWS_GPU_LEAST 512 /* more than that share of the GPU's memory */
#define GPU_KEEP 20   /* such a part of a GPU's free memory is left to kernels, graphs, others; */
#define GPU_KEEP_MOST ((size_t)1 << 30) /* this, if that is less */
#define HOST_KEEP 10  /* per cent of the host's */
#define GPU_WORTH ((size_t)1 << 30) /* a smaller model has answered before a GPU is open */
#define CODE_BYTES ((size_t)8 << 20) /* of the program and its libraries in memory */

/* ---- opening ------------------------------------------------------------------------------ */

static int progress(const struct dstar_options *o, const char *what, double done, struct err *e)
{
    if (o->progress && o->progress(o->progress_user, what, done))
        return err_set(e, ERR_CANCELLED, "%s: opening was cancelled", o->model);
    return 0;
}

static int check_options(const struct dstar_options *o, struct err *e)
{
    if (!o->model)
        return err_set(e, ERR_ARGUMENT, "options: model is missing");
    if (o->part < DSTAR_ALL || o->part > DSTAR_PLAN)
        return err_set(e, ERR_ARGUMENT, "options: part is %d, expected 0 to 2", o->part);
    if (o->threads < 0 || o->threads > 4096)
        return err_set(e, ERR_ARGUMENT, "options: threads is %d, expected 0 to 4096", o->threads);
    if (o->ctx < 0)
        return err_set(e, ERR_ARGUMENT, "options: ctx is %d, expected 0 or more", o->ctx);
    if (o->sessions < 1 || o->sessions > MAX_SESSIONS)
        return err_set(e, ERR_ARGUMENT, "options: sessions is %d, expected 1 to %d", o->sessions,
                       MAX_SESSIONS);
    if (o->max_rows < 0 || o->max_rows > MAX_ROWS)
        return err_set(e, ERR_ARGUMENT, "options: max_rows is %d, expected 0 to %d", o->max_rows,
                       MAX_ROWS);
    if (o->profile < DSTAR_PROFILE_FILE || o->profile > DSTAR_PROFILE_0731)
        return err_set(e, ERR_ARGUMENT, "options: profile is %d, expected 0 to 2", o->profile);
    return 0;
}

/* Each name allows itself and what is weaker. */
static int isa_of(const char *name, unsigned *isa, struct err *e)
{
    static const struct {
        const char *name;
        unsigned isa;
    } known[] = {
        { "scalar", 0 },
        { "avx2", CPU_AVX2 },
        { "avx512", CPU_AVX2 | CPU_AVX512VNNI },
        { "amx", CPU_AVX2 | CPU_AVX512VNNI | CPU_AMX_INT8 },
        { "neon", CPU_NEON | CPU_DOTPROD | CPU_I8MM },
    };
    *isa = ~0u;
    for (size_t i = 0; name && i < COUNT_OF(known); i++)
        if (strcmp(name, known[i].name) == 0) {
            *isa = known[i].isa;
            return 0;
        }
    if (name)
        return err_set(e, ERR_ARGUMENT, "options: cpu is \"%s\", expected scalar, avx2, avx512, "
                       "amx or neon", name);
    return 0;
}

static size_t file_bytes(const struct engine *e)
{
    size_t sum = 0;
    for (int i = 0; i < weights_n_file(e->files); i++)
        sum += (size_t)weights_file_bytes(e->files, i);
    return sum;
}

static bool is_auto(const struct dstar_options *o)
{
    return !o->device || strcmp(o->device, "auto") == 0;
}

/* Why the choice left to us is the processor; NULL: it is a GPU, and that is open. */
static const char *open_gpu(struct engine *e, const struct dstar_options *o,
                            const struct backend_options *b, struct err *err)
{
    if (o->cpu)
        return "an instruction set was asked for";
    if (file_bytes(e) < GPU_WORTH)
        return "the model is small";
    return dev_open(&e->dev, "cuda", b, err) < 0 ? err->text : NULL;
}

static int open_device(struct engine *e, const struct dstar_options *o, struct err *err)
{
    struct backend_options b = { .n_thread = o->threads, .exact = o->exact };
    struct err no_gpu = { 0 };
    TRY(isa_of(o->cpu, &b.isa, err));
    if (!is_auto(o))
        return dev_open(&e->dev, o->device, &b, err);
    const char *why = open_gpu(e, o, &b, &no_gpu);
    if (why) {
        log_put(&e->log, LOG_INFO, "device auto: the processor: %s", why);
        return dev_open(&e->dev, "cpu", &b, err);
    }
    log_put(&e->log, LOG_INFO, "device auto: %s", dev_describe(e->dev));
    return 0;
}

static int open_tokenizer(struct engine *e, const struct dstar_options *o, struct err *err)
{
    TRY(lock_new(&e->text_lock, err));
    if (e->files && weights_kind(e->files) == WEIGHTS_CHECKPOINT &&
        !weights_tokenizer_path(e->files)) {
        log_put(&e->log, LOG_INFO, "%s: no tokenizer.json: tokens have no text", o->model);
        return 0;
    }
    if (e->files && !weights_tokenizer_path(e->files))
        return tokenizer_open_meta(&e->text, weights_meta(e->files), weights_path(e->files),
                                   &e->log, err);
    if (e->files)
        return tokenizer_open_json(&e->text, weights_tokenizer_path(e->files), &e->log, err);
    char *path = path_join(o->model, "tokenizer.json");
    int code = path ? tokenizer_open_json(&e->text, path, &e->log, err)
                    : err_set(err, ERR_NO_MEMORY, "%s: out of memory", o->model);
    free(path);
    return code;
}

static int open_rules(struct engine *e, const struct dstar_options *o, struct err *err)
{
    int n_vocab = e->model ? model_info(e->model)->n_vocab : tokenizer_n_vocab(e->text);
    TRY(vocab_rules_open(&e->rules, e->text, n_vocab,
                         e->files ? weights_meta(e->files) : NULL, o->model, o->profile, err));
    if (e->rules.n_stop == 0)
        log_put(&e->log, LOG_WARN, "%s: no token that ends a turn is known; answers go on until "
                "they are cut off", o->model);
    return 0;
}

static int default_rows(const struct engine *e, size_t model_bytes)
{
    if (strcmp(e->dev->name, "ref") == 0)
        return ROWS_REF;
    if (dev_is_apart(e->dev) && model_bytes >= LARGE_BYTES)
        return ROWS_GPU;
    return model_bytes < LARGE_BYTES ? ROWS_SMALL : ROWS_LARGE;
}

static size_t less(size_t a, size_t b)
{
    return a > b ? a - b : 0;
}

/* What a GPU may still hold. */
static size_t gpu_room(const struct engine *e, const struct dstar_options *o)
{
    size_t left = dev_memory_left(e->dev), taken = less(e->gpu_free, left);
    size_t room = less(left, MIN(e->gpu_free / GPU_KEEP, GPU_KEEP_MOST));
    return o->gpu_memory_bytes ? MIN(room, less(o->gpu_memory_bytes, taken)) : room;
}

/* The other weights are there already. Experts beside which nothing else would fit are split, as
 * far as the plan is concerned like those that are streamed. Fewer rows where scratch would take
 * much of what the weights leave. */
static int plan_apart(struct engine *e, const struct dstar_options *o, struct budget_ask *ask,
                      struct err *err)
{
    int n, code;
    size_t all = (size_t)expert_split_bytes(model_expert_map(e->model), &n), spare;
    ask->memory_bytes = ask->machine = MAX(gpu_room(e, o), 1);
    if (!is_auto(o) || o->gpu_memory_bytes)
        ask->experts_least = all / (size_t)MAX(n, 1);
    else /* nobody asked for a GPU that lacks room */
        ask->experts_least = 0;
    ask->experts_most = ask->mapped = all;
    ask->taken = 0;
    for (;; ask->max_rows /= 2) {
        code = budget_plan(&e->budget, ask, e->model, e->dev, err);
        spare = e->budget.is_streaming ? ask->memory_bytes : less(ask->memory_bytes, all);
        if (o->max_rows || ask->max_rows <= ROWS_GPU_LEAST ||
            e->budget.scratch <= spare / SCRATCH_SHARE)
            break;
        *err = (struct err){ 0 };
    }
    e->budget.mapped = 0;
    return code < 0 ? err_prefix(err, "device %s, beside %s of weights that every token needs",
                                 e->dev->name,
                                 bytes_text((double)model_info(e->model)->held_bytes).s) : 0;
}

static int plan(struct engine *e, const struct dstar_options *o, struct err *err)
{
    struct expert_shelf_ask experts;
    struct budget_ask ask = {
        .ctx = o->ctx,
        .n_session = o->sessions,
        .memory_bytes = o->memory_bytes,
        .machine = cpu_memory_total(),
        .taken = cpu_rss().anonymous + CODE_BYTES,
        .mapped = file_bytes(e),
        .max_mark = ENGINE_MARKS,
        .slack = ENGINE_SLACK,
    };
    TRY(stream_list(e, o, &experts, err));
    expert_store_sizes(&experts, &ask.experts_least, &ask.experts_most);
    ask.max_rows = o->max_rows ? o->max_rows : default_rows(e, ask.mapped);
    int code = dev_is_apart(e->dev) ? plan_apart(e, o, &ask, err)
                                    : budget_plan(&e->budget, &ask, e->model, e->dev, err);
    size_t more = e->budget.scratch * (ROWS_STREAM / ROWS_LARGE);
    if (code == 0 && e->budget.is_streaming && !o->max_rows && ask.max_rows == ROWS_LARGE &&
        more <= e->budget.experts / SCRATCH_SHARE) {
        ask.max_rows = ROWS_STREAM;
        code = budget_plan(&e->budget, &ask, e->model, e->dev, err);
    }
    if (code == ERR_NO_MEMORY && o->part == DSTAR_PLAN && e->budget.total > 0) {
        log_put(&e->log, LOG_WARN, "%s", err->text);
        *err = (struct err){ 0 };
        return 0;
    }
    if (code < 0)
        return err_prefix(err, "%s", o->model);
    const struct budget *b = &e->budget;
    if (b->taken + b->total > b->available && b->is_streaming && !dev_is_apart(e->dev))
        log_put(&e->log, LOG_WARN, "%s: %s of memory are less than the least, %s: that is "
                "taken, and every token waits for the disk", o->model,
                bytes_text((double)b->available).s, bytes_text((double)b->least).s);
    return 0;
}

static int take_data(struct engine *e, void **mem, size_t bytes, struct err *err)
{
    return dev_is_apart(e->dev) ? dev_memory_take(e->dev, mem, bytes, err)
                                : pages_map(mem, bytes, err);
}

static void give_back_data(struct engine *e, void *mem, size_t bytes)
{
    if (e->dev && dev_is_apart(e->dev))
        dev_memory_give_back(e->dev, mem);
    else
        pages_unmap(mem, bytes);
}

int engine_take(struct engine *e, struct kv_mem *mem, struct kv_bytes bytes, struct err *err)
{
    *mem = (struct kv_mem){ 0 };
    TRY(pages_map(&mem->host, bytes.host, err));
    int code = take_data(e, &mem->data, bytes.data, err);
    if (code < 0)
        engine_give_back(e, mem, bytes);
    return code;
}

void engine_give_back(struct engine *e, struct kv_mem *mem, struct kv_bytes bytes)
{
    pages_unmap(mem->host, bytes.host);
    give_back_data(e, mem->data, bytes.data);
    *mem = (struct kv_mem){ 0 };
}

static int take_memory(struct engine *e, struct err *err)
{
    const struct budget *b = &e->budget;
    const struct model_info *info = model_info(e->model);
    TRY(take_data(e, &e->scratch, b->scratch, err));
    arena_init(&e->dev->scratch, e->scratch, b->scratch);
    e->pool_bytes = kv_pool_bytes(&b->shape, info->ratio, info->n_kv_layer, b->n_block);
    TRY(engine_take(e, &e->pool_mem, e->pool_bytes, err));
    kv_pool_init(&e->pool, &b->shape, info->ratio, info->n_kv_layer, e->pool_mem, b->n_block);
    e->pool.dev = dev_is_apart(e->dev) ? e->dev : NULL;
    TRY(batch_open(&e->batch, b->max_rows, b->n_session, err));
    TRY(pages_map(&e->sampling_mem, sampler_work_bytes(info->n_vocab), err));
    sampler_work_init(&e->sampling, info->n_vocab, e->sampling_mem);
    return 0;
}

static int open_model(struct engine *e, const struct dstar_options *o, struct err *err)
{
    struct model_options m = { .simulate = o->cache_simulation, .with_mtp = o->mtp };
    TRY(progress(o, "device", 0.01, err));
    TRY(open_device(e, o, err));
    if (dev_is_apart(e->dev)) {
        e->gpu_free = dev_memory_left(e->dev);
        m.room = MAX(gpu_room(e, o), 1);
    }
    TRY(progress(o, "weights", 0.02, err));
    TRY(model_open(&e->model, e->files, e->dev, &m, err));
    e->identity.n_vocab = model_info(e->model)->n_vocab;
    model_identity(e->model, e->identity.identity);
    return 0;
}

/* What a device that is apart will hold, said before anything is brought there. */
static void tell_memory(const struct engine *e)
{
    const struct budget *b = &e->budget;
    const struct expert_split *s = &e->split;
    size_t rest = b->scratch + b->cache + b->session * (size_t)b->n_session + s->near_bytes +
                  s->ahead_bytes + s->slot_bytes;
    log_put(&e->log, LOG_INFO, "%s: device %s: %s of weights that every token needs, %d of %d "
            "experts (%s), %s of cache for %d tokens, %s of a conversation's state, %s for a step; "
            "%s stay free", e->path, e->dev->name,
            bytes_text((double)model_info(e->model)->held_bytes).s, s->n_near, s->n,
            bytes_text((double)s->near_bytes).s, bytes_text((double)b->cache).s, b->ctx,
            bytes_text((double)b->session).s, bytes_text((double)b->scratch).s,
            bytes_text((double)less(dev_memory_left(e->dev), rest)).s);
    if (!expert_split_all(s))
        log_put(&e->log, LOG_INFO, "%s: memory of the host: %s, page-locked, for the other %d "
                "experts; of the device: %s for those used last, %d of each layer, and %s to copy "
                "them to, layer by layer, for long prompts", e->path,
                bytes_text((double)(s->bytes - s->near_bytes)).s, s->n - s->n_near,
                bytes_text((double)s->slot_bytes).s, s->n_slot,
                bytes_text((double)s->ahead_bytes).s);
}

/* For experts that a GPU reads from the host. */
static size_t host_room(const struct engine *e, const struct dstar_options *o)
{
    size_t available = cpu_memory_available();
    if (e->dev->shares_memory)
        return 0;
    if (o->memory_bytes)
        return less(o->memory_bytes, cpu_rss().anonymous + CODE_BYTES);
    return available ? available / 100 * (100 - HOST_KEEP) : SIZE_MAX;
}

/* Which experts a device that is apart will hold: popular ones first. What it is given comes in
 * large pieces, each rounded up by its driver. */
static int split_experts(struct engine *e, const struct dstar_options *o, struct err *err)
{
    struct expert_profile p;
    int popular = stream_popular(e, o, &p, err);
    if (popular < 0)
        return popular;
    e->popular_count = popular ? p.count : NULL;
    size_t room = e->budget.experts - e->budget.experts / 512, host = host_room(e, o);
    int code = expert_split_open(&e->split, model_expert_map(e->model), e->popular_count,
                                 e->budget.is_streaming ? room : SIZE_MAX, host, err);
    const struct expert_split *s = &e->split;
    if (code < 0 || s->bytes - s->near_bytes <= host)
        return code;
    return err_set(err, ERR_NO_MEMORY, "%s: device %s has room for %d of %d experts; the others "
                   "need %s of the host's memory, %s may be taken", e->path, e->dev->name,
                   s->n_near, s->n, bytes_text((double)(s->bytes - s->near_bytes)).s,
                   bytes_text((double)host).s);
}

static int tell_loading(void *user, const char *what, double done)
{
    const struct dstar_options *o = user;
    return o->progress ? o->progress(o->progress_user, what, .2 + .8 * done) : 0;
}

/* How often each expert is used, where some are read over a bus or that is to be kept. */
static int count_uses(struct engine *e, const struct dstar_options *o, struct err *err)
{
    const struct expert_map *map = model_expert_map(e->model);
    size_t n = (size_t)map->n_layer * (size_t)map->n_expert;
    if (expert_split_all(&e->split) && !o->popular)
        return 0;
    void *zero = calloc(n, sizeof *e->dev->uses), *there;
    if (!zero)
        return err_set(err, ERR_NO_MEMORY, "%s: out of memory", e->path);
    int code = dev_memory_take(e->dev, &there, n * sizeof *e->dev->uses, err);
    if (code == 0) {
        e->dev->uses = there;
        code = dev_copy_now(e->dev, there, zero, n * sizeof *e->dev->uses, err);
    }
    free(zero);
    return code;
}

static int load_model(struct engine *e, const struct dstar_options *o, struct err *err)
{
    struct dstar_options copy = *o;
    const struct report told = { tell_loading, &copy };
    if (dev_is_apart(e->dev)) {
        TRY(split_experts(e, o, err));
        tell_memory(e);
    }
    TRY(take_memory(e, err));
    if (dev_is_apart(e->dev))
        TRY(count_uses(e, o, err));
    double start = clock_now_s();
    TRY(model_load(e->model, &e->split, &told, err));
    e->weights_s = clock_now_s() - start;
    return e->dev->uses ? stream_keep(e, o, err) : 0;
}

static int open_all(struct engine *e, const struct dstar_options *o, struct err *err)
{
    double start = clock_now_s();
    *e = (struct engine){ .log = { o->log, o->log_user } };
    TRY(check_options(o, err));
    TRY(progress(o, "files", 0, err));
    e->path = strdup(o->model);
    if (!e->path)
        return err_set(err, ERR_NO_MEMORY, "%s: out of memory", o->model);
    if (o->part != DSTAR_TOKENS || !file_is_dir(o->model))
        TRY(weights_open(&e->files, o->model, err));
    if (o->part != DSTAR_TOKENS)
        TRY(open_model(e, o, err));
    TRY(progress(o, "tokenizer", 0.1, err));
    TRY(open_tokenizer(e, o, err));
    TRY(open_rules(e, o, err));
    if (e->model) {
        TRY(progress(o, "plan", 0.15, err));
        TRY(plan(e, o, err));
    }
    if (o->part == DSTAR_ALL) {
        TRY(progress(o, "memory", 0.2, err));
        if (e->budget.is_streaming && !dev_is_apart(e->dev))
            TRY(stream_open(e, o, err));
        TRY(load_model(e, o, err));
    }
    e->load_s = clock_now_s() - start;
    return progress(o, "ready", 1, err);
}

int engine_open(struct engine *e, const struct dstar_options *o, struct err *err)
{
    struct dstar_options near = *o;
    int code = open_all(e, o, err);
    bool refused = code == ERR_NO_MEMORY || code == ERR_UNSUPPORTED;
    if (!refused || !is_auto(o) || !e->dev || !dev_is_apart(e->dev))
        return code;
    log_put(&e->log, LOG_INFO, "device auto: the processor: %s", err->text);
    engine_close(e);
    *err = (struct err){ 0 };
    near.device = "cpu";
    return open_all(e, &near, err);
}

void engine_close(struct engine *e)
{
    CHECK(e->n_session == 0);
    pages_unmap(e->sampling_mem, sampler_work_bytes(e->rules.n_vocab));
    batch_close(&e->batch);
    engine_give_back(e, &e->pool_mem, e->pool_bytes);
    give_back_data(e, e->scratch, e->budget.scratch);
    vocab_rules_close(&e->rules);
    lock_free(e->text_lock);
    tokenizer_close(e->text);
    stream_close(e);
    expert_split_close(&e->split);
    model_close(e->model);
    if (e->dev)
        dev_memory_give_back(e->dev, e->dev->uses);
    dev_close(e->dev);
    weights_close(e->files);
    free(e->path);
    *e = (struct engine){ 0 };
}

/* ---- the step ----------------------------------------------------------------------------- */

static int reserve(struct batch *b, struct err *e)
{
    for (int i = 0; i < b->n_part; i++) {
        int code = kv_reserve(&b->part[i].session->kv, b->part[i].n, e);
        if (code < 0) {
            while (--i >= 0)
                kv_abort(&b->part[i].session->kv);
            return code;
        }
    }
    return 0;
}

/* Logits come in the order of the rows that wanted them. The place of those of a part's last row,
 * or -1; *at: of the part's first, then of the next part's. */
static int last_logits(const struct batch *b, int part, int *at)
{
    const struct batch_part *p = &b->part[part];
    for (int r = p->first; r < p->first + p->n; r++)
        *at += b->row[r].logits;
    return b->row[p->first + p->n - 1].logits ? *at - 1 : -1;
}

/* A conversation keeps its last row's. */
static void keep_logits(struct batch *b)
{
    int at = 0;
    for (int i = 0; i < b->n_part; i++) {
        struct session *s = b->part[i].session;
        int last = last_logits(b, i, &at);
        s->has_logits = last >= 0;
        if (s->draw.out)
            session_drawn(s, last >= 0);
        else if (last >= 0)
            memcpy(s->logits, tensor_f32(&b->out.logits, last),
                   (size_t)b->out.logits.cols * sizeof *s->logits);
    }
}

/* The next token of everybody, in case it is asked for. */
static void draw(struct engine *e, struct batch *b)
{
    int at = 0, n = 0;
    for (int i = 0; i < b->n_part; i++) {
        int last = last_logits(b, i, &at);
        if (last >= 0)
            b->draw[n++] = session_ask(b->part[i].session, tensor_f32(&b->out.logits, last));
    }
    dev_draw(e->dev, b->draw, n, b->out.logits.cols);
}

void engine_forward(struct engine *e, const struct rows *r, const struct rows *next,
                    struct model_out *out)
{
    struct tensor seen[DEV_RESULTS] = { 0 };
    while (!dev_replay(e->dev, r, next, seen)) {
        model_forward(e->model, r, next, out);
        seen[0] = out->logits;
        seen[1] = out->mtp_logits;
        if (dev_results(e->dev, seen))
            break;
        dev_begin(e->dev);
    }
    *out = (struct model_out){ seen[0], seen[1] };
}

int engine_step(struct engine *e, struct batch *b, struct err *err)
{
    struct rows rows = { .n = b->n_row, .host = b->row, .n_seq = b->n_part, .kv = b->kv };
    struct rows next = rows;
    next.host = b->next;
    CHECK(b->n_part > 0);
    for (int i = 0; i < b->n_part; i++)
        TRY(session_tell(b->part[i].session, err));
    TRY(reserve(b, err));
    dev_begin(e->dev);
    if (b->n_part == 1) /* of several, the others' tokens would be lost */
        e->dev->stop = &b->part[0].session->cancelled;
    if (e->times_steps)
        dev_mark(e->dev, 0);
    engine_forward(e, &rows, b->with_mtp ? &next : NULL, &b->out);
    if (dev_draws(e->dev))
        draw(e, b);
    if (e->times_steps)
        dev_mark(e->dev, 1);
    int code = dev_wait(e->dev, err);
    if (e->times_steps && code == 0)
        e->busy_s += dev_between(e->dev, 0, 1);
    e->dev->stop = NULL;
    for (int i = 0; i < b->n_part; i++) {
        if (code == 0) {
            session_computed(b->part[i].session, b->part[i].n);
        } else {
            kv_abort(&b->part[i].session->kv);
            session_drawn(b->part[i].session, false);
        }
    }
    if (code == 0)
        keep_logits(b);
    return code;
}
