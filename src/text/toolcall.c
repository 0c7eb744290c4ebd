/* toolcall.c - the parser as its users see it: options, events, ids; the dialects do the work. */
#include "toolcall_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "chat_strings.h"
#include "rng.h"
#include "utf8.h"

/* Text of one event at most, so that a large push does not gather in memory. */
enum { EVENT_BYTES = 4096 };

void toolcall_options_init(struct toolcall_options *o)
{
    *o = (struct toolcall_options){
        .mode = TOOLCALL_DEFAULT,
        .leading = true,
        .parse_calls = true,
        .stop_at_control = true,
        .max_held = (size_t)4 << 20,
    };
}

const char *toolcall_warning_text(enum toolcall_warning w)
{
    switch (w) {
    case TOOLCALL_WARN_EXTRA_THINK_END: return "</think> in the content was dropped";
    case TOOLCALL_WARN_EXTRA_THINK_BEGIN: return "<think> at the very start was dropped";
    case TOOLCALL_WARN_AFTER_END: return "output after its end was dropped";
    case TOOLCALL_WARN_CONTROL: return "a role or sentence marker was taken as the end";
    case TOOLCALL_WARN_IN_REASONING: return "the calls stood inside of the reasoning";
    case TOOLCALL_WARN_NO_WRAPPER: return "the call stood outside of tool_calls tags";
    case TOOLCALL_WARN_UNKNOWN_TOOL: return "the called tool was not declared";
    case TOOLCALL_WARN_NO_TYPE: return "a parameter did not say whether it is a string";
    case TOOLCALL_WARN_BAD_JSON: return "a value was not JSON and became a string";
    case TOOLCALL_WARN_BAD_UTF8: return "bytes that are not UTF-8 were replaced";
    case TOOLCALL_WARN_DUPLICATE_KEY: return "a parameter was given twice, the last one counts";
    case TOOLCALL_WARN_UNWRAPPED: return "all arguments stood in one parameter";
    case TOOLCALL_WARN_BAD_CLOSE: return "a closing tag was missing or misspelt";
    case TOOLCALL_WARN_STRAY_TEXT: return "text between the tags of calls was dropped";
    case TOOLCALL_WARN_CUT_OFF: return "the output ended inside of a call";
    case TOOLCALL_WARN_TOO_LONG: return "a call was longer than may be held";
    }
    return "unknown";
}

/* ---- events --------------------------------------------------------------------------------- */

static void send_pending(struct toolcall_parser *p)
{
    if (p->pending.len > 0)
        p->sink(p->user, &(struct toolcall_event){
                             .type = p->pending_type,
                             .index = p->pending_type == TOOLCALL_ARGUMENTS ? p->n_call - 1 : -1,
                             .text = p->pending.data,
                             .len = p->pending.len,
                         });
    p->no_memory = p->no_memory || p->pending.failed;
    buf_clear(&p->pending);
}

void tc_flush(struct toolcall_parser *p)
{
    if (p->n_part > 0)
        buf_puts(&p->pending, UTF8_REPLACEMENT);
    p->n_part = 0;
    send_pending(p);
}

/* Append bytes so that only whole characters are in `pending`; what is none becomes U+FFFD, and
 * the beginning of one waits in `part`. */
static void add_characters(struct toolcall_parser *p, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t good = p->n_part == 0 ? utf8_valid_len(s + i, n - i) : 0;
        buf_add(&p->pending, s + i, good);
        i += good;
        if (i == n)
            return;
        p->part[p->n_part++] = s[i++];
        for (int used; p->n_part > 0; p->n_part -= abs(used)) {
            used = utf8_step(p->part, (size_t)p->n_part);
            if (used == 0)
                break;
            if (used > 0)
                buf_add(&p->pending, p->part, (size_t)used);
            else
                buf_puts(&p->pending, UTF8_REPLACEMENT);
            memmove(p->part, p->part + abs(used), (size_t)(p->n_part - abs(used)));
        }
    }
}

void tc_text(struct toolcall_parser *p, enum toolcall_event_type type, const char *s, size_t n)
{
    if (n == 0)
        return;
    if (p->pending_type != type)
        tc_flush(p);
    else if (p->pending.len >= EVENT_BYTES)
        send_pending(p);
    p->pending_type = type;
    if (p->o.mode == TOOLCALL_DEFAULT)
        add_characters(p, s, n);
    else
        buf_add(&p->pending, s, n);
}

void tc_puts(struct toolcall_parser *p, enum toolcall_event_type type, const char *s)
{
    tc_text(p, type, s, strlen(s));
}

/* call_ and 32 hex digits: unguessable with the caller's random numbers, repeatable with a seed. */
static void make_id(struct toolcall_parser *p, int index, char id[40])
{
    uint64_t half[2] = { rng_at(p->o.id_seed, 2 * (uint64_t)index),
                         rng_at(p->o.id_seed, 2 * (uint64_t)index + 1) };
    if (p->o.random)
        p->o.random(p->o.random_user, half, sizeof half);
    snprintf(id, 40, "call_%08x%08x%08x%08x", (unsigned)(half[0] >> 32), (unsigned)half[0],
             (unsigned)(half[1] >> 32), (unsigned)half[1]);
}

void tc_call_begin(struct toolcall_parser *p, const char *name)
{
    char id[40];
    tc_flush(p);
    make_id(p, p->n_call, id);
    p->n_call++;
    p->sink(p->user, &(struct toolcall_event){ .type = TOOLCALL_CALL_BEGIN,
                                               .index = p->n_call - 1,
                                               .id = id,
                                               .name = name });
}

void tc_call_end(struct toolcall_parser *p, bool complete)
{
    tc_flush(p);
    p->n_closed += complete;
    p->sink(p->user, &(struct toolcall_event){ .type = TOOLCALL_CALL_END,
                                               .index = p->n_call - 1,
                                               .complete = complete });
}

void tc_warn(struct toolcall_parser *p, enum toolcall_warning w, int index)
{
    tc_flush(p);
    p->sink(p->user, &(struct toolcall_event){ .type = TOOLCALL_WARNING,
                                               .index = index,
                                               .warning = w });
}

void tc_warn_once(struct toolcall_parser *p, enum toolcall_warning w)
{
    if (!(p->warned >> w & 1))
        tc_warn(p, w, -1);
    p->warned |= 1u << w;
}

uint64_t tc_text_literals(const struct toolcall_parser *p)
{
    uint64_t on = p->o.parse_calls ? LIT(DSML) : 0;
    on |= p->leading ? LIT(NEWLINE) : 0;
    on |= p->in_reasoning ? LIT(THINK_END) : LIT(EXTRA_END) | p->stops;
    if (p->o.mode == TOOLCALL_DEFAULT && p->o.stop_at_control)
        on |= LIT(USER) | LIT(ASSISTANT) | LIT(BOS) | LIT(EOS);
    return on;
}

/* ---- making and ending ---------------------------------------------------------------------- */

static int add_literals(struct toolcall_parser *p, struct err *e)
{
    struct {
        const char *text;
        bool newlines;
    } fixed[] = {
        [LIT_DSML - LIT_DSML] = { CHAT_DSML_OPEN, true },
        [LIT_NEWLINE - LIT_DSML] = { "\n", false },
        [LIT_THINK_END - LIT_DSML] = { chat_markers.think_close, true },
        [LIT_EXTRA_END - LIT_DSML] = { chat_markers.think_close, false },
        [LIT_INVOKE - LIT_DSML] = { "invoke name=\"", false },
        [LIT_BLOCK_END - LIT_DSML] = { CHAT_DSML_CLOSE "tool_calls>", false },
        [LIT_BLOCK_END_V41 - LIT_DSML] = { CHAT_DSML_CLOSE " calls>", false },
        [LIT_QUOTE - LIT_DSML] = { "\"", false },
        [LIT_PARAMETER - LIT_DSML] = { "parameter name=\"", false },
        [LIT_CLOSE - LIT_DSML] = { CHAT_DSML_CLOSE, false },
        [LIT_TRUE - LIT_DSML] = { "true\">", false },
        [LIT_FALSE - LIT_DSML] = { "false\">", false },
        [LIT_THINK_BEGIN - LIT_DSML] = { chat_markers.think_open, false },
        [LIT_USER - LIT_DSML] = { chat_markers.user, false },
        [LIT_ASSISTANT - LIT_DSML] = { chat_markers.assistant, false },
        [LIT_BOS - LIT_DSML] = { chat_markers.bos, false },
        [LIT_EOS - LIT_DSML] = { chat_markers.eos, false },
    };
    const char *stop = p->stop_text;
    for (int i = 0; i < TOOLCALL_MAX_STOP; i++) { /* places beyond n_stop are never on */
        const char *text = i < p->n_stop ? stop : "-";
        if (watch_add(&p->watch, text, strlen(text), false) < 0)
            goto fail;
        stop += i < p->n_stop ? strlen(text) + 1 : 0;
    }
    for (size_t i = 0; i < COUNT_OF(fixed); i++)
        if (watch_add(&p->watch, fixed[i].text, strlen(fixed[i].text), fixed[i].newlines) < 0)
            goto fail;
    return 0;
fail:
    return err_set(e, ERR_NO_MEMORY, "out of memory for a parser of answers");
}

static int copy_stops(struct toolcall_parser *p, struct err *e)
{
    const struct toolcall_options *o = &p->o;
    struct buf all;
    if (o->n_stop > TOOLCALL_MAX_STOP)
        return err_set(e, ERR_LIMIT, "stop: expected at most %d strings, found %d",
                       TOOLCALL_MAX_STOP, o->n_stop);
    buf_init(&all, TOOLCALL_MAX_STOP * (TOOLCALL_MAX_STOP_BYTES + 1));
    for (int i = 0; i < o->n_stop; i++) {
        size_t n = strlen(o->stop[i]);
        if (n == 0 || n > TOOLCALL_MAX_STOP_BYTES) {
            buf_release(&all);
            return err_set(e, n ? ERR_LIMIT : ERR_ARGUMENT, "stop[%d]: expected a string of 1 to "
                           "%d bytes, found %zu", i, TOOLCALL_MAX_STOP_BYTES, n);
        }
        buf_add(&all, o->stop[i], n + 1);
        p->stops |= UINT64_C(1) << i;
    }
    p->n_stop = o->n_stop;
    p->stop_text = buf_take(&all);
    if (!p->stop_text)
        return err_set(e, ERR_NO_MEMORY, "out of memory for stop strings");
    return 0;
}

/* Accepts {"type", "function": {...}} and the function alone; keeps the functions. */
static int read_tools(struct toolcall_parser *p, struct err *e)
{
    json_t *list = pyjson_load(p->o.tools, p->o.tools_len, e);
    int code = 0;
    p->tools = json_array();
    if (!list)
        return err_prefix(e, "tools");
    if (!json_is_array(list))
        code = err_set(e, ERR_FORMAT, "tools: expected an array, found %s",
                       pyjson_kind_name(list));
    for (size_t i = 0; i < json_array_size(list) && code == 0; i++) {
        json_t *function = json_array_get(list, i);
        if (json_is_object(pyjson_get(function, "function")))
            function = pyjson_get(function, "function");
        size_t len;
        if (!pyjson_string(pyjson_get(function, "name"), &len))
            code = err_set(e, ERR_FORMAT, "tools[%zu].function.name: expected a string, found %s",
                           i, pyjson_kind_name(pyjson_get(function, "name")));
        else if (json_array_append(p->tools, function) < 0)
            code = err_set(e, ERR_NO_MEMORY, "out of memory for tools");
    }
    json_decref(list);
    return code;
}

/* Everything that can fail; on failure the caller frees. */
static int set_up(struct toolcall_parser *p, struct err *e)
{
    bool is_default = p->o.mode == TOOLCALL_DEFAULT;
    TRY(copy_stops(p, e));
    TRY(add_literals(p, e));
    if (p->o.tools && is_default)
        TRY(read_tools(p, e));
    if (is_default && json_array_size(p->tools) == 0)
        p->o.parse_calls = false;
    if (is_default && default_new(p) < 0)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a parser of answers");
    if (p->o.mode == TOOLCALL_RECIPE)
        recipe_new(p);
    p->o.stop = NULL;
    p->o.tools = NULL;
    return 0;
}

struct toolcall_parser *toolcall_new(const struct toolcall_options *o, toolcall_sink *sink,
                                     void *user, struct err *e)
{
    struct err own = { 0 };
    struct toolcall_parser *p = calloc(1, sizeof *p);
    e = e ? e : &own;
    if (!p) {
        err_set(e, ERR_NO_MEMORY, "out of memory for a parser of answers");
        return NULL;
    }
    p->o = *o;
    p->sink = sink;
    p->user = user;
    p->in_reasoning = o->in_reasoning;
    p->leading = o->leading;
    p->stop = -1;
    watch_init(&p->watch, o->max_held);
    buf_init(&p->pending, SIZE_MAX / 2);
    buf_init(&p->text, o->max_held);
    if (set_up(p, e) < 0) {
        toolcall_free(p);
        return NULL;
    }
    return p;
}

void toolcall_free(struct toolcall_parser *p)
{
    if (!p)
        return;
    default_free(p);
    watch_release(&p->watch);
    buf_release(&p->pending);
    buf_release(&p->text);
    json_decref(p->tools);
    free(p->stop_text);
    free(p);
}

bool toolcall_is_done(const struct toolcall_parser *p)
{
    return p->done;
}

/* Sticky failures of the buffers that every dialect uses. */
static int check_memory(struct toolcall_parser *p, struct err *e)
{
    if (!p->no_memory && !p->watch.held.failed)
        return 0;
    p->no_memory = true;
    return err_set(e, ERR_NO_MEMORY, "out of memory while parsing an answer");
}

int toolcall_push(struct toolcall_parser *p, const char *data, size_t len, struct err *e)
{
    CHECK(!p->finished);
    TRY(check_memory(p, e));
    if (p->o.mode == TOOLCALL_STRICT) {
        buf_add(&p->text, data, len);
        if (p->text.failed)
            return err_set(e, ERR_LIMIT, "an answer of more than %zu bytes, or memory is exhausted",
                           p->o.max_held);
        return 0;
    }
    for (size_t i = 0; i < len; i++)
        if (p->o.mode == TOOLCALL_RECIPE)
            recipe_byte(p, data[i]);
        else
            default_byte(p, data[i]);
    send_pending(p);
    return check_memory(p, e);
}

int toolcall_finish(struct toolcall_parser *p, enum toolcall_reason reason, struct err *e)
{
    enum toolcall_finish finish = TOOLCALL_FINISH_STOP;
    CHECK(!p->finished);
    p->finished = true;
    TRY(check_memory(p, e));
    if (p->o.mode == TOOLCALL_STRICT)
        TRY(strict_finish(p, e));
    if (p->o.mode == TOOLCALL_RECIPE)
        recipe_finish(p);
    if (p->o.mode == TOOLCALL_DEFAULT)
        finish = default_finish(p, reason);
    else if (reason == TOOLCALL_LENGTH && !p->done)
        finish = TOOLCALL_FINISH_LENGTH;
    else if (p->n_closed > 0)
        finish = TOOLCALL_FINISH_CALLS;
    tc_flush(p);
    p->sink(p->user, &(struct toolcall_event){ .type = TOOLCALL_FINISHED,
                                               .index = -1,
                                               .finish = finish,
                                               .stop = p->stop });
    return check_memory(p, e);
}
