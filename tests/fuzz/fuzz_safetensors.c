/* fuzz_safetensors.c - libFuzzer: no bytes whatever make the reader of checkpoint files, of their
 * index or of config.json crash or hand out a tensor that does not lie in the file.
 *
 * The first byte chooses: 'I' an index, 'C' a config.json, anything else a safetensors file that
 * begins there. Seeds: corpus/safetensors. */
#include "meta_impl.h"
#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void index_file(const uint8_t *data, size_t size)
{
    struct shard_index x;
    struct err e = { 0 };
    if (shard_index_parse(&x, "fuzz", (const char *)data, size, &e) < 0) {
        CHECK(e.code != ERR_NONE && e.text[0] && !strchr(e.text, '\n'));
        return;
    }
    CHECK(x.n_shard > 0 && x.n_shard <= x.n_tensor);
    for (int i = 0; i < x.n_tensor; i++)
        CHECK(x.name[i] && x.file[i] && !strchr(x.file[i], '/'));
    shard_index_release(&x);
}

static void config_file(const uint8_t *data, size_t size)
{
    struct meta *m;
    struct err e = { 0 };
    if (meta_from_json(&m, "fuzz", (const char *)data, size, &e) < 0) {
        CHECK(e.code != ERR_NONE && e.text[0] && !strchr(e.text, '\n'));
        return;
    }
    for (int i = 0; i < meta_count(m); i++)
        CHECK(meta_find(m, meta_at(m, i)->key) == meta_at(m, i));
    meta_free(m);
}

static void tensor_file(const uint8_t *data, size_t size)
{
    struct safetensors s;
    struct err e = { 0 };
    unsigned sum = 0;
    if (safetensors_parse(&s, "fuzz", data, size, &e) < 0) {
        CHECK(e.code != ERR_NONE && e.text[0] && !strchr(e.text, '\n'));
        return;
    }
    for (int i = 0; i < s.n_tensor; i++) {
        const struct weight *w = &s.tensor[i];
        CHECK(w->bytes > 0 && w->data >= data && w->bytes <= size - (size_t)(w->data - data));
        sum += w->data[0] + w->data[w->bytes - 1];
    }
    volatile unsigned sink = sum; /* so that the reads happen */
    (void)sink;
    safetensors_release(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == 'I')
        index_file(data + 1, size - 1);
    else if (size > 0 && data[0] == 'C')
        config_file(data + 1, size - 1);
    else
        tensor_file(data, size);
    return 0;
}
