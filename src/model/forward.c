/* forward.c - a step through the whole network: tokens in, logits out. */
#include "deepseek4.h"

static int count_logits(const struct rows *r)
{
    int n = 0;
    for (int i = 0; i < r->n; i++)
        n += r->host[i].logits;
    return n;
}

struct tensor dsv4_head(const struct model *m, const struct tensor *streams, const struct hc *hc,
                        const float *norm, const struct rows *r)
{
    struct dev *d = m->dev;
    int n = count_logits(r);
    struct tensor wanted = dev_tensor(d, DT_F32, streams->cols, n);
    struct tensor x = dev_tensor(d, DT_F32, m->s.n_embd, n);
    struct tensor logits = dev_tensor(d, DT_F32, m->s.n_vocab, n);
    if (n == 0)
        return logits;
    op_gather(d, &wanted, streams, r);
    op_hc_head(d, &x, &wanted, hc);
    op_norm(d, &x, &x, norm, m->s.rms_eps);
    op_matmul(d, &logits, &m->output, &x);
    return logits;
}

void model_forward(const struct model *m, const struct rows *r, const struct rows *next,
                   struct model_out *out)
{
    struct dev *d = m->dev;
    struct tensor streams = dev_tensor(d, DT_F32, m->s.n_hc * m->s.n_embd, r->n);
    *out = (struct model_out){ 0 };
    experts_begin(m->store, d, r);
    op_embed(d, &streams, &m->embd, r);
    struct dsv4_flow f = dsv4_flow_into(m, &m->layer[0], &streams);
    for (int l = 0; l < m->s.n_layer; l++) {
        const struct dsv4_layer *next = l + 1 < m->s.n_layer ? &m->layer[l + 1] : NULL;
        dsv4_layer_forward(m, &m->layer[l], l, next, &f, r);
        if (d->on_layer && !dev_planning(d) && d->err.code == 0) {
            struct tensor seen = dev_look(d, &streams);
            if (d->err.code == 0)
                d->on_layer(d->on_layer_user, l, &seen, r);
        }
    }
    out->logits = dsv4_head(m, &streams, &m->head, m->output_norm, r);
    if (next && m->mtp)
        out->mtp_logits = dsv4_mtp_forward(m, &streams, next);
}
