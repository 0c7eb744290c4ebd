/* chat_messages.c - read, fuse, order, retain.
 *
 * The format has no turn for tools: their results stand in the next user turn, in the order of
 * the calls. And unless tools are declared, an earlier turn's reasoning is not shown again. Both
 * rules have corners that the vendor's encoder decides by how it is written; the model saw its
 * output, so the corners are kept here on purpose and each has a case among the tests. */
#include "chat_messages_impl.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "chat_strings.h"

int chat_fault(struct err *e, const struct chat_place *where, const json_t *found,
               const char *expected, const char *field, ...)
{
    char name[128];
    va_list ap;
    va_start(ap, field);
    vsnprintf(name, sizeof name, field, ap);
    va_end(ap);
    return err_set(e, ERR_FORMAT, "%s[%d]%s%s: expected %s, found %s", where->list, where->at,
                   name[0] ? "." : "", name, expected, pyjson_kind_name(found));
}

/* ---- one message ---------------------------------------------------------------------------- */

static int read_role(struct chat_message *m, const struct chat_options *o, struct err *e)
{
    static const struct {
        const char *word;
        enum chat_role role;
    } roles[] = {
        { "system", ROLE_SYSTEM },
        { "user", ROLE_USER },
        { "developer", ROLE_DEVELOPER },
        { "assistant", ROLE_ASSISTANT },
        { "tool", ROLE_TOOL },
        { "latest_reminder", ROLE_REMINDER },
        { "direct_search_results", ROLE_SEARCH_RESULTS },
    };
    const json_t *role = pyjson_get(m->src, "role");
    size_t len;
    const char *word = pyjson_string(role, &len);
    if (!word)
        return chat_fault(e, &m->place, role, "a string", "role");
    m->role = ROLE_OTHER;
    for (size_t i = 0; i < COUNT_OF(roles); i++)
        if (strlen(roles[i].word) == len && memcmp(roles[i].word, word, len) == 0)
            m->role = roles[i].role;
    if (m->role == ROLE_DEVELOPER && o->developer_is_system)
        m->role = ROLE_SYSTEM;
    return 0;
}

static int read_task(struct chat_message *m, struct err *e)
{
    const json_t *task = pyjson_get(m->src, "task");
    size_t len;
    if (!task)
        return 0;
    const char *word = pyjson_string(task, &len);
    for (const struct chat_task *t = chat_tasks; word && t->name; t++)
        if (strlen(t->name) == len && memcmp(t->name, word, len) == 0)
            m->task = t;
    if (m->task)
        return 0;
    if (!word)
        return chat_fault(e, &m->place, task, "a string", "task");
    char found[PYJSON_BRIEF_BYTES];
    pyjson_brief(found, task);
    return err_set(e, ERR_UNSUPPORTED, "%s[%d].task: expected action, query, authority, domain, "
                   "title or read_url, found %s", m->place.list, m->place.at, found);
}

static int read_message(struct chat_message *m, const struct chat_options *o, struct err *e)
{
    if (!json_is_object(m->src))
        return chat_fault(e, &m->place, m->src, "an object", "%s", "");
    TRY(read_role(m, o, e));
    TRY(read_task(m, e));
    m->no_eos = pyjson_truth(pyjson_get(m->src, "wo_eos"));
    if (m->role != ROLE_USER && m->role != ROLE_TOOL && pyjson_truth(pyjson_get(m->src, "tools")))
        m->tools = pyjson_get(m->src, "tools");
    return 0;
}

/* ---- fusing --------------------------------------------------------------------------------- */

/* Append a message, or, for a tool's result and a user's text behind one another, a block to the
 * user message at the end of the list that began at message `start`. */
static void fuse(struct chat_messages *c, const struct chat_message *m, int start)
{
    struct chat_message *last = c->n_msg > start ? &c->msg[c->n_msg - 1] : NULL;
    bool result = m->role == ROLE_TOOL;
    if (m->role != ROLE_USER && !result) {
        c->msg[c->n_msg++] = *m;
        return;
    }
    if (!last || last->role != ROLE_USER || (!result && last->task)) {
        last = &c->msg[c->n_msg++];
        *last = *m;
        last->role = ROLE_USER;
        last->block = c->n_block;
        if (result)
            last->task = NULL;
    }
    c->block[c->n_block++] = (struct chat_block){
        .content = pyjson_get(m->src, "content"),
        .call_id = result ? pyjson_get(m->src, "tool_call_id") : NULL,
        .is_result = result,
        .place = m->place,
    };
    last->n_block++;
}

static int read_list(struct chat_messages *c, const json_t *list, const char *name,
                     const struct chat_options *o, struct err *e)
{
    int start = c->n_msg;
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct chat_message m = { .src = json_array_get(list, i), .place = { name, (int)i } };
        TRY(read_message(&m, o, e));
        if (m.role == ROLE_ASSISTANT && i + 1 == json_array_size(list))
            m.no_eos = m.no_eos || pyjson_truth(pyjson_get(m.src, "prefix"));
        fuse(c, &m, start);
    }
    return 0;
}

/* ---- ordering ------------------------------------------------------------------------------- */

/* Call id -> position among the calls of this assistant message. */
static json_t *call_positions(const json_t *calls)
{
    json_t *positions = json_object();
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i);
        const json_t *id = pyjson_get(call, "id");
        size_t len;
        if (!pyjson_truth(id))
            id = pyjson_get(pyjson_get(call, "function"), "id");
        const char *text = pyjson_string(id, &len);
        if (text && len > 0)
            json_object_set_new(positions, text, json_integer((json_int_t)i));
    }
    return positions;
}

struct ranked {
    json_int_t rank;
    int was; /* keeps the sort stable */
    struct chat_block block;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->was - y->was;
}

/* Sort the results among a user message's blocks by the order of the calls they answer; a result
 * of an unknown call counts as the first. Texts stay where they are. */
static int order_results(struct chat_block *block, int n, const json_t *positions, struct err *e)
{
    struct ranked *results = malloc((size_t)n * sizeof *results);
    int n_result = 0;
    if (!results)
        return err_set(e, ERR_NO_MEMORY, "out of memory while ordering %d tool results", n);
    for (int i = 0; i < n; i++) {
        size_t len;
        const char *id = pyjson_string(block[i].call_id, &len);
        if (!block[i].is_result)
            continue;
        results[n_result] = (struct ranked){
            .rank = id ? json_integer_value(json_object_get(positions, id)) : 0,
            .was = n_result,
            .block = block[i],
        };
        n_result++;
    }
    qsort(results, (size_t)n_result, sizeof *results, by_rank);
    for (int i = 0, r = 0; i < n; i++)
        if (block[i].is_result)
            block[i] = results[r++].block;
    free(results);
    return 0;
}

static int order_all(struct chat_messages *c, struct err *e)
{
    json_t *positions = NULL;
    int code = 0;
    for (int i = 0; i < c->n_msg && code == 0; i++) {
        const struct chat_message *m = &c->msg[i];
        const json_t *calls = m->src ? pyjson_get(m->src, "tool_calls") : NULL;
        if (m->role == ROLE_ASSISTANT && pyjson_truth(calls)) {
            json_decref(positions);
            positions = call_positions(calls);
        } else if (m->role == ROLE_USER && m->n_block > 1 && json_object_size(positions) > 0) {
            code = order_results(c->block + m->block, m->n_block, positions, e);
        }
    }
    json_decref(positions);
    return code;
}

/* ---- retention ------------------------------------------------------------------------------ */

static int last_user_of(const struct chat_message *m, int n)
{
    while (--n >= 0)
        if (m[n].role == ROLE_USER || m[n].role == ROLE_DEVELOPER)
            break;
    return n;
}

/* Does a message before the last user turn stay? */
static bool stays(const struct chat_message *m)
{
    return m->role != ROLE_DEVELOPER && m->role != ROLE_OTHER;
}

/* How many of the first n messages would stay if there were no others. */
static int count_staying(const struct chat_message *m, int n)
{
    int last = last_user_of(m, n), count = 0;
    for (int i = 0; i < n; i++)
        count += i >= last || stays(&m[i]);
    return count;
}

/* Take out developer messages before the last user turn. What was rendered earlier is counted as if
 * the context stood alone: a developer message at its end was rendered then, and is gone now. */
static void retain(struct chat_messages *c, int n_context)
{
    int last = last_user_of(c->msg, c->n_msg), n = 0;
    c->first = count_staying(c->msg, n_context);
    for (int i = 0; i < c->n_msg; i++) {
        if (i >= last || stays(&c->msg[i]))
            c->msg[n++] = c->msg[i];
    }
    c->n_msg = n;
}

/* ---- all together --------------------------------------------------------------------------- */

/* Parse an array of messages, or an object that has one under "messages". */
static const json_t *open_list(json_t **root, const char *text, size_t len, const char *name,
                               struct err *e)
{
    *root = pyjson_load(text, len, e);
    const json_t *list = *root;
    if (!list) {
        err_prefix(e, "%s", name);
        return NULL;
    }
    if (json_is_object(list))
        list = pyjson_get(list, "messages");
    if (!json_is_array(list)) {
        err_set(e, ERR_FORMAT, "%s: expected an array of messages, found %s", name,
                pyjson_kind_name(list));
        return NULL;
    }
    if (json_array_size(list) > INT_MAX / 4) {
        err_set(e, ERR_LIMIT, "%s: expected at most %d, found %zu", name, INT_MAX / 4,
                json_array_size(list));
        return NULL;
    }
    return list;
}

/* Tools of the request go to the first system message; without one they get their own in front. */
static int place_tools(struct chat_messages *c, int start, bool own, const json_t *tools,
                       struct err *e)
{
    for (int i = start; i < c->n_msg && !own; i++) {
        struct chat_message *m = &c->msg[i];
        if (m->role != ROLE_SYSTEM)
            continue;
        if (m->tools)
            return err_set(e, ERR_FORMAT, "%s[%d].tools: expected none beside the request's own",
                           m->place.list, m->place.at);
        m->tools = tools;
        return 0;
    }
    c->msg[start].tools = tools;
    return 0;
}

static bool has_system(const json_t *list, const struct chat_options *o)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct chat_message m = { .src = json_array_get(list, i) };
        if (read_role(&m, o, NULL) == 0 && m.role == ROLE_SYSTEM)
            return true;
    }
    return false;
}

static int read_all(struct chat_messages *c, const json_t *list, const struct chat_options *o,
                    struct err *e)
{
    const json_t *tools = json_is_object(c->request) ? pyjson_get(c->request, "tools") : NULL;
    const json_t *context = NULL;
    if (o->context) {
        context = open_list(&c->context, o->context, o->context_len, "context", e);
        if (!context)
            return ERR_FORMAT;
    }
    size_t n = json_array_size(list) + json_array_size(context) + 1;
    c->msg = calloc(n, sizeof *c->msg);
    c->block = calloc(n, sizeof *c->block);
    if (!c->msg || !c->block)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %zu messages", n);
    TRY(read_list(c, context, "context", o, e));

    int start = c->n_msg;
    bool own = pyjson_truth(tools) && !has_system(list, o);
    if (own)
        c->msg[c->n_msg++] = (struct chat_message){ .role = ROLE_SYSTEM,
                                                    .place = { "messages", 0 } };
    TRY(read_list(c, list, "messages", o, e));
    if (pyjson_truth(tools))
        TRY(place_tools(c, start, own, tools, e));
    TRY(order_all(c, e));

    c->first = start;
    c->drop = o->drop_thinking;
    for (int i = 0; i < c->n_msg; i++)
        c->drop = c->drop && !c->msg[i].tools;
    if (o->think != CHAT_THINK_NONE && c->drop)
        retain(c, start);
    c->last_user = last_user_of(c->msg, c->n_msg);
    return 0;
}

int chat_messages_read(struct chat_messages *c, const char *messages, size_t len,
                       const struct chat_options *o, struct err *e)
{
    *c = (struct chat_messages){ 0 };
    struct err own = { 0 };
    e = e ? e : &own;
    const json_t *list = open_list(&c->request, messages, len, "messages", e);
    if (!list || read_all(c, list, o, e) < 0)
        return e->code;
    return 0;
}

void chat_messages_release(struct chat_messages *c)
{
    free(c->msg);
    free(c->block);
    json_decref(c->request);
    json_decref(c->context);
    *c = (struct chat_messages){ 0 };
}
