/* meta_impl.h - how the readers fill a struct meta. */
#ifndef DS_META_IMPL_H
#define DS_META_IMPL_H

#include "meta.h"

/* `file` is for error texts. NULL when memory is exhausted. */
struct meta *meta_new(const char *file);
void meta_free(struct meta *m); /* NULL is fine */

/* n items of `size` bytes, not cleared, that live as long as m. NULL: exhausted, recorded in e. */
void *meta_alloc(struct meta *m, size_t n, size_t size, struct err *e);

/* kv.key and kv.v come from meta_alloc(). A second value for a key is ERR_FORMAT. */
int meta_add(struct meta *m, struct meta_kv kv, struct err *e);

/* A JSON object, flattened as meta.h says. */
int meta_from_json(struct meta **m, const char *file, const char *text, size_t len, struct err *e);

#endif
