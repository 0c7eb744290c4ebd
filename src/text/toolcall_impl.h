/* toolcall_impl.h - what the three dialects of the output parser share. */
#ifndef DS_TOOLCALL_IMPL_H
#define DS_TOOLCALL_IMPL_H

#include "buf.h"
#include "pyjson.h"
#include "toolcall.h"
#include "watch.h"

/* Literals in the order in which they win when one byte completes several. */
enum literal {
    LIT_STOP = 0, /* stop strings: LIT_STOP + i */
    LIT_DSML = TOOLCALL_MAX_STOP, /* an opening tag, with the newlines before it */
    LIT_NEWLINE,
    LIT_THINK_END,  /* with the newlines before it */
    LIT_EXTRA_END,  /* the same text, without */
    LIT_INVOKE,
    LIT_BLOCK_END,
    LIT_BLOCK_END_V41,
    LIT_QUOTE,
    LIT_PARAMETER,
    LIT_CLOSE,
    LIT_TRUE,
    LIT_FALSE,
    LIT_THINK_BEGIN,
    LIT_USER,
    LIT_ASSISTANT,
    LIT_BOS,
    LIT_EOS,
    N_LITERAL
};
#define LIT(x) (UINT64_C(1) << LIT_##x)

struct toolcall_default; /* state of the default dialect */

struct toolcall_parser {
    struct toolcall_options o; /* stop and tools: NULL here */
    toolcall_sink *sink;
    void *user;
    json_t *tools;             /* array of {"name", "parameters"} objects, or NULL */
    char *stop_text;           /* copies of the stop strings, one behind another */
    int n_stop;
    uint64_t stops;            /* their bits in a mask of literals */
    struct watch watch;

    bool in_reasoning, leading; /* while in text */
    bool done, finished, no_memory;
    int stop;                   /* the stop string that matched, or -1 */
    int n_call, n_closed;       /* begun; ended complete */
    unsigned warned;            /* bit w: warning w that is sent once was sent */

    struct buf pending;         /* text of an event that is still growing */
    enum toolcall_event_type pending_type;
    char part[4];               /* default: bytes of a character that is not complete */
    int n_part;

    int state;                  /* of the recipe dialect */
    struct buf text;            /* recipe: name of the call; strict: everything */
    struct toolcall_default *d;
};

/* Events. Neighbouring texts of one type are gathered; tc_flush() ends them for another event. */
void tc_text(struct toolcall_parser *p, enum toolcall_event_type type, const char *s, size_t n);
void tc_puts(struct toolcall_parser *p, enum toolcall_event_type type, const char *s);
void tc_flush(struct toolcall_parser *p);
void tc_call_begin(struct toolcall_parser *p, const char *name);
void tc_call_end(struct toolcall_parser *p, bool complete);
void tc_warn(struct toolcall_parser *p, enum toolcall_warning w, int index);
void tc_warn_once(struct toolcall_parser *p, enum toolcall_warning w); /* index -1 */

/* What to look for in reasoning or content, as in_reasoning and leading say. */
uint64_t tc_text_literals(const struct toolcall_parser *p);

void recipe_new(struct toolcall_parser *p);
void recipe_byte(struct toolcall_parser *p, char c);
void recipe_finish(struct toolcall_parser *p);

int default_new(struct toolcall_parser *p);
void default_free(struct toolcall_parser *p);
void default_byte(struct toolcall_parser *p, char c);
/* Returns the finish reason. */
enum toolcall_finish default_finish(struct toolcall_parser *p, enum toolcall_reason reason);

/* Parse p->text and send all its events. */
int strict_finish(struct toolcall_parser *p, struct err *e);

#endif
