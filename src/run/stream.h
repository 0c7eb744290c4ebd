/* stream.h - an engine whose experts are read when needed. */
#ifndef DS_STREAM_H
#define DS_STREAM_H

#include "engine.h"
#include "expert_profile.h"

#include <stdatomic.h>

/* What a store of the engine's model has to know. ERR_ARGUMENT: options name no way to read. */
int stream_list(struct engine *e, const struct dstar_options *o, struct expert_shelf_ask *ask,
                struct err *err);

/* As planned: all weights but experts into memory, a store for those, and in it at first what was
 * popular. The model is opened anew. */
int stream_open(struct engine *e, const struct dstar_options *o, struct err *err);

/* An expert that was used: by the engine, which had several conversations perhaps. Thousandths of a
 * use, those of long ago less. */
struct stream_used {
    uint16_t layer, expert;
    uint32_t count;
};

/* Append those that count, ascending; none without a store. A failure stays in the buffer. */
void stream_list_used(const struct engine *e, struct buf *out);

/* Read n of them ahead, checked ones that lie anywhere, as far as they are worth more than what is
 * in memory; nothing without a store. Ends early when *cancelled. A failure is said, no more. */
void stream_restore(struct engine *e, const void *used, int n, atomic_int *cancelled);

/* 1: the options' file of popular experts was read into p, whose count the caller then frees; 0:
 * there is none that could be used, which was said. */
int stream_popular(struct engine *e, const struct dstar_options *o, struct expert_profile *p,
                   struct err *err);

/* The options' file, if any, is to be written when the engine is closed. */
int stream_keep(struct engine *e, const struct dstar_options *o, struct err *err);

/* Keeps what was popular, by the store or as the device counted; says why when it cannot. */
void stream_close(struct engine *e);

#endif
