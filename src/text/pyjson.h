/* pyjson.h - JSON read and printed exactly as Python's json module does it.
 *
 * The vendor's prompt encoder puts json.dumps(value, ensure_ascii=False) into the prompt, and the
 * model was trained on those bytes, so key order, spacing and number spelling must be the same.
 * jansson parses; what it cannot hold is carried through it in disguise: integers beyond 64 bits,
 * reals that overflow, NaN and Infinity become strings that start with a zero byte, and a true
 * string that starts with a zero byte gets a second one. Use the accessors here for anything
 * that may be a string or a number. */
#ifndef DS_PYJSON_H
#define DS_PYJSON_H

#include <jansson.h>

#include "buf.h"
#include "error.h"

/* Kind of a value, looking through the disguise. */
enum pyjson_kind {
    PYJSON_NULL,
    PYJSON_BOOL,
    PYJSON_NUMBER,
    PYJSON_STRING,
    PYJSON_ARRAY,
    PYJSON_OBJECT
};

/* Parse one JSON text; the caller releases it with json_decref(). NULL and *e on failure:
 * ERR_UNSUPPORTED for a lone surrogate (\ud800 without its partner), which has no UTF-8;
 * ERR_LIMIT for more than 4,300 digits in an integer, Python's own limit; ERR_NO_MEMORY;
 * ERR_FORMAT for everything that is not JSON, with the line.
 * Accepts what Python accepts (NaN, Infinity, -Infinity included) with two exceptions that
 * jansson makes: a zero byte inside a key, and nesting deeper than 2,048. Of a duplicate key the
 * last value stays, at the place of the first. */
json_t *pyjson_load(const char *text, size_t len, struct err *e);

/* True for JSON as RFC 8259 has it, in valid UTF-8: no NaN, no lone surrogates. */
bool pyjson_is_strict(const char *text, size_t len);

enum pyjson_kind pyjson_kind_of(const json_t *v);

/* "null", "a boolean", "a number", "a string", "an array", "an object"; "nothing" for NULL. */
const char *pyjson_kind_name(const json_t *v);

/* The value as JSON on one line for an error text, cut after some 50 bytes. */
enum { PYJSON_BRIEF_BYTES = 64 };
void pyjson_brief(char out[PYJSON_BRIEF_BYTES], const json_t *v);

/* Bytes of a string value (they may contain zeros) and their count; NULL if v is not a string. */
const char *pyjson_string(const json_t *v, size_t *len);

/* Member of an object; NULL if v is no object, has no such key, or the value is null. */
json_t *pyjson_get(const json_t *v, const char *key);

/* Truth as Python sees it: not null, false, 0, "", [] or {}. NULL is false. */
bool pyjson_truth(const json_t *v);

/* Append json.dumps(v, ensure_ascii=False). */
void pyjson_dump(struct buf *out, const json_t *v);

/* Append the inside of a JSON string, no quotes around: n bytes of UTF-8, escaped as dumps does. */
void pyjson_escape(struct buf *out, const char *bytes, size_t n);

/* Append float.__repr__(x) as dumps prints it: shortest digits that read back as x. */
void pyjson_real(struct buf *out, double x);

#endif
