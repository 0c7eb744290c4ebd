/* answer.c - one answer: prompt to session, session to tokens, tokens to events.
 *
 * A raw continuation gives the same events as a parsed answer, so that nobody who shows or keeps
 * an answer needs to know which it is. */
#include "answer.h"

#include <stdio.h>

#include "clock.h"
#include "interrupt.h"
#include "stop_scan.h"
#include "term.h"

struct listener {
    struct answer *a;
    const struct ask *q;
};

static void on_event(void *user, const struct dstar_event *ev)
{
    struct listener *l = user;
    answer_keep(l->a, ev);
    if (l->q->show)
        l->q->show(l->q->show_user, ev);
}

/* Compute what waits, with a progress line. */
static int prefill(const struct ask *q, struct dstar_error *error)
{
    struct progress p;
    int n, done, left;
    dstar_session_tokens(q->session, &n, &done);
    progress_begin(&p, "reading the prompt", "tokens", done);
    do {
        left = dstar_session_step(q->session, error);
        if (left > 0 && !q->quiet)
            progress_show(&p, n - left, n);
    } while (left > 0);
    progress_end(&p);
    return left;
}

/* Tokens to the parser until the end. 1: cut off; 0: complete. */
static int decode(struct answer *a, const struct ask *q, int (*push)(void *, int32_t),
                  void *push_user, struct dstar_error *error)
{
    int ctx = dstar_engine_info(q->engine)->ctx;
    while (q->max_tokens == 0 || a->n_answer < q->max_tokens) {
        int32_t id;
        int n, done;
        dstar_session_tokens(q->session, &n, &done);
        a->full = n >= ctx;
        if (a->full || ferror(stdout)) /* nobody could read the rest */
            return 1;
        double begin = clock_now_s();
        int more = dstar_next(q->session, &id, error);
        if (more <= 0)
            return more;
        double took = clock_now_s() - begin;
        if (a->n_answer++ > 0)
            buf_add(&a->token_s, &took, sizeof took);
        more = push(push_user, id);
        if (more <= 0)
            return more;
    }
    return 1;
}

struct parsed {
    dstar_parser *parser;
    struct dstar_error *error;
};

static int push_parsed(void *user, int32_t id)
{
    struct parsed *p = user;
    return dstar_parser_push(p->parser, id, p->error);
}

/* What an interruption leaves is an answer that was cut off. */
static int settle(struct answer *a, int code)
{
    if (code != DSTAR_CANCELLED)
        return code;
    a->interrupted = true;
    return 1;
}

static int get_parsed(struct answer *a, const struct ask *q, struct dstar_error *error)
{
    struct listener listener = { a, q };
    struct dstar_chat chat = q->chat;
    struct dstar_prompt prompt = { 0 };
    struct parsed p = { .error = error };
    chat.on_event = on_event;
    chat.on_event_user = &listener;
    int code = dstar_chat_render(q->engine, &chat, &prompt, error);
    if (code >= 0)
        code = dstar_session_set(q->session, prompt.tokens.id, prompt.tokens.n, error);
    if (code >= 0)
        code = dstar_parser_new(&p.parser, q->engine, &chat, &prompt, error);
    if (code >= 0) {
        struct dstar_stats before;
        dstar_session_stats(q->session, &before);
        a->n_prompt = prompt.tokens.n;
        a->n_kept = before.n_reused;
        code = prefill(q, error);
        if (code >= 0)
            code = decode(a, q, push_parsed, &p, error);
        code = settle(a, code);
    }
    if (p.parser && code >= 0) {
        int end = dstar_parser_end(p.parser, code, error);
        code = end < 0 ? end : 0;
    }
    dstar_parser_free(p.parser);
    dstar_tokens_release(&prompt.tokens);
    return code;
}

struct raw {
    struct listener to;
    dstar_text *text;
    struct stop_scan scan;
    int stop;
};

static int raw_text(struct raw *r, const char *text, size_t len, bool last)
{
    size_t n = stop_scan_push(&r->scan, text, len, &r->stop);
    if (last && r->stop < 0)
        n = r->scan.held.len;
    if (n > 0)
        on_event(&r->to, &(struct dstar_event){ .kind = DSTAR_CONTENT, .text = r->scan.held.data,
                                                .len = n });
    buf_drop(&r->scan.held, n);
    return r->stop < 0;
}

static int push_raw(void *user, int32_t id)
{
    struct raw *r = user;
    size_t len;
    const char *text = dstar_text_push(r->text, id, &len);
    return raw_text(r, text, len, false);
}

static int get_raw(struct answer *a, const struct ask *q, struct dstar_error *error)
{
    struct raw r = { .to = { a, q }, .stop = -1 };
    struct dstar_stats before;
    dstar_session_stats(q->session, &before);
    a->n_prompt = before.n_tok;
    a->n_kept = before.n_reused;
    TRY(dstar_text_new(&r.text, q->engine, q->special, error));
    stop_scan_init(&r.scan, q->chat.stop, q->chat.n_stop);
    int code = prefill(q, error);
    if (code >= 0)
        code = decode(a, q, push_raw, &r, error);
    code = settle(a, code);
    if (code >= 0) {
        size_t len;
        const char *text = dstar_text_end(r.text, &len);
        if (r.stop < 0)
            raw_text(&r, text, len, true);
        on_event(&r.to, &(struct dstar_event){
                            .kind = DSTAR_FINISHED, .stop = r.stop,
                            .finish = code > 0 ? DSTAR_FINISH_LENGTH : DSTAR_FINISH_STOP });
        code = 0;
    }
    stop_scan_release(&r.scan);
    dstar_text_free(r.text);
    return code;
}

int answer_get(struct answer *a, const struct ask *q, struct dstar_error *error)
{
    struct dstar_stats before;
    struct flow flow;
    dstar_session_stats(q->session, &before);
    flow_of(q->engine, &flow);
    interrupt_catch(q->session);
    int code = q->chat.messages ? get_parsed(a, q, error) : get_raw(a, q, error);
    interrupt_clear();
    interrupt_catch(NULL);
    dstar_session_stats(q->session, &a->took);
    a->took.n_prefill -= before.n_prefill;
    a->took.n_decode -= before.n_decode;
    a->took.prefill_s -= before.prefill_s;
    a->took.decode_s -= before.decode_s;
    flow_of(q->engine, &a->flow);
    flow_since(&a->flow, &flow);
    return code;
}
