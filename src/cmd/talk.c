/* talk.c - a conversation is the JSON array that a request to the library carries, nothing else;
 * so what is shown, sent and saved cannot differ. */
#include "talk.h"

#include <stdlib.h>

#include "file.h"

#define MAX_TOOLS_BYTES (16u << 20)
#define DUMP JSON_COMPACT

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NO_MEMORY, "conversation: out of memory");
}

int talk_init(struct talk *t, struct err *e)
{
    *t = (struct talk){ .messages = json_array() };
    return t->messages ? 0 : no_memory(e);
}

void talk_release(struct talk *t)
{
    json_decref(t->messages);
    json_decref(t->tools);
    *t = (struct talk){ 0 };
}

int talk_read_tools(struct talk *t, const char *path, struct err *e)
{
    struct buf text;
    buf_init(&text, MAX_TOOLS_BYTES);
    int code = file_read_all(&text, path, e);
    json_error_t why;
    json_t *root = code < 0 ? NULL : json_loadb(text.data ? text.data : "", text.len, 0, &why);
    buf_release(&text);
    if (code < 0)
        return code;
    if (!root)
        return err_set(e, ERR_FORMAT, "%s: line %d: %s", path, why.line, why.text);
    json_t *tools = root;
    if (json_is_object(root) && json_is_array(json_object_get(root, "tools")))
        tools = json_incref(json_object_get(root, "tools"));
    else if (json_is_object(root))
        tools = json_pack("[O]", root);
    else
        json_incref(root);
    json_decref(root);
    if (!json_is_array(tools)) {
        json_decref(tools);
        return err_set(e, ERR_FORMAT, "%s: found no array or object, expected an array of tools",
                       path);
    }
    json_decref(t->tools);
    t->tools = tools;
    return 0;
}

static const char *role_of(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role ? role : "";
}

const char *talk_system(const struct talk *t)
{
    json_t *first = json_array_get(t->messages, 0);
    if (strcmp(role_of(first), "system") != 0)
        return NULL;
    return json_string_value(json_object_get(first, "content"));
}

int talk_set_system(struct talk *t, const char *text, struct err *e)
{
    if (talk_system(t))
        json_array_remove(t->messages, 0);
    if (!*text)
        return 0;
    json_t *message = json_pack("{s:s, s:s}", "role", "system", "content", text);
    if (!message)
        return err_set(e, ERR_FORMAT, "system message: is not UTF-8");
    return json_array_insert_new(t->messages, 0, message) < 0 ? no_memory(e) : 0;
}

/* The call that waits for a result: the answers' results follow it one by one, in order. */
static json_t *open_call(const struct talk *t)
{
    size_t n = json_array_size(t->messages), results = 0;
    while (n > 0 && strcmp(role_of(json_array_get(t->messages, n - 1)), "tool") == 0) {
        n--;
        results++;
    }
    json_t *last = n ? json_array_get(t->messages, n - 1) : NULL;
    return json_array_get(json_object_get(last, "tool_calls"), results);
}

const char *talk_open_call(const struct talk *t)
{
    json_t *function = json_object_get(open_call(t), "function");
    return json_string_value(json_object_get(function, "name"));
}

/* A JSON string of any bytes: those that are no UTF-8 are taken as Latin-1, so that a file in an
 * old encoding still reads as text. */
static json_t *string_of(const char *text, size_t len)
{
    json_t *string = json_stringn(text, len);
    struct buf b;
    buf_init(&b, SIZE_MAX / 4);
    for (size_t i = 0; i < len && !string; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x80)
            buf_putc(&b, (char)(0xc0 | c >> 6));
        buf_putc(&b, (char)(c < 0x80 ? c : 0x80 | (c & 0x3f)));
    }
    if (!string && !b.failed)
        string = json_stringn(b.data ? b.data : "", b.len);
    buf_release(&b);
    return string;
}

int talk_say(struct talk *t, const char *text, size_t len, struct err *e)
{
    json_t *call = open_call(t), *said = string_of(text, len), *message;
    if (call)
        message = json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id",
                            json_object_get(call, "id"), "content", said);
    else
        message = json_pack("{s:s, s:o}", "role", "user", "content", said);
    return json_array_append_new(t->messages, message) < 0 ? no_memory(e) : 0;
}

int talk_answered(struct talk *t, const char *content, const char *reasoning, json_t *calls,
                  struct err *e)
{
    json_t *message = json_pack("{s:s, s:s}", "role", "assistant", "content", content);
    if (message && *reasoning)
        json_object_set_new(message, "reasoning_content", json_string(reasoning));
    if (message && json_array_size(calls))
        json_object_set(message, "tool_calls", calls);
    return json_array_append_new(t->messages, message) < 0 ? no_memory(e) : 0;
}

void talk_clear(struct talk *t)
{
    for (size_t n = json_array_size(t->messages), keep = talk_system(t) != NULL; n > keep; n--)
        json_array_remove(t->messages, n - 1);
}

void talk_unsay(struct talk *t)
{
    size_t n = json_array_size(t->messages);
    if (n)
        json_array_remove(t->messages, n - 1);
}

int talk_text(const struct talk *t, struct talk_text *out, struct err *e)
{
    *out = (struct talk_text){ .messages = json_dumps(t->messages, DUMP) };
    if (t->tools)
        out->tools = json_dumps(t->tools, DUMP);
    return out->messages && (out->tools || !t->tools) ? 0 : no_memory(e);
}

void talk_text_release(struct talk_text *text)
{
    free(text->messages);
    free(text->tools);
    *text = (struct talk_text){ 0 };
}

char *talk_dump(const struct talk *t)
{
    json_t *root = json_pack("{s:O, s:O?}", "messages", t->messages, "tools", t->tools);
    char *text = root ? json_dumps(root, DUMP) : NULL;
    json_decref(root);
    return text;
}

int talk_parse(struct talk *t, const char *data, size_t len, const char *file, struct err *e)
{
    json_error_t why;
    json_t *root = json_loadb(data, len, JSON_ALLOW_NUL, &why);
    json_t *messages = json_object_get(root, "messages"), *tools = json_object_get(root, "tools");
    if (!json_is_array(messages)) {
        json_decref(root);
        return err_set(e, ERR_FORMAT, "%s: messages: found none, expected those of a conversation",
                       file);
    }
    json_incref(messages);
    json_incref(tools);
    talk_release(t);
    *t = (struct talk){ messages, json_is_array(tools) ? tools : NULL };
    json_decref(root);
    return 0;
}
