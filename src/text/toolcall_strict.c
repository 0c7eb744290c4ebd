/* toolcall_strict.c - the vendor encoder's own parser: well-formed text or an error.
 *
 * It works on the whole text and is for checking: what a model must have written for this parser
 * to accept it is exactly what the renderer writes. Its corners (text cut off right behind a
 * tag's head is accepted) are the vendor's. */
#include "toolcall_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "chat_strings.h"

#define OPEN_CALLS "\n\n" CHAT_DSML_OPEN "tool_calls"
#define CLOSE_CALLS CHAT_DSML_CLOSE "tool_calls>"
#define OPEN_INVOKE CHAT_DSML_OPEN "invoke"
#define CLOSE_INVOKE CHAT_DSML_CLOSE "invoke"
#define OPEN_PARAMETER CHAT_DSML_OPEN "parameter"
#define CLOSE_PARAMETER "/" CHAT_DSML "parameter" /* the bracket before it is part of the match */

struct part {
    const char *s;
    size_t n;
};

/* One parameter or call; the texts point into the input. */
struct strict_parameter {
    struct part name, value;
    bool string;
};

struct strict {
    const char *at, *end;
    struct buf calls;  /* finished calls: name, 0, arguments, 0, ... */
    json_t *names;     /* of the open call's parameters */
    struct err *e;
};

static bool part_is(struct part t, const char *s)
{
    return t.n == strlen(s) && memcmp(t.s, s, t.n) == 0;
}

static const char *find(const char *at, const char *end, const char *what)
{
    size_t n = strlen(what);
    for (; (size_t)(end - at) >= n; at++) {
        at = memchr(at, what[0], (size_t)(end - at) - n + 1);
        if (!at)
            return NULL;
        if (memcmp(at, what, n) == 0)
            return at;
    }
    return NULL;
}

/* Read up to the first of two markers (b may be NULL) and pass it. Returns what was before it and
 * sets *stop to the marker, or to NULL at the end of the text. */
static struct part read_until(struct strict *t, const char *a, const char *b, const char **stop)
{
    const char *pa = find(t->at, t->end, a), *pb = b ? find(t->at, t->end, b) : NULL;
    const char *found = !pa || (pb && pb < pa) ? pb : pa;
    *stop = !found ? NULL : found == pa ? a : b;
    struct part before = { t->at, (size_t)((found ? found : t->end) - t->at) };
    t->at = found ? found + strlen(*stop) : t->end;
    return before;
}

/* An error with a piece of the text on one line, newlines spelt out. */
static int fault(struct strict *t, const char *what, struct part found)
{
    struct buf text;
    buf_init(&text, 4096);
    size_t n = MIN(found.n, (size_t)200);
    while (n > 0 && n < found.n && ((unsigned char)found.s[n] & 0xC0) == 0x80)
        n--; /* not inside of a character */
    for (size_t i = 0; i < n; i++)
        if (found.s[i] == '\n')
            buf_puts(&text, "\\n");
        else
            buf_putc(&text, (unsigned char)found.s[i] < ' ' ? ' ' : found.s[i]);
    int code = err_set(t->e, ERR_FORMAT, "%s'%s'", what, text.data ? text.data : "");
    buf_release(&text);
    return code;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

/* Python's `$`: the end, or the newline that ends the text. */
static bool at_end(const char *p, const char *end)
{
    return p == end || (p + 1 == end && *p == '\n');
}

/* [space] name="NAME">\n and nothing else */
static int read_name(struct strict *t, struct part head, struct part *name)
{
    static const char before[] = "name=\"", after[] = "\">\n";
    const char *p = head.s, *end = head.s + head.n;
    while (p < end && is_space(*p))
        p++;
    if ((size_t)(end - p) < sizeof before - 1 || memcmp(p, before, sizeof before - 1) != 0)
        return fault(t, "Tool name format error: ", head);
    name->s = p + sizeof before - 1;
    for (p = name->s; (p = find(p, end, after)); p++)
        if (at_end(p + sizeof after - 1, end)) {
            name->n = (size_t)(p - name->s);
            return 0;
        }
    return fault(t, "Tool name format error: ", head);
}

/* The first string="true"> or string="false"> behind p; *string says which. */
static const char *find_type(const char *p, const char *end, bool *string, const char **after)
{
    static const char yes[] = "\" string=\"true\">", no[] = "\" string=\"false\">";
    const char *a = find(p, end, yes), *b = find(p, end, no);
    *string = a && (!b || a < b);
    *after = *string ? a + sizeof yes - 1 : b ? b + sizeof no - 1 : NULL;
    return *string ? a : b;
}

/* space name="NAME" string="true|false">VALUE< and nothing else */
static int read_parameter(struct strict *t, struct part text, struct strict_parameter *out)
{
    static const char before[] = " name=\"";
    const char *end = text.s + text.n, *value, *p, *close;
    if (text.n < sizeof before - 1 || memcmp(text.s, before, sizeof before - 1) != 0)
        return fault(t, "Parameter format error: ", text);
    out->name.s = text.s + sizeof before - 1;
    p = find_type(out->name.s, end, &out->string, &value);
    for (close = p ? value : NULL; close && (close = find(close, end, "<")); close++)
        if (at_end(close + 1, end))
            break;
    if (!close)
        return fault(t, "Parameter format error: ", text);
    out->name.n = (size_t)(p - out->name.s);
    out->value = (struct part){ value, (size_t)(close - value) };
    return 0;
}

static void put_quoted(struct buf *out, struct part text)
{
    buf_putc(out, '"');
    pyjson_escape(out, text.s, text.n);
    buf_putc(out, '"');
}

static int note_name(struct strict *t, struct part name)
{
    struct buf key;
    buf_init(&key, SIZE_MAX / 2);
    buf_add(&key, name.s, name.n);
    char *text = buf_take(&key);
    int code = 0;
    if (!text)
        code = err_set(t->e, ERR_NO_MEMORY, "out of memory for a parameter's name");
    else if (json_object_get(t->names, text))
        code = fault(t, "Duplicate parameter name: ", name);
    else
        json_object_set_new_nocheck(t->names, text, json_true());
    free(text);
    return code;
}

static int read_call(struct strict *t)
{
    const char *stop;
    struct part head = read_until(t, OPEN_PARAMETER, CLOSE_INVOKE, &stop), name = { 0 };
    TRY(read_name(t, head, &name));
    buf_add(&t->calls, name.s, name.n);
    buf_add(&t->calls, "\0{", 2);
    json_object_clear(t->names);
    for (bool first = true; stop && strcmp(stop, OPEN_PARAMETER) == 0; first = false) {
        struct strict_parameter q = { 0 };
        TRY(read_parameter(t, read_until(t, CLOSE_PARAMETER, NULL, &stop), &q));
        TRY(note_name(t, q.name));
        buf_puts(&t->calls, first ? "" : ", ");
        put_quoted(&t->calls, q.name);
        buf_puts(&t->calls, ": ");
        if (q.string)
            put_quoted(&t->calls, q.value);
        else
            buf_add(&t->calls, q.value.s, q.value.n);
        struct part between = read_until(t, OPEN_PARAMETER, CLOSE_INVOKE, &stop);
        if (!part_is(between, ">\n"))
            return fault(t, "Parameter format error: expected '>\\n' but got ", between);
    }
    buf_add(&t->calls, "}", 2);
    return 0;
}

static int read_calls(struct strict *t)
{
    const char *stop;
    while (t->at < t->end) {
        struct part between = read_until(t, OPEN_INVOKE, CLOSE_CALLS, &stop);
        if (!part_is(between, ">\n"))
            return fault(t, "Tool call format error: expected '>\\n' but got ", between);
        if (!stop)
            return err_set(t->e, ERR_FORMAT, "Missing special token in tool calls");
        if (strcmp(stop, CLOSE_CALLS) == 0)
            break;
        TRY(read_call(t));
    }
    return 0;
}

static bool has(struct part text, const char *what)
{
    return find(text.s, text.s + text.n, what) != NULL;
}

static int check_clean(struct strict *t, struct part reasoning, struct part content)
{
    const char *const control[] = { chat_markers.bos, chat_markers.eos, chat_markers.think_open,
                                    chat_markers.think_close, CHAT_DSML };
    for (size_t i = 0; i < COUNT_OF(control); i++)
        if (has(content, control[i]) || has(reasoning, control[i]))
            return err_set(t->e, ERR_FORMAT, "Unexpected special token '%s' in content",
                           control[i]);
    return 0;
}

/* Split the text; calls go to t->calls. */
static int read_answer(struct strict *t, bool thinking, struct part *reasoning,
                       struct part *content)
{
    const char *stop;
    if (memchr(t->at, 0, (size_t)(t->end - t->at)))
        return err_set(t->e, ERR_FORMAT, "Unexpected zero byte");
    if (thinking) {
        *reasoning = read_until(t, chat_markers.think_close, OPEN_CALLS, &stop);
        if (!stop || strcmp(stop, chat_markers.think_close) != 0)
            return err_set(t->e, ERR_FORMAT, "Invalid thinking format: missing </think>");
    }
    *content = read_until(t, chat_markers.eos, OPEN_CALLS, &stop);
    if (!stop)
        return err_set(t->e, ERR_FORMAT, "Invalid format: missing EOS token");
    if (strcmp(stop, OPEN_CALLS) == 0) {
        TRY(read_calls(t));
        if (read_until(t, chat_markers.eos, NULL, &stop).n > 0)
            return err_set(t->e, ERR_FORMAT, "Unexpected content after tool calls");
    }
    if (t->at != t->end)
        return err_set(t->e, ERR_FORMAT, "Unexpected content at end");
    return check_clean(t, *reasoning, *content);
}

int strict_finish(struct toolcall_parser *p, struct err *e)
{
    const char *text = p->text.data ? p->text.data : "";
    struct strict t = { .at = text, .end = text + p->text.len, .e = e };
    struct part reasoning = { text, 0 }, content = { text, 0 };
    buf_init(&t.calls, SIZE_MAX / 2);
    t.names = json_object();
    int code = read_answer(&t, p->in_reasoning, &reasoning, &content);
    if (code == 0 && (t.calls.failed || !t.names))
        code = err_set(e, ERR_NO_MEMORY, "out of memory while parsing %zu bytes", p->text.len);
    if (code == 0) {
        tc_text(p, TOOLCALL_REASONING, reasoning.s, reasoning.n);
        tc_text(p, TOOLCALL_CONTENT, content.s, content.n);
        for (size_t at = 0; at < t.calls.len;) {
            const char *name = t.calls.data + at, *arguments = name + strlen(name) + 1;
            tc_call_begin(p, name);
            tc_puts(p, TOOLCALL_ARGUMENTS, arguments);
            tc_call_end(p, true);
            at = (size_t)(arguments + strlen(arguments) + 1 - t.calls.data);
        }
        p->done = true;
    }
    json_decref(t.names);
    buf_release(&t.calls);
    return code;
}
