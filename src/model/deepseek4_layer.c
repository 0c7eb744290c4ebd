/* deepseek4_layer.c - one layer of DeepSeek-V4, top to bottom.
 *
 * The token's state is a few parallel residual streams. Attention and the experts each see one
 * mixture of them and write back to all. Prefill, decode and many conversations are the same
 * lines: only the list of rows differs. */
#include "deepseek4.h"

static struct tensor scratch(const struct model *m, int cols, int rows)
{
    return dev_tensor(m->dev, DT_F32, cols, rows);
}

static struct tensor product(const struct model *m, const struct tensor *w, const struct tensor *x)
{
    struct tensor y = scratch(m, w->rows, x->rows);
    op_matmul(m->dev, &y, w, x);
    return y;
}

/* Products of one x, to be computed together. */
struct products {
    const struct model *m;
    const struct tensor *x;
    struct matmul p[7];
    int n;
};

/* One more; the result is there after op_products(). */
static struct tensor ask(struct products *of, const struct tensor *w, bool exact)
{
    struct tensor y = scratch(of->m, w->rows, of->x->rows);
    of->p[of->n++] = (struct matmul){ .out = y, .w = w, .exact = exact };
    return y;
}

static struct tensor ask_gated(struct products *of, const struct tensor *gate,
                               const struct tensor *up, float clamp)
{
    struct tensor y = scratch(of->m, gate->rows, of->x->rows);
    of->p[of->n++] = (struct matmul){ .out = y, .w = gate, .up = up, .clamp = clamp };
    return y;
}

/* What a compressor pools of x. */
static struct compressing compressed(struct products *of_x, const struct dsv4_layer *w, bool index)
{
    return (struct compressing){
        .c = index ? &w->index_comp : &w->comp,
        .a = ask(of_x, index ? &w->index_comp_kv : &w->comp_kv, true),
        .s = ask(of_x, index ? &w->index_comp_gate : &w->comp_gate, true),
    };
}

static struct tensor attention(const struct model *m, const struct dsv4_layer *w, int l,
                               const struct tensor *x, const struct rows *r)
{
    struct dev *d = m->dev;
    struct fresh f = { .n_head = m->s.n_head, .kv_norm = w->kv_norm, .eps = m->s.rms_eps,
                       .rope = w->rope };
    struct products of_x = { .m = m, .x = x };
    struct tensor picked, weight, q_low = ask(&of_x, &w->q_a, false);
    f.kv = ask(&of_x, &w->kv, false);
    if (w->ratio)
        f.comp[f.n_comp++] = compressed(&of_x, w, false);
    if (w->at.picked) {
        f.comp[f.n_comp++] = compressed(&of_x, w, true);
        weight = ask(&of_x, &w->index_proj, true);
    }
    op_products(d, of_x.p, of_x.n, x);
    op_norm(d, &q_low, &q_low, w->q_norm, m->s.rms_eps);

    struct products of_low = { .m = m, .x = &q_low };
    f.q = ask(&of_low, &w->q_b, false);
    if (w->at.picked) {
        f.ix = &m->indexer;
        f.index_q = ask(&of_low, &w->index_q, true);
    }
    op_products(d, of_low.p, of_low.n, &q_low);
    op_prepare(d, &f, r, l);

    if (w->at.picked) {
        picked = dev_tensor(d, DT_I32, m->indexer.top_k, r->n);
        op_pick(d, &picked, &f.index_q, &weight, &m->indexer, r, l);
    }
    struct tensor o = scratch(m, f.q.cols, r->n);
    op_attend(d, &o, &f.q, w->at.picked ? &picked : NULL, &w->at, r, l);

    struct tensor low = scratch(m, w->o_a.rows, r->n);
    op_matmul_grouped(d, &low, &w->o_a, &o, m->s.n_group);
    return product(m, &w->o_b, &low);
}

/* The order of these lines is the overlap with the disk. */
static struct hc_turn feed_forward(const struct model *m, const struct dsv4_layer *w, int l,
                                   const struct tensor *x, const struct rows *r)
{
    struct dev *d = m->dev;
    struct expert_need need;
    struct expert_set some;
    struct products of_x = { .m = m, .x = x };
    struct tensor logits = ask(&of_x, &w->router, true);
    struct tensor mid = ask_gated(&of_x, &w->sh_gate, &w->sh_up, w->clamp);
    int n = op_first_products(d, of_x.p, of_x.n, x);
    struct route route = { dev_tensor(d, DT_I32, w->route.n_used, r->n),
                           scratch(m, w->route.n_used, r->n) };
    op_route(d, &route, &logits, &w->route, r);
    experts_want(m->store, d, &w->experts, l, &route, &need); /* begins to read what is missing */

    op_products(d, of_x.p + n, of_x.n - n, x);
    struct tensor shared = product(m, &w->sh_down, &mid);

    struct tensor part = scratch(m, x->cols, r->n * w->route.n_used);
    while (experts_next(&need, d, &some)) /* what is here, then what arrives */
        op_experts(d, &part, &some, &route, x, w->clamp);
    experts_done(&need);
    return (struct hc_turn){ .y = shared, .part = part, .route = route, .hc = &w->hc_ffn };
}

struct dsv4_flow dsv4_flow_into(const struct model *m, const struct dsv4_layer *first,
                                const struct tensor *streams)
{
    int n_hc = m->s.n_hc, n = streams->rows;
    struct dsv4_flow f = { *streams, scratch(m, m->s.n_embd, n),
                           scratch(m, 2 * n_hc + n_hc * n_hc, n) };
    op_hc_mix_norm(m->dev, &f.x, &f.gates, streams, &first->hc_attn, first->attn_norm,
                   m->s.rms_eps);
    return f;
}

static void turn_to(const struct model *m, struct dsv4_flow *f, struct hc_turn *t,
                    const struct hc *next, const float *norm)
{
    t->next = next;
    t->weight = norm;
    t->eps = m->s.rms_eps;
    op_hc_turn(m->dev, &f->x, &f->gates, &f->streams, t);
}

void dsv4_layer_forward(const struct model *m, const struct dsv4_layer *w, int l,
                        const struct dsv4_layer *next, struct dsv4_flow *f, const struct rows *r)
{
    struct dev *d = m->dev;
    d->layer = l;
    size_t mark = arena_mark(&d->scratch);
    op_experts_ahead(d, &w->experts, r->n); /* over the bus, beside attention */

    struct hc_turn turn = { .y = attention(m, w, l, &f->x, r), .hc = &w->hc_attn };
    turn_to(m, f, &turn, &w->hc_ffn, w->ffn_norm);
    arena_rewind(&d->scratch, mark);

    turn = feed_forward(m, w, l, &f->x, r);
    turn_to(m, f, &turn, next ? &next->hc_attn : NULL, next ? next->attn_norm : NULL);
    arena_rewind(&d->scratch, mark);
    d->layer = -1;
}
