/* deepseek4_matrices.c - which tensor a matrix is that the layer code multiplies with.
 *
 * A walk over the loaded network with the offsets of its matrices, so that neither loading nor the
 * layer code carries names. Hyper-connections are not among them: no op rounds their inputs. */
#include "deepseek4.h"

#define AT(field) offsetof(struct dsv4_layer, field)

static const struct {
    enum dsv4_role role;
    size_t at;
} part[] = {
    { DSV4_Q_A, AT(q_a) },
    { DSV4_Q_B, AT(q_b) },
    { DSV4_KV, AT(kv) },
    { DSV4_O_A, AT(o_a) },
    { DSV4_O_B, AT(o_b) },
    { DSV4_COMP_KV, AT(comp_kv) },
    { DSV4_COMP_GATE, AT(comp_gate) },
    { DSV4_INDEX_Q_B, AT(index_q) },
    { DSV4_INDEX_PROJ, AT(index_proj) },
    { DSV4_INDEX_COMP_KV, AT(index_comp_kv) },
    { DSV4_INDEX_COMP_GATE, AT(index_comp_gate) },
    { DSV4_ROUTER, AT(router) },
    { DSV4_GATE_SHEXP, AT(sh_gate) },
    { DSV4_UP_SHEXP, AT(sh_up) },
    { DSV4_DOWN_SHEXP, AT(sh_down) },
};

struct list {
    struct model_matrix *out;
    int n, cap;
};

static void add(struct list *l, const struct tensor *w, enum dsv4_role role, int block)
{
    if (!w->data) /* layers of this kind have none */
        return;
    if (l->n < l->cap) {
        l->out[l->n].w = w;
        dsv4_gguf_name(l->out[l->n].name, role, block);
    }
    l->n++;
}

static void add_layer(struct list *l, const struct dsv4_layer *w, int block)
{
    for (size_t i = 0; i < COUNT_OF(part); i++)
        add(l, (const struct tensor *)((const char *)w + part[i].at), part[i].role, block);
}

int model_matrices(const struct model *m, struct model_matrix *out, int cap)
{
    _Static_assert(sizeof out->name == DSV4_NAME_MAX, "any name fits");
    struct list l = { out, 0, cap };
    for (int i = 0; i < m->s.n_layer; i++)
        add_layer(&l, &m->layer[i], i);
    if (m->mtp) {
        add_layer(&l, &m->mtp->layer, DSV4_MTP(0));
        add(&l, &m->mtp->e_proj, DSV4_MTP_E_PROJ, DSV4_MTP(0));
        add(&l, &m->mtp->h_proj, DSV4_MTP_H_PROJ, DSV4_MTP(0));
    }
    add(&l, &m->output, DSV4_OUTPUT, -1);
    return l.n;
}
