/* deepseek4_mtp.c - the draft block: one more layer that guesses the token after next.
 *
 * It reads the streams of token t and the embedding of token t+1, at position t, and shares the
 * embedding and the head with the backbone. Its cache is one more window-only layer. */
#include "deepseek4.h"

/* [n, k * cols] seen as [n * k, cols]. */
static struct tensor split(const struct tensor *t, int cols)
{
    struct tensor part = *t;
    part.rows = t->rows * (t->cols / cols);
    part.cols = cols;
    part.pitch = (size_t)cols * sizeof(float);
    return part;
}

struct tensor dsv4_mtp_forward(const struct model *m, const struct tensor *streams,
                               const struct rows *next)
{
    struct dev *d = m->dev;
    const struct dsv4_mtp *w = m->mtp;
    int n_embd = m->s.n_embd;
    struct tensor e = dev_tensor(d, DT_F32, n_embd, next->n);
    struct tensor e_in = dev_tensor(d, DT_F32, n_embd, next->n);
    struct tensor h = dev_tensor(d, DT_F32, streams->cols, next->n);
    struct tensor x = dev_tensor(d, DT_F32, streams->cols, next->n);
    struct tensor from = split(streams, n_embd), h_rows = split(&h, n_embd);
    struct tensor x_rows = split(&x, n_embd);

    op_embed(d, &e, &m->embd, next);
    op_norm(d, &e, &e, w->enorm, m->s.rms_eps);
    op_matmul(d, &e_in, &w->e_proj, &e);
    op_norm(d, &h_rows, &from, w->hnorm, m->s.rms_eps);
    op_matmul(d, &x_rows, &w->h_proj, &h_rows);
    for (int k = 0; k < m->s.n_hc; k++) {
        struct tensor stream = tensor_cols(&x, k * n_embd, n_embd);
        op_add(d, &stream, &e_in);
    }
    struct dsv4_flow f = dsv4_flow_into(m, &w->layer, &x);
    dsv4_layer_forward(m, &w->layer, m->s.n_layer, NULL, &f, next);
    return dsv4_head(m, &x, &w->head, w->norm, next);
}
