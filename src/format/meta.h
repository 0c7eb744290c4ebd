/* meta.h - a model file's metadata as typed values by name.
 *
 * GGUF keys keep their names ("deepseek4.block_count"). A checkpoint's config.json is flattened:
 * objects give dotted paths ("rope_scaling.factor"), arrays of one type give arrays. */
#ifndef DS_META_H
#define DS_META_H

#include "error.h"

enum meta_type { META_NONE, META_INT, META_FLOAT, META_BOOL, META_STR };

/* One value or an array of values of one type. Strings are counted and zero-terminated. */
struct meta_kv {
    const char *key;
    enum meta_type type;
    bool is_array;
    int64_t n; /* 1 for a single value */
    union {
        const int64_t *i; /* META_INT and META_BOOL (0 or 1) */
        const double *f;
        const struct meta_str {
            const char *data;
            size_t len;
        } *s;
    } v;
};

struct meta; /* read-only once opened */

const char *meta_file(const struct meta *m); /* for error texts */
int meta_count(const struct meta *m);
const struct meta_kv *meta_at(const struct meta *m, int i);

/* NULL when absent. */
const struct meta_kv *meta_find(const struct meta *m, const char *key);

/* Typed reads; a wrong type is an error that names the file, the key and both types. Absent:
 * ERR_FORMAT "FILE: key KEY is missing", or with a default (`_or`) the default. An int key also
 * reads a float with an integral value and a bool as 0 or 1, and a float key an int. A key whose
 * value is null (META_NONE) counts as absent. */
int meta_int(const struct meta *m, const char *key, int64_t *out, struct err *e);
int meta_float(const struct meta *m, const char *key, double *out, struct err *e);
int meta_int_or(const struct meta *m, const char *key, int64_t absent, int64_t *out, struct err *e);
int meta_float_or(const struct meta *m, const char *key, double absent, double *out, struct err *e);

/* NULL when absent or not a single string. */
const char *meta_str(const struct meta *m, const char *key);

#endif
