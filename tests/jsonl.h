/* jsonl.h - for tests: a file of JSON values, one a line. */
#ifndef DS_TESTS_JSONL_H
#define DS_TESTS_JSONL_H

#include <stdio.h>
#include <stdlib.h>

#include "buf.h"
#include "file.h"
#include "pyjson.h"

/* Calls each(value, user) for every line; returns how many there were. Fails the test when the
 * file is missing or a line is not JSON. */
static inline int jsonl_each(const char *path, void (*each)(const json_t *, void *), void *user)
{
    struct buf text;
    struct err e = { 0 };
    int n = 0;
    buf_init(&text, (size_t)16 << 20);
    if (file_read_all(&text, path, &e) < 0)
        fail_msg("%s", e.text);
    for (char *line = text.data, *end; line && *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        json_t *v = pyjson_load(line, (size_t)(end - line), &e);
        if (!v)
            fail_msg("%s: %s", path, e.text);
        each(v, user);
        json_decref(v);
        n++;
    }
    buf_release(&text);
    return n;
}

/* The value of a key printed as JSON text, to be released by the caller. */
static inline struct buf jsonl_text(const json_t *v, const char *key)
{
    struct buf out;
    buf_init(&out, (size_t)16 << 20);
    assert_non_null(json_object_get(v, key));
    pyjson_dump(&out, json_object_get(v, key));
    assert_false(out.failed);
    return out;
}

/* A string member; "" when there is none. */
static inline const char *string_of(const json_t *v, const char *key)
{
    size_t len;
    const char *s = pyjson_string(json_object_get(v, key), &len);
    return s ? s : "";
}

/* A buffer that never got a byte counts as "". */
static inline void expect_buf(const char *name, const char *what, const struct buf *got,
                              const char *want)
{
    const char *text = got->data ? got->data : "";
    if (strcmp(text, want) != 0)
        fail_msg("%s: %s\n  got  %s\n  want %s", name, what, text, want);
}

#endif
