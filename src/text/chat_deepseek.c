/* chat_deepseek.c - write the prompt, message after message.
 *
 * Two kinds of text are written: marks, which the tokenizer may turn into control tokens, and
 * plain text, in which a control literal stays text. Neighbouring pieces are one text for the
 * tokenizer; only the spans tell them apart, since cutting there would change the tokens.
 * Rejected: a template language. The rules look at neighbours and at the last user turn. */
#include "chat_deepseek.h"

#include <stdlib.h>

#include "chat_messages_impl.h"
#include "chat_strings.h"

struct writer {
    struct chat_text *out;
    const struct chat_options *o;
    const struct chat_messages *c;
    bool thinking;
    struct err *e;
};

/* ---- options -------------------------------------------------------------------------------- */

void chat_options_init(struct chat_options *o)
{
    *o = (struct chat_options){
        .profile = CHAT_PREVIEW,
        .think = CHAT_THINK_HIGH,
        .drop_thinking = true,
        .add_bos = true,
        .max_bytes = (size_t)64 << 20,
    };
}

static bool same(const char *word, size_t len, const char *other)
{
    return word && strlen(other) == len && memcmp(word, other, len) == 0;
}

static int official_bool(bool *out, const char *key, const json_t *v, struct err *e)
{
    if (!json_is_boolean(v))
        return err_set(e, ERR_ARGUMENT, "%s: expected a boolean, found %s", key,
                       pyjson_kind_name(v));
    *out = json_is_true(v);
    return 0;
}

/* Without an effort, thinking is what the ladder's step without a text says. */
static int official_think(struct chat_options *o, bool thinking, const json_t *effort,
                          struct err *e)
{
    size_t len = 0;
    char found[PYJSON_BRIEF_BYTES];
    const char *word = pyjson_string(effort, &len);
    pyjson_brief(found, effort);
    if (!effort || json_is_null(effort) || same(word, len, "none") || same(word, len, "low"))
        o->think = CHAT_THINK_LOW;
    else if (same(word, len, "high"))
        o->think = CHAT_THINK_HIGH;
    else if (same(word, len, "max"))
        o->think = CHAT_THINK_MAX;
    else
        return err_set(e, ERR_ARGUMENT, "reasoning_effort: expected none, low, high or max, "
                       "found %s", found);
    if (!thinking)
        o->think = CHAT_THINK_NONE;
    return 0;
}

int chat_options_official(struct chat_options *o, const char *kwargs, size_t len, struct err *e)
{
    json_t *root = pyjson_load(kwargs, len, e);
    const json_t *effort = NULL;
    bool thinking = o->think != CHAT_THINK_NONE;
    const char *key;
    json_t *v;
    int code = ERR_ARGUMENT;
    if (!root)
        return ERR_FORMAT;
    if (!json_is_object(root)) {
        err_set(e, code, "options: expected an object, found %s", pyjson_kind_name(root));
        goto fail;
    }
    json_object_foreach(root, key, v) {
        size_t n = 0;
        const char *word = pyjson_string(v, &n);
        if (strcmp(key, "thinking_mode") == 0 && same(word, n, "chat")) {
            thinking = false;
        } else if (strcmp(key, "thinking_mode") == 0 && same(word, n, "thinking")) {
            thinking = true;
        } else if (strcmp(key, "reasoning_effort") == 0) {
            effort = v;
        } else if (strcmp(key, "drop_thinking") == 0) {
            if (official_bool(&o->drop_thinking, key, v, e) < 0)
                goto fail;
        } else if (strcmp(key, "add_default_bos_token") == 0) {
            if (official_bool(&o->add_bos, key, v, e) < 0)
                goto fail;
        } else {
            char found[PYJSON_BRIEF_BYTES];
            json_t *name = json_string(key);
            pyjson_brief(found, name);
            json_decref(name);
            err_set(e, code, "%s: expected thinking_mode (chat, thinking), reasoning_effort, "
                    "drop_thinking or add_default_bos_token", found);
            goto fail;
        }
    }
    code = official_think(o, thinking, effort, e);
fail:
    json_decref(root);
    return code;
}

bool chat_think_of(enum chat_profile profile, const char *word, enum chat_think *out)
{
    static const struct {
        const char *word;
        enum chat_think preview, later;
    } ladder[] = {
        { "none", CHAT_THINK_NONE, CHAT_THINK_NONE },
        { "minimal", CHAT_THINK_HIGH, CHAT_THINK_LOW },
        { "low", CHAT_THINK_HIGH, CHAT_THINK_LOW },
        { "medium", CHAT_THINK_HIGH, CHAT_THINK_HIGH },
        { "high", CHAT_THINK_HIGH, CHAT_THINK_HIGH },
        { "xhigh", CHAT_THINK_MAX, CHAT_THINK_MAX },
        { "max", CHAT_THINK_MAX, CHAT_THINK_MAX },
    };
    for (size_t i = 0; i < COUNT_OF(ladder); i++)
        if (strcmp(ladder[i].word, word) == 0) {
            *out = profile == CHAT_PREVIEW ? ladder[i].preview : ladder[i].later;
            return true;
        }
    return false;
}

/* ---- pieces of text ------------------------------------------------------------------------- */

static void plain(struct writer *w, const char *text, size_t len)
{
    buf_add(&w->out->text, text, len);
}

static void plain_s(struct writer *w, const char *text)
{
    buf_puts(&w->out->text, text);
}

/* Make begin..end a span, joined with the one it touches. */
static void add_span(struct writer *w, size_t begin, size_t end)
{
    struct chat_text *t = w->out;
    if (t->text.failed || begin == end)
        return;
    if (t->n_special > 0 && t->special[t->n_special - 1].end == begin) {
        t->special[t->n_special - 1].end = end;
        return;
    }
    if (t->n_special == t->cap_special) {
        int cap = t->cap_special ? 2 * t->cap_special : 16;
        struct text_span *grown = realloc(t->special, (size_t)cap * sizeof *grown);
        if (!grown) {
            t->text.failed = true;
            return;
        }
        t->special = grown;
        t->cap_special = cap;
    }
    t->special[t->n_special++] = (struct text_span){ begin, end };
}

static void mark(struct writer *w, const char *text)
{
    size_t begin = w->out->text.len;
    buf_puts(&w->out->text, text);
    if (!w->o->parse_special)
        add_span(w, begin, w->out->text.len);
}

/* Parts of a content array: texts with a blank line between them. */
static int put_parts(struct writer *w, const json_t *parts, const struct chat_place *place)
{
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const json_t *type = pyjson_get(part, "type");
        size_t n_type, n_text;
        const char *name = pyjson_string(type, &n_type);
        const char *text = pyjson_string(pyjson_get(part, "text"), &n_text);
        if (!json_is_object(part))
            return chat_fault(w->e, place, part, "an object", "content[%zu]", i);
        if (!name)
            return chat_fault(w->e, place, type, "a string", "content[%zu].type", i);
        plain_s(w, i ? "\n\n" : "");
        if (!same(name, n_type, "text")) {
            plain_s(w, "[Unsupported ");
            plain(w, name, n_type);
            plain_s(w, "]");
        } else if (text) {
            plain(w, text, n_text);
        } else {
            return chat_fault(w->e, place, pyjson_get(part, "text"), "a string",
                              "content[%zu].text", i);
        }
    }
    return 0;
}

static int put_content(struct writer *w, const json_t *content, const struct chat_place *place)
{
    size_t len;
    const char *text = pyjson_string(content, &len);
    if (text)
        plain(w, text, len);
    else if (json_is_array(content))
        return put_parts(w, content, place);
    else if (content)
        return chat_fault(w->e, place, content, "a string or an array of parts", "content");
    return 0;
}

/* ---- tools ---------------------------------------------------------------------------------- */

static int put_tools(struct writer *w, const struct chat_message *m)
{
    if (!json_is_array(m->tools))
        return chat_fault(w->e, &m->place, m->tools, "an array", "tools");
    mark(w, chat_tools_head);
    for (size_t i = 0; i < json_array_size(m->tools); i++) {
        const json_t *function = pyjson_get(json_array_get(m->tools, i), "function");
        if (!json_is_object(function))
            return chat_fault(w->e, &m->place, function, "an object", "tools[%zu].function", i);
        plain_s(w, i ? "\n" : "");
        pyjson_dump(&w->out->text, function);
    }
    mark(w, chat_tools_tail);
    return 0;
}

/* What a system or developer message carries behind its content. */
static int put_appendices(struct writer *w, const struct chat_message *m)
{
    const json_t *format = m->src ? pyjson_get(m->src, "response_format") : NULL;
    if (m->tools) {
        plain_s(w, "\n\n");
        TRY(put_tools(w, m));
    }
    if (pyjson_truth(format)) {
        plain_s(w, "\n\n");
        plain_s(w, chat_response_format);
        pyjson_dump(&w->out->text, format);
    }
    return 0;
}

static void put_parameter(struct writer *w, const char *key, const json_t *value, bool first)
{
    size_t len;
    const char *text = pyjson_string(value, &len);
    plain_s(w, first ? "" : "\n");
    mark(w, CHAT_DSML_OPEN "parameter name=\"");
    plain_s(w, key);
    mark(w, text ? "\" string=\"true\">" : "\" string=\"false\">");
    if (text)
        plain(w, text, len);
    else
        pyjson_dump(&w->out->text, value);
    mark(w, CHAT_DSML_CLOSE "parameter>");
}

/* The arguments of a call: an object, or JSON text of one. Anything else becomes one parameter
 * called `arguments`, as the vendor does with text that is not JSON. */
static int put_arguments(struct writer *w, const json_t *arguments)
{
    struct err why = { 0 };
    size_t len = 0;
    const char *text = pyjson_string(arguments, &len);
    json_t *parsed = text ? pyjson_load(text, len, &why) : NULL;
    const json_t *object = text ? parsed : arguments;
    const char *key;
    json_t *value;
    bool first = true;
    if (text && !parsed && why.code == ERR_NO_MEMORY)
        return err_set(w->e, ERR_NO_MEMORY, "out of memory while reading a call's arguments");
    if (text && !parsed && why.code == ERR_UNSUPPORTED)
        return err_set(w->e, ERR_UNSUPPORTED, "tool_calls.function.arguments: %.400s", why.text);
    if (text && !json_is_object(parsed)) {
        put_parameter(w, "arguments", arguments, true);
        json_decref(parsed);
        return 0;
    }
    json_object_foreach((json_t *)object, key, value) {
        put_parameter(w, key, value, first);
        first = false;
    }
    json_decref(parsed);
    return 0;
}

static int put_calls(struct writer *w, const struct chat_message *m, const json_t *calls)
{
    if (!json_is_array(calls))
        return chat_fault(w->e, &m->place, calls, "an array", "tool_calls");
    plain_s(w, "\n\n");
    mark(w, CHAT_DSML_OPEN "tool_calls>");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *function = pyjson_get(json_array_get(calls, i), "function");
        const json_t *arguments = pyjson_get(function, "arguments");
        size_t n_name = 0, n_text;
        const char *name = pyjson_string(pyjson_get(function, "name"), &n_name);
        if (!json_is_object(function))
            return chat_fault(w->e, &m->place, function, "an object", "tool_calls[%zu].function",
                              i);
        if (!name)
            return chat_fault(w->e, &m->place, pyjson_get(function, "name"), "a string",
                              "tool_calls[%zu].function.name", i);
        if (arguments && !json_is_object(arguments) && !pyjson_string(arguments, &n_text))
            return chat_fault(w->e, &m->place, arguments, "a string or an object",
                              "tool_calls[%zu].function.arguments", i);
        plain_s(w, "\n");
        mark(w, CHAT_DSML_OPEN "invoke name=\"");
        plain(w, name, n_name);
        mark(w, "\">\n");
        if (put_arguments(w, arguments) < 0)
            return err_prefix(w->e, "%s[%d]", m->place.list, m->place.at);
        plain_s(w, "\n");
        mark(w, CHAT_DSML_CLOSE "invoke>");
    }
    plain_s(w, "\n");
    mark(w, CHAT_DSML_CLOSE "tool_calls>");
    return 0;
}

/* ---- messages ------------------------------------------------------------------------------- */

static int put_user(struct writer *w, const struct chat_message *m)
{
    mark(w, chat_markers.user);
    for (int i = 0; i < m->n_block; i++) {
        const struct chat_block *b = &w->c->block[m->block + i];
        plain_s(w, i ? "\n\n" : "");
        plain_s(w, b->is_result ? "<tool_result>" : "");
        TRY(put_content(w, b->content, &b->place));
        plain_s(w, b->is_result ? "</tool_result>" : "");
    }
    return 0;
}

static int put_assistant(struct writer *w, int i)
{
    const struct chat_message *m = &w->c->msg[i];
    const json_t *reasoning = pyjson_get(m->src, "reasoning_content");
    const json_t *calls = pyjson_get(m->src, "tool_calls");
    bool after_task = i > 0 && w->c->msg[i - 1].task;
    size_t len = 0;
    const char *text = pyjson_string(reasoning, &len);
    if (reasoning && !text)
        return chat_fault(w->e, &m->place, reasoning, "a string", "reasoning_content");
    if (w->thinking && !after_task && (!w->c->drop || i > w->c->last_user)) {
        plain(w, text ? text : "", len);
        mark(w, chat_markers.think_close);
    }
    size_t content_at = w->out->text.len;
    TRY(put_content(w, pyjson_get(m->src, "content"), &m->place));
    if (pyjson_truth(calls))
        TRY(put_calls(w, m, calls));
    w->out->in_reasoning = false;
    w->out->leading = !m->no_eos || w->out->text.len == content_at;
    if (!m->no_eos)
        mark(w, chat_markers.eos);
    return 0;
}

static int put_developer(struct writer *w, const struct chat_message *m)
{
    const json_t *content = pyjson_get(m->src, "content");
    if (!pyjson_truth(content))
        return err_set(w->e, ERR_FORMAT, "%s[%d].content: expected text, which a developer message "
                       "must have, found nothing", m->place.list, m->place.at);
    mark(w, chat_markers.user);
    TRY(put_content(w, content, &m->place));
    return put_appendices(w, m);
}

static int put_body(struct writer *w, int i)
{
    const struct chat_message *m = &w->c->msg[i];
    char found[PYJSON_BRIEF_BYTES];
    switch (m->role) {
    case ROLE_SYSTEM:
        if (m->src)
            TRY(put_content(w, pyjson_get(m->src, "content"), &m->place));
        return put_appendices(w, m);
    case ROLE_DEVELOPER: return put_developer(w, m);
    case ROLE_USER: return put_user(w, m);
    case ROLE_ASSISTANT: return put_assistant(w, i);
    case ROLE_REMINDER:
        mark(w, chat_markers.latest_reminder);
        return put_content(w, pyjson_get(m->src, "content"), &m->place);
    case ROLE_TOOL:
    case ROLE_SEARCH_RESULTS:
    case ROLE_OTHER: break;
    }
    pyjson_brief(found, pyjson_get(m->src, "role"));
    return err_set(w->e, ERR_UNSUPPORTED, "%s[%d].role: expected system, user, assistant or tool, "
                   "found %s", m->place.list, m->place.at, found);
}

/* The marker of the turn that comes next, or of the question that a task asks. */
static void put_transition(struct writer *w, int i)
{
    const struct chat_message *m = &w->c->msg[i];
    bool user = m->role == ROLE_USER || m->role == ROLE_DEVELOPER;
    if (i + 1 < w->c->n_msg) {
        enum chat_role next = w->c->msg[i + 1].role;
        if (next != ROLE_ASSISTANT && next != ROLE_REMINDER)
            return;
    }
    if (m->task) {
        if (m->task == CHAT_TASK_ACTION) {
            mark(w, chat_markers.assistant);
            mark(w, w->thinking ? chat_markers.think_open : chat_markers.think_close);
        }
        mark(w, m->task->marker);
        w->out->in_reasoning = false;
        w->out->leading = true;
    } else if (user) {
        bool think = w->thinking && (!w->c->drop || i >= w->c->last_user);
        mark(w, chat_markers.assistant);
        mark(w, think ? chat_markers.think_open : chat_markers.think_close);
        w->out->in_reasoning = think;
        w->out->leading = true;
    }
}

/* What comes before message 0 when thinking. */
static const char *effort_text(const struct chat_options *o)
{
    bool later = o->profile == CHAT_0731;
    if (o->think == CHAT_THINK_MAX)
        return later ? chat_effort_beyond : chat_effort_absolute;
    if (o->think == CHAT_THINK_HIGH && later)
        return chat_effort_absolute;
    return "";
}

static int put_all(struct writer *w)
{
    if (w->o->add_bos && w->c->first == 0) /* else there is a context, and it began with one */
        mark(w, chat_markers.bos);
    for (int i = w->c->first; i < w->c->n_msg; i++) {
        if (i == 0)
            plain_s(w, effort_text(w->o));
        TRY(put_body(w, i));
        put_transition(w, i);
    }
    return 0;
}

void chat_text_release(struct chat_text *t)
{
    buf_release(&t->text);
    free(t->special);
    *t = (struct chat_text){ 0 };
}

int chat_render(struct chat_text *out, const char *messages, size_t len,
                const struct chat_options *o, struct err *e)
{
    struct err own = { 0 };
    struct chat_messages c;
    e = e ? e : &own;
    struct writer w = { .out = out, .o = o, .c = &c, .thinking = o->think != CHAT_THINK_NONE,
                        .e = e };
    *out = (struct chat_text){ .leading = true };
    buf_init(&out->text, o->max_bytes);
    int code = chat_messages_read(&c, messages, len, o, e);
    if (code < 0)
        goto fail;
    code = put_all(&w);
    if (code < 0)
        goto fail;
    if (o->parse_special)
        add_span(&w, 0, out->text.len);
    if (out->text.failed)
        code = err_set(e, ERR_LIMIT, "the prompt is longer than %zu bytes, or memory is exhausted",
                       o->max_bytes);
fail:
    chat_messages_release(&c);
    if (code < 0)
        chat_text_release(out);
    return code;
}
