/* engine.h - a model on a device, with all the memory it will need. */
#ifndef DS_ENGINE_H
#define DS_ENGINE_H

#include "backend.h"
#include "batch.h"
#include "budget.h"
#include "dwarfstar.h"
#include "kv_disk.h"
#include "lock.h"
#include "log.h"
#include "sampler.h"
#include "vocab_rules.h"

/* Marks per session, and tokens before each and before the end that can be gone back to without
 * computing anything. A prompt that is rendered anew often differs from the last one in its last
 * tokens, so both must reach over a few. */
#define ENGINE_MARKS 8
#define ENGINE_SLACK 8

struct engine {
    struct log log;
    char *path;
    struct weights *files;    /* all but the tokenizer NULL when only part is open */
    struct dev *dev;
    struct model *model;
    struct expert_store *store; /* NULL: all weights are mapped */
    struct expert_layer *layers; /* what the store reads */
    const char **paths;         /* of the model's files */
    char *popular;              /* file of popular experts, to be written; NULL: none */
    uint32_t *popular_count;    /* what it said, for a device that counts; NULL: nothing */
    struct tokenizer *text;   /* NULL: a checkpoint without one, good for token ids */
    struct lock *text_lock;   /* the tokenizer caches */
    struct vocab_rules rules;
    struct budget budget;
    size_t gpu_free;          /* of a device that is apart, before anything was taken */
    struct expert_split split; /* its experts */
    bool times_steps;         /* there, for measuring: */
    double busy_s;            /* from each step's first work to its last */
    void *scratch;
    struct kv_mem pool_mem;
    struct kv_bytes pool_bytes;
    struct kv_pool pool;
    struct batch batch;
    void *sampling_mem;
    struct sampler_work sampling;
    struct kv_disk_model identity;
    int n_session;
    double load_s, weights_s; /* of that: bringing weights to a device that is apart */
};

/* Fills e, which engine_close() then releases, also after a failure. */
int engine_open(struct engine *e, const struct dstar_options *o, struct err *err);
void engine_close(struct engine *e);

/* Memory for conversations: the host's is zeros, the data lies where the device computes. */
int engine_take(struct engine *e, struct kv_mem *mem, struct kv_bytes bytes, struct err *err);
void engine_give_back(struct engine *e, struct kv_mem *mem, struct kv_bytes bytes);

/* What stands behind the public handle, for folders that look inside. */
struct engine *engine_of(dstar_engine *handle);

/* One step for all parts of b. On success their tokens are computed, and whoever had a row with
 * logits at the end of its tokens has them. On failure every conversation is as before. */
int engine_step(struct engine *e, struct batch *b, struct err *err);

/* The ops of a step, or what the device recorded of one like it; between dev_begin() and
 * dev_wait(). */
void engine_forward(struct engine *e, const struct rows *r, const struct rows *next,
                    struct model_out *out);

#endif
