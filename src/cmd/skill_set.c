/* skill_set.c - read and check sets of dialogues, so that nobody behind it needs to. */
#include "skill_set.h"

#include <stdio.h>

#include "fault.h"
#include "file.h"

#define MAX_SET_BYTES ((size_t)1 << 30)

struct place {
    const char *path;
    int line;
    struct dstar_error *error;
};

static const char *kind_of(const json_t *v)
{
    static const char *const kind[] = { "an object", "an array", "a string", "a whole number",
                                        "a number", "true", "false", "null" };
    return v ? kind[json_typeof(v)] : "nothing";
}

static int wrong(const struct place *p, const char *field, const json_t *found,
                 const char *expected)
{
    return fault_set(p->error, DSTAR_FORMAT, "%s: line %d: %s: found %s, expected %s", p->path,
                     p->line, field, kind_of(found), expected);
}

static int check_texts(const struct place *p, const json_t *object, const char *const *key, int n)
{
    for (int i = 0; i < n; i++) {
        const json_t *v = json_object_get(object, key[i]);
        if (!json_is_string(v))
            return wrong(p, key[i], v, "a string");
    }
    return 0;
}

static int check_expect(const struct place *p, const json_t *entry, const json_t *messages)
{
    static const char *const text[] = { "answer", "completion" };
    if (!json_is_object(entry))
        return wrong(p, "expect", entry, "objects");
    const json_t *number = json_object_get(entry, "message");
    if (!json_is_integer(number))
        return wrong(p, "message", number, "a whole number");
    json_int_t at = json_integer_value(number);
    const json_t *m = at > 0 ? json_array_get(messages, (size_t)at) : NULL;
    const char *role = json_string_value(json_object_get(m, "role"));
    if (!role || strcmp(role, "assistant") != 0)
        return fault_set(p->error, DSTAR_FORMAT,
                         "%s: line %d: message: found %lld, expected the number of a message of "
                         "the assistant behind another", p->path, p->line, (long long)at);
    return check_texts(p, entry, text, COUNT_OF(text));
}

static int check_dialogue(const struct place *p, const json_t *d)
{
    static const char *const text[] = { "id" };
    if (!json_is_object(d))
        return wrong(p, "dialogue", d, "an object");
    const json_t *thinking = json_object_get(d, "thinking"), *tools = json_object_get(d, "tools");
    const json_t *messages = json_object_get(d, "messages"), *expect = json_object_get(d, "expect");
    TRY(check_texts(p, d, text, COUNT_OF(text)));
    if (!json_is_boolean(thinking))
        return wrong(p, "thinking", thinking, "true or false");
    if (!json_is_array(messages))
        return wrong(p, "messages", messages, "an array");
    if (tools && !json_is_array(tools))
        return wrong(p, "tools", tools, "an array");
    if (json_array_size(expect) == 0)
        return wrong(p, "expect", expect, "an array with entries");
    for (size_t i = 0; i < json_array_size(expect); i++)
        TRY(check_expect(p, json_array_get(expect, i), messages));
    return 0;
}

static int add_line(json_t *set, const char *text, size_t len, const struct place *p)
{
    json_error_t why;
    json_t *d = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!d)
        return fault_set(p->error, DSTAR_FORMAT, "%s: line %d: %s", p->path, p->line, why.text);
    int code = check_dialogue(p, d);
    if (code >= 0 && (json_object_set_new(d, "line", json_integer(p->line)) < 0 ||
                      json_array_append(set, d) < 0))
        code = fault_set(p->error, DSTAR_NO_MEMORY, "%s: line %d: no memory", p->path, p->line);
    json_decref(d);
    return code;
}

static int add_lines(json_t *set, const struct buf *text, int limit, struct place *p)
{
    const char *at = text->data, *end = at + text->len;
    while (at < end && (limit == 0 || json_array_size(set) < (size_t)limit)) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);
        p->line++;
        TRY(add_line(set, at, len, p));
        at += len + 1;
    }
    return 0;
}

int skill_set_read(json_t **set, const char *path, int limit, struct dstar_error *error)
{
    struct place p = { path, 0, error };
    struct err e = { 0 };
    struct buf text;
    buf_init(&text, MAX_SET_BYTES);
    *set = json_array();
    int code = file_read_all(&text, path, &e) < 0 ? fault_of(error, &e) : 0;
    if (code >= 0 && text.len == 0)
        code = fault_set(error, DSTAR_FORMAT, "%s: found nothing, expected dialogues", path);
    if (code >= 0)
        code = add_lines(*set, &text, limit, &p);
    buf_release(&text);
    if (code < 0) {
        json_decref(*set);
        *set = NULL;
    }
    return code;
}

char *skill_set_name(char *out, size_t n, const char *path)
{
    const char *slash = strrchr(path, '/'), *from = slash ? slash + 1 : path;
    const char *dot = strrchr(from, '.');
    size_t len = dot && dot > from ? (size_t)(dot - from) : strlen(from);
    snprintf(out, n, "%.*s", (int)MIN(len, n - 1), from);
    return out;
}

int skill_sets_read(struct skill_sets *s, const struct words *more, int limit,
                    struct dstar_error *error)
{
    for (int i = 0; i < more->n; i++) {
        if (s->path.n >= OPT_MOST)
            return fault_set(error, DSTAR_ARGUMENT, "%s: found a set too many, expected at most %d",
                             more->word[i], OPT_MOST);
        s->path.text[s->path.n++] = more->word[i];
    }
    for (int i = 0; i < s->path.n; i++) {
        TRY(skill_set_read(&s->set[i], s->path.text[i], limit, error));
        s->n_dialogue += (int)json_array_size(s->set[i]);
    }
    return 0;
}

void skill_sets_release(struct skill_sets *s)
{
    for (int i = 0; i < s->path.n; i++)
        json_decref(s->set[i]);
}
