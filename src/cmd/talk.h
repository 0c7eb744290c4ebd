/* talk.h - the messages of a conversation, as JSON, and how they live in a session's file. */
#ifndef DS_TALK_H
#define DS_TALK_H

#include <jansson.h>

#include "error.h"

struct talk {
    json_t *messages; /* array in the shape of the OpenAI chat API */
    json_t *tools;    /* array, or NULL */
};

/* Text for the library; free() each. tools is NULL when there are none. */
struct talk_text {
    char *messages, *tools;
};

int talk_init(struct talk *t, struct err *e);
void talk_release(struct talk *t);

/* Read the tools from a file that holds a JSON array (or one tool, or {"tools": [...]}). */
int talk_read_tools(struct talk *t, const char *path, struct err *e);

/* The system message: set, replaced, or removed when text is "". */
int talk_set_system(struct talk *t, const char *text, struct err *e);
const char *talk_system(const struct talk *t); /* NULL: none */

/* Name of the first call of the last answer that has no result yet; NULL: none. */
const char *talk_open_call(const struct talk *t);

/* What the user says; while a call is open, its result. len bytes, made valid UTF-8 if it is not.*/
int talk_say(struct talk *t, const char *text, size_t len, struct err *e);

/* The answer of the model; calls may be NULL or empty, and are not taken over. */
int talk_answered(struct talk *t, const char *content, const char *reasoning, json_t *calls,
                  struct err *e);

/* Drop all messages but the system message. */
void talk_clear(struct talk *t);

/* Take the last message back. */
void talk_unsay(struct talk *t);

int talk_text(const struct talk *t, struct talk_text *out, struct err *e);
void talk_text_release(struct talk_text *text);

/* The whole as bytes for dstar_session_set_note(), to be freed; and back, replacing everything. */
char *talk_dump(const struct talk *t);
int talk_parse(struct talk *t, const char *data, size_t len, const char *file, struct err *e);

#endif
