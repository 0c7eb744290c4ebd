/* stage.cu - what of a step is copied to the device: its rows and the places of their caches, once,
 * when an op first shows them. Kernels find positions there and never in their arguments. */
#include "cuda_impl.h"

/* Blocks of a conversation that a list of rows has places for. */
static size_t places_of(const struct rows *r)
{
    return blocks_for((size_t)cuda_reach(r), (size_t)r->kv[0]->shape->block_tok);
}

/* Of a list of rows and all it points at. */
static size_t list_bytes(const struct rows *r)
{
    size_t n = (size_t)r->n * sizeof(struct cu_row) + 64;
    if (r->kv && r->n_seq)
        n += (size_t)r->n_seq * (size_t)r->kv[0]->n_layer *
             (sizeof(struct kv_layer) + places_of(r) * 2 * sizeof(void *));
    return round_up(n, 256);
}

static bool stage_new(struct dev *d, struct cu_stage *s, size_t bytes)
{
    size_t most = s->most;
    cuda_stage_free(s);
    s->most = most;
    s->size = round_up(bytes, 65536);
    cuda_check(d, cudaMallocHost(&s->host, s->size), "memory for rows");
    cuda_check(d, cudaMalloc(&s->dev, s->size), "memory for rows");
    return d->err.code == ERR_NONE;
}

void cuda_stage_free(struct cu_stage *s)
{
    cudaFreeHost(s->host);
    cudaFree(s->dev);
    memset(s, 0, sizeof *s);
}

void cuda_stage_begin(struct cu_stage *s)
{
    s->n_seen = 0;
    s->used = 0;
}

bool cuda_stage_for(struct dev *d, struct cu_stage *s, const struct rows *r,
                    const struct rows *next)
{
    const struct cu_stage *plain = &cuda_of(d)->plain;
    return stage_new(d, s, list_bytes(r) + (next ? list_bytes(next) : 0) + plain->most);
}

/* Room for `bytes` more. A plain step's grows when more is shown than ever before; lists already
 * shown stay where they are. A recorded one's was measured. */
static bool stage_room(struct dev *d, struct cu_stage *s, size_t bytes)
{
    if (s->used + bytes <= s->size)
        return true;
    if (s != &cuda_of(d)->plain) {
        dev_fail(d, ERR_NO_MEMORY, "a step to be recorded shows %zu bytes more than before", bytes);
        return false;
    }
    if (s->used > 0)
        cuda_check(d, cudaStreamSynchronize(cuda_of(d)->stream), "the step");
    return stage_new(d, s, 2 * bytes);
}

void *cuda_stage(struct dev *d, size_t bytes)
{
    struct cu_stage *s = cuda_of(d)->stage;
    bytes = round_up(bytes, 256);
    if (!stage_room(d, s, bytes))
        return NULL;
    s->used += bytes;
    s->most = MAX(s->most, s->used);
    return s->host + s->used - bytes;
}

void *cuda_send(struct dev *d, const void *staged, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    uint8_t *to = c->stage->dev + ((const uint8_t *)staged - c->stage->host);
    cuda_interrupted(d);
    cuda_check(d, cudaMemcpyAsync(to, staged, bytes, cudaMemcpyHostToDevice, c->stream), "a list");
    return to;
}

/* Writes into the stage; what it returns is the place on the device. */
struct writer {
    uint8_t *host, *dev;
    size_t at;
};

static void *place(struct writer *w, size_t bytes)
{
    void *dev = w->dev + w->at;
    w->at = round_up(w->at + bytes, 8);
    return dev;
}

static const struct cu_row *put_rows(struct writer *w, const struct rows *r)
{
    struct cu_row *row = (struct cu_row *)(w->host + w->at);
    int out = 0;
    for (int i = 0, first = 0, count = 0; i < r->n; i++) {
        if (i == 0 || r->host[i].seq != r->host[i - 1].seq) {
            first = i;
            for (count = 1; i + count < r->n && r->host[i + count].seq == r->host[i].seq;)
                count++;
        }
        row[i] = { r->host[i].token, r->host[i].pos, r->host[i].seq, first, count,
                   r->host[i].logits ? out++ : -1 };
    }
    return (const struct cu_row *)place(w, (size_t)r->n * sizeof *row);
}

/* Pointers to blocks: those there are; behind them is room for as many as the list reaches. */
static uint8_t **put_blocks(struct writer *w, uint8_t **block, size_t n, size_t n_place)
{
    memcpy(w->host + w->at, block, n * sizeof *block);
    return (uint8_t **)place(w, n_place * sizeof *block);
}

static const struct kv_layer *put_caches(struct writer *w, const struct rows *r)
{
    int n_layer = r->kv[0]->n_layer;
    size_t all = (size_t)r->n_seq * (size_t)n_layer, n_place = places_of(r);
    struct kv_layer *to = (struct kv_layer *)(w->host + w->at);
    const struct kv_layer *dev = (const struct kv_layer *)place(w, all * sizeof *to);
    for (int q = 0; q < r->n_seq; q++) {
        int last = -1;
        for (int i = 0; i < r->n; i++)
            last = r->host[i].seq == q ? r->host[i].pos : last;
        size_t n = last < 0 ? 0 : (size_t)(last / r->kv[q]->shape->block_tok) + 1;
        for (int l = 0; l < n_layer; l++) {
            struct kv_layer layer = r->kv[q]->layer[l];
            if (layer.ratio)
                layer.block = put_blocks(w, layer.block, n, n_place);
            if (layer.ratio && layer.index_block)
                layer.index_block = put_blocks(w, layer.index_block, n, n_place);
            to[(size_t)q * (size_t)n_layer + (size_t)l] = layer;
        }
    }
    return dev;
}

/* The list's places depend on what a recorded step is known by alone (cuda_reach() and numbers). */
static size_t put_list(struct writer *w, struct cu_step *step, const struct rows *r)
{
    step->row = put_rows(w, r);
    if (r->kv && r->n_seq) {
        step->n_layer = r->kv[0]->n_layer;
        step->shape = *r->kv[0]->shape;
        step->kv = put_caches(w, r);
    }
    return w->at;
}

static const struct cu_step *show_rows(struct dev *d, struct cuda *c, const struct rows *r)
{
    size_t bytes = list_bytes(r);
    uint8_t *host = (uint8_t *)cuda_stage(d, bytes);
    struct cu_stage *s = c->stage;
    if (!host)
        return NULL;
    CHECK(s->n_seen < MAX_LISTS);
    struct cu_seen *seen = &s->seen[s->n_seen++];
    memset(seen, 0, sizeof *seen);
    seen->host = r->host;
    seen->kv = r->kv;
    seen->is_next = r->host == s->next;
    seen->n = r->n;
    seen->at = (size_t)(host - s->host);
    struct writer w = { host, s->dev + seen->at, 0 };
    size_t used = put_list(&w, &seen->step, r);
    CHECK(used <= bytes);
    cuda_send(d, host, used);
    return &seen->step;
}

const struct cu_step *cuda_rows(struct dev *d, const struct rows *r)
{
    struct cuda *c = cuda_of(d);
    struct cu_stage *s = c->stage;
    for (int i = 0; i < s->n_seen; i++)
        if (s->seen[i].host == r->host && s->seen[i].n == r->n && s->seen[i].kv == r->kv)
            return &s->seen[i].step;
    return show_rows(d, c, r);
}

void cuda_stage_again(struct cu_stage *s, const struct rows *r, const struct rows *next)
{
    for (int i = 0; i < s->n_seen; i++) {
        struct cu_seen *seen = &s->seen[i];
        struct writer w = { s->host + seen->at, s->dev + seen->at, 0 };
        struct cu_step step = {};
        put_list(&w, &step, seen->is_next ? next : r);
        CHECK(step.row == seen->step.row && step.kv == seen->step.kv);
    }
}
