/* stream.h - an engine whose experts are read when needed. */
#ifndef DS_STREAM_H
#define DS_STREAM_H

#include "engine.h"

/* What a store of the engine's model has to know. ERR_ARGUMENT: options name no way to read. */
int stream_list(struct engine *e, const struct dstar_options *o, struct expert_shelf_ask *ask,
                struct err *err);

/* As planned: all weights but experts into memory, a store for those, and in it at first what was
 * popular. The model is opened anew. */
int stream_open(struct engine *e, const struct dstar_options *o, struct err *err);

/* Keeps what was popular; says why when it cannot. Also without a store. */
void stream_close(struct engine *e);

#endif
