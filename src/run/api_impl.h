/* api_impl.h - what stands behind the opaque names of dwarfstar.h. */
#ifndef DS_API_IMPL_H
#define DS_API_IMPL_H

#include "dwarfstar.h"
#include "engine.h"
#include "session.h"

struct dstar_engine {
    struct engine e;
    struct dstar_info info;
    char *name, *device; /* texts of info */
};

struct dstar_session {
    struct session s;
};

/* The tail of every function that can fail: code as it is, and the error for the caller. */
int api_result(struct dstar_error *to, const struct err *e, int code);

#endif
