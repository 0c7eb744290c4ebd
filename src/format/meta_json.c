/* meta_json.c - a JSON object as metadata: dotted paths for objects, arrays of one type as arrays.
 *
 * Elements of other arrays (of objects, or mixed) get paths with their number, "a.0.b", so that
 * nothing is lost. jansson bounds the nesting and refuses duplicates and NUL bytes. */
#include "meta_impl.h"

#include <jansson.h>
#include <stdio.h>

enum { PATH_MAX_BYTES = 1024 };

static int add_value(struct meta *m, const char *path, json_t *v, struct err *e);

static enum meta_type type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_INTEGER: return META_INT;
    case JSON_REAL: return META_FLOAT;
    case JSON_TRUE:
    case JSON_FALSE: return META_BOOL;
    case JSON_STRING: return META_STR;
    default: return META_NONE;
    }
}

/* The one type of all elements, integers counting as numbers beside fractions; META_NONE: none. */
static enum meta_type common_type(const json_t *array)
{
    enum meta_type common = META_NONE;
    for (size_t i = 0; i < json_array_size(array); i++) {
        enum meta_type t = type_of(json_array_get(array, i));
        bool numbers = (t == META_INT || t == META_FLOAT) &&
                       (common == META_INT || common == META_FLOAT);
        if (t == META_NONE || (i > 0 && t != common && !numbers))
            return META_NONE;
        common = i > 0 && t != common ? META_FLOAT : t;
    }
    return common;
}

static int copy_string(struct meta *m, struct meta_str *out, const json_t *v, struct err *e)
{
    size_t len = json_string_length(v);
    char *data = meta_alloc(m, len + 1, 1, e);
    if (!data)
        return ERR_NO_MEMORY;
    memcpy(data, json_string_value(v), len + 1);
    *out = (struct meta_str){ data, len };
    return 0;
}

/* One value, or the elements of an array of type t. */
static int add_values(struct meta *m, const char *path, enum meta_type t, json_t *v, struct err *e)
{
    bool is_array = json_is_array(v);
    size_t n = is_array ? json_array_size(v) : 1, key_bytes = strlen(path) + 1;
    char *key = meta_alloc(m, key_bytes, 1, e);
    void *values = meta_alloc(m, n, t == META_STR ? sizeof(struct meta_str) : 8, e);
    if (!key || !values)
        return ERR_NO_MEMORY;
    memcpy(key, path, key_bytes);
    for (size_t i = 0; i < n; i++) {
        json_t *x = is_array ? json_array_get(v, i) : v;
        if (t == META_INT)
            ((int64_t *)values)[i] = json_integer_value(x);
        else if (t == META_BOOL)
            ((int64_t *)values)[i] = json_is_true(x);
        else if (t == META_FLOAT)
            ((double *)values)[i] = json_number_value(x);
        else if (t == META_STR)
            TRY(copy_string(m, &((struct meta_str *)values)[i], x, e));
    }
    struct meta_kv kv = { .key = key, .type = t, .is_array = is_array, .n = (int64_t)n };
    if (t == META_STR)
        kv.v.s = values;
    else if (t == META_FLOAT)
        kv.v.f = values;
    else
        kv.v.i = values;
    return meta_add(m, kv, e);
}

static int add_member(struct meta *m, const char *path, const char *name, json_t *v, struct err *e)
{
    char longer[PATH_MAX_BYTES];
    int n = snprintf(longer, sizeof longer, "%s%s%s", path, *path ? "." : "", name);
    if (n < 0 || n >= (int)sizeof longer)
        return err_set(e, ERR_LIMIT, "%s: a path of names longer than %d bytes", meta_file(m),
                       PATH_MAX_BYTES - 1);
    return add_value(m, longer, v, e);
}

static int add_value(struct meta *m, const char *path, json_t *v, struct err *e)
{
    if (json_is_object(v)) {
        const char *name;
        json_t *member;
        json_object_foreach (v, name, member)
            TRY(add_member(m, path, name, member, e));
        return 0;
    }
    enum meta_type t = json_is_array(v) ? common_type(v) : type_of(v);
    if (!json_is_array(v) || t != META_NONE || json_array_size(v) == 0)
        return add_values(m, path, t, v, e);
    for (size_t i = 0; i < json_array_size(v); i++) {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        TRY(add_member(m, path, number, json_array_get(v, i), e));
    }
    return 0;
}

int meta_from_json(struct meta **m, const char *file, const char *text, size_t len, struct err *e)
{
    json_error_t je;
    *m = NULL;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return err_set(e, ERR_FORMAT, "%s: line %d: %s", file, je.line, je.text);
    int code = 0;
    if (!json_is_object(root))
        code = err_set(e, ERR_FORMAT, "%s: is not a JSON object", file);
    else if (!(*m = meta_new(file)))
        code = err_set(e, ERR_NO_MEMORY, "%s: out of memory", file);
    else
        code = add_value(*m, "", root, e);
    json_decref(root);
    if (code < 0) {
        meta_free(*m);
        *m = NULL;
    }
    return code;
}
