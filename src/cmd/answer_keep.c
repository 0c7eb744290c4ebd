/* answer_keep.c - put an answer together from its events. */
#include "answer.h"

#define MAX_TEXT_BYTES ((size_t)1 << 30)

void answer_init(struct answer *a)
{
    *a = (struct answer){ .calls = json_array(), .remarks = json_array() };
    buf_init(&a->content, MAX_TEXT_BYTES);
    buf_init(&a->reasoning, MAX_TEXT_BYTES);
    buf_init(&a->token_s, MAX_TEXT_BYTES);
    buf_puts(&a->content, "");
    buf_puts(&a->reasoning, "");
}

void answer_release(struct answer *a)
{
    buf_release(&a->content);
    buf_release(&a->token_s);
    buf_release(&a->reasoning);
    json_decref(a->calls);
    json_decref(a->remarks);
    a->calls = a->remarks = NULL;
}

static void keep_call(struct answer *a, const struct dstar_event *ev)
{
    json_t *call = json_array_get(a->calls, (size_t)ev->call);
    json_t *function = json_object_get(call, "function");
    if (ev->kind == DSTAR_CALL_BEGIN) {
        json_array_append_new(a->calls,
                              json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", ev->id, "type",
                                        "function", "function", "name", ev->name, "arguments",
                                        ""));
    } else if (ev->kind == DSTAR_CALL_ARGS) {
        const char *old = json_string_value(json_object_get(function, "arguments"));
        struct buf b;
        buf_init(&b, MAX_TEXT_BYTES);
        buf_puts(&b, old ? old : "");
        buf_add(&b, ev->text, ev->len);
        json_object_set_new(function, "arguments", json_stringn(b.data, b.len));
        buf_release(&b);
    } else if (!ev->complete) {
        json_object_set_new(call, "complete", json_false());
    }
}

void answer_keep(struct answer *a, const struct dstar_event *ev)
{
    switch (ev->kind) {
    case DSTAR_REASONING: buf_add(&a->reasoning, ev->text, ev->len); break;
    case DSTAR_CONTENT: buf_add(&a->content, ev->text, ev->len); break;
    case DSTAR_CALL_BEGIN:
    case DSTAR_CALL_ARGS:
    case DSTAR_CALL_END: keep_call(a, ev); break;
    case DSTAR_REMARK: json_array_append_new(a->remarks, json_stringn(ev->text, ev->len)); break;
    case DSTAR_FINISHED: a->finish = ev->finish; break;
    default: break;
    }
}
