/* toolcall_record.h - for tests and fuzzing: run the output parser and write down what it says. */
#ifndef DS_TESTS_TOOLCALL_RECORD_H
#define DS_TESTS_TOOLCALL_RECORD_H

#include <stdlib.h>

#include "buf.h"
#include "pyjson.h"
#include "rng.h"
#include "toolcall.h"
#include "utf8.h"

enum { MAX_RECORDED_CALLS = 64 };

/* The tools that the goldens in tests/data/chat mean. */
static const char RECORD_TOOLS[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"a\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"},\"m\":{\"type\":"
    "[\"number\",\"null\"]},\"o\":{\"type\":\"object\"},\"s\":{\"type\":[\"string\",\"null\"]}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"need\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":[\"a\"]}}},"
    "{\"name\":\"eval\",\"parameters\":{\"properties\":{\"input\":{\"type\":\"string\"}}}},"
    "{\"name\":\"now\"}]";

struct record {
    struct buf text[3];  /* reasoning, content, raw */
    struct buf all;      /* every event in order, neighbouring texts joined */
    enum toolcall_event_type last;
    struct {
        char id[40];
        struct buf name, arguments;
        bool ended, complete;
    } call[MAX_RECORDED_CALLS];
    int n_call;
    unsigned warnings;
    int n_finished;
    enum toolcall_finish finish;
    int stop;
    int error;
    struct err e;
    bool done;
    bool whole_characters; /* to be checked */
};

static inline void record_init(struct record *r)
{
    *r = (struct record){ .last = TOOLCALL_FINISHED };
    for (size_t i = 0; i < COUNT_OF(r->text); i++)
        buf_init(&r->text[i], SIZE_MAX / 2);
    buf_init(&r->all, SIZE_MAX / 2);
}

static inline void record_release(struct record *r)
{
    for (size_t i = 0; i < COUNT_OF(r->text); i++)
        buf_release(&r->text[i]);
    for (int i = 0; i < MIN(r->n_call, MAX_RECORDED_CALLS); i++) {
        buf_release(&r->call[i].name);
        buf_release(&r->call[i].arguments);
    }
    buf_release(&r->all);
}

static inline void record_call(struct record *r, const struct toolcall_event *ev)
{
    CHECK(ev->index >= 0);
    if (ev->type == TOOLCALL_CALL_BEGIN) {
        CHECK(ev->index == r->n_call && (r->n_call == 0 || ev->index > MAX_RECORDED_CALLS ||
                                         r->call[ev->index - 1].ended));
        r->n_call++;
        buf_printf(&r->all, "%s %s", ev->id, ev->name);
    }
    if (ev->index >= MAX_RECORDED_CALLS)
        return;
    CHECK(ev->index == r->n_call - 1 && !r->call[ev->index].ended);
    if (ev->type == TOOLCALL_CALL_BEGIN) {
        CHECK(strlen(ev->id) == 37 && strncmp(ev->id, "call_", 5) == 0 &&
              strspn(ev->id + 5, "0123456789abcdef") == 32);
        memcpy(r->call[ev->index].id, ev->id, 38);
        buf_init(&r->call[ev->index].name, SIZE_MAX / 2);
        buf_init(&r->call[ev->index].arguments, SIZE_MAX / 2);
        buf_puts(&r->call[ev->index].name, ev->name);
        buf_puts(&r->call[ev->index].arguments, "");
    } else if (ev->type == TOOLCALL_ARGUMENTS) {
        buf_add(&r->call[ev->index].arguments, ev->text, ev->len);
    } else {
        r->call[ev->index].ended = true;
        r->call[ev->index].complete = ev->complete;
    }
}

static inline void record_event(void *user, const struct toolcall_event *ev)
{
    struct record *r = user;
    CHECK(r->n_finished == 0);
    CHECK(!r->whole_characters || !ev->text || utf8_valid_len(ev->text, ev->len) == ev->len);
    if (ev->type != r->last || ev->type == TOOLCALL_WARNING)
        buf_printf(&r->all, "\n%d: ", (int)ev->type);
    r->last = ev->type;
    switch (ev->type) {
    case TOOLCALL_REASONING:
    case TOOLCALL_CONTENT:
    case TOOLCALL_RAW:
        CHECK(ev->len > 0);
        buf_add(&r->text[ev->type == TOOLCALL_RAW ? 2 : ev->type == TOOLCALL_CONTENT], ev->text,
                ev->len);
        buf_add(&r->all, ev->text, ev->len);
        break;
    case TOOLCALL_ARGUMENTS:
        CHECK(ev->len > 0);
        buf_add(&r->all, ev->text, ev->len);
        record_call(r, ev);
        break;
    case TOOLCALL_CALL_BEGIN:
    case TOOLCALL_CALL_END:
        record_call(r, ev);
        buf_printf(&r->all, "%d", ev->complete);
        break;
    case TOOLCALL_WARNING:
        r->warnings |= 1u << ev->warning;
        buf_printf(&r->all, "%d %d", (int)ev->warning, ev->index);
        break;
    case TOOLCALL_FINISHED:
        r->n_finished++;
        r->finish = ev->finish;
        r->stop = ev->stop;
        buf_printf(&r->all, "%d %d", (int)ev->finish, ev->stop);
    }
}

/* How to cut the text into pushes. */
enum cut { CUT_NOT, CUT_BYTES, CUT_RANDOM };

/* Parse len bytes. r is to be released. The text is handed over in copies of exact size, so that
 * a sanitizer sees the first byte read behind them. */
static inline void record_run(struct record *r, const struct toolcall_options *o, const char *text,
                              size_t len, enum cut cut, uint64_t seed,
                              enum toolcall_reason reason)
{
    struct rng rng = { seed, 0 };
    record_init(r);
    r->whole_characters = o->mode == TOOLCALL_DEFAULT;
    struct toolcall_parser *p = toolcall_new(o, record_event, r, &r->e);
    if (!p) {
        r->error = r->e.code;
        return;
    }
    for (size_t at = 0; at < len && r->error == 0;) {
        size_t n = cut == CUT_NOT ? len : cut == CUT_BYTES ? 1 : 1 + rng_next(&rng) % 12;
        n = MIN(n, len - at);
        char *exact = malloc(n);
        CHECK(exact);
        memcpy(exact, text + at, n);
        r->error = toolcall_push(p, exact, n, &r->e);
        free(exact);
        at += n;
    }
    if (r->error == 0)
        r->error = toolcall_finish(p, reason, &r->e);
    r->done = toolcall_is_done(p);
    CHECK(r->error != 0 || r->n_finished == 1);
    toolcall_free(p);
}

/* Every call has ended, and its arguments are one JSON object. */
static inline bool record_is_sound(const struct record *r)
{
    for (int i = 0; i < MIN(r->n_call, MAX_RECORDED_CALLS); i++) {
        const struct buf *a = &r->call[i].arguments;
        const char *end = a->data + a->len;
        const char *p = a->data;
        while (p < end && strchr(" \t\r\n", *p))
            p++;
        if (!r->call[i].ended || p == end || *p != '{' || !pyjson_is_strict(a->data, a->len))
            return false;
    }
    return true;
}

#endif
