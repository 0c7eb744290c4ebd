/* ids_json.c - read and print token ids; every id is checked to be one before it is used. */
#include "ids_json.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fault.h"
#include "file.h"

#define MAX_IDS_BYTES ((size_t)1 << 30)

static int add(struct dstar_tokens *out, long long id, const char *name, struct err *e)
{
    struct dstar_error error;
    if (id < 0 || id > INT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: id number %d: found %lld, expected 0 to %d", name,
                       out->n + 1, id, INT32_MAX);
    int32_t one = (int32_t)id;
    if (dstar_tokens_add(out, &one, 1, &error) < 0)
        return err_set(e, ERR_NO_MEMORY, "%s: %s", name, error.text);
    return 0;
}

static int add_array(struct dstar_tokens *out, const json_t *array, const char *name,
                     struct err *e)
{
    if (!json_is_array(array))
        return err_set(e, ERR_FORMAT, "%s: found no array, expected an array of token ids", name);
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *id = json_array_get(array, i);
        if (!json_is_integer(id))
            return err_set(e, ERR_FORMAT, "%s: id number %zu: found no whole number", name, i + 1);
        TRY(add(out, json_integer_value(id), name, e));
    }
    return 0;
}

static int parse_array(struct dstar_tokens *out, const char *text, size_t len, const char *name,
                       struct err *e)
{
    json_error_t why;
    json_t *array = json_loadb(text, len, JSON_DECODE_ANY, &why);
    if (!array)
        return err_set(e, ERR_FORMAT, "%s: line %d: %s", name, why.line, why.text);
    int code = add_array(out, array, name, e);
    json_decref(array);
    return code;
}

int ids_parse(struct dstar_tokens *out, const char *text, size_t len, const char *name,
              struct err *e)
{
    const char *p = text;
    p += strspn(p, " \t\r\n");
    if (*p == '[')
        return parse_array(out, text, len, name, e);
    while (p < text + len) {
        char *end;
        errno = 0;
        long long id = strtoll(p, &end, 10);
        bool ends = *end == 0 || isspace((unsigned char)*end) || *end == ',';
        if (!isdigit((unsigned char)*p) || errno || !ends)
            return err_set(e, ERR_FORMAT, "%s: id number %d: found '%.*s', expected a number", name,
                           out->n + 1, (int)MIN(strcspn(p, " \t\r\n,"), (size_t)40), p);
        TRY(add(out, id, name, e));
        p = end + strspn(end, " \t\r\n,");
    }
    return 0;
}

int ids_read(struct dstar_tokens *out, const char *path, struct err *e)
{
    struct buf b;
    buf_init(&b, MAX_IDS_BYTES);
    int code = file_read_all(&b, path, e);
    if (code >= 0)
        code = ids_parse(out, b.data ? b.data : "", b.len, path, e);
    buf_release(&b);
    return code;
}

int ids_check(const dstar_engine *engine, const struct dstar_tokens *tokens, const char *name,
              struct dstar_error *error)
{
    for (int i = 0; i < tokens->n; i++) {
        size_t len;
        if (dstar_token_bytes(engine, tokens->id[i], &len))
            continue;
        return fault_set(error, DSTAR_ARGUMENT,
                         "%s: id number %d: found %d, which is not in the vocabulary", name, i + 1,
                         tokens->id[i]);
    }
    return 0;
}

void ids_show(const dstar_engine *engine, int32_t id)
{
    size_t len;
    const char *bytes = dstar_token_bytes(engine, id, &len);
    json_t *text = json_stringn(bytes, len); /* NULL: part of a character */
    printf("%6d  \"", id);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '\n')
            printf("\\n");
        else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !text))
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    puts("\"");
    json_decref(text);
}

/* The tokens of a dialogue, as the model reads it. */
static int render(const struct ids_line *l, const json_t *dialogue, struct dstar_tokens *out,
                  struct dstar_error *error)
{
    struct dstar_prompt prompt = { 0 };
    struct dstar_chat chat;
    const json_t *tools = json_object_get(dialogue, "tools");
    dstar_chat_init(&chat);
    char *messages = json_dumps(json_object_get(dialogue, "messages"), JSON_ENCODE_ANY);
    char *tools_text = json_array_size(tools) ? json_dumps(tools, 0) : NULL;
    chat.messages = messages;
    chat.tools = tools_text;
    chat.think = json_is_true(json_object_get(dialogue, "thinking")) ? DSTAR_THINK_HIGH
                                                                     : DSTAR_THINK_NONE;
    int code = !messages ? fault_set(error, DSTAR_NO_MEMORY, "line %d: no memory", l->number)
                         : dstar_chat_render(l->engine, &chat, &prompt, error);
    if (messages && code < 0) {
        struct dstar_error why = *error;
        fault_set(error, code, "line %d: %s", l->number, why.text);
    }
    *out = prompt.tokens;
    free(messages);
    free(tools_text);
    return code;
}

int ids_line_to_ids(const struct ids_line *l, struct dstar_error *error)
{
    json_error_t why;
    json_t *line = json_loadb(l->text, l->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    bool chat = json_is_array(json_object_get(line, "messages"));
    if (!json_is_string(line) && !chat) {
        const char *what = line ? "found neither a JSON string nor an object with messages"
                                : why.text;
        json_decref(line);
        return fault_set(error, DSTAR_FORMAT, "line %d: %s", l->number, what);
    }
    struct dstar_tokens tokens = { 0 };
    int code = chat ? render(l, line, &tokens, error)
                    : dstar_tokenise(l->engine, json_string_value(line), json_string_length(line),
                                     l->special, &tokens, error);
    if (code >= 0) {
        putchar('[');
        for (int i = 0; i < tokens.n; i++)
            printf(i ? ", %d" : "%d", tokens.id[i]);
        puts("]");
    }
    dstar_tokens_release(&tokens);
    json_decref(line);
    return code;
}

/* Through the decoder of streams: in JSON there are only whole characters. */
static int text_of(const struct ids_line *l, const struct dstar_tokens *tokens, struct buf *out,
                   struct dstar_error *error)
{
    dstar_text *text;
    size_t n;
    TRY(dstar_text_new(&text, l->engine, l->special, error));
    for (int i = 0; i < tokens->n; i++) {
        const char *piece = dstar_text_push(text, tokens->id[i], &n);
        buf_add(out, piece, n);
    }
    const char *rest = dstar_text_end(text, &n);
    buf_add(out, rest, n);
    dstar_text_free(text);
    return 0;
}

int ids_line_to_text(const struct ids_line *l, struct dstar_error *error)
{
    struct err e = { 0 };
    struct dstar_tokens tokens = { 0 };
    struct buf b;
    char name[32];
    snprintf(name, sizeof name, "line %d", l->number);
    buf_init(&b, MAX_IDS_BYTES);
    int code = parse_array(&tokens, l->text, l->len, name, &e);
    if (code < 0)
        fault_of(error, &e);
    else
        code = ids_check(l->engine, &tokens, name, error);
    if (code >= 0)
        code = text_of(l, &tokens, &b, error);
    json_t *string = code < 0 ? NULL : json_stringn(b.data ? b.data : "", b.len);
    char *line = json_dumps(string, JSON_ENCODE_ANY);
    if (line)
        puts(line);
    free(line);
    json_decref(string);
    dstar_tokens_release(&tokens);
    buf_release(&b);
    return code;
}
