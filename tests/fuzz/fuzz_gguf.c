/* fuzz_gguf.c - libFuzzer: no bytes whatever make the GGUF reader crash, hang or hand out a tensor
 * that does not lie in the file, nor its metadata the reader of hyperparameters. Seeds:
 * corpus/gguf. */
#include "deepseek4_names.h"
#include "gguf_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf g;
    struct err e = { 0 };
    if (gguf_parse(&g, "fuzz", data, size, &e) < 0) {
        CHECK(e.code != ERR_NONE && e.text[0] && !strchr(e.text, '\n'));
        return 0;
    }
    unsigned sum = 0;
    for (int i = 0; i < g.n_tensor; i++) {
        const struct weight *w = &g.tensor[i];
        CHECK(w->bytes > 0 && w->data >= data && w->bytes <= size - (size_t)(w->data - data));
        CHECK(w->data == data + w->offset && w->name[0]);
        sum += w->data[0] + w->data[w->bytes - 1];
        sum += (unsigned)dsv4_place_of(w->name).role;
    }
    struct dsv4_hyper h;
    if (dsv4_hyper_read(&h, g.meta, WEIGHTS_GGUF, &e) == 0)
        sum += (unsigned)dsv4_size(&h, DSV4_D_O_IN, h.ratio[h.n_layer - 1]);
    for (int i = 0; i < meta_count(g.meta); i++) {
        const struct meta_kv *kv = meta_at(g.meta, i);
        CHECK(meta_find(g.meta, kv->key) == kv);
        if (kv->type == META_STR && kv->n > 0)
            sum += (unsigned)strlen(kv->v.s[kv->n - 1].data);
    }
    gguf_release(&g);
    volatile unsigned sink = sum; /* so that the reads happen */
    (void)sink;
    return 0;
}
