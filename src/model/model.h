/* model.h - a network that turns rows into logits. What run needs to know of it. */
#ifndef DS_MODEL_H
#define DS_MODEL_H

#include "expert_split.h"
#include "expert_store.h"
#include "report.h"
#include "weights.h"

struct model;

struct model_options {
    int simulate;  /* cache simulation: 1 as trained, 0 none, -1 as the file says (absent: 1) */
    bool with_mtp; /* load the draft block, if there is one */
    bool hold;     /* read everything but routed experts into memory that nothing can evict; experts
                      then have to come from a store */
    const struct report *told; /* while that is read; NULL: nobody */
    size_t room;   /* of a device that is apart, for all but routed experts; 0: what it has */
};

/* Names every tensor, checks its shape and type, converts what is small or misaligned. Keeps
 * pointers into `w`, which must stay open. */
int model_open(struct model **m, const struct weights *w, struct dev *d,
               const struct model_options *opt, struct err *e);
void model_close(struct model *m);

/* To a device that is apart come its matrices, for which model_open() took the memory, and routed
 * experts, as they are split; elsewhere nothing is left to do. Before the first step. */
int model_load(struct model *m, const struct expert_split *split, const struct report *told,
               struct err *e);

struct model_info {
    int n_layer, n_embd, n_vocab, n_expert, n_used;
    int64_t ctx_trained;  /* most positions the network was made for */
    int n_kv_layer;       /* backbone layers and, when loaded, MTP blocks */
    const int *ratio;     /* [n_kv_layer] as in kv_layer.ratio */
    bool has_mtp, simulate;
    int window;
    size_t converted_bytes; /* anonymous memory taken at open, mapped tensors not counted */
    size_t held_bytes;      /* what `hold` takes, or would take: all but routed experts */
};
const struct model_info *model_info(const struct model *m);

/* A matrix that rows are multiplied with, but for routed experts, and its GGUF name. */
struct model_matrix {
    const struct tensor *w;
    char name[96];
};

/* All of them, at most cap, in a fixed order; returns how many there are. */
int model_matrices(const struct model *m, struct model_matrix *out, int cap);

/* The routed experts of each of the n_kv_layer layers of the cache, and where in the files their
 * bytes are; valid as long as the model. */
void model_experts(const struct model *m, struct expert_layer *out);
const struct expert_map *model_expert_map(const struct model *m);

/* Those of a layer of the map. */
const struct expert_set *model_expert_set(const struct model *m, int layer);
int model_n_hash(const struct model *m); /* first layers, whose experts follow from the token */

/* From here on experts come from the store, which must live longer than the last step. */
void model_use_store(struct model *m, struct expert_store *s);

/* Shape of the cache for steps of at most max_rows rows and `slack` rows of cutting back. */
void model_kv_shape(const struct model *m, int max_rows, int slack, struct kv_shape *s);

/* 32 bytes that name the network: a hash over the directory of tensors, the hyperparameters and
 * sampled bytes of every tensor. Files of one network in other formats differ. */
void model_identity(const struct model *m, uint8_t id[32]);

struct model_out {
    struct tensor logits;     /* [rows that wanted logits, n_vocab], scratch: valid until the next
                                 dev_begin */
    struct tensor mtp_logits; /* the same from the draft block; data NULL unless asked for */
};

/* One step: between dev_begin() and dev_wait(). next: NULL, or the same rows with the token that
 * follows in place of each token, which runs the draft block too. Chunk size never changes the
 * result. */
void model_forward(const struct model *m, const struct rows *r, const struct rows *next,
                   struct model_out *out);

#endif
