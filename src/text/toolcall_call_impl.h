/* toolcall_call_impl.h - for the default dialect: one call being put together, and the tags. */
#ifndef DS_TOOLCALL_CALL_IMPL_H
#define DS_TOOLCALL_CALL_IMPL_H

#include "toolcall_impl.h"

/* What stands between the angle brackets, with or without a blank behind the DSML mark. */
enum tag {
    TAG_PARTIAL,      /* may become a tag */
    TAG_NONE,         /* cannot: its last byte does not belong to it */
    TAG_BLOCK,        /* <|DSML|tool_calls>, <|DSML| calls> */
    TAG_BLOCK_OTHER,  /* a misspelt one: <|DSML|function_calls> */
    TAG_INVOKE,       /* <|DSML|invoke name=" */
    TAG_PARAMETER,    /* <|DSML|parameter name=" */
    TAG_BLOCK_END,
    TAG_INVOKE_END,
    TAG_PARAMETER_END,
    TAG_OTHER_END     /* </|DSML|anything> */
};

/* Judge the n bytes from an opening bracket on. */
enum tag tag_scan(const char *s, size_t n);

/* What the attribute string="..." says about the value. */
enum value_kind {
    VALUE_STRING, /* text as it is; also where nothing is said */
    VALUE_JSON,
    VALUE_EITHER  /* nothing is said, and the schema says: something else than a string */
};

/* A call: as it streams out (`live`), or gathered. */
struct call {
    struct toolcall_parser *p;
    struct buf name;
    bool live;         /* pieces go out as they come */
    bool begun;        /* the event was sent */
    bool decided;      /* whether it is live: known at the first parameter */
    unsigned warnings; /* bit w: to be sent before the call ends */
    const json_t *tool;/* the declared function, or NULL */
    json_t *keys;      /* key -> index into value[], in the order of the first places */
    struct buf text;   /* the values, as JSON */
    struct value {
        size_t at, len;
    } *value;
    int n_value, cap_value;
    size_t n_key_bytes;
    struct buf raw;    /* the open value as it came, where it must be seen whole */
    enum value_kind kind;
    char part[4];      /* bytes of a character that is not complete */
    int n_part;
    struct buf key;    /* the open parameter's */
    bool failed;       /* out of memory */
};

void call_init(struct call *c, struct toolcall_parser *p);
void call_release(struct call *c);

/* Forget the call. */
void call_clear(struct call *c);

/* A new call of this name. live: pieces may go out as they come. */
void call_begin(struct call *c, const char *name, size_t len, bool live);

/* A parameter begins: its key, and the text between the key's quote and the bracket. */
void call_parameter(struct call *c, const char *key, size_t len, const char *attributes,
                    size_t n_attributes);
void call_value(struct call *c, const char *s, size_t n);
void call_value_end(struct call *c);

/* All required parameters are there. */
bool call_has_required(const struct call *c);

/* The arguments as one JSON text, appended to `out`. Not for live calls. */
void call_arguments(struct call *c, struct buf *out);

/* Send what is missing of a complete call. */
void call_end(struct call *c);

/* The output ended inside of it. Live: close its JSON, send the end, true. Else: false. */
bool call_cut_off(struct call *c, bool in_value);

/* Bytes that it holds. */
size_t call_held(const struct call *c);

/* Complete calls that wait for the end of the output to count. Zeroed = none. */
struct kept_calls {
    struct kept_call {
        char *name, *arguments;
        unsigned warnings;
    } *call;
    int n, cap;
    size_t bytes;
    bool failed; /* out of memory */
};

void kept_add(struct kept_calls *k, struct call *c);
void kept_give(struct kept_calls *k, struct toolcall_parser *p);
void kept_drop(struct kept_calls *k);
void kept_release(struct kept_calls *k);

#endif
