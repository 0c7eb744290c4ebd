/* toolcall_call.c - from keys and values to the JSON text of a call's arguments.
 *
 * Whatever the model wrote, the arguments are JSON: strings are escaped and made valid UTF-8,
 * other values are checked as a whole before they go out, and a value that is no JSON becomes a
 * string. Strings of a live call stream; a call whose arguments may have to be unwrapped
 * (everything in one parameter `arguments`, which models copy from broken histories) is gathered
 * first. */
#include "toolcall_call_impl.h"

#include <stdlib.h>

#include "utf8.h"

static const char QUOTE = '"';

/* What a parameter costs besides its text: our entry, jansson's entry and integer. */
enum { PARAMETER_BYTES = 160 };

void call_init(struct call *c, struct toolcall_parser *p)
{
    *c = (struct call){ .p = p };
    struct buf *bufs[] = { &c->name, &c->text, &c->raw, &c->key };
    for (size_t i = 0; i < COUNT_OF(bufs); i++)
        buf_init(bufs[i], SIZE_MAX / 2);
    c->keys = json_object();
    c->failed = !c->keys;
}

void call_release(struct call *c)
{
    buf_release(&c->name);
    buf_release(&c->text);
    buf_release(&c->raw);
    buf_release(&c->key);
    json_decref(c->keys);
    free(c->value);
    *c = (struct call){ 0 };
}

size_t call_held(const struct call *c)
{
    return c->text.len + c->raw.len + c->n_key_bytes + (size_t)c->n_value * PARAMETER_BYTES;
}

static void warn(struct call *c, enum toolcall_warning w)
{
    c->warnings |= 1u << w;
}

/* For the call that is being sent. */
static void send_warnings(struct toolcall_parser *p, unsigned warnings)
{
    for (int w = 0; warnings >> w; w++)
        if (warnings >> w & 1)
            tc_warn(p, (enum toolcall_warning)w, p->n_call - 1);
}

/* ---- valid UTF-8 ---------------------------------------------------------------------------- */

typedef void sink_fn(struct call *c, const char *s, size_t n);

/* Give the characters that are complete with this byte to `sink`; bytes that are part of none
 * become U+FFFD. */
static void utf8_byte(struct call *c, char byte, sink_fn *sink)
{
    c->part[c->n_part++] = byte;
    for (int used; c->n_part > 0; c->n_part -= used) {
        used = utf8_step(c->part, (size_t)c->n_part);
        if (used == 0)
            return;
        if (used > 0) {
            sink(c, c->part, (size_t)used);
        } else {
            used = -used;
            warn(c, TOOLCALL_WARN_BAD_UTF8);
            sink(c, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT));
        }
        memmove(c->part, c->part + used, (size_t)(c->n_part - used));
    }
}

static void utf8_end(struct call *c, sink_fn *sink)
{
    if (c->n_part > 0) {
        warn(c, TOOLCALL_WARN_BAD_UTF8);
        sink(c, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT));
    }
    c->n_part = 0;
}

static void utf8_all(struct call *c, const char *s, size_t n, sink_fn *sink)
{
    for (size_t i = 0; i < n; i++)
        utf8_byte(c, s[i], sink);
    utf8_end(c, sink);
}

/* Names and keys are C strings here and in jansson: no zero bytes. */
static void add_to(struct call *c, struct buf *out, const char *s, size_t n)
{
    if (n == 1 && *s == 0) {
        warn(c, TOOLCALL_WARN_BAD_UTF8);
        buf_puts(out, UTF8_REPLACEMENT);
    } else {
        buf_add(out, s, n);
    }
}

static void add_to_name(struct call *c, const char *s, size_t n)
{
    add_to(c, &c->name, s, n);
}

static void add_to_key(struct call *c, const char *s, size_t n)
{
    add_to(c, &c->key, s, n);
}

/* ---- schema --------------------------------------------------------------------------------- */

static const json_t *find_tool(const json_t *tools, const char *name, size_t len)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        size_t n;
        const char *text = pyjson_string(pyjson_get(tool, "name"), &n);
        if (n == len && memcmp(text, name, len) == 0)
            return tool;
    }
    return NULL;
}

static const json_t *properties_of(const struct call *c)
{
    return pyjson_get(pyjson_get(c->tool, "parameters"), "properties");
}

/* The schema gives the parameter a type, or types, and string is not among them. */
static bool declared_other_than_string(const struct call *c, const char *key)
{
    const json_t *type = pyjson_get(pyjson_get(properties_of(c), key), "type");
    if (json_is_string(type))
        return strcmp(json_string_value(type), "string") != 0;
    bool other = json_array_size(type) > 0;
    for (size_t i = 0; i < json_array_size(type); i++) {
        const char *one = json_string_value(json_array_get(type, i));
        other = other && one && strcmp(one, "string") != 0;
    }
    return other;
}

bool call_has_required(const struct call *c)
{
    const json_t *required = pyjson_get(pyjson_get(c->tool, "parameters"), "required");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *key = json_string_value(json_array_get(required, i));
        if (key && !json_object_get(c->keys, key))
            return false;
    }
    return true;
}

/* `arguments` or `input`, where the schema has parameters and this is none of them. */
static bool is_wrapper(const struct call *c, const char *key)
{
    const json_t *properties = properties_of(c);
    return (strcmp(key, "arguments") == 0 || strcmp(key, "input") == 0) &&
           json_object_size(properties) > 0 && !json_object_get(properties, key);
}

/* ---- one call ------------------------------------------------------------------------------- */

void call_clear(struct call *c)
{
    buf_clear(&c->name);
    buf_clear(&c->text);
    buf_clear(&c->raw);
    buf_clear(&c->key);
    json_object_clear(c->keys);
    c->n_value = c->n_part = 0;
    c->n_key_bytes = 0;
    c->warnings = 0;
    c->begun = c->decided = c->live = false;
    c->tool = NULL;
}

void call_begin(struct call *c, const char *name, size_t len, bool live)
{
    call_clear(c);
    c->live = live;
    utf8_all(c, name, len, add_to_name);
    buf_puts(&c->name, ""); /* zero-terminated even when empty */
    c->failed = c->failed || c->name.failed;
    c->tool = find_tool(c->p->tools, name, len);
    if (!c->tool)
        warn(c, TOOLCALL_WARN_UNKNOWN_TOOL);
}

/* A piece of the arguments: out, or to the gathered values. */
static void put(struct call *c, const char *s, size_t n)
{
    if (c->live)
        tc_text(c->p, TOOLCALL_ARGUMENTS, s, n);
    else
        buf_add(&c->text, s, n);
}

/* A character of a string value. */
static void put_escaped(struct call *c, const char *s, size_t n)
{
    struct buf escaped;
    buf_init(&escaped, 16);
    pyjson_escape(&escaped, s, n);
    c->failed = c->failed || escaped.failed;
    put(c, escaped.data, escaped.len);
    buf_release(&escaped);
}

static enum value_kind kind_of(struct call *c, const char *attributes, size_t n)
{
    static const char yes[] = "string=\"true\"", no[] = "string=\"false\"";
    struct buf text;
    buf_init(&text, SIZE_MAX / 2);
    buf_add(&text, attributes, n);
    buf_add(&text, "", 1);
    bool is_string = text.data && strstr(text.data, yes);
    bool is_json = text.data && strstr(text.data, no);
    c->failed = c->failed || text.failed;
    buf_release(&text);
    if (is_string || is_json)
        return is_string ? VALUE_STRING : VALUE_JSON;
    warn(c, TOOLCALL_WARN_NO_TYPE);
    return declared_other_than_string(c, c->key.data) ? VALUE_EITHER : VALUE_STRING;
}

/* The key goes out, or its value's place is noted: only now is it certain that a value follows. */
static void open_value(struct call *c)
{
    if (c->failed)
        return;
    const char *key = c->key.data;
    bool first = json_object_size(c->keys) == 0, again = json_object_get(c->keys, key) != NULL;
    if (again)
        warn(c, TOOLCALL_WARN_DUPLICATE_KEY);
    c->n_key_bytes += again ? 0 : c->key.len;
    if (json_object_set_new(c->keys, key, json_integer(c->n_value)) < 0)
        c->failed = true;
    if (c->live) {
        if (!c->begun)
            tc_call_begin(c->p, c->name.data);
        c->begun = true;
        tc_puts(c->p, TOOLCALL_ARGUMENTS, first ? "{\"" : ", \"");
        struct buf escaped;
        buf_init(&escaped, SIZE_MAX / 2);
        pyjson_escape(&escaped, key, c->key.len);
        tc_text(c->p, TOOLCALL_ARGUMENTS, escaped.data, escaped.len);
        buf_release(&escaped);
        tc_puts(c->p, TOOLCALL_ARGUMENTS, "\": ");
        c->n_value++;
        return;
    }
    if (c->n_value == c->cap_value) {
        int cap = c->cap_value ? 2 * c->cap_value : 8;
        struct value *grown = realloc(c->value, (size_t)cap * sizeof *grown);
        if (!grown) {
            c->failed = true;
            return;
        }
        c->value = grown;
        c->cap_value = cap;
    }
    c->value[c->n_value++] = (struct value){ c->text.len, 0 };
}

void call_parameter(struct call *c, const char *key, size_t len, const char *attributes,
                    size_t n_attributes)
{
    buf_clear(&c->key);
    buf_clear(&c->raw);
    utf8_all(c, key, len, add_to_key);
    buf_puts(&c->key, "");
    if (c->key.failed || !c->key.data) {
        c->failed = true;
        return;
    }
    if (!c->decided)
        c->live = c->live && !is_wrapper(c, c->key.data);
    c->decided = true;
    c->kind = kind_of(c, attributes, n_attributes);
    if (c->kind == VALUE_STRING) {
        open_value(c);
        put(c, &QUOTE, 1);
    }
}

void call_value(struct call *c, const char *s, size_t n)
{
    if (c->kind != VALUE_STRING)
        buf_add(&c->raw, s, n);
    else
        for (size_t i = 0; i < n; i++)
            utf8_byte(c, s[i], put_escaped);
}

void call_value_end(struct call *c)
{
    if (c->failed)
        return;
    const char *raw = c->raw.data ? c->raw.data : "";
    if (c->kind == VALUE_STRING) {
        utf8_end(c, put_escaped);
        put(c, &QUOTE, 1);
    } else if (pyjson_is_strict(raw, c->raw.len)) {
        open_value(c);
        put(c, raw, c->raw.len);
    } else {
        if (c->kind == VALUE_JSON)
            warn(c, TOOLCALL_WARN_BAD_JSON);
        open_value(c);
        put(c, &QUOTE, 1);
        utf8_all(c, raw, c->raw.len, put_escaped);
        put(c, &QUOTE, 1);
    }
    if (!c->live && c->n_value > 0)
        c->value[c->n_value - 1].len = c->text.len - c->value[c->n_value - 1].at;
    buf_clear(&c->raw);
}

/* ---- a whole call --------------------------------------------------------------------------- */

/* If the only value is an object, or a string that holds one, in a parameter that is not in the
 * schema: these are the arguments. */
static bool unwrap(struct call *c, struct buf *out)
{
    const char *key = json_object_iter_key(json_object_iter(c->keys));
    if (json_object_size(c->keys) != 1 || !is_wrapper(c, key))
        return false;
    json_int_t i = json_integer_value(json_object_get(c->keys, key));
    const char *text = c->text.data + c->value[i].at;
    size_t len = c->value[i].len;
    json_t *v = pyjson_load(text, len, NULL);
    const char *inner = pyjson_string(v, &len);
    text = inner ? inner : text;
    json_t *object = inner ? pyjson_load(inner, len, NULL) : json_incref(v);
    bool is_object = json_is_object(object) && pyjson_is_strict(text, len);
    if (is_object) {
        warn(c, TOOLCALL_WARN_UNWRAPPED);
        buf_add(out, text, len);
    }
    json_decref(object);
    json_decref(v);
    return is_object;
}

void call_arguments(struct call *c, struct buf *out)
{
    const char *key, *before = "{\"";
    json_t *index;
    if (c->failed || unwrap(c, out))
        return;
    json_object_foreach(c->keys, key, index) {
        const struct value *v = &c->value[json_integer_value(index)];
        buf_puts(out, before);
        pyjson_escape(out, key, strlen(key));
        buf_puts(out, "\": ");
        buf_add(out, c->text.data + v->at, v->len);
        before = ", \"";
    }
    buf_puts(out, json_object_size(c->keys) ? "}" : "{}");
}

void call_end(struct call *c)
{
    if (c->failed)
        return;
    if (c->begun) {
        tc_puts(c->p, TOOLCALL_ARGUMENTS, "}");
    } else {
        struct buf out;
        buf_init(&out, SIZE_MAX / 2);
        call_arguments(c, &out);
        c->failed = c->failed || out.failed;
        tc_call_begin(c->p, c->name.data);
        tc_text(c->p, TOOLCALL_ARGUMENTS, out.data, out.len);
        buf_release(&out);
    }
    tc_flush(c->p);
    send_warnings(c->p, c->warnings);
    tc_call_end(c->p, true);
}

bool call_cut_off(struct call *c, bool in_value)
{
    if (!c->begun)
        return false;
    if (in_value && c->kind == VALUE_STRING) {
        utf8_end(c, put_escaped);
        put(c, &QUOTE, 1);
    }
    tc_puts(c->p, TOOLCALL_ARGUMENTS, "}");
    tc_flush(c->p);
    send_warnings(c->p, c->warnings);
    tc_call_end(c->p, false);
    return true;
}

/* ---- calls that wait ------------------------------------------------------------------------ */

void kept_add(struct kept_calls *k, struct call *c)
{
    struct buf arguments;
    buf_init(&arguments, SIZE_MAX / 2);
    if (k->n == k->cap) {
        int cap = k->cap ? 2 * k->cap : 4;
        struct kept_call *grown = realloc(k->call, (size_t)cap * sizeof *grown);
        if (!grown) {
            k->failed = true;
            return;
        }
        k->call = grown;
        k->cap = cap;
    }
    call_arguments(c, &arguments);
    k->bytes += arguments.len + c->name.len + sizeof *k->call;
    struct kept_call *one = &k->call[k->n++];
    one->warnings = c->warnings;
    one->arguments = buf_take(&arguments);
    one->name = buf_take(&c->name);
    k->failed = k->failed || !one->name || !one->arguments;
}

void kept_give(struct kept_calls *k, struct toolcall_parser *p)
{
    tc_warn(p, TOOLCALL_WARN_IN_REASONING, -1);
    for (int i = 0; i < k->n && !k->failed; i++) {
        tc_call_begin(p, k->call[i].name);
        tc_puts(p, TOOLCALL_ARGUMENTS, k->call[i].arguments);
        tc_flush(p);
        send_warnings(p, k->call[i].warnings);
        tc_call_end(p, true);
    }
    kept_drop(k);
}

void kept_drop(struct kept_calls *k)
{
    for (int i = 0; i < k->n; i++) {
        free(k->call[i].name);
        free(k->call[i].arguments);
    }
    k->n = 0;
    k->bytes = 0;
}

void kept_release(struct kept_calls *k)
{
    kept_drop(k);
    free(k->call);
    *k = (struct kept_calls){ 0 };
}
