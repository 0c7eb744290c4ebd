/* replay.cu - steps of few rows as recorded graphs.
 *
 * A step of few rows is thousands of short launches, and to queue them takes longer than to run
 * them. Nothing in them depends on tokens or positions but through the stage, so a step that looks
 * like one before (cu_key) is: write the stage, launch the graph, wait. The first of a kind runs
 * plainly, which also loads its kernels; the second is recorded. Rejected: updating one graph's
 * arguments, which costs a call per launch. */
#include "cuda_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

static struct cu_key key_of(const struct dev *d, const struct rows *r, const struct rows *next)
{
    struct cu_key k;
    memset(&k, 0, sizeof k); /* keys are compared as bytes */
    k.scratch = d->scratch.mem;
    k.routes = d->routes ? d->routes->id : NULL;
    k.n = r->n;
    k.n_seq = r->n_seq;
    k.reach = cuda_reach(r);
    for (int i = 0; i < r->n; i++)
        k.logits |= (unsigned)r->host[i].logits << i;
    k.with_next = next != NULL;
    return k;
}

static void forget(struct cu_recorded *g)
{
    if (g->exec)
        cudaGraphExecDestroy(g->exec);
    cuda_stage_free(&g->stage);
    memset(g, 0, sizeof *g);
}

void cuda_forget_steps(struct cuda *c)
{
    for (int i = 0; i < N_RECORD; i++)
        forget(&c->record[i]);
}

/* The step's place: what was seen of it, or nothing yet. */
static struct cu_recorded *find(struct cuda *c, const struct cu_key *k)
{
    struct cu_recorded *oldest = &c->record[0];
    for (int i = 0; i < N_RECORD; i++) {
        struct cu_recorded *g = &c->record[i];
        if (g->last && memcmp(&g->key, k, sizeof *k) == 0)
            return g;
        if (g->last < oldest->last)
            oldest = g;
    }
    forget(oldest);
    oldest->key = *k;
    return oldest;
}

/* What comes back: whatever kept it from being recorded does not keep it from being computed. */
static void give_up(struct dev *d, struct cuda *c, struct cu_recorded *g)
{
    c->cannot_record = true;
    forget(g);
    d->err = {};
}

static void begin(struct dev *d, struct cuda *c, struct cu_recorded *g, const struct rows *r,
                  const struct rows *next)
{
    if (cuda_stage_for(d, &g->stage, r, next))
        cuda_check(d, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed),
                   "recording");
    if (d->err.code != ERR_NONE) {
        give_up(d, c, g);
        return;
    }
    g->stage.next = next ? next->host : NULL;
    cuda_interrupted(d);
    c->recording = g;
    c->stage = &g->stage;
}

bool cuda_replay(struct dev *d, const struct rows *r, const struct rows *next, struct tensor *out)
{
    struct cuda *c = cuda_of(d);
    if (c->cannot_record || r->n > FEW_MAX || dev_planning(d))
        return false;
    struct cu_key k = key_of(d, r, next);
    struct cu_recorded *g = find(c, &k);
    bool first = g->last == 0;
    g->last = ++c->n_replay;
    if (!g->exec) {
        if (!first)
            begin(d, c, g, r, next);
        return false;
    }
    cuda_stage_again(&g->stage, r, next);
    cuda_check(d, cudaGraphLaunch(g->exec, c->stream), "a recorded step");
    memcpy(out, g->out, sizeof g->out);
    return true;
}

static void end(struct dev *d, struct cuda *c, struct cu_recorded *g)
{
    cudaGraph_t graph = NULL;
    c->recording = NULL;
    c->stage = &c->plain;
    cuda_check(d, cudaStreamEndCapture(c->stream, &graph), "recording");
    if (d->err.code == ERR_NONE)
        cuda_check(d, cudaGraphInstantiateWithFlags(&g->exec, graph, 0), "recording");
    if (graph)
        cudaGraphDestroy(graph);
}

bool cuda_results(struct dev *d, struct tensor *out)
{
    struct cuda *c = cuda_of(d);
    struct cu_recorded *g = c->recording;
    if (!g)
        return true;
    memcpy(g->out, out, sizeof g->out);
    end(d, c, g);
    if (d->err.code != ERR_NONE) {
        cudaGetLastError(); /* a capture that failed breaks nothing */
        give_up(d, c, g);
        return false;
    }
    cuda_interrupted(d);
    cuda_check(d, cudaGraphLaunch(g->exec, c->stream), "a recorded step");
    return true;
}
