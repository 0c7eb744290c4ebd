/* toolcall.h - from the model's output, as it comes, to reasoning, content and tool calls.
 *
 * Bytes go in, in pieces of any size; events come out through one callback, and their
 * concatenation does not depend on the pieces. Three dialects: the vendor encoder's strict
 * parser, the vendor's serving state machine, and our default, which is the latter plus
 * recovery, and never gives arguments that are not JSON. Its texts hold whole characters: pieces
 * may cut one, and bytes that are none become U+FFFD. */
#ifndef DS_TOOLCALL_H
#define DS_TOOLCALL_H

#include "base.h"
#include "error.h"

enum toolcall_mode {
    TOOLCALL_DEFAULT, /* streaming, with recovery; arguments are always valid JSON */
    TOOLCALL_RECIPE,  /* streaming, never fails; arguments are passed through as they are */
    TOOLCALL_STRICT   /* whole text incl. end-of-sentence marker; the first fault is an error */
};

/* Why generation ended, told to toolcall_finish(). */
enum toolcall_reason { TOOLCALL_EOS, TOOLCALL_LENGTH };

enum toolcall_finish { TOOLCALL_FINISH_STOP, TOOLCALL_FINISH_LENGTH, TOOLCALL_FINISH_CALLS };

enum toolcall_event_type {
    TOOLCALL_REASONING,  /* text, len */
    TOOLCALL_CONTENT,    /* text, len */
    TOOLCALL_CALL_BEGIN, /* index, id, name */
    TOOLCALL_ARGUMENTS,  /* index; text, len: the next piece of the JSON text of the arguments */
    TOOLCALL_CALL_END,   /* index; complete */
    TOOLCALL_RAW,        /* text, len: output that is none of the above, such as a call that was
                          * cut off, or text after the calls; for logs, not for users */
    TOOLCALL_WARNING,    /* warning; index of the call or -1 */
    TOOLCALL_FINISHED    /* finish; stop: index of the stop string that matched, or -1 */
};

enum toolcall_warning {
    TOOLCALL_WARN_EXTRA_THINK_END,   /* </think> in content, dropped */
    TOOLCALL_WARN_EXTRA_THINK_BEGIN, /* <think> at the very start, dropped */
    TOOLCALL_WARN_AFTER_END,         /* output after the end of the calls or a stop string */
    TOOLCALL_WARN_CONTROL,           /* a role or sentence marker in the output: taken as the end */
    TOOLCALL_WARN_IN_REASONING,      /* calls inside of reasoning */
    TOOLCALL_WARN_NO_WRAPPER,        /* a call outside of <|DSML|tool_calls> */
    TOOLCALL_WARN_UNKNOWN_TOOL,      /* the name was not declared */
    TOOLCALL_WARN_NO_TYPE,           /* parameter without string="..." */
    TOOLCALL_WARN_BAD_JSON,          /* value was not JSON: given as a string */
    TOOLCALL_WARN_BAD_UTF8,          /* in a call, bytes that are not UTF-8 became U+FFFD */
    TOOLCALL_WARN_DUPLICATE_KEY,     /* the last value counts */
    TOOLCALL_WARN_UNWRAPPED,         /* one parameter `arguments` held the arguments */
    TOOLCALL_WARN_BAD_CLOSE,         /* a closing tag is missing or misspelt */
    TOOLCALL_WARN_STRAY_TEXT,        /* text between parameters or calls, see TOOLCALL_RAW */
    TOOLCALL_WARN_CUT_OFF,           /* output ended inside of a call */
    TOOLCALL_WARN_TOO_LONG           /* more than max_held bytes would have to be held */
};

/* Short English text of a warning, for logs. */
const char *toolcall_warning_text(enum toolcall_warning w);

/* Strings live until the callback returns. */
struct toolcall_event {
    enum toolcall_event_type type;
    int index;              /* of the call, from 0 */
    const char *id, *name;  /* id: call_ and 32 hex digits; name zero-terminated */
    const char *text;       /* not zero-terminated */
    size_t len;
    bool complete;          /* false: cut off; its JSON was closed, but do not run it */
    enum toolcall_warning warning;
    enum toolcall_finish finish;
    int stop;
};
typedef void toolcall_sink(void *user, const struct toolcall_event *ev);

struct toolcall_options {
    enum toolcall_mode mode;
    bool in_reasoning;     /* the prompt ended with <think>, or inside of reasoning */
    bool leading;          /* nothing of this part is in the prompt yet: trim newlines */
    bool parse_calls;      /* false: markup of calls is plain text */
    bool whole_calls;      /* give a call in one piece when it is closed, and cut-off ones never */
    bool stop_at_control;  /* role and sentence markers spelt in the output end it */
    const char *tools;     /* JSON array as in a request, or NULL; default mode parses calls */
    size_t tools_len;      /* only if it declares one */
    const char *const *stop; /* strings that end content */
    int n_stop;
    uint64_t id_seed;      /* ids are a function of it and of the call's index ... */
    void (*random)(void *user, void *out, size_t n); /* ... unless this is given */
    void *random_user;
    size_t max_held;       /* bytes held back at most */
};

/* Default mode, content, leading, parse_calls, stop_at_control, max_held 4 MiB. */
void toolcall_options_init(struct toolcall_options *o);

/* Most stop strings, and bytes of one. */
#define TOOLCALL_MAX_STOP 16
#define TOOLCALL_MAX_STOP_BYTES 1024

struct toolcall_parser;

/* Copies all options. NULL and *e: tools that are not a JSON array of named functions
 * (ERR_FORMAT), empty, too many or too long stop strings (ERR_ARGUMENT, ERR_LIMIT).
 * Memory: the tools, at most about 8 * max_held, and for the moment in which a value that is not a
 * string is checked, jansson's tree of it (up to some 100 times its size). */
struct toolcall_parser *toolcall_new(const struct toolcall_options *o, toolcall_sink *sink,
                                     void *user, struct err *e);
void toolcall_free(struct toolcall_parser *p);

/* Feed output. 0, or ERR_NO_MEMORY, or in strict mode ERR_LIMIT; then nothing more is taken. */
int toolcall_push(struct toolcall_parser *p, const char *data, size_t len, struct err *e);

/* Generation ended: give what is held, end open calls, send TOOLCALL_FINISHED. Once. In strict
 * mode everything happens here, and ERR_FORMAT says what is wrong with the text. */
int toolcall_finish(struct toolcall_parser *p, enum toolcall_reason reason, struct err *e);

/* True once the output is complete: calls closed, stop string or marker seen. Generation can
 * end; what is pushed now comes back as TOOLCALL_RAW. */
bool toolcall_is_done(const struct toolcall_parser *p);

#endif
