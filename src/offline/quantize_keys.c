/* quantize_keys.c - metadata of the new file: as import makes it of a checkpoint, as it was in a
 * GGUF; and how the file was made. */
#include "quantize_impl.h"

#include <stdio.h>

/* Written anew, or of no meaning for one whole file. */
static bool is_replaced(const char *key)
{
    static const char *const keys[] = { "general.alignment", "general.file_type",
                                        "general.quantization_version",
                                        "deepseek4.nextn_predict_layers" };
    static const char *const groups[] = { "split.", "quantize.", "dwarfstar.quantize." };
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (strcmp(key, keys[i]) == 0)
            return true;
    }
    for (size_t i = 0; i < COUNT_OF(groups); i++) {
        if (strncmp(key, groups[i], strlen(groups[i])) == 0)
            return true;
    }
    return false;
}

static void copy_keys(struct quantize *q)
{
    const struct meta *m = weights_meta(q->im.files);
    for (int i = 0; i < meta_count(m); i++) {
        const struct meta_kv *kv = meta_at(m, i);
        if (!is_replaced(kv->key))
            gguf_put_kv(&q->im.out, kv);
    }
    gguf_put_u32(&q->im.out, "deepseek4.nextn_predict_layers", (uint32_t)q->im.h.n_nextn);
}

/* llama.cpp's number for a file mostly of this type. */
static uint32_t file_type(enum dtype type)
{
    switch (type) {
    case DT_F16: return 1;
    case DT_Q4_0: return 2;
    case DT_Q8_0: return 7;
    case DT_Q2_K: return 10;
    case DT_Q3_K: return 12;
    case DT_Q4_K: return 15;
    case DT_Q5_K: return 17;
    case DT_Q6_K: return 18;
    case DT_IQ2_XXS: return 19;
    case DT_IQ2_XS: return 20;
    case DT_BF16: return 32;
    case DT_MXFP4: return 38;
    default: return 0;
    }
}

static enum dtype main_type(const struct quantize *q)
{
    const struct quantize_tensor *best = NULL;
    double most = 0;
    for (int i = 0; i < q->n_tensor; i++) {
        double sum = 0;
        for (int k = 0; k < q->n_tensor; k++) {
            const struct quantize_tensor *t = &q->tensor[k];
            if (t->type == q->tensor[i].type)
                sum += (double)t->dim[0] * (double)t->dim[1] * (double)t->dim[2];
        }
        if (sum > most) {
            most = sum;
            best = &q->tensor[i];
        }
    }
    return best ? best->type : DT_F32;
}

static void put_own(struct quantize *q)
{
    struct gguf_writer *w = &q->im.out;
    char hash[20];
    gguf_put_u32(w, "general.quantization_version", 2);
    gguf_put_u32(w, "general.file_type", file_type(main_type(q)));
    gguf_put_str(w, "dwarfstar.quantize.recipe", q->recipe.text);
    if (q->upgrade.n > 0)
        gguf_put_i32s(w, "dwarfstar.quantize.upgraded", q->upgrade.layer, q->upgrade.n);
    if (!q->imatrix)
        return;
    gguf_put_str(w, "quantize.imatrix.file", imatrix_path(q->imatrix));
    if (imatrix_dataset(q->imatrix))
        gguf_put_str(w, "quantize.imatrix.dataset", imatrix_dataset(q->imatrix));
    gguf_put_u32(w, "quantize.imatrix.entries_count", (uint32_t)imatrix_count(q->imatrix));
    if (imatrix_chunks(q->imatrix) >= 0)
        gguf_put_u32(w, "quantize.imatrix.chunks_count", (uint32_t)imatrix_chunks(q->imatrix));
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)imatrix_hash(q->imatrix));
    gguf_put_str(w, "dwarfstar.quantize.imatrix_hash", hash);
}

int quantize_keys(struct quantize *q, struct err *e)
{
    if (q->im.files && q->kind == WEIGHTS_CHECKPOINT)
        TRY(import_keys(&q->im, e));
    else if (q->im.files)
        copy_keys(q);
    put_own(q);
    quantize_put_fed(q);
    for (int i = 0; i < q->n_tensor; i++) {
        const struct quantize_tensor *t = &q->tensor[i];
        TRY(gguf_add_tensor(&q->im.out, t->name, t->type, t->n_dim, t->dim, e));
    }
    return 0;
}
